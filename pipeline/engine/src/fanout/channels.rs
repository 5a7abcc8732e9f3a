//! The channels somebody of this shard is subscribed to, and for each the references to its recent
//! entries: one list per channel, not one per connection. A connection's share of it is a cursor.
//!
//! A list is kept for one account's share of a channel, or for the whole channel where an identity
//! may see more than one account. It holds what some follower has not been given yet, up to a
//! bound; what followers further back need, they get from the ring.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::identity::Accounts;
use super::segment::{Entry, channel_hash, scoped_hash};

/// References a new list has room for before it asks who still needs them.
const REFS_MIN: usize = 32;

/// Takes a 64-bit hash as it is: the keys are xxh3 hashes already.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Builds [`AsIs`].
pub(super) type ByHash = BuildHasherDefault<AsIs>;

/// A place in a partition's ring: segment number and index in it. Orders as the hub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ref(u64);

impl Ref {
    const INDEX_BITS: u32 = 24;

    pub(super) fn new(seq: u64, index: usize) -> Self {
        Self(seq << Self::INDEX_BITS | index as u64)
    }

    pub(super) fn seq(self) -> u64 {
        self.0 >> Self::INDEX_BITS
    }

    pub(super) fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// A subscription, as its list knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    /// The connection's slot.
    pub(super) slot: u32,
    /// The subscription's place in the connection's list.
    pub(super) sub: u32,
}

/// One channel's list.
pub(super) struct ChannelLog {
    pub(super) partition: u32,
    pub(super) name: Box<str>,
    /// The hash of the name alone, for walks over segments.
    pub(super) hash: u64,
    /// The one account, or all of them.
    account: Option<Box<str>>,
    key: u64,
    refs: VecDeque<Ref>,
    /// Counts the references that were dropped from the front, so that cursors stay valid.
    base: u64,
    /// References to hold before looking who needs them.
    room: usize,
    pub(super) subscribers: Vec<Subscriber>,
    /// Another list whose key has the same hash.
    next_same: Option<u32>,
    /// Whether it is on the list of those with news.
    touched: bool,
}

impl ChannelLog {
    /// The cursor of whoever has seen everything.
    pub(super) fn end(&self) -> u64 {
        self.base + self.refs.len() as u64
    }

    /// The reference at a cursor.
    pub(super) fn get(&self, cursor: u64) -> Option<Ref> {
        self.refs.get(cursor.checked_sub(self.base)? as usize).copied()
    }

    pub(super) fn first(&self) -> Option<Ref> {
        self.refs.front().copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.refs.len() >= self.room
    }

    pub(super) fn len(&self) -> usize {
        self.refs.len()
    }

    pub(super) fn push(&mut self, reference: Ref) {
        debug_assert!(self.refs.back().is_none_or(|last| *last < reference));
        self.refs.push_back(reference);
    }

    /// Drops what stands before `cursor`.
    pub(super) fn drop_before(&mut self, cursor: u64) {
        let count = (cursor.saturating_sub(self.base) as usize).min(self.refs.len());
        self.refs.drain(..count);
        self.base += count as u64;
        if self.refs.is_empty() && self.room > REFS_MIN {
            self.room = REFS_MIN;
            self.refs.shrink_to(REFS_MIN);
        }
    }

    /// The cursor of the first reference at or behind `reference`.
    pub(super) fn cursor_at(&self, reference: Ref) -> u64 {
        self.base + self.refs.partition_point(|r| *r < reference) as u64
    }

    /// Doubles the room if most of it is needed; `false` if that is not allowed.
    pub(super) fn grow(&mut self, max: usize) -> bool {
        if self.refs.len() * 2 >= self.room {
            if self.room >= max {
                return false;
            }
            self.room = (self.room * 2).min(max);
        }
        true
    }

    fn takes(&self, entry: &Entry) -> bool {
        *self.name == *entry.channel()
            && self.account.as_deref().is_none_or(|account| account == entry.account())
    }
}

/// All lists of a shard.
#[derive(Default)]
pub(super) struct Channels {
    logs: Vec<Option<Box<ChannelLog>>>,
    free: Vec<u32>,
    index: HashMap<u64, u32, ByHash>,
    touched: Vec<u32>,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.logs.len() - self.free.len()
    }

    pub(super) fn log(&self, id: u32) -> &ChannelLog {
        self.logs[id as usize].as_deref().expect("a list lives while somebody is subscribed")
    }

    pub(super) fn log_mut(&mut self, id: u32) -> &mut ChannelLog {
        self.logs[id as usize].as_deref_mut().expect("a list lives while somebody is subscribed")
    }

    /// Adds a subscriber, making the list if it is the first. Returns the list's number and the
    /// subscriber's place in it.
    pub(super) fn subscribe(
        &mut self,
        (name, partition): (&str, u32),
        accounts: &Accounts,
        subscriber: Subscriber,
    ) -> (u32, u32) {
        let hash = channel_hash(name);
        let account = match accounts {
            Accounts::Only(only) if only.len() == 1 => Some(&*only[0]),
            _ => None,
        };
        let key = account.map_or(hash, |account| scoped_hash(hash, account));
        let mut at = self.index.get(&key).copied();
        while let Some(id) = at {
            let log = self.log_mut(id);
            if *log.name == *name && log.account.as_deref() == account {
                log.subscribers.push(subscriber);
                return (id, (log.subscribers.len() - 1) as u32);
            }
            at = log.next_same;
        }
        let log = ChannelLog {
            partition,
            name: name.into(),
            hash,
            account: account.map(Into::into),
            key,
            refs: VecDeque::new(),
            base: 0,
            room: REFS_MIN,
            subscribers: vec![subscriber],
            next_same: None,
            touched: false,
        };
        (self.insert(log), 0)
    }

    fn insert(&mut self, mut log: ChannelLog) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.logs.push(None);
            (self.logs.len() - 1) as u32
        });
        log.next_same = self.index.insert(log.key, id);
        self.logs[id as usize] = Some(Box::new(log));
        id
    }

    /// Removes the subscriber at `place`. Returns the one that stands there now, if any: it has to
    /// be told.
    pub(super) fn unsubscribe(&mut self, id: u32, place: u32) -> Option<Subscriber> {
        let log = self.log_mut(id);
        log.subscribers.swap_remove(place as usize);
        let moved = log.subscribers.get(place as usize).copied();
        if log.subscribers.is_empty() {
            self.remove(id);
        } else if log.subscribers.capacity() > 4 * log.subscribers.len() {
            log.subscribers.shrink_to_fit();
        }
        moved
    }

    fn remove(&mut self, id: u32) {
        let log = self.logs[id as usize].take().expect("removed once, by its last subscriber");
        if log.touched {
            self.touched.retain(|touched| *touched != id);
        }
        let first = self.index[&log.key];
        if first == id {
            match log.next_same {
                Some(next) => self.index.insert(log.key, next),
                None => self.index.remove(&log.key),
            };
        } else {
            let mut at = first;
            while self.log(at).next_same != Some(id) {
                at = self.log(at).next_same.expect("the list is in its chain");
            }
            self.log_mut(at).next_same = log.next_same;
        }
        self.free.push(id);
    }

    /// The list of an entry under this key, if there is one.
    pub(super) fn find(&self, key: u64, entry: &Entry) -> Option<u32> {
        let mut at = self.index.get(&key).copied();
        while let Some(id) = at {
            let log = self.log(id);
            if log.takes(entry) {
                return Some(id);
            }
            at = log.next_same;
        }
        None
    }

    /// Remembers that a list has news.
    pub(super) fn touch(&mut self, id: u32) {
        let log = self.log_mut(id);
        if !log.touched {
            log.touched = true;
            self.touched.push(id);
        }
    }

    /// The lists with news since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<u32> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            self.log_mut(*id).touched = false;
        }
        touched
    }

    /// Gives the emptied vector back, to be filled again.
    pub(super) fn give_back(&mut self, mut touched: Vec<u32>) {
        touched.clear();
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Every list of a partition.
    pub(super) fn of_partition(&self, partition: u32) -> Vec<u32> {
        let mine = |(id, log): (usize, &Option<Box<ChannelLog>>)| {
            log.as_ref().is_some_and(|log| log.partition == partition).then_some(id as u32)
        };
        self.logs.iter().enumerate().filter_map(mine).collect()
    }
}
