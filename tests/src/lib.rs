//! What the tests and benchmarks share: the real binary under a harness, and clients written from
//! the protocol alone.
//!
//! In reading order: [`keeper`], [`process`] and [`server`] start, measure and stop processes;
//! [`broker`] does the same with a real Kafka, and [`registry`] stands in for a schema registry;
//! [`http`], [`websocket`] and [`event_source`] are clients that remember positions and can be cut
//! in the middle of a frame; [`browser`] is the client most people have; [`frames`], [`crowd`],
//! [`publisher`] and [`latency`] are the load generator; [`fuzz`] lists every parser; [`wall`] is
//! the clock of whoever runs the engine itself.
//! Nothing in here uses the code under test to judge the code under test: frames are parsed by our
//! own few lines or by tungstenite.

// The tests' own Kafka clients need what `connectors/build.rs` makes every program ask for.
use tidewire_connectors as _;

pub mod broker;
pub mod browser;
pub mod crowd;
pub mod dice;
pub mod event_source;
pub mod frames;
pub mod fuse;
pub mod fuzz;
pub mod http;
pub mod keeper;
pub mod latency;
pub mod machine;
pub mod process;
pub mod publisher;
pub mod received;
pub mod registry;
pub mod server;
pub mod small_disk;
pub mod wall;
pub mod websocket;
