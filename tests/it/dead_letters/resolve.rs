//! Dead letters resolved on the embedded log: copies, limits, repeats, and DERIVE's failures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::admit::{PoisonBreaker, PoisonLimit};
use tidewire_engine::dead_letters::{
    DeadLettersError, Filter, REQUEUED_FROM, REQUEUED_REASON, Resolution, ResolveRequest, fetch,
    list, plan, resolutions_of, resolve, trail,
};
use tidewire_engine::derive::{
    ChannelDelivery, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts, Flow, Input,
    OnFailure, Operator, OperatorError, TableDecl, dedup::Dedup,
};
use tidewire_engine::port::Log;
use tidewire_engine::record::Millis;
use tidewire_engine::topology::Topology;
use tidewire_schemas::catalogue::Catalogue;

use tidewire_tests::wall_clock::SystemWallClock;

use super::fixture::{
    FIRST_TIME, admit, append, dead_letter_record, delivered, event, fresh, input,
    numbers_in_input, read, settle,
};

fn requeue(filter: Filter) -> ResolveRequest {
    ResolveRequest { filter, resolution: Resolution::Requeued, because: None, limit: None }
}

fn open_letters(log: &dyn Log, topology: &Topology) -> usize {
    list(log, topology, &Filter::default()).expect("read").open().entries.len()
}

#[test]
fn a_dead_letter_is_requeued_once_however_often_it_was_written_or_requested() {
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    let mut dead_letters: Vec<_> = (0..50).map(|n| dead_letter_record(&topology, n)).collect();
    dead_letters.extend((0..50).step_by(3).map(|n| dead_letter_record(&topology, n)));
    append(&*log, &dead_letters);
    let request = requeue(Filter::default());
    assert_eq!(plan(&*log, &topology, &request).expect("read").count(), 50);
    assert!(numbers_in_input(&*log, &topology).is_empty(), "a plan writes nothing");
    let done = resolve(&*log, &topology, &request).expect("resolved");
    assert_eq!(done.done, BTreeMap::from([("unknown_type".to_owned(), 50)]));
    // ADMIT writes one once more: it crashed before its commit.
    append(&*log, &[dead_letter_record(&topology, 7)]);
    assert_eq!(open_letters(&*log, &topology), 0);
    assert_eq!(resolve(&*log, &topology, &request).expect("resolved").count(), 0);
    let mut back = BTreeMap::new();
    for (at, record) in read(&*log, &topology, topology.input()) {
        let from = trail(record.body.header(REQUEUED_FROM).expect("a trail"));
        assert_eq!(record.body.header(REQUEUED_REASON), Some(&b"unknown_type"[..]));
        assert_eq!(record.body.header("trace"), Some(&b"t1"[..]));
        let n: u64 = from[0].rsplit('/').next().expect("an offset").parse().expect("a number");
        assert_eq!(record.body.value(), Some(&event(n as usize)[..]));
        assert!(from[0].starts_with(&at.to_string()), "{from:?} went back to {at}");
        let numbers: &mut Vec<u64> = back.entry(at).or_default();
        assert!(numbers.last().is_none_or(|last| *last < n), "in the order in which they came");
        numbers.push(n);
    }
    assert_eq!(back.values().map(Vec::len).sum::<usize>(), 50);
}

#[test]
fn filters_and_a_limit_select_and_the_rest_stays_open() {
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    append(&*log, &(0..50).map(|n| dead_letter_record(&topology, n)).collect::<Vec<_>>());
    let (since, until) = (Some(Millis(FIRST_TIME + 10)), Some(Millis(FIRST_TIME + 30)));
    let mut request = requeue(Filter { since, until, ..Filter::default() });
    request.limit = Some(5);
    let done = resolve(&*log, &topology, &request).expect("resolved");
    assert_eq!((done.count(), done.left), (5, 15));
    let mut numbers = numbers_in_input(&*log, &topology);
    numbers.sort_unstable();
    assert_eq!(numbers, [10, 11, 12, 13, 14], "the oldest ones");
    request =
        ResolveRequest { resolution: Resolution::Dropped, because: Some("old".into()), ..request };
    assert_eq!(resolve(&*log, &topology, &request).expect("resolved").count(), 5);
    assert_eq!(numbers_in_input(&*log, &topology).len(), 5, "dropped ones are not requeued");
    assert_eq!(open_letters(&*log, &topology), 40);
    let filter = Filter { until: Some(Millis(FIRST_TIME + 16)), since, ..Filter::default() };
    let entries = list(&*log, &topology, &filter).expect("read").entries;
    let dead_letters = fetch(&*log, &topology, &entries).expect("read");
    let resolutions = resolutions_of(&*log, &topology, &dead_letters[5]).expect("read");
    assert_eq!(resolutions[0].because.as_deref(), Some("old"));
    let ids = ["t.in/0/15".to_owned(), "t.in/1/15".into(), "t.in/2/15".into(), "t.in/3/15".into()];
    let request = requeue(Filter { ids: ids.into(), ..Filter::default() });
    let done = resolve(&*log, &topology, &request).expect("resolved");
    assert_eq!((done.count(), done.absent.len()), (0, 4), "dropped ones are not open");
}

#[test]
fn of_two_concurrent_requeues_one_may_have_to_run_again_and_nothing_is_requeued_twice() {
    const DEAD_LETTERS: usize = 12_000;
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    append(&*log, &(0..DEAD_LETTERS).map(|n| dead_letter_record(&topology, n)).collect::<Vec<_>>());
    let request = requeue(Filter::default());
    let taken_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for head_start in [0, 15, 30] {
            let (log, topology, request, taken_over) = (&log, &topology, &request, &taken_over);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(head_start));
                match resolve(&**log, topology, request) {
                    Ok(_) => {}
                    Err(DeadLettersError::TakenOver { .. }) => {
                        taken_over.store(true, Ordering::SeqCst)
                    }
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    eprintln!("a requeue was fenced and had to run again: {}", taken_over.load(Ordering::SeqCst));
    resolve(&*log, &topology, &request).expect("the last one");
    assert_eq!(open_letters(&*log, &topology), 0);
    let mut numbers = numbers_in_input(&*log, &topology);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..DEAD_LETTERS).collect::<Vec<_>>());
}

#[test]
fn a_record_refused_again_lists_its_former_positions() {
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    append(&*log, &[input(&topology, "k1", b"never an event")]);
    let mut admit = admit(&log, &topology, &PoisonBreaker::new(PoisonLimit::OFF));
    let request = requeue(Filter::default());
    for round in 1..=3 {
        settle(&mut admit);
        let open = list(&*log, &topology, &Filter::default()).expect("read").open();
        let dead_letter = &fetch(&*log, &topology, &open.entries).expect("read")[0];
        assert_eq!(dead_letter.reason(), "not_json");
        assert_eq!(dead_letter.value(), Some(&b"never an event"[..]));
        assert_eq!(dead_letter.source_key(), Some(&b"k1"[..]));
        assert_eq!(dead_letter.trail().len(), round - 1, "{:?}", dead_letter.trail());
        assert_eq!(resolve(&*log, &topology, &request).expect("resolved").count(), 1);
    }
}

/// Whether the operator below fails.
static FAILING: AtomicBool = AtomicBool::new(true);

/// Fails while it is broken, and is one without which no event may be processed.
struct FailingOperator;

impl Operator for FailingOperator {
    fn number(&self) -> u8 {
        41
    }

    fn name(&self) -> &'static str {
        "fragile"
    }

    fn tables(&self) -> &'static [TableDecl] {
        &[]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        match FAILING.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("not fixed yet".to_owned())),
            false => Ok(Flow::Continue),
        }
    }
}

const OPERATORS: &[&dyn Operator] = &[&Dedup, &ChannelDelivery, &FailingOperator];

#[test]
fn an_event_that_failed_in_an_operator_leaves_no_trace_and_passes_when_requeued() {
    let topology = Topology::new("t.", 4);
    let (dir, log) = fresh(&topology);
    let mut value: serde_json::Value = serde_json::from_slice(&event(1)).expect("JSON");
    value["event_id"] = "e-1".into();
    let value = value.to_string().into_bytes();
    let record = input(&topology, "k1", &value);
    let ports = DerivePorts {
        log: log.clone(),
        stores: RocksStores::new(rocks::Config::new(dir.path().join("state"))),
        clock: Arc::new(SystemWallClock),
    };
    let config = DeriveConfig {
        topology: topology.clone(),
        catalogue: Catalogue::builtin(),
        instance: "one".to_owned(),
        thread: 0,
        build: "test".to_owned(),
        settings_hash: 1,
        standby: false,
        dedup_filter_bytes: DEDUP_FILTER_BYTES,
        hash_seed: 0,
    };
    let mut derive = Derive::new(config, ports, OPERATORS).expect("joined");
    let mut admit = admit(&log, &topology, &PoisonBreaker::new(PoisonLimit::OFF));
    let mut settle = || {
        settle(&mut admit);
        for _ in 0..20 {
            derive.turn(Duration::from_millis(5)).expect("no faults");
        }
    };
    append(&*log, std::slice::from_ref(&record));
    settle();
    assert_eq!(
        delivered(&*log, &topology),
        0,
        "the outputs of the operator before are rolled back"
    );
    let open = list(&*log, &topology, &Filter::default()).expect("read").open();
    let dead_letter = &fetch(&*log, &topology, &open.entries).expect("read")[0];
    assert_eq!(dead_letter.reason(), "processing_failed");
    assert!(dead_letter.id().starts_with("t.lane."), "{}", dead_letter.id());
    let done = resolve(&*log, &topology, &requeue(Filter::default())).expect("resolved");
    assert_eq!(done.count(), 1);
    let back = read(&*log, &topology, topology.input());
    assert_eq!(back[1].1.body.value(), dead_letter.value(), "the bytes of its lane record");
    FAILING.store(false, Ordering::SeqCst);
    settle();
    assert_eq!(delivered(&*log, &topology), 3, "to each of its channels, once");
    append(&*log, &[record]);
    settle();
    assert_eq!(delivered(&*log, &topology), 3, "the producer's own copy is a duplicate");
}
