//! Several brokers that form one cluster.
//!
//! Each is a broker and a controller, every topic is on all of them, and a write is acknowledged
//! once two have it.

use super::broker_dir::BrokerDir;
use super::node::{Broker, NotReady};
use super::setup::Setup;

/// Starts with new ports before a port conflict counts as a failure.
const ATTEMPTS: u32 = 3;

/// A write is acknowledged once two of three have it, in internal topics too.
const REPLICATED: &[(&str, &str)] = &[
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
];

/// Running brokers.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
}

impl Cluster {
    /// Starts this many brokers, at least three, and waits until all of them respond.
    pub fn start(count: u32) -> Self {
        assert!(count >= 3, "topics have three replicas");
        Self::of(Setup::quick().with(REPLICATED), count)
    }

    /// Starts brokers of this setup.
    fn of(setup: Setup, count: u32) -> Self {
        for attempt in 1.. {
            let new_broker = |broker_dir| Broker::new(setup.clone(), broker_dir);
            let mut nodes: Vec<Broker> =
                BrokerDir::make(count, &setup).into_iter().map(new_broker).collect();
            for node in &mut nodes {
                node.launch();
            }
            match nodes.iter_mut().try_for_each(Broker::wait_ready) {
                Ok(()) => return Self { nodes },
                Err(NotReady::PortTaken) if attempt < ATTEMPTS => {}
                Err(why) => panic!("{why}"),
            }
        }
        unreachable!("an attempt succeeds or panics")
    }

    /// The broker with this number, from 1.
    pub fn broker(&mut self, number: u32) -> &mut Broker {
        let found = self.nodes.iter_mut().find(|node| node.number() == number);
        found.expect("brokers are numbered from 1")
    }

    /// All brokers.
    pub fn brokers(&self) -> &[Broker] {
        &self.nodes
    }

    /// The addresses of all brokers, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// The broker of a cluster of one.
    fn into_only(mut self) -> Broker {
        let only = self.nodes.pop().expect("one was started");
        assert!(self.nodes.is_empty(), "the cluster has one broker");
        only
    }
}

impl Setup {
    /// Starts a node and waits until it responds.
    pub fn start(self) -> Broker {
        Cluster::of(self, 1).into_only()
    }
}
