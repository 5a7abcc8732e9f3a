//! The fold: keeps the newest state of every channel and answers requests for snapshots of it.
//!
//! A subscription to state begins with a snapshot, and so does a request for the state of a channel
//! as a document. Each is a request in the mailbox of the hub, whose sender is called with
//! the answer. The state is in a local store per partition, which is a copy of what the state topic
//! has: one that does not fit the topic is removed and read again.
//!
//! Modules in reading order.

pub mod request;
pub mod snapshot;

mod progress;
mod store_open;

mod partition;

mod queues;
mod recent;

pub mod worker;
