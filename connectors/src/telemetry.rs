//! Every metric of this crate: name, kind, labels, meaning, and the one function that records it.
//!
//! Call sites name what happened; this file decides how it is counted. Wherever something is
//! refused or dropped there is a counter with a `reason`, so that nothing is dropped silently.

use std::time::Duration;

use tidewire_engine::fanout::shard::ConnectionMemory;

/// Name, kind, labels, meaning.
pub const CATALOGUE: &[(&str, &str, &[&str], &str)] = &[
    ("socket_connections", "gauge", &["transport"], "Open WebSocket and SSE connections"),
    (
        "socket_connections_opened_total",
        "counter",
        &["transport"],
        "WebSocket and SSE connections opened",
    ),
    ("socket_connections_closed_total", "counter", &["reason"], "Connections closed"),
    ("socket_connections_refused_total", "counter", &["reason"], "Connections or requests refused"),
    (
        "socket_writes_total",
        "counter",
        &[],
        "Writes to WebSocket and SSE connections, each with all pending frames",
    ),
    (
        "socket_written_bytes_total",
        "counter",
        &[],
        "Bytes written to WebSocket and SSE connections",
    ),
    (
        "socket_memory_bytes",
        "gauge",
        &[],
        "Bytes of memory that count against memory.connections_bytes",
    ),
    ("socket_memory_full", "gauge", &[], "1 while memory.connections_bytes are in use"),
    (
        "socket_memory_full_total",
        "counter",
        &[],
        "Times that the memory for connections became full",
    ),
    ("socket_read_bytes_total", "counter", &[], "Bytes read from WebSocket and SSE connections"),
    (
        "ingest_events_total",
        "counter",
        &["result"],
        "Events of POST /v1/events; those with result too_large have no dead letter",
    ),
    ("ingest_batch_records", "histogram", &[], "Records per append of the ingest thread"),
    ("ingest_append_seconds", "histogram", &[], "Duration of an append of the ingest thread"),
    (
        "ingest_overloaded_total",
        "counter",
        &["reason"],
        "Requests refused because too much waits, or because the schema registry does not answer",
    ),
    ("log_appended_records_total", "counter", &[], "Records appended to the embedded log"),
    (
        "log_appended_bytes_total",
        "counter",
        &[],
        "Bytes of record bodies appended to the embedded log",
    ),
    (
        "log_turns_total",
        "counter",
        &[],
        "Batches written to the embedded log, each with all waiting appends",
    ),
    (
        "log_fetched_records_total",
        "counter",
        &[],
        "Records of the embedded log read from RocksDB because they were not in memory",
    ),
    (
        "log_removed_records_total",
        "counter",
        &["reason"],
        "Records removed from the embedded log: retention, missing, compaction",
    ),
    (
        "registry_asked_total",
        "counter",
        &[],
        "Schemas requested from the schema registry because they were not cached",
    ),
    (
        "registry_failed_total",
        "counter",
        &["reason"],
        "Requests for a schema that failed: unknown, unavailable, unusable",
    ),
    ("registry_schemas", "gauge", &[], "Schemas of the registry that are cached in memory"),
    ("registry_away", "gauge", &[], "1 while the schema registry can't be asked"),
    (
        "kafka_errors_total",
        "counter",
        &["code"],
        "Errors of brokers or connections, by librdkafka's error code",
    ),
    (
        "kafka_read_failures_total",
        "counter",
        &["topic", "code"],
        "Failed attempts to read a partition, by librdkafka's error code",
    ),
    (
        "kafka_unreadable_partitions",
        "gauge",
        &[],
        "Partitions that repeatedly fail to be read at one offset; /readyz names them",
    ),
    (
        "kafka_brokers_told_total",
        "counter",
        &[],
        "Times a client had lost all brokers and was given the bootstrap addresses again",
    ),
    (
        "store_written_batches_total",
        "counter",
        &[],
        "Batches written to task stores, one per transaction",
    ),
    (
        "store_written_rows_total",
        "counter",
        &[],
        "Rows written to task stores, after batches were merged",
    ),
    ("store_checkpoints_total", "counter", &[], "Checkpoints of task stores created"),
    (
        "store_checkpoints_failed_total",
        "counter",
        &[],
        "Checkpoints of task stores that could not be created",
    ),
    (
        "store_checkpoint_bytes",
        "gauge",
        &["task"],
        "Bytes of a task's checkpoints, including files shared with the store",
    ),
];

/// A WebSocket or SSE connection was opened.
pub fn connection_opened(transport: &'static str) {
    metrics::counter!("socket_connections_opened_total", "transport" => transport).increment(1);
    metrics::gauge!("socket_connections", "transport" => transport).increment(1.0);
}

/// A WebSocket or SSE connection was closed.
pub fn connection_left(transport: &'static str) {
    metrics::gauge!("socket_connections", "transport" => transport).decrement(1.0);
}

/// A connection was closed; `reason` is one of a fixed set.
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

/// The memory for connections became full.
pub fn connection_memory_full() {
    metrics::counter!("socket_memory_full_total").increment(1);
}

/// The memory for connections that is in use, and whether that is all.
pub fn connection_memory(bytes: usize, memory: ConnectionMemory) {
    metrics::gauge!("socket_memory_bytes").set(bytes as f64);
    let full = u8::from(memory == ConnectionMemory::Full);
    metrics::gauge!("socket_memory_full").set(f64::from(full));
}

/// Events of one request, by result: `accepted`, `refused` (a dead letter), or `too_large` (for a
/// dead letter).
pub fn ingested(result: &'static str, events: u64) {
    metrics::counter!("ingest_events_total", "result" => result).increment(events);
}

/// One append of the ingest thread.
pub fn ingest_appended(records: usize, seconds: f64) {
    metrics::histogram!("ingest_batch_records").record(records as f64);
    metrics::histogram!("ingest_append_seconds").record(seconds);
}

/// A request was refused because the ingest queue is full.
pub fn ingest_overloaded(reason: &'static str) {
    metrics::counter!("ingest_overloaded_total", "reason" => reason).increment(1);
}

/// One batch of the embedded log.
pub fn log_appended(records: usize, bytes: usize) {
    metrics::counter!("log_turns_total").increment(1);
    metrics::counter!("log_appended_records_total").increment(records as u64);
    metrics::counter!("log_appended_bytes_total").increment(bytes as u64);
}

/// A reader fetched records from RocksDB because they were not in memory.
pub fn log_fetched(records: usize) {
    metrics::counter!("log_fetched_records_total").increment(records as u64);
}

/// Records were removed from a topic; `reason` is `retention`, `missing` or `compaction`.
pub fn log_removed(reason: &'static str, records: u64) {
    metrics::counter!("log_removed_records_total", "reason" => reason).increment(records);
}

/// librdkafka reported an error of a broker or a connection; `code` is its name for it.
pub fn kafka_error(code: impl std::fmt::Debug) {
    metrics::counter!("kafka_errors_total", "code" => format!("{code:?}")).increment(1);
}

/// An attempt to read a partition of a topic failed.
pub fn kafka_read_failed(topic: impl std::fmt::Display, code: impl std::fmt::Debug) {
    let (topic, code) = (topic.to_string(), format!("{code:?}"));
    metrics::counter!("kafka_read_failures_total", "topic" => topic, "code" => code).increment(1);
}

/// How many partitions can't be read.
pub fn kafka_unreadable_partitions(count: usize) {
    metrics::gauge!("kafka_unreadable_partitions").set(count as f64);
}

/// A client had lost all brokers and was given the bootstrap addresses again.
pub fn kafka_bootstrap_refreshed() {
    metrics::counter!("kafka_brokers_told_total").increment(1);
}

/// A schema is requested from the registry.
pub fn registry_asked() {
    metrics::counter!("registry_asked_total").increment(1);
}

/// A request for a schema failed; `reason` is `unknown`, `unavailable` or `unusable`.
pub fn registry_failed(reason: &'static str) {
    metrics::counter!("registry_failed_total", "reason" => reason).increment(1);
}

/// The registry can't be asked.
pub fn registry_away(why: &str) {
    metrics::gauge!("registry_away").set(1.0);
    tracing::warn!("the schema registry can't be asked, which is tried again: {why}");
}

/// The registry answers again.
pub fn registry_back(after: Duration) {
    metrics::gauge!("registry_away").set(0.0);
    tracing::info!("the schema registry answers again after {after:.1?}");
}

/// The number of schemas in the cache.
pub fn registry_schemas(count: usize) {
    metrics::gauge!("registry_schemas").set(count as f64);
}

/// A task's store wrote the batches of `batches` transactions, merged into `rows` rows.
pub fn store_written(batches: u64, rows: usize) {
    metrics::counter!("store_written_batches_total").increment(batches);
    metrics::counter!("store_written_rows_total").increment(rows as u64);
}

/// A checkpoint of a task's store was created; `bytes` is the size of all its checkpoints.
pub fn checkpoint_kept(partition: u32, bytes: u64) {
    metrics::counter!("store_checkpoints_total").increment(1);
    metrics::gauge!("store_checkpoint_bytes", "task" => partition.to_string()).set(bytes as f64);
}

/// A checkpoint could not be created; the task continues without it.
pub fn checkpoint_failed(reason: &dyn std::error::Error) {
    tracing::warn!(reason = %reason, "a checkpoint could not be created; it is tried again later");
    metrics::counter!("store_checkpoints_failed_total").increment(1);
}
