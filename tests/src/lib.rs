//! The test harness: runs the real binary, and has clients written from the protocol alone.
//!
//! In reading order: [`child_process`], [`client_program`], [`process`] and [`server`] start,
//! measure and stop processes; [`broker`] does the same with a real Kafka, and [`fake_registry`]
//! replaces a schema registry; [`http`], [`websocket`] and [`event_source`] are clients that
//! remember positions and can be cut in the middle of a frame; [`browser`] is the client most
//! people have; [`frames`], [`subscriber_pool`], [`publisher`] and [`latency`] are the load
//! generator; [`metric_histogram`] reads what a server has counted, and [`folder`] what it has on
//! disk; [`fuzz`] lists every parser; [`wall_clock`] is a clock for tests that run the engine
//! themselves.
//!
//! Nothing here checks the code under test with that code: frames are parsed by a few lines of this
//! crate or by tungstenite.

// The tests' own Kafka clients need the libraries that `connectors/build.rs` links.
use tidewire_connectors as _;

pub mod broker;
pub mod browser;
pub mod child_process;
pub mod client_program;
pub mod cut_stream;
pub mod event_source;
pub mod fake_registry;
pub mod folder;
pub mod frames;
pub mod fuzz;
pub mod http;
pub mod latency;
pub mod machine;
pub mod metric_histogram;
pub mod process;
pub mod publisher;
pub mod received_event;
pub mod server;
pub mod small_disk;
pub mod subscriber_pool;
pub mod test_rng;
pub mod wall_clock;
pub mod websocket;
