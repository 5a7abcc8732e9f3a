//! Several tasks that send each other facts, for measurements of packs.
//!
//! One task alone has all facts of a transaction in few packs. Of several tasks each writes a pack
//! for every other one that it has facts for, so that the number of packs depends on how many
//! events a transaction has. Nothing is kept for a replay.

use tidewire_schemas::event::Event;

use crate::derive::driver::{ProcessedBatch, QueuedRecord, TopologyDriver, config, queued};
use crate::derive::memory_store::MemoryStore;
use crate::derive::sandbox::Operators;
use crate::fact_pack::decode;
use crate::record::Partition;

/// All tasks of a deployment, with their stores in memory.
pub struct DrivenTasks {
    /// By partition.
    tasks: Vec<TopologyDriver>,
}

/// The facts and copies of a batch, packed and as records of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Facts and copies, each of which would be a record without packs.
    pub facts: usize,
    /// Bytes of these records.
    pub record_bytes: usize,
    /// The packs they were in.
    pub packs: usize,
    /// Bytes of these packs.
    pub pack_bytes: usize,
}

impl DrivenTasks {
    /// Tasks with empty tables, one per partition, at [`crate::derive::START`]. Panics without any.
    pub fn new(operators: Operators, count: u32) -> Self {
        let task = |partition| {
            let store = Box::<MemoryStore>::default();
            TopologyDriver::over(operators, config(count), Partition(partition), store)
        };
        let tasks: Vec<_> = (0..count).map(task).collect();
        assert!(!tasks.is_empty(), "there is at least one task");
        Self { tasks }
    }

    /// Processes each event by its task, in one transaction per task, and the facts and copies that
    /// follow in further ones. Moves all wall clocks on before.
    pub fn process_batch(&mut self, events: &[Event]) -> PackedBatch {
        let topology = self.tasks[0].topology();
        let mut waiting: Vec<QueuedRecord> = events
            .iter()
            .map(|event| queued(event, topology.entity_partition(&event.account_id, &event.key)))
            .collect();
        for task in &mut self.tasks {
            task.pass_time_of(events.len());
        }
        let mut all = PackedBatch::default();
        while !waiting.is_empty() {
            let mut by_task: Vec<_> = self.tasks.iter().map(|_| Vec::new()).collect();
            for record in waiting.drain(..) {
                by_task[record.partition.0 as usize].push(record);
            }
            for (task, records) in self.tasks.iter_mut().zip(by_task) {
                let packs = task.process_records(records, &mut ProcessedBatch::default());
                packs.iter().for_each(|pack| all.add(pack));
                waiting.extend(packs);
            }
        }
        all
    }
}

impl PackedBatch {
    fn add(&mut self, pack: &QueuedRecord) {
        let bytes = pack.body.value_bytes().expect("a pack is a value");
        let entries = decode(&bytes).expect("the task has written it");
        self.facts += entries.len();
        self.record_bytes +=
            entries.iter().map(|entry| entry.to_body().as_bytes().len()).sum::<usize>();
        self.packs += 1;
        self.pack_bytes += pack.body.as_bytes().len();
    }
}

#[cfg(test)]
mod tests {
    use tidewire_schemas::Priority;

    use super::*;
    use crate::derive::START;
    use crate::operators::OPERATORS;
    use crate::port::Table;

    /// The users with notifications (`operators/unread.rs`).
    const UNREAD_USERS: Table = Table(120);

    /// Each user follows the next.
    fn follows(users: usize) -> Vec<Event> {
        let event = |n: usize| Event {
            event_id: format!("e-{n}"),
            event_type: "user.followed".to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: START.0,
            correlation_id: format!("e-{n}"),
            priority: Priority::High,
            key: format!("u{n}"),
            source: None,
            alias: None,
            data: format!(r#"{{"user_id":"u{n}","target_id":"u{}"}}"#, (n + 1) % users),
        };
        (0..users).map(event).collect()
    }

    fn packed(tasks: u32, events: &[Event], batch: usize) -> PackedBatch {
        let mut driven = DrivenTasks::new(OPERATORS, tasks);
        let mut all = PackedBatch::default();
        for events in events.chunks(batch) {
            let done = driven.process_batch(events);
            all.facts += done.facts;
            all.record_bytes += done.record_bytes;
            all.packs += done.packs;
            all.pack_bytes += done.pack_bytes;
        }
        all
    }

    #[test]
    fn several_tasks_have_the_facts_of_one_task_in_more_packs() {
        let events = follows(64);
        let (one, four) = (packed(1, &events, 64), packed(4, &events, 64));
        assert!(one.facts >= 64, "{one:?}");
        assert_eq!((one.facts, one.record_bytes), (four.facts, four.record_bytes));
        assert!(one.packs < four.packs && four.packs <= 4 * 4 * 4, "{one:?}, {four:?}");
        assert!(four.pack_bytes < four.record_bytes, "{four:?}");
    }

    #[test]
    fn facts_reach_the_task_of_their_key() {
        let mut driven = DrivenTasks::new(OPERATORS, 4);
        let done = driven.process_batch(&follows(64));
        assert_eq!(done.facts, 64, "a copy for each user who is followed");
        let unread = driven.tasks.iter_mut().map(|task| task.all(UNREAD_USERS).len());
        let unread: Vec<usize> = unread.collect();
        assert_eq!(unread.iter().sum::<usize>(), 64);
        assert!(unread.iter().all(|users| *users > 0), "{unread:?}");
    }

    #[test]
    fn transactions_of_one_event_have_a_pack_for_nearly_every_fact() {
        let done = packed(4, &follows(16), 1);
        assert!(done.packs * 10 >= done.facts * 9, "{done:?}");
    }
}
