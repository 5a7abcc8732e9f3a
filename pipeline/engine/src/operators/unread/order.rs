//! Keeps the places of a user's notifications in order, in one open page and closed ones.
//!
//! ```text
//! closed pages, oldest first │ open page
//!                            │ not listed │ listed
//! ```
//!
//! All of a closed page are older than all of the pages after it, and no key is later than the
//! first place of its page. The open page has all that are listed, and is empty only if nothing is
//! held. Once it is full, its oldest places become a closed page.
//!
//! The oldest notification of a full user is dropped with each new one. It stays in its page, which
//! is removed as a whole; the user's row has the number of those that are dropped.

use super::page::{Held, Place, PlacePage};
use super::state::ClosedPages;
use super::{CLOSED_LEN, HELD_MAX, LISTED_MAX, Notifications, OPEN_MAX, PAGES};
use crate::derive::OperatorError;

/// Whether a notification is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListedPlace {
    Listed,
    NotListed,
}

impl Notifications<'_, '_> {
    /// Adds a notification. If it is one of the newest, it is listed, and the oldest of a full list
    /// leaves it.
    pub(super) fn insert(&mut self, new: Held<'_>) -> Result<ListedPlace, OperatorError> {
        self.state.held += 1;
        if self.state.closed.is_some()
            && self.state.open.first().is_some_and(|first| new.place() < first.place())
        {
            self.insert_closed(new)?;
            return Ok(ListedPlace::NotListed);
        }
        let is_full = self.state.listed >= LISTED_MAX;
        let first_listed = self.first_listed();
        let index = self.state.open.insert(new);
        let listing = if index > first_listed || (index == first_listed && !is_full) {
            if is_full {
                let leaving = self.state.open.iter().nth(first_listed);
                let leaving = leaving.map(|held| held.id.to_owned());
                leaving.map_or(Ok(()), |id| self.unlist(&id))?;
            } else {
                self.state.listed += 1;
            }
            ListedPlace::Listed
        } else {
            ListedPlace::NotListed
        };
        self.close_oldest();
        Ok(listing)
    }

    /// Removes a notification from its page, and from the list.
    pub(super) fn remove(&mut self, place: (i64, &str)) -> Result<(), OperatorError> {
        let first_listed = self.first_listed();
        let Some(index) = self.state.open.remove(place) else {
            return self.remove_closed(place);
        };
        self.state.held -= 1;
        if index >= first_listed {
            self.state.listed -= 1;
            self.unpublish(place.1)?;
        }
        self.open_newest()
    }

    /// Drops the oldest notification, unless this place is older; returns whether it did.
    pub(super) fn make_room(&mut self, place: (i64, &str)) -> Result<bool, OperatorError> {
        let Some(ClosedPages { first, dropped }) = self.state.closed.clone() else {
            let oldest = self.state.open.first().map(|held| owned(held.place()));
            let Some((time, id)) = oldest.filter(|(time, id)| (*time, &id[..]) <= place) else {
                return Ok(false);
            };
            self.remove((time, &id))?;
            self.forget(&id)?;
            return Ok(true);
        };
        let key = (self.user.clone(), first);
        let page = PAGES.get(self.context, &key)?.unwrap_or_default();
        let oldest = page.iter().nth(dropped as usize).filter(|held| held.place() <= place);
        let Some(oldest) = oldest else { return Ok(false) };
        if dropped as usize + 1 < page.len() {
            self.state.closed = Some(ClosedPages { first: key.1, dropped: dropped + 1 });
        } else {
            PAGES.remove(self.context, &key);
            let next = PAGES.first_from(self.context, &self.user, &key, 1)?.pop();
            self.state.closed = next.map(|((_, first), _)| ClosedPages { first, dropped: 0 });
        }
        self.forget(oldest.id)?;
        self.state.held -= 1;
        Ok(true)
    }

    /// The ids of those that are listed, oldest first.
    pub(super) fn listed_ids(&self) -> Vec<String> {
        let listed = self.state.open.iter().skip(self.first_listed());
        listed.map(|held| held.id.to_owned()).collect()
    }

    /// The ids of those with an event time after one and up to another, oldest first.
    pub(super) fn ids_of(&mut self, after: i64, up_to: i64) -> Result<Vec<String>, OperatorError> {
        let closed = self.closed_pages()?;
        let pages = closed.iter().map(|(_, page)| page).chain([&self.state.open]);
        let held = pages.flat_map(PlacePage::iter).filter(|held| after < held.time);
        let held = held.take_while(|held| held.time <= up_to);
        Ok(held.map(|held| held.id.to_owned()).collect())
    }

    /// The closed pages with their places in keys, without what was dropped from the first.
    pub(super) fn closed_pages(&mut self) -> Result<Vec<(Place, PlacePage)>, OperatorError> {
        let Some(ClosedPages { first, dropped }) = self.state.closed.clone() else {
            return Ok(Vec::new());
        };
        let from = (self.user.clone(), first);
        let rows = PAGES.first_from(self.context, &self.user, &from, HELD_MAX as usize)?;
        let mut pages: Vec<_> = rows.into_iter().map(|((_, key), page)| (key, page)).collect();
        if let Some((_, page)) = pages.first_mut() {
            page.take_first(dropped as usize);
        }
        Ok(pages)
    }

    /// The index in the open page of the oldest that is listed.
    pub(super) fn first_listed(&self) -> usize {
        self.state.open.len().saturating_sub(self.state.listed as usize)
    }

    /// Closes a page of the oldest places if the open page has too many.
    fn close_oldest(&mut self) {
        if self.state.open.len() <= OPEN_MAX {
            return;
        }
        let page = self.state.open.take_first(CLOSED_LEN);
        let Some(first) = page.first().map(|held| owned(held.place())) else { return };
        let row = (self.user.clone(), first);
        PAGES.put(self.context, &row, &page);
        if self.state.closed.is_none() {
            self.state.closed = Some(ClosedPages { first: row.1, dropped: 0 });
        }
    }

    /// Opens the newest closed page if nothing is left in the open one.
    pub(super) fn open_newest(&mut self) -> Result<(), OperatorError> {
        if !self.state.open.is_empty() {
            return Ok(());
        }
        let mut closed = self.closed_pages()?;
        if let Some((key, page)) = closed.pop() {
            let row = (self.user.clone(), key);
            PAGES.remove(self.context, &row);
            self.state.open = page;
        }
        if closed.is_empty() {
            self.state.closed = None;
        }
        Ok(())
    }

    /// Adds a notification that is older than the open page.
    fn insert_closed(&mut self, new: Held<'_>) -> Result<(), OperatorError> {
        let mut closed = self.closed_pages()?;
        let before = closed.partition_point(|((time, id), _)| (*time, &id[..]) <= new.place());
        let at = before.saturating_sub(1);
        let Some((key, page)) = closed.get_mut(at) else { return Ok(()) };
        page.insert(new);
        if before == 0 {
            let row = (self.user.clone(), std::mem::replace(key, owned(new.place())));
            PAGES.remove(self.context, &row);
        }
        if page.len() > 2 * CLOSED_LEN {
            let older = page.take_first(CLOSED_LEN);
            let newer = std::mem::replace(page, older);
            if let Some(first) = newer.first().map(|held| owned(held.place())) {
                let row = (self.user.clone(), first);
                PAGES.put(self.context, &row, &newer);
            }
        }
        self.put_closed((at, closed));
        Ok(())
    }

    /// Removes a notification from its closed page.
    fn remove_closed(&mut self, place: (i64, &str)) -> Result<(), OperatorError> {
        let mut closed = self.closed_pages()?;
        let after = closed.partition_point(|((time, id), _)| (*time, &id[..]) <= place);
        let Some(at) = after.checked_sub(1) else { return Ok(()) };
        if closed[at].1.remove(place).is_some() {
            self.state.held -= 1;
            self.put_closed((at, closed));
        }
        Ok(())
    }

    /// Stores one of the closed pages, or removes it if it is empty.
    fn put_closed(&mut self, (at, mut closed): (usize, Vec<(Place, PlacePage)>)) {
        let (key, page) = closed.swap_remove(at);
        let row = (self.user.clone(), key);
        if page.is_empty() {
            PAGES.remove(self.context, &row);
        } else {
            PAGES.put(self.context, &row, &page);
        }
        if at > 0 {
            return;
        }
        let first = match page.is_empty() {
            false => Some(row.1),
            // The last page took the place of the first one.
            true => closed.into_iter().map(|(key, _)| key).min(),
        };
        self.state.closed = first.map(|first| ClosedPages { first, dropped: 0 });
    }
}

fn owned((time, id): (i64, &str)) -> Place {
    (time, id.to_owned())
}
