//! ADMIT's loop.

use std::sync::Arc;
use std::time::Duration;

use crate::port::{Log, Wake};
use crate::topology::Topology;
use crate::turn::{EngineError, Turned};

/// Which input a loop reads; each has a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `in`.
    Input,
    /// `in.urgent`.
    Urgent,
}

/// What an ADMIT loop is told.
#[derive(Clone, Debug)]
pub struct AdmitConfig {
    /// The topics.
    pub topology: Topology,
    /// Which input.
    pub source: Source,
    /// A name for this process, stable over restarts and unlike any other's.
    pub instance: String,
    /// What the settings in force hash to; travels with every event as its verdict.
    pub settings_hash: u64,
}

/// ADMIT's loop: `turn` it until told to stop, then drop it.
pub struct Admit {
    _config: AdmitConfig,
    waker: Arc<dyn Wake>,
}

impl Admit {
    /// Joins the group; the first turns take up its partitions.
    pub fn new(_config: AdmitConfig, _log: &Arc<dyn Log>) -> Result<Self, EngineError> {
        unimplemented!("lands next")
    }

    /// Takes what is there, or waits for it for at most `wait`, and admits it.
    pub fn turn(&mut self, _wait: Duration) -> Result<Turned, EngineError> {
        unimplemented!("lands next")
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }
}
