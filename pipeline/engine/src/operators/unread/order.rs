//! Keeps the places of a user's notifications in order, in one open page and closed ones.
//!
//! ```text
//! closed pages, oldest first │ open page
//!                            │ not listed │ listed
//!                            │ older, a row of its own │ newest, in the user's row
//! ```
//!
//! All of a closed page are older than all of the pages after it, and no key is later than the
//! first place of its page. The open page has all that are listed, and is empty only if nothing is
//! held. Once it is full, its oldest places become a closed page.
//!
//! Most events add a notification that is among the newest, or change none of the places: then the
//! older row of the open page is not written, and is read only for the one that leaves the list.
//! Anything else loads it into the user's row, and both are separated again when they are stored.
//!
//! The oldest notification of a full user is dropped with each new one. It stays in its page, which
//! is removed as a whole; the user's row has the number of those that are dropped.

use super::page::{Held, Place, PlacePage};
use super::state::ClosedPages;
use super::{
    CLOSED_LEN, HELD_MAX, LISTED_MAX, NEWEST_KEPT, NEWEST_MAX, Notifications, OLDER, OPEN_MAX,
    PAGES,
};
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
        let is_before = |page: &PlacePage| page.first().is_some_and(|f| new.place() < f.place());
        if is_before(&self.state.newest) {
            self.load_open()?;
            if self.state.closed.is_some() && is_before(&self.state.newest) {
                self.insert_closed(new)?;
                return Ok(ListedPlace::NotListed);
            }
        }
        let is_full = self.state.listed >= LISTED_MAX;
        let first_listed = self.state.first_listed();
        let index = self.state.older as usize + self.state.newest.insert(new);
        if index < first_listed || (index == first_listed && is_full) {
            return Ok(ListedPlace::NotListed);
        }
        if is_full {
            let leaving = self.open_id(first_listed)?;
            leaving.map_or(Ok(()), |id| self.unlist(&id))?;
        } else {
            self.state.listed += 1;
        }
        Ok(ListedPlace::Listed)
    }

    /// Removes a notification from its page, and from the list.
    pub(super) fn remove(&mut self, place: (i64, &str)) -> Result<(), OperatorError> {
        self.load_open()?;
        let first_listed = self.state.first_listed();
        let Some(index) = self.state.newest.remove(place) else {
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
            self.load_open()?;
            let oldest = self.state.newest.first().map(|held| owned(held.place()));
            let Some((time, id)) = oldest.filter(|(time, id)| (*time, &id[..]) <= place) else {
                return Ok(false);
            };
            self.remove((time, &id))?;
            self.forget(&id)?;
            return Ok(true);
        };
        let key = (self.user.clone(), first);
        let page = PAGES.get(self.context, &key)?.unwrap_or_default();
        let oldest = page.nth(dropped as usize).filter(|held| held.place() <= place);
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
    pub(super) fn listed_ids(&mut self) -> Result<Vec<String>, OperatorError> {
        let older = self.older()?;
        let open = older.iter().chain(self.state.newest.iter());
        let listed = open.skip(self.state.first_listed());
        Ok(listed.map(|held| held.id.to_owned()).collect())
    }

    /// The ids of those with an event time after one and up to another, oldest first.
    pub(super) fn ids_of(&mut self, after: i64, up_to: i64) -> Result<Vec<String>, OperatorError> {
        let (closed, older) = (self.closed_pages()?, self.older()?);
        let pages = closed.iter().map(|(_, page)| page).chain([&older, &self.state.newest]);
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

    /// The row of older places of the open page.
    fn older(&mut self) -> Result<PlacePage, OperatorError> {
        match self.state.older {
            0 => Ok(PlacePage::default()),
            _ => Ok(OLDER.get(self.context, &self.user)?.unwrap_or_default()),
        }
    }

    /// The id of an index of the open page.
    fn open_id(&mut self, index: usize) -> Result<Option<String>, OperatorError> {
        let held = match index.checked_sub(self.state.older as usize) {
            Some(index) => self.state.newest.nth(index),
            None => return Ok(self.older()?.nth(index).map(|held| held.id.to_owned())),
        };
        Ok(held.map(|held| held.id.to_owned()))
    }

    /// Adds the older places of the open page to those in the user's row.
    pub(super) fn load_open(&mut self) -> Result<(), OperatorError> {
        if self.state.older > 0 {
            let mut open = self.older()?;
            open.append(&self.state.newest);
            (self.state.older, self.state.newest) = (0, open);
        }
        Ok(())
    }

    /// Moves places out of the user's row if it has too many, before it is stored.
    pub(super) fn put_open(&mut self) -> Result<(), OperatorError> {
        if self.state.newest.len() > NEWEST_MAX {
            self.load_open()?;
            self.close_oldest();
            let older = self.state.newest.len() - NEWEST_KEPT;
            let older = self.state.newest.take_first(older);
            self.state.older = older.len() as u32;
            OLDER.put(self.context, &self.user, &older);
        } else if self.state.older == 0 {
            self.remove_older();
        }
        Ok(())
    }

    /// Removes the row of older places, if there is one.
    pub(super) fn remove_older(&mut self) {
        if self.before.as_ref().is_some_and(|before| before.older > 0) {
            OLDER.remove(self.context, &self.user);
        }
    }

    /// Closes a page of the oldest places if the open page has too many.
    fn close_oldest(&mut self) {
        if self.state.newest.len() <= OPEN_MAX {
            return;
        }
        let page = self.state.newest.take_first(CLOSED_LEN);
        let Some(first) = page.first().map(|held| owned(held.place())) else { return };
        let row = (self.user.clone(), first);
        PAGES.put(self.context, &row, &page);
        if self.state.closed.is_none() {
            self.state.closed = Some(ClosedPages { first: row.1, dropped: 0 });
        }
    }

    /// Opens the newest closed page if nothing is left in the open one.
    pub(super) fn open_newest(&mut self) -> Result<(), OperatorError> {
        if self.state.open_len() > 0 {
            return Ok(());
        }
        let mut closed = self.closed_pages()?;
        if let Some((key, page)) = closed.pop() {
            let row = (self.user.clone(), key);
            PAGES.remove(self.context, &row);
            self.state.newest = page;
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
