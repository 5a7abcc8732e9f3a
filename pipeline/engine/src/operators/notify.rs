//! Operator `notify`: turns events about a user or a workspace into notifications.
//!
//! It runs for the recipient's key, which the routing plan of the catalogue finds: a user, or the
//! account if no field names one. Users get `notification.created`, which moves `unread`;
//! workspaces get `notification.broadcast`. `rules.rs` says what each type means.
//!
//! ```text
//! table 115  UTC day · account · key · notification id → nothing (48 h)
//! ```
//!
//! There is one notification per recipient, kind, actor, entity and UTC day of event time. Its id
//! and the id of its event follow from these alone, so they do not depend on the order in which
//! lanes are processed. "24 h since the last one" would depend on it. If one user does the same
//! twice in a day, the first event that is processed gives the texts and the time.
//!
//! Nobody is notified of what they did themselves, or of what somebody did whom they block or mute.
//! A block counts from when this task has processed it. A notification of a post that was deleted
//! is suppressed by `notify.resolve` at the post's key; an event that names the author itself does
//! not pass there, and this task does not know the post's state.

use tidewire_schemas::id::{hash128, hex};

use crate::derive::stores::{Windowed, Windows};
use crate::derive::{Context, Events, Flow, Input, Operator, OperatorError, TableDecl};
use crate::operators::follows::hides;
use crate::record::Millis;

mod rules;
#[cfg(test)]
mod tests;

use rules::{Addressed, NotificationRule, Recipient};

/// Milliseconds of a day, in which an act gives one notification.
const DAY_MS: i64 = 24 * 3_600_000;

/// The notifications that exist, by day. Facts of other tasks may come a day late. One that comes
/// later still gives the same notification again, with the same ids.
const DONE: Windowed<(String, String, String), ()> =
    Windowed::new(115, "notify.done", Windows::tumbling(DAY_MS, DAY_MS));

/// The operator.
pub struct Notify;

impl Operator for Notify {
    fn number(&self) -> u8 {
        14
    }

    fn name(&self) -> &'static str {
        "notify"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[DONE.decl()];
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
        let rule = NotificationRule::of(event.event_type).ok_or_else(|| unknown(event))?;
        let (key, fields) = (context.key(), event.fields());
        let recipient = rule.recipient(fields, key);
        if let (Recipient::User, Some(actor)) = (recipient, rule.actor(fields))
            && (actor == key || hides(context, &actor)?)
        {
            return Ok(Flow::Continue);
        }
        let id = notification_id(rule, event, (recipient, context));
        if !is_first(context, event, &id)? {
            return Ok(Flow::Continue);
        }
        let to = Addressed { recipient, key, notification_id: &id };
        let data = rule.notification(event, &to);
        let event_type = match recipient {
            Recipient::User => "notification.created",
            Recipient::Workspace => "notification.broadcast",
        };
        context.emit_once(&id, event_type, event.timestamp_ms, &data)?;
        Ok(Flow::Continue)
    }
}

fn unknown(event: &Input<'_>) -> OperatorError {
    OperatorError::Failed(format!(
        "notify has no rule for {}; remove it from the type's `moves`",
        event.event_type
    ))
}

/// The id of the notification that an event gives.
fn notification_id(
    rule: &NotificationRule,
    event: &Input<'_>,
    (recipient, context): (Recipient, &Context<'_>),
) -> String {
    let to = match recipient {
        Recipient::User => "/user/",
        Recipient::Workspace => "/workspace/",
    };
    let kind = rule.kind_of(event.fields());
    let actor = rule.actor(event.fields()).unwrap_or_default();
    let mut parts = String::with_capacity(128);
    parts.push_str(&day_of(event.timestamp_ms).to_string());
    parts.push_str(to);
    for part in [context.key(), &kind, &actor, &rule.entity(event)] {
        parts.push_str(&part.len().to_string());
        for text in [":", part, "/"] {
            parts.push_str(text);
        }
    }
    ["n_", &hex(&hash128(context.account(), &parts))].concat()
}

/// Whether no event has given this notification yet; from now on one has. Its mark is in the window
/// of its day. Events that are appended more than a day after their own day may find that window
/// closed: their mark is in the oldest one that is open, and they look for one in all of those.
fn is_first(context: &mut Context<'_>, event: &Input<'_>, id: &str) -> Result<bool, OperatorError> {
    let key = (context.account(), context.key(), id);
    let (today, day) = (day_of(context.time().0), day_of(event.timestamp_ms));
    let start = |day: i64| Millis(day.saturating_mul(DAY_MS));
    let near = day.clamp(today - 1, today + 1);
    if DONE.get(context, &key, start(near))?.is_some() {
        return Ok(false);
    }
    if near != day {
        let owned = (context.account().to_owned(), context.key().to_owned(), id.to_owned());
        if !DONE.range(context, &owned, start(today - 1)..start(today + 2))?.is_empty() {
            return Ok(false);
        }
    }
    DONE.put(context, &key, start(near), &());
    Ok(true)
}

/// The UTC day of a time.
fn day_of(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}
