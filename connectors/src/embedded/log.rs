//! The `Log` port on the embedded log: each method of the port, and nothing else.
//!
//! Topics are fixed at creation: `create` fails for a topic that exists with other settings. An
//! error about the directory (in use, disk full, damaged) is `Fatal` and says what to do.

use std::sync::Arc;

use tidewire_engine::port::{
    Appender, Bounds, Clock, Committed, EndsRequest, Isolation, KnownEnds, Log, LogError, Member,
    MemberSpec, Reader, TopicInfo, TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, TopicPartition};

use super::append::EmbeddedAppender;
use super::config::{Config, PARTITIONS_MAX, TOPICS_MAX, Upkeep};
use super::core::Core;
use super::ends::EndsBehindOpen;
use super::layout;
use super::member::EmbeddedMember;
use super::read::EmbeddedReader;
use super::topic::{PartitionRef, UpkeepRun, UpkeepScope};
use super::transact::EmbeddedTransactor;
use super::upkeep::{self, UpkeepThread};

/// The embedded log. It closes when it and every producer, reader and member of it are dropped.
pub struct EmbeddedLog {
    core: Arc<Core>,
    _upkeep: Option<UpkeepThread>,
}

impl EmbeddedLog {
    /// Opens or creates the log of a directory. A `Fatal` error says what to do: another process
    /// has opened it, the disk is full, or the data is damaged.
    pub fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Arc<Self>, LogError> {
        let by_thread = config.upkeep == Upkeep::Thread;
        let core = Arc::new(Core::open(config, clock)?);
        let upkeep = by_thread.then(|| UpkeepThread::start(&core)).transpose()?;
        Ok(Arc::new(Self { core, _upkeep: upkeep }))
    }

    /// Applies retention and compaction as of this time, and returns when all is done.
    pub fn maintain(&self, now: Millis) -> Result<(), LogError> {
        upkeep::maintain(&self.core, UpkeepRun { now, scope: UpkeepScope::Everything })
    }
}

impl Log for EmbeddedLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        check_spec(spec)?;
        let mut state = self.core.lock_writer()?;
        if let Ok(existing) = self.core.topic(&spec.topic) {
            if existing.spec == *spec {
                return Ok(false);
            }
            return Err(LogError::Invalid(format!(
                "topic {} exists with {} partitions and {:?}, not {} partitions and {:?}; this is \
                 fixed at creation: use the existing settings, or another topics.prefix or \
                 --data-dir",
                spec.topic,
                existing.spec.partitions,
                existing.spec.cleanup,
                spec.partitions,
                spec.cleanup
            )));
        }
        if self.core.topics.read().expect("no holder panics").len() >= TOPICS_MAX {
            return Err(LogError::Invalid(format!(
                "the embedded log has at most {TOPICS_MAX} topics; use Kafka for more"
            )));
        }
        self.core.create_topic(spec, &mut state)?;
        Ok(true)
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        let topics = self.core.topics.read().expect("no holder panics");
        Ok(topics.values().map(|topic| topic.info()).collect())
    }

    fn bounds(&self, at: &TopicPartition, _: Isolation) -> Result<Bounds, LogError> {
        Ok(self.core.partition(at)?.1.bounds())
    }

    fn request_ends(
        &self,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Box<dyn EndsRequest>, LogError> {
        match isolation {
            Isolation::Committed => {
                let ends = of.iter().map(|at| Ok(self.bounds(at, isolation)?.end));
                Ok(Box::new(KnownEnds::new(ends.collect::<Result<_, LogError>>()?)))
            }
            Isolation::Uncommitted => Ok(Box::new(EndsBehindOpen::new(&self.core, of)?)),
        }
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        let (topic, log) = self.core.partition(at)?;
        let of = PartitionRef { topic: &topic, log: &log };
        let found = upkeep::first_where(&self.core, of, |at, _| at >= time)?;
        Ok(found.map(Offset))
    }

    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let read = |at: &TopicPartition| {
            self.core.partition(at)?;
            let Some(row) = self.core.database.meta_row(&layout::group_key(group, at))? else {
                return Ok(None);
            };
            let corruption = || self.core.database.corruption("a group's offset is unreadable");
            layout::decode_committed(&row).ok_or_else(corruption).map(Some)
        };
        of.iter().map(read).collect()
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(EmbeddedAppender(self.core.clone())))
    }

    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        Ok(Box::new(EmbeddedTransactor::new(&self.core, id)?))
    }

    fn reader(&self, _: Isolation) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(EmbeddedReader::new(&self.core)))
    }

    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(EmbeddedMember::new(&self.core, spec)?))
    }
}

fn check_spec(spec: &TopicSpec) -> Result<(), LogError> {
    let name = spec.topic.as_str();
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = if name.is_empty() || name.len() > 249 || !name.chars().all(is_allowed) {
        format!("{name:?} is not a topic name; use 1 to 249 characters of A-Z a-z 0-9 . _ -")
    } else if !(1..=PARTITIONS_MAX).contains(&spec.partitions) {
        format!(
            "topic {name} can't have {} partitions; give 1 to {PARTITIONS_MAX}",
            spec.partitions
        )
    } else {
        return Ok(());
    };
    Err(LogError::Invalid(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::port::{Cleanup, ReadLimit};
    use tidewire_engine::record::{Body, Outgoing, Partition, Topic};

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Millis {
            Millis(1_000)
        }
    }

    fn open(dir: &std::path::Path) -> Arc<EmbeddedLog> {
        EmbeddedLog::open(Config::new(dir), Arc::new(StoppedClock)).expect("opens")
    }

    fn spec(topic: &Topic) -> TopicSpec {
        let cleanup = Cleanup::Delete { retention_ms: None, retention_bytes: None };
        TopicSpec { topic: topic.clone(), partitions: 2, cleanup }
    }

    #[test]
    fn records_survive_a_restart_and_offsets_continue() {
        let dir = tempfile::tempdir().unwrap();
        let topic = Topic::new("t");
        let at = TopicPartition::new(&topic, Partition(1));
        for round in 0..3u64 {
            let log = open(dir.path());
            assert_eq!(log.create(&spec(&topic)).unwrap(), round == 0);
            let body = Body::new(None, Some(format!("{round}").as_bytes()), &[]);
            let record = Outgoing { topic: topic.clone(), partition: Partition(1), body };
            let offsets = log.appender().unwrap().append(&[record]).unwrap();
            assert_eq!(offsets, [Offset(round)]);
            let mut reader = log.reader(Isolation::Committed).unwrap();
            let slot = reader.add(&at, Offset(0)).unwrap();
            let mut records = Vec::new();
            while reader.position(slot).unwrap().0 <= round {
                let limit = ReadLimit { records: 10, bytes: 1 << 20 };
                assert!(reader.take(slot, limit, &mut records).unwrap() > 0);
            }
            let read: Vec<_> = records.iter().map(|r| r.body.value().unwrap().to_vec()).collect();
            let expected: Vec<_> = (0..=round).map(|n| format!("{n}").into_bytes()).collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_directory_in_use_is_refused_with_a_fix() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path());
        let second = EmbeddedLog::open(Config::new(dir.path()), Arc::new(StoppedClock));
        let text = second.err().expect("refused").to_string();
        assert!(text.contains("in use by another process") && text.contains("--url"), "{text}");
    }

    fn put(log: &EmbeddedLog, topic: &Topic, count: usize) {
        let body = Body::new(None, Some(b"x"), &[]);
        let record = Outgoing { topic: topic.clone(), partition: Partition(0), body };
        log.appender().unwrap().append(&vec![record; count]).unwrap();
    }

    /// A copy of the directory of an open log: what a crash at this moment would leave.
    fn crash_image(dir: &std::path::Path) -> tempfile::TempDir {
        let image = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, image.path().join(path.file_name().unwrap())).unwrap();
        }
        image
    }

    #[test]
    fn ids_change_after_an_unclean_boot_of_the_host_and_not_after_a_killed_process() {
        let dir = tempfile::tempdir().unwrap();
        let boot = tempfile::NamedTempFile::new().unwrap();
        let open = |dir: &std::path::Path, id: &str| {
            std::fs::write(boot.path(), id).unwrap();
            let config = Config { boot_id_file: boot.path().to_owned(), ..Config::new(dir) };
            EmbeddedLog::open(config, Arc::new(StoppedClock)).unwrap()
        };
        let log = open(dir.path(), "boot-1");
        log.create(&spec(&Topic::new("t"))).unwrap();
        let id = log.topics().unwrap()[0].id;
        let (killed, cut) = (crash_image(dir.path()), crash_image(dir.path()));
        drop(log);
        assert_eq!(open(killed.path(), "boot-1").topics().unwrap()[0].id, id);
        assert_ne!(open(cut.path(), "boot-2").topics().unwrap()[0].id, id);
        assert_eq!(open(dir.path(), "boot-2").topics().unwrap()[0].id, id, "it was closed");
    }

    #[test]
    fn missing_records_move_the_start_and_are_never_skipped_silently() {
        let dir = tempfile::tempdir().unwrap();
        let topic = Topic::new("t");
        let at = TopicPartition::new(&topic, Partition(0));
        let config = Config { tail_bytes: 0, upkeep: Upkeep::Caller, ..Config::new(dir.path()) };
        let log = EmbeddedLog::open(config, Arc::new(StoppedClock)).unwrap();
        log.create(&spec(&topic)).unwrap();
        put(&log, &topic, 10);
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let slot = reader.add(&at, Offset(0)).unwrap();
        let delete = |offsets: std::ops::Range<u64>| {
            let name = &log.core.topic(&topic).unwrap().families.records;
            let family = log.core.database.family(name).unwrap();
            for offset in offsets {
                let key = layout::record_key(Partition(0), offset);
                log.core.database.rocks().delete_cf(&family, key).unwrap();
            }
        };
        delete(0..4);
        let all = ReadLimit { records: 100, bytes: 1 << 20 };
        match reader.take(slot, all, &mut Vec::new()) {
            Err(LogError::OutOfRange { asked: 0, start: 4, end: 10, .. }) => {}
            other => panic!("skipped: {other:?}"),
        }
        delete(4..10);
        drop((reader, log));
        let log = open(dir.path());
        let bounds = log.bounds(&at, Isolation::Committed).unwrap();
        assert_eq!((bounds.start, bounds.end), (Offset(10), Offset(10)));
    }

    #[test]
    fn a_damaged_directory_is_refused_with_a_fix() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST") {
                std::fs::write(path, b"not a manifest, and long enough to look at").unwrap();
            }
        }
        let outcome = EmbeddedLog::open(Config::new(dir.path()), Arc::new(StoppedClock));
        match outcome.err() {
            Some(LogError::Fatal(text, _)) => assert!(text.contains("damaged"), "{text}"),
            other => panic!("not refused: {other:?}"),
        }
    }
}
