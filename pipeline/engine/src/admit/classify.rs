//! Classifies a record of the input and creates the records it becomes.
//!
//! ```text
//! record ─▶ event ─┬─▶ its lane, unless its type is ephemeral; if it is broadcast, every
//!                  │   partition of the lane
//!                  └─▶ ephemeral, one record per ephemeral channel
//!        └▶ rejected ─▶ dead-letters, whole
//! ```
//!
//! The same record always gives the same event: "now" is its append time, and the default id is its
//! position. A record that is admitted twice therefore becomes a duplicate that DERIVE drops.

use std::sync::Arc;

use tidewire_schemas::catalogue::{Catalogue, Class, Delivery, EventType};
use tidewire_schemas::codec::{AdmitFailure, DecodeContext, Registry, SchemaUnavailable, admit};
use tidewire_schemas::envelope::{Admitted, Reason, RecordOrigin, Rejection, Writers};
use tidewire_schemas::event::Event;

use crate::admit::poison_breaker::Rejected;
use crate::dead_letters::record::{Diagnosis, dead_letter};
use crate::dead_letters::{REQUEUED_FROM, REQUEUED_REASON};
use crate::lane_record::VERDICT;
use crate::record::{Body, Offset, Outgoing, Partition, Record, TopicPartition};
use crate::telemetry;
use crate::topology::{Lane, Topology};
use crate::verdict::{Decision, TopicId, Verdict, VerdictSource};

/// Headers of a requeued record that its lane record keeps.
const TRAIL: [&str; 2] = [REQUEUED_FROM, REQUEUED_REASON];

/// Bytes of such a header: more than a whole trail has. A producer may send headers of these names
/// too, and a log refuses lane records of some MiB.
const TRAIL_MAX_BYTES: usize = 8 << 10;

/// Counts of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AdmitCounts {
    pub(super) lanes: [u64; Lane::COUNT],
    pub(super) ephemeral: u64,
    pub(super) ignored_fields: u64,
    pub(super) rejected: Rejected,
}

impl AdmitCounts {
    pub(super) fn report(&self) {
        for lane in Lane::ALL.into_iter().filter(|lane| self.lanes[lane.index()] > 0) {
            telemetry::admit_events(lane, self.lanes[lane.index()]);
        }
        telemetry::admit_ephemeral(self.ephemeral);
        telemetry::admit_ignored_fields(self.ignored_fields);
        for (reason, count) in self.rejected.counts() {
            telemetry::admit_rejected(reason, count);
        }
    }
}

/// Classifies records by catalogue, registry and topology.
pub(super) struct Classifier {
    pub(super) topology: Topology,
    pub(super) catalogue: &'static Catalogue,
    /// Who writes to the loop's input.
    pub(super) writers: Writers,
    pub(super) settings_hash: u64,
    pub(super) registry: Option<Arc<dyn Registry>>,
}

impl Classifier {
    /// Adds the records that an input record becomes; none if its schema can't be asked for now.
    pub(super) fn classify(
        &self,
        input: SourceRecord<'_>,
        output: &mut AdmitOutput<'_>,
    ) -> Result<(), SchemaUnavailable> {
        let SourceRecord { from, record } = input;
        let origin = RecordOrigin {
            topic: from.at.topic.as_str(),
            partition: from.at.partition.0,
            offset: record.offset.0,
            append_time_ms: record.timestamp.0,
            writers: self.writers,
        };
        let context = DecodeContext {
            catalogue: self.catalogue,
            registry: self.registry.as_deref(),
            origin: &origin,
        };
        match admit(&context, record.body.value(), &record.body) {
            Ok(admitted) => self.accept(input, &admitted, output),
            Err(AdmitFailure::Rejected(rejection)) => self.reject(input, &rejection, output),
            Err(AdmitFailure::Waits(missing)) => return Err(missing),
        }
        Ok(())
    }

    fn accept(&self, input: SourceRecord<'_>, admitted: &Admitted, output: &mut AdmitOutput<'_>) {
        let event = &admitted.event;
        output.counts.ignored_fields += u64::from(admitted.ignored_fields);
        let value = event.encode();
        let event_type = self.catalogue.resolve(&event.event_type);
        let ephemeral = match self.ephemeral_deliveries(event, event_type) {
            Ok(ephemeral) => ephemeral,
            Err(rejection) => return self.reject(input, &rejection, output),
        };
        for delivery in &ephemeral.to {
            let key = delivery.channel.as_bytes();
            output.records.push(Outgoing {
                topic: self.topology.ephemeral().clone(),
                partition: self.topology.partition_of(key),
                body: Body::new(Some(key), Some(&value), &[]),
            });
            output.counts.ephemeral += 1;
        }
        if ephemeral.only {
            return;
        }
        let lane = Lane::of(event.priority);
        let key = event.key.as_bytes();
        let verdict = input.verdict(self.settings_hash).encode();
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(1 + TRAIL.len());
        headers.push((VERDICT, &verdict));
        put_trail(&input.record.body, &mut headers);
        let body = Body::new(Some(key), Some(&value), &headers);
        let topic = self.topology.lane(lane);
        let mut push = |partition| {
            output.records.push(Outgoing { topic: topic.clone(), partition, body: body.clone() });
            output.counts.lanes[lane.index()] += 1;
        };
        if event_type.is_some_and(|event_type| event_type.broadcast) {
            (0..self.topology.partitions()).map(Partition).for_each(push);
        } else {
            push(self.topology.entity_partition(&event.account_id, &event.key));
        }
    }

    /// The ephemeral deliveries of an event, and whether it skips the lane. A type with a durable
    /// channel or an operator goes through its lane too, and so does an event without deliveries,
    /// which DERIVE counts.
    fn ephemeral_deliveries(
        &self,
        event: &Event,
        event_type: Option<&EventType>,
    ) -> Result<EphemeralDeliveries, Rejection> {
        let none = EphemeralDeliveries { to: Vec::new(), only: false };
        let Some(event_type) = event_type else {
            return Ok(none);
        };
        if !event_type.channels.iter().any(|rule| rule.classes.contains(&Class::Ephemeral)) {
            return Ok(none);
        }
        let deliveries = self
            .catalogue
            .deliveries(&event.view())
            .map_err(|error| Rejection::new(Reason::ProcessingFailed, error.to_string()))?;
        let to: Vec<Delivery> =
            deliveries.into_iter().filter(|to| to.class == Class::Ephemeral).collect();
        let only = event_type.is_ephemeral() && !to.is_empty();
        Ok(EphemeralDeliveries { to, only })
    }

    fn reject(&self, input: SourceRecord<'_>, rejection: &Rejection, output: &mut AdmitOutput<'_>) {
        let SourceRecord { from, record } = input;
        output.counts.rejected.add(rejection.reason, from.at, record.offset);
        let diagnosis = Diagnosis {
            reason: rejection.reason.as_str(),
            field: rejection.field.as_deref(),
            detail: &rejection.message,
        };
        output.records.push(dead_letter(&self.topology, from.at, record, diagnosis));
    }
}

/// Adds the trail of a requeued record, so that a dead letter of DERIVE has it too. Most records
/// have no headers at all.
fn put_trail<'a>(body: &'a Body, headers: &mut Vec<(&'a str, &'a [u8])>) {
    let mut trail = [None; TRAIL.len()];
    for (name, value) in body.headers() {
        if let Some(at) = TRAIL.iter().position(|of| *of == name) {
            trail[at] = Some(value);
        }
    }
    let kept = TRAIL.iter().zip(trail).filter_map(|(name, value)| Some((*name, value?)));
    headers.extend(kept.filter(|(_, value)| value.len() <= TRAIL_MAX_BYTES));
}

/// The ephemeral deliveries of an event.
struct EphemeralDeliveries {
    to: Vec<Delivery>,
    /// Whether the event has no others and skips its lane.
    only: bool,
}

/// The partition of a batch, and what was delivered of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourcePartition<'a> {
    pub(super) at: &'a TopicPartition,
    /// The number of the input.
    pub(super) input: u8,
    /// The id of its topic.
    pub(super) topic: TopicId,
    /// The first offset read since the partition was assigned.
    pub(super) delivered_from: Offset,
    /// The offset committed since then, or the same.
    pub(super) delivered_to: Offset,
}

/// A record of the input and the partition it was read from.
#[derive(Clone, Copy)]
pub(super) struct SourceRecord<'a> {
    pub(super) from: &'a SourcePartition<'a>,
    pub(super) record: &'a Record,
}

/// Where a record's results are added.
pub(super) struct AdmitOutput<'a> {
    pub(super) records: &'a mut Vec<Outgoing>,
    pub(super) counts: &'a mut AdmitCounts,
}

impl SourceRecord<'_> {
    /// The verdict of a record that passes.
    fn verdict(&self, settings_hash: u64) -> Verdict {
        let SourcePartition { at, input, topic, delivered_from, delivered_to } = *self.from;
        let (partition, offset) = (at.partition, self.record.offset);
        Verdict {
            decision: Decision::Passed,
            settings_hash,
            control: Offset(0),
            append_time: self.record.timestamp,
            source: VerdictSource { input, topic, partition, offset, delivered_from, delivered_to },
            rules: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidewire_schemas::event::EventView;

    use super::*;
    use crate::record::Millis;

    const ACCOUNTS: u32 = 64;

    const PARTITIONS: u32 = 4;

    fn source_partition(at: &TopicPartition, input: u8) -> SourcePartition<'_> {
        let (delivered_from, delivered_to) = (Offset(0), Offset(0));
        SourcePartition { at, input, topic: TopicId(7), delivered_from, delivered_to }
    }

    /// Admits events of author `1`, one for each account and priority.
    fn admit_all(topology: &Topology) -> Vec<Outgoing> {
        let classifier = Classifier {
            topology: topology.clone(),
            catalogue: Catalogue::builtin(),
            writers: Writers::Producers,
            settings_hash: 0,
            registry: None,
        };
        let at = TopicPartition::new(topology.input(), Partition(0));
        let from = source_partition(&at, 0);
        let (mut records, mut counts) = (Vec::new(), AdmitCounts::default());
        for (account, priority) in (0..ACCOUNTS).flat_map(|a| (0..4).map(move |p| (a, p))) {
            let value = format!(
                r#"{{"event_type":"post.created","account_id":"a{account}","priority":{priority},
                "data":{{"post_id":"p","author_id":"1","text":"hello"}}}}"#
            );
            let offset = Offset(u64::from(account * 4 + priority));
            let body = Body::new(None, Some(value.as_bytes()), &[]);
            let record = Record { offset, timestamp: Millis(0), body };
            let mut output = AdmitOutput { records: &mut records, counts: &mut counts };
            let source = SourceRecord { from: &from, record: &record };
            classifier.classify(source, &mut output).expect("no registry is asked");
        }
        assert_eq!(records.len() as u32, ACCOUNTS * 4, "one lane record each");
        records
    }

    #[test]
    fn one_key_of_many_accounts_is_in_every_partition_and_an_entity_in_one_whatever_its_lane() {
        let topology = Topology::new("t.", 8);
        let (mut lanes, mut entities) = (BTreeSet::new(), BTreeSet::new());
        for record in admit_all(&topology) {
            let value = record.body.value().expect("an event");
            let event = EventView::decode(value).expect("Avro");
            assert_eq!(event.key, "1");
            assert_eq!(record.body.key(), Some(&b"1"[..]), "the record's key is the event's");
            lanes.insert(record.topic.clone());
            entities.insert((event.account_id.to_owned(), record.partition));
        }
        assert_eq!(lanes.len(), 4);
        assert_eq!(entities.len() as u32, ACCOUNTS, "one partition each");
        let partitions: BTreeSet<Partition> = entities.into_iter().map(|(_, p)| p).collect();
        assert_eq!(partitions.len(), 8, "{partitions:?}");
    }

    /// The lane records of an internal event.
    fn classified(event: &str) -> (Vec<Outgoing>, AdmitCounts) {
        let topology = Topology::new("t.", PARTITIONS);
        let at = TopicPartition::new(topology.input_internal(), Partition(2));
        let classifier = Classifier {
            topology,
            catalogue: Catalogue::builtin(),
            writers: Writers::OwnProcesses,
            settings_hash: 7,
            registry: None,
        };
        let body = Body::new(Some(b"k"), Some(event.as_bytes()), &[]);
        let record = Record { offset: Offset(5), timestamp: Millis(1_767_607_200_000), body };
        let from = source_partition(&at, 2);
        let (mut records, mut counts) = (Vec::new(), AdmitCounts::default());
        let mut output = AdmitOutput { records: &mut records, counts: &mut counts };
        let source = SourceRecord { from: &from, record: &record };
        classifier.classify(source, &mut output).expect("no registry is needed");
        assert_eq!(counts.rejected, Rejected::default());
        (records, counts)
    }

    #[test]
    fn a_broadcast_event_is_written_to_every_partition_of_its_lane_with_the_same_bytes() {
        let (records, counts) = classified(
            r#"{"event_type":"gateway.lease","account_id":"acc","event_id":"l1",
            "data":{"gateway_id":"g1","expires_at":1767607215000}}"#,
        );
        let partitions: Vec<u32> = records.iter().map(|record| record.partition.0).collect();
        assert_eq!(partitions, [0, 1, 2, 3]);
        assert!(records.iter().all(|record| record.body == records[0].body));
        assert!(records.iter().all(|record| record.topic.as_str() == "t.lane.critical"));
        assert_eq!(records[0].body.key(), Some(&b"g1"[..]));
        let verdict = Verdict::decode(records[0].body.header(VERDICT).expect("a verdict"));
        let source = verdict.expect("it decodes").source;
        assert_eq!((source.input, source.partition, source.offset), (2, Partition(2), Offset(5)));
        assert_eq!(counts.lanes[Lane::Critical.index()], u64::from(PARTITIONS));
    }

    #[test]
    fn a_forged_trail_makes_no_lane_record_that_a_log_refuses() {
        let topology = Topology::new("t.", PARTITIONS);
        let at = TopicPartition::new(topology.input(), Partition(0));
        let classifier = Classifier {
            topology,
            catalogue: Catalogue::builtin(),
            writers: Writers::Producers,
            settings_hash: 0,
            registry: None,
        };
        let value = br#"{"event_type":"post.created","account_id":"a",
            "data":{"post_id":"p","author_id":"ann","text":"hello"}}"#;
        let (large, short) = (vec![b' '; 3 << 20], b"t.in/0/1".as_slice());
        let headers: Vec<(&str, &[u8])> = std::iter::repeat_n((REQUEUED_REASON, short), 9_000)
            .chain([(REQUEUED_FROM, large.as_slice())])
            .collect();
        let body = Body::new(None, Some(value), &headers);
        let record = Record { offset: Offset(1), timestamp: Millis(0), body };
        let from = source_partition(&at, 0);
        let (mut records, mut counts) = (Vec::new(), AdmitCounts::default());
        let mut output = AdmitOutput { records: &mut records, counts: &mut counts };
        let source = SourceRecord { from: &from, record: &record };
        classifier.classify(source, &mut output).expect("no registry is asked");
        let body = &records[0].body;
        assert!(body.as_bytes().len() < 1_000, "{} bytes", body.as_bytes().len());
        assert_eq!(body.header(REQUEUED_REASON), Some(short));
        assert_eq!(body.header(REQUEUED_FROM), None);
    }

    #[test]
    fn an_event_that_is_not_broadcast_is_written_to_the_partition_of_its_key_alone() {
        let (records, _) = classified(
            r#"{"event_type":"operator.called","account_id":"acc","event_id":"o1",
            "data":{"actor":"ann","action":"resume","target":"admit"}}"#,
        );
        let partition = Topology::new("t.", PARTITIONS).entity_partition("acc", "acc");
        assert_eq!(records.iter().map(|r| r.partition).collect::<Vec<_>>(), [partition]);
    }
}
