//! The pipeline's loops, each given to the supervisor with what makes it anew.
//!
//! This is the list of what runs between `in` and the outputs. The loops are the engine's; here is
//! only which there are, on which log, and what each has come to.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::admit::{Admit, AdmitConfig, Brake, Source};
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts};
use tidewire_engine::port::{Stores, Wake};
use tidewire_engine::turn::{EngineError, Turned};

use crate::config::Config;
use crate::data::Data;
use crate::ending::Ending;
use crate::ready::{Mark, Standing};
use crate::supervisor::{Loop, Supervisor};

/// What is decided about an event depends on no setting yet; the first that does becomes part of
/// this number, which travels with every event.
pub(crate) const SETTINGS_HASH: u64 = 0;

/// The build's name in what it writes.
pub(crate) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// Starts the loops that read the input; what it returns tells what they have come to, and takes
/// them on when they stand still.
pub fn start_admit(
    supervisor: &mut Supervisor,
    config: &Config,
    data: &Data,
) -> Result<Vec<(Mark, Brake)>, Ending> {
    [("admit", Source::Input), ("admit-urgent", Source::Urgent)]
        .into_iter()
        .map(|(name, source)| {
            let (mark, brake) = (Mark::new(name), Brake::new(config.poison));
            let told = (mark.clone(), brake.clone());
            admit(supervisor, (config, data), (name, source, told))?;
            Ok((mark, brake))
        })
        .collect()
}

/// The same for those that read the lanes.
pub fn start_derive(
    supervisor: &mut Supervisor,
    config: &Config,
    data: &Data,
) -> Result<Vec<Mark>, Ending> {
    let stores = data.stores.as_ref().expect("a process with tasks has opened its state folder");
    (0..config.derive_threads)
        .map(|thread| {
            let mark = Mark::new("derive");
            derive(supervisor, (config, data, stores), (thread, mark.clone()))?;
            Ok(mark)
        })
        .collect()
}

fn admit(
    supervisor: &mut Supervisor,
    (config, data): (&Config, &Data),
    (name, source, (mark, brake)): (&'static str, Source, (Mark, Brake)),
) -> Result<(), Ending> {
    let log = data.log.clone();
    let config = AdmitConfig {
        topology: data.topology.clone(),
        source,
        instance: config.instance.clone(),
        settings_hash: SETTINGS_HASH,
        registry: data.registry.clone(),
        brake,
    };
    let make = move || {
        mark.set(Standing::Joining);
        let admit = Admit::new(config.clone(), &log)?;
        Ok(Box::new(AdmitLoop { admit, mark: mark.clone() }) as Box<dyn Loop>)
    };
    supervisor.keep(name, Box::new(make))
}

fn derive(
    supervisor: &mut Supervisor,
    (config, data, stores): (&Config, &Data, &Arc<dyn Stores>),
    (thread, mark): (u32, Mark),
) -> Result<(), Ending> {
    let ports =
        DerivePorts { log: data.log.clone(), stores: stores.clone(), clock: data.clock.clone() };
    let config = DeriveConfig {
        topology: data.topology.clone(),
        instance: config.instance.clone(),
        thread,
        build: BUILD.into(),
        settings_hash: SETTINGS_HASH,
        standby: config.derive_standby,
    };
    let make = move || {
        mark.set(Standing::Joining);
        let derive = Derive::new(config.clone(), ports.clone())?;
        Ok(Box::new(DeriveLoop { derive, mark: mark.clone() }) as Box<dyn Loop>)
    };
    supervisor.keep("derive", Box::new(make))
}

/// Notes what a loop has come to by a turn.
fn note(mark: &Mark, turned: Result<Turned, EngineError>) -> Result<(), EngineError> {
    mark.set(match &turned {
        Ok(Turned { joined: false, .. }) | Err(_) => Standing::Joining,
        Ok(Turned { restoring: true, .. }) => Standing::Restoring,
        Ok(_) => Standing::Working,
    });
    turned.map(drop)
}

struct AdmitLoop {
    admit: Admit,
    mark: Mark,
}

impl Loop for AdmitLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        note(&self.mark, self.admit.turn(wait))
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.admit.waker())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

struct DeriveLoop {
    derive: Derive,
    mark: Mark,
}

impl Loop for DeriveLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        let turned = self.derive.turn(wait);
        self.mark.set_restores(self.derive.restores());
        note(&self.mark, turned)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.derive.waker())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.derive.close()
    }
}
