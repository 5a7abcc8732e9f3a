//! Operator `unread`: counts a user's unread notifications and lists the newest ones.
//!
//! ```text
//! table 120  account · user → counts, the event time up to which everything is read, and the
//!            places of the newest notifications
//! table 121  account · user · notification id → the event that created it, when it was read; its
//!            entry in the channel, while it is listed
//! table 122  account · user · place of the first → the places of older ones: a closed page
//! table 123  account · user · notification id → when it was read, before it was created
//! table 124  account · user → the places of those before the newest: with them the open page
//! notifications:{user}  {user} → notification.unread_changed
//!                       n/{notification id} → notification.created with `read`, of the newest 50
//! ```
//!
//! A user has at most 1,000 unread notifications: those among the newest 1,000 that are neither
//! read nor created up to the event time of the last `all`. Older ones are dropped, read or not; so
//! are those that were appended 90 days ago.
//!
//! Nothing depends on the order in which lanes are processed. Of two events that create one
//! notification the later counts. A read of an id is remembered for 7 days, so that it may come
//! before the notification; the event time of an `all` is kept. At most 1,000 reads of ids that
//! are not held are remembered per user: ids may be invented. Others are dropped and counted as
//! `reads_full`.
//!
//! A notification costs its own row and the user's, however many there are: places are moved to
//! closed pages many at a time, and only an event that is older than the open page reads those.
//!
//! What has ended is removed by one timer per user (`sweep.rs`), up to a day later. So is the user,
//! 90 days after the last event.
//!
//! A notification and a read are delivered with `unread_count`, the number after them.

use tidewire_schemas::fields::FieldWriter;

use crate::derive::stores::KeyValue;
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl, Updates,
};
use crate::record::Millis;

mod changes;
mod order;
mod page;
mod state;
mod sweep;
#[cfg(test)]
mod tests;

use page::{Place, PlacePage};
use state::{DAY_MS, Known, ReadMark, UserState};

/// Notifications of a user that are remembered.
const HELD_MAX: u32 = 1_000;

/// Reads of a user that are remembered for ids that are not held.
const MARKS_MAX: u32 = 1_000;

/// Notifications of a user's list.
const LISTED_MAX: u32 = 50;

/// Places that are moved to a closed page at once.
const CLOSED_LEN: usize = 25;

/// Places after which a page of the oldest of the open page is closed: all that are listed, and
/// less than a closed page.
const OPEN_MAX: usize = LISTED_MAX as usize + CLOSED_LEN - 1;

/// Places of the user's row, which is written with each notification.
const NEWEST_MAX: usize = 16;

/// Places that stay there when the others are moved to the row of older ones. A notification that
/// comes a little late is after these, so that it needs no other row.
const NEWEST_KEPT: usize = 4;

/// Bytes of the id of a notification: a page of the longest ones is a value of a table.
const ID_MAX_BYTES: usize = 1 << 10;

/// Milliseconds in which `notification.unread_changed` is sent at most once per user.
const INTERVAL_MS: i64 = 250;

/// An account and a user.
type User = (String, String);

const USERS: KeyValue<User, UserState> = KeyValue::new(120, "unread.users");

const KNOWN: KeyValue<(String, String, String), Known> = KeyValue::new(121, "unread.known");

const PAGES: KeyValue<(User, Place), PlacePage> = KeyValue::new(122, "unread.pages");

const MARKS: KeyValue<(User, String), ReadMark> = KeyValue::new(123, "unread.marks");

const OLDER: KeyValue<User, PlacePage> = KeyValue::new(124, "unread.older");

const UPDATES: Updates = Updates::new(INTERVAL_MS);

const CHANNEL: StateChannel = StateChannel::new("notifications");

/// The operator.
pub struct Unread;

impl Operator for Unread {
    fn number(&self) -> u8 {
        15
    }

    fn name(&self) -> &'static str {
        "unread"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] =
            &[USERS.decl(), KNOWN.decl(), PAGES.decl(), MARKS.decl(), OLDER.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn updates(&self) -> Option<Updates> {
        Some(UPDATES)
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let mut inbox = Notifications::of(context)?;
        let id = event.fields().text("notification_id");
        match event.event_type {
            "notification.created" => {
                if let Some(id) = id {
                    inbox.create(event, &id)?;
                }
            }
            _ => {
                if event.fields().boolean("all") == Some(true) {
                    inbox.read_all(event.timestamp_ms)?;
                }
                if let Some(id) = id {
                    inbox.read(&id)?;
                }
            }
        }
        let unread = inbox.end_event()?;
        context.amend("unread_count", &unread.to_string());
        Ok(Flow::Continue)
    }

    /// Sends the count, unless the user has ended since it changed.
    fn on_commit(&self, _own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let user = (context.account(), context.key());
        let Some(state) = USERS.get(context, &user)? else { return Ok(()) };
        let data = FieldWriter::default()
            .text("user_id", user.1)
            .integer("unread_count", i64::from(state.unread))
            .end();
        context.emit_event("notification.unread_changed", context.time().0, &data)
    }

    /// Removes what has ended of a user.
    fn on_timer(&self, _own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        Notifications::of(context)?.sweep()
    }
}

/// The notifications of the user that the operator runs for.
struct Notifications<'c, 'a> {
    context: &'c mut Context<'a>,
    user: User,
    /// As it is stored.
    before: Option<UserState>,
    state: UserState,
}

impl<'c, 'a> Notifications<'c, 'a> {
    fn of(context: &'c mut Context<'a>) -> Result<Self, OperatorError> {
        let user = (context.account().to_owned(), context.key().to_owned());
        let before = USERS.get(context, &user)?;
        Ok(Self { context, user, state: before.clone().unwrap_or_default(), before })
    }

    /// Stores the user after an event; returns how many are unread.
    fn end_event(mut self) -> Result<u32, OperatorError> {
        let unread = self.state.unread;
        if self.before.is_none() {
            if self.state == UserState::default() {
                return Ok(unread);
            }
            self.set_sweep(self.latest_sweep())?;
        }
        self.state.last_day = self.state.last_day.max(day_of(self.context.time()));
        self.put()?;
        Ok(unread)
    }

    /// Stores the user, and sends the count if it has changed.
    fn put(mut self) -> Result<(), OperatorError> {
        self.put_open()?;
        let unread_before = self.before.as_ref().map_or(0, |before| before.unread);
        // The first count is sent also if it is zero, since everything was read before it came.
        let is_first = !self.state.is_counted && self.state.has_count();
        if self.state.unread != unread_before || is_first {
            self.state.is_counted = true;
            self.context.mark(&[])?;
        }
        if self.before.as_ref() != Some(&self.state) {
            USERS.put(self.context, &self.user, &self.state);
        }
        Ok(())
    }
}

/// The UTC day of an append time.
fn day_of(time: Millis) -> i64 {
    time.0.div_euclid(DAY_MS)
}
