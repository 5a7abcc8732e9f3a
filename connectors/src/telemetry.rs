//! Every metric of this crate: its name, kind, labels and meaning, and the one function that
//! touches it.
//!
//! Call sites name what happened; how it is counted is decided here. A counter with a `reason`
//! exists wherever something is refused or dropped, so that nothing is dropped silently.

/// Name, kind, labels, meaning.
pub const CATALOGUE: &[(&str, &str, &[&str], &str)] = &[
    ("socket_connections", "gauge", &["transport"], "Live connections held by shards"),
    ("socket_connections_opened_total", "counter", &["transport"], "Live connections opened"),
    ("socket_connections_closed_total", "counter", &["reason"], "Connections ended, by reason"),
    ("socket_connections_refused_total", "counter", &["reason"], "Connections or requests refused"),
    ("socket_writes_total", "counter", &[], "Coalesced writes to live connections"),
    ("socket_written_bytes_total", "counter", &[], "Bytes written to live connections"),
    ("socket_read_bytes_total", "counter", &[], "Bytes read from live connections"),
    ("ingest_events_total", "counter", &["result"], "Events of POST /v1/events"),
    ("ingest_batch_records", "histogram", &[], "Records per append of the ingest thread"),
    ("ingest_append_seconds", "histogram", &[], "Time one append of the ingest thread took"),
    ("ingest_overloaded_total", "counter", &["reason"], "Requests turned away by ingest"),
    ("log_appended_records_total", "counter", &[], "Records the embedded log has written"),
    ("log_appended_bytes_total", "counter", &[], "Bytes of bodies the embedded log has written"),
    (
        "log_turns_total",
        "counter",
        &[],
        "Batches the embedded log has written, each for its writers",
    ),
    ("log_fetched_records_total", "counter", &[], "Records read below the tail, from RocksDB"),
    (
        "log_removed_records_total",
        "counter",
        &["reason"],
        "Records that left the embedded log: retention, missing, compaction",
    ),
    (
        "registry_asked_total",
        "counter",
        &[],
        "Schemas asked of the registry, not taken from memory",
    ),
    (
        "registry_failed_total",
        "counter",
        &["reason"],
        "Schemas the registry did not give: unknown, unavailable, unusable",
    ),
    ("registry_schemas", "gauge", &[], "Schemas of the registry held in memory"),
    ("kafka_errors_total", "counter", &["code"], "Errors of brokers or connections to them"),
    (
        "kafka_brokers_told_total",
        "counter",
        &[],
        "Clients that knew no broker any more and were told the bootstrap addresses again",
    ),
    (
        "store_written_batches_total",
        "counter",
        &[],
        "Transactions' batches task stores have written",
    ),
    ("store_written_rows_total", "counter", &[], "Rows task stores have written, merged"),
    ("store_checkpoints_total", "counter", &[], "Checkpoints of task stores that were kept"),
    ("store_checkpoints_failed_total", "counter", &[], "Checkpoints that could not be kept"),
    (
        "store_checkpoint_bytes",
        "gauge",
        &["task"],
        "Bytes of a task's checkpoints, files shared with the store included",
    ),
];

/// A live connection moved to a shard.
pub fn connection_opened(transport: &'static str) {
    metrics::counter!("socket_connections_opened_total", "transport" => transport).increment(1);
    metrics::gauge!("socket_connections", "transport" => transport).increment(1.0);
}

/// A live connection left its shard.
pub fn connection_left(transport: &'static str) {
    metrics::gauge!("socket_connections", "transport" => transport).decrement(1.0);
}

/// A connection ended; `reason` is one of a fixed set.
pub fn connection_closed(reason: &'static str) {
    metrics::counter!("socket_connections_closed_total", "reason" => reason).increment(1);
}

/// A connection or request was refused.
pub fn connection_refused(reason: &'static str) {
    metrics::counter!("socket_connections_refused_total", "reason" => reason).increment(1);
}

/// What one turn of a worker wrote to its connections and read from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketIo {
    /// Calls of `write`.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

/// Adds one turn of a worker.
pub fn socket_io(io: SocketIo) {
    if io.writes > 0 {
        metrics::counter!("socket_writes_total").increment(io.writes);
        metrics::counter!("socket_written_bytes_total").increment(io.written_bytes);
    }
    if io.read_bytes > 0 {
        metrics::counter!("socket_read_bytes_total").increment(io.read_bytes);
    }
}

/// Events of one request, by result (`accepted` or `refused`).
pub fn ingested(result: &'static str, events: u64) {
    metrics::counter!("ingest_events_total", "result" => result).increment(events);
}

/// One append of the ingest thread.
pub fn ingest_appended(records: usize, seconds: f64) {
    metrics::histogram!("ingest_batch_records").record(records as f64);
    metrics::histogram!("ingest_append_seconds").record(seconds);
}

/// A request was turned away because ingest has no room.
pub fn ingest_overloaded(reason: &'static str) {
    metrics::counter!("ingest_overloaded_total", "reason" => reason).increment(1);
}

/// One turn of the embedded log's writer.
pub fn log_appended(records: usize, bytes: usize) {
    metrics::counter!("log_turns_total").increment(1);
    metrics::counter!("log_appended_records_total").increment(records as u64);
    metrics::counter!("log_appended_bytes_total").increment(bytes as u64);
}

/// A reader below the tail fetched records from RocksDB.
pub fn log_fetched(records: usize) {
    metrics::counter!("log_fetched_records_total").increment(records as u64);
}

/// Records left a topic; `reason` is `retention`, `missing` or `compaction`.
pub fn log_removed(reason: &'static str, records: u64) {
    metrics::counter!("log_removed_records_total", "reason" => reason).increment(records);
}

/// A broker or the connection to it gave an error; `code` is librdkafka's name for it.
pub fn kafka_error(code: impl std::fmt::Debug) {
    metrics::counter!("kafka_errors_total", "code" => format!("{code:?}")).increment(1);
}

/// A client knew no broker any more.
pub fn kafka_bootstrap_refreshed() {
    metrics::counter!("kafka_brokers_told_total").increment(1);
}

/// A schema is asked of the registry.
pub fn registry_asked() {
    metrics::counter!("registry_asked_total").increment(1);
}

/// The registry gave no schema; `reason` is `unknown`, `unavailable` or `unusable`.
pub fn registry_failed(reason: &'static str) {
    metrics::counter!("registry_failed_total", "reason" => reason).increment(1);
}

/// So many schemas are held in memory.
pub fn registry_schemas(count: usize) {
    metrics::gauge!("registry_schemas").set(count as f64);
}

/// A task's store wrote so many transactions' batches, merged into so many rows.
pub fn store_written(batches: u64, rows: usize) {
    metrics::counter!("store_written_batches_total").increment(batches);
    metrics::counter!("store_written_rows_total").increment(rows as u64);
}

/// A checkpoint of a task's store was kept; all of the task's hold so many bytes.
pub fn checkpoint_kept(partition: u32, bytes: u64) {
    metrics::counter!("store_checkpoints_total").increment(1);
    metrics::gauge!("store_checkpoint_bytes", "task" => partition.to_string()).set(bytes as f64);
}

/// A checkpoint could not be kept; the task goes on without it.
pub fn checkpoint_failed(reason: &dyn std::error::Error) {
    tracing::warn!(reason = %reason, "a checkpoint could not be kept; the next is tried later");
    metrics::counter!("store_checkpoints_failed_total").increment(1);
}
