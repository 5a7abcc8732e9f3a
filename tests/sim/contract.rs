//! Runs the conformance suite on the simulator's log, with faults off.
//!
//! A simulation is only worth something if its log keeps the contract. "Restart" here means that
//! the process using the log restarts; there are no files that a killed process could leave.

use std::sync::Arc;

use tidewire_engine::port::Log;

use crate::conformance::conformance;
use crate::conformance::log_under_test::{Capability, LogUnderTest};
use crate::fake::FakeLog;

struct FakeSubject {
    log: FakeLog,
    processes: u64,
}

impl LogUnderTest for FakeSubject {
    const CAPABILITIES: &'static [Capability] = &[Capability::Restart, Capability::AdvanceTime];

    fn new() -> Self {
        Self { log: FakeLog::new(1), processes: 0 }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    fn restart(&mut self) {
        self.log.crash();
        self.processes += 1;
        self.log = self.log.as_process(self.processes);
    }

    fn advance_time(&self, ms: u64) {
        let mut log_state = self.log.state();
        log_state.now.0 += ms.cast_signed();
        log_state.clean(|_| true);
    }
}

conformance!(FakeSubject);
