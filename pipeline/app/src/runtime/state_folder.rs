//! The state folder: one process's, and of one log only.
//!
//! Stores say how far they have come by offsets. The same offsets in topics that were made anew, or
//! in another cluster, mean other records, and a store brought up from there would be wrong without
//! a sign of it. So the folder remembers which log it follows; what belongs to another is removed,
//! and rebuilt from the changelogs. Each task's store has RocksDB's own lock; the one here is for
//! the folder, so that two processes meet at the start and not at their first rebalance.
//!
//! ```text
//! state/lock     held while the process lives; the text is its process id
//! state/log      the ids of the topics that the stores follow
//! state/task-N   the store of partition N
//! state/checkpoints/task-N   some of its past, for replays
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

/// A claimed state folder; others are kept out for as long as a clone of it lives.
#[derive(Clone, Debug)]
pub struct StateFolder {
    dir: PathBuf,
    _lock: Arc<File>,
}

impl StateFolder {
    /// Whether a data folder has one.
    pub fn is_in(data_dir: &Path) -> bool {
        data_dir.join(STATE).is_dir()
    }

    /// Makes it if it is not there, and keeps other processes out.
    pub fn claim(data_dir: &Path) -> Result<Self, ProcessExit> {
        let dir = data_dir.join(STATE);
        let failed = |error| {
            let shown = dir.display();
            let text = format!("could not write in {shown}; is it yours? --data-dir names another");
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

    /// Removes the stores if they follow another log than this one, and remembers this one.
    pub fn follow(&self, log: &dyn Log, topology: &Topology) -> Result<(), FollowError> {
        let now = log_ids(&log.topics()?, topology);
        let path = self.dir.join(LOG_IDS);
        match fs::read_to_string(&path) {
            Ok(before) if before == now => return Ok(()),
            Ok(_) => self.remove_stores()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.remove_stores()?,
            Err(error) => return Err(error.into()),
        }
        // A name that is only there once its content is: a crash in between forgets once more.
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
            tracing::warn!(stores, "the state in {dir} follows another log; it is rebuilt");
        }
        Ok(())
    }
}

/// What a folder that follows this log says.
fn log_ids(topics: &[TopicInfo], topology: &Topology) -> String {
    let id_of =
        |name: &Topic| topics.iter().find(|info| info.spec.topic == *name).map(|info| info.id);
    let id = |name| id_of(name).map_or("none".to_owned(), |id| format!("{id:032x}"));
    format!("{} {}\n", id(topology.state()), id(topology.order()))
}

/// The state in a data folder, to look at while its process may run; `None` if there is none, or
/// none of this log.
pub fn find_for_log(data_dir: &Path, topics: &[TopicInfo], topology: &Topology) -> Option<PathBuf> {
    let dir = data_dir.join(STATE);
    let follows = fs::read_to_string(dir.join(LOG_IDS)).ok()?;
    (follows == log_ids(topics, topology)).then_some(dir)
}

/// Why a folder could not be made to follow a log.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The log did not say which topics it has.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder failed.
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
    // Who it is helps; that it is taken is certain without it.
    let known = lock.read_to_string(&mut holder).is_ok() && !holder.is_empty();
    let by = if known { format!("process {holder}") } else { "another process".to_owned() };
    ProcessExit::failed(format!(
        "the state in {} is in use by {by}; stop that one, or give this one a --data-dir and an \
         --instance of its own",
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
    fn the_state_of_another_log_is_removed_and_that_of_the_same_one_stays() {
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
    fn a_folder_in_use_is_named_with_its_holder_and_is_free_afterwards() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateFolder::claim(dir.path()).expect("free");
        let text = StateFolder::claim(dir.path()).expect_err("taken").to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("--data-dir"), "{text}");
        drop(first);
        StateFolder::claim(dir.path()).expect("free again");
    }
}
