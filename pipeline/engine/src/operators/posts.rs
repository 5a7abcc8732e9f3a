//! Operators `posts` and `notify.resolve`: who wrote a post, for events that do not say it.
//!
//! Both run for the id of the post. `posts` keeps its author; `notify.resolve` emits `notify.due`
//! to that author for a like, reply, repost or quote without `author_id`, or lets the event wait.
//!
//! ```text
//! table 100  account · post → author, when the post became known, and its deletion (30 days)
//! table 101  account · post · append time · event id → an event that waits for the author
//! table 102  account · post → how many wait, at most 100
//! ```
//!
//! An event waits for ten minutes of settled time. If `posts` still does not know the author then,
//! it is counted (`unknown`), as are those beyond the first hundred (`full`) and those that were
//! appended after the deletion of their post (`deleted`). What was due late keeps its append time
//! and correlation. All of it compares append times, so it does not depend on how lanes interleave:
//! an event that precedes the deletion of its post is due even if it is processed later.
//!
//! Two exceptions: which events are beyond the first hundred depends on the order of processing,
//! and what was emitted for an event that follows a deletion which this task had not processed yet
//! stays emitted.
//!
//! `posts` precedes `notify.resolve` in the list of operators: that reads what `posts` has written.

use serde_json::Value;
use tidewire_schemas::fields::{FieldWriter, Fields, with_members};

use crate::derive::stores::{Expiring, FieldDecoder, KeyValue, StoreKey};
use crate::derive::{Context, Events, Flow, Input, KeptCause, Operator, OperatorError, TableDecl};
use crate::record::Millis;

mod rows;
#[cfg(test)]
mod tests;

use rows::{AppendedAct, AuthorAnswer, PostRow, WaitingRow};

/// Milliseconds that a post's author and its deletion are kept after its last event.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// Milliseconds that an event waits for the author of its post.
const WAIT_MS: i64 = 10 * 60_000;

/// Events that wait for the author of one post: each is a row, and they leave in one call.
const WAITING_MAX: usize = 100;

/// Characters of a text that are passed on: `notify` shows fewer.
const TEXT_MAX_CHARS: usize = 300;

/// Characters of a name that are passed on: `notify` shows fewer.
const NAME_MAX_CHARS: usize = 100;

/// Account and post.
type Post = (String, String);

const POSTS: Expiring<Post, PostRow> = Expiring::new(100, "posts");

const WAITING: KeyValue<(Post, Millis, String), WaitingRow> =
    KeyValue::new(101, "notify.resolve.waiting");

const WAITING_COUNTS: KeyValue<Post, u64> = KeyValue::new(102, "notify.resolve.counts");

fn post_of(context: &Context<'_>) -> Post {
    (context.account().to_owned(), context.key().to_owned())
}

fn appended(event: &Input<'_>, context: &Context<'_>) -> AppendedAct {
    let (timestamp_ms, event_id) = (event.timestamp_ms, event.event_id.to_owned());
    AppendedAct { time: context.time(), timestamp_ms, event_id }
}

/// Keeps the author of each post.
pub struct Posts;

impl Operator for Posts {
    fn number(&self) -> u8 {
        10
    }

    fn name(&self) -> &'static str {
        "posts"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[POSTS.decl()];
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
        let post = post_of(context);
        let mut row = POSTS.get(context, &post)?.unwrap_or_default();
        match event.event_type {
            "post.created" => row.create(event, context.time()),
            "post.deleted" => row.delete(appended(event, context)),
            _ => return Ok(Flow::Continue),
        }
        let until = Millis(row.seen.0.saturating_add(KEPT_MS));
        POSTS.put(context, &post, &row, until)?;
        Ok(Flow::Continue)
    }
}

/// Finds the author whom an event about a post concerns.
pub struct NotifyResolve;

impl Operator for NotifyResolve {
    fn number(&self) -> u8 {
        13
    }

    fn name(&self) -> &'static str {
        "notify.resolve"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[WAITING.decl(), WAITING_COUNTS.decl()];
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
        let Some(kind) = kind_of(event.event_type) else {
            release(context)?;
            return Ok(Flow::Continue);
        };
        let KeptCause { hops, correlation, .. } = context.kept_cause();
        let (timestamp_ms, data) = (event.timestamp_ms, due_data(event, kind));
        let act = WaitingRow { timestamp_ms, hops, correlation, data };
        let post = post_of(context);
        let known = POSTS.get(context, &post)?.unwrap_or_default();
        match known.author_at(&appended(event, context)) {
            AuthorAnswer::Author(to) => emit_due(context, to, (event.event_id, &act))?,
            AuthorAnswer::Deleted => context.count_dropped("deleted"),
            AuthorAnswer::Unknown => wait(context, post, (event.event_id, &act))?,
        }
        Ok(Flow::Continue)
    }

    /// An event has waited for long enough.
    fn on_timer(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let (time, event_id) = <(Millis, String)>::read(&mut FieldDecoder(own))
            .ok_or_else(|| OperatorError::Failed("the timer's key is damaged".to_owned()))?;
        let row = (post_of(context), time, event_id);
        let Some(act) = WAITING.get(context, &row)? else { return Ok(()) };
        // `posts` may have learned the author by a call that this operator had no part in: one that
        // was requeued.
        let known = POSTS.get(context, &row.0)?.unwrap_or_default();
        if !settle(context, &known, (&row, &act))? {
            context.count_dropped("unknown");
        }
        WAITING.remove(context, &row);
        count_waiting(context, &row.0, |count| count.saturating_sub(1))
    }
}

/// The kind of the notification that an event gives, if it is about a post of somebody else.
fn kind_of(event_type: &str) -> Option<&'static str> {
    match event_type {
        "post.liked" => Some("like"),
        "post.replied" => Some("reply"),
        "post.reposted" => Some("retweet"),
        "post.quoted" => Some("quote"),
        _ => None,
    }
}

/// The data of `notify.due`, still without the recipient.
fn due_data(event: &Input<'_>, kind: &str) -> String {
    let fields = event.fields();
    let id = |name| fields.text(name);
    FieldWriter::default()
        .text("kind", kind)
        .text("post_id", event.key)
        .text_if("actor_id", id("user_id").as_deref())
        .text_if("actor_name", beginning(fields, "user_name", NAME_MAX_CHARS).as_deref())
        .text_if("reply_id", id("reply_id").as_deref())
        .text_if("quote_id", id("quote_id").as_deref())
        .text_if("repost_id", id("repost_id").as_deref())
        .text_if("text", beginning(fields, "text", TEXT_MAX_CHARS).as_deref())
        .end()
}

fn beginning(fields: &Fields<'_>, name: &str, max_chars: usize) -> Option<String> {
    fields.text(name).map(|text| text.chars().take(max_chars).collect())
}

/// Tells the author. The id of `notify.due` follows from the event, whether or not that has waited.
fn emit_due(
    context: &mut Context<'_>,
    to: &str,
    (event_id, act): (&str, &WaitingRow),
) -> Result<(), OperatorError> {
    let user_id = ("user_id".to_owned(), Value::from(to).to_string());
    let data = with_members(&act.data, &[user_id])
        .ok_or_else(|| OperatorError::Failed("a waiting event is damaged".to_owned()))?;
    context.emit_once(event_id, "notify.due", act.timestamp_ms, &data)
}

/// Lets an event wait until the author of its post is known.
fn wait(
    context: &mut Context<'_>,
    post: Post,
    (event_id, act): (&str, &WaitingRow),
) -> Result<(), OperatorError> {
    let waiting = WAITING_COUNTS.get(context, &post)?.unwrap_or(0);
    if waiting >= WAITING_MAX as u64 {
        context.count_dropped("full");
        return Ok(());
    }
    let time = context.time();
    let row = (post, time, event_id.to_owned());
    if WAITING.get(context, &row)?.is_some() {
        return Ok(());
    }
    WAITING.put(context, &row, act);
    count_waiting(context, &row.0, |count| count + 1)?;
    context.set_timer(waits_until(time), &timer_key(&row))
}

/// Emits or counts the waiting events of the current post as far as it is known.
fn release(context: &mut Context<'_>) -> Result<(), OperatorError> {
    let post = post_of(context);
    if WAITING_COUNTS.get(context, &post)?.is_none() {
        return Ok(());
    }
    let known = POSTS.get(context, &post)?.unwrap_or_default();
    let mut left = 0;
    for (row, act) in WAITING.first(context, &post, WAITING_MAX)? {
        if !settle(context, &known, (&row, &act))? {
            left += 1;
            continue;
        }
        WAITING.remove(context, &row);
        context.remove_timer(waits_until(row.1), &timer_key(&row));
    }
    count_waiting(context, &post, |_| left)
}

/// Emits or counts an event that waits, with its own append time and correlation. Whether its post
/// is known; if not, it does neither.
fn settle(
    context: &mut Context<'_>,
    known: &PostRow,
    (row, act): (&(Post, Millis, String), &WaitingRow),
) -> Result<bool, OperatorError> {
    let (_, time, event_id) = row;
    let WaitingRow { timestamp_ms, hops, ref correlation, .. } = *act;
    let appended = AppendedAct { time: *time, timestamp_ms, event_id: event_id.clone() };
    match known.author_at(&appended) {
        AuthorAnswer::Author(to) => {
            let cause = KeptCause { time: *time, hops, correlation: correlation.clone() };
            context.on_behalf_of(cause, |context| emit_due(context, to, (event_id, act)))?;
        }
        AuthorAnswer::Deleted => context.count_dropped("deleted"),
        AuthorAnswer::Unknown => return Ok(false),
    }
    Ok(true)
}

fn count_waiting(
    context: &mut Context<'_>,
    post: &Post,
    change: impl FnOnce(u64) -> u64,
) -> Result<(), OperatorError> {
    match change(WAITING_COUNTS.get(context, post)?.unwrap_or(0)) {
        0 => WAITING_COUNTS.remove(context, post),
        count => WAITING_COUNTS.put(context, post, &count),
    }
    Ok(())
}

fn waits_until(time: Millis) -> Millis {
    Millis(time.0.saturating_add(WAIT_MS))
}

/// The timer's own key: append time and event id.
fn timer_key((_, time, event_id): &(Post, Millis, String)) -> Vec<u8> {
    let mut own = Vec::with_capacity(event_id.len() + 10);
    time.put(&mut own);
    event_id.put(&mut own);
    own
}
