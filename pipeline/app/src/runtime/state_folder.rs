//! Locks the state folder for one process, and removes state that belongs to another log.
//!
//! Stores record their progress as offsets. In topics that were created again, or in another
//! cluster, the same offsets mean other records, and a store restored from there would be silently
//! wrong. So the folder records the ids of the topics it follows; state of other topics is removed
//! and restored from the changelogs. Each task's store has RocksDB's own lock; the lock here is for
//! the folder, so that a second process fails at its start and not at its first rebalance.
//!
//! ```text
//! state/lock                 locked while a process runs; the content is its process id
//! state/log                  the ids of the topics that the stores follow
//! state/task-N               the store of partition N
//! state/checkpoints/task-N   copies of it at earlier transactions, for replays
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewire_engine::port::{Log, LogError, TopicInfo};
use tidewire_engine::record::Topic;
use tidewire_engine::topology::Topology;

use crate::process_exit::ProcessExit;

/// The folder's name in the data folder.
const STATE: &str = "state";
const LOCK: &str = "lock";
const LOG_IDS: &str = "log";

/// A locked state folder; the lock is held as long as a clone of this exists.
#[derive(Clone, Debug)]
pub struct StateFolder {
    dir: PathBuf,
    _lock: Arc<File>,
}

impl StateFolder {
    /// Whether a data folder has a state folder.
    pub fn is_in(data_dir: &Path) -> bool {
        data_dir.join(STATE).is_dir()
    }

    /// Creates it if it is missing, and locks it.
    pub fn claim(data_dir: &Path) -> Result<Self, ProcessExit> {
        let dir = data_dir.join(STATE);
        let failed = |error| {
            let shown = dir.display();
            let text =
                format!("could not write in {shown}; change its owner, or give another --data-dir");
            ProcessExit::because(text, error)
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let path = dir.join(LOCK);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut lock = open.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use_error(&dir, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        write_process_id(&mut lock).map_err(failed)?;
        Ok(Self { dir, _lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the stores if they follow other topics than those of this log, and records its ids.
    pub fn follow(&self, log: &dyn Log, topology: &Topology) -> Result<(), FollowError> {
        let now = log_ids(&log.topics()?, topology);
        let path = self.dir.join(LOG_IDS);
        match fs::read_to_string(&path) {
            Ok(before) if before == now => return Ok(()),
            Ok(_) => self.remove_stores()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.remove_stores()?,
            Err(error) => return Err(error.into()),
        }
        // Renamed once it is written: a crash before that removes the stores once more.
        let fresh = self.dir.join(format!("{LOG_IDS}.new"));
        fs::write(&fresh, now)?;
        fs::rename(fresh, path)?;
        Ok(())
    }

    fn remove_stores(&self) -> io::Result<()> {
        let mut stores = 0;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
                stores += 1;
            }
        }
        if stores > 0 {
            let dir = self.dir.display();
            tracing::warn!(stores, "the state in {dir} is of another log and was removed");
        }
        Ok(())
    }
}

/// The content of `state/log` for this log.
fn log_ids(topics: &[TopicInfo], topology: &Topology) -> String {
    let id_of =
        |name: &Topic| topics.iter().find(|info| info.spec.topic == *name).map(|info| info.id);
    let id = |name| id_of(name).map_or("none".to_owned(), |id| format!("{id:032x}"));
    format!("{} {}\n", id(topology.state()), id(topology.order()))
}

/// The state folder, to read while its process may run; `None` if there is none, or none of this
/// log.
pub fn find_for_log(data_dir: &Path, topics: &[TopicInfo], topology: &Topology) -> Option<PathBuf> {
    let dir = data_dir.join(STATE);
    let follows = fs::read_to_string(dir.join(LOG_IDS)).ok()?;
    (follows == log_ids(topics, topology)).then_some(dir)
}

/// Why a folder could not be made to follow a log.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The log could not list its topics.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder could not be written.
    #[error("could not write in the state folder; check the disk, or remove the folder")]
    Folder(#[from] io::Error),
}

fn write_process_id(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

fn in_use_error(dir: &Path, lock: &mut File) -> ProcessExit {
    let mut holder = String::new();
    // The process id helps to find the holder; without it the message is still right.
    let known = lock.read_to_string(&mut holder).is_ok() && !holder.is_empty();
    let by = if known { format!("process {holder}") } else { "another process".to_owned() };
    ProcessExit::failed(format!(
        "the state in {} is in use by {by}; stop that process, or give this one its own --data-dir \
         and --instance",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use tidewire_connectors::embedded::{Config, EmbeddedLog};

    use super::*;
    use crate::runtime::clock::SystemClock;

    fn log(dir: &Path, topology: &Topology) -> Arc<EmbeddedLog> {
        let log = EmbeddedLog::open(Config::new(dir), Arc::new(SystemClock)).expect("a new log");
        for spec in topology.specs() {
            log.create(&spec).expect("a new topic");
        }
        log
    }

    #[test]
    fn state_of_another_log_is_removed_and_state_of_the_same_one_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let topology = Topology::new("t.", 1);
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let (one, other) = (log(&one, &topology), log(&other, &topology));
        let folder = StateFolder::claim(dir.path()).expect("free");
        let store = folder.dir().join("task-0");
        for (log, stays) in [(&one, false), (&one, true), (&other, false), (&other, true)] {
            fs::create_dir_all(&store).expect("a folder");
            folder.follow(&**log, &topology).expect("both work");
            assert_eq!(store.exists(), stays);
            let topics = log.topics().expect("it lists them");
            assert!(find_for_log(dir.path(), &topics, &topology).is_some());
            let elsewhere = if Arc::ptr_eq(log, &one) { &other } else { &one };
            let topics = elsewhere.topics().expect("it lists them");
            assert_eq!(find_for_log(dir.path(), &topics, &topology), None, "state of another log");
        }
    }

    #[test]
    fn a_locked_folder_is_reported_with_its_holder_and_is_free_afterwards() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateFolder::claim(dir.path()).expect("free");
        let text = StateFolder::claim(dir.path()).expect_err("taken").to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("--data-dir"), "{text}");
        drop(first);
        StateFolder::claim(dir.path()).expect("free again");
    }
}
