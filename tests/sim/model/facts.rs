//! Checks each fact of the journal against the models.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_engine::derive::dedup::IDS;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::port::Committed;
use tidewire_engine::record::{Body, Offset, Partition, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::id::hash128;

use super::admission::{Admission, AdmittedRecord, ProducedInput};
use super::batch::{entries_of, take_outputs};
use super::disk::DiskModel;
use super::ensure::ensure;
use super::operators::first_timer;
use super::partials;
use super::task::{SealedTransaction, TaskModel};
use crate::fake::{DiskId, Fact, FakeLog, FakeStores, LogState, RECORDS_REFUSED};
use crate::operators::ASIDE;

/// How late a timer may be that has not fired after the faults have ended.
const LATE_MS: i64 = 5_000;

/// The expected state of everything in a history.
pub(crate) struct Model {
    topology: Topology,
    admit_group: String,
    admission: Admission,
    tasks: Vec<TaskModel>,
    disks: BTreeMap<DiskId, DiskModel>,
    /// The dead letters that were requeued.
    requeued: BTreeSet<String>,
}

impl Model {
    pub(crate) fn new(topology: &Topology) -> Self {
        let tasks = (0..topology.partitions()).map(|p| TaskModel::new(Partition(p)));
        Self {
            topology: topology.clone(),
            admit_group: topology.admit_group(),
            admission: Admission::default(),
            tasks: tasks.collect(),
            disks: BTreeMap::new(),
            requeued: BTreeSet::new(),
        }
    }

    /// Records what a producer wrote.
    pub(crate) fn produced(&mut self, at: &TopicPartition, produced: ProducedInput) {
        self.admission.produced(at, produced);
    }

    /// Records that the topic of an input was created again.
    pub(crate) fn input_created_again(&mut self, topic: &Topic) {
        self.admission.created_again(topic);
    }

    /// Checks everything that has happened since the last call.
    pub(crate) fn check_facts(&mut self, log: &FakeLog) -> Result<(), String> {
        let mut log_state = log.state();
        if let Some(violation) = &log_state.violation {
            return Err(violation.clone());
        }
        for fact in std::mem::take(&mut log_state.journal) {
            match fact {
                Fact::Appended(at, offset) => self.appended(&log_state, &at, offset)?,
                Fact::Committed(n) => self.committed(&log_state, n)?,
                Fact::OffsetCommitted(group, at, to) => self.offset_committed(&group, &at, &to)?,
                Fact::EndsRequested(time, ends) => {
                    for (at, end) in ends {
                        let lane = self.lane_of(&at.topic).ok_or("ends of no lane")?;
                        self.tasks[at.partition.0 as usize].ends_requested(lane, time, end);
                    }
                }
                Fact::Written(disk, batch) => {
                    let task = &self.tasks[disk.partition as usize];
                    let model = self.disks.entry(disk).or_default();
                    model.write(&batch, task).map_err(|why| format!("{disk:?}: {why}"))?;
                }
                Fact::Destroyed(disk) => drop(self.disks.remove(&disk)),
            }
        }
        Ok(())
    }

    fn lane_of(&self, topic: &Topic) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| self.topology.lane(*lane) == topic)
    }

    fn appended(
        &mut self,
        log: &LogState,
        at: &TopicPartition,
        offset: Offset,
    ) -> Result<(), String> {
        let Some((_, body)) = log.record(at, offset.0) else { return Ok(()) };
        if at.topic == *self.topology.dead_letters() {
            return self.admission.dead_letter(body);
        }
        let lane = self.lane_of(&at.topic);
        self.admission.is_reordered = log.counts.contains_key(RECORDS_REFUSED);
        match lane.filter(|_| body.header(VERDICT).is_some()) {
            Some(lane) => self.admission.lane(AdmittedRecord { at, lane, body }, &self.topology),
            None => Ok(()),
        }
    }

    fn offset_committed(
        &mut self,
        group: &str,
        at: &TopicPartition,
        to: &Committed,
    ) -> Result<(), String> {
        if group == self.admit_group {
            return self.admission.offset_committed(at, to.offset, self.topology.partitions());
        }
        self.check_offset(at, to)
    }

    /// DERIVE's committed offsets must be where the task's last transaction ended.
    fn check_offset(&self, at: &TopicPartition, to: &Committed) -> Result<(), String> {
        let lane = self.lane_of(&at.topic);
        let lane = lane.ok_or_else(|| format!("{at} is no lane, and an offset is committed"))?;
        let taken = self.tasks[at.partition.0 as usize].lanes[lane.index()];
        ensure(to.offset.0 == taken, || {
            format!("{at}: {:?} is committed, but records are read up to {taken}", to.offset)
        })
    }

    fn committed(&mut self, log: &LogState, n: usize) -> Result<(), String> {
        let transaction = log.transaction(n);
        if transaction.spans.keys().all(|at| at.topic != *self.topology.order()) {
            return self.requeued(log, n);
        }
        let mut expected = BTreeMap::new();
        let before: Vec<[u64; Lane::COUNT]> = self.tasks.iter().map(|task| task.lanes).collect();
        let of_tasks = transaction.spans.keys().filter(|at| at.topic == *self.topology.order());
        for at in of_tasks {
            let p = at.partition.0;
            let sealed_transaction = self.sealed_transaction(log, n, at)?;
            let task = &mut self.tasks[p as usize];
            let done = task.commit(&sealed_transaction, log, &self.topology);
            expected.insert(p, done.map_err(|why| format!("partition {p}: {why}"))?);
        }
        let topology = &self.topology;
        let sealing = [topology.order(), topology.state(), topology.out_audit()];
        for at in transaction.spans.keys() {
            if !sealing.contains(&&at.topic) {
                take_outputs(&mut expected, at, &self.outputs_of(log, n, at)?)?;
            } else {
                let known = expected.contains_key(&at.partition.0);
                ensure(known, || format!("{at}: a changelog or an audit without an order record"))?;
            }
        }
        for (p, expected) in &expected {
            let missing = expected.outputs.front();
            ensure(missing.is_none(), || format!("partition {p}: {missing:?} is missing"))?;
        }
        self.check_offsets(&transaction.offsets, &before)
    }

    /// What a transaction wrote to a partition, facts each by itself.
    fn outputs_of(
        &self,
        log: &LogState,
        n: usize,
        at: &TopicPartition,
    ) -> Result<Vec<Body>, String> {
        let facts = self.lane_of(&at.topic).is_some();
        let mut outputs = Vec::new();
        for (_, body) in log.written(n, at) {
            match facts {
                true => outputs.extend(entries_of(body)?),
                false => outputs.push(body.clone()),
            }
        }
        Ok(outputs)
    }

    /// A transaction of no task requeues dead letters of operators, each once.
    fn requeued(&mut self, log: &LogState, n: usize) -> Result<(), String> {
        for at in log.transaction(n).spans.keys().filter(|at| at.topic == *self.topology.facts()) {
            for (_, pack) in log.written(n, at) {
                let entries = entries_of(pack)?;
                let [body] = &entries[..] else {
                    return Err("a requeued record has one entry".into());
                };
                let trail =
                    body.header("requeued-from").ok_or("a fact without its task's order")?;
                let trail = String::from_utf8_lossy(trail);
                let letter = trail.rsplit(' ').next().unwrap_or_default().to_owned();
                let first = self.requeued.insert(letter.clone());
                ensure(first, || format!("{letter} was requeued twice"))?;
            }
        }
        let others = log.transaction(n).spans.keys().find(|at| {
            at.topic != *self.topology.facts() && at.topic != *self.topology.dead_letters()
        });
        ensure(others.is_none(), || format!("{others:?} was written without an order record"))
    }

    /// The offsets of exactly the lanes that were read must be committed.
    fn check_offsets(
        &self,
        offsets: &[(String, TopicPartition, Committed)],
        before: &[[u64; Lane::COUNT]],
    ) -> Result<(), String> {
        for (_, at, to) in offsets {
            self.check_offset(at, to)?;
        }
        for (task, before) in self.tasks.iter().zip(before) {
            for lane in Lane::ALL.into_iter().filter(|l| task.lanes[l.index()] != before[l.index()])
            {
                let at = TopicPartition::new(self.topology.lane(lane), task.partition);
                let sent = offsets.iter().any(|(_, to, _)| *to == at);
                ensure(sent, || format!("{at} was read, and its offset is not committed"))?;
            }
        }
        Ok(())
    }

    fn sealed_transaction<'a>(
        &self,
        log: &'a LogState,
        n: usize,
        at: &TopicPartition,
    ) -> Result<SealedTransaction<'a>, String> {
        let mut records = log.written(n, at);
        let (order_at, body) = records.next().ok_or("a transaction without an order record")?;
        ensure(records.next().is_none(), || format!("{at}: two order records"))?;
        let order = OrderRecord::decode(body.value().unwrap_or_default());
        let order = order.map_err(|error| format!("{at}/{order_at}: {error}"))?;
        let state = TopicPartition::new(self.topology.state(), at.partition);
        let audit = TopicPartition::new(self.topology.out_audit(), at.partition);
        let audit = log.written(n, &audit).map(|(_, body)| body).collect();
        Ok(SealedTransaction { order_at, order, state: log.written(n, &state).collect(), audit })
    }

    /// At the end of a history: everything was processed, and every store is complete.
    pub(crate) fn end(&self, log: &FakeLog, machines: &[FakeStores]) -> Result<(), String> {
        self.admission.check_end()?;
        let log_state = log.state();
        for task in &self.tasks {
            for lane in Lane::ALL {
                let at = TopicPartition::new(self.topology.lane(lane), task.partition);
                let left = log_state.next_record(&at, task.lanes[lane.index()]);
                ensure(left.is_none(), || format!("{at}: {left:?} was not read"))?;
            }
            let late = first_timer(&task.tables).filter(|at| at.0 + LATE_MS < log_state.now.0);
            ensure(late.is_none(), || format!("{:?}: a timer is late", task.partition))?;
            let kept = partials::kept(&task.tables);
            ensure(kept == 0, || format!("{:?}: {kept} parts were not sent", task.partition))?;
        }
        drop(log_state);
        self.check_everything_passed()?;
        self.check_stores_are_complete(machines)
    }

    fn check_everything_passed(&self) -> Result<(), String> {
        for (account, id) in self.admission.events.iter().filter(|(_, id)| !id.contains(ASIDE)) {
            let hash = hash128(account, id);
            let passed = self.tasks.iter().any(|task| task.has_accepted(&hash));
            ensure(passed, || format!("{id} was admitted and did not pass"))?;
        }
        for (account, id) in &self.admission.broadcasts {
            let hash = hash128(account, id);
            let missing = self.tasks.iter().position(|task| !task.has_accepted(&hash));
            ensure(missing.is_none(), || format!("task {missing:?} did not get {id}"))?;
        }
        Ok(())
    }

    fn check_stores_are_complete(&self, machines: &[FakeStores]) -> Result<(), String> {
        for (p, task) in self.tasks.iter().enumerate() {
            let lacks = |transactions: usize| task.keys(transactions..task.transactions()).next();
            let done = |(id, disk): (&DiskId, &DiskModel)| {
                id.partition as usize == p && lacks(disk.transactions).is_none()
            };
            let complete = lacks(0).is_none() || self.disks.iter().any(done);
            ensure(complete, || format!("partition {p}: no store has all that was written"))?;
        }
        for (id, model) in &self.disks {
            let disks = machines[id.machine].disks();
            let data = &disks.get(&id.partition).ok_or("a store is gone")?.data;
            let same = data.iter().all(|(key, value)| model.data().get(key) == Some(value));
            let mut kept = model.data().keys().filter(|(table, _)| *table != IDS);
            let same = same && kept.all(|key| data.contains_key(key));
            ensure(same, || format!("{id:?} does not hold what was written to it"))?;
        }
        Ok(())
    }
}
