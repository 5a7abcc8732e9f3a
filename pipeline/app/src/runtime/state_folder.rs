//! Locks a folder of stores for one process, and removes state that belongs to another log.
//!
//! Stores record their progress as offsets. In topics that were created again, or in another
//! cluster, the same offsets mean other records, and a store restored from there would be silently
//! wrong. So the folder records the ids of the topics it follows; state of other topics is removed
//! and restored from the log. Each store has RocksDB's own lock; the lock here is for the folder,
//! so that a second process fails at its start and not at its first rebalance.
//!
//! ```text
//! state/lock                 locked while a process runs; the content is its process id
//! state/log                  the ids of the topics that the stores follow: `state`, `order` and
//!                            `state.windows`; earlier builds did not write the third
//! state/task-N               the store of partition N
//! state/checkpoints/task-N   copies of it at earlier transactions, for replays
//! fold/lock, fold/task-N     the same for the state of channels
//! fold/log                   the id of `out.state`
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewire_engine::port::{Log, LogError, TopicInfo};
use tidewire_engine::record::Topic;
use tidewire_engine::topology::Topology;

use crate::process_exit::ProcessExit;
use crate::runtime::locked_folder::{Claim, LockedFolder};

/// The file with the topics' ids.
const LOG_IDS: &str = "log";

/// What the stores of a folder have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// The state of tasks.
    Tasks,
    /// The state of channels.
    Channels,
}

impl StateKind {
    /// The folder in the data folder.
    fn folder(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Self::Tasks => "state",
            Self::Channels => "fold",
        })
    }

    /// The topics that the stores follow.
    fn topics(self, topology: &Topology) -> Vec<&Topic> {
        match self {
            Self::Tasks => vec![topology.state(), topology.order(), topology.windows()],
            Self::Channels => vec![topology.out_state()],
        }
    }
}

/// A locked state folder; the lock is held as long as a clone of this exists.
#[derive(Clone, Debug)]
pub struct StateFolder {
    kind: StateKind,
    folder: Arc<LockedFolder>,
}

impl StateFolder {
    /// Creates it if it is missing, and locks it.
    pub fn claim(data_dir: &Path, kind: StateKind) -> Result<Self, ProcessExit> {
        let dir = kind.folder(data_dir);
        match LockedFolder::claim(&dir)? {
            Claim::Locked(folder) => Ok(Self { kind, folder: Arc::new(folder) }),
            Claim::InUseBy(holder) => Err(ProcessExit::failed(format!(
                "the state in {} is in use by {holder}; stop that process, or give this one its \
                 own --data-dir and --instance",
                dir.display()
            ))),
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.folder.dir()
    }

    /// Removes the stores if they follow other topics than those of this log, and records its ids.
    pub fn follow(&self, log: &dyn Log, topology: &Topology) -> Result<(), FollowError> {
        let now = LogIds::of(self.kind, &log.topics()?, topology);
        let path = self.dir().join(LOG_IDS);
        match fs::read_to_string(&path) {
            Ok(before) if before == now.text() => return Ok(()),
            Ok(before) if now.is(&before) => {}
            Ok(_) => self.remove_stores()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.remove_stores()?,
            Err(error) => return Err(error.into()),
        }
        // Renamed once it is written: a crash before that removes the stores once more.
        let fresh = self.dir().join(format!("{LOG_IDS}.new"));
        fs::write(&fresh, now.text())?;
        fs::rename(fresh, path)?;
        Ok(())
    }

    fn remove_stores(&self) -> io::Result<()> {
        let stores = self.folder.remove_folders()?;
        if stores > 0 {
            let dir = self.dir().display();
            tracing::warn!(stores, "the state in {dir} is of another log and was removed");
        }
        Ok(())
    }
}

/// The ids of the topics that the stores of a folder follow, as hexadecimal numbers.
struct LogIds {
    kind: StateKind,
    ids: Vec<String>,
}

impl LogIds {
    fn of(kind: StateKind, topics: &[TopicInfo], topology: &Topology) -> Self {
        let id = |name: &Topic| {
            let info = topics.iter().find(|info| info.spec.topic == *name);
            info.map_or("none".to_owned(), |info| format!("{:032x}", info.id))
        };
        Self { kind, ids: kind.topics(topology).into_iter().map(id).collect() }
    }

    /// The content of the file with the ids.
    fn text(&self) -> String {
        format!("{}\n", self.ids.join(" "))
    }

    /// Whether this content is of this log, in either form.
    fn is(&self, content: &str) -> bool {
        let is_former = || content == format!("{}\n", self.ids[..2].join(" "));
        content == self.text() || (self.kind == StateKind::Tasks && is_former())
    }
}

/// The folder with the state of tasks in a data folder; `None` if there is none.
pub fn find(data_dir: &Path) -> Option<PathBuf> {
    Some(StateKind::Tasks.folder(data_dir)).filter(|dir| dir.is_dir())
}

/// The same folder, to read while its process may run; `None` if there is none, or none of this
/// log.
pub fn find_for_log(data_dir: &Path, topics: &[TopicInfo], topology: &Topology) -> Option<PathBuf> {
    let dir = StateKind::Tasks.folder(data_dir);
    let follows = fs::read_to_string(dir.join(LOG_IDS)).ok()?;
    LogIds::of(StateKind::Tasks, topics, topology).is(&follows).then_some(dir)
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

#[cfg(test)]
mod tests {
    use tidewire_connectors::embedded::{Config, EmbeddedLog};

    use super::*;
    use crate::runtime::clock::SystemClock;
    use crate::runtime::listed_log::ListedLog;

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
        let folder = StateFolder::claim(dir.path(), StateKind::Tasks).expect("free");
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
    fn state_of_other_windows_is_removed_and_the_form_without_them_is_accepted_and_rewritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let topology = Topology::new("t.", 1);
        let infos = |windows| -> Vec<TopicInfo> {
            let id = |topic: &Topic| if topic == topology.windows() { windows } else { 7 };
            let specs = topology.specs().into_iter();
            specs.map(|spec| TopicInfo { id: id(&spec.topic), spec }).collect()
        };
        let folder = StateFolder::claim(dir.path(), StateKind::Tasks).expect("free");
        let (store, file) = (folder.dir().join("task-0"), folder.dir().join(LOG_IDS));
        let log = ListedLog::default();
        fs::write(&file, format!("{:032x} {:032x}\n", 7, 7)).expect("a writable folder");
        assert!(find_for_log(dir.path(), &infos(7), &topology).is_some());
        for (windows, stays) in [(7, true), (7, true), (8, false), (8, true)] {
            fs::create_dir_all(&store).expect("a folder");
            log.set_topics(Ok(infos(windows)));
            folder.follow(&log, &topology).expect("it works");
            assert_eq!(store.exists(), stays, "{windows}");
            let content = fs::read_to_string(&file).expect("it is there");
            assert_eq!(content, format!("{:032x} {:032x} {windows:032x}\n", 7, 7));
        }
        assert_eq!(find_for_log(dir.path(), &infos(7), &topology), None);
    }

    #[test]
    fn the_state_of_channels_has_a_folder_of_its_own_and_follows_its_topic_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let topology = Topology::new("t.", 1);
        let tasks = StateFolder::claim(dir.path(), StateKind::Tasks).expect("free");
        let channels = StateFolder::claim(dir.path(), StateKind::Channels).expect("free");
        let stores = [&tasks, &channels].map(|folder| folder.dir().join("task-0"));
        let log = ListedLog::default();
        let follow = |of_outputs, of_others| {
            let id = |topic: &Topic| match topic == topology.out_state() {
                true => of_outputs,
                false => of_others,
            };
            let specs = topology.specs().into_iter();
            log.set_topics(Ok(specs.map(|spec| TopicInfo { id: id(&spec.topic), spec }).collect()));
            for (folder, store) in [&tasks, &channels].into_iter().zip(&stores) {
                fs::create_dir_all(store).expect("a folder");
                folder.follow(&log, &topology).expect("it works");
            }
            [stores[0].exists(), stores[1].exists()]
        };
        assert_eq!(follow(1, 1), [false, false]);
        assert_eq!(follow(1, 1), [true, true]);
        assert_eq!(follow(2, 1), [true, false]);
        assert_eq!(follow(2, 2), [false, true]);
    }

    #[test]
    fn a_locked_folder_is_reported_with_its_holder_and_is_free_afterwards() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateFolder::claim(dir.path(), StateKind::Tasks).expect("free");
        let text = StateFolder::claim(dir.path(), StateKind::Tasks).expect_err("taken").to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("--data-dir"), "{text}");
        drop(first);
        StateFolder::claim(dir.path(), StateKind::Tasks).expect("free again");
    }
}
