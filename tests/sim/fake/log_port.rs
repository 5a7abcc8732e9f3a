//! The `Log` port of the simulated log.

use tidewire_engine::port::{
    Appender, Bounds, Committed, EndsRequest, Isolation, Log, LogError, Member, MemberSpec, Reader,
    TopicInfo, TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, Outgoing, TopicPartition};

use super::ends::FakeEndsRequest;
use super::faults::Call;
use super::group::JoinRequest;
use super::journal::Fact;
use super::log::FakeLog;
use super::member::FakeMember;
use super::partition::LogEntry;
use super::reader::FakeReader;
use super::transactor::FakeTransactor;

/// Counts appends of which the log accepted records behind one that it refused.
pub(crate) const RECORDS_REFUSED: &str = "records refused";

impl Log for FakeLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.call(Call::Create, |log_state| log_state.create(spec))
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.call(Call::Topics, |log_state| {
            let topics = log_state.topics.values();
            Ok(topics.map(|t| TopicInfo { spec: t.spec.clone(), id: t.id }).collect())
        })
    }

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.call(Call::Bounds, |log_state| {
            let (start, end) = (log_state.partition(at)?.start, log_state.end(at, isolation)?);
            Ok(Bounds { start: Offset(start), end: Offset(end) })
        })
    }

    fn request_ends(
        &self,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Box<dyn EndsRequest>, LogError> {
        self.call(Call::RequestEnds, |log_state| {
            let end = |at: &TopicPartition| {
                Ok((at.clone(), Offset(log_state.end(at, Isolation::Uncommitted)?)))
            };
            let ends = of.iter().map(end).collect::<Result<_, LogError>>()?;
            let at = Millis(log_state.now.0 + log_state.skew);
            log_state.journal.push(Fact::EndsRequested(at, ends));
            Ok(())
        })?;
        Ok(Box::new(FakeEndsRequest { log: self.clone(), of: of.to_vec(), isolation }))
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.call(Call::OffsetAt, |log_state| {
            let partition = log_state.partition(at)?;
            let late = |offset: &u64| match &partition.entries[*offset as usize] {
                LogEntry::Record { time: appended, .. } => *appended >= time,
                LogEntry::Control | LogEntry::Gone => false,
            };
            Ok((partition.start..partition.end()).find(late).map(Offset))
        })
    }

    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        self.call(Call::Committed, |log_state| {
            // Like a broker: offsets are unknown until the transaction that decides them ends.
            if log_state.is_undecided(group, of) {
                log_state.count("offsets undecided");
                return Err(LogError::Retry("a transaction decides about these offsets".into()));
            }
            let of = of.iter().map(|at| (group.to_owned(), at.clone()));
            Ok(of.map(|key| log_state.offsets.get(&key).cloned()).collect())
        })
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.call(Call::Appender, |_| Ok(()))?;
        Ok(Box::new(self.clone()))
    }

    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        let epoch = self.call(Call::Transactor, |log_state| {
            let state = log_state.ids.entry(id.to_owned()).or_default();
            state.epoch += 1;
            let epoch = state.epoch;
            if let Some(open) = state.open.take() {
                log_state.end_transaction(open);
            }
            log_state.wait_for_ends(id);
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
        let id = self.call(Call::Member, |log_state| {
            let mut partitions = None;
            for topic in &spec.topics {
                let count = log_state.topic(topic)?.spec.partitions;
                if *partitions.get_or_insert(count) != count {
                    let text = "the topics of a member must have the same partition count";
                    return Err(LogError::Invalid(text.to_owned()));
                }
            }
            log_state.next_member += 1;
            let member = log_state.next_member;
            let partitions = partitions.unwrap_or(0);
            let group = log_state.groups.entry(spec.group.clone()).or_default();
            group.join(&JoinRequest { member, process, spec, partitions }, log_state.now);
            Ok(member)
        })?;
        let reader = FakeReader::new(self, Isolation::Committed);
        Ok(Box::new(FakeMember { reader, group: spec.group.clone(), id }))
    }
}

impl Appender for FakeLog {
    fn append(&mut self, records: &[Outgoing]) -> Result<Vec<Offset>, LogError> {
        let failing = {
            let mut log_state = self.state();
            log_state.faults && log_state.random.one_in(40)
        };
        self.call(Call::Append, |log_state| {
            records.iter().try_for_each(|record| log_state.check_append(record))?;
            if !failing {
                return Ok(records.iter().map(|r| log_state.write(r, None)).collect());
            }
            // The connection breaks after some records, or the broker refuses only one of them.
            let some = log_state.random.index(records.len() + 1);
            let refused = log_state.random.one_in(3).then_some(some);
            let end = if refused.is_some() { records.len() } else { some };
            for (_, record) in (0..end).zip(records).filter(|(n, _)| refused != Some(*n)) {
                log_state.write(record, None);
            }
            let what = if refused.is_some() { RECORDS_REFUSED } else { "appends cut short" };
            log_state.count(what);
            Err(LogError::Abort("some of it was not appended".into()))
        })
    }
}
