//! Operator `unread`: counts a user's unread notifications and lists the newest ones.
//!
//! ```text
//! table 120  account · user → counts, the event time up to which everything is read, and the
//!            oldest rows of tables 122 and 123
//! table 121  account · user · notification id → the event that created it, whether it was read
//! table 122  account · user · event time · id → nothing: the notifications held, oldest first
//! table 123  account · user · event time · id → the event: the newest 50
//! table 124  coalesced updates (`derive/updates.rs`)
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
//! Full users drop their oldest row with each notification. A scan from the beginning would pass
//! the tombstones of all of these, so scans begin at the oldest row.
//!
//! A notification and a read are delivered with `unread_count`, the number after them.

use tidewire_schemas::channel::encode_id;
use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::{FieldWriter, Fields, Truth, with_members};

use crate::derive::stores::{Index, KeyValue, Stamp};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl, Updates,
};

mod state;
#[cfg(test)]
mod tests;

use state::{Created, Known, Listed, Place, UserState};

/// Notifications of a user that are remembered.
const HELD_MAX: u32 = 1_000;

/// Reads of a user that are remembered for ids that are not held.
const MARKS_MAX: u32 = 1_000;

/// Notifications of a user's list.
const LISTED_MAX: u32 = 50;

/// Bytes of the data of a listed notification. Of a larger one only ids, kind and title are listed:
/// 50 of them are published at once when all are read.
const LISTED_DATA_MAX_BYTES: usize = 8 << 10;

/// Characters of the title of such a notification.
const LISTED_TITLE_MAX_CHARS: usize = 200;

/// Milliseconds in which `notification.unread_changed` is sent at most once per user.
const INTERVAL_MS: i64 = 250;

/// An account and a user.
type User = (String, String);

const USERS: KeyValue<User, UserState> = KeyValue::new(120, "unread.users");

const KNOWN: KeyValue<(String, String, String), Known> = KeyValue::new(121, "unread.known");

const HELD: Index<User, i64, String> = Index::new(122, "unread.held");

const LIST: KeyValue<(User, Place), Listed> = KeyValue::new(123, "unread.list");

const UPDATES: Updates = Updates::new(124, "unread.updates", INTERVAL_MS);

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
            &[USERS.decl(), KNOWN.decl(), HELD.decl(), LIST.decl(), UPDATES.decl()];
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
        let unread = inbox.finish()?;
        context.amend("unread_count", &unread.to_string());
        Ok(Flow::Continue)
    }

    fn on_commit(&self, _own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let user = (context.account().to_owned(), context.key().to_owned());
        let counts = USERS.get(context, &user)?.unwrap_or_default();
        let data = FieldWriter::default()
            .text("user_id", &user.1)
            .integer("unread_count", i64::from(counts.unread))
            .end();
        context.emit_event("notification.unread_changed", context.time().0, &data)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let id = std::str::from_utf8(key)
            .map_err(|_| OperatorError::Failed("a timer has no id; drop it".to_owned()))?;
        let mut inbox = Notifications::of(context)?;
        inbox.forget(id)?;
        inbox.finish()?;
        Ok(())
    }
}

/// The notifications of the user that the operator runs for.
struct Notifications<'c, 'a> {
    context: &'c mut Context<'a>,
    user: User,
    before: UserState,
    counts: UserState,
}

impl<'c, 'a> Notifications<'c, 'a> {
    fn of(context: &'c mut Context<'a>) -> Result<Self, OperatorError> {
        let user = (context.account().to_owned(), context.key().to_owned());
        let before = USERS.get(context, &user)?.unwrap_or_default();
        Ok(Self { context, user, counts: before.clone(), before })
    }

    /// Stores the counts; returns how many are unread.
    fn finish(self) -> Result<u32, OperatorError> {
        let Self { context, user, before, counts } = self;
        if counts == before {
            return Ok(counts.unread);
        }
        if counts == UserState::default() {
            USERS.remove(context, &user);
        } else {
            USERS.put(context, &user, &counts);
        }
        // The first count is sent also if it is zero, since everything was read before it came.
        let is_first = before.has_no_count() && !counts.has_no_count();
        if counts.unread != before.unread || is_first {
            context.mark(&[])?;
        }
        Ok(counts.unread)
    }

    fn known(&mut self, id: &str) -> Result<Known, OperatorError> {
        let row = self.row(id);
        Ok(KNOWN.get(self.context, &row)?.unwrap_or_default())
    }

    /// Replaces what is known of an id, and the timer that forgets it. A mark for which there is no
    /// room is dropped.
    fn put_known(&mut self, id: &str, (old, new): (&Known, &Known)) -> Result<(), OperatorError> {
        self.counts.marks -= u32::from(old.is_mark());
        let nothing = Known::default();
        let mut new = new;
        if new.is_mark() && self.counts.marks >= MARKS_MAX {
            self.context.count_dropped("reads_full");
            new = &nothing;
        }
        self.counts.marks += u32::from(new.is_mark());
        if old == new {
            return Ok(());
        }
        if old.until() != new.until() {
            old.until().iter().for_each(|at| self.context.remove_timer(*at, id.as_bytes()));
            if let Some(at) = new.until() {
                self.context.set_timer(at, id.as_bytes())?;
            }
        }
        let row = self.row(id);
        match new.until() {
            Some(_) => KNOWN.put(self.context, &row, new),
            None => KNOWN.remove(self.context, &row),
        }
        Ok(())
    }

    fn row(&self, id: &str) -> (String, String, String) {
        (self.user.0.clone(), self.user.1.clone(), id.to_owned())
    }

    /// Adds a notification, unless a later event created it, or it is older than all that are held.
    fn create(&mut self, event: &Input<'_>, id: &str) -> Result<(), OperatorError> {
        let stamp = Stamp::of(event);
        let old = self.known(id)?;
        if old.created.as_ref().is_some_and(|created| created.stamp >= stamp) {
            return Ok(());
        }
        let place = (stamp.time.0, id.to_owned());
        if old.created.is_some() {
            self.drop_held(id, &old)?;
        } else if self.counts.held >= HELD_MAX {
            match self.counts.oldest_held.clone() {
                Some(oldest) if oldest > place => return Ok(()),
                Some((_, oldest)) => self.evict(&oldest)?,
                None => {}
            }
        }
        let created = Created { stamp, appended: self.context.time() };
        let new = Known { created: Some(created), read: old.read };
        self.put_known(id, (&old, &new))?;
        HELD.insert(self.context, &(self.user.clone(), place.0, place.1.clone()));
        self.counts.held += 1;
        lower(&mut self.counts.oldest_held, &place);
        let is_unread = new.is_unread(self.counts.read_up_to);
        self.counts.unread += u32::from(is_unread);
        let read = if is_unread { Truth::False } else { Truth::True };
        self.list(event, place, read)
    }

    /// Marks one as read, now or once it is created.
    fn read(&mut self, id: &str) -> Result<(), OperatorError> {
        let old = self.known(id)?;
        let new = Known { read: old.read.max(Some(self.context.time())), ..old.clone() };
        self.put_known(id, (&old, &new))?;
        if old.is_unread(self.counts.read_up_to) {
            self.counts.unread -= 1;
            self.publish_read(id, &old)?;
        }
        Ok(())
    }

    /// Marks all as read that were created up to an event time.
    fn read_all(&mut self, up_to: i64) -> Result<(), OperatorError> {
        let before = self.counts.read_up_to;
        if up_to <= before {
            return Ok(());
        }
        self.counts.read_up_to = up_to;
        if self.counts.unread == 0 {
            return Ok(());
        }
        for (time, id) in self.held(HELD_MAX as usize)? {
            if time > up_to {
                break;
            }
            let known = self.known(&id)?;
            if known.is_unread(before) {
                self.counts.unread -= 1;
                self.publish_read(&id, &known)?;
            }
        }
        Ok(())
    }

    /// Forgets what is due: a notification, or the mark of a read.
    fn forget(&mut self, id: &str) -> Result<(), OperatorError> {
        let old = self.known(id)?;
        if old.until().is_none_or(|until| until > self.context.time()) {
            return Ok(());
        }
        if old.created.is_some() {
            self.drop_held(id, &old)?;
        }
        self.put_known(id, (&old, &Known::default()))
    }

    /// Drops the oldest notification to make room. That it was read stays known.
    fn evict(&mut self, id: &str) -> Result<(), OperatorError> {
        let old = self.known(id)?;
        self.drop_held(id, &old)?;
        self.put_known(id, (&old, &Known { created: None, read: old.read }))
    }

    /// The first of those held.
    fn held(&mut self, limit: usize) -> Result<Vec<Place>, OperatorError> {
        let Some((time, id)) = self.counts.oldest_held.clone() else { return Ok(Vec::new()) };
        HELD.first_from(self.context, &(self.user.clone(), time, id), limit)
    }

    /// Removes a notification from its place.
    fn drop_held(&mut self, id: &str, known: &Known) -> Result<(), OperatorError> {
        let Some(created) = &known.created else { return Ok(()) };
        let time = created.stamp.time.0;
        self.counts.unread -= u32::from(known.is_unread(self.counts.read_up_to));
        HELD.remove(self.context, &(self.user.clone(), time, id.to_owned()));
        self.counts.held -= 1;
        if self.counts.oldest_held.as_ref().is_some_and(|(t, i)| (*t, &i[..]) == (time, id)) {
            self.counts.oldest_held = self.held(1)?.pop();
        }
        let at = (self.user.clone(), (time, id.to_owned()));
        if LIST.get(self.context, &at)?.is_some() {
            self.unlist(&at)?;
        }
        Ok(())
    }

    /// Adds a notification to the list, unless it is older than all of a full list.
    fn list(&mut self, event: &Input<'_>, place: Place, read: Truth) -> Result<(), OperatorError> {
        if self.counts.listed >= LISTED_MAX {
            match self.counts.oldest_listed.clone() {
                Some(oldest) if oldest > place => return Ok(()),
                Some(oldest) => self.unlist(&(self.user.clone(), oldest))?,
                None => {}
            }
        }
        let data = listed_data(event);
        let listed = Listed(EventView { data: &data, ..**event }.encode());
        self.publish(&place.1, &listed, read)?;
        lower(&mut self.counts.oldest_listed, &place);
        LIST.put(self.context, &(self.user.clone(), place), &listed);
        self.counts.listed += 1;
        Ok(())
    }

    fn unlist(&mut self, at: &(User, Place)) -> Result<(), OperatorError> {
        LIST.remove(self.context, at);
        self.counts.listed -= 1;
        if self.counts.oldest_listed.as_ref() == Some(&at.1) {
            let next = LIST.first_from(self.context, &self.user, at, 1)?.pop();
            self.counts.oldest_listed = next.map(|((_, place), _)| place);
        }
        CHANNEL.remove(self.context, &self.user.1, &state_key(&at.1.1))
    }

    /// Publishes that a notification is read, if it is listed.
    fn publish_read(&mut self, id: &str, known: &Known) -> Result<(), OperatorError> {
        let Some(created) = &known.created else { return Ok(()) };
        let at = (self.user.clone(), (created.stamp.time.0, id.to_owned()));
        match LIST.get(self.context, &at)? {
            Some(listed) => self.publish(id, &listed, Truth::True),
            None => Ok(()),
        }
    }

    fn publish(&mut self, id: &str, listed: &Listed, read: Truth) -> Result<(), OperatorError> {
        let unreadable = || OperatorError::Failed(format!("notification {id} can't be decoded"));
        let event = EventView::decode(&listed.0).map_err(|_| unreadable())?;
        let read = if read == Truth::True { "true" } else { "false" };
        let set = [("read".to_owned(), read.to_owned())];
        let data = with_members(event.data, &set).ok_or_else(unreadable)?;
        let entry = (&self.user.1[..], &state_key(id)[..]);
        CHANNEL.publish(self.context, entry, &EventView { data: &data, ..event })
    }
}

/// Moves the oldest place to one that was added.
fn lower(oldest: &mut Option<Place>, added: &Place) {
    if oldest.as_ref().is_none_or(|oldest| added < oldest) {
        *oldest = Some(added.clone());
    }
}

fn state_key(id: &str) -> String {
    let mut key = "n/".to_owned();
    encode_id(id, &mut key);
    key
}

/// The data of a notification as it is listed.
fn listed_data(event: &Input<'_>) -> String {
    if event.data.len() <= LISTED_DATA_MAX_BYTES {
        return event.data.to_owned();
    }
    let fields: &Fields<'_> = event.fields();
    let title = fields.text("title");
    let title: Option<String> = title.map(|t| t.chars().take(LISTED_TITLE_MAX_CHARS).collect());
    let mut out = FieldWriter::default().text_if("title", title.as_deref());
    for name in ["notification_id", "user_id", "kind", "actor_id", "post_id"] {
        let value = fields.raw(name).filter(|json| json.len() <= LISTED_DATA_MAX_BYTES / 8);
        out = value.into_iter().fold(out, |out, json| out.raw(name, json));
    }
    out.end()
}
