//! Operator `engagement`: counts likes, replies, reposts, quotes and reactions of each post.
//!
//! ```text
//! table 105  account · post → counts (30 days after the last act), or the mark of its deletion
//! table 106  account · post · what · who → acts (30 days after the last one)
//! table 107  event time, an hour · account · post · what · event time · event id
//!            → what the act counts (7 days)
//!            event time, an hour · account · post · sums/what · minute · no text
//!            → what all acts of that minute count (7 days)
//! table 108  account · post · reaction → count
//! ```
//!
//! A like, a repost or a reaction counts once per user, and what withdraws it takes it back. A
//! reply, a quote or an AI response counts once per its id. A report (`engagement.reported`, or
//! `count` of a reaction) sets a count, and later acts count from there; "later" is by event time
//! and id. Table 107 is for a report that is processed after acts that are later than itself: it
//! reads the acts of its own minute, and the sums of later ones. So every count follows from the
//! set of events, in whatever order the lanes are processed.
//!
//! Two limits: of one user's acts on one post the newest 16 are kept in order, and an act whose
//! event time is more than 7 days before its append counts as earlier than a report that comes
//! late.
//!
//! Nothing is kept in one value per post that grows: a user's acts are a row. The deletion of a
//! post removes its counts and writes the tombstones of its state channels. Until its mark ends, in
//! 30 days, nothing counts for that post. The same is removed, without a mark, 30 days after the
//! last act. A withdrawal that has nothing to withdraw counts nothing: only its own row is kept.
//!
//! A row ends by the time in it. A post with rows has a timer, not each row: it is due about every
//! 30 days, and removes what has ended, a thousand acts per call.

use std::borrow::Cow;
use std::ops::Range;

use tidewire_schemas::channel::encode_id;
use tidewire_schemas::fields::FieldWriter;
use tidewire_schemas::id::hash128;

use crate::derive::stores::{FieldDecoder, KeyValue, StoreKey, Windowed, Windows};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl, Updates,
};
use crate::record::Millis;

mod acts;
mod counts;
mod meaning;
#[cfg(test)]
mod tests;

use acts::{ActStamp, Acts, Delta, Recount, Turn};
use counts::{
    COUNTED, LiveCounts, MINUTE_MS, MinuteChange, PostCounts, ReactionCount, Tally, TallyReport,
    minute_of,
};
use meaning::{Act, EngagementMeaning, REACTION, ReactionMeaning, meaning_of};

const DAY_MS: i64 = 24 * 3_600_000;

/// Milliseconds that counts, an act and the mark of a deletion are kept.
const KEPT_MS: i64 = 30 * DAY_MS;

/// Acts that one call looks at to remove those that have ended.
const SWEPT_MAX: usize = 1_000;

/// Milliseconds between two updates of a post, or of a reaction to it.
const INTERVAL_MS: i64 = 250;

/// Reactions of one post that have a count: a deletion removes them in one call. Events of further
/// ones are counted as dropped.
const REACTIONS_MAX: u64 = 100;

/// Acts in order of event time, as long as lanes keep records. A window has many minutes, so that
/// their sums are a few scans.
const BY_TIME_MS: i64 = 3_600_000;
const BY_TIME: Windows = Windows::tumbling(BY_TIME_MS, 7 * DAY_MS - BY_TIME_MS);

/// Account and post.
type Post = (String, String);

const COUNTS: KeyValue<Post, PostCounts> = KeyValue::new(105, "engagement.counts");

const ACTS: KeyValue<(Post, String, String), Acts> = KeyValue::new(106, "engagement.acts");

const CHANGES: Windowed<(Post, String, (i64, String)), Delta> =
    Windowed::new(107, "engagement.changes", BY_TIME);

const REACTIONS: KeyValue<(Post, String), ReactionCount> =
    KeyValue::new(108, "engagement.reactions");

const UPDATES: Updates = Updates::new(INTERVAL_MS);

/// The state channels of a post, of its reactions, and of its account.
const ENGAGEMENT: StateChannel = StateChannel::new("engagement");
const REACTED: StateChannel = StateChannel::new("reactions");
const DASHBOARD: StateChannel = StateChannel::new("dashboard");

/// The operator.
pub struct Engagement;

impl Operator for Engagement {
    fn number(&self) -> u8 {
        11
    }

    fn name(&self) -> &'static str {
        "engagement"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] =
            &[COUNTS.decl(), ACTS.decl(), CHANGES.decl(), REACTIONS.decl()];
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
        let post = (context.account().to_owned(), context.key().to_owned());
        let stored = COUNTS.get(context, &post)?;
        let is_new = stored.is_none();
        if event.event_type == "post.deleted" {
            delete(context, &post, stored)?;
            return Ok(Flow::Continue);
        }
        let mut counts = match stored {
            Some(row) if row.ends() <= context.expiry_time() => {
                clear(context, &post, &row)?;
                Box::default()
            }
            Some(PostCounts::Deleted(_)) => {
                context.count_dropped("deleted");
                return Ok(Flow::Continue);
            }
            Some(PostCounts::Live(counts)) => counts,
            None => Box::default(),
        };
        let at = ActStamp { time_ms: event.timestamp_ms, event_id: event.event_id.to_owned() };
        let mut counting = EventCounting { context, post: &post, at };
        let counted = match meaning_of(event)? {
            EngagementMeaning::Reports(none) if none.is_empty() => return Ok(Flow::Continue),
            EngagementMeaning::Reports(reports) => counting.reports(&mut counts, &reports)?,
            EngagementMeaning::Act { field, act } => {
                let counted = counting.act((&mut counts.tallies[field], COUNTED[field]), act)?;
                counting.changed(&mut counts, counted)?
            }
            EngagementMeaning::Reaction(reaction) => counting.reaction(&mut counts, reaction)?,
        };
        if let Some(Counted { seen, .. }) = counted {
            counts.seen = counts.seen.max(seen);
            COUNTS.put(context, &post, &PostCounts::Live(counts));
        }
        if is_new {
            set_sweep(context, &post, ends(context.time()))?;
        }
        Ok(Flow::Continue)
    }

    fn on_commit(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let post = (context.account().to_owned(), context.key().to_owned());
        match std::str::from_utf8(own).ok().and_then(|own| own.strip_prefix(REACTION)) {
            Some(reaction) => send_reaction(context, (post, reaction.to_owned())),
            None => send_counts(context, &post),
        }
    }

    /// Removes what has ended of a post.
    fn on_timer(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let post = (context.account().to_owned(), context.key().to_owned());
        if own.is_empty()
            && let Some(row) = COUNTS.get(context, &post)?
        {
            match row.ends() {
                end if end > context.expiry_time() => set_sweep(context, &post, end)?,
                _ => clear(context, &post, &row)?,
            }
        }
        sweep(context, &post, own)
    }
}

/// The append time at which a row ends whose last act was appended at `seen`.
fn ends(seen: Millis) -> Millis {
    Millis(seen.0.saturating_add(KEPT_MS))
}

/// One event that counts for a post.
struct EventCounting<'a, 'c> {
    context: &'a mut Context<'c>,
    post: &'a Post,
    at: ActStamp,
}

impl EventCounting<'_, '_> {
    /// Sets the counts that a report states.
    fn reports(
        &mut self,
        counts: &mut LiveCounts,
        reports: &[(usize, i64)],
    ) -> Result<Option<Counted>, OperatorError> {
        for (field, value) in reports {
            self.report((&mut counts.tallies[*field], COUNTED[*field]), *value)?;
        }
        let counted = Counted { newest_ms: self.at.time_ms, seen: self.context.time() };
        self.changed(counts, Some(counted))
    }

    /// The counts of the post have changed, if something counts.
    fn changed(
        &mut self,
        counts: &mut LiveCounts,
        counted: Option<Counted>,
    ) -> Result<Option<Counted>, OperatorError> {
        if let Some(Counted { newest_ms, .. }) = counted {
            counts.newest_ms = counts.newest_ms.max(newest_ms);
            self.context.mark(b"")?;
        }
        Ok(counted)
    }

    /// Counts a reaction or its withdrawal, and sets the count that it states.
    fn reaction(
        &mut self,
        counts: &mut LiveCounts,
        of: ReactionMeaning<'_>,
    ) -> Result<Option<Counted>, OperatorError> {
        let own = of.act.kind.clone();
        let key = (self.post, &of.reaction[..]);
        let known = REACTIONS.get(self.context, &key)?;
        if known.is_none() && counts.reactions >= REACTIONS_MAX {
            self.context.count_dropped("reactions_full");
            return Ok(None);
        }
        let is_new = known.is_none();
        let (mut row, is_on) = (known.unwrap_or_default(), of.act.turn == Turn::On);
        if let Some(value) = of.reported {
            self.report((&mut row.tally, &own), value)?;
        }
        let counted = self.act((&mut row.tally, &own), of.act)?;
        let Some(Counted { newest_ms, .. }) = counted else { return Ok(None) };
        counts.reactions += u64::from(is_new);
        row.newest_ms = row.newest_ms.max(newest_ms);
        let author = of.author.filter(|_| is_on).map(Cow::into_owned);
        row.author = row.author.max(author);
        REACTIONS.put(self.context, &key, &row);
        self.context.mark(own.as_bytes())?;
        Ok(counted)
    }

    /// Sets a count, unless a later report did.
    fn report(
        &mut self,
        (tally, slot): (&mut Tally, &str),
        value: i64,
    ) -> Result<(), OperatorError> {
        if tally.accepts(&self.at) {
            let after = match tally.newest_ms() >= self.at.time_ms {
                true => self.later_changes(tally, slot)?,
                false => 0,
            };
            tally.set(TallyReport { at: self.at.clone(), value }, after);
        }
        Ok(())
    }

    /// The sum of what acts count that are later than the current event: the rest of its minute
    /// act by act, the minutes after that by their sums, and the newest one as the tally has it.
    fn later_changes(&mut self, tally: &Tally, slot: &str) -> Result<i64, OperatorError> {
        let newest = minute_of(tally.newest_ms());
        let next = minute_of(self.at.time_ms).saturating_add(MINUTE_MS);
        let from = ActStamp { time_ms: self.at.time_ms, event_id: self.at.event_id.clone() + "\0" };
        let own_minute = self.sum(slot, from..minute_stamp(next))?;
        if newest < next {
            return Ok(own_minute);
        }
        let now = self.context.expiry_time().0;
        let (slot, mut sum) = (sums_slot(slot), own_minute.saturating_add(tally.minute_sum()));
        let mut from = next.max(minute_of(now.saturating_sub(7 * DAY_MS)));
        let end = newest.min(now.saturating_add(DAY_MS));
        while from < end {
            let window = from.div_euclid(BY_TIME_MS) * BY_TIME_MS;
            let to = end.min(window + BY_TIME_MS);
            sum = sum.saturating_add(self.sum(&slot, minute_stamp(from)..minute_stamp(to))?);
            from = to;
        }
        Ok(sum)
    }

    /// The sum of the rows of a slot in this range, which is in one window.
    fn sum(&mut self, slot: &str, stamps: Range<ActStamp>) -> Result<i64, OperatorError> {
        let window = Millis(stamps.start.time_ms.div_euclid(BY_TIME_MS) * BY_TIME_MS);
        let key = |at: ActStamp| (self.post.clone(), slot.to_owned(), (at.time_ms, at.event_id));
        let (mut sum, keys) = (0i64, key(stamps.start)..key(stamps.end));
        CHANGES.visit(self.context, (window, keys), &mut |_, delta| {
            sum = sum.saturating_add(delta.0);
        })?;
        Ok(sum)
    }

    /// Keeps what an act counts for a report that is processed later.
    fn keep_change(&mut self, slot: &str, (at, change): (&ActStamp, Delta)) {
        let key = (self.post, slot, (at.time_ms, &at.event_id[..]));
        CHANGES.put(self.context, &key, Millis(at.time_ms), &change);
    }

    /// Adds to the sum of a minute that is not the newest.
    fn add_to_minute(&mut self, slot: &str, more: MinuteChange) -> Result<(), OperatorError> {
        let MinuteChange { minute_ms, by } = more;
        let slot = sums_slot(slot);
        let key = (self.post, &slot[..], (minute_ms, ""));
        CHANGES.update(self.context, &key, Millis(minute_ms), |sum| {
            Delta(sum.unwrap_or(Delta(0)).0.saturating_add(by))
        })?;
        Ok(())
    }

    /// Counts an act, and what other acts of the same user count now. `None`: it is a withdrawal,
    /// and nothing was done that it withdraws.
    fn act(
        &mut self,
        (tally, slot): (&mut Tally, &str),
        act: Act<'_>,
    ) -> Result<Option<Counted>, OperatorError> {
        let row = (self.post, &act.kind[..], &act.who[..]);
        let now = self.context.expiry_time();
        let known = ACTS.get(self.context, &row)?.filter(|acts| ends(acts.seen) > now);
        let mut acts = known.unwrap_or_default();
        acts.seen = acts.seen.max(self.context.time());
        let recounts = acts.insert(&self.at, act.turn);
        ACTS.put(self.context, &row, &acts);
        let Some(newest) = acts.newest() else { return Ok(None) };
        let counted = Counted { newest_ms: newest.time_ms, seen: acts.seen };
        // The newest act is the same in whatever order they are processed, so it is kept first.
        if let Some(more) = tally.change(newest, 0) {
            self.add_to_minute(slot, more)?;
        }
        for Recount { place, now, until_now } in recounts.into_iter().flatten() {
            let (Some(at), by) = (acts.at(place), now - until_now) else { continue };
            if let Some(more) = tally.change(at, by) {
                self.add_to_minute(slot, more)?;
            }
            if by != 0 {
                self.keep_change(slot, (at, Delta(now)));
            }
        }
        Ok(Some(counted))
    }
}

/// What has counted: the newest event time and the newest append time of it.
#[derive(Clone, Copy)]
struct Counted {
    newest_ms: i64,
    seen: Millis,
}

/// The slot of the sums of minutes, in table 107.
fn sums_slot(slot: &str) -> String {
    ["sums/", slot].concat()
}

/// The place in time before all acts of a minute.
fn minute_stamp(minute_ms: i64) -> ActStamp {
    ActStamp { time_ms: minute_ms, event_id: String::new() }
}

/// Removes the counts of a post and its entries in state channels, and leaves a mark.
fn delete(
    context: &mut Context<'_>,
    post: &Post,
    stored: Option<PostCounts>,
) -> Result<(), OperatorError> {
    let until = ends(context.time());
    match &stored {
        Some(PostCounts::Deleted(marked)) if *marked >= until => return Ok(()),
        Some(row) => clear(context, post, row)?,
        None => set_sweep(context, post, until)?,
    }
    COUNTS.put(context, post, &PostCounts::Deleted(until));
    Ok(())
}

/// Removes the row of a post, and what its state channels show of it.
fn clear(context: &mut Context<'_>, post: &Post, row: &PostCounts) -> Result<(), OperatorError> {
    if let PostCounts::Live(_) = row {
        let (account, post_id) = post;
        ENGAGEMENT.remove(context, post_id, post_id)?;
        DASHBOARD.remove(context, account, &dashboard_entry(post_id))?;
        for (row, _) in REACTIONS.first(context, post, REACTIONS_MAX as usize)? {
            REACTED.remove(context, post_id, &row.1)?;
            REACTIONS.remove(context, &row);
        }
    }
    COUNTS.remove(context, post);
    Ok(())
}

/// Sets the timer at which what has ended of a post is removed: within a day after `end`, so that
/// the rows of a day share one, and at another time of the day for each post.
fn set_sweep(context: &mut Context<'_>, post: &Post, end: Millis) -> Result<(), OperatorError> {
    let hash =
        u64::from_be_bytes(*hash128(&post.0, &post.1).first_chunk().expect("it has 16 bytes"));
    let shift = (hash % DAY_MS as u64) as i64;
    let days = end.0.saturating_sub(shift).div_euclid(DAY_MS) + 1;
    context.set_timer(Millis(days.saturating_mul(DAY_MS).saturating_add(shift)), b"")
}

/// Removes the acts that have ended, from the one on that `from` says: what, and who.
fn sweep(context: &mut Context<'_>, post: &Post, from: &[u8]) -> Result<(), OperatorError> {
    let acts = match <(String, String)>::read(&mut FieldDecoder(from)) {
        None => ACTS.first(context, post, SWEPT_MAX)?,
        Some((kind, who)) => {
            ACTS.first_from(context, post, &(post.clone(), kind, who), SWEPT_MAX)?
        }
    };
    let (now, mut last_end) = (context.expiry_time(), None);
    for (row, acts) in &acts {
        match ends(acts.seen) {
            end if end <= now => ACTS.remove(context, row),
            end => last_end = last_end.max(Some(end)),
        }
    }
    // The counts of a post have a timer of their own.
    if let Some(end) = last_end
        && COUNTS.get(context, post)?.is_none()
    {
        set_sweep(context, post, end)?;
    }
    if let Some(((_, kind, who), _)) = acts.last().filter(|_| acts.len() == SWEPT_MAX) {
        let mut from = Vec::with_capacity(kind.len() + who.len() + 4);
        kind.put(&mut from);
        who.put(&mut from);
        context.set_timer(context.time(), &from)?;
    }
    Ok(())
}

/// The state key under which the catalogue delivers `engagement.updated` of a post to a dashboard.
fn dashboard_entry(post_id: &str) -> String {
    let mut key = String::from("engagement.updated/");
    for (n, piece) in post_id.split('/').enumerate() {
        key.push_str(if n > 0 { "%2F" } else { "" });
        encode_id(piece, &mut key);
    }
    key
}

/// Emits the counts of a post.
fn send_counts(context: &mut Context<'_>, post: &Post) -> Result<(), OperatorError> {
    let Some(PostCounts::Live(counts)) = COUNTS.get(context, post)? else {
        return Ok(());
    };
    let data = FieldWriter::default().text("post_id", &post.1);
    let named = COUNTED.iter().zip(&counts.tallies);
    let data = named.fold(data, |data, (name, tally)| data.integer(name, tally.shown()));
    context.emit_event("engagement.updated", counts.newest_ms, &data.end())
}

/// Emits the count of a reaction.
fn send_reaction(context: &mut Context<'_>, key: (Post, String)) -> Result<(), OperatorError> {
    let Some(row) = REACTIONS.get(context, &key)? else { return Ok(()) };
    let data = FieldWriter::default()
        .text("post_id", &key.0.1)
        .text("reaction_type", &key.1)
        .integer("count", row.tally.shown())
        .text_if("author_id", row.author.as_deref())
        .end();
    context.emit_event("reaction.counted", row.newest_ms, &data)
}
