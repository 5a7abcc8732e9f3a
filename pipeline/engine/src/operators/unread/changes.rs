//! What events change of a user's notifications: creation, the read of one, and the read of all.

use tidewire_schemas::channel::encode_id;
use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::{FieldWriter, Fields, Truth, with_members};

use super::order::ListedPlace;
use super::page::Held;
use super::state::{Known, ReadMark};
use super::{CHANNEL, HELD_MAX, ID_MAX_BYTES, KNOWN, MARKS, MARKS_MAX, Notifications, User};
use crate::derive::stores::Stamp;
use crate::derive::{Input, OperatorError};
use crate::record::Millis;

/// Bytes of the data of a listed notification. Of a larger one only ids, kind and title are listed:
/// 50 of them are published at once when all are read.
pub(super) const LISTED_DATA_MAX_BYTES: usize = 8 << 10;

/// Characters of the title of such a notification.
const LISTED_TITLE_MAX_CHARS: usize = 200;

impl Notifications<'_, '_> {
    /// Adds a notification, unless a later event created it, or it is older than all that are held.
    pub(super) fn create(&mut self, event: &Input<'_>, id: &str) -> Result<(), OperatorError> {
        if id.len() > ID_MAX_BYTES {
            return Err(OperatorError::Failed(format!(
                "the notification_id has {} bytes, and {ID_MAX_BYTES} is the limit; send a \
                 shorter one",
                id.len()
            )));
        }
        let stamp = Stamp::of(event);
        let place = (stamp.time.0, id);
        let read = match self.find(id)? {
            Some(old) if old.stamp >= stamp => return Ok(()),
            Some(old) => {
                self.remove((old.stamp.time.0, id))?;
                self.state.unread -= u32::from(old.is_unread(self.state.read_up_to));
                old.read
            }
            None if self.state.held >= HELD_MAX && !self.make_room(place)? => return Ok(()),
            None => self.take_mark(id)?,
        };
        let appended = self.context.time();
        let mut new = Known { stamp, appended, read, entry: None };
        let is_unread = new.is_unread(self.state.read_up_to);
        self.state.unread += u32::from(is_unread);
        if self.insert(Held { time: place.0, id, appended })? == ListedPlace::Listed {
            let entry = entry_of(event).ok_or_else(|| unreadable(id))?;
            match is_unread {
                true => self.publish(id, &entry)?,
                false => self.publish_read(id, &entry)?,
            }
            new.entry = Some(entry);
        }
        self.put_known(id, &new);
        Ok(())
    }

    /// Marks one as read, now or once it is created.
    pub(super) fn read(&mut self, id: &str) -> Result<(), OperatorError> {
        let read = self.context.time();
        let Some(mut known) = self.find(id)? else { return self.put_mark(id, ReadMark(read)) };
        if known.read >= Some(read) {
            return Ok(());
        }
        if known.is_unread(self.state.read_up_to) {
            self.state.unread -= 1;
            if let Some(entry) = &known.entry {
                self.publish_read(id, entry)?;
            }
        }
        known.read = Some(read);
        self.put_known(id, &known);
        Ok(())
    }

    /// Marks all as read that were created up to an event time.
    pub(super) fn read_all(&mut self, up_to: i64) -> Result<(), OperatorError> {
        let before = self.state.read_up_to;
        if up_to <= before {
            return Ok(());
        }
        self.state.read_up_to = up_to;
        if self.state.unread == 0 {
            return Ok(());
        }
        let newest = self.state.newest.last().map(|held| held.time);
        let ids = if newest.is_some_and(|newest| newest <= up_to) {
            // None is left, so only those are read whose entries change.
            self.state.unread = 0;
            self.listed_ids()?
        } else {
            self.ids_of(before, up_to)?
        };
        let is_counted = self.state.unread > 0;
        for id in ids {
            let Some(known) = self.known(&id)?.filter(|known| known.is_unread(before)) else {
                continue;
            };
            self.state.unread -= u32::from(is_counted);
            if let Some(entry) = &known.entry {
                self.publish_read(&id, entry)?;
            }
        }
        Ok(())
    }

    /// Forgets a notification that was removed from its page. That it was read stays known.
    pub(super) fn forget(&mut self, id: &str) -> Result<(), OperatorError> {
        let Some(known) = self.known(id)? else { return Ok(()) };
        self.state.unread -= u32::from(known.is_unread(self.state.read_up_to));
        KNOWN.remove(self.context, &row(&self.user, id));
        match known.read.map(ReadMark).filter(|mark| mark.ends() > self.context.time()) {
            Some(mark) => self.put_mark(id, mark),
            None => Ok(()),
        }
    }

    /// Removes the entry of a notification that leaves the list.
    pub(super) fn unlist(&mut self, id: &str) -> Result<(), OperatorError> {
        if let Some(mut known) = self.known(id)?
            && known.entry.take().is_some()
        {
            self.put_known(id, &known);
        }
        self.unpublish(id)
    }

    /// Removes an entry from the channel.
    pub(super) fn unpublish(&mut self, id: &str) -> Result<(), OperatorError> {
        CHANNEL.remove(self.context, &self.user.1, &state_key(id))
    }

    fn publish(&mut self, id: &str, entry: &[u8]) -> Result<(), OperatorError> {
        CHANNEL.publish_encoded(self.context, (&self.user.1, &state_key(id)), entry)
    }

    /// Publishes an entry as read.
    fn publish_read(&mut self, id: &str, entry: &[u8]) -> Result<(), OperatorError> {
        let entry = entry_read(entry).ok_or_else(|| unreadable(id))?;
        self.publish(id, &entry)
    }

    /// What is known of an id. Of a user who holds nothing no row is read.
    fn find(&mut self, id: &str) -> Result<Option<Known>, OperatorError> {
        if self.state.held == 0 { Ok(None) } else { self.known(id) }
    }

    fn known(&mut self, id: &str) -> Result<Option<Known>, OperatorError> {
        KNOWN.get(self.context, &row(&self.user, id))
    }

    fn put_known(&mut self, id: &str, known: &Known) {
        KNOWN.put(self.context, &row(&self.user, id), known);
    }

    /// Remembers the read of an id that is not held. One for which there is no room is dropped.
    fn put_mark(&mut self, id: &str, mark: ReadMark) -> Result<(), OperatorError> {
        let row = (&self.user, id);
        let old = if self.state.marks > 0 { MARKS.get(self.context, &row)? } else { None };
        match old {
            Some(old) if old.0 >= mark.0 => return Ok(()),
            Some(_) => {}
            None if self.state.marks >= MARKS_MAX => {
                self.context.count_dropped("reads_full");
                return Ok(());
            }
            None => self.state.marks += 1,
        }
        MARKS.put(self.context, &row, &mark);
        Ok(())
    }

    /// Takes the read of an id that is created now, unless it is as good as forgotten.
    fn take_mark(&mut self, id: &str) -> Result<Option<Millis>, OperatorError> {
        if self.state.marks == 0 {
            return Ok(None);
        }
        let row = (&self.user, id);
        let Some(mark) = MARKS.get(self.context, &row)? else { return Ok(None) };
        MARKS.remove(self.context, &row);
        self.state.marks -= 1;
        Ok((mark.ends() > self.context.time()).then_some(mark.0))
    }
}

fn row<'k>(user: &'k User, id: &'k str) -> (&'k str, &'k str, &'k str) {
    (&user.0, &user.1, id)
}

fn unreadable(id: &str) -> OperatorError {
    OperatorError::Failed(format!(
        "the event of notification {id} can't be decoded; have the state rebuilt from the \
         changelog with `tidewire state rebuild`, and then requeue this dead letter"
    ))
}

fn state_key(id: &str) -> String {
    let mut key = String::with_capacity(id.len() + 2);
    key.push_str("n/");
    encode_id(id, &mut key);
    key
}

/// The event of a notification as its entry has it before it is read, encoded.
fn entry_of(event: &Input<'_>) -> Option<Vec<u8>> {
    let data = if event.data.len() <= LISTED_DATA_MAX_BYTES {
        with_read(event.data, Truth::False)
    } else {
        with_read(&shortened(event), Truth::False)
    }?;
    Some(EventView { data: &data, ..**event }.encode())
}

/// The same entry, read.
fn entry_read(entry: &[u8]) -> Option<Vec<u8>> {
    let event = EventView::decode(entry).ok()?;
    let data = match event.data.strip_suffix(READ_FALSE) {
        Some(before) => [before, READ_TRUE].concat(),
        None => with_read(event.data, Truth::True)?,
    };
    Some(EventView { data: &data, ..event }.encode())
}

/// How the data of an entry ends.
const READ_FALSE: &str = r#""read":false}"#;
const READ_TRUE: &str = r#""read":true}"#;

/// An object with the member `read` at its end.
fn with_read(data: &str, read: Truth) -> Option<String> {
    let end = if read == Truth::True { READ_TRUE } else { READ_FALSE };
    match data.strip_suffix('}') {
        // Most have no such member, so that nothing is to be replaced.
        Some(members) if members.len() > 1 && !data.contains(r#""read""#) => {
            Some([members, ",", end].concat())
        }
        _ => {
            let value = if read == Truth::True { "true" } else { "false" };
            with_members(data, &[("read".to_owned(), value.to_owned())])
        }
    }
}

/// The data of a large notification as it is listed.
fn shortened(event: &Input<'_>) -> String {
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
