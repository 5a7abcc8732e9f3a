//! The operator `participation`: the threads and conversations that each user takes part in.
//!
//! ```text
//! table 127  account · user · state key → nothing, with a stamp
//! table 128  ends of lives of the channel's entries
//! participation:{user}  thread/{id} or conversation/{id} → participation.changed
//! ```
//!
//! `threads` decides at the key of the thread, and tells the user's key by `participation.changed`.
//! An urgent fact can overtake another one, so the stamp of the deciding event counts here too. An
//! entry that is not renewed, because its thread is idle, is removed after [`LIFE_MS`].

use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::{FieldWriter, Truth};

use crate::derive::stores::{Latest, Replacement, Stamp, Stamped};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl,
};
use crate::record::Millis;

/// Milliseconds for which an entry stays without a renewal. The channel moves the end of a life
/// only once an eighth of it has passed, so at least 30 days are left from any renewal.
pub(super) const LIFE_MS: i64 = 35 * 24 * 3_600_000;

/// Milliseconds for which this operator and `threads` know of a participation: longer than its
/// entry stays, so that an entry which is shown is always known.
pub(super) const KNOWN_MS: i64 = LIFE_MS + 24 * 3_600_000;

/// What counts by account, user and state key.
const ENTRIES: Latest<(String, String, String), ()> =
    Latest::expiring(127, "participation.entries", KNOWN_MS);

const CHANNEL: StateChannel =
    StateChannel::expiring("participation", 128, "participation.life", LIFE_MS);

/// Keeps what a user takes part in.
pub struct Participation;

impl Operator for Participation {
    fn number(&self) -> u8 {
        18
    }

    fn name(&self) -> &'static str {
        "participation"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[ENTRIES.decl(), CHANNEL.decl()];
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
        let of = |kind: &str, field: &str| Some(format!("{kind}/{}", fields.text(field)?));
        let state_key = of("thread", "thread_id").or_else(|| of("conversation", "conversation_id"));
        let told = state_key.zip(fields.boolean("present"));
        let Some((state_key, present)) = told else { return Ok(Flow::Continue) };
        let cause_id = fields.text("cause_id").unwrap_or_else(|| event.event_id.into());
        let (account, user) = (context.account().to_owned(), context.key().to_owned());
        let row = (account, user.clone(), state_key);
        let stamp = Stamp { time: Millis(event.timestamp_ms), event_id: cause_id.into_owned() };
        let new = Stamped { stamp, value: present.then_some(()) };
        let Replacement::Newest { before } = ENTRIES.set(context, &row, &new)? else {
            return Ok(Flow::Continue);
        };
        let at = (&user[..], &row.2[..]);
        match (present, before) {
            (true, _) => publish(event, context, at)?,
            (false, Some(())) => CHANNEL.remove(context, &user, &row.2)?,
            (false, None) => {}
        }
        Ok(Flow::Continue)
    }
}

/// Publishes an entry without what decided it, which may be any of several events.
fn publish(
    event: &EventView<'_>,
    context: &mut Context<'_>,
    at: (&str, &str),
) -> Result<(), OperatorError> {
    let (user, state_key) = at;
    let data = FieldWriter::default().text("user_id", user);
    let data = match state_key.split_once('/') {
        Some(("thread", id)) => data.text("thread_id", id),
        Some((_, id)) => data.text("conversation_id", id),
        None => data,
    };
    let data = data.boolean("present", Truth::True).end();
    CHANNEL.publish(context, at, &EventView { data: &data, ..*event })
}
