//! The pipeline's loops, each given to the supervisor with what makes it anew.
//!
//! This is the list of what runs between `in` and the outputs in one process. The loops are the
//! engine's; here is only which there are, on which log, and when they are ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewire_engine::admit::{Admit, AdmitConfig, Source};
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts};
use tidewire_engine::port::Wake;
use tidewire_engine::task::Stage;
use tidewire_engine::turn::EngineError;

use crate::config::Config;
use crate::data::Data;
use crate::ending::Ending;
use crate::supervisor::{Loop, Supervisor};

/// This process among all that share a log; the embedded one has just one.
const INSTANCE: &str = "dev";
/// What is decided about an event depends on no setting yet; the first that does becomes part of
/// this number, which travels with every event.
const SETTINGS_HASH: u64 = 0;

/// Which DERIVE loops have caught up with their state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CaughtUp(Arc<[AtomicBool]>);

impl CaughtUp {
    fn none_of(loops: u32) -> Self {
        Self((0..loops).map(|_| AtomicBool::new(false)).collect())
    }

    fn set(&self, thread: u32, value: Stage) {
        self.0[thread as usize].store(value == Stage::Running, Ordering::Relaxed);
    }

    /// Whether all of them have.
    pub fn all(&self) -> bool {
        self.0.iter().all(|one| one.load(Ordering::Relaxed))
    }
}

/// Starts every loop; what it returns tells when they have caught up.
pub fn start(
    supervisor: &mut Supervisor,
    config: &Config,
    data: &Data,
) -> Result<CaughtUp, Ending> {
    admit(supervisor, data, ("admit", Source::Input))?;
    admit(supervisor, data, ("admit-urgent", Source::Urgent))?;
    let caught_up = CaughtUp::none_of(config.derive_threads);
    for thread in 0..config.derive_threads {
        derive(supervisor, data, (thread, caught_up.clone()))?;
    }
    Ok(caught_up)
}

fn admit(
    supervisor: &mut Supervisor,
    data: &Data,
    (name, source): (&'static str, Source),
) -> Result<(), Ending> {
    let log = data.log.clone();
    let config = AdmitConfig {
        topology: data.topology.clone(),
        source,
        instance: INSTANCE.into(),
        settings_hash: SETTINGS_HASH,
    };
    let make = move || Ok(Box::new(AdmitLoop(Admit::new(config.clone(), &log)?)) as Box<dyn Loop>);
    supervisor.keep(name, Box::new(make))
}

fn derive(
    supervisor: &mut Supervisor,
    data: &Data,
    (thread, caught_up): (u32, CaughtUp),
) -> Result<(), Ending> {
    let ports = DerivePorts {
        log: data.log.clone(),
        stores: data.stores.clone(),
        clock: data.clock.clone(),
    };
    let config = DeriveConfig {
        topology: data.topology.clone(),
        instance: INSTANCE.into(),
        thread,
        build: env!("CARGO_PKG_VERSION").into(),
        settings_hash: SETTINGS_HASH,
    };
    let make = move || {
        caught_up.set(thread, Stage::Restoring);
        let derive = Derive::new(config.clone(), ports.clone())?;
        Ok(Box::new(DeriveLoop { derive, thread, caught_up: caught_up.clone() }) as Box<dyn Loop>)
    };
    supervisor.keep("derive", Box::new(make))
}

struct AdmitLoop(Admit);

impl Loop for AdmitLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.0.turn(wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.0.waker())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

struct DeriveLoop {
    derive: Derive,
    thread: u32,
    caught_up: CaughtUp,
}

impl Loop for DeriveLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        let turned = self.derive.turn(wait)?;
        let stage = if turned.restoring { Stage::Restoring } else { Stage::Running };
        self.caught_up.set(self.thread, stage);
        Ok(())
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.derive.waker())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.derive.close()
    }
}
