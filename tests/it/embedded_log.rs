//! The embedded log goes through the contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;
use tidewire_connectors::embedded::{Config, EmbeddedLog, Upkeep};
use tidewire_engine::port::{Clock, Log};
use tidewire_engine::record::Millis;

use crate::conformance::conformance;
use crate::conformance::subject::{Can, Subject};

/// A clock that moves when told to.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
}

struct Embedded {
    dir: TempDir,
    clock: Arc<Hands>,
    log: Option<Arc<EmbeddedLog>>,
}

impl Embedded {
    fn open(place: &std::path::Path, clock: Arc<Hands>) -> Arc<EmbeddedLog> {
        let config = Config { upkeep: Upkeep::Caller, ..Config::new(place) };
        EmbeddedLog::open(config, clock).expect("the log opens")
    }

    fn opened(&self) -> &Arc<EmbeddedLog> {
        self.log.as_ref().expect("not lent")
    }
}

impl Subject for Embedded {
    const CAN: &'static [Can] = &[Can::Restart, Can::PassTime, Can::BeKilled];

    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(Hands(AtomicI64::new(1_767_600_000_000)));
        let log = Some(Self::open(dir.path(), clock.clone()));
        Self { dir, clock, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        self.opened().clone()
    }

    fn restart(&mut self) {
        self.lend();
        self.take_back();
    }

    fn pass(&self, ms: u64) {
        let now = self.clock.0.fetch_add(ms.cast_signed(), Ordering::Relaxed) + ms.cast_signed();
        self.opened().maintain(Millis(now)).expect("maintained");
    }

    fn lend(&mut self) -> String {
        self.log = None;
        self.dir.path().to_str().expect("a temporary directory is text").to_owned()
    }

    fn take_back(&mut self) {
        self.log = Some(Self::open(self.dir.path(), self.clock.clone()));
    }

    fn borrowed(place: &str) -> Arc<dyn Log> {
        Self::open(place.as_ref(), Arc::new(Hands(AtomicI64::new(1_767_600_000_000))))
    }
}

conformance!(Embedded);
