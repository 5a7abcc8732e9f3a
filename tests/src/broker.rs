//! A real Apache Kafka broker in its own process, on free loopback ports and a temporary folder.
//!
//! Tests start one, stop, kill or pause it, and start it again on the same data.
//!
//! ```text
//! Broker::start()          one node, everything quick      Cluster::start(3)   three of them
//! Broker::with_clock()     and `advance_time(ms)`
//! Broker::skewed(s)        its clock is wrong
//! Broker::secure()         and a TLS + SCRAM listener with access control
//! shared()                 one per test process, for tests that only need topics of their own
//! ```
//!
//! Dropping a broker kills its process by id and removes its folder. A test process that is killed
//! takes its brokers with it ([`crate::child_process`]). Every panic here includes the broker's
//! log.

pub mod cluster;
pub mod folder;
pub mod java;
pub mod ports;
pub mod secure;
pub mod setup;

mod broker_dir;
mod clock;
mod node;

use std::sync::OnceLock;

pub use cluster::Cluster;
pub use node::Broker;
pub use setup::Setup;

/// One broker for all tests of this process that only need topics of their own.
pub fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(Broker::start)
}

impl Broker {
    /// Starts a node.
    pub fn start() -> Self {
        Setup::quick().start()
    }

    /// Starts a node with these further properties of the server.
    pub fn start_with(properties: &[(&str, &str)]) -> Self {
        Setup::quick().with(properties).start()
    }

    /// Starts a node configured as in production, for benchmarks: Java's full compiler, a larger
    /// heap, and the server's default intervals.
    pub fn for_figures() -> Self {
        Setup::for_figures().start()
    }

    /// Starts a node that also listens with TLS and SCRAM: see [`secure`].
    pub fn secure() -> Self {
        Setup::quick().secure().start()
    }

    /// Starts a node whose clock [`Broker::advance_time`] sets forward.
    pub fn with_clock() -> Self {
        Setup::quick().with_clock(0).start()
    }

    /// Starts a node whose clock is this many seconds ahead, or behind if negative.
    pub fn skewed(seconds: i64) -> Self {
        Setup::quick().with_clock(seconds * 1_000).start()
    }
}

#[cfg(test)]
mod tests;
