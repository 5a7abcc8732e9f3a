//! The state of a shard and its table of connections.
//!
//! The other files of this folder are its parts, each a few methods of [`Shard`]. They work on a
//! connection inside [`Shard::with_conn`] only, which takes it out of the table for the duration
//! and always puts it back, so that no early return can lose a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::channels::Channels;
use super::conn::{Conn, Mode};
use super::interface::{Close, ShardStats};
use super::merge::ListHead;
use super::mirror::RingMirror;
use super::ready::ReadySet;
use crate::fanout::hub::{Hub, ShardInbox};
use crate::fanout::messages::{ConnId, FeedNumber, SnapshotNumber};
use crate::fanout::protocol::native::CloseReason;
use crate::port::Wake;
use crate::record::{MonotonicMillis, Partition};
use crate::telemetry;

/// An entry of the table of connections.
#[derive(Default)]
pub(super) struct ConnSlot {
    pub(super) generation: u32,
    /// When its peer last sent or accepted anything; the future if that is not checked. Here, so
    /// that the check of all connections reads one array.
    pub(super) last_heard: MonotonicMillis,
    pub(super) conn: Option<Box<Conn>>,
}

/// A worker thread's share of the connections.
pub struct Shard {
    pub(super) hub: Arc<Hub>,
    pub(super) inbox: Arc<ShardInbox>,
    pub(super) slots: Vec<ConnSlot>,
    /// Slots without a connection.
    pub(super) free: Vec<u32>,
    pub(in crate::fanout) channels: Channels,
    /// By partition.
    mirrors: Vec<RingMirror>,
    pub(super) ready: ReadySet,
    /// Slots whose request the sweeper or the fold had no space for.
    pub(super) retry: Vec<u32>,
    /// Slots with a snapshot that the rings have not reached, until the next pull.
    pub(super) awaiting_head: Vec<u32>,
    /// The last request for a snapshot.
    pub(super) last_snapshot: SnapshotNumber,
    pub(super) closes: Vec<Close>,
    /// The shard's time: that of the ticks, without the time in which the worker stood still.
    pub(super) now: MonotonicMillis,
    /// The time of the last tick; `None` before the first.
    pub(super) ticked: Option<MonotonicMillis>,
    /// The epoch of the offsets in the mirrors.
    pub(super) epoch: u32,
    /// The sweeper that this shard's requests were sent to.
    pub(super) sweeper_generation: u64,
    /// The last second keepalives were sent for.
    pub(super) second: i64,
    pub(super) draining: bool,
    next_feed: FeedNumber,
    pub(super) websockets: usize,
    pub(super) subscriptions: usize,
    pub(super) deliveries: u64,
    pub(super) deliveries_reported: u64,
    pub(super) bytes: u64,
    /// Scratch, empty between calls.
    pub(super) heads: Vec<ListHead>,
    pub(super) wanted_hashes: Vec<u64>,
}

impl Shard {
    /// A new shard of the hub. `wake` is called when there is something for [`Shard::pull`].
    pub fn new(hub: &Arc<Hub>, wake: Arc<dyn Wake>) -> Self {
        Self {
            hub: Arc::clone(hub),
            inbox: hub.add_inbox(wake),
            slots: Vec::new(),
            free: Vec::new(),
            channels: Channels::default(),
            mirrors: (0..hub.partitions()).map(|_| RingMirror::default()).collect(),
            ready: ReadySet::default(),
            retry: Vec::new(),
            awaiting_head: Vec::new(),
            last_snapshot: SnapshotNumber::default(),
            closes: Vec::new(),
            now: MonotonicMillis(0),
            ticked: None,
            epoch: hub.epoch(),
            sweeper_generation: 0,
            second: 0,
            draining: false,
            next_feed: FeedNumber::default(),
            websockets: 0,
            subscriptions: 0,
            deliveries: 0,
            deliveries_reported: 0,
            bytes: 0,
            heads: Vec::new(),
            wanted_hashes: Vec::new(),
        }
    }

    /// Sums over the shard.
    pub fn stats(&self) -> ShardStats {
        let open = self.slots.len() - self.free.len();
        let conns = self.slots.iter().filter_map(|slot| slot.conn.as_ref());
        let subs = conns.flat_map(|conn| &conn.subs);
        ShardStats {
            websockets: self.websockets,
            streams: open - self.websockets,
            subscriptions: self.subscriptions,
            channels: self.channels.len(),
            backlogged: self.ready.count(),
            behind: subs.filter(|sub| matches!(sub.mode, Mode::Behind(_))).count(),
            deliveries: self.deliveries,
            bytes: self.bytes,
        }
    }

    /// Runs `work` on a connection that is out of the table meanwhile, so that `work` can use the
    /// whole shard. `None` if the id is stale.
    pub(super) fn with_conn<T>(
        &mut self,
        id: ConnId,
        work: impl FnOnce(&mut Self, &mut Conn) -> T,
    ) -> Option<T> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        self.with_conn_at(id.slot, work)
    }

    /// [`Shard::with_conn`] for the connection that has the slot now, if there is one.
    pub(super) fn with_conn_at<T>(
        &mut self,
        slot: u32,
        work: impl FnOnce(&mut Self, &mut Conn) -> T,
    ) -> Option<T> {
        let mut conn = self.slots.get_mut(slot as usize)?.conn.take()?;
        let done = work(self, &mut conn);
        self.count_control(&mut conn);
        self.slots[slot as usize].conn = Some(conn);
        Some(done)
    }

    /// Updates the total of small frames that wait to the length of this connection's.
    fn count_control(&self, conn: &mut Conn) {
        let (counted, now) = (conn.counted_control as usize, conn.control.len());
        if counted == now {
            return;
        }
        conn.counted_control = now as u32;
        let total = &self.hub.totals().control_bytes;
        match now.checked_sub(counted) {
            Some(more) => total.fetch_add(more, Ordering::Relaxed),
            None => total.fetch_sub(counted - now, Ordering::Relaxed),
        };
    }

    /// [`Shard::with_conn`] for every connection.
    pub(super) fn for_each_conn(&mut self, mut work: impl FnMut(&mut Self, &mut Conn)) {
        for slot in 0..self.slots.len() as u32 {
            self.with_conn_at(slot, &mut work);
        }
    }

    /// The connection in a slot, to look at.
    pub(in crate::fanout) fn conn(&self, slot: u32) -> Option<&Conn> {
        self.slots.get(slot as usize)?.conn.as_deref()
    }

    pub(super) fn conn_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot as usize)?.conn.as_deref_mut()
    }

    pub(super) fn mirror(&self, partition: Partition) -> &RingMirror {
        &self.mirrors[partition.0 as usize]
    }

    pub(super) fn mirror_mut(&mut self, partition: Partition) -> &mut RingMirror {
        &mut self.mirrors[partition.0 as usize]
    }

    /// Marks a connection to be closed, once.
    pub(super) fn end(&mut self, conn: &mut Conn, reason: CloseReason) {
        if !conn.closing {
            conn.closing = true;
            self.closes.push(Close { conn: conn.id, reason });
            self.ready.mark(conn.id.slot);
            telemetry::connections_closed(reason.label());
        }
    }

    pub(super) fn new_feed_number(&mut self) -> FeedNumber {
        self.next_feed = self.next_feed.next();
        self.next_feed
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.for_each_conn(|_, conn| conn.control = Vec::new());
    }
}
