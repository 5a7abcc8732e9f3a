//! Operator `engagement`: counts likes, replies, reposts, quotes and reactions of each post.
//!
//! ```text
//! table 105  account · post → counts, or the mark of its deletion
//! table 106  account · post · what · who → acts (30 days after the last one)
//! table 107  event time, an hour · account · post · what · event time · event id
//!            → what the act counts (7 days)
//!            event time, an hour · account · post · sums/what · minute · no text
//!            → what all acts of that minute count (7 days)
//! table 108  account · post · reaction → count
//! table 109  coalesced updates
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
//! post removes its counts and writes the tombstones of its state channels; what is left expires.
//! Until its mark ends, in 30 days, nothing counts for that post.

use std::ops::Range;

use tidewire_schemas::channel::encode_id;
use tidewire_schemas::fields::FieldWriter;

use crate::derive::stores::{Expiring, KeyValue, Windowed, Windows};
use crate::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, StateChannel, TableDecl, Updates,
};
use crate::record::Millis;

mod acts;
mod counts;
mod meaning;
#[cfg(test)]
mod tests;

use acts::{ActStamp, Acts, Delta};
use counts::{
    COUNTED, LiveCounts, MINUTE_MS, MinuteChange, PostCounts, ReactionCount, Tally, TallyReport,
    minute_of,
};
use meaning::{Act, EngagementMeaning, ReactionMeaning, meaning_of};

const DAY_MS: i64 = 24 * 3_600_000;

/// Milliseconds that an act and the mark of a deletion are kept.
const KEPT_MS: i64 = 30 * DAY_MS;

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

const ACTS: Expiring<(Post, String, String), Acts> = Expiring::new(106, "engagement.acts");

const CHANGES: Windowed<(Post, String, (i64, String)), Delta> =
    Windowed::new(107, "engagement.changes", BY_TIME);

const REACTIONS: KeyValue<(Post, String), ReactionCount> =
    KeyValue::new(108, "engagement.reactions");

const UPDATES: Updates = Updates::new(109, "engagement.updates", INTERVAL_MS);

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
            &[COUNTS.decl(), ACTS.decl(), CHANGES.decl(), REACTIONS.decl(), UPDATES.decl()];
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
        let counts = COUNTS.get(context, &post)?;
        if event.event_type == "post.deleted" {
            delete(context, &post, counts)?;
            return Ok(Flow::Continue);
        }
        let mut counts = match counts {
            Some(PostCounts::Deleted(until)) if until > context.expiry_time() => {
                context.count_dropped("deleted");
                return Ok(Flow::Continue);
            }
            Some(PostCounts::Live(counts)) => counts,
            Some(PostCounts::Deleted(_)) | None => Box::default(),
        };
        let at = ActStamp { time_ms: event.timestamp_ms, event_id: event.event_id.to_owned() };
        let mut counting = EventCounting { context, post: &post, at };
        match meaning_of(event)? {
            EngagementMeaning::Reports(reports) => counting.reports(&mut counts, &reports)?,
            EngagementMeaning::Act { field, act } => {
                counting.act((&mut counts.tallies[field], COUNTED[field]), act)?;
                counting.changed(&mut counts)?;
            }
            EngagementMeaning::Reaction(reaction) => counting.reaction(&mut counts, reaction)?,
        }
        COUNTS.put(context, &post, &PostCounts::Live(counts));
        Ok(Flow::Continue)
    }

    fn on_commit(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let post = (context.account().to_owned(), context.key().to_owned());
        match std::str::from_utf8(own).ok().and_then(|own| own.strip_prefix(REACTION)) {
            Some(reaction) => send_reaction(context, (post, reaction.to_owned())),
            None => send_counts(context, &post),
        }
    }

    /// The mark of a deletion ends.
    fn on_timer(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let post = (context.account().to_owned(), context.key().to_owned());
        if let Some(PostCounts::Deleted(until)) = COUNTS.get(context, &post)?
            && until <= context.time()
        {
            COUNTS.remove(context, &post);
        }
        Ok(())
    }
}

/// What marks a reaction for an update: this, then the reaction.
const REACTION: &str = "reaction/";

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
    ) -> Result<(), OperatorError> {
        for (field, value) in reports {
            self.report((&mut counts.tallies[*field], COUNTED[*field]), *value)?;
        }
        if reports.is_empty() { Ok(()) } else { self.changed(counts) }
    }

    /// The counts of the post have changed.
    fn changed(&mut self, counts: &mut LiveCounts) -> Result<(), OperatorError> {
        counts.newest_ms = counts.newest_ms.max(self.at.time_ms);
        self.context.mark(b"")
    }

    /// Counts a reaction or its withdrawal, and sets the count that it states.
    fn reaction(
        &mut self,
        counts: &mut LiveCounts,
        of: ReactionMeaning,
    ) -> Result<(), OperatorError> {
        let own = format!("{REACTION}{}", of.reaction);
        let key = (self.post.clone(), of.reaction);
        let known = REACTIONS.get(self.context, &key)?;
        if known.is_none() && counts.reactions >= REACTIONS_MAX {
            self.context.count_dropped("reactions_full");
            return Ok(());
        }
        counts.reactions += u64::from(known.is_none());
        let mut row = known.unwrap_or_default();
        if let Some(value) = of.reported {
            self.report((&mut row.tally, &own), value)?;
        }
        self.act((&mut row.tally, &own), of.act)?;
        row.newest_ms = row.newest_ms.max(self.at.time_ms);
        row.author = row.author.max(of.author);
        REACTIONS.put(self.context, &key, &row);
        self.context.mark(own.as_bytes())
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
        CHANGES.visit_range(self.context, (window, keys), &mut |_, delta| {
            sum = sum.saturating_add(delta.0);
        })?;
        Ok(sum)
    }

    /// Keeps what an act counts for a report that is processed later.
    fn keep_change(&mut self, slot: &str, (at, change): (ActStamp, Delta)) {
        let key = (self.post.clone(), slot.to_owned(), (at.time_ms, at.event_id));
        CHANGES.put(self.context, &key, Millis(at.time_ms), &change);
    }

    /// Adds to the sum of a minute that is not the newest.
    fn add_to_minute(&mut self, slot: &str, more: MinuteChange) -> Result<(), OperatorError> {
        let MinuteChange { minute_ms, by } = more;
        let key = (self.post.clone(), sums_slot(slot), (minute_ms, String::new()));
        CHANGES.update(self.context, &key, Millis(minute_ms), |sum| {
            Delta(sum.unwrap_or(Delta(0)).0.saturating_add(by))
        })?;
        Ok(())
    }

    /// Counts an act, and what other acts of the same user count now.
    fn act(&mut self, (tally, slot): (&mut Tally, &str), act: Act) -> Result<(), OperatorError> {
        let row = (self.post.clone(), act.kind, act.who);
        let mut acts = ACTS.get(self.context, &row)?.unwrap_or_default();
        acts.seen = acts.seen.max(self.context.time());
        for recount in acts.insert(self.at.clone(), act.turn) {
            let (now, by) = (recount.now, recount.now - recount.until_now);
            if let Some(more) = tally.change(&recount.at, by) {
                self.add_to_minute(slot, more)?;
            }
            if by != 0 {
                self.keep_change(slot, (recount.at, Delta(now)));
            }
        }
        let until = Millis(acts.seen.0.saturating_add(KEPT_MS));
        ACTS.put(self.context, &row, &acts, until)
    }
}

/// The slot of the sums of minutes, in table 107.
fn sums_slot(slot: &str) -> String {
    format!("sums/{slot}")
}

/// The place in time before all acts of a minute.
fn minute_stamp(minute_ms: i64) -> ActStamp {
    ActStamp { time_ms: minute_ms, event_id: String::new() }
}

/// Removes the counts of a post and its entries in state channels, and leaves a mark.
fn delete(
    context: &mut Context<'_>,
    post: &Post,
    counts: Option<PostCounts>,
) -> Result<(), OperatorError> {
    let until = Millis(context.time().0.saturating_add(KEPT_MS));
    match counts {
        Some(PostCounts::Deleted(marked)) if marked >= until => return Ok(()),
        Some(PostCounts::Deleted(marked)) => context.remove_timer(marked, b""),
        Some(PostCounts::Live(_)) => {
            let (account, post_id) = post;
            ENGAGEMENT.remove(context, post_id, post_id)?;
            DASHBOARD.remove(context, account, &dashboard_entry(post_id))?;
            for (row, _) in REACTIONS.first(context, post, REACTIONS_MAX as usize)? {
                REACTED.remove(context, post_id, &row.1)?;
                REACTIONS.remove(context, &row);
            }
        }
        None => {}
    }
    COUNTS.put(context, post, &PostCounts::Deleted(until));
    context.set_timer(until, b"")
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
