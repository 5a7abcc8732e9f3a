//! Group assignments of a DERIVE loop: tasks are created, restored, handed over and closed here.
//!
//! Group changes are processed only between transactions, when nothing is uncommitted. So a revoked
//! task has nothing left to commit; only its store is still written. A lost partition may have
//! another owner already, so its task writes nothing more, not even to its store. A task exists
//! only while all lanes of its partition are assigned.

use crate::derive::derive_loop::{Derive, DeriveShared, HAND_OVER_BYTES, HAND_OVER_MS};
use crate::derive::restore::{RestoreContext, RestoringTask};
use crate::derive::running::RunningTask;
use crate::derive::task::{Task, TaskPhase};
use crate::port::{Change, Committed};
use crate::record::{Millis, Partition, TopicPartition};
use crate::telemetry;
use crate::topology::Lane;
use crate::turn::{EngineError, repeat};
use crate::value_level::{ValueLevel, level_in_force};

impl Derive {
    pub(super) fn follow_assignments(&mut self) -> Result<(), EngineError> {
        let changes = repeat(|| self.member.changes())
            .map_err(|error| EngineError::of_log("following the consumer group", error))?;
        if !changes.is_empty() {
            self.fenced.clear();
            self.level = None;
        }
        for change in changes {
            match change {
                Change::Assigned(of) => {
                    self.joined = true;
                    self.assign(&of)?;
                }
                Change::Revoked(of) => self.revoke(&of)?,
                Change::Lost(of) => {
                    self.joined = false;
                    self.drop_lost(&of)?;
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, of: &[TopicPartition]) -> Result<(), EngineError> {
        let at = self.shared.now();
        for of in of {
            let Some(lane) = self.lane_of(of) else { continue };
            let assigned = self.assigned.entry(of.partition).or_default();
            assigned.add(lane, at);
            // A task of an earlier assignment still holds the store; it restores again.
            if let Some(task) = self.tasks.remove(&of.partition) {
                self.abandon(task)?;
            }
        }
        let partial = self.assigned.values().filter(|assigned| !assigned.is_whole()).count();
        telemetry::partial_assignments(partial);
        Ok(())
    }

    /// Begins one waiting task per turn. Each start needs some twenty calls to the log; several at
    /// once would delay the running tasks and a shutdown.
    fn begin_task(&mut self) -> Result<bool, EngineError> {
        let Some((partition, assigned)) = self.waiting().next() else { return Ok(false) };
        let context = RestoreContext { now: assigned, ..self.shared.restore_context() };
        let follower = self.standby.as_mut().and_then(|standby| standby.take(partition));
        let restoring = RestoringTask::begin(context, partition, follower, &mut self.fenced)?;
        self.tasks.insert(partition, Task::new(restoring));
        Ok(true)
    }

    /// Assigned partitions without a task, and when they were assigned.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Partition, Millis)> {
        let ours = self.assigned.iter().filter(|(_, assigned)| assigned.is_whole());
        ours.filter(|(partition, _)| !self.tasks.contains_key(partition))
            .map(|(partition, assigned)| (*partition, assigned.at()))
    }

    /// Closes the tasks of revoked partitions before the revocation is acknowledged: the next owner
    /// may be another thread of this process, which opens the same stores.
    fn revoke(&mut self, of: &[TopicPartition]) -> Result<(), EngineError> {
        let gone = self.unassign(of);
        let tasks = gone.iter().filter_map(|partition| self.tasks.remove(partition)).collect();
        let mut left = self.close_tasks(tasks)?;
        // The lanes of a partition go together, unless the topic of one was deleted. By now there
        // may be a new topic of that name, where this offset means another record.
        let topology = &self.shared.config.topology;
        let goes =
            |partition, lane| of.contains(&TopicPartition::new(topology.lane(lane), partition));
        left.retain(|(at, _)| Lane::ALL.into_iter().all(|lane| goes(at.partition, lane)));
        self.release_offsets(&left);
        Ok(())
    }

    /// Closes tasks that no other owner has yet. Returns the offsets that they got to.
    pub(super) fn close_tasks(
        &mut self,
        tasks: Vec<Task>,
    ) -> Result<Vec<(TopicPartition, Committed)>, EngineError> {
        let mut left = Vec::new();
        for mut task in tasks {
            if let TaskPhase::Running(running) = &task.phase {
                put_released(running, &mut left);
            }
            self.retire(&mut task)?;
            close(&mut task)?;
        }
        Ok(left)
    }

    /// Commits the offsets without an owner, so that the next owner need not fence this loop and
    /// with it its other tasks. A failure is only logged: the next owner then fences this loop.
    pub(super) fn release_offsets(&mut self, left: &[(TopicPartition, Committed)]) {
        if let Err(error) = self.member.commit(left) {
            telemetry::release_failed(&error);
        }
    }

    /// Drops the tasks of lost partitions. They may have another owner already, so nothing more is
    /// written, not even to their stores.
    fn drop_lost(&mut self, of: &[TopicPartition]) -> Result<(), EngineError> {
        for partition in self.unassign(of) {
            if let Some(task) = self.tasks.remove(&partition) {
                self.abandon(task)?;
            }
        }
        Ok(())
    }

    /// Closes a task and its store without handing anything over.
    fn abandon(&mut self, mut task: Task) -> Result<(), EngineError> {
        match task.leave() {
            TaskPhase::Running(running) => {
                let (state, _) = running.stop(&mut *self.member);
                task.enter(TaskPhase::Draining(Box::new(state)));
            }
            TaskPhase::Restoring(restoring) => {
                task.enter(TaskPhase::Draining(Box::new(restoring.stop())));
            }
            phase => task.phase = phase,
        }
        close(&mut task)
    }

    fn unassign(&mut self, of: &[TopicPartition]) -> Vec<Partition> {
        let mut partitions: Vec<Partition> =
            of.iter().filter(|at| self.lane_of(at).is_some()).map(|at| at.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in &partitions {
            self.assigned.remove(partition);
        }
        partitions
    }

    /// Stops a task and hands the rest of its committed state to the writer.
    fn retire(&mut self, task: &mut Task) -> Result<(), EngineError> {
        match task.leave() {
            TaskPhase::Running(running) => {
                let (mut state, progress) = running.stop(&mut *self.member);
                state
                    .hand_over(progress.encode())
                    .map_err(|error| EngineError::of_store("writing a task's state", error))?;
                task.enter(TaskPhase::Draining(Box::new(state)));
            }
            TaskPhase::Restoring(restoring) => {
                task.enter(TaskPhase::Draining(Box::new(restoring.stop())));
            }
            phase => task.phase = phase,
        }
        Ok(())
    }

    fn lane_of(&self, at: &TopicPartition) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| *self.shared.config.topology.lane(*lane) == at.topic)
    }

    /// Advances restores and hand-overs. Returns whether there is more to do without waiting.
    pub(super) fn advance_tasks(&mut self) -> Result<bool, EngineError> {
        let mut moved = self.begin_task()?;
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            let Some(mut task) = self.tasks.remove(&partition) else { continue };
            moved |= self.advance_task(&mut task)?;
            if !matches!(task.phase, TaskPhase::Closed) {
                self.tasks.insert(partition, task);
            }
        }
        self.hand_over()?;
        telemetry::tasks(self.tasks.len());
        let left = self.restores().iter().map(|at| at.total.saturating_sub(at.done)).sum();
        telemetry::restores_left(left);
        Ok(moved)
    }

    fn advance_task(&mut self, task: &mut Task) -> Result<bool, EngineError> {
        let writing = |error| EngineError::of_store("writing a task's state", error);
        match &mut task.phase {
            TaskPhase::Restoring(restoring) => {
                let step = restoring.step(self.shared.restore_context())?;
                if step.done
                    && let Some(level) = self.value_level(restoring)?
                    && self.claim(restoring)?
                {
                    self.run(task, level)?;
                    return Ok(true);
                }
                Ok(step.moved)
            }
            TaskPhase::Running(running) => {
                running.state.acknowledge().map_err(writing)?;
                running.load_ids().map_err(|e| EngineError::of_store("reading accepted ids", e))
            }
            TaskPhase::Draining(_) | TaskPhase::Closed => Ok(false),
        }
    }

    /// Hands over the committed state of the task that has been due for longest. One per turn,
    /// since eight at once would delay critical records.
    fn hand_over(&mut self) -> Result<(), EngineError> {
        let writing = |error| EngineError::of_store("writing a task's state", error);
        let now = self.shared.now();
        let is_due = |task: &mut Task| {
            // If the clock was set back, the hand-over must not wait until it has caught up.
            task.handed = task.handed.min(now);
            let waited = now.0 - task.handed.0;
            task.running().is_some_and(|running| {
                running.has_unwritten()
                    && (waited >= HAND_OVER_MS || running.state.pending_bytes() >= HAND_OVER_BYTES)
            })
        };
        let due = self.tasks.values_mut().filter_map(|task| is_due(task).then_some(task));
        let Some(task) = due.min_by_key(|task| task.handed) else { return Ok(()) };
        task.handed = now;
        let Some(running) = task.running() else { return Ok(()) };
        running.hand_over().map_err(writing)?;
        running.state.store().allow_checkpoints();
        for (table, window_ms) in self.shared.tables.expiring() {
            let before = Millis(running.progress.times.settled().0.saturating_sub(window_ms));
            running.state.store().set_horizon(table, before).map_err(writing)?;
        }
        Ok(())
    }

    /// Commits the lanes' offsets under this owner's name before the task writes anything, so that
    /// its next owner knows whom to fence. Returns `false` if the group does not accept commits
    /// now, as during a rebalance.
    fn claim(&mut self, restoring: &mut RestoringTask) -> Result<bool, EngineError> {
        let claimed_offsets = restoring.claimed_offsets(self.shared.restore_context());
        let claimed = self.member.commit(&claimed_offsets);
        match claimed.map_err(|error| EngineError::of_log("claiming a task", error)) {
            Ok(()) => Ok(true),
            Err(error @ EngineError::Retry { .. }) => {
                restoring.report_waiting(&error, self.shared.now());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The value level in force, read once after each change of the group: a former owner of an
    /// assigned partition had read its level before it wrote values of that level. `None` if the
    /// log does not answer: the task waits, and the others go on.
    fn value_level(
        &mut self,
        restoring: &mut RestoringTask,
    ) -> Result<Option<ValueLevel>, EngineError> {
        if self.level.is_none() {
            let DeriveShared { config, ports, tables, .. } = &*self.shared;
            let read = level_in_force(&*ports.log, &config.topology, tables.highest_level());
            match read.map_err(|error| EngineError::of_log("reading the value level", error)) {
                Ok(level) => self.level = Some(level),
                Err(error @ EngineError::Retry { .. }) => {
                    restoring.report_waiting(&error, self.shared.now());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.level)
    }

    fn run(&mut self, task: &mut Task, level: ValueLevel) -> Result<(), EngineError> {
        let TaskPhase::Restoring(restoring) = task.leave() else {
            return Ok(());
        };
        let restored = restoring.finish(self.shared.restore_context(), level)?;
        let running = RunningTask::start(restored, self.shared.rules(), &mut *self.member)?;
        task.handed = self.shared.now();
        task.enter(TaskPhase::Running(Box::new(running)));
        Ok(())
    }
}

/// Waits until everything a stopped task handed over is written, and closes its store.
fn close(task: &mut Task) -> Result<(), EngineError> {
    if let TaskPhase::Draining(state) = task.leave() {
        let closing = |error| EngineError::of_store("closing a task's store", error);
        state.close().map_err(closing)?;
        task.enter(TaskPhase::Closed);
    }
    Ok(())
}

/// Adds the positions of a task's lanes, without an owner.
fn put_released(running: &RunningTask, left: &mut Vec<(TopicPartition, Committed)>) {
    for lane in Lane::ALL {
        if let Some(offset) = running.progress.lanes[lane.index()] {
            let committed = Committed { offset, metadata: String::new() };
            left.push((running.lane(lane).clone(), committed));
        }
    }
}
