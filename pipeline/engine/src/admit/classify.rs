//! Classifies a record of the input and creates the records it becomes.
//!
//! ```text
//! record ─▶ event ─┬─▶ its lane, unless its type is ephemeral
//!                  └─▶ ephemeral, one record per ephemeral channel
//!        └▶ rejected ─▶ dead-letters, whole
//! ```
//!
//! The same record always gives the same event: "now" is its append time, and the default id is its
//! position. A record that is admitted twice therefore becomes a duplicate that DERIVE drops.

use std::sync::Arc;

use tidewire_schemas::catalogue::{Catalogue, Class, Delivery};
use tidewire_schemas::codec::{AdmitFailure, DecodeContext, Registry, SchemaUnavailable, admit};
use tidewire_schemas::envelope::{Admitted, Reason, RecordOrigin, Rejection};
use tidewire_schemas::event::Event;

use crate::admit::poison_breaker::Rejected;
use crate::dead_letters::record::{Diagnosis, dead_letter};
use crate::dead_letters::{REQUEUED_FROM, REQUEUED_REASON};
use crate::lane_record::VERDICT;
use crate::record::{Body, Offset, Outgoing, Record, TopicPartition};
use crate::telemetry;
use crate::topology::{Lane, Topology};
use crate::verdict::{Decision, TopicId, Verdict, VerdictSource};

/// Headers of a requeued record that its lane record keeps.
const TRAIL: [&str; 2] = [REQUEUED_FROM, REQUEUED_REASON];

/// Counts of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AdmitCounts {
    pub(super) lanes: [u64; 5],
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
        let ephemeral = match self.ephemeral_deliveries(event) {
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
        output.counts.lanes[lane.index()] += 1;
        let key = event.key.as_bytes();
        let verdict = input.verdict(self.settings_hash).encode();
        let mut headers: Vec<(&str, &[u8])> = vec![(VERDICT, &verdict)];
        // Kept so that a dead letter of DERIVE has the trail too.
        headers.extend(input.record.body.headers().filter(|(name, _)| TRAIL.contains(name)));
        output.records.push(Outgoing {
            topic: self.topology.lane(lane).clone(),
            partition: self.topology.partition_of(key),
            body: Body::new(Some(key), Some(&value), &headers),
        });
    }

    /// The ephemeral deliveries of an event, and whether it skips the lane. A type with a durable
    /// channel or an operator goes through its lane too, and so does an event without deliveries,
    /// which DERIVE counts.
    fn ephemeral_deliveries(&self, event: &Event) -> Result<EphemeralDeliveries, Rejection> {
        let none = EphemeralDeliveries { to: Vec::new(), only: false };
        let Some(event_type) = self.catalogue.resolve(&event.event_type) else {
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
