//! The fold: keeps the newest state of every channel and answers requests for snapshots of it.
//!
//! A subscription to state begins with a snapshot, and so does a request for the state of a channel
//! as a document. Whoever needs one posts a request to the mailbox in the hub and is called with
//! the answer.
//!
//! Modules in reading order.

pub mod request;
pub mod snapshot;
