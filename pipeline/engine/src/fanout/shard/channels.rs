//! The channels that a shard's connections subscribe to, with references to their recent entries.
//!
//! There is one list per channel, not one per connection; a connection's share of it is a cursor. A
//! list is kept for one account's share of a channel, or for the whole channel if an identity may
//! see more than one account. It holds what some follower has not been given yet, up to a bound.
//! Followers further back than the bound are moved behind and read the ring.

use std::collections::{HashMap, VecDeque};

use super::mirror::EntryRef;
use crate::fanout::channel_hash::{BuildPassThrough, channel_hash, scoped_hash, state_hash};
use crate::fanout::identity::Accounts;
use crate::fanout::segment::SegmentEntry;
use crate::record::Partition;

/// References a new list holds before it checks which of them are still needed.
const REFS_MIN: usize = 32;

/// The number of a list in its shard; reused once the list is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) struct ListId(pub(in crate::fanout) u32);

/// Which records of a channel a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum ListSource {
    /// Its events.
    Log,
    /// The changes of its state.
    State,
}

impl ListSource {
    /// The hash of a channel in lists of this source, as segments have it.
    fn hash(self, channel: &str) -> u64 {
        match self {
            Self::Log => channel_hash(channel),
            Self::State => state_hash(channel_hash(channel)),
        }
    }

    fn has(self, entry: &SegmentEntry) -> bool {
        match self {
            Self::Log => !entry.is_state(),
            Self::State => entry.is_state(),
        }
    }
}

/// What a list holds: one channel, for one account or for all.
#[derive(Clone, Copy)]
pub(super) struct ListSelector<'a> {
    pub(super) channel: &'a str,
    pub(super) source: ListSource,
    pub(super) partition: Partition,
    /// The accounts its subscriber may see. If it is one, the list holds that account's share.
    pub(super) accounts: &'a Accounts,
}

/// Where a subscriber is listed.
pub(super) struct ListedAt {
    pub(super) list: ListId,
    /// The index among the list's subscribers.
    pub(super) list_index: u32,
}

/// A subscription, as its list refers to it.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) struct ListSubscriber {
    /// The connection's slot.
    pub(super) slot: u32,
    /// The subscription's index in its connection.
    pub(super) sub: u32,
}

/// One channel's list.
pub(in crate::fanout) struct ChannelList {
    pub(super) partition: Partition,
    pub(super) name: Box<str>,
    pub(super) source: ListSource,
    /// The hash of name and source alone, to search segments by.
    pub(super) hash: u64,
    /// The one account, or `None` for all.
    account: Option<Box<str>>,
    key: u64,
    refs: VecDeque<EntryRef>,
    /// References dropped from the front so far. Cursors count from there, so that they stay valid.
    base: u64,
    /// References to hold before checking which of them are still needed.
    trim_threshold: usize,
    pub(super) subscribers: Vec<ListSubscriber>,
    /// Another list whose key has the same hash.
    next_in_bucket: Option<ListId>,
    /// Whether it is in [`Channels::touched`].
    touched: bool,
}

impl ChannelList {
    /// The cursor of a follower that has been given everything.
    pub(super) fn end(&self) -> u64 {
        self.base + self.refs.len() as u64
    }

    /// The reference at a cursor.
    pub(super) fn get(&self, cursor: u64) -> Option<EntryRef> {
        self.refs.get(cursor.checked_sub(self.base)? as usize).copied()
    }

    pub(super) fn first(&self) -> Option<EntryRef> {
        self.refs.front().copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.refs.len() >= self.trim_threshold
    }

    pub(in crate::fanout) fn len(&self) -> usize {
        self.refs.len()
    }

    pub(super) fn push(&mut self, reference: EntryRef) {
        debug_assert!(self.refs.back().is_none_or(|last| *last < reference));
        self.refs.push_back(reference);
    }

    /// Drops the references before `cursor`.
    pub(super) fn drop_before(&mut self, cursor: u64) {
        let count = (cursor.saturating_sub(self.base) as usize).min(self.refs.len());
        self.refs.drain(..count);
        self.base += count as u64;
        if self.refs.is_empty() && self.trim_threshold > REFS_MIN {
            self.trim_threshold = REFS_MIN;
            self.refs.shrink_to(REFS_MIN);
        }
    }

    /// The cursor of the first reference at or after `reference`.
    pub(super) fn cursor_at(&self, reference: EntryRef) -> u64 {
        self.base + self.refs.partition_point(|r| *r < reference) as u64
    }

    /// Doubles the threshold if at least half of it is needed; `false` if it is at `max` already.
    pub(super) fn grow(&mut self, max: usize) -> bool {
        if self.refs.len() * 2 >= self.trim_threshold {
            if self.trim_threshold >= max {
                return false;
            }
            self.trim_threshold = (self.trim_threshold * 2).min(max);
        }
        true
    }

    /// Whether it is the list of an entry's channel and source, whatever the account.
    pub(super) fn is_of(&self, entry: &SegmentEntry) -> bool {
        self.source.has(entry) && *self.name == *entry.channel()
    }

    fn matches(&self, entry: &SegmentEntry) -> bool {
        self.is_of(entry)
            && self.account.as_deref().is_none_or(|account| account == entry.account())
    }
}

/// All lists of a shard.
#[derive(Default)]
pub(in crate::fanout) struct Channels {
    lists: Vec<Option<Box<ChannelList>>>,
    free: Vec<ListId>,
    index: HashMap<u64, ListId, BuildPassThrough>,
    touched: Vec<ListId>,
}

impl Channels {
    pub(in crate::fanout) fn len(&self) -> usize {
        self.lists.len() - self.free.len()
    }

    pub(in crate::fanout) fn list(&self, id: ListId) -> &ChannelList {
        self.lists[id.0 as usize].as_deref().expect("a list exists while it has a subscriber")
    }

    pub(super) fn list_mut(&mut self, id: ListId) -> &mut ChannelList {
        self.lists[id.0 as usize].as_deref_mut().expect("a list exists while it has a subscriber")
    }

    /// Adds a subscriber, and the list if it is the first.
    pub(super) fn subscribe(
        &mut self,
        selector: ListSelector<'_>,
        subscriber: ListSubscriber,
    ) -> ListedAt {
        let ListSelector { channel, source, partition, accounts } = selector;
        let hash = source.hash(channel);
        let account = match accounts {
            Accounts::Only(only) if only.len() == 1 => Some(&*only[0]),
            _ => None,
        };
        let key = account.map_or(hash, |account| scoped_hash(hash, account));
        let mut at = self.index.get(&key).copied();
        while let Some(id) = at {
            let list = self.list_mut(id);
            let same = *list.name == *channel && list.source == source;
            if same && list.account.as_deref() == account {
                list.subscribers.push(subscriber);
                return ListedAt { list: id, list_index: (list.subscribers.len() - 1) as u32 };
            }
            at = list.next_in_bucket;
        }
        let list = ChannelList {
            partition,
            name: channel.into(),
            source,
            hash,
            account: account.map(Into::into),
            key,
            refs: VecDeque::new(),
            base: 0,
            trim_threshold: REFS_MIN,
            subscribers: vec![subscriber],
            next_in_bucket: None,
            touched: false,
        };
        ListedAt { list: self.insert(list), list_index: 0 }
    }

    fn insert(&mut self, mut list: ChannelList) -> ListId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.lists.push(None);
            ListId((self.lists.len() - 1) as u32)
        });
        list.next_in_bucket = self.index.insert(list.key, id);
        self.lists[id.0 as usize] = Some(Box::new(list));
        id
    }

    /// Removes the subscriber at `list_index`. Returns the one that has this index now, if any: its
    /// connection must be updated.
    pub(super) fn unsubscribe(&mut self, id: ListId, list_index: u32) -> Option<ListSubscriber> {
        let list = self.list_mut(id);
        list.subscribers.swap_remove(list_index as usize);
        let moved = list.subscribers.get(list_index as usize).copied();
        if list.subscribers.is_empty() {
            self.remove(id);
        } else if list.subscribers.capacity() > 4 * list.subscribers.len() {
            list.subscribers.shrink_to_fit();
        }
        moved
    }

    fn remove(&mut self, id: ListId) {
        let list = self.lists[id.0 as usize].take().expect("removed once, by its last subscriber");
        if list.touched {
            self.touched.retain(|touched| *touched != id);
        }
        let first = self.index[&list.key];
        if first == id {
            match list.next_in_bucket {
                Some(next) => self.index.insert(list.key, next),
                None => self.index.remove(&list.key),
            };
        } else {
            let mut at = first;
            while self.list(at).next_in_bucket != Some(id) {
                at = self.list(at).next_in_bucket.expect("the list is in its chain");
            }
            self.list_mut(at).next_in_bucket = list.next_in_bucket;
        }
        self.free.push(id);
    }

    /// The list of an entry under this key, if there is one.
    pub(super) fn find(&self, key: u64, entry: &SegmentEntry) -> Option<ListId> {
        let mut at = self.index.get(&key).copied();
        while let Some(id) = at {
            let list = self.list(id);
            if list.matches(entry) {
                return Some(id);
            }
            at = list.next_in_bucket;
        }
        None
    }

    /// Notes that a list has new references.
    pub(super) fn touch(&mut self, id: ListId) {
        let list = self.list_mut(id);
        if !list.touched {
            list.touched = true;
            self.touched.push(id);
        }
    }

    /// The lists with new references since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<ListId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            self.list_mut(*id).touched = false;
        }
        touched
    }

    /// Returns the vector of [`Channels::take_touched`], to reuse its memory.
    pub(super) fn recycle_touched(&mut self, mut touched: Vec<ListId>) {
        touched.clear();
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Every list of a partition.
    pub(super) fn of_partition(&self, partition: Partition) -> Vec<ListId> {
        let mine = |(id, list): (usize, &Option<Box<ChannelList>>)| {
            list.as_ref()
                .is_some_and(|list| list.partition == partition)
                .then_some(ListId(id as u32))
        };
        self.lists.iter().enumerate().filter_map(mine).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewire_schemas::Priority;
    use tidewire_schemas::event::Event;

    use super::*;
    use crate::fanout::offsets::PartitionOffsets;
    use crate::fanout::segment::{Segment, SegmentSpec};
    use crate::record::{Body, Millis, Offset, Record};

    fn record(key: &str, event_type: Option<&str>) -> Record {
        let event = event_type.map(|event_type| Event {
            event_id: "e".to_owned(),
            event_type: event_type.to_owned(),
            account_id: "a1".to_owned(),
            timestamp_ms: 0,
            correlation_id: "c".to_owned(),
            priority: Priority::Normal,
            key: "k".to_owned(),
            source: None,
            alias: None,
            data: "{}".to_owned(),
        });
        let value = event.map(|event| event.encode());
        let body = Body::new(Some(key.as_bytes()), value.as_deref(), &[]);
        Record { offset: Offset(0), timestamp: Millis(0), body }
    }

    /// An entry of the log, and entries of state: a value and a tombstone.
    fn segment() -> Segment {
        let state = |event_type| {
            let record = record("campaigns:a1\0a1\0c1", event_type);
            SegmentEntry::state(record, PartitionOffsets::default()).unwrap()
        };
        let log = record("campaigns:a1", Some("campaign.launched"));
        let entries = vec![
            SegmentEntry::new(1, log, PartitionOffsets::default()).unwrap(),
            state(Some("campaign.launched")),
            state(None),
        ];
        let spec = SegmentSpec {
            seq: 0,
            partition: Partition(0),
            before: PartitionOffsets::default(),
            after: PartitionOffsets::default(),
            epoch: 0,
            entries,
        };
        Segment::new(spec, &Arc::default())
    }

    #[test]
    fn the_lists_of_a_channels_events_and_of_its_state_are_two() {
        for accounts in [Accounts::All, Accounts::Only(vec!["a1".into()])] {
            let mut channels = Channels::default();
            let subscriber = ListSubscriber { slot: 0, sub: 0 };
            let [log, state] = [ListSource::Log, ListSource::State].map(|source| {
                let (partition, accounts) = (Partition(0), &accounts);
                let selector =
                    ListSelector { channel: "campaigns:a1", source, partition, accounts };
                let listed = channels.subscribe(selector, subscriber);
                assert_eq!(channels.subscribe(selector, subscriber).list, listed.list);
                listed.list
            });
            assert_eq!(channels.len(), 2);
            let segment = segment();
            let keys = match accounts {
                Accounts::All => &segment.channels,
                Accounts::Only(_) => &segment.scoped,
            };
            let entries = segment.entries.iter().zip(keys);
            let found: Vec<_> = entries.map(|(entry, key)| channels.find(*key, entry)).collect();
            assert_eq!(found, [Some(log), Some(state), Some(state)]);
        }
    }

    #[test]
    fn lists_under_one_key_are_told_apart_by_their_source() {
        let mut channels = Channels::default();
        let [log, state] = [ListSource::Log, ListSource::State].map(|source| {
            let list = ChannelList {
                partition: Partition(0),
                name: "campaigns:a1".into(),
                source,
                hash: 7,
                account: None,
                key: 7,
                refs: VecDeque::new(),
                base: 0,
                trim_threshold: REFS_MIN,
                subscribers: Vec::new(),
                next_in_bucket: None,
                touched: false,
            };
            channels.insert(list)
        });
        let segment = segment();
        let found: Vec<_> = segment.entries.iter().map(|entry| channels.find(7, entry)).collect();
        assert_eq!(found, [Some(log), Some(state), Some(state)]);
    }
}
