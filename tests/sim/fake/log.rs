//! The log as one process sees it.

use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_engine::port::{
    Appender, Bounds, Committed, Isolation, Log, LogError, Member, MemberSpec, Reader, TopicInfo,
    TopicSpec, Transactor,
};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Record, TopicPartition};

use super::faults::Call;
use super::group::Joining;
use super::inner::Inner;
use super::member::FakeMember;
use super::part::Entry;
use super::reader::FakeReader;
use super::transactor::FakeTransactor;

/// The log as one process sees it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) process: u64,
}

impl FakeLog {
    /// An empty log.
    pub(crate) fn new(seed: u64) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner::new(seed))), process: 0 }
    }

    /// The same log as another process sees it.
    pub(crate) fn as_process(&self, process: u64) -> Self {
        Self { inner: self.inner.clone(), process }
    }

    /// The inside, for the world.
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    /// The process whose view this is.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// Whether this process has crashed.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead.contains(&self.process)
    }

    /// Stops this process here.
    pub(crate) fn crash(&self) {
        let process = self.process;
        self.inner().dead.insert(process);
    }

    /// What a partition holds, as this isolation shows it.
    pub(crate) fn records(&self, at: &TopicPartition, isolation: Isolation) -> Vec<Record> {
        let inner = self.inner();
        let part = inner.part(at).expect("the topic is there");
        let end = inner.end(at, isolation).expect("the topic is there");
        let record = |offset: u64| match &part.entries[offset as usize] {
            entry @ Entry::Record { time, body, .. } if inner.visible(entry, isolation) => {
                Some(Record { offset: Offset(offset), timestamp: *time, body: body.clone() })
            }
            _ => None,
        };
        (part.start..end).filter_map(record).collect()
    }

    /// Replaces a record's body, as a damaged disk would.
    pub(crate) fn damage(&self, at: &TopicPartition, offset: Offset, to: Body) {
        let mut inner = self.inner();
        let topic = inner.topics.get_mut(&at.topic).expect("the topic is there");
        match &mut topic.parts[at.partition.0 as usize].entries[offset.0 as usize] {
            Entry::Record { body, .. } => *body = to,
            other => panic!("{at}/{} is no record: {other:?}", offset.0),
        }
    }

    /// A fingerprint of everything in the log, and of who has ever written to it or joined.
    pub(crate) fn fingerprint(&self) -> String {
        let inner = self.inner();
        let mut text = String::new();
        for (name, topic) in &inner.topics {
            for (p, part) in topic.parts.iter().enumerate() {
                let hash = part.entries.iter().fold(0u64, |hash, entry| {
                    let bytes = format!("{entry:?}");
                    bytes
                        .bytes()
                        .fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
                });
                text.push_str(&format!("{name}/{p}: {} {hash:016x}\n", part.end()));
            }
        }
        text.push_str(&format!("{:?}\n{:?}\n", inner.offsets, inner.tally));
        text.push_str(&format!("{:?}\n{}", inner.ids, inner.next_member));
        text
    }
}

impl Log for FakeLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.call(Call::Create, |inner| inner.create(spec))
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.call(Call::Topics, |inner| {
            let topics = inner.topics.values();
            Ok(topics.map(|t| TopicInfo { spec: t.spec.clone(), id: t.id }).collect())
        })
    }

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.call(Call::Bounds, |inner| {
            let (start, end) = (inner.part(at)?.start, inner.end(at, isolation)?);
            Ok(Bounds { start: Offset(start), end: Offset(end) })
        })
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.call(Call::OffsetAt, |inner| {
            let part = inner.part(at)?;
            let late = |offset: &u64| match &part.entries[*offset as usize] {
                Entry::Record { time: appended, .. } => *appended >= time,
                Entry::Control | Entry::Gone => false,
            };
            Ok((part.start..part.end()).find(late).map(Offset))
        })
    }

    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        self.call(Call::Committed, |inner| {
            // As a broker does: no answer until it is known how the transaction ends.
            if inner.is_undecided(group, of) {
                inner.count("offsets undecided");
                return Err(LogError::Retry("a transaction decides about these offsets".into()));
            }
            let of = of.iter().map(|at| (group.to_owned(), at.clone()));
            Ok(of.map(|key| inner.offsets.get(&key).cloned()).collect())
        })
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.call(Call::Appender, |_| Ok(()))?;
        Ok(Box::new(self.clone()))
    }

    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        let epoch = self.call(Call::Transactor, |inner| {
            let state = inner.ids.entry(id.to_owned()).or_default();
            state.epoch += 1;
            let epoch = state.epoch;
            if let Some(open) = state.open.take() {
                inner.end_transaction(open);
            }
            inner.wait_for_ends(id);
            Ok(epoch)
        })?;
        Ok(Box::new(FakeTransactor { log: self.clone(), id: id.to_owned(), epoch }))
    }

    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        self.call(Call::Reader, |_| Ok(()))?;
        Ok(Box::new(FakeReader::new(self, isolation)))
    }

    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        let process = self.process;
        let id = self.call(Call::Member, |inner| {
            let mut partitions = None;
            for topic in &spec.topics {
                let count = inner.topic(topic)?.spec.partitions;
                if *partitions.get_or_insert(count) != count {
                    let text = "the topics of a member must have the same partition count";
                    return Err(LogError::Invalid(text.to_owned()));
                }
            }
            inner.next_member += 1;
            let member = inner.next_member;
            let partitions = partitions.unwrap_or(0);
            let group = inner.groups.entry(spec.group.clone()).or_default();
            group.join(&Joining { member, process, spec, partitions }, inner.now);
            Ok(member)
        })?;
        let reader = FakeReader::new(self, Isolation::Committed);
        Ok(Box::new(FakeMember { reader, group: spec.group.clone(), id }))
    }
}

impl Appender for FakeLog {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let failing = {
            let mut inner = self.inner();
            inner.faults && inner.random.once_in(40)
        };
        self.call(Call::Append, |inner| {
            let mut some = records.len();
            if failing {
                some = inner.random.below(records.len() as u64 + 1) as usize;
            }
            records.iter().try_for_each(|record| inner.may_append(record))?;
            let offsets = records[..some].iter().map(|r| inner.write(r, None)).collect();
            if failing {
                inner.count("appends cut short");
                return Err(LogError::Abort("the connection broke".into()));
            }
            Ok(offsets)
        })
    }
}
