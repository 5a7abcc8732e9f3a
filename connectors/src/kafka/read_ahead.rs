//! What a reader has taken from librdkafka of one partition and the engine has not taken yet.
//!
//! librdkafka goes on with the next batch behind one that it cannot read, so good records may
//! follow a failure. They are ignored: nothing behind the first failure is handed out before the
//! partition was read again from there.

use std::collections::VecDeque;

use tidewire_engine::record::{Offset, Record};

use super::native::FetchResult;
use super::read_retry::FailedRead;

/// The results of one start of a partition's fetcher, in order.
pub(super) struct ReadAhead {
    /// Records that the engine has not taken.
    waiting: VecDeque<Record>,
    /// The offset after the last record the engine took, or where the fetcher started.
    next: Offset,
    /// The last end of the partition that the fetcher reported.
    reached_end: Option<Offset>,
    /// The first failure. It stays until the fetcher is started again.
    failed: Option<FailedRead>,
}

impl ReadAhead {
    /// Nothing so far, of a fetcher that starts here.
    pub(super) fn new(from: Offset) -> Self {
        Self { waiting: VecDeque::new(), next: from, reached_end: None, failed: None }
    }

    /// Adds a result; those behind a failure are ignored.
    pub(super) fn add(&mut self, result: FetchResult) {
        if self.failed.is_some() {
            return;
        }
        match result {
            FetchResult::Record(record) if record.offset >= self.next => {
                self.waiting.push_back(record);
            }
            FetchResult::Record(_) => {}
            FetchResult::End(offset) => self.reached_end = Some(offset),
            FetchResult::Failed(why) => self.failed = Some(why),
        }
    }

    /// The next record, which stays.
    pub(super) fn front(&self) -> Option<&Record> {
        self.waiting.front()
    }

    /// Hands out the next record.
    pub(super) fn pop(&mut self) -> Option<Record> {
        let record = self.waiting.pop_front()?;
        self.next = record.offset.next();
        Some(record)
    }

    /// The offset after the last record the engine took, or where the fetcher started.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// The last end of the partition that the fetcher reported.
    pub(super) fn reached_end(&self) -> Option<Offset> {
        self.reached_end
    }

    /// The failure behind all records, if there was one.
    pub(super) fn failed(&self) -> Option<&FailedRead> {
        self.failed.as_ref()
    }

    /// The next offset to read, control records and compacted gaps included. `passed` is the offset
    /// after all that librdkafka returned.
    pub(super) fn position(&self, passed: Option<Offset>) -> Offset {
        if let Some(front) = self.waiting.front() {
            return front.offset;
        }
        // librdkafka counts the reports of an end and of a failure as one more record each. A
        // position just after an end can't be distinguished from a control record; the next report
        // of an end decides. Behind a failure nothing was read.
        let after_end = self.reached_end.map(Offset::next);
        let passed = passed.filter(|passed| self.failed.is_none() && Some(*passed) != after_end);
        self.next.max(self.reached_end.unwrap_or(self.next)).max(passed.unwrap_or(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaErrorCode as Code;
    use tidewire_engine::record::{Body, Millis};

    fn record(offset: u64) -> FetchResult {
        let body = Body::new(None, None, &[]);
        FetchResult::Record(Record { offset: Offset(offset), timestamp: Millis(0), body })
    }

    fn damaged() -> FetchResult {
        FetchResult::Failed(FailedRead { code: Code::BadMessage, text: "CRC".to_owned() })
    }

    #[test]
    fn nothing_behind_a_failure_is_handed_out_and_the_first_failure_stays() {
        let mut ahead = ReadAhead::new(Offset(3));
        let second = FailedRead { code: Code::Fail, text: String::new() };
        let results = [record(3), damaged(), record(9), FetchResult::Failed(second)];
        results.into_iter().for_each(|result| ahead.add(result));
        ahead.add(FetchResult::End(Offset(10)));
        assert_eq!(ahead.pop().map(|record| record.offset), Some(Offset(3)));
        assert!(ahead.pop().is_none());
        assert_eq!(ahead.next(), Offset(4));
        assert_eq!(ahead.failed().map(|why| why.code), Some(Code::BadMessage));
        assert_eq!(ahead.reached_end(), None);
    }

    #[test]
    fn the_report_of_a_failure_does_not_move_the_position() {
        let mut ahead = ReadAhead::new(Offset(4));
        ahead.add(damaged());
        assert_eq!(ahead.position(Some(Offset(5))), Offset(4));
        let mut ahead = ReadAhead::new(Offset(4));
        [FetchResult::End(Offset(6)), damaged()].into_iter().for_each(|result| ahead.add(result));
        assert_eq!(ahead.position(Some(Offset(9))), Offset(6));
    }

    #[test]
    fn the_position_passes_control_records_and_not_the_report_of_an_end() {
        let mut ahead = ReadAhead::new(Offset(4));
        assert_eq!(ahead.position(None), Offset(4));
        assert_eq!(ahead.position(Some(Offset(7))), Offset(7));
        ahead.add(FetchResult::End(Offset(7)));
        assert_eq!(ahead.position(Some(Offset(8))), Offset(7));
    }
}
