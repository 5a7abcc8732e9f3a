//! The operator `threads`: who takes part in each thread and each conversation.
//!
//! ```text
//! table 125  account · thread · user → nothing, with a stamp
//! table 126  account · conversation → participants and the day of the last renewal, with a stamp
//! table 129  account · thread → nothing, from a renewal to the end of the thread's day
//! ```
//!
//! In a thread everyone takes part who joins or writes, until that user leaves. In a conversation
//! the newest list of participants counts, so a user who is no longer on it has left. Each change
//! is told to the user's key by `participation.changed`, where `participation` keeps it.
//!
//! A user takes part until nothing has happened in the thread for 30 to 35 days: its first event
//! of a day renews everyone in it, so a user who only reads stays. Threads of any size are renewed
//! in pages, each after the first by a timer. A conversation has a bounded number of participants;
//! beyond it the call fails, and the list before stays. Days begin at a time of day that differs
//! by thread and conversation, or all of them would be renewed at midnight.

use tidewire_schemas::channel::is_id;
use tidewire_schemas::fields::{FieldWriter, Truth};
use tidewire_schemas::id::hash128;

use crate::derive::stores::{
    Expiring, FieldDecoder, Latest, Replacement, Stamp, Stamped, StoreValue, put_bytes,
};
use crate::derive::{Context, Events, Flow, Input, Operator, OperatorError, TableDecl};
use crate::operators::participation::KNOWN_MS;
use crate::record::{Millis, put_varint};

/// Participants of a conversation: its list is one value, and each of them may cost a fact.
const PARTICIPANTS_MAX: usize = 1_000;

/// Participants of a thread that one event or timer renews: each of them costs a fact.
const RENEWED_AT_ONCE: usize = 500;

const DAY_MS: i64 = 24 * 3_600_000;

/// The participants of threads by account, thread and user.
const MEMBERS: Latest<(String, String, String), ()> =
    Latest::expiring(125, "threads.members", KNOWN_MS);

/// The participants of conversations by account and conversation.
const LISTS: Latest<(String, String), ParticipantList> =
    Latest::expiring(126, "threads.lists", KNOWN_MS);

/// The threads that were renewed on their current day, by account and thread.
const RENEWALS: Expiring<(String, String), ()> = Expiring::new(129, "threads.renewals");

/// Keeps who takes part in threads and conversations.
pub struct Threads;

impl Operator for Threads {
    fn number(&self) -> u8 {
        16
    }

    fn name(&self) -> &'static str {
        "threads"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[MEMBERS.decl(), LISTS.decl(), RENEWALS.decl()];
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
        match event.event_type {
            "chat.message" | "thread.joined" => set_member(event, context, Some(()))?,
            "thread.left" => set_member(event, context, None)?,
            "conversation.created" | "conversation.updated" => set_list(event, context)?,
            _ => {}
        }
        Ok(Flow::Continue)
    }

    /// Renews the next page of a thread.
    fn on_timer(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let after = std::str::from_utf8(own).map_err(|_| {
            let why = "the timer's key is no user; it is damaged, and the next day renews again";
            OperatorError::Failed(why.to_owned())
        })?;
        renew_members(context, Some(after.to_owned()))
    }
}

/// Where a user takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Thread,
    Conversation,
}

/// The participants of a conversation, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ParticipantList {
    /// The day on which they were renewed last.
    day: u64,
    users: Vec<String>,
}

impl StoreValue for ParticipantList {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_varint(out, self.day);
        put_varint(out, self.users.len() as u64);
        self.users.iter().for_each(|user| put_bytes(out, user.as_bytes()));
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let (day, count) = (from.varint()?, from.count(1)?);
        let users = (0..count).map(|_| from.text().map(str::to_owned));
        Some(Self { day, users: users.collect::<Option<_>>()? })
    }
}

/// Sets whether the user of an event takes part in the current thread.
fn set_member(
    event: &Input<'_>,
    context: &mut Context<'_>,
    value: Option<()>,
) -> Result<(), OperatorError> {
    // Admission has checked it.
    let Some(user) = event.fields().text("user_id") else { return Ok(()) };
    let thread = (context.account().to_owned(), context.key().to_owned());
    if RENEWALS.get(context, &thread)?.is_none() {
        let until = Day::of(context).end();
        RENEWALS.put(context, &thread, &(), until)?;
        renew_members(context, None)?;
    }
    let row = (thread.0, thread.1, user.into_owned());
    let new = Stamped { stamp: Stamp::of(event), value };
    match (MEMBERS.set(context, &row, &new)?, value) {
        (Replacement::Outdated, _) | (Replacement::Newest { before: Some(()) }, Some(())) => Ok(()),
        (Replacement::Newest { .. }, _) => tell(context, Scope::Thread, &row.2, &new),
    }
}

/// Renews a page of the participants of the current thread, after this one.
fn renew_members(context: &mut Context<'_>, after: Option<String>) -> Result<(), OperatorError> {
    let thread = (context.account().to_owned(), context.key().to_owned());
    let after = after.map(|user| (thread.0.clone(), thread.1.clone(), user));
    let page = MEMBERS.page(context, &thread, after.as_ref(), RENEWED_AT_ONCE)?;
    for (row, stamp, value) in page.entries {
        let same = Stamped { stamp, value: Some(value) };
        MEMBERS.set(context, &row, &same)?;
        tell(context, Scope::Thread, &row.2, &same)?;
    }
    match page.last {
        Some((_, _, user)) => context.set_timer(context.time(), user.as_bytes()),
        None => Ok(()),
    }
}

/// Replaces the list of the current conversation by the event's, and renews it once a day.
fn set_list(event: &Input<'_>, context: &mut Context<'_>) -> Result<(), OperatorError> {
    let row = (context.account().to_owned(), context.key().to_owned());
    let before = LISTS.stamped(context, &row)?;
    let stamp = Stamp::of(event);
    let listed = participants(event)?;
    let listed = listed.filter(|_| before.as_ref().is_none_or(|before| before.stamp <= stamp));
    let today = Day::of(context).number;
    let last = before.as_ref().and_then(|before| before.value.clone());
    let is_renewed = last.as_ref().is_some_and(|last| today <= last.day);
    let users_before = last.as_ref().map(|last| last.users.clone()).unwrap_or_default();
    if listed.is_none() && (is_renewed || last.is_none()) {
        return Ok(());
    }
    let stamp = match (&listed, before) {
        (None, Some(before)) => before.stamp,
        _ => stamp,
    };
    let users = listed.unwrap_or_else(|| users_before.clone());
    for user in users_before.iter().filter(|user| users.binary_search(user).is_err()) {
        let left = Stamped { stamp: stamp.clone(), value: None };
        tell(context, Scope::Conversation, user, &left)?;
    }
    for user in &users {
        if !is_renewed || users_before.binary_search(user).is_err() {
            let present = Stamped { stamp: stamp.clone(), value: Some(()) };
            tell(context, Scope::Conversation, user, &present)?;
        }
    }
    let day = last.map_or(today, |last| last.day.max(today));
    let new = Stamped { stamp, value: Some(ParticipantList { day, users }) };
    LISTS.set(context, &row, &new).map(drop)
}

/// The participants of an event, in order and each once; `None` if it does not list them.
fn participants(event: &Input<'_>) -> Result<Option<Vec<String>>, OperatorError> {
    let fields = event.fields();
    if fields.raw("participants").is_none() {
        return Ok(None);
    }
    let texts = fields.texts("participants");
    let mut users: Vec<String> = texts.into_iter().map(std::borrow::Cow::into_owned).collect();
    if let Some(user) = users.iter().find(|user| !is_id(user)) {
        return Err(OperatorError::Failed(format!(
            "participants has {user:?}, which is no id; correct the producer of {}",
            event.event_type
        )));
    }
    users.sort();
    users.dedup();
    if users.len() > PARTICIPANTS_MAX {
        return Err(OperatorError::Failed(format!(
            "the conversation has {} participants, and {PARTICIPANTS_MAX} is the limit; use a \
             thread, which has none",
            users.len()
        )));
    }
    Ok(Some(users))
}

/// Tells a user's key whether that user takes part in the current thread or conversation.
fn tell(
    context: &mut Context<'_>,
    scope: Scope,
    user: &str,
    told: &Stamped<()>,
) -> Result<(), OperatorError> {
    let field = match scope {
        Scope::Thread => "thread_id",
        Scope::Conversation => "conversation_id",
    };
    let present = match told.value {
        Some(()) => Truth::True,
        None => Truth::False,
    };
    let data = FieldWriter::default()
        .text("user_id", user)
        .text(field, context.key())
        .boolean("present", present)
        .text("cause_id", &told.stamp.event_id)
        .end();
    context.emit_event("participation.changed", told.stamp.time.0, &data)
}

/// A day of the current thread or conversation.
#[derive(Clone, Copy, Debug)]
struct Day {
    /// Counted from the epoch.
    number: u64,
    /// How long before midnight (UTC) it begins.
    before_midnight_ms: i64,
}

impl Day {
    /// The day of the cause. Causes that are late count as today's, so that many of them renew a
    /// thread once.
    fn of(context: &Context<'_>) -> Self {
        let [.., a, b, c, d] = hash128(context.account(), context.key());
        let before_midnight_ms = i64::from(u32::from_be_bytes([a, b, c, d])) % DAY_MS;
        let shifted = context.expiry_time().0.saturating_add(before_midnight_ms);
        Self { number: u64::try_from(shifted / DAY_MS).unwrap_or(0), before_midnight_ms }
    }

    /// When the next day begins.
    fn end(self) -> Millis {
        let midnight = i64::try_from(self.number + 1).unwrap_or(i64::MAX).saturating_mul(DAY_MS);
        Millis(midnight - self.before_midnight_ms)
    }
}

#[cfg(test)]
mod tests;
