//! The operator `membership`: the workspaces that each user belongs to.
//!
//! ```text
//! table 130  account · user → nothing, with a stamp
//! membership:{user}  workspace/{account} → the newest member.added; removed with a tombstone
//! ```
//!
//! A workspace is an account. The last event about a user by event time decides, so the order in
//! which the lanes are processed does not matter.

use crate::derive::stores::{Latest, Replacement, Stamp, Stamped};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl,
};

/// The members by account and user.
const MEMBERS: Latest<(String, String), ()> = Latest::new(130, "membership.members");

const CHANNEL: StateChannel = StateChannel::new("membership");

/// Keeps which workspaces a user belongs to.
pub struct Memberships;

impl Operator for Memberships {
    fn number(&self) -> u8 {
        17
    }

    fn name(&self) -> &'static str {
        "membership"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[MEMBERS.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let value = match event.event_type {
            "member.added" => Some(()),
            "member.removed" => None,
            _ => return Ok(Flow::Continue),
        };
        let (account, user) = (context.account().to_owned(), context.key().to_owned());
        let state_key = format!("workspace/{account}");
        let row = (account, user.clone());
        let new = Stamped { stamp: Stamp::of(event), value };
        match (MEMBERS.set(context, &row, &new)?, value) {
            (Replacement::Newest { .. }, Some(())) => {
                CHANNEL.publish_current(context, &user, &state_key)?;
            }
            (Replacement::Newest { before: Some(()) }, None) => {
                CHANNEL.remove(context, &user, &state_key)?;
            }
            (Replacement::Newest { before: None } | Replacement::Outdated, _) => {}
        }
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests;
