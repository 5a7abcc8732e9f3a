//! The ADMIT and DERIVE loops of a world, and the processes they run in.

use tidewire_engine::admit::{Admit, AdmitInput};
use tidewire_engine::derive::Derive;
use tidewire_engine::record::Topic;
use tidewire_engine::topology::Topology;

use crate::fake::FakeLog;

/// The number of ADMIT's loops, which are numbered before those of DERIVE.
pub(crate) const ADMITS: usize = AdmitInput::ALL.len();

/// A loop and what is needed to create it again.
pub(super) struct LoopSlot<T> {
    /// Turns until it is created again.
    pub(super) down: u64,
    /// The log as its process sees it.
    pub(super) log: FakeLog,
    pub(super) running: Option<T>,
}

impl<T> LoopSlot<T> {
    fn new(log: &FakeLog) -> Self {
        Self { down: 0, log: log.clone(), running: None }
    }
}

/// Every loop of a world.
pub(crate) struct Loops {
    pub(super) admits: [(AdmitInput, LoopSlot<Admit>); ADMITS],
    /// By machine.
    pub(super) derives: Vec<LoopSlot<Derive>>,
    /// Processes started so far.
    pub(crate) processes: u64,
}

impl Loops {
    pub(super) fn new(log: &FakeLog, owners: usize) -> Self {
        Self {
            admits: AdmitInput::ALL.map(|source| (source, LoopSlot::new(log))),
            derives: (0..owners).map(|_| LoopSlot::new(log)).collect(),
            processes: 0,
        }
    }

    /// Crashes a loop's process; the first [`ADMITS`] are ADMIT's.
    pub(crate) fn crash(&self, n: usize) {
        let derive = n.checked_sub(ADMITS).map(|n| &self.derives[n]);
        match derive {
            Some(derive) if derive.running.is_some() => derive.log.crash(),
            None if self.admits[n].1.running.is_some() => self.admits[n].1.log.crash(),
            _ => {}
        }
    }

    /// Ends a loop of ADMIT; returns the topic that it read.
    pub(super) fn end_admit(&mut self, n: usize, topology: &Topology) -> Topic {
        let (source, slot) = &mut self.admits[n];
        slot.running = None;
        topology.input_of(source.number()).expect("every loop has an input").clone()
    }

    /// The process of a machine's DERIVE loop.
    pub(crate) fn process(&self, n: usize) -> u64 {
        self.derives[n].log.process()
    }

    /// The process of its next turn.
    pub(crate) fn process_to_turn(&self, n: usize) -> u64 {
        let of = &self.derives[n];
        if of.running.is_some() { of.log.process() } else { self.processes + 1 }
    }

    /// Keeps a machine down for so many turns.
    pub(crate) fn keep_down(&mut self, n: usize, turns: u64) {
        self.derives[n].down = turns;
    }

    /// Whether a machine is down.
    pub(super) fn is_down(&self, n: usize) -> bool {
        self.derives[n].down > 0
    }

    /// Machines that are up.
    pub(super) fn up(&self) -> usize {
        self.derives.iter().filter(|of| of.down == 0).count()
    }

    pub(super) fn begin_process(&mut self, log: &FakeLog) -> FakeLog {
        self.processes += 1;
        log.as_process(self.processes)
    }
}
