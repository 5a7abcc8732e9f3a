//! The pipeline's loops, each given to the supervisor with what makes it anew.
//!
//! This is the list of what runs between `in` and the outputs. The loops are the engine's; here is
//! only which there are, on which log, and what each has come to.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::admit::{Admit, AdmitConfig, AdmitInput, PoisonBreaker};
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts};
use tidewire_engine::port::{Stores, Wake};
use tidewire_engine::turn::{EngineError, TurnOutcome};

use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::runtime::readiness::{LoopPhase, LoopStatus};
use crate::runtime::storage::ProcessPorts;
use crate::runtime::supervisor::{EngineLoop, Supervisor};

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
    ports: &ProcessPorts,
) -> Result<Vec<(LoopStatus, PoisonBreaker)>, ProcessExit> {
    [("admit", AdmitInput::Main), ("admit-urgent", AdmitInput::Urgent)]
        .into_iter()
        .map(|(name, source)| {
            let (status, breaker) = (LoopStatus::new(name), PoisonBreaker::new(config.poison));
            let handles = (status.clone(), breaker.clone());
            admit(supervisor, (config, ports), (name, source, handles))?;
            Ok((status, breaker))
        })
        .collect()
}

/// The same for those that read the lanes.
pub fn start_derive(
    supervisor: &mut Supervisor,
    config: &Config,
    ports: &ProcessPorts,
) -> Result<Vec<LoopStatus>, ProcessExit> {
    let stores = ports.stores.as_ref().expect("a process with tasks has opened its state folder");
    (0..config.derive_threads)
        .map(|thread| {
            let status = LoopStatus::new("derive");
            derive(supervisor, (config, ports, stores), (thread, status.clone()))?;
            Ok(status)
        })
        .collect()
}

fn admit(
    supervisor: &mut Supervisor,
    (config, ports): (&Config, &ProcessPorts),
    (name, source, (status, breaker)): (&'static str, AdmitInput, (LoopStatus, PoisonBreaker)),
) -> Result<(), ProcessExit> {
    let log = ports.log.clone();
    let config = AdmitConfig {
        topology: ports.topology.clone(),
        source,
        instance: config.instance.clone(),
        settings_hash: SETTINGS_HASH,
        registry: ports.registry.clone(),
        breaker,
    };
    let make = move || {
        status.set(LoopPhase::Joining);
        let admit = Admit::new(config.clone(), &log)?;
        Ok(Box::new(AdmitLoop { admit, status: status.clone() }) as Box<dyn EngineLoop>)
    };
    supervisor.spawn_loop(name, Box::new(make))
}

fn derive(
    supervisor: &mut Supervisor,
    (config, ports, stores): (&Config, &ProcessPorts, &Arc<dyn Stores>),
    (thread, status): (u32, LoopStatus),
) -> Result<(), ProcessExit> {
    let derive_ports =
        DerivePorts { log: ports.log.clone(), stores: stores.clone(), clock: ports.clock.clone() };
    let config = DeriveConfig {
        topology: ports.topology.clone(),
        instance: config.instance.clone(),
        thread,
        build: BUILD.into(),
        settings_hash: SETTINGS_HASH,
        standby: config.derive_standby,
    };
    let make = move || {
        status.set(LoopPhase::Joining);
        let derive = Derive::new(config.clone(), derive_ports.clone())?;
        Ok(Box::new(DeriveLoop { derive, status: status.clone() }) as Box<dyn EngineLoop>)
    };
    supervisor.spawn_loop("derive", Box::new(make))
}

/// Notes what a loop has come to by a turn.
fn record_phase(
    status: &LoopStatus,
    turned: Result<TurnOutcome, EngineError>,
) -> Result<(), EngineError> {
    status.set(match &turned {
        Ok(TurnOutcome { joined: false, .. }) | Err(_) => LoopPhase::Joining,
        Ok(TurnOutcome { restoring: true, .. }) => LoopPhase::Restoring,
        Ok(_) => LoopPhase::Working,
    });
    turned.map(drop)
}

struct AdmitLoop {
    admit: Admit,
    status: LoopStatus,
}

impl EngineLoop for AdmitLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        record_phase(&self.status, self.admit.turn(wait))
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
    status: LoopStatus,
}

impl EngineLoop for DeriveLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        let turned = self.derive.turn(wait);
        self.status.set_restores(self.derive.restores());
        record_phase(&self.status, turned)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.derive.waker())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.derive.close()
    }
}
