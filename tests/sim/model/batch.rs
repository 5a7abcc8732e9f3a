//! The model of a transaction: what one task must write, derived from its `order` record.
//!
//! Only which records were read, and when, is taken from the record; everything else is computed.
//! A pack of facts is read whole in one transaction, and no tick comes between its entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tidewire_engine::derive::MAX_TIMERS_PER_TICK;
use tidewire_engine::derive::order::{Accepted, OrderRecord, Tick};
use tidewire_engine::fact_pack::{self, PackEntry};
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::port::Table;
use tidewire_engine::record::{Body, Millis, Offset, Partition, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::{Verdict, VerdictSource};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::{Catalogue, Class};
use tidewire_schemas::event::EventView;

use super::audit::{ExpectedAudit, fact_line};
use super::ensure::ensure;
use super::operators::{
    self, CounterOutcome, EmittedFact, EventOrigin, EventTimes, LEASES, ModelOutcome, TIMERS,
};
use super::partials;
use super::task::{SealedTransaction, TakenSource, TaskModel};
use crate::fake::LogState;

/// An output as it must be.
#[derive(Debug)]
pub(super) struct ExpectedOutput {
    pub(super) to: TopicPartition,
    key: Bytes,
    value: Bytes,
    /// A dead letter's.
    reason: Option<&'static str>,
    /// A fact's hops and time.
    fact: Option<(u8, Millis)>,
}

impl ExpectedOutput {
    /// Whether this record is that output.
    pub(super) fn matches(&self, body: &Body) -> bool {
        let reason = || body.header("reason") == self.reason.map(str::as_bytes);
        let hops = self.fact.map(|(hops, _)| [hops]);
        let time = self.fact.map(|(_, time)| time.0.to_be_bytes());
        let fact = || {
            body.header("tw-hops") == hops.as_ref().map(<[u8; 1]>::as_slice)
                && body.header("tw-time") == time.as_ref().map(<[u8; 8]>::as_slice)
        };
        let key = || body.key() == Some(&self.key[..]);
        body.value() == Some(&self.value[..]) && key() && reason() && fact()
    }
}

/// What a transaction of a task must contain.
#[derive(Debug, Default)]
pub(super) struct ExpectedOutputs {
    pub(super) outputs: VecDeque<ExpectedOutput>,
    accepted: Vec<Accepted>,
    dead_letters: Vec<u32>,
    audit: ExpectedAudit,
}

impl ExpectedOutputs {
    /// Removes the first outputs to this partition.
    fn take(&mut self, count: usize, to: &TopicPartition) {
        let mut left = count;
        self.outputs.retain(|output| {
            let is_taken = left > 0 && output.to == *to;
            left -= usize::from(is_taken);
            !is_taken
        });
    }
}

impl TaskModel {
    /// Applies a committed transaction and returns its expected outputs.
    pub(super) fn commit(
        &mut self,
        sealed: &SealedTransaction<'_>,
        log: &LogState,
        topology: &Topology,
    ) -> Result<ExpectedOutputs, String> {
        let order = &sealed.order;
        self.check_continues_the_last(order)?;
        let mut replay = TransactionReplay {
            log,
            topology,
            task: self,
            read: [None; Lane::COUNT],
            pack: None,
            expected: ExpectedOutputs::default(),
        };
        replay.follow(order)?;
        let (expected, read) = (replay.expected, replay.read);
        let (outputs, parts) = (expected.outputs.len(), sealed.audit.len());
        ensure(order.outputs as usize == outputs + parts, || {
            format!("{} outputs, not {outputs} and {parts} of the audit", order.outputs)
        })?;
        expected.audit.check(&sealed.audit)?;
        for lane in Lane::ALL {
            let read = read[lane.index()];
            let span = order.spans[lane.index()].map(|span| (span.first.0, span.last.0));
            ensure(span == read, || {
                format!("{lane:?}: {read:?} was read, and the order record has {span:?}")
            })?;
        }
        self.seal(sealed)?;
        Ok(expected)
    }
}

/// Executes what one `order` record describes.
struct TransactionReplay<'a> {
    log: &'a LogState,
    topology: &'a Topology,
    task: &'a mut TaskModel,
    /// The first and the last record read of each lane.
    read: [Option<(u64, u64)>; Lane::COUNT],
    /// The entries of a pack that were not processed yet.
    pack: Option<UnreadEntries>,
    expected: ExpectedOutputs,
}

/// The rest of a pack of facts.
struct UnreadEntries {
    lane: Lane,
    offset: u64,
    time: Millis,
    entries: VecDeque<Body>,
    /// The index of the first of them.
    next: usize,
}

/// A record of a lane, or an entry of a pack.
struct ReadRecord {
    /// Its position.
    position: String,
    time: Millis,
    body: Body,
}

impl TransactionReplay<'_> {
    /// Reads what the record says was read, in its order.
    fn follow(&mut self, order: &OrderRecord) -> Result<(), String> {
        let mut ticks = order.ticks.iter().peekable();
        let mut taken = 0;
        for (lane, count) in &order.sequence {
            for _ in 0..*count {
                while let Some(tick) = ticks.next_if(|tick| tick.after <= taken) {
                    self.tick(tick)?;
                }
                self.take(*lane, taken)?;
                self.flush_early();
                taken += 1;
            }
        }
        ticks.try_for_each(|tick| self.tick(tick))?;
        self.check_pack_is_read()?;
        self.check_order(order)
    }

    fn check_pack_is_read(&self) -> Result<(), String> {
        let left = self.pack.as_ref().filter(|pack| !pack.entries.is_empty());
        left.map_or(Ok(()), |pack| {
            Err(format!("{} entries of a pack of {:?} were left", pack.entries.len(), pack.lane))
        })
    }

    fn check_order(&self, order: &OrderRecord) -> Result<(), String> {
        let expected = &self.expected;
        ensure(order.after.0 == self.task.times, || {
            format!("time after is {:?}, not {:?}", order.after, self.task.times)
        })?;
        ensure(order.accepted == expected.accepted, || {
            format!("accepted {:?}, not {:?}", order.accepted, expected.accepted)
        })?;
        ensure(order.dead_letters == expected.dead_letters, || {
            format!("dead letters {:?}, not {:?}", order.dead_letters, expected.dead_letters)
        })
    }

    /// Of a lane that a tick moves, all must be read that the log held when its end was requested,
    /// and no transaction may have been open there: its records would come with earlier times.
    fn tick(&mut self, tick: &Tick) -> Result<(), String> {
        self.check_pack_is_read()?;
        for lane in Lane::ALL.into_iter().filter(|lane| tick.ended.contains(*lane)) {
            let of = TopicPartition::new(self.topology.lane(lane), self.task.partition);
            let end = self.task.end_at(lane, tick.at);
            let end = end.ok_or_else(|| format!("{of}: no end was requested at {:?}", tick.at))?;
            let left = self.log.next_pending(&of, self.task.lanes[lane.index()]);
            ensure(left.is_none_or(|left| left >= end), || {
                format!("{of}: a tick, and {left:?} waits, before {end:?} of the request")
            })?;
            let time = &mut self.task.times[lane.index()];
            *time = tick.at.max(*time);
        }
        self.fire(LEASES, self.task.times[Lane::Critical.index()]);
        self.fire(TIMERS, self.task.settled());
        let at = (self.task.partition, self.task.latest());
        for timer in partials::due(&self.task.tables, at.1).iter().take(MAX_TIMERS_PER_TICK) {
            let sent = partials::end_partial(&mut self.task.tables, timer, at);
            self.parts(sent);
        }
        self.flush_early();
        Ok(())
    }

    /// Fires the first timers of a table that are due at this time.
    fn fire(&mut self, table: Table, time: Millis) {
        let due = operators::due_before(&self.task.tables, table, time);
        for stored in due.iter().take(MAX_TIMERS_PER_TICK) {
            let due = operators::due_time(stored);
            let fired = operators::fire(&mut self.task.tables, table, stored);
            let Some((cause, called)) = fired else { continue };
            self.expected.audit.timer();
            let (order, partition) = (self.topology.order(), self.task.partition.0);
            let id = operators::timer_id(&cause);
            let letter = format!("{order}/{partition}/{}/counter/{id}", due.0);
            self.called(called, letter, cause);
        }
    }

    /// Sends parts of totals, if the task keeps too many.
    fn flush_early(&mut self) {
        let sent = partials::flush_early(&mut self.task.tables, self.task.partition);
        self.parts(sent);
    }

    /// The next record of a lane, or the next entry of its pack.
    fn read(&mut self, lane: Lane) -> Result<ReadRecord, String> {
        let at = TopicPartition::new(self.topology.lane(lane), self.task.partition);
        if let Some(pack) = &mut self.pack
            && let Some(body) = pack.entries.pop_front()
        {
            ensure(pack.lane == lane, || format!("{at}: {lane:?} was read within a pack"))?;
            let position = format!("{at}/{}/{}", pack.offset, pack.next);
            self.expected.audit.record(lane, &format!("{}/{}", pack.offset, pack.next));
            pack.next += 1;
            return Ok(ReadRecord { position, time: pack.time, body });
        }
        let from = self.task.lanes[lane.index()];
        // Control records and those of aborted transactions lie between facts.
        let Some((offset, time, body)) = self.log.next_record(&at, from) else {
            return Err(format!("{at}: a record from {from} on was read and does not exist"));
        };
        self.task.lanes[lane.index()] = offset + 1;
        let first = self.read[lane.index()].map_or(offset, |(first, _)| first);
        self.read[lane.index()] = Some((first, offset));
        let is_fact = matches!(lane, Lane::Facts | Lane::FactsUrgent);
        let entries = if is_fact { entries_of(body).ok() } else { None };
        // What is no pack becomes a dead letter whole.
        let Some(entries) = entries.map(VecDeque::from) else {
            self.expected.audit.record(lane, &offset.to_string());
            return Ok(ReadRecord { position: format!("{at}/{offset}"), time, body: body.clone() });
        };
        self.pack = Some(UnreadEntries { lane, offset, time, entries, next: 0 });
        self.read(lane)
    }

    fn take(&mut self, lane: Lane, nth: u32) -> Result<(), String> {
        let ReadRecord { position, time, body } = self.read(lane)?;
        let body = &body;
        let verdict = body.header(VERDICT).map(Verdict::decode).transpose();
        let verdict = verdict.map_err(|error| error.to_string())?;
        let of_fact = body.header("tw-time").and_then(|time| time.try_into().ok());
        let of_fact = of_fact.map(|time| Millis(i64::from_be_bytes(time)));
        let stated = verdict.as_ref().map(|verdict| verdict.append_time).or(of_fact);
        let appended = stated.unwrap_or(time);
        let consumed = &mut self.task.times[lane.index()];
        *consumed = appended.max(*consumed);
        let (settled, latest) = (self.task.settled(), self.task.latest());
        let times = EventTimes { appended, settled, latest };
        if body.header("tw-operator").is_some() {
            return self.requeued(body, format!("{position}/counter"), times);
        }
        if let Some(verdict) = verdict {
            let VerdictSource { input, topic, partition, offset: Offset(offset), .. } =
                verdict.source;
            if !self.task.sources.insert(TakenSource { lane, input, topic, partition, offset }) {
                self.expected.audit.line("copy".to_owned());
                return Ok(());
            }
        }
        let value = body.value_bytes().unwrap_or_default();
        let Ok(event) = EventView::decode(&value) else {
            self.expected.dead_letters.push(nth);
            self.expected.audit.line(format!("set aside {position}"));
            self.dead_letter(position, value, "avro_decode");
            return Ok(());
        };
        self.expected.audit.line(format!("event {}", event.event_id));
        match operators::event(
            &mut self.task.tables,
            &event,
            origin((lane, self.task.partition), body, &event),
            times,
        ) {
            ModelOutcome::Duplicate => self.expected.audit.line("duplicate".to_owned()),
            ModelOutcome::Aside => {
                self.expected.dead_letters.push(nth);
                self.expected.audit.line(format!("set aside {position}"));
                self.dead_letter(position, value.clone(), "processing_failed");
            }
            ModelOutcome::Fact(called) => {
                self.called(called, format!("{position}/counter"), value.clone());
                self.deliver(&event, &value)?;
            }
            ModelOutcome::Accepted(id, called) => {
                self.accept(id, times);
                self.called(called, format!("{position}/counter"), value.clone());
                self.deliver(&event, &value)?;
            }
        }
        Ok(())
    }

    /// Only the counter gets a record that was requeued.
    fn requeued(&mut self, body: &Body, letter: String, times: EventTimes) -> Result<(), String> {
        ensure(body.header("tw-operator") == Some(b"counter"), || "nothing else fails".to_owned())?;
        let value = body.value_bytes().unwrap_or_default();
        self.expected.audit.line("requeued counter".to_owned());
        let (partition, tables) = (self.task.partition, &mut self.task.tables);
        let called = match body.header("tw-trigger") {
            Some(b"event") => {
                let event = EventView::decode(&value).map_err(|error| error.to_string())?;
                self.expected.audit.line(format!("event {}", event.event_id));
                operators::count(
                    tables,
                    &event,
                    origin((Lane::Facts, partition), body, &event),
                    times,
                )
            }
            _ => {
                let key = body.key().unwrap_or_default();
                operators::call_timer(tables, key, &value, times.appended)
            }
        };
        self.called(called, letter, value);
        Ok(())
    }

    /// The counter's fact, or its dead letter.
    fn called(&mut self, called: CounterOutcome, letter: String, cause: Bytes) {
        match called {
            CounterOutcome::Done => {}
            CounterOutcome::Failed => {
                self.expected.audit.line(format!("failed {letter}"));
                self.dead_letter(letter, cause, "processing_failed");
            }
            CounterOutcome::Emitted(fact) => self.fact(fact),
        }
    }

    /// Sends parts of totals.
    fn parts(&mut self, sent: Vec<EmittedFact>) {
        for part in sent {
            self.expected.audit.part();
            self.fact(part);
        }
    }

    fn fact(&mut self, fact: EmittedFact) {
        let partition = self.topology.entity_partition(&fact.account, &fact.key);
        let lane = if fact.urgent { Lane::FactsUrgent } else { Lane::Facts };
        self.expected.audit.line(fact_line(&fact.key, lane));
        self.expected.outputs.push_back(ExpectedOutput {
            to: TopicPartition::new(self.topology.lane(lane), partition),
            key: fact.key.into(),
            value: fact.value.into(),
            reason: None,
            fact: Some((fact.hops, fact.time)),
        });
    }

    fn accept(&mut self, id: [u8; 16], times: EventTimes) {
        let (at, since) = (times.appended, times.appended.max(times.settled));
        match self.expected.accepted.last_mut() {
            Some(run) if (run.at, run.since) == (at, since) => run.ids.push(id),
            _ => self.expected.accepted.push(Accepted { at, since, ids: vec![id] }),
        }
    }

    fn dead_letter(&mut self, key: String, value: Bytes, reason: &'static str) {
        let partition = self.topology.partition_of(key.as_bytes());
        let to = TopicPartition::new(self.topology.dead_letters(), partition);
        let (key, reason) = (key.into(), Some(reason));
        self.expected.outputs.push_back(ExpectedOutput { to, key, value, reason, fact: None });
    }

    fn deliver(&mut self, event: &EventView<'_>, value: &Bytes) -> Result<(), String> {
        let deliveries = Catalogue::builtin().deliveries(event).map_err(|e| e.to_string())?;
        for delivery in deliveries {
            let topic: &Topic = match delivery.class {
                Class::Stream if Lane::of(event.priority) == Lane::Critical => {
                    self.topology.out_urgent()
                }
                Class::Stream => self.topology.out_stream(),
                Class::State | Class::Ephemeral | Class::Derived => {
                    return Err(format!("{} has a class no producer sends", event.event_type));
                }
            };
            let partition = self.topology.partition_of(delivery.channel.as_bytes());
            let kind = if topic == self.topology.out_urgent() { "urgent" } else { "channel" };
            self.expected.audit.line(format!("{kind} {}", delivery.channel));
            self.expected.outputs.push_back(ExpectedOutput {
                to: TopicPartition::new(topic, partition),
                key: delivery.channel.into_bytes().into(),
                value: value.clone(),
                reason: None,
                fact: None,
            });
        }
        Ok(())
    }
}

/// Removes the outputs that the transaction wrote to a partition, each task's in order.
///
/// Tasks may make the same record, since each gets a copy of a broadcast event. So there may be
/// several ways to tell whose records these are, and one of them must explain all.
pub(super) fn take_outputs(
    expected: &mut BTreeMap<u32, ExpectedOutputs>,
    to: &TopicPartition,
    bodies: &[Body],
) -> Result<(), String> {
    let of_task = |task: &ExpectedOutputs| -> Vec<usize> {
        let of_partition = task.outputs.iter().enumerate().filter(|(_, output)| output.to == *to);
        of_partition.map(|(at, _)| at).collect()
    };
    let tasks: Vec<_> = expected.values().map(|task| (task, of_task(task))).collect();
    // How many outputs of each task were taken.
    let mut ways = BTreeSet::from([vec![0; tasks.len()]]);
    for body in bodies {
        let mut longer = BTreeSet::new();
        for way in &ways {
            for (n, (task, outputs)) in tasks.iter().enumerate() {
                let next = outputs.get(way[n]).map(|at| &task.outputs[*at]);
                if next.is_some_and(|next| next.matches(body)) {
                    let mut way = way.clone();
                    way[n] += 1;
                    longer.insert(way);
                }
            }
        }
        ways = longer;
        ensure(!ways.is_empty(), || {
            let key = String::from_utf8_lossy(body.key().unwrap_or_default()).into_owned();
            format!("{to}: no record that was read makes an output of key {key:?}")
        })?;
    }
    let way = ways.pop_first().expect("it is not empty");
    expected.values_mut().zip(way).for_each(|(task, count)| task.take(count, to));
    Ok(())
}

/// The entries of a pack as records.
pub(super) fn entries_of(pack: &Body) -> Result<Vec<Body>, String> {
    let bytes = pack.value_bytes().ok_or("a pack of facts without a value")?;
    let entries = fact_pack::decode(&bytes).map_err(|error| error.to_string())?;
    let is_small = entries.len() == 1 || bytes.len() <= fact_pack::PACK_MAX_BYTES;
    ensure(is_small, || format!("a pack of {} entries has {} bytes", entries.len(), bytes.len()))?;
    Ok(entries.iter().map(PackEntry::to_body).collect())
}

/// What led to the event of a lane's record.
fn origin((lane, task): (Lane, Partition), body: &Body, event: &EventView<'_>) -> EventOrigin {
    let known = Catalogue::builtin().resolve(event.event_type);
    EventOrigin {
        hops: body.header("tw-hops").map_or(0, |hops| hops[0]),
        urgent: event.priority == Priority::Critical || lane == Lane::FactsUrgent,
        is_fact: body.header("tw-hops").is_some(),
        task: known.is_some_and(|of| of.broadcast).then_some(task),
    }
}
