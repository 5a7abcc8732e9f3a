//! DERIVE's loop.

use std::sync::Arc;
use std::time::Duration;

use crate::port::{Clock, Log, Stores, Wake};
use crate::topology::Topology;
use crate::turn::{EngineError, Turned};

/// What a DERIVE loop is told.
#[derive(Clone, Debug)]
pub struct DeriveConfig {
    /// The topics.
    pub topology: Topology,
    /// A name for this process, stable over restarts and unlike any other's.
    pub instance: String,
    /// Which of the process's DERIVE threads this is, from 0.
    pub thread: u32,
    /// The build's name; a replay refuses another's.
    pub build: String,
    /// What the settings in force hash to.
    pub settings_hash: u64,
}

/// What a DERIVE loop is given.
#[derive(Clone)]
pub struct DerivePorts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where tasks keep their state.
    pub stores: Arc<dyn Stores>,
    /// The wall clock: deadlines of a batch and ticks.
    pub clock: Arc<dyn Clock>,
}

/// DERIVE's loop: `turn` it until told to stop, then `close` it.
pub struct Derive {
    _config: DeriveConfig,
    waker: Arc<dyn Wake>,
}

impl Derive {
    /// Initialises the transactional ids, then joins the group; the first turns restore the tasks.
    pub fn new(_config: DeriveConfig, _ports: DerivePorts) -> Result<Self, EngineError> {
        unimplemented!("lands next")
    }

    /// Takes and commits one batch, or moves restoring tasks on, or waits for at most `wait`.
    pub fn turn(&mut self, _wait: Duration) -> Result<Turned, EngineError> {
        unimplemented!("lands next")
    }

    /// Writes all that is committed to the stores and closes them. Takes as long as the disk.
    pub fn close(self) -> Result<(), EngineError> {
        unimplemented!("lands next")
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }
}
