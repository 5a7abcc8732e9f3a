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

#[cfg(test)]
mod tests {
    use tidewire_schemas::catalogue::{Catalogue, page};

    use super::*;

    #[test]
    fn the_reference_page_names_the_operators_of_this_version() {
        let page = page(Catalogue::builtin());
        let (_, rest) = page.split_once("This version runs the operators").expect("the sentence");
        let (sentence, _) = rest.split_once(". All others").expect("its end");
        let named: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
        let built: Vec<&str> = OPERATORS.iter().map(|operator| operator.name()).collect();
        assert_eq!(named, built);
    }

    #[test]
    fn numbers_of_operators_are_distinct() {
        let mut numbers: Vec<u8> = OPERATORS.iter().map(|operator| operator.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), OPERATORS.len());
    }
}
