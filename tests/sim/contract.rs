//! The simulator's log goes through the contract, with the faults off: a simulation on a log that
//! lies proves nothing.
//!
//! What restarts is the process that uses it; there is no file that a killed one could leave.

use std::sync::Arc;

use tidewire_engine::port::Log;

use crate::conformance::conformance;
use crate::conformance::subject::{Can, Subject};
use crate::fake::FakeLog;

struct Fake {
    log: FakeLog,
    processes: u64,
}

impl Subject for Fake {
    const CAN: &'static [Can] = &[Can::Restart, Can::PassTime];

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

    fn pass(&self, ms: u64) {
        let mut inner = self.log.inner();
        inner.now.0 += ms.cast_signed();
        inner.clean(|_| true);
    }
}

conformance!(Fake);
