//! Operators of DERIVE that the catalogue moves: what events mean, one operator a file.
//!
//! An operator has no fields. All that it keeps is in its tables, under its account and its key,
//! and everything it causes goes through its context (`derive/operator.rs`).
//!
//! Numbers of operators and of their tables are persisted: `10` and tables 100–104 for posts, and
//! so on, five tables for each.

pub mod engagement;
pub mod follows;
pub mod membership;
pub mod notify;
pub mod participation;
pub mod posts;
pub mod threads;
pub mod unread;

#[cfg(test)]
mod testing;

use crate::derive::dedup::Dedup;
use crate::derive::{ChannelDelivery, Operators};

/// The operators of every deployment, in the order in which they process an event: de-duplication
/// is first. `posts` and `follows` come before those that read what they wrote. Delivery is last,
/// after those that amend an event.
pub const OPERATORS: Operators = &[
    &Dedup,
    &posts::Posts,
    &posts::NotifyResolve,
    &engagement::Engagement,
    &follows::Follows,
    &threads::Threads,
    &participation::Participation,
    &membership::Memberships,
    &notify::Notify,
    &unread::Unread,
    &ChannelDelivery,
];
