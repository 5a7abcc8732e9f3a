//! Runs the conformance suite on the embedded log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;
use tidewire_connectors::embedded::{Config, EmbeddedLog, Upkeep};
use tidewire_engine::port::{Clock, Log};
use tidewire_engine::record::Millis;

use crate::conformance::conformance;
use crate::conformance::log_under_test::{Capability, LogUnderTest};

/// A clock that tests set.
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
}

struct Embedded {
    dir: TempDir,
    clock: Arc<ManualClock>,
    log: Option<Arc<EmbeddedLog>>,
}

impl Embedded {
    fn open(dir: &std::path::Path, clock: Arc<ManualClock>) -> Arc<EmbeddedLog> {
        let config = Config { upkeep: Upkeep::Caller, ..Config::new(dir) };
        EmbeddedLog::open(config, clock).expect("the log opens")
    }

    fn opened(&self) -> &Arc<EmbeddedLog> {
        self.log.as_ref().expect("not lent")
    }
}

impl LogUnderTest for Embedded {
    const CAPABILITIES: &'static [Capability] =
        &[Capability::Restart, Capability::AdvanceTime, Capability::Kill];

    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock(AtomicI64::new(1_767_600_000_000)));
        let log = Some(Self::open(dir.path(), clock.clone()));
        Self { dir, clock, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.opened().clone()
    }

    fn restart(&mut self) {
        self.hand_to_child();
        self.take_back();
    }

    fn advance_time(&self, ms: u64) {
        let now = self.clock.0.fetch_add(ms.cast_signed(), Ordering::Relaxed) + ms.cast_signed();
        self.opened().maintain(Millis(now)).expect("maintained");
    }

    fn hand_to_child(&mut self) -> String {
        self.log = None;
        self.dir.path().to_str().expect("a temporary directory is text").to_owned()
    }

    fn take_back(&mut self) {
        self.log = Some(Self::open(self.dir.path(), self.clock.clone()));
    }

    fn open_in_child(location: &str) -> Arc<dyn Log> {
        Self::open(location.as_ref(), Arc::new(ManualClock(AtomicI64::new(1_767_600_000_000))))
    }
}

conformance!(Embedded);
