//! What must hold of a history, at any moment and at its end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidewire_engine::admit::SOURCE;
use tidewire_engine::derive::dedup::IDS;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::progress::Progress;
use tidewire_engine::port::{Isolation, Table};
use tidewire_engine::record::{Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::Lane;
use tidewire_schemas::catalogue::{Catalogue, Class};
use tidewire_schemas::envelope::{Origin, admit};
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::id::hash128;

use crate::operators::{COUNTS, FAILING, FAILING_TIMER, FIRED, TIMER_EVERY, number};
use crate::replay;
use crate::world::World;

type State = BTreeMap<(Table, Bytes), Bytes>;
type Id = (String, String);

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn partitions<'a>(
    world: &'a World,
    topic: &'a Topic,
) -> impl Iterator<Item = TopicPartition> + use<'a> {
    (0..world.topology.partitions()).map(|p| TopicPartition::new(topic, Partition(p)))
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// At any moment: no committed offset is past a record nothing has come of, and every store and
/// the rest of its changelog is the fold of the whole changelog.
pub(crate) fn progress(world: &World) -> Result<(), String> {
    no_input_offset_past_a_hole(world)?;
    order_is_contiguous(world)?;
    stores_are_folds(world)
}

fn no_input_offset_past_a_hole(world: &World) -> Result<(), String> {
    let mut done = BTreeSet::new();
    for lane in Lane::ALL {
        for at in partitions(world, world.topology.lane(lane)) {
            let records = world.records(&at);
            done.extend(records.iter().map(|record| text(record.body.header(SOURCE))));
        }
    }
    for at in partitions(world, world.topology.dead_letters()) {
        // ADMIT's may stand behind a transaction of DERIVE's that is still open.
        let records = world.log.records(&at, Isolation::Uncommitted);
        done.extend(records.iter().map(|record| text(record.body.key())));
    }
    let group = world.topology.admit_group();
    for topic in [world.topology.input(), world.topology.input_urgent()] {
        for at in partitions(world, topic) {
            for offset in 0..world.committed(&group, &at).unwrap_or(0) {
                let position = format!("{at}/{offset}");
                ensure(done.contains(&position), || format!("{position} is committed and lost"))?;
            }
        }
    }
    Ok(())
}

fn orders(world: &World, partition: Partition) -> Result<Vec<(u64, OrderRecord)>, String> {
    let at = TopicPartition::new(world.topology.order(), partition);
    let decode = |record: &Record| {
        let order = OrderRecord::decode(record.body.value().unwrap_or_default());
        Ok((record.offset.0, order.map_err(|error| error.to_string())?))
    };
    world.records(&at).iter().map(decode).collect()
}

/// Each lane is taken without a gap or a repetition, time never goes back, and the committed
/// offsets are where the last transaction left them.
fn order_is_contiguous(world: &World) -> Result<(), String> {
    for p in 0..world.topology.partitions() {
        let mut next = [0u64; 5];
        let mut time = None;
        for (offset, order) in orders(world, Partition(p))? {
            for lane in Lane::ALL {
                let Some(span) = order.spans[lane.index()] else { continue };
                let at = &mut next[lane.index()];
                ensure(span.first.0 == *at, || {
                    format!("order {p}/{offset}: {lane:?} goes on at {} not {at}", span.first.0)
                })?;
                *at = span.last.0 + 1;
            }
            let taken: u64 = order.sequence.iter().map(|(_, n)| u64::from(*n)).sum();
            let spans: u64 =
                order.spans.iter().flatten().map(|span| span.last.0 + 1 - span.first.0).sum();
            ensure(taken == spans, || format!("order {p}/{offset}: {taken} taken of {spans}"))?;
            ensure(time.is_none_or(|t| t == order.time_before), || {
                format!("order {p}/{offset}: time goes on at {:?} not {time:?}", order.time_before)
            })?;
            time = Some(order.time_after);
        }
        for lane in Lane::ALL {
            let at = TopicPartition::new(world.topology.lane(lane), Partition(p));
            let committed = world.committed(&world.topology.derive_group(), &at).unwrap_or(0);
            ensure(committed == next[lane.index()], || {
                format!("{at}: committed {committed}, taken to {}", next[lane.index()])
            })?;
        }
    }
    Ok(())
}

/// Applies the changelogs from these offsets on.
fn fold(world: &World, p: Partition, from: (u64, u64), state: &mut State) -> Result<(), String> {
    let at = TopicPartition::new(world.topology.state(), p);
    for record in world.records(&at).iter().filter(|record| record.offset.0 >= from.0) {
        let key = record.body.key().ok_or("a state record without a key")?;
        let (table, key) = key.split_first().ok_or("a state record with an empty key")?;
        let key = (Table(*table), Bytes::copy_from_slice(key));
        match record.body.value() {
            Some(value) => drop(state.insert(key, Bytes::copy_from_slice(value))),
            None => drop(state.remove(&key)),
        }
    }
    for (offset, order) in orders(world, p)? {
        for run in order.accepted.iter().filter(|_| offset >= from.1) {
            for id in &run.ids {
                let at = Bytes::copy_from_slice(&run.at.0.to_be_bytes());
                state.insert((IDS, Bytes::copy_from_slice(id)), at);
            }
        }
    }
    Ok(())
}

fn stores_are_folds(world: &World) -> Result<(), String> {
    for (machine, stores) in world.machines.iter().enumerate() {
        for (p, disk) in stores.disks().iter() {
            let mut whole = State::new();
            fold(world, Partition(*p), (0, 0), &mut whole)?;
            let mut state = disk.data.clone();
            let from = match &disk.progress {
                None => (0, 0),
                Some(progress) => {
                    let progress = Progress::decode(progress).ok_or("progress is unreadable")?;
                    (progress.state.0, progress.order.0)
                }
            };
            fold(world, Partition(*p), from, &mut state)?;
            ensure(state == whole, || {
                let first = whole
                    .iter()
                    .find(|(key, value)| state.get(*key) != Some(*value))
                    .map(|(key, _)| key)
                    .or_else(|| state.keys().find(|key| !whole.contains_key(*key)));
                format!("machine {machine}, partition {p}: the store differs at {first:?}")
            })?;
        }
    }
    Ok(())
}

/// What the inputs ask for.
struct Expected {
    /// Every id, with the first event that has it, in the order of the inputs.
    events: BTreeMap<Id, Event>,
}

fn expected(world: &World) -> Expected {
    let mut events = BTreeMap::new();
    for topic in [world.topology.input(), world.topology.input_urgent()] {
        for at in partitions(world, topic) {
            for record in world.records(&at) {
                let origin = Origin {
                    topic: at.topic.as_str(),
                    partition: at.partition.0,
                    offset: record.offset.0,
                    append_time_ms: record.timestamp.0,
                };
                if let Ok(admitted) = admit(Catalogue::builtin(), record.body.value(), &origin) {
                    let event = admitted.event;
                    let id = (event.account_id.clone(), event.event_id.clone());
                    events.entry(id).or_insert(event);
                }
            }
        }
    }
    Expected { events }
}

/// At the end: everything was delivered once and in order, and everything else is a dead letter.
pub(crate) fn end(world: &World) -> Result<(), String> {
    let expected = expected(world);
    ensure(!expected.events.is_empty(), || "the history is empty".to_owned())?;
    delivered_once(world, &expected)?;
    order_is_kept(world)?;
    ids_are_accepted_once(world, &expected)?;
    dead_letters_are_complete(world)?;
    counts_are_exact(world, &expected)?;
    replay::comes_out_again(world)
}

fn outputs(world: &World) -> Vec<(Topic, Record)> {
    let topology = &world.topology;
    let mut outputs = Vec::new();
    for topic in [topology.out_urgent(), topology.out_stream(), topology.out_state()] {
        for at in partitions(world, topic) {
            outputs.extend(world.records(&at).into_iter().map(|r| (at.topic.clone(), r)));
        }
    }
    outputs
}

fn fails(id: &Id) -> bool {
    id.1.contains(FAILING)
}

fn delivered_once(world: &World, expected: &Expected) -> Result<(), String> {
    let mut wanted = BTreeMap::<(String, Bytes), u32>::new();
    for (_, event) in expected.events.iter().filter(|(id, _)| !fails(id)) {
        let deliveries = Catalogue::builtin().deliveries(&event.view());
        for to in deliveries.map_err(|error| error.to_string())? {
            let key = match to.class {
                Class::Stream => to.channel,
                Class::State => {
                    let key = to.state_key.unwrap_or_default();
                    format!("{}\0{}\0{key}", to.channel, event.account_id)
                }
                Class::Ephemeral | Class::Derived => continue,
            };
            *wanted.entry((key, event.encode().into())).or_default() += 1;
        }
    }
    let mut got = BTreeMap::<(String, Bytes), u32>::new();
    for (_, record) in outputs(world) {
        let value = Bytes::copy_from_slice(record.body.value().unwrap_or_default());
        *got.entry((text(record.body.key()), value)).or_default() += 1;
    }
    for (key, wanted) in &wanted {
        let got = got.get(key).copied().unwrap_or(0);
        ensure(got == *wanted, || {
            let event = EventView::decode(&key.1).expect("it was encoded");
            format!("{} to {}: delivered {got} times, not {wanted}", event.event_id, key.0)
        })?;
    }
    ensure(got.len() == wanted.len(), || "something was delivered that was never sent".to_owned())
}

/// Per channel, entity key and priority, events come in the order they were sent. The sequence is
/// in their text.
fn order_is_kept(world: &World) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for (topic, record) in outputs(world) {
        let event = EventView::decode(record.body.value().unwrap_or_default())
            .map_err(|error| error.to_string())?;
        let data: serde_json::Value =
            serde_json::from_str(event.data).map_err(|error| error.to_string())?;
        let sequence: u64 =
            data["text"].as_str().and_then(|text| text.parse().ok()).ok_or("no sequence")?;
        let of = (topic, text(record.body.key()), event.key.to_owned(), event.priority.number());
        let before = last.insert(of.clone(), sequence);
        ensure(before.is_none_or(|before| before < sequence), || {
            format!("{of:?}: {sequence} comes after {before:?}")
        })?;
    }
    Ok(())
}

fn ids_are_accepted_once(world: &World, expected: &Expected) -> Result<(), String> {
    let mut accepted = Vec::new();
    for p in 0..world.topology.partitions() {
        for (_, order) in orders(world, Partition(p))? {
            accepted.extend(order.accepted.into_iter().flat_map(|run| run.ids));
        }
    }
    accepted.sort_unstable();
    // What fails is not accepted, so that it passes once it is mended and requeued.
    let passed = expected.events.keys().filter(|id| !fails(id));
    let mut wanted: Vec<_> = passed.map(|(account, id)| hash128(account, id)).collect();
    wanted.sort_unstable();
    ensure(accepted == wanted, || format!("{} ids accepted of {}", accepted.len(), wanted.len()))
}

fn dead_letters_are_complete(world: &World) -> Result<(), String> {
    let (mut letters, mut failed) = (BTreeMap::<String, Vec<Vec<u8>>>::new(), 0);
    for at in partitions(world, world.topology.dead_letters()) {
        for record in world.records(&at) {
            if record.body.header("reason") == Some(b"processing_failed") {
                // What timers leave is no lane's record.
                let timer = text(record.body.header("detail")).starts_with("timer of counter");
                failed += usize::from(!timer);
                continue;
            }
            let value = record.body.value().unwrap_or_default().to_vec();
            letters.entry(text(record.body.key())).or_default().push(value);
        }
    }
    for (position, value) in &world.lane_poison {
        let letters = letters.remove(position);
        ensure(letters.as_deref() == Some(std::slice::from_ref(value)), || {
            format!("{position}: a poisoned lane record has the dead letters {letters:?}")
        })?;
    }
    for (position, value) in &world.poison {
        let letters = letters.remove(position).unwrap_or_default();
        let whole = !letters.is_empty() && letters.iter().all(|letter| letter == value);
        ensure(whole, || format!("{position}: a poisoned record has no whole dead letter"))?;
    }
    ensure(letters.is_empty(), || format!("dead letters of nothing: {letters:?}"))?;
    let failing = failing_lane_records(world)?;
    ensure(failed == failing, || format!("{failed} dead letters of {failing} failures"))
}

/// Each saying of an event that fails is put aside.
fn failing_lane_records(world: &World) -> Result<usize, String> {
    let mut failing = 0;
    for lane in Lane::ALL {
        for at in partitions(world, world.topology.lane(lane)) {
            for record in world.records(&at) {
                let event = EventView::decode(record.body.value().unwrap_or_default());
                failing += usize::from(event.is_ok_and(|event| event.event_id.contains(FAILING)));
            }
        }
    }
    Ok(failing)
}

/// The counter's state is what was delivered; its timers have all fired.
fn counts_are_exact(world: &World, expected: &Expected) -> Result<(), String> {
    let mut wanted = BTreeMap::<String, u64>::new();
    for (_, event) in expected.events.iter().filter(|(id, _)| !fails(id)) {
        *wanted.entry(event.key.clone()).or_default() += 1;
    }
    for (key, wanted) in wanted {
        let p = world.topology.partition_of(key.as_bytes());
        let mut state = State::new();
        fold(world, p, (0, 0), &mut state)?;
        let of = |table| {
            let key = (table, Bytes::copy_from_slice(key.as_bytes()));
            state.get(&key).map_or(0, number)
        };
        let (count, fired) = (of(COUNTS), of(FIRED));
        ensure(count == wanted, || format!("{key}: counted {count}, not {wanted}"))?;
        let timers = if key == FAILING_TIMER { 0 } else { wanted / TIMER_EVERY };
        // Timers of one key at one time are one timer.
        ensure(fired <= timers && (timers == 0) == (fired == 0), || {
            format!("{key}: {fired} timers fired, {timers} were set")
        })?;
    }
    Ok(())
}
