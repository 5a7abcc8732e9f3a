//! The engine's metrics: one function per metric, and the catalogue with their meanings.
//!
//! Code outside calls functions of this file only, so the catalogue is complete; dashboards and
//! alerts are checked against it. Counters are increased once per batch, never once per record.
//! Events that an administrator must know of are logged here too.

use std::fmt::Display;

use metrics::{counter, gauge, histogram};
use tidewire_schemas::envelope::Reason;

use crate::lanes::Intake;
use crate::port::LogError;
use crate::record::{Offset, Partition, TopicPartition};
use crate::topology::Lane;
use crate::turn::EngineError;

/// Name, kind, labels and meaning of every metric of this crate.
pub const CATALOGUE: &[(&str, &str, &[&str], &str)] = &[
    ("admit_records_total", "counter", &["source"], "Records read from the inputs."),
    (
        "admit_events_total",
        "counter",
        &["lane"],
        "Events written to a lane; a broadcast event counts once per partition.",
    ),
    ("admit_ephemeral_total", "counter", &[], "Records written to the topic ephemeral."),
    ("admit_rejected_total", "counter", &["reason"], "Records that ADMIT wrote to dead-letters."),
    (
        "admit_stopped",
        "gauge",
        &["source"],
        "1 while ADMIT is stopped at the poison limit, until it is resumed.",
    ),
    (
        "admit_waiting_partitions",
        "gauge",
        &["source", "reason"],
        "Partitions of the input that are not read because ADMIT waits, such as for the registry.",
    ),
    ("admit_ignored_fields_total", "counter", &[], "Unknown envelope fields that were ignored."),
    ("derive_events_total", "counter", &["lane"], "Records read from a lane and committed."),
    ("derive_outputs_total", "counter", &[], "Output records committed, the audit aside."),
    ("derive_audit_bytes_total", "counter", &[], "Bytes of the audit committed."),
    (
        "derive_duplicates_total",
        "counter",
        &["reason"],
        "Duplicates that were dropped: id, a second event of a producer; copy, ADMIT's own second \
         copy of a record.",
    ),
    (
        "derive_ids_read_total",
        "counter",
        &[],
        "Event ids that were looked up in the state, since the filter of accepted ids did not rule \
         them out: copies, and some new ones.",
    ),
    (
        "derive_facts_first",
        "gauge",
        &["thread"],
        "1 while facts have piled up and come first in a thread of DERIVE, 2 while it processes \
         only them and critical records, 3 while only them.",
    ),
    ("derive_undelivered_total", "counter", &[], "Events without a delivery to a durable channel."),
    (
        "derive_keys_skipped_total",
        "counter",
        &[],
        "Elements of lists of keys that moved no operator: no valid id, or beyond the first 100.",
    ),
    (
        "derive_dead_letters_total",
        "counter",
        &["reason"],
        "Records that DERIVE wrote to dead-letters.",
    ),
    (
        "derive_operator_failures_total",
        "counter",
        &["operator"],
        "Calls of an operator that failed, each with a dead letter; the event or timer went on.",
    ),
    (
        "derive_operator_dropped_total",
        "counter",
        &["operator", "reason"],
        "Events, or what waited because of them, that an operator dropped by its own rules.",
    ),
    ("derive_timers_total", "counter", &[], "Timers fired."),
    (
        "derive_timers_orphaned_total",
        "counter",
        &[],
        "Timers of operators that this build does not have.",
    ),
    ("derive_transactions_total", "counter", &["outcome"], "Transactions by outcome."),
    (
        "derive_transaction_partitions",
        "histogram",
        &[],
        "Partitions that one transaction wrote to; each costs time at the broker.",
    ),
    ("derive_tasks", "gauge", &[], "Tasks of a loop, in any phase."),
    (
        "derive_partial_assignments",
        "gauge",
        &[],
        "Partitions of which only some lanes are assigned; their tasks do not run.",
    ),
    ("derive_restored_records_total", "counter", &[], "Changelog records replayed by restores."),
    (
        "derive_restore_seconds",
        "histogram",
        &[],
        "Time from the assignment of a task until it processes records.",
    ),
    (
        "derive_followed_partitions",
        "gauge",
        &[],
        "Partitions whose changelogs are followed without owning them (derive.standby).",
    ),
    (
        "derive_restore_left_records",
        "gauge",
        &[],
        "Offsets of changelogs that running restores have still to replay.",
    ),
    (
        "derive_lane_lag_records",
        "gauge",
        &["lane"],
        "Records of a lane that its tasks have not read yet, a pack of facts as one; updated every \
         few seconds.",
    ),
    (
        "derive_lane_oldest_wait_seconds",
        "gauge",
        &["lane"],
        "Time since the append of the next record of a lane, for the task with the longest wait.",
    ),
    (
        "derive_changelog_ignored_total",
        "counter",
        &[],
        "Changelog records that are no changes of a table.",
    ),
    (
        "derive_changelog_kept_total",
        "counter",
        &[],
        "Changelog records of tables that this build does not have, kept for one that has them.",
    ),
    (
        "derive_stores_rebuilt_total",
        "counter",
        &["reason"],
        "Stores removed and rebuilt from the changelogs.",
    ),
    (
        "derive_progress_disagreements_total",
        "counter",
        &[],
        "Restored tasks whose committed offsets differ from their order topic.",
    ),
    ("dead_letters_requeued_total", "counter", &["reason"], "Dead letters that were requeued."),
    ("dead_letters_dropped_total", "counter", &["reason"], "Dead letters that were dropped."),
    (
        "records_lost_total",
        "counter",
        &["where"],
        "Offsets that retention removed before they were read.",
    ),
    ("fanout_records_total", "counter", &[], "Output records that the hub read."),
    (
        "fanout_undecodable_total",
        "counter",
        &[],
        "Output records skipped because they can't be decoded.",
    ),
    (
        "fanout_hub_overtaken_total",
        "counter",
        &[],
        "Times that retention removed output records before the hub read them.",
    ),
    (
        "fanout_hub_resets_total",
        "counter",
        &["cause"],
        "Times that the rings began again: created topics (topics), records lost (log_end).",
    ),
    ("fanout_ring_bytes", "gauge", &[], "Bytes of records and frames held in the rings."),
    ("fanout_frames_encoded_total", "counter", &[], "Frames encoded; once per event and format."),
    ("fanout_deliveries_total", "counter", &[], "Event frames written to connections."),
    (
        "fanout_behind_total",
        "counter",
        &["bound"],
        "Times that subscriptions fell behind, by the limit they reached.",
    ),
    ("fanout_gaps_total", "counter", &["reason"], "Gaps announced to subscribers."),
    (
        "fanout_requests_refused_total",
        "counter",
        &["code"],
        "Client requests answered with an error.",
    ),
    ("fanout_closed_total", "counter", &["reason"], "Connections that the server closed."),
    ("fanout_sweeps_total", "counter", &[], "Sweeps through the log that were started."),
    ("fanout_sweep_records_total", "counter", &[], "Records read by sweeps."),
    (
        "fanout_sweep_left_total",
        "counter",
        &[],
        "Times that a sweep continued without a slow subscription.",
    ),
    (
        "fanout_lookups_total",
        "counter",
        &["kind"],
        "Blocking look-ups in the log for new subscriptions, by kind (bounds, time).",
    ),
    ("fanout_fold_records_total", "counter", &[], "Records of channels' state that were read."),
    (
        "fanout_fold_undecodable_total",
        "counter",
        &[],
        "Records of the state topic skipped because they can't be decoded.",
    ),
    (
        "fanout_fold_rebuilt_total",
        "counter",
        &["reason"],
        "Stores of channels' state removed and read again from the state topic.",
    ),
    (
        "fanout_snapshots_total",
        "counter",
        &["outcome"],
        "Requests for a channel's state: built, shared with an equal request, or unavailable \
         since the state could not be read up to its end within 2 s.",
    ),
    (
        "fanout_unanswered_partitions",
        "gauge",
        &["call"],
        "Output partitions that no broker answers for (lookup, sweep); subscriptions that start in \
         their past wait.",
    ),
];

/// Records read from an input.
pub(crate) fn admit_records(source: &'static str, count: u64) {
    counter!("admit_records_total", "source" => source).increment(count);
}

/// Events written to a lane.
pub(crate) fn admit_events(lane: Lane, count: u64) {
    counter!("admit_events_total", "lane" => lane.name()).increment(count);
}

/// Records written to `ephemeral`.
pub(crate) fn admit_ephemeral(count: u64) {
    counter!("admit_ephemeral_total").increment(count);
}

/// Records that ADMIT wrote to the dead letters.
pub(crate) fn admit_rejected(reason: Reason, count: u64) {
    counter!("admit_rejected_total", "reason" => reason.as_str()).increment(count);
}

/// ADMIT reached the poison limit.
pub(crate) fn admit_stopped(source: &'static str, stopped: &impl Display) {
    gauge!("admit_stopped", "source" => source).set(1.0);
    tracing::error!(source, "{stopped}; fix the cause, then run `tidewire resume`");
}

/// ADMIT is not stopped.
pub(crate) fn admit_running(source: &'static str) {
    gauge!("admit_stopped", "source" => source).set(0.0);
}

/// ADMIT was resumed.
pub(crate) fn admit_resumed(source: &'static str) {
    admit_running(source);
    tracing::warn!(
        source,
        "ADMIT is resumed; records now in its input do not count for the poison limit"
    );
}

/// How many partitions wait for the schema registry.
pub(crate) fn admit_waiting_partitions(source: &'static str, count: usize) {
    gauge!("admit_waiting_partitions", "source" => source, "reason" => "registry")
        .set(count as f64);
}

/// A partition begins to wait for the schema registry.
pub(crate) fn admit_waits(at: &TopicPartition, offset: Offset, why: &impl Display) {
    tracing::warn!("{at} waits at offset {} for the schema registry: {why}", offset.0);
}

/// A partition waits no longer.
pub(crate) fn admit_goes_on(at: &TopicPartition, offset: Offset) {
    tracing::info!("{at} goes on at offset {}: the schema registry answers", offset.0);
}

/// Unknown envelope fields.
pub(crate) fn admit_ignored_fields(count: u64) {
    counter!("admit_ignored_fields_total").increment(count);
}

/// Counts of one DERIVE batch by outcome, added up while it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchCounts {
    /// Records taken, by [`Lane::index`].
    pub(crate) taken: [u64; Lane::COUNT],
    pub(crate) duplicates: u64,
    /// Ids that the filter of accepted ids did not rule out.
    pub(crate) ids_read: u64,
    /// Second copies of ADMIT.
    pub(crate) copies: u64,
    pub(crate) undelivered: u64,
    pub(crate) undecodable: u64,
    pub(crate) empty: u64,
    pub(crate) failed: u64,
    /// For operators that this build does not have.
    pub(crate) unknown_operator: u64,
    /// Output records, those of the audit included.
    pub(crate) outputs: u64,
    pub(crate) audit_records: u64,
    pub(crate) audit_bytes: u64,
    pub(crate) timers: u64,
    /// Elements of lists that gave no key.
    pub(crate) keys_skipped: u64,
}

/// Something that an operator has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DroppedByOperator {
    /// The operator's name.
    pub(crate) operator: &'static str,
    /// Why, as the operator names it.
    pub(crate) reason: &'static str,
}

/// Adds the counts of a committed batch, the operators of its failed calls, and what operators have
/// dropped.
pub(crate) fn batch_committed(
    counts: &BatchCounts,
    failed_calls: &[&'static str],
    dropped: &[DroppedByOperator],
) {
    for DroppedByOperator { operator, reason } in dropped {
        counter!("derive_operator_dropped_total", "operator" => *operator, "reason" => *reason)
            .increment(1);
    }
    for operator in failed_calls {
        counter!("derive_operator_failures_total", "operator" => *operator).increment(1);
    }
    for lane in Lane::ALL {
        let taken = counts.taken[lane.index()];
        if taken > 0 {
            counter!("derive_events_total", "lane" => lane.name()).increment(taken);
        }
    }
    counter!("derive_outputs_total").increment(counts.outputs - counts.audit_records);
    counter!("derive_audit_bytes_total").increment(counts.audit_bytes);
    counter!("derive_duplicates_total", "reason" => "id").increment(counts.duplicates);
    counter!("derive_duplicates_total", "reason" => "copy").increment(counts.copies);
    counter!("derive_ids_read_total").increment(counts.ids_read);
    counter!("derive_undelivered_total").increment(counts.undelivered);
    counter!("derive_timers_total").increment(counts.timers);
    counter!("derive_keys_skipped_total").increment(counts.keys_skipped);
    for (reason, count) in [
        (Reason::AvroDecode, counts.undecodable),
        (Reason::EmptyValue, counts.empty),
        (Reason::ProcessingFailed, counts.failed),
        (Reason::UnknownOperator, counts.unknown_operator),
    ] {
        if count > 0 {
            counter!("derive_dead_letters_total", "reason" => reason.as_str()).increment(count);
        }
    }
}

/// A timer of an operator that this build does not have.
pub(crate) fn timers_orphaned() {
    counter!("derive_timers_orphaned_total").increment(1);
}

/// A committed transaction, and how many partitions it wrote to.
pub(crate) fn transaction_committed(partitions: usize) {
    counter!("derive_transactions_total", "outcome" => "committed").increment(1);
    histogram!("derive_transaction_partitions").record(partitions as f64);
}

/// A transaction that is aborted and repeated.
pub(crate) fn transaction_aborted(why: &LogError) {
    counter!("derive_transactions_total", "outcome" => "aborted").increment(1);
    tracing::warn!(error = why as &dyn std::error::Error, "a transaction is aborted and repeated");
}

/// Partitions were released, but the owner's name could not be removed from their offsets.
pub(crate) fn release_failed(why: &LogError) {
    tracing::info!(
        error = why as &dyn std::error::Error,
        "partitions were released, but their offsets still name this owner, which is fenced once"
    );
}

/// A task is restored, but its owner's name is not committed yet, or the value level not known.
pub(crate) fn task_waits(partition: Partition, why: &EngineError) {
    tracing::info!(
        partition = partition.0,
        error = why as &dyn std::error::Error,
        "a task is restored and waits: its group did not accept the owner's name, or the value \
         level could not be read"
    );
}

/// A transaction whose outcome is unknown; a restore finds it out.
pub(crate) fn transaction_unknown(why: &LogError) {
    counter!("derive_transactions_total", "outcome" => "unknown").increment(1);
    tracing::warn!(
        error = why as &dyn std::error::Error,
        "it is unknown whether a transaction was committed; its tasks restore from the log"
    );
}

/// Tasks whose due timers have waited for some seconds, since their critical lanes' ends are not
/// known. `None`: the answer came without them.
pub(crate) fn ticks_wait(tasks: usize, why: Option<&LogError>) {
    tracing::warn!(
        tasks,
        error = why.map(|why| why as &dyn std::error::Error),
        "due timers wait, since the log does not tell the ends of some critical lanes; check that \
         their partitions have leaders"
    );
}

/// Which lanes the tasks of a thread take records from, and the bytes of facts that wait for one of
/// them.
pub(crate) fn facts_piled_up(thread: u32, intake: Intake, bytes: u64) {
    let value = match intake {
        Intake::All => 0,
        Intake::FactsFirst => 1,
        Intake::FactsOnly => 2,
        Intake::FactsAlone => 3,
    };
    gauge!("derive_facts_first", "thread" => thread.to_string()).set(f64::from(value));
    match intake {
        Intake::All => tracing::info!(bytes, "facts are few again, so all lanes get their share"),
        Intake::FactsFirst => tracing::warn!(
            bytes,
            "facts have piled up, so they come first and other events wait longer; if this lasts, \
             one entity gets more facts than its task can process"
        ),
        Intake::FactsOnly => tracing::warn!(
            bytes,
            "facts pile up although they come first, so nothing else but critical records is \
             processed until half of them are left"
        ),
        Intake::FactsAlone => tracing::warn!(
            bytes,
            "facts of critical events have piled up, so critical records wait too until half of \
             them are left; check which producer sends critical events with many `mentions`"
        ),
    }
}

/// Tasks of a loop.
pub(crate) fn tasks(count: usize) {
    gauge!("derive_tasks").set(count as f64);
}

/// Partitions of which not all lanes are assigned.
pub(crate) fn partial_assignments(count: usize) {
    gauge!("derive_partial_assignments").set(count as f64);
}

/// The lag of a lane's tasks, and the longest wait of a record.
pub(crate) fn lane_lag(lane: Lane, records: u64, wait_ms: i64) {
    gauge!("derive_lane_lag_records", "lane" => lane.name()).set(records as f64);
    gauge!("derive_lane_oldest_wait_seconds", "lane" => lane.name()).set(wait_ms as f64 / 1000.0);
}

/// Partitions followed without owning them.
pub(crate) fn followers(count: usize) {
    gauge!("derive_followed_partitions").set(count as f64);
}

/// A follower failed and starts again.
pub(crate) fn follower_failed(partition: Partition, error: &EngineError) {
    tracing::warn!(
        partition = partition.0,
        error = error as &dyn std::error::Error,
        "following a partition's changelogs failed and starts again"
    );
}

/// The progress of a long restore.
pub(crate) fn task_restoring(partition: Partition, percent: u64, seconds_left: Option<u64>) {
    tracing::info!(
        partition = partition.0,
        percent,
        seconds_left,
        "a task's state is being restored"
    );
}

/// Offsets of changelogs that the restores of a loop have still to replay.
pub(crate) fn restores_left(offsets: u64) {
    gauge!("derive_restore_left_records").set(offsets as f64);
}

/// A task is restored, `took_ms` after it was assigned.
pub(crate) fn task_restored(partition: Partition, replayed: u64, took_ms: i64) {
    counter!("derive_restored_records_total").increment(replayed);
    histogram!("derive_restore_seconds").record(took_ms as f64 / 1000.0);
    tracing::debug!(partition = partition.0, replayed, took_ms, "a task is restored");
}

/// A change of a table that this build does not have.
pub(crate) fn changelog_kept() {
    counter!("derive_changelog_kept_total").increment(1);
}

/// A changelog record that is no change of a table.
pub(crate) fn changelog_ignored() {
    counter!("derive_changelog_ignored_total").increment(1);
}

/// A store that does not match the log and is rebuilt.
pub(crate) fn store_rebuilt(partition: Partition, reason: &'static str) {
    counter!("derive_stores_rebuilt_total", "reason" => reason).increment(1);
    tracing::warn!(partition = partition.0, reason, "a task's store is rebuilt from its changelog");
}

/// Another program moved the group's offsets, or a changelog has lost its end.
pub(crate) fn progress_disagrees(partition: Partition, lane: Lane) {
    counter!("derive_progress_disagreements_total").increment(1);
    tracing::warn!(
        partition = partition.0,
        lane = lane.name(),
        "committed offsets differ from the order topic; the committed ones are used"
    );
}

/// Dead letters that were requeued.
pub(crate) fn dead_letters_requeued(reason: &str, count: u64) {
    counter!("dead_letters_requeued_total", "reason" => reason_label(reason)).increment(count);
}

/// Dead letters that were dropped.
pub(crate) fn dead_letters_dropped(reason: &str, count: u64) {
    counter!("dead_letters_dropped_total", "reason" => reason_label(reason)).increment(count);
}

/// The label of a reason. A foreign record in the topic may claim any reason, and labels must stay
/// few.
fn reason_label(reason: &str) -> &'static str {
    let known = Reason::ALL.into_iter().map(Reason::as_str).find(|known| *known == reason);
    known.unwrap_or("other")
}

/// Records that retention removed unread.
pub(crate) fn records_lost(place: &'static str, at: &TopicPartition, count: u64) {
    counter!("records_lost_total", "where" => place).increment(count);
    tracing::error!(partition = %at, count, "records left the log before they were read");
}

/// Records that the hub reader read.
pub(crate) fn hub_records(count: u64) {
    counter!("fanout_records_total").increment(count);
}

/// Output records that can't be decoded.
pub(crate) fn hub_undecodable(count: u64) {
    counter!("fanout_undecodable_total").increment(count);
    tracing::warn!(count, "output records could not be decoded and were skipped");
}

/// Retention removed output records before the hub reader read them.
pub(crate) fn hub_overtaken() {
    counter!("fanout_hub_overtaken_total").increment(1);
    tracing::error!("output records left the log before the hub read them");
}

/// Rings were reset to the log's end.
pub(crate) fn hub_reset(cause: &'static str) {
    counter!("fanout_hub_resets_total", "cause" => cause).increment(1);
    tracing::error!(cause, "output offsets mean other records now; subscribers get a gap");
}

/// Bytes in the rings.
pub(crate) fn ring_bytes(bytes: usize) {
    gauge!("fanout_ring_bytes").set(bytes as f64);
}

/// Frames encoded.
pub(crate) fn frames_encoded(count: u64) {
    counter!("fanout_frames_encoded_total").increment(count);
}

/// Event frames written.
pub(crate) fn deliveries(count: u64) {
    counter!("fanout_deliveries_total").increment(count);
}

/// A subscription fell behind; the limit is `references` or `ring`.
pub(crate) fn behind(bound: &'static str) {
    counter!("fanout_behind_total", "bound" => bound).increment(1);
}

/// A gap was announced.
pub(crate) fn gaps(reason: &'static str) {
    counter!("fanout_gaps_total", "reason" => reason).increment(1);
}

/// A client request was answered with an error.
pub(crate) fn requests_refused(code: &'static str) {
    counter!("fanout_requests_refused_total", "code" => code).increment(1);
}

/// The server closed a connection.
pub(crate) fn connections_closed(reason: &'static str) {
    counter!("fanout_closed_total", "reason" => reason).increment(1);
}

/// A sweep begins.
pub(crate) fn sweeps_started() {
    counter!("fanout_sweeps_total").increment(1);
}

/// Records that a sweep read.
pub(crate) fn sweep_records(count: u64) {
    counter!("fanout_sweep_records_total").increment(count);
}

/// A blocking look-up in the log.
pub(crate) fn lookups(kind: &'static str) {
    counter!("fanout_lookups_total", "kind" => kind).increment(1);
}

/// What the fold did in a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldCounts {
    /// Records of state.
    pub(crate) records: u64,
    /// Records that are none.
    pub(crate) undecodable: u64,
    /// Requests answered with a new snapshot.
    pub(crate) built: u64,
    /// Requests answered with a snapshot that was made for an equal one.
    pub(crate) shared: u64,
    /// Requests answered without one.
    pub(crate) unavailable: u64,
}

impl FoldCounts {
    /// Requests that were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.built + self.shared + self.unavailable
    }
}

/// Adds the counts of a turn of the fold.
pub(crate) fn fold_counts(counts: &FoldCounts) {
    let FoldCounts { records, undecodable, built, shared, unavailable } = *counts;
    if records > 0 {
        counter!("fanout_fold_records_total").increment(records);
    }
    if undecodable > 0 {
        counter!("fanout_fold_undecodable_total").increment(undecodable);
        tracing::warn!(undecodable, "records of the state topic could not be decoded");
    }
    for (outcome, count) in [("built", built), ("shared", shared), ("unavailable", unavailable)] {
        if count > 0 {
            counter!("fanout_snapshots_total", "outcome" => outcome).increment(count);
        }
    }
}

/// A store of channels' state that does not fit the state topic and is read again.
pub(crate) fn fold_rebuilt(partition: Partition, reason: &'static str) {
    counter!("fanout_fold_rebuilt_total", "reason" => reason).increment(1);
    tracing::warn!(partition = partition.0, reason, "a store of channels' state is read again");
}

/// Partitions that the log repeatedly does not answer a call for.
pub(crate) fn partitions_unanswered(call: &'static str, count: usize) {
    gauge!("fanout_unanswered_partitions", "call" => call).set(count as f64);
}

/// The output topics can't be listed.
pub(crate) fn topics_unlisted(sentence: &str) {
    tracing::warn!("{sentence}");
}

/// A partition that the log repeatedly does not answer for.
pub(crate) fn partition_unanswered(sentence: &str) {
    tracing::warn!("{sentence}; it is tried again until the log answers");
}

/// A sweep continued without a slow subscription.
pub(crate) fn sweep_left() {
    counter!("fanout_sweep_left_total").increment(1);
}
