//! Retention, and the thread that runs it and compaction.
//!
//! They have a thread of their own because a pass of compaction on the append path would delay
//! commits. Retention moves a partition's start, on disk first. Records below the start can no
//! longer be read at once; their bytes are freed later, by whole files or when RocksDB compacts.
//! Offsets after the start stay contiguous, and the next offset never depends on what is stored.
//!
//! A failed run marks the whole log as failed.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::port::{Cleanup, LogError};
use tidewire_engine::record::Millis;

use super::clean;
use super::config::{RETAIN_EVERY_MS, UPKEEP_EVERY_MS};
use super::core::Core;
use super::layout;
use super::topic::{PartitionRef, UpkeepRun, UpkeepScope};
use crate::telemetry;

/// The upkeep thread. Dropping this stops and joins it.
pub(super) struct UpkeepThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl UpkeepThread {
    /// Starts the thread. It does not keep the log open.
    #[expect(clippy::disallowed_methods, reason = "the drop of what is returned joins it")]
    pub(super) fn start(core: &Arc<Core>) -> Result<Self, LogError> {
        let (stop, stopped) = mpsc::channel::<()>();
        let core = Arc::downgrade(core);
        let every = Duration::from_millis(UPKEEP_EVERY_MS);
        let run = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if !run_once(&core) {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("log-upkeep".to_owned()).spawn(run).map_err(
            |error| {
                let text = "can't start the log's upkeep thread".to_owned();
                LogError::Fatal(text, Some(Box::new(error)))
            },
        )?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for UpkeepThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's upkeep thread panicked");
        }
    }
}

/// Runs what is due; `false` once the log is closed or failed.
fn run_once(core: &Weak<Core>) -> bool {
    let Some(core) = core.upgrade() else { return false };
    match maintain(&core, UpkeepRun { now: core.clock.now(), scope: UpkeepScope::Due }) {
        Ok(()) => true,
        Err(error) => {
            core.fail_by(&error);
            false
        }
    }
}

/// Applies retention and compaction as of the time of the run.
pub(super) fn maintain(core: &Core, run: UpkeepRun) -> Result<(), LogError> {
    let UpkeepRun { now, scope } = run;
    core.check_failure()?;
    let topics: Vec<_> = core.topics.read().expect("no holder panics").values().cloned().collect();
    for topic in topics {
        for log in &topic.partitions {
            let of = PartitionRef { topic: &topic, log };
            let mut progress = log.progress();
            let recent = now.0.saturating_sub(progress.retained.0) < RETAIN_EVERY_MS;
            if scope == UpkeepScope::Everything || !recent {
                apply_retention(core, of, now)?;
                progress.retained = now;
                log.set_progress(progress);
            }
            clean::clean(core, of, run)?;
        }
    }
    Ok(())
}

/// Moves a partition's start past what is too old or beyond the size limit.
fn apply_retention(core: &Core, of: PartitionRef<'_>, now: Millis) -> Result<(), LogError> {
    let PartitionRef { topic, log } = of;
    let (age, size) = match topic.spec.cleanup {
        Cleanup::Delete { retention_ms, retention_bytes } => (retention_ms, retention_bytes),
        Cleanup::Compact { .. } => return Ok(()),
        Cleanup::CompactDelete { retention_ms, .. } => (Some(retention_ms), None),
    };
    let (start, end) = (log.start(), log.end());
    if start >= end {
        return Ok(());
    }
    let oldest = age.map_or(i64::MIN, |age| now.0.saturating_sub_unsigned(age));
    let least = match size {
        None => 0,
        Some(size) => newest_bytes(core, of)?.saturating_sub(size),
    };
    // A record stays while it is young enough and within the newest bytes. At least this size is
    // kept: a record that crosses the limit stays.
    let stays = |time: Millis, before: u64, bytes: u64| time.0 >= oldest && before + bytes > least;
    let mut first = None;
    core.scan(of, start..end, &mut |_, value| {
        let (time, before, body) = split(core, value)?;
        first = Some(stays(time, before, body));
        Ok(false)
    })?;
    if first == Some(true) {
        return Ok(());
    }
    let kept = search(core, of, &mut |value| {
        let (time, before, body) = split(core, value)?;
        Ok(stays(time, before, body))
    })?;
    let to = kept.unwrap_or(end);
    if to > start {
        core.move_start(log, to)?;
        telemetry::log_removed("retention", to - start);
        if !topic.families.leaves_by_file {
            core.database.reclaim(&topic.families.records, log.at.partition, start..to)?;
        }
    }
    Ok(())
}

fn split(core: &Core, value: &[u8]) -> Result<(Millis, u64, u64), LogError> {
    let (time, before, body) = layout::split_record(value)
        .ok_or_else(|| core.database.corruption("the header of a record is unreadable"))?;
    Ok((time, before, body.len() as u64))
}

/// Bytes appended to the partition so far, the newest record included.
fn newest_bytes(core: &Core, of: PartitionRef<'_>) -> Result<u64, LogError> {
    let end = of.log.end();
    let mut bytes = 0;
    core.scan(of, end.saturating_sub(1)..end, &mut |_, value| {
        let (_, before, body) = split(core, value)?;
        bytes = before + body;
        Ok(false)
    })?;
    Ok(bytes)
}

/// The first record for which `holds(time, bytes before it)` is true. Along the offsets it must be
/// false first and true from there on.
pub(super) fn first_where(
    core: &Core,
    of: PartitionRef<'_>,
    holds: impl Fn(Millis, u64) -> bool,
) -> Result<Option<u64>, LogError> {
    search(core, of, &mut |value| {
        let (time, before, _) = split(core, value)?;
        Ok(holds(time, before))
    })
}

/// Binary search over the offsets, some of which may have no record.
fn search(
    core: &Core,
    of: PartitionRef<'_>,
    holds: &mut dyn FnMut(&[u8]) -> Result<bool, LogError>,
) -> Result<Option<u64>, LogError> {
    let (mut low, mut high) = (of.log.start(), of.log.end());
    let end = high;
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut probe = None;
        core.scan(of, middle..end, &mut |offset, value| {
            probe = Some((offset, holds(value)?));
            Ok(false)
        })?;
        match probe {
            Some((offset, false)) => low = offset + 1,
            Some((offset, true)) => {
                found = Some(offset);
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(found)
}
