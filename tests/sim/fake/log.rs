//! The log as one process sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_engine::port::{
    Appender, Bounds, Committed, Isolation, Log, LogError, Member, MemberSpec, Reader, TopicInfo,
    TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, Outgoing, Record, TopicPartition};

use super::faults::Call;
use super::inner::{Entry, GroupMember, Inner, Outcome};
use super::member::FakeMember;
use super::reader::FakeReader;
use super::transactor::FakeTransactor;
use crate::random::Random;

/// The log as one process sees it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) process: u64,
}

impl FakeLog {
    /// An empty log.
    pub(crate) fn new(seed: u64) -> Self {
        let inner = Inner {
            topics: BTreeMap::new(),
            transactions: Vec::new(),
            ids: BTreeMap::new(),
            offsets: BTreeMap::new(),
            groups: BTreeMap::new(),
            dead: BTreeSet::new(),
            next_member: 0,
            now: Millis(1_767_607_200_000),
            random: Random::new(seed),
            faults: false,
            tally: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), process: 0 }
    }

    /// The same log as another process sees it.
    pub(crate) fn as_process(&self, process: u64) -> Self {
        Self { inner: self.inner.clone(), process }
    }

    /// The inside, for the world.
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("one thread")
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
        let end = match isolation {
            Isolation::Committed => inner.stable_end(at).expect("the topic is there") as usize,
            Isolation::Uncommitted => part.len(),
        };
        part[..end]
            .iter()
            .enumerate()
            .filter(|(_, entry)| inner.visible(entry, isolation))
            .filter_map(|(n, entry)| match entry {
                Entry::Record { time, body, .. } => {
                    Some(Record { offset: Offset(n as u64), timestamp: *time, body: body.clone() })
                }
                Entry::Control => None,
            })
            .collect()
    }

    /// A fingerprint of everything in the log.
    pub(crate) fn fingerprint(&self) -> String {
        let inner = self.inner();
        let mut text = String::new();
        for (topic, (_, parts)) in &inner.topics {
            for (p, part) in parts.iter().enumerate() {
                let hash = part.iter().fold(0u64, |hash, entry| {
                    let bytes = format!("{entry:?}");
                    bytes
                        .bytes()
                        .fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
                });
                text.push_str(&format!("{topic}/{p}: {} {hash:016x}\n", part.len()));
            }
        }
        text.push_str(&format!("{:?}\n{:?}", inner.offsets, inner.tally));
        text
    }
}

impl Log for FakeLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.call(Call::Wait, |inner| {
            let parts = vec![Vec::new(); spec.partitions as usize];
            Ok(inner.topics.insert(spec.topic.clone(), (spec.clone(), parts)).is_none())
        })
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.call(Call::Plain, |inner| {
            let info = |(spec, _): &(TopicSpec, _)| TopicInfo { spec: spec.clone(), id: 1 };
            Ok(inner.topics.values().map(info).collect())
        })
    }

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.call(Call::Plain, |inner| {
            let end = match isolation {
                Isolation::Committed => inner.stable_end(at)?,
                Isolation::Uncommitted => inner.part(at)?.len() as u64,
            };
            Ok(Bounds { start: Offset(0), end: Offset(end) })
        })
    }

    fn offset_at(&self, _: &TopicPartition, _: Millis) -> Result<Option<Offset>, LogError> {
        Err(LogError::Invalid("the simulation asks for no times".to_owned()))
    }

    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        self.call(Call::Plain, |inner| {
            let of = of.iter().map(|at| (group.to_owned(), at.clone()));
            Ok(of.map(|key| inner.offsets.get(&key).cloned()).collect())
        })
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.call(Call::Plain, |_| Ok(()))?;
        Ok(Box::new(self.clone()))
    }

    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        let epoch = self.call(Call::Plain, |inner| {
            let state = inner.ids.entry(id.to_owned()).or_default();
            state.epoch += 1;
            let epoch = state.epoch;
            if let Some(open) = state.open.take() {
                inner.settle(open, Outcome::Aborted);
            }
            Ok(epoch)
        })?;
        Ok(Box::new(FakeTransactor { log: self.clone(), id: id.to_owned(), epoch }))
    }

    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        self.call(Call::Plain, |_| Ok(()))?;
        Ok(Box::new(FakeReader { log: self.clone(), isolation, slots: Vec::new() }))
    }

    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        // ADMIT's two inputs are one group with two subscriptions; here they are two groups.
        let name = format!("{}:{}", spec.group, spec.topics[0]);
        let process = self.process;
        let id = self.call(Call::Plain, |inner| {
            inner.next_member += 1;
            let id = inner.next_member;
            let group = inner.groups.entry(name.clone()).or_default();
            group.topics = spec.topics.clone();
            group.members.retain(|_, member| member.instance != spec.instance);
            let member = GroupMember {
                process,
                instance: spec.instance.clone(),
                in_group: true,
                changes: VecDeque::new(),
                owns: BTreeSet::new(),
                releasing: BTreeSet::new(),
            };
            group.members.insert(id, member);
            inner.rebalance(&name);
            Ok(id)
        })?;
        let reader =
            FakeReader { log: self.clone(), isolation: Isolation::Committed, slots: Vec::new() };
        Ok(Box::new(FakeMember { reader, name, group: spec.group.clone(), id }))
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
            let offsets =
                records[..some].iter().map(|r| inner.write(r, None)).collect::<Result<_, _>>()?;
            if failing {
                inner.count("appends cut short");
                return Err(LogError::Abort("the connection broke".into()));
            }
            Ok(offsets)
        })
    }
}
