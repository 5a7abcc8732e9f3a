//! Starts the loops of the fan-out: the hub reader, sweeper, lookup worker and fold.
//!
//! The hub they share outlives them: when a loop is rebuilt, connections stay open and continue
//! where the new loop starts.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::fanout::catchup::lookup_worker::LookupWorker;
use tidewire_engine::fanout::catchup::sweeper::Sweeper;
use tidewire_engine::fanout::config::FanoutConfig;
use tidewire_engine::fanout::fold::worker::StateFold;
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::reader::HubReader;
use tidewire_engine::port::Wake;
use tidewire_engine::turn::EngineError;

use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::runtime::clock::Stopwatch;
use crate::runtime::storage::ProcessPorts;
use crate::runtime::supervisor::{EngineLoop, LoopEnd, Supervisor};

/// Opens the hub on the output topics.
pub fn open_hub(config: &Config, ports: &ProcessPorts) -> Result<Arc<Hub>, EngineError> {
    let limits = FanoutConfig {
        catalogue: config.catalogue(),
        ring_max_bytes: config.gateway.ring_bytes,
        ..FanoutConfig::default()
    };
    Hub::open(&*ports.log, &ports.topology, limits)
}

/// Starts the loops of a hub.
pub fn start(
    supervisor: &mut Supervisor,
    ports: &ProcessPorts,
    hub: &Arc<Hub>,
) -> Result<(), ProcessExit> {
    let (log, over) = (ports.log.clone(), hub.clone());
    let make =
        move || Ok(Box::new(HubReaderLoop(HubReader::open(&*log, &over)?)) as Box<dyn EngineLoop>);
    supervisor.spawn_loop("hub-reader", Box::new(make))?;
    let (log, over) = (ports.log.clone(), hub.clone());
    let make = move || {
        let sweeper = Sweeper::open(&*log, &over)?;
        Ok(Box::new(SweeperLoop { sweeper, time: Stopwatch::start() }) as Box<dyn EngineLoop>)
    };
    supervisor.spawn_loop("sweeper", Box::new(make))?;
    let (log, over) = (ports.log.clone(), hub.clone());
    let make = move || {
        let worker = LookupWorker::open(log.clone(), &over)?;
        Ok(Box::new(LookupLoop { worker, time: Stopwatch::start() }) as Box<dyn EngineLoop>)
    };
    supervisor.spawn_loop("lookups", Box::new(make))?;
    let stores = ports.channel_stores.as_ref();
    let stores = stores.expect("a process that serves clients has opened its folder").clone();
    let (log, over, clock) = (ports.log.clone(), hub.clone(), ports.clock.clone());
    let make = move || {
        let fold = StateFold::open(log.clone(), &*stores, &over, clock.now())?;
        Ok(Box::new(StateFoldLoop { fold, time: Stopwatch::start() }) as Box<dyn EngineLoop>)
    };
    supervisor.spawn_loop("state-fold", Box::new(make))
}

struct HubReaderLoop(HubReader);

impl EngineLoop for HubReaderLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.0.turn(wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        None
    }

    fn close(self: Box<Self>, _: LoopEnd) -> Result<(), EngineError> {
        Ok(())
    }
}

struct SweeperLoop {
    sweeper: Sweeper,
    /// Its deadlines count from here, so that setting the wall clock changes none.
    time: Stopwatch,
}

impl EngineLoop for SweeperLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.sweeper.turn(self.time.monotonic(), wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        None
    }

    fn close(self: Box<Self>, _: LoopEnd) -> Result<(), EngineError> {
        Ok(())
    }
}

struct LookupLoop {
    worker: LookupWorker,
    time: Stopwatch,
}

impl EngineLoop for LookupLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.worker.turn(self.time.monotonic(), wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        None
    }

    fn close(self: Box<Self>, _: LoopEnd) -> Result<(), EngineError> {
        Ok(())
    }
}

struct StateFoldLoop {
    fold: StateFold,
    time: Stopwatch,
}

impl EngineLoop for StateFoldLoop {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.fold.turn(self.time.monotonic(), wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        Some(self.fold.waker())
    }

    fn close(self: Box<Self>, end: LoopEnd) -> Result<(), EngineError> {
        match end {
            LoopEnd::Stopped => self.fold.close(),
            // What is not written is read from the log again.
            LoopEnd::Failed => Ok(()),
        }
    }
}
