//! A log in memory that fails on purpose: transactions as Kafka keeps them (records and control
//! records take offsets as they are written, a stable end before the first open transaction),
//! groups with eager rebalances and static members, and a fault at any call.
//!
//! The one idea: a crash is a process whose every further call fails, decided before or after the
//! call's effect; so a loop is stopped between any two calls without the loop knowing of it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidewire_engine::port::{
    Appender, Bounds, Change, Committed, GroupToken, Isolation, Limit, Log, LogError, Member,
    MemberSpec, Reader, Slot, TopicInfo, TopicSpec, Transactor, Wake,
};
use tidewire_engine::record::{
    Body, Millis, Offset, Outgoing, Partition, Record, Topic, TopicPartition,
};

use crate::random::Random;

/// A crash is expected once in so many calls, while faults are on.
const CRASH_ONCE_IN: u64 = 500;
/// A call asks to be repeated.
const RETRY_ONCE_IN: u64 = 60;
/// A call inside a transaction says that it must be aborted.
const ABORT_ONCE_IN: u64 = 80;
/// A commit leaves its outcome unknown.
const UNKNOWN_ONCE_IN: u64 = 15;
/// A member loses its session in the middle of a call.
const EXPIRE_ONCE_IN: u64 = 1_500;
/// A reader has nothing ready though there is something.
const LAZY_ONCE_IN: u64 = 10;

/// What a call is to the faults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Plain,
    Append,
    Transaction,
    Commit,
    /// No fault but a crash: the port gives it no other.
    Wait,
}

/// What the faults decided for a call that goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    CrashAfter,
    /// The effect happens and nobody says so.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug)]
enum Entry {
    Record { time: Millis, body: Body, transaction: Option<usize> },
    Control,
}

#[derive(Debug)]
struct Transaction {
    outcome: Outcome,
    ends: BTreeMap<TopicPartition, Offset>,
    offsets: Vec<(String, TopicPartition, Committed)>,
}

#[derive(Debug, Default)]
struct Id {
    epoch: u64,
    open: Option<usize>,
}

#[derive(Debug)]
struct GroupMember {
    process: u64,
    instance: String,
    in_group: bool,
    changes: VecDeque<Change>,
    owns: BTreeSet<u32>,
    /// Told to let go; free once it asks for changes again.
    releasing: BTreeSet<u32>,
}

#[derive(Debug, Default)]
struct Group {
    topics: Vec<Topic>,
    members: BTreeMap<u64, GroupMember>,
}

/// Everything the log holds.
pub(crate) struct Inner {
    topics: BTreeMap<Topic, (TopicSpec, Vec<Vec<Entry>>)>,
    transactions: Vec<Transaction>,
    ids: BTreeMap<String, Id>,
    offsets: BTreeMap<(String, TopicPartition), Committed>,
    groups: BTreeMap<String, Group>,
    dead: BTreeSet<u64>,
    next_member: u64,
    /// The clock; append times come from here.
    pub(crate) now: Millis,
    /// Chance, for faults.
    pub(crate) random: Random,
    /// Whether calls fail on purpose.
    pub(crate) faults: bool,
    /// What has happened, counted; a test asserts that faults did happen.
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

/// The log as one process sees it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    inner: Arc<Mutex<Inner>>,
    process: u64,
}

fn fatal(why: &str) -> LogError {
    LogError::Fatal(why.to_owned(), None)
}

impl Inner {
    fn part(&self, at: &TopicPartition) -> Result<&Vec<Entry>, LogError> {
        self.topics
            .get(&at.topic)
            .and_then(|(_, parts)| parts.get(at.partition.0 as usize))
            .ok_or_else(|| LogError::Invalid(format!("no {at}")))
    }

    fn part_mut(&mut self, at: &TopicPartition) -> Result<&mut Vec<Entry>, LogError> {
        self.topics
            .get_mut(&at.topic)
            .and_then(|(_, parts)| parts.get_mut(at.partition.0 as usize))
            .ok_or_else(|| LogError::Invalid(format!("no {at}")))
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// The offset behind the last entry that no open transaction precedes.
    fn stable_end(&self, at: &TopicPartition) -> Result<u64, LogError> {
        let part = self.part(at)?;
        let open = part.iter().position(|entry| match entry {
            Entry::Record { transaction: Some(n), .. } => {
                self.transactions[*n].outcome == Outcome::Open
            }
            _ => false,
        });
        Ok(open.unwrap_or(part.len()) as u64)
    }

    fn visible(&self, entry: &Entry, isolation: Isolation) -> bool {
        match entry {
            Entry::Control => false,
            Entry::Record { transaction: None, .. } => true,
            Entry::Record { transaction: Some(n), .. } => {
                isolation == Isolation::Uncommitted
                    || self.transactions[*n].outcome == Outcome::Committed
            }
        }
    }

    fn write(&mut self, record: &Outgoing, transaction: Option<usize>) -> Result<Offset, LogError> {
        let at = TopicPartition::new(&record.topic, record.partition);
        let time = self.now;
        let part = self.part_mut(&at)?;
        let offset = Offset(part.len() as u64);
        part.push(Entry::Record { time, body: record.body.clone(), transaction });
        if let Some(n) = transaction {
            self.transactions[n].ends.insert(at, offset.next());
        }
        Ok(offset)
    }

    fn settle(&mut self, n: usize, outcome: Outcome) -> Vec<(TopicPartition, Offset)> {
        let transaction = &mut self.transactions[n];
        assert_eq!(transaction.outcome, Outcome::Open, "a transaction ends once");
        transaction.outcome = outcome;
        let ends: Vec<_> = transaction.ends.clone().into_iter().collect();
        let offsets = std::mem::take(&mut transaction.offsets);
        for (at, _) in &ends {
            self.part_mut(at).expect("it was written to").push(Entry::Control);
        }
        if outcome == Outcome::Committed {
            for (group, at, committed) in offsets {
                self.offsets.insert((group, at), committed);
            }
        }
        ends
    }

    /// Gives every free partition to the member whose turn it is, and asks others to let go.
    fn rebalance(&mut self, group: &str) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let partitions = self.topics[&group.topics[0]].0.partitions;
        let ids: Vec<u64> =
            group.members.iter().filter(|(_, m)| m.in_group).map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return;
        }
        for p in 0..partitions {
            let target = ids[p as usize % ids.len()];
            let topics = group.topics.clone();
            let of =
                || topics.iter().map(|topic| TopicPartition::new(topic, Partition(p))).collect();
            let owner = group
                .members
                .iter()
                .find(|(_, m)| m.owns.contains(&p) || m.releasing.contains(&p))
                .map(|(id, _)| *id);
            match owner {
                Some(owner) if owner != target => {
                    let member = group.members.get_mut(&owner).expect("just found");
                    if member.owns.remove(&p) {
                        member.releasing.insert(p);
                        member.changes.push_back(Change::Revoked(of()));
                    }
                }
                Some(_) => {}
                None => {
                    let member = group.members.get_mut(&target).expect("one of the group");
                    member.owns.insert(p);
                    member.changes.push_back(Change::Assigned(of()));
                }
            }
        }
    }

    /// Ends the session of a process's members: they lose what they have, and learn it later.
    pub(crate) fn expire(&mut self, process: u64) {
        self.count("sessions expired");
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&name).expect("listed");
            let topics = group.topics.clone();
            for member in group.members.values_mut().filter(|m| m.process == process) {
                let lost: BTreeSet<u32> =
                    member.owns.iter().chain(&member.releasing).copied().collect();
                let lost = topics
                    .iter()
                    .flat_map(|t| lost.iter().map(|p| TopicPartition::new(t, Partition(*p))))
                    .collect();
                member.owns.clear();
                member.releasing.clear();
                member.changes = VecDeque::from([Change::Lost(lost)]);
                member.in_group = false;
            }
            self.rebalance(&name);
        }
    }

    /// Whether a member owns a partition of its group.
    fn owns(&self, group: &str, member: u64, partition: Partition) -> bool {
        self.groups
            .get(group)
            .and_then(|group| group.members.get(&member))
            .is_some_and(|m| m.in_group && m.owns.contains(&partition.0))
    }
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

    /// A call of this process: the faults first, then the effect.
    fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut Inner) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut inner = self.inner();
        let fate = self.fate(&mut inner, call)?;
        let done = effect(&mut inner);
        match fate {
            Fate::Well => done,
            Fate::CrashAfter => {
                inner.dead.insert(self.process);
                Err(fatal("crashed after the call"))
            }
            Fate::Unknown => Err(LogError::Unknown("the answer was lost".into())),
        }
    }

    fn fate(&self, inner: &mut Inner, call: Call) -> Result<Fate, LogError> {
        if inner.dead.contains(&self.process) {
            return Err(fatal("this process has crashed"));
        }
        if !inner.faults {
            return Ok(Fate::Well);
        }
        if inner.random.once_in(CRASH_ONCE_IN) {
            inner.count("crashes");
            if inner.random.once_in(2) {
                return Ok(Fate::CrashAfter);
            }
            inner.dead.insert(self.process);
            return Err(fatal("crashed before the call"));
        }
        if call == Call::Wait {
            return Ok(Fate::Well);
        }
        if inner.random.once_in(EXPIRE_ONCE_IN) {
            inner.expire(self.process);
        }
        if inner.random.once_in(RETRY_ONCE_IN) {
            inner.count("retries");
            return Err(LogError::Retry("busy".into()));
        }
        let in_transaction = matches!(call, Call::Transaction | Call::Commit);
        if in_transaction && inner.random.once_in(ABORT_ONCE_IN) {
            inner.count("aborts asked for");
            return Err(LogError::Abort("a delivery failed".into()));
        }
        if call == Call::Commit && inner.random.once_in(UNKNOWN_ONCE_IN) {
            if inner.random.once_in(2) {
                inner.count("unknown, committed");
                return Ok(Fate::Unknown);
            }
            inner.count("unknown, not committed");
            return Err(LogError::Unknown("the request was lost".into()));
        }
        Ok(Fate::Well)
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

struct FakeTransactor {
    log: FakeLog,
    id: String,
    epoch: u64,
}

impl FakeTransactor {
    fn open(&self, inner: &Inner) -> Result<usize, LogError> {
        let state = &inner.ids[&self.id];
        if state.epoch != self.epoch {
            return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
        }
        state.open.ok_or_else(|| LogError::Invalid("no transaction is open".to_owned()))
    }

    fn in_transaction<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut Inner, usize) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.log.call(call, |inner| {
            let open = self.open(inner)?;
            effect(inner, open)
        })
    }
}

impl Transactor for FakeTransactor {
    fn begin(&mut self) -> Result<(), LogError> {
        self.log.call(Call::Transaction, |inner| {
            let n = inner.transactions.len();
            let state = inner.ids.get_mut(&self.id).expect("made with it");
            if state.epoch != self.epoch {
                return Err(LogError::Fenced(format!("{} was initialised again", self.id)));
            }
            assert_eq!(state.open, None, "a transaction is begun inside another");
            state.open = Some(n);
            inner.transactions.push(Transaction {
                outcome: Outcome::Open,
                ends: BTreeMap::new(),
                offsets: Vec::new(),
            });
            Ok(())
        })
    }

    fn append(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        self.in_transaction(Call::Transaction, |inner, open| {
            records.iter().try_for_each(|record| inner.write(record, Some(open)).map(drop))
        })
    }

    fn drain(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Transaction, |_, _| Ok(()))
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        let (name, member) =
            token.proof.downcast_ref::<(String, u64)>().expect("our own proof").clone();
        self.in_transaction(Call::Transaction, |inner, open| {
            for (at, committed) in offsets {
                if !inner.owns(&name, member, at.partition) {
                    return Err(LogError::Fenced(format!("{at} has another owner")));
                }
                let entry = (token.group.clone(), at.clone(), committed.clone());
                inner.transactions[open].offsets.push(entry);
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<Vec<(TopicPartition, Offset)>, LogError> {
        self.in_transaction(Call::Commit, |inner, open| {
            inner.ids.get_mut(&self.id).expect("made with it").open = None;
            inner.count("commits");
            Ok(inner.settle(open, Outcome::Committed))
        })
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.in_transaction(Call::Plain, |inner, open| {
            inner.ids.get_mut(&self.id).expect("made with it").open = None;
            inner.settle(open, Outcome::Aborted);
            Ok(())
        })
    }
}

struct FakeReader {
    log: FakeLog,
    isolation: Isolation,
    slots: Vec<Option<(TopicPartition, u64)>>,
}

impl FakeReader {
    fn at(&self, slot: Slot) -> &(TopicPartition, u64) {
        self.slots[slot.0 as usize].as_ref().expect("a slot is used while it is there")
    }

    fn end(&self, inner: &Inner, at: &TopicPartition) -> Result<u64, LogError> {
        match self.isolation {
            Isolation::Committed => inner.stable_end(at),
            Isolation::Uncommitted => Ok(inner.part(at)?.len() as u64),
        }
    }
}

impl Reader for FakeReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<Slot, LogError> {
        self.log.call(Call::Plain, |inner| inner.part(at).map(drop))?;
        self.slots.push(Some((at.clone(), from.0)));
        Ok(Slot(self.slots.len() as u32 - 1))
    }

    fn remove(&mut self, slot: Slot) {
        self.slots[slot.0 as usize] = None;
    }

    fn seek(&mut self, slot: Slot, to: Offset) -> Result<(), LogError> {
        self.log.call(Call::Plain, |_| Ok(()))?;
        self.slots[slot.0 as usize].as_mut().expect("a slot is used while it is there").1 = to.0;
        Ok(())
    }

    fn take(&mut self, slot: Slot, limit: Limit, out: &mut Vec<Record>) -> Result<usize, LogError> {
        let (at, from) = self.at(slot).clone();
        let (records, position) = self.log.call(Call::Plain, |inner| {
            if inner.faults && inner.random.once_in(LAZY_ONCE_IN) {
                return Ok((Vec::new(), from));
            }
            let end = self.end(inner, &at)?;
            let most = if inner.faults { 1 + inner.random.below(40) as usize } else { 1_000 };
            let part = inner.part(&at)?;
            let (mut records, mut position) = (Vec::new(), from);
            while position < end {
                let entry = &part[position as usize];
                if let Entry::Record { time, body, .. } = entry
                    && inner.visible(entry, self.isolation)
                {
                    if records.len() >= limit.records.min(most) {
                        break;
                    }
                    let offset = Offset(position);
                    records.push(Record { offset, timestamp: *time, body: body.clone() });
                }
                position += 1;
            }
            Ok((records, position))
        })?;
        self.slots[slot.0 as usize] = Some((at, position));
        let count = records.len();
        out.extend(records);
        Ok(count)
    }

    fn position(&mut self, slot: Slot) -> Result<Offset, LogError> {
        let position = self.at(slot).1;
        self.log.call(Call::Plain, |_| Ok(Offset(position)))
    }

    fn wait(&mut self, _: Duration) -> Result<(), LogError> {
        self.log.call(Call::Wait, |_| Ok(()))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        struct Nobody;
        impl Wake for Nobody {
            fn wake(&self) {}
        }
        Arc::new(Nobody)
    }
}

struct FakeMember {
    reader: FakeReader,
    name: String,
    group: String,
    id: u64,
}

impl Reader for FakeMember {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<Slot, LogError> {
        self.reader.add(at, from)
    }

    fn remove(&mut self, slot: Slot) {
        self.reader.remove(slot);
    }

    fn seek(&mut self, slot: Slot, to: Offset) -> Result<(), LogError> {
        self.reader.seek(slot, to)
    }

    fn take(&mut self, slot: Slot, limit: Limit, out: &mut Vec<Record>) -> Result<usize, LogError> {
        self.reader.take(slot, limit, out)
    }

    fn position(&mut self, slot: Slot) -> Result<Offset, LogError> {
        self.reader.position(slot)
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.reader.wait(at_most)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }
}

impl Member for FakeMember {
    fn changes(&mut self) -> Result<Vec<Change>, LogError> {
        let (name, id) = (self.name.clone(), self.id);
        self.reader.log.call(Call::Plain, |inner| {
            let group = inner.groups.get_mut(&name).expect("joined");
            let Some(member) = group.members.get_mut(&id) else {
                return Err(LogError::Fenced("another member of this name joined".to_owned()));
            };
            member.releasing.clear();
            let revoked: Vec<u32> = member
                .changes
                .iter()
                .flat_map(|change| match change {
                    Change::Revoked(of) => of.iter().map(|at| at.partition.0).collect(),
                    _ => Vec::new(),
                })
                .collect();
            member.releasing.extend(revoked);
            let changes = Vec::from(std::mem::take(&mut member.changes));
            member.in_group = true;
            inner.rebalance(&name);
            Ok(changes)
        })
    }

    fn token(&mut self) -> Result<GroupToken, LogError> {
        let proof: Arc<dyn Any + Send + Sync> = Arc::new((self.name.clone(), self.id));
        let group = self.group.clone();
        self.reader.log.call(Call::Plain, |_| Ok(GroupToken { group, proof }))
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) -> Result<(), LogError> {
        let (name, id, group) = (self.name.clone(), self.id, self.group.clone());
        self.reader.log.call(Call::Plain, |inner| {
            for (at, committed) in offsets {
                if !inner.owns(&name, id, at.partition) {
                    return Err(LogError::Fenced(format!("{at} has another owner")));
                }
                inner.offsets.insert((group.clone(), at.clone()), committed.clone());
            }
            Ok(())
        })
    }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        let dead = self.reader.log.is_dead();
        let mut inner = self.reader.log.inner();
        if !dead && let Some(group) = inner.groups.get_mut(&self.name) {
            group.members.remove(&self.id);
            inner.rebalance(&self.name);
        }
    }
}
