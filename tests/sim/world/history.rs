//! One simulated history: the steps that may happen, chosen by a seed.

use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, resolve};
use tidewire_engine::port::Log;
use tidewire_engine::topology::Topology;

use super::loops::{ADMITS, Loops};
use super::producer::Producer;
use crate::fake::{FakeLog, FakeStores};
use crate::model::Model;
use crate::test_rng::TestRng;

/// Partitions of every topic: enough for three owners, and for keys that share a partition.
const PARTITIONS: u32 = 3;

/// Most DERIVE processes in one history.
const OWNERS_MAX: usize = 3;

/// Steps with faults in one history.
const STEPS: u64 = 200;

/// Rounds without faults after which everything must be processed.
const MAX_QUIET_ROUNDS: u32 = 400;

/// Idle rounds after which nothing more can happen: every timer is due, every batch is written and
/// every absent member is removed from its group.
const IDLE_ROUNDS: u32 = 6;

/// Milliseconds of a round without faults.
const ROUND_MS: i64 = 1_000;

/// A clock jump passes everything that is kept for a day.
const JUMP_MS: i64 = 25 * 3_600_000;

/// How far the machines' clocks may be ahead of the log's or behind it.
const SKEW_MS_MAX: i64 = 60_000;

/// Everything of one history.
pub(crate) struct World {
    /// The log, as an observer that never crashes.
    pub(crate) log: FakeLog,
    /// The topics.
    pub(crate) topology: Topology,
    /// The machines' disks.
    pub(crate) machines: Vec<FakeStores>,
    /// ADMIT and DERIVE.
    pub(crate) loops: Loops,
    /// The expected state.
    pub(crate) model: Model,
    /// Batches a disk still writes when its process crashes, unless chosen at random.
    pub(crate) batches_written_at_crash: usize,
    producer: Producer,
    random: TestRng,
}

impl World {
    /// A world of this seed, before anything has happened.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = TestRng::new(!seed);
        let owners = 1 + random.index(OWNERS_MAX);
        Self::with_owners(seed, owners)
    }

    /// The same with this many machines.
    pub(crate) fn with_owners(seed: u64, owners: usize) -> Self {
        let log = FakeLog::new(seed ^ 0x5eed);
        let topology = Topology::new("t.", PARTITIONS);
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        Self {
            machines: (0..owners).map(|machine| FakeStores::new(machine, &log)).collect(),
            loops: Loops::new(&log, owners),
            model: Model::new(&topology),
            batches_written_at_crash: 0,
            producer: Producer::new(seed),
            random: TestRng::new(seed),
            topology,
            log,
        }
    }

    /// Runs a whole history and checks every step; the error says which invariant does not hold.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.log.state().faults = true;
        for step in 0..STEPS {
            self.step()
                .and_then(|()| self.check_facts())
                .map_err(|why| format!("step {step}: {why}"))?;
        }
        self.finish()
    }

    /// Ends the faults, lets everything finish and checks the result.
    fn finish(&mut self) -> Result<(), String> {
        let mut log_state = self.log.state();
        log_state.faults = false;
        log_state.skew = 0;
        // A clock that was set back delays ticks and hand-overs by as much.
        log_state.now.0 += 2 * SKEW_MS_MAX;
        drop(log_state);
        self.bring_up();
        self.settle_and_check()
    }

    /// Lets everything finish and checks the result.
    pub(crate) fn settle_and_check(&mut self) -> Result<(), String> {
        self.settle()?;
        self.model.end(&self.log, &self.machines)
    }

    /// Checks what has happened since the last check.
    pub(crate) fn check_facts(&mut self) -> Result<(), String> {
        self.model.check_facts(&self.log)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..24 => self.produce(),
            24 | 25 => self.requeue(),
            26..41 => drop(self.turn_admit(0)?),
            41..46 => drop(self.turn_admit(1)?),
            46..49 => drop(self.turn_admit(2)?),
            49..81 => {
                let n = self.any_owner();
                self.turn_derive(n)?;
            }
            81..90 => self.pass_time(),
            90..95 => {
                let n = self.any_owner();
                self.machines[n].write_some();
            }
            95 if self.random.one_in(8) => self.create_input_again(),
            95 if self.random.one_in(4) => self.stop_for_a_day()?,
            95 => self.set_clocks(),
            96 | 97 => {
                let n = self.random.index(ADMITS + self.machines.len());
                self.loops.crash(n);
            }
            98 => {
                let n = self.any_owner();
                self.close_derive(n)?;
            }
            _ => {
                let process = self.random.below(self.loops.processes + 1);
                self.log.state().expire(process);
            }
        }
        Ok(())
    }

    fn any_owner(&mut self) -> usize {
        self.random.index(self.machines.len())
    }

    /// Producers write some records.
    pub(crate) fn produce(&mut self) {
        let (log, topology) = (self.log.clone(), self.topology.clone());
        self.producer.write_some(&log, &topology, &mut self.model);
    }

    /// Another process requeues everything that operators failed on. Whatever the outcome, the next
    /// one completes it.
    fn requeue(&mut self) {
        let process = self.loops.begin_process(&self.log);
        let request = ResolveRequest {
            filter: Filter { operators: vec!["counter".to_owned()], ..Filter::default() },
            resolution: Resolution::Requeued,
            because: None,
            limit: None,
        };
        if resolve(&process, &self.topology, &request).is_ok_and(|done| done.count() > 0) {
            self.log.state().count("dead letters of operators requeued");
        }
    }

    /// The random decisions of this history.
    pub(super) fn random(&mut self) -> &mut TestRng {
        &mut self.random
    }

    fn pass_time(&mut self) {
        let ms = match self.random.below(40) {
            0 => JUMP_MS,
            1..4 => 5_000,
            4..20 => 150,
            _ => 3,
        };
        let mut log_state = self.log.state();
        log_state.now.0 += ms;
        if ms == JUMP_MS {
            log_state.count("clocks jumped ahead");
        }
        if ms >= 5_000 {
            log_state.time_out();
            log_state.clean(|topic| topic == self.topology.state());
        }
    }

    /// Deletes the topic of an input and creates it again. Its ADMIT notices that and ends.
    fn create_input_again(&mut self) {
        let n = self.random.index(ADMITS);
        let topic = self.loops.end_admit(n, &self.topology);
        let mut log_state = self.log.state();
        log_state.create_again(&topic);
        log_state.count("inputs created again");
        drop(log_state);
        self.model.input_created_again(&topic);
    }

    /// Stops every DERIVE for a day, while producers and ADMIT go on: the lanes then hold copies
    /// that are a day apart.
    fn stop_for_a_day(&mut self) -> Result<(), String> {
        for n in 0..self.machines.len() {
            self.loops.crash(ADMITS + n);
            self.turn_derive(n)?;
            // A loop that this turn has created would keep its partitions while it is down.
            self.loops.crash(ADMITS + n);
            self.loops.keep_down(n, 2);
        }
        // The model compares a tick with what is in the lanes now.
        self.check_facts()?;
        for jump in [0, JUMP_MS / 2, JUMP_MS / 2] {
            self.log.state().now.0 += jump;
            for _ in 0..4 {
                self.produce();
                self.turn_admit(0)?;
                self.turn_admit(1)?;
            }
        }
        let mut log_state = self.log.state();
        log_state.time_out();
        log_state.expire_dead();
        log_state.count("stopped for a day");
        Ok(())
    }

    /// Sets the machines' clocks ahead or back.
    fn set_clocks(&mut self) {
        let skew = self.random.below(2 * SKEW_MS_MAX as u64).cast_signed() - SKEW_MS_MAX;
        let mut log_state = self.log.state();
        let back = std::mem::replace(&mut log_state.skew, skew) > skew;
        log_state.count(if back { "clocks set back" } else { "clocks set ahead" });
    }

    /// Restarts machines that are down, or leaves them down for good: one that is up is enough.
    fn bring_up(&mut self) {
        let mut up = self.loops.up();
        for n in 0..self.machines.len() {
            let never = self.loops.is_down(n) && up > 0 && self.random.one_in(2);
            self.loops.keep_down(n, if never { u64::MAX } else { 0 });
            up += usize::from(!never);
        }
    }

    /// Runs everything without faults until nothing is left to do.
    fn settle(&mut self) -> Result<(), String> {
        let mut idle = 0;
        for _ in 0..MAX_QUIET_ROUNDS {
            let mut busy = false;
            for n in 0..ADMITS {
                let turned = self.turn_admit(n)?;
                busy |= turned.taken > 0 || turned.restoring;
            }
            for n in 0..self.machines.len() {
                let turned = self.turn_derive(n)?;
                busy |= turned.taken > 0 || turned.written > 0 || turned.restoring;
            }
            let mut log_state = self.log.state();
            log_state.now.0 += ROUND_MS;
            log_state.time_out();
            drop(log_state);
            self.machines.iter().for_each(FakeStores::write_some);
            self.check_facts().map_err(|why| format!("after the faults have ended: {why}"))?;
            idle = if busy { 0 } else { idle + 1 };
            if idle > IDLE_ROUNDS {
                return Ok(());
            }
        }
        Err("there is still work after all rounds without faults".to_owned())
    }
}
