//! The simulator's log goes through the contract, with the faults off: a simulation on a log that
//! lies proves nothing.
//!
//! What restarts is the process that uses it; there is no file that a killed one could leave.

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
