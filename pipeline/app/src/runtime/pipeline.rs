//! Starts the loops of ADMIT and DERIVE: which there are, their settings and their status.
//!
//! The loops are values of the engine. The supervisor gets a factory for each, so that it can
//! create a failed loop again with the same settings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidewire_engine::admit::{Admit, AdmitConfig, AdmitInput, PoisonBreaker, WaitingPartitions};
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Log, Wake};
use tidewire_engine::turn::{EngineError, TurnOutcome};

use crate::build_name::BUILD_NAME;
use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::runtime::input_lag::InputLag;
use crate::runtime::random;
use crate::runtime::readiness::{LoopPhase, LoopStatus};
use crate::runtime::storage::ProcessPorts;
use crate::runtime::supervisor::{EngineLoop, LoopEnd, LoopFactory, Supervisor};

/// A hash of the settings that change what is written for an event; it travels with every event.
/// The only such setting, `derive.audit`, is a bit of it in DERIVE.
pub(crate) const SETTINGS_HASH: u64 = 0;

/// The loops of ADMIT: thread name and input.
const ADMIT_LOOPS: [(&str, AdmitInput); 3] = [
    ("admit", AdmitInput::Main),
    ("admit-urgent", AdmitInput::Urgent),
    ("admit-internal", AdmitInput::Internal),
];

/// What the rest of the process sees of a loop of ADMIT.
pub struct AdmitHandle {
    /// Whether it works.
    pub status: LoopStatus,
    /// Stops it at the poison limit; `resume` starts it again.
    pub breaker: PoisonBreaker,
    /// The partitions that wait for the schema registry.
    pub waiting: WaitingPartitions,
}

/// Starts the loops that read the input.
pub fn start_admit(
    supervisor: &mut Supervisor,
    config: &Config,
    ports: &ProcessPorts,
) -> Result<Vec<AdmitHandle>, ProcessExit> {
    let mut handles = Vec::new();
    for (name, source) in ADMIT_LOOPS {
        let handle = AdmitHandle {
            status: LoopStatus::new(name),
            breaker: PoisonBreaker::new(config.poison),
            waiting: WaitingPartitions::default(),
        };
        let admit = AdmitConfig {
            topology: ports.topology.clone(),
            source,
            catalogue: config.catalogue(),
            instance: config.instance.clone(),
            settings_hash: SETTINGS_HASH,
            registry: ports.registry.clone(),
            breaker: handle.breaker.clone(),
            waiting: handle.waiting.clone(),
        };
        let make = admit_factory(admit, ports.log.clone(), handle.status.clone());
        supervisor.spawn_loop(name, make)?;
        handles.push(handle);
    }
    Ok(handles)
}

/// Starts the loops that read the lanes.
pub fn start_derive(
    supervisor: &mut Supervisor,
    config: &Config,
    ports: &ProcessPorts,
) -> Result<Vec<LoopStatus>, ProcessExit> {
    let stores = ports.stores.as_ref().expect("a process with tasks has opened its state folder");
    let derive_ports =
        DerivePorts { log: ports.log.clone(), stores: stores.clone(), clock: ports.clock.clone() };
    let mut all = Vec::new();
    for thread in 0..config.derive_threads {
        let derive = DeriveConfig {
            topology: ports.topology.clone(),
            catalogue: config.catalogue(),
            instance: config.instance.clone(),
            thread,
            build: BUILD_NAME.into(),
            settings_hash: config.derive_audit.in_hash(SETTINGS_HASH),
            standby: config.derive_standby,
            dedup_filter_bytes: config.dedup_filter_bytes,
            hash_seed: random::seed(),
        };
        let status = LoopStatus::new("derive");
        let make = derive_factory(derive, derive_ports.clone(), status.clone());
        supervisor.spawn_loop("derive", make)?;
        all.push(status);
    }
    Ok(all)
}

fn admit_factory(config: AdmitConfig, log: Arc<dyn Log>, status: LoopStatus) -> LoopFactory {
    let lag = Arc::default();
    Box::new(move || {
        status.set(LoopPhase::Joining);
        let admit = Admit::new(config.clone(), &log)?;
        let (status, lag) = (status.clone(), Arc::clone(&lag));
        Ok(Box::new(AdmitLoop { admit, status, lag, assigned: false }))
    })
}

fn derive_factory(config: DeriveConfig, ports: DerivePorts, status: LoopStatus) -> LoopFactory {
    Box::new(move || {
        status.set(LoopPhase::Joining);
        let derive = Derive::new(config.clone(), ports.clone(), OPERATORS)?;
        Ok(Box::new(DeriveLoop { derive, status: status.clone() }))
    })
}

/// Records the phase of a loop after a turn.
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
    /// Shared with the loops before and after this one.
    lag: Arc<Mutex<InputLag>>,
    /// Whether the group has assigned partitions to this loop.
    assigned: bool,
}

impl AdmitLoop {
    fn lag(&self) -> MutexGuard<'_, InputLag> {
        // A panic ends the process.
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AdmitLoop {
    fn drop(&mut self) {
        self.lag().reset();
    }
}

impl EngineLoop for AdmitLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        let turned = self.admit.turn(wait);
        self.assigned |= turned.as_ref().is_ok_and(|outcome| outcome.joined);
        if turned.is_ok() && self.assigned && self.lag().is_due() {
            let backlogs = self.admit.backlogs();
            self.lag().record(&backlogs);
        }
        record_phase(&self.status, turned)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.admit.waker())
    }

    fn close(self: Box<Self>, _: LoopEnd) -> Result<(), EngineError> {
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

    fn close(self: Box<Self>, end: LoopEnd) -> Result<(), EngineError> {
        match end {
            LoopEnd::Stopped => self.derive.close(),
            LoopEnd::Failed => self.derive.close_without_offsets(),
        }
    }
}
