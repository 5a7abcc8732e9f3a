//! The model of a transaction: what one task must write, derived from its `order` record.
//!
//! Only which records were read, and when, is taken from the record; everything else is computed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidewire_engine::derive::MAX_TIMERS_PER_TICK;
use tidewire_engine::derive::order::{Accepted, OrderRecord, Tick};
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::record::{Body, Offset, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::{Verdict, VerdictSource};
use tidewire_schemas::catalogue::{Catalogue, Class};
use tidewire_schemas::event::EventView;

use super::ensure::ensure;
use super::operators::{self, EventTimes, ModelOutcome};
use super::task::{SealedTransaction, TakenSource, TaskModel};
use crate::fake::LogState;

/// An output as it must be.
#[derive(Debug)]
pub(super) struct ExpectedOutput {
    pub(super) to: TopicPartition,
    /// `None`: not checked.
    key: Option<Bytes>,
    value: Bytes,
    /// A dead letter's.
    reason: Option<&'static str>,
}

impl ExpectedOutput {
    /// Whether this record is that output.
    pub(super) fn matches(&self, body: &Body) -> bool {
        let reason = || body.header("reason") == self.reason.map(str::as_bytes);
        let key = || self.key.is_none() || self.key.as_deref() == body.key();
        body.value() == Some(&self.value[..]) && key() && reason()
    }
}

/// What a transaction of a task must contain.
#[derive(Debug, Default)]
pub(super) struct ExpectedOutputs {
    pub(super) outputs: VecDeque<ExpectedOutput>,
    accepted: Vec<Accepted>,
    dead_letters: Vec<u32>,
}

impl ExpectedOutputs {
    /// Removes the first output that may be this record, if it matches.
    fn take(&mut self, body: &Body, may_be: impl Fn(&ExpectedOutput, &Body) -> bool) -> bool {
        let next = self.outputs.iter().position(|output| may_be(output, body));
        let next = next.filter(|at| self.outputs[*at].matches(body));
        next.and_then(|at| self.outputs.remove(at)).is_some()
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
        let before = self.lanes;
        let late = sealed.late;
        let mut replay = TransactionReplay {
            log,
            topology,
            task: self,
            late,
            expected: ExpectedOutputs::default(),
        };
        replay.follow(order)?;
        let expected = replay.expected;
        for lane in Lane::ALL {
            let (first, next) = (before[lane.index()], self.lanes[lane.index()]);
            let span = order.spans[lane.index()].map(|span| (span.first.0, span.last.next().0));
            ensure(span == (first < next).then_some((first, next)), || {
                format!("{lane:?} was read {first}..{next}, and the order record has {span:?}")
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
    /// The log may hold more than it did when the tick happened.
    late: bool,
    expected: ExpectedOutputs,
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
                taken += 1;
            }
        }
        ticks.try_for_each(|tick| self.tick(tick))?;
        self.check_order(order)
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
        })?;
        ensure(order.outputs as usize == expected.outputs.len(), || {
            format!("{} outputs, not {}", order.outputs, expected.outputs.len())
        })
    }

    /// Every record of a lane must be read that a tick moves.
    fn tick(&mut self, tick: &Tick) -> Result<(), String> {
        for lane in Lane::ALL.into_iter().filter(|lane| tick.ended.contains(*lane)) {
            let of = TopicPartition::new(self.topology.lane(lane), self.task.partition);
            let (at, end) = (self.task.lanes[lane.index()], self.log.log_end(&of));
            ensure(at == end || self.late, || format!("a tick at {at} of {end} records of {of}"))?;
            let time = &mut self.task.times[lane.index()];
            *time = tick.at.max(*time);
        }
        let settled = self.task.settled();
        for stored in operators::due(&self.task.tables, settled).iter().take(MAX_TIMERS_PER_TICK) {
            if operators::fire(&mut self.task.tables, stored) == ModelOutcome::Failed {
                let value = Bytes::copy_from_slice(&stored[9..]);
                self.dead_letter(None, value, "processing_failed");
            }
        }
        Ok(())
    }

    fn take(&mut self, lane: Lane, nth: u32) -> Result<(), String> {
        let at = TopicPartition::new(self.topology.lane(lane), self.task.partition);
        let offset = self.task.lanes[lane.index()];
        self.task.lanes[lane.index()] += 1;
        let log = self.log;
        let Some((time, body)) = log.record(&at, offset) else {
            return Err(format!("{at}/{offset} was read and does not exist"));
        };
        let verdict = body.header(VERDICT).map(Verdict::decode).transpose();
        let verdict = verdict.map_err(|error| error.to_string())?;
        let appended = verdict.as_ref().map_or(time, |verdict| verdict.append_time);
        let consumed = &mut self.task.times[lane.index()];
        *consumed = appended.max(*consumed);
        if let Some(verdict) = verdict {
            let VerdictSource { input, topic, partition, offset: Offset(offset), .. } =
                verdict.source;
            if !self.task.sources.insert(TakenSource { lane, input, topic, partition, offset }) {
                return Ok(());
            }
        }
        let position = Some(Bytes::from(format!("{at}/{offset}")));
        let value = body.value_bytes().unwrap_or_default();
        let Ok(event) = EventView::decode(&value) else {
            self.expected.dead_letters.push(nth);
            self.dead_letter(position, value, "avro_decode");
            return Ok(());
        };
        let times = EventTimes { appended, settled: self.task.settled() };
        match operators::event(&mut self.task.tables, &event, times) {
            ModelOutcome::Duplicate => {}
            ModelOutcome::Failed => {
                self.expected.dead_letters.push(nth);
                self.dead_letter(position, value.clone(), "processing_failed");
            }
            ModelOutcome::Accepted(id) => {
                self.accept(id, times);
                self.deliver(&event, &value)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, id: [u8; 16], times: EventTimes) {
        let (at, since) = (times.appended, times.appended.max(times.settled));
        match self.expected.accepted.last_mut() {
            Some(run) if (run.at, run.since) == (at, since) => run.ids.push(id),
            _ => self.expected.accepted.push(Accepted { at, since, ids: vec![id] }),
        }
    }

    fn dead_letter(&mut self, key: Option<Bytes>, value: Bytes, reason: &'static str) {
        // The partition of a dead letter follows from its key; without a key it may be any.
        let partition = self.topology.partition_of(key.as_deref().unwrap_or_default());
        let to = TopicPartition::new(self.topology.dead_letters(), partition);
        self.expected.outputs.push_back(ExpectedOutput { to, key, value, reason: Some(reason) });
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
            self.expected.outputs.push_back(ExpectedOutput {
                to: TopicPartition::new(topic, partition),
                key: Some(delivery.channel.into_bytes().into()),
                value: value.clone(),
                reason: None,
            });
        }
        Ok(())
    }
}

/// Removes the outputs that the transaction wrote to a partition, each task's in order.
pub(super) fn take_outputs<'a>(
    expected: &mut BTreeMap<u32, ExpectedOutputs>,
    to: &TopicPartition,
    bodies: impl Iterator<Item = &'a Body>,
) -> Result<(), String> {
    let placed = |o: &ExpectedOutput, _: &Body| o.key.is_some() && o.to == *to;
    let keyless =
        |o: &ExpectedOutput, b: &Body| o.key.is_none() && o.to.topic == to.topic && o.matches(b);
    for body in bodies {
        let taken = expected
            .values_mut()
            .any(|expected| expected.take(body, placed) || expected.take(body, keyless));
        ensure(taken, || {
            let key = String::from_utf8_lossy(body.key().unwrap_or_default()).into_owned();
            format!("{to}: no record that was read makes an output of key {key:?}")
        })?;
    }
    Ok(())
}
