//! The operator `follows`: whom each user follows, blocks and mutes, and who blocks the user.
//!
//! ```text
//! table 110  account · user · relation, 1 byte · target → nothing, with a stamp
//! table 111  account · user → nothing: some event was about an edge that hides somebody
//! follows:{user}  follows/{target}, blocks/{target}, mutes/{target}, blocked_by/{other}
//!                 → the event that made it so; removed with a tombstone
//! ```
//!
//! Each relation of a user to a target is an edge. The last event about it by event time decides,
//! so the order in which the lanes are processed does not matter. A block also ends the follow of
//! either user to the other: the event changes the user's edges, and its copy the target's. The end
//! of a block does not bring a follow back.
//!
//! An edge is a row of its own, so that no value grows with the number of edges.
//!
//! Every notification asks whether its actor is hidden from its user. Most users hide nobody, so
//! that is one read of table 111, whose rows stay once they are there.

use crate::derive::stores::{
    FieldDecoder, KeyValue, Latest, Replacement, Stamp, Stamped, StoreKey,
};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl,
};

/// The edges by account, user, relation and target.
const EDGES: Latest<(String, String, (Relation, String)), ()> = Latest::new(110, "follows.edges");

/// The users that may hide somebody.
const HIDERS: KeyValue<(String, String), ()> = KeyValue::new(111, "follows.hiders");

const CHANNEL: StateChannel = StateChannel::new("follows");

/// How a user is related to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Follows,
    Blocks,
    Mutes,
    BlockedBy,
}

impl Relation {
    /// Whether it hides the target from the user.
    fn hides(self) -> bool {
        self != Self::Follows
    }

    /// The first part of state keys.
    fn name(self) -> &'static str {
        match self {
            Self::Follows => "follows",
            Self::Blocks => "blocks",
            Self::Mutes => "mutes",
            Self::BlockedBy => "blocked_by",
        }
    }
}

impl StoreKey for Relation {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Follows => 1,
            Self::Blocks => 2,
            Self::Mutes => 3,
            Self::BlockedBy => 4,
        });
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        match from.byte()? {
            1 => Some(Self::Follows),
            2 => Some(Self::Blocks),
            3 => Some(Self::Mutes),
            4 => Some(Self::BlockedBy),
            _ => None,
        }
    }
}

/// Whether an edge is there after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Present,
    Removed,
}

/// Keeps the edges of users.
pub struct Follows;

impl Operator for Follows {
    fn number(&self) -> u8 {
        12
    }

    fn name(&self) -> &'static str {
        "follows"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[EDGES.decl(), HIDERS.decl()];
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
        let fields = event.fields();
        let ids = fields.text("user_id").zip(fields.text("target_id"));
        // Admission has checked both.
        let Some((user, target)) = ids else { return Ok(Flow::Continue) };
        if context.key() == user {
            for change in edges_of_user(event.event_type) {
                set_edge(event, context, &target, *change)?;
            }
        }
        if context.key() == target {
            for change in edges_of_target(event.event_type) {
                set_edge(event, context, &user, *change)?;
            }
        }
        Ok(Flow::Continue)
    }
}

/// What an event changes for the user who acts, in relation to the target.
fn edges_of_user(event_type: &str) -> &'static [(Relation, Edge)] {
    use Edge::{Present, Removed};
    match event_type {
        "user.followed" => &[(Relation::Follows, Present)],
        "user.unfollowed" => &[(Relation::Follows, Removed)],
        "user.blocked" => &[(Relation::Blocks, Present), (Relation::Follows, Removed)],
        "user.unblocked" => &[(Relation::Blocks, Removed)],
        "user.muted" => &[(Relation::Mutes, Present)],
        "user.unmuted" => &[(Relation::Mutes, Removed)],
        _ => &[],
    }
}

/// What it changes for the target, in relation to the user who acts.
fn edges_of_target(event_type: &str) -> &'static [(Relation, Edge)] {
    use Edge::{Present, Removed};
    match event_type {
        "user.blocked" => &[(Relation::BlockedBy, Present), (Relation::Follows, Removed)],
        "user.unblocked" => &[(Relation::BlockedBy, Removed)],
        _ => &[],
    }
}

/// Sets an edge of the current user, and publishes it if that changes what counts.
fn set_edge(
    event: &Input<'_>,
    context: &mut Context<'_>,
    target: &str,
    change: (Relation, Edge),
) -> Result<(), OperatorError> {
    let (relation, edge) = change;
    let user = context.key().to_owned();
    if relation.hides() {
        // Whatever becomes of the edge, so that the order of the lanes does not matter.
        let of_user = (context.account(), context.key());
        if HIDERS.get(context, &of_user)?.is_none() {
            HIDERS.put(context, &of_user, &());
        }
    }
    let row = row(context, relation, target);
    let value = (edge == Edge::Present).then_some(());
    let new = Stamped { stamp: Stamp::of(event), value };
    let Replacement::Newest { before } = EDGES.set(context, &row, &new)? else {
        return Ok(());
    };
    let state_key = format!("{}/{target}", relation.name());
    match (edge, before) {
        (Edge::Present, _) => CHANNEL.publish_current(context, &user, &state_key),
        (Edge::Removed, Some(())) => CHANNEL.remove(context, &user, &state_key),
        (Edge::Removed, None) => Ok(()),
    }
}

fn row(
    context: &Context<'_>,
    relation: Relation,
    target: &str,
) -> (String, String, (Relation, String)) {
    let (account, user) = (context.account().to_owned(), context.key().to_owned());
    (account, user, (relation, target.to_owned()))
}

/// Whether the current key, a user, must not be told of `target`: the user blocks or mutes
/// `target`, or `target` blocks the user. Other operators of the same task may ask.
pub fn hides(context: &mut Context<'_>, target: &str) -> Result<bool, OperatorError> {
    if HIDERS.get(context, &(context.account(), context.key()))?.is_none() {
        return Ok(false);
    }
    for relation in [Relation::Blocks, Relation::Mutes, Relation::BlockedBy] {
        let row = row(context, relation, target);
        if EDGES.get(context, &row)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
