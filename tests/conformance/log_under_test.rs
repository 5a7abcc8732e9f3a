//! What a log under test must provide, and the helpers the clauses share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_engine::port::{
    Change, Cleanup, Committed, Isolation, Log, LogError, Member, MemberSpec, ReadLimit, Reader,
    TopicSpec,
};
use tidewire_engine::record::{Body, Offset, Outgoing, Partition, Record, Topic, TopicPartition};

/// A log under test.
pub(crate) trait LogUnderTest: Sized {
    /// What it can do beyond the port.
    const CAPABILITIES: &'static [Capability];

    /// A log with no topics, or one whose topics have other names than ours.
    fn new() -> Self;

    /// The log. Everything made from it is dropped before a restart.
    fn log(&self) -> Arc<dyn Log>;

    /// A name that no other test uses.
    fn name(&self, name: &str) -> Topic {
        Topic::new(name)
    }

    /// A group's name that no other test uses.
    fn group(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Stops and starts the log.
    fn restart(&mut self) {}

    /// Advances time, with retention and compaction.
    fn advance_time(&self, _ms: u64) {}

    /// Hands the log to a child process: closes it here if needed, and returns its location.
    fn hand_to_child(&mut self) -> String {
        String::new()
    }

    /// Opens the log here again.
    fn take_back(&mut self) {}

    /// Opens the log in a child process.
    fn open_in_child(_location: &str) -> Arc<dyn Log> {
        unimplemented!("a log that can be killed must implement this")
    }
}

/// What a log under test may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Stop and start again with its data.
    Restart,
    /// Advance time, with retention and compaction.
    AdvanceTime,
    /// Be written by a process that is killed.
    Kill,
}

/// Whether this clause can be tested; prints if not.
pub(crate) fn has_capability<S: LogUnderTest>(what: Capability) -> bool {
    let can = S::CAPABILITIES.contains(&what);
    if !can {
        println!("skipped: this log can't {what:?}");
    }
    can
}

/// Longer than anything takes that works.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A clean-up that keeps everything.
pub(crate) const FOR_EVER: Cleanup = Cleanup::Delete { retention_ms: None, retention_bytes: None };

/// A read limit that is never reached.
pub(crate) const ALL: ReadLimit = ReadLimit { records: usize::MAX, bytes: usize::MAX };

/// Makes a topic of this name.
pub(crate) fn topic<S: LogUnderTest>(subject: &S, name: &str, settings: (u32, Cleanup)) -> Topic {
    let (partitions, cleanup) = settings;
    let topic = subject.name(name);
    let spec = TopicSpec { topic: topic.clone(), partitions, cleanup };
    subject.log().create(&spec).expect("the topic is made");
    topic
}

/// Partition `partition` of a topic.
pub(crate) fn at(topic: &Topic, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

/// A record without a key.
pub(crate) fn record(at: &TopicPartition, value: &str) -> Outgoing {
    outgoing(at, Body::new(None, Some(value.as_bytes()), &[]))
}

/// A record with a key; no value is a tombstone.
pub(crate) fn keyed(at: &TopicPartition, key: &str, value: Option<&str>) -> Outgoing {
    outgoing(at, Body::new(Some(key.as_bytes()), value.map(str::as_bytes), &[]))
}

/// A record with this body.
pub(crate) fn outgoing(at: &TopicPartition, body: Body) -> Outgoing {
    Outgoing { topic: at.topic.clone(), partition: at.partition, body }
}

/// Appends records of these values and returns their offsets.
pub(crate) fn append(log: &dyn Log, at: &TopicPartition, values: &[&str]) -> Vec<u64> {
    let records: Vec<_> = values.iter().map(|value| record(at, value)).collect();
    append_all(log, &records)
}

/// Appends these records and returns their offsets.
pub(crate) fn append_all(log: &dyn Log, records: &[Outgoing]) -> Vec<u64> {
    let offsets = log.appender().expect("an appender").append(records).expect("appended");
    offsets.into_iter().map(|offset| offset.0).collect()
}

/// Everything from this offset to the current log end. Not the stable end: what a transaction has
/// committed may become stable a moment later.
pub(crate) fn read(log: &dyn Log, at: &TopicPartition, from: u64) -> Vec<Record> {
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    let end = log.bounds(at, Isolation::Uncommitted).expect("bounds").end;
    read_to(&mut *reader, at, from..end.0)
}

/// Everything in this span of offsets.
pub(crate) fn read_to(
    reader: &mut dyn Reader,
    at: &TopicPartition,
    span: std::ops::Range<u64>,
) -> Vec<Record> {
    let slot = reader.add(at, Offset(span.start)).expect("the span can be read");
    let mut records = Vec::new();
    until("the end is reached", || {
        reader.take(slot, ALL, &mut records).expect("taken");
        let done = reader.position(slot).expect("a position").0 >= span.end;
        if !done {
            reader.wait(Duration::from_millis(20)).expect("waited");
        }
        done.then_some(())
    });
    reader.remove(slot);
    records
}

/// The error of a reader that starts here, from `add` or `take`.
pub(crate) fn refused(log: &dyn Log, at: &TopicPartition, from: u64) -> LogError {
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    match reader.add(at, Offset(from)) {
        Err(error) => error,
        Ok(slot) => until("the reader fails", || {
            reader.wait(Duration::from_millis(20)).expect("waited");
            reader.take(slot, ALL, &mut Vec::new()).err()
        }),
    }
}

/// The values of records as text; `-` is a tombstone.
pub(crate) fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| text(record.body.value())).collect()
}

/// Keys and values of records as text, `key=value`.
pub(crate) fn pairs(records: &[Record]) -> Vec<String> {
    let pair = |r: &Record| format!("{}={}", text(r.body.key()), text(r.body.value()));
    records.iter().map(pair).collect()
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The offsets of records.
pub(crate) fn offsets(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.offset.0).collect()
}

/// Repeats until there is a result; panics after a time-out.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited too long: {what}");
    }
}

/// A group's member of these topics.
pub(crate) fn member(
    log: &dyn Log,
    group: &str,
    instance: &str,
    topics: &[Topic],
) -> Box<dyn Member> {
    let spec = MemberSpec {
        group: group.to_owned(),
        topics: topics.to_vec(),
        instance: instance.to_owned(),
    };
    log.member(&spec).expect("a member")
}

/// Offsets to commit.
pub(crate) fn progress(at: &TopicPartition, offset: u64) -> [(TopicPartition, Committed); 1] {
    let metadata = format!("m{offset}");
    [(at.clone(), Committed { offset: Offset(offset), metadata })]
}

/// The committed offset of a group in a partition.
pub(crate) fn committed(log: &dyn Log, group: &str, at: &TopicPartition) -> Option<u64> {
    let found = log.committed(group, std::slice::from_ref(at)).expect("committed offsets");
    found[0].as_ref().map(|committed| committed.offset.0)
}

/// Changes as text: `+` assigned, `-` revoked, `x` lost, each partition as `topic/number`.
pub(crate) fn changes(member: &mut dyn Member) -> Vec<String> {
    let all = member.changes().expect("changes");
    let list = |sign: char, list: &[TopicPartition]| {
        let mut names: Vec<_> = list.iter().map(|at| format!("{sign}{at}")).collect();
        names.sort();
        names
    };
    let text = |change: &Change| match change {
        Change::Assigned(all) => list('+', all),
        Change::Revoked(all) => list('-', all),
        Change::Lost(all) => list('x', all),
    };
    all.iter().flat_map(text).collect()
}

/// Polls members in turn until each of them has exactly these partitions.
pub(crate) fn settle(members: &mut [(&mut dyn Member, &mut Vec<String>)], expected: &[&[String]]) {
    until("the group settles", || {
        for (member, holds) in members.iter_mut() {
            for change in changes(&mut **member) {
                let (sign, name) = change.split_at(1);
                if sign == "+" {
                    holds.push(name.to_owned());
                } else {
                    holds.retain(|held| held != name);
                }
            }
            holds.sort();
            member.wait(Duration::from_millis(1)).expect("waited");
        }
        let as_expected =
            |((_, holds), expected): (&(_, &mut Vec<String>), &&[String])| holds[..] == **expected;
        members.iter().zip(expected).all(as_expected).then_some(())
    });
}

/// Names of partitions in the form of [`settle`].
pub(crate) fn names(topics: &[&Topic], partitions: &[u32]) -> Vec<String> {
    let mut names: Vec<_> = topics
        .iter()
        .flat_map(|topic| partitions.iter().map(|p| at(topic, *p).to_string()))
        .collect();
    names.sort();
    names
}

/// Panics unless this is `Fenced`.
pub(crate) fn assert_fenced<T>(outcome: Result<T, LogError>) {
    match outcome {
        Err(LogError::Fenced(_)) => {}
        Err(other) => panic!("not fenced but: {other}"),
        Ok(_) => panic!("not fenced"),
    }
}
