//! The fan-out's loops: the reader of the outputs, and the sweeps for whoever is behind.
//!
//! The hub they share outlives them: when a loop is made anew, open sockets stay, and continue
//! where the new loop takes up.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::fanout::config::FanoutConfig;
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::reader::HubReader;
use tidewire_engine::fanout::sweep::Sweeper;
use tidewire_engine::port::{Clock, Wake};
use tidewire_engine::turn::EngineError;

use crate::config::Config;
use crate::data::Data;
use crate::ending::Ending;
use crate::supervisor::{Loop, Supervisor};

/// Opens the hub over the output topics.
pub fn open_hub(config: &Config, data: &Data) -> Result<Arc<Hub>, EngineError> {
    let limits =
        FanoutConfig { ring_max_bytes: config.gateway.ring_bytes, ..FanoutConfig::default() };
    Hub::open(&*data.log, &data.topology, limits)
}

/// Starts the loops over a hub.
pub fn start(supervisor: &mut Supervisor, data: &Data, hub: &Arc<Hub>) -> Result<(), Ending> {
    let (log, over) = (data.log.clone(), hub.clone());
    let make = move || Ok(Box::new(Reading(HubReader::open(&*log, &over)?)) as Box<dyn Loop>);
    supervisor.keep("hub-reader", Box::new(make))?;
    let (data, over) = (data.clone(), hub.clone());
    let make = move || {
        let sweeper = Sweeper::open(data.log.clone(), &over)?;
        Ok(Box::new(Sweeping { sweeper, clock: data.clock.clone() }) as Box<dyn Loop>)
    };
    supervisor.keep("sweeper", Box::new(make))
}

struct Reading(HubReader);

impl Loop for Reading {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.0.turn(wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        None
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

struct Sweeping {
    sweeper: Sweeper,
    clock: Arc<dyn Clock>,
}

impl Loop for Sweeping {
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError> {
        self.sweeper.turn(self.clock.now(), wait).map(drop)
    }

    fn waker(&self) -> Option<Arc<dyn Wake>> {
        None
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}
