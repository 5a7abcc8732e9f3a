//! Removes what has ended of a user: notifications, reads of ids that are not held, and the user.
//!
//! A user with a row has one timer. It is due within a day after the first end, so that what ends
//! on a day is removed at once, and at another time of the day for each user; but at least every 7
//! days, since a read ends before what was there already.

use tidewire_schemas::id::hash128;

use super::page::{Held, PlacePage};
use super::state::{ClosedPages, DAY_MS, LIFE_MS, READ_MARK_MS, ReadMark, UserState};
use super::{CHANNEL, MARKS, MARKS_MAX, Notifications, PAGES, USERS};
use crate::derive::OperatorError;
use crate::record::Millis;

impl Notifications<'_, '_> {
    /// Removes what has ended, and sets the next timer.
    pub(super) fn sweep(mut self) -> Result<(), OperatorError> {
        if self.before.is_none() {
            return Ok(());
        }
        let mut ends = Ends { now: self.context.time(), next: self.latest_sweep() };
        self.sweep_closed(&mut ends)?;
        self.sweep_open(&mut ends)?;
        self.sweep_marks(&mut ends)?;
        if self.state.held == 0 && self.state.marks == 0 {
            let is_over = !self.state.is_counted || !ends.keeps(self.state.ends());
            if is_over {
                return self.end_user();
            }
        }
        self.set_sweep(ends.next)?;
        self.put()
    }

    /// When the timer is due at the latest.
    pub(super) fn latest_sweep(&self) -> Millis {
        Millis(self.context.time().0.saturating_add(READ_MARK_MS))
    }

    /// Sets the timer within a day after `end`.
    pub(super) fn set_sweep(&mut self, end: Millis) -> Result<(), OperatorError> {
        let hash = hash128(&self.user.0, &self.user.1);
        let hash = u64::from_be_bytes(*hash.first_chunk().expect("it has 16 bytes"));
        let shift = (hash % DAY_MS as u64) as i64;
        let days = end.0.saturating_sub(shift).div_euclid(DAY_MS) + 1;
        self.context.set_timer(Millis(days.saturating_mul(DAY_MS).saturating_add(shift)), b"")
    }

    fn sweep_closed(&mut self, ends: &mut Ends) -> Result<(), OperatorError> {
        let mut dropped = self.state.closed.as_ref().map_or(0, |closed| closed.dropped);
        let mut first = None;
        for (key, page) in self.closed_pages()? {
            let kept: PlacePage = page.iter().filter(|held| ends.keeps(end_of(held))).collect();
            let row = (self.user.clone(), key);
            if kept.is_empty() {
                PAGES.remove(self.context, &row);
            } else if kept.len() < page.len() {
                PAGES.put(self.context, &row, &kept);
                dropped = 0;
            }
            if !kept.is_empty() {
                first.get_or_insert(ClosedPages { first: row.1, dropped });
            }
            // Only the first row has what was dropped.
            dropped = 0;
            self.forget_all(&page, &kept)?;
        }
        self.state.closed = first;
        Ok(())
    }

    fn sweep_open(&mut self, ends: &mut Ends) -> Result<(), OperatorError> {
        self.load_open()?;
        let kept: PlacePage =
            self.state.newest.iter().filter(|held| ends.keeps(end_of(held))).collect();
        let first_listed = self.state.first_listed();
        let page = std::mem::replace(&mut self.state.newest, kept.clone());
        for held in page.iter().skip(first_listed).filter(|held| !ends.keeps(end_of(held))) {
            self.state.listed -= 1;
            self.unpublish(held.id)?;
        }
        self.forget_all(&page, &kept)?;
        self.open_newest()
    }

    /// Forgets those of a page that are not kept.
    fn forget_all(&mut self, page: &PlacePage, kept: &PlacePage) -> Result<(), OperatorError> {
        let mut kept = kept.iter().peekable();
        for held in page.iter() {
            if kept.next_if(|kept| kept.place() == held.place()).is_none() {
                self.forget(held.id)?;
                self.state.held -= 1;
            }
        }
        Ok(())
    }

    fn sweep_marks(&mut self, ends: &mut Ends) -> Result<(), OperatorError> {
        if self.state.marks == 0 {
            return Ok(());
        }
        for (row, mark) in MARKS.first(self.context, &self.user, MARKS_MAX as usize)? {
            if !ends.keeps(ReadMark::ends(mark)) {
                MARKS.remove(self.context, &row);
                self.state.marks -= 1;
            }
        }
        Ok(())
    }

    /// Removes a user of whom nothing is left, and the entry with the count.
    fn end_user(mut self) -> Result<(), OperatorError> {
        self.remove_older();
        let Self { context, user, state: UserState { is_counted, .. }, .. } = self;
        USERS.remove(context, &user);
        if is_counted {
            CHANNEL.remove(context, &user.1, &user.1)?;
        }
        Ok(())
    }
}

/// When the notification is forgotten.
fn end_of(held: &Held<'_>) -> Millis {
    Millis(held.appended.0.saturating_add(LIFE_MS))
}

/// The time of a sweep, and the first end after it.
struct Ends {
    now: Millis,
    next: Millis,
}

impl Ends {
    /// Whether something that ends at this time is kept; if so, the next sweep comes after it.
    fn keeps(&mut self, end: Millis) -> bool {
        let is_kept = end > self.now;
        if is_kept {
            self.next = self.next.min(end);
        }
        is_kept
    }
}
