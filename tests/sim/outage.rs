//! DERIVE is stopped for some time while all lanes get records, and then catches up.
//!
//! The result must be that of a pipeline that was never stopped: the same events are delivered,
//! each once, although copies wait in slower lanes than their first ones.

use std::collections::BTreeSet;

use tidewire_engine::operators::OPERATORS;
use tidewire_engine::replay::{ReplayRange, TaskSpec};
use tidewire_engine::topology::Lane;
use tidewire_schemas::catalogue::Catalogue;

use crate::fake::FakeStores;
use crate::one_partition::{OnePartition, PARTITION};
use crate::replay::verify;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Steps in which producers write, before, during and after the stop.
const STEPS: usize = 40;

/// In each step two new events are written in fast lanes. Copies of events of earlier steps come in
/// slower lanes.
fn produce(pipeline: &mut OnePartition, step: usize) {
    let lanes = [Lane::Critical, Lane::High, Lane::Normal, Lane::Low];
    pipeline.produce_in(lanes[step % 2], &format!("a-{step}"));
    pipeline.produce_in(lanes[step % 4], &format!("b-{step}"));
    for (name, back) in [("a", 1), ("b", 2), ("a", 3)] {
        if let Some(of) = step.checked_sub(back) {
            pipeline.produce_in(lanes[2 + step % 2], &format!("{name}-{of}"));
        }
    }
    pipeline.admit(false);
}

/// Runs all steps; DERIVE stops for `stopped_ms` during the steps of the middle.
fn run(stopped_ms: i64) -> OnePartition {
    let mut pipeline = OnePartition::new();
    let middle = STEPS / 4..3 * STEPS / 4;
    for step in 0..STEPS {
        produce(&mut pipeline, step);
        if !middle.contains(&step) || stopped_ms == 0 {
            pipeline.derive();
            pipeline.pass(MINUTE_MS / 2);
            continue;
        }
        pipeline.pass(stopped_ms / middle.len() as i64);
        if step + 1 == middle.end {
            // It starts, is stopped in the middle of its backlog, and starts again.
            pipeline.derive_turns(3);
            pipeline.restart_derive();
            pipeline.derive();
        }
    }
    pipeline.derive();
    pipeline
}

fn check(stopped_ms: i64) {
    let (whole, stopped) = (run(0), run(stopped_ms));
    let delivered = stopped.delivered();
    let once: BTreeSet<&String> = delivered.iter().collect();
    assert_eq!(once.len(), delivered.len(), "no event is delivered twice: {delivered:?}");
    assert_eq!(once, whole.delivered().iter().collect(), "the same events are delivered");
    let task = TaskSpec {
        topology: stopped.topology.clone(),
        partition: PARTITION,
        build: "sim".to_owned(),
        catalogue: Catalogue::builtin(),
        settings_hash: 7,
        operators: OPERATORS,
    };
    let stores = FakeStores::new(1, &stopped.log);
    let replayed = verify(&stopped.log, &task, &stores, ReplayRange::default());
    assert_eq!(replayed.expect("it is replayed").1, None);
}

#[test]
fn after_25_hours_every_event_is_delivered_once() {
    check(25 * HOUR_MS);
}

#[test]
fn after_20_minutes_every_event_is_delivered_once() {
    check(20 * MINUTE_MS);
}

#[test]
fn a_second_copy_a_day_later_is_dropped_if_its_first_one_waited_as_long() {
    let mut pipeline = OnePartition::new();
    pipeline.produce_in(Lane::Low, "e-0");
    pipeline.admit(false);
    pipeline.derive();
    pipeline.produce_in(Lane::High, "e-1");
    pipeline.produce_in(Lane::Low, "e-1");
    pipeline.admit(false);
    pipeline.pass(25 * HOUR_MS);
    // Fresh records of a fast lane, so many that the slow one waits behind them.
    for n in 0..200 {
        pipeline.produce_in(Lane::High, &format!("fresh-{n}"));
    }
    pipeline.admit(false);
    pipeline.derive();
    let delivered = pipeline.delivered();
    assert_eq!(delivered.iter().filter(|id| *id == "e-1").count(), 1);
    assert_eq!(delivered.len(), 202);
}
