//! The state of one partition: a store, and the changes that it does not have yet.
//!
//! Changes are kept in memory, the newest per key, and handed to the store some time later, with
//! the progress they bring it to. One batch at a time is handed over. A read sees the changes in
//! memory first, then those that are handed over, then the store.
//!
//! Whatever is lost from memory is in the log: a store that was not closed continues from its
//! progress.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use tidewire_schemas::event::EventView;

use super::progress::FoldProgress;
use super::request::SnapshotRequest;
use super::snapshot::{ChannelSnapshot, PageEncoder, SnapshotEntry};
use super::store_open::{ENTRIES, OpenedFoldStore};
use crate::fanout::identity::Accounts;
use crate::fanout::state_record_key::{SEPARATOR, StateRecordKey};
use crate::fanout::totals::FanoutTotals;
use crate::port::{KeyRange, Store, StoreBatch, StoreError, StoreWrite, Ticket};
use crate::record::{MonotonicMillis, Offset, Record};

/// Milliseconds until a change is handed over: changes of one key within it are written once.
const HAND_OVER_MS: i64 = 250;

/// Bytes of changes that are handed over at once.
const HAND_OVER_BYTES: usize = 1_024 * 1_024;

/// Bytes that a change takes in memory beside its key and value.
const CHANGE_BYTES: usize = 128;

/// A partition's state.
pub(super) struct FoldPartition {
    store: Box<dyn Store>,
    /// What the store and the changes together have.
    progress: FoldProgress,
    unwritten: FoldChanges,
    /// Since when there is progress to hand over.
    unwritten_since: Option<MonotonicMillis>,
    handed: Option<HandedChanges>,
}

/// Changes by key; no value: the key is removed.
#[derive(Default)]
struct FoldChanges {
    by_key: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

/// Changes that the store is writing.
struct HandedChanges {
    ticket: Ticket,
    changes: FoldChanges,
}

impl FoldChanges {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        // Copies: a slice would keep the whole buffer that it was read into.
        let len = value.map_or(0, <[u8]>::len);
        let value = value.map(Bytes::copy_from_slice);
        if let Some(before) = self.by_key.get_mut(key) {
            self.bytes -= before.as_ref().map_or(0, Bytes::len);
            *before = value;
        } else {
            self.bytes += CHANGE_BYTES + key.len();
            self.by_key.insert(Bytes::copy_from_slice(key), value);
        }
        self.bytes += len;
    }

    fn range(&self, range: KeyRange<'_>) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        let to = range.to.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range::<[u8], _>((Bound::Included(range.from), to))
    }

    fn writes(&self) -> Vec<StoreWrite> {
        let writes = self.by_key.iter().map(|(key, value)| StoreWrite {
            table: ENTRIES,
            key: key.clone(),
            value: value.clone(),
        });
        writes.collect()
    }
}

impl FoldPartition {
    pub(super) fn new(opened: OpenedFoldStore) -> Self {
        let OpenedFoldStore { store, progress } = opened;
        Self {
            store,
            progress,
            unwritten: FoldChanges::default(),
            unwritten_since: None,
            handed: None,
        }
    }

    /// The next offset to read: the state has exactly the records before.
    pub(super) fn next(&self) -> Offset {
        self.progress.next
    }

    /// Bytes of changes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.unwritten.bytes + self.handed.as_ref().map_or(0, |handed| handed.changes.bytes)
    }

    /// Applies the next record. `false` if it is no state: it changes nothing then.
    pub(super) fn apply(&mut self, record: &Record) -> bool {
        let key = record.body.key().filter(|key| StateRecordKey::decode(key).is_some());
        let value = record.body.value();
        let is_state = value.is_none_or(|value| EventView::decode(value).is_ok());
        self.progress.newest = self.progress.newest.max(record.timestamp);
        let Some(key) = key.filter(|_| is_state) else { return false };
        self.unwritten.put(key, value);
        true
    }

    /// Everything before `position` is applied, or is no record.
    pub(super) fn advance(&mut self, position: Offset, now: MonotonicMillis) {
        if position > self.progress.next {
            self.progress.next = position;
            self.unwritten_since.get_or_insert(now);
        }
    }

    /// When what is in memory is to be handed over, unless it is much.
    pub(super) fn hand_over_at(&self) -> Option<MonotonicMillis> {
        self.unwritten_since.map(|since| since.plus(HAND_OVER_MS))
    }

    /// Whether what is in memory is to be handed over by itself.
    pub(super) fn is_due(&self, now: MonotonicMillis) -> bool {
        self.unwritten.bytes >= HAND_OVER_BYTES || self.hand_over_at().is_some_and(|at| at <= now)
    }

    /// Forgets the changes that the store has written.
    pub(super) fn acknowledge(&mut self) -> Result<(), StoreError> {
        if let Some(handed) = &self.handed
            && self.store.written()? >= handed.ticket
        {
            self.handed = None;
        }
        Ok(())
    }

    /// Hands over what is in memory, unless the store is writing a batch.
    pub(super) fn hand_over(&mut self) -> Result<(), StoreError> {
        if self.handed.is_some() || self.unwritten_since.is_none() {
            return Ok(());
        }
        let batch =
            StoreBatch { writes: self.unwritten.writes(), progress: self.progress.encode() };
        let ticket = self.store.hand_over(batch)?;
        let changes = std::mem::take(&mut self.unwritten);
        self.unwritten_since = None;
        self.handed = Some(HandedChanges { ticket, changes });
        Ok(())
    }

    /// Writes what is in memory and closes the store.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        // The store writes batches in the order in which it gets them.
        self.handed = None;
        self.hand_over()?;
        self.store.close()
    }

    /// A snapshot of a channel, as it is now.
    pub(super) fn snapshot(
        &mut self,
        of: &SnapshotRequest,
        epoch: u32,
        totals: &Arc<FanoutTotals>,
    ) -> Result<ChannelSnapshot, StoreError> {
        let mut encoder = PageEncoder::new(totals);
        for prefix in prefixes(&of.channel, &of.accounts) {
            let mut flow = ControlFlow::Continue(());
            self.scan(&prefix, &mut |key, value| {
                flow = add_entry(&mut encoder, key, value);
                flow
            })?;
            if flow.is_break() {
                break;
            }
        }
        let (pages, extent) = encoder.finish();
        Ok(ChannelSnapshot {
            channel: of.channel.clone(),
            partition: of.partition,
            epoch,
            at: self.next().0,
            extent,
            pages,
        })
    }

    /// Visits the entries whose keys begin with `prefix`, in the order of their keys.
    fn scan(
        &mut self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let to = behind(prefix);
        let range = KeyRange { from: prefix, to: Some(&to) };
        let mut newer: BTreeMap<&[u8], Option<&Bytes>> = BTreeMap::new();
        let handed = self.handed.iter().map(|handed| &handed.changes);
        for changes in handed.chain([&self.unwritten]) {
            newer.extend(changes.range(range).map(|(key, value)| (&key[..], value.as_ref())));
        }
        let mut newer = newer.into_iter().peekable();
        let mut stopped = false;
        self.store.scan(ENTRIES, range, &mut |key, value| {
            let mut flow = ControlFlow::Continue(());
            while flow.is_continue()
                && let Some((key, value)) = newer.next_if(|(newer, _)| *newer < key)
            {
                flow = value.map_or(flow, |value| visit(key, value));
            }
            if flow.is_continue() {
                flow = match newer.next_if(|(newer, _)| *newer == key) {
                    Some((_, Some(value))) => visit(key, value),
                    Some((_, None)) => flow,
                    None => visit(key, value),
                };
            }
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            let mut rest = newer.filter_map(|(key, value)| Some((key, value?)));
            let _ = rest.try_for_each(|(key, value)| visit(key, value));
        }
        Ok(())
    }
}

fn add_entry(encoder: &mut PageEncoder<'_>, key: &[u8], value: &[u8]) -> ControlFlow<()> {
    // Both were decoded before they were stored.
    let (Some(key), Ok(event)) = (StateRecordKey::decode(key), EventView::decode(value)) else {
        return ControlFlow::Continue(());
    };
    let StateRecordKey { account, state_key, .. } = key;
    encoder.add(SnapshotEntry { account, state_key, event: &event })
}

/// What the keys of a channel's entries begin with, as far as the accounts may see them; ascending.
fn prefixes(channel: &str, accounts: &Accounts) -> Vec<Vec<u8>> {
    let of_channel = [channel.as_bytes(), &[SEPARATOR]].concat();
    let Accounts::Only(accounts) = accounts else { return vec![of_channel] };
    // One with a separator in it would match a part of another account's keys.
    let accounts = accounts.iter().filter(|account| !account.as_bytes().contains(&SEPARATOR));
    let mut prefixes: Vec<Vec<u8>> = accounts
        .map(|account| [of_channel.as_slice(), account.as_bytes(), &[SEPARATOR]].concat())
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// The first key behind those that begin with a prefix that ends with a separator.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = SEPARATOR + 1;
    }
    end
}
