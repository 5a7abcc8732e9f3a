//! A segment: records of one partition that the hub or a sweep read together, immutable and shared.
//!
//! An entry keeps the record's body as it was read, so an event without a subscriber is never
//! encoded. A frame is encoded by the first connection that needs it and kept; that is all that
//! ever changes. The hashes of channels are in arrays of their own, which can be scanned fast.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tidewire_schemas::event::{DecodeError, EventView};

use super::channel_hash::{channel_hash, scoped_hash, state_hash};
use super::offsets::{PartitionOffsets, STATE_TOPIC, token};
use super::protocol::event_frame::{EventFrame, FrameContent};
use super::protocol::framing::Framing;
use super::state_record_key::StateRecordKey;
use super::totals::FanoutTotals;
use crate::record::{Body, Partition, Record};

/// Added to a segment's frame bytes when it leaves the ring, so that frames encoded later are not
/// counted in the ring's bytes.
const EVICTED_MARK: usize = usize::MAX / 2;

/// One event for one channel, or one change of a channel's state.
#[derive(Debug)]
pub(super) struct SegmentEntry {
    /// Which output topic.
    pub(super) topic: u8,
    /// Bytes of the channel's name, which the record's key begins with.
    channel_len: u32,
    /// Its offset there.
    pub(super) offset: u64,
    /// The reader's offsets right after it.
    pub(super) after: PartitionOffsets,
    /// Where the account begins in the body's bytes.
    account_at: u32,
    account_len: u32,
    body: Body,
    frames: [OnceLock<EventFrame>; 2],
}

impl SegmentEntry {
    /// The entry of a record of a log topic. Fails if the value is no event or the key is no text.
    pub(super) fn new(
        topic: usize,
        record: Record,
        after: PartitionOffsets,
    ) -> Result<Self, DecodeError> {
        let body = record.body;
        let damaged = DecodeError::Damaged { at: 0 };
        let key = body.key().ok_or(damaged)?;
        std::str::from_utf8(key).map_err(|_| damaged)?;
        let channel_len = key.len();
        let event = EventView::decode(body.value().ok_or(damaged)?)?;
        let base = body.as_bytes().as_ptr().addr();
        let account_len = event.account_id.len();
        let account_at = event.account_id.as_ptr().addr().checked_sub(base).ok_or(damaged)?;
        if account_len == 0 || account_at + account_len > body.as_bytes().len() {
            return Err(damaged);
        }
        Ok(Self {
            topic: topic as u8,
            channel_len: channel_len as u32,
            offset: record.offset.0,
            after,
            account_at: account_at as u32,
            account_len: account_len as u32,
            body,
            frames: [OnceLock::new(), OnceLock::new()],
        })
    }

    /// The entry of a record of the state topic. Fails if the key is no text of three parts, or if
    /// there is a value that is no event.
    pub(super) fn state(record: Record, after: PartitionOffsets) -> Result<Self, DecodeError> {
        let body = record.body;
        let damaged = DecodeError::Damaged { at: 0 };
        let key = body.key().and_then(StateRecordKey::decode).ok_or(damaged)?;
        let StateRecordKey { channel, account, .. } = key;
        if let Some(value) = body.value() {
            EventView::decode(value)?;
        }
        let account_at = account.as_ptr().addr() - body.as_bytes().as_ptr().addr();
        Ok(Self {
            topic: STATE_TOPIC as u8,
            channel_len: channel.len() as u32,
            offset: record.offset.0,
            after,
            account_at: account_at as u32,
            account_len: account.len() as u32,
            body,
            frames: [OnceLock::new(), OnceLock::new()],
        })
    }

    /// The channel's name.
    pub(super) fn channel(&self) -> &str {
        let key = self.body.key().and_then(|key| key.get(..self.channel_len as usize));
        key.and_then(|channel| std::str::from_utf8(channel).ok()).unwrap_or_default()
    }

    /// The account the record belongs to.
    pub(super) fn account(&self) -> &str {
        let from = self.account_at as usize;
        let bytes = &self.body.as_bytes()[from..from + self.account_len as usize];
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether it is a change of the channel's state.
    pub(super) fn is_state(&self) -> bool {
        usize::from(self.topic) == STATE_TOPIC
    }

    /// Which value of the channel's state it changes; `None` if it is no change of state.
    pub(super) fn state_key(&self) -> Option<&str> {
        let from = self.channel_len as usize + self.account_len as usize + 2;
        let key = self.is_state().then(|| self.body.key()?.get(from..)).flatten();
        key.and_then(|key| std::str::from_utf8(key).ok())
    }

    /// The hash of its channel, in lists of its kind: [`channel_hash`], or [`state_hash`] of it.
    fn list_hash(&self) -> u64 {
        let hash = channel_hash(self.channel());
        if self.is_state() { state_hash(hash) } else { hash }
    }

    /// The reader's offsets right before it.
    pub(super) fn before(&self) -> PartitionOffsets {
        self.after.with(usize::from(self.topic), self.offset)
    }

    fn size(&self) -> usize {
        self.body.as_bytes().len() + size_of::<Self>() + 2 * size_of::<u64>()
    }
}

/// Entries of one partition, in the order they were read.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number in the partition's ring; 0 for a sweep's.
    pub(super) seq: u64,
    pub(super) partition: Partition,
    /// The reader's offsets before the first entry.
    pub(super) before: PartitionOffsets,
    /// The reader's offsets at the end, after records that it skipped too.
    pub(super) after: PartitionOffsets,
    pub(super) entries: Box<[SegmentEntry]>,
    /// Per entry the hash of its channel, in lists of its kind: [`channel_hash`], or [`state_hash`]
    /// of it.
    pub(super) channels: Box<[u64]>,
    /// Per entry [`scoped_hash`] of that.
    pub(super) scoped: Box<[u64]>,
    epoch: u32,
    record_bytes: usize,
    frame_bytes: AtomicUsize,
    /// Bytes that end with this segment: its records and small frames.
    held_bytes: AtomicUsize,
    totals: Arc<FanoutTotals>,
}

/// What a segment is made of.
pub(super) struct SegmentSpec {
    pub(super) seq: u64,
    pub(super) partition: Partition,
    pub(super) before: PartitionOffsets,
    pub(super) after: PartitionOffsets,
    pub(super) epoch: u32,
    pub(super) entries: Vec<SegmentEntry>,
}

impl Segment {
    pub(super) fn new(spec: SegmentSpec, totals: &Arc<FanoutTotals>) -> Self {
        let SegmentSpec { seq, partition, before, after, epoch, entries } = spec;
        let channels: Box<[u64]> = entries.iter().map(SegmentEntry::list_hash).collect();
        let scoped = entries.iter().zip(&channels).map(|(e, hash)| scoped_hash(*hash, e.account()));
        let record_bytes =
            entries.iter().map(SegmentEntry::size).sum::<usize>() + size_of::<Self>();
        totals.held_bytes.fetch_add(record_bytes, Ordering::Relaxed);
        Self {
            seq,
            partition,
            before,
            after,
            scoped: scoped.collect(),
            channels,
            entries: entries.into(),
            epoch,
            record_bytes,
            frame_bytes: AtomicUsize::new(EVICTED_MARK),
            held_bytes: AtomicUsize::new(record_bytes),
            totals: Arc::clone(totals),
        }
    }

    /// The frame of an entry, encoded by the first caller that needs it.
    pub(super) fn frame(&self, at: usize, framing: Framing) -> &EventFrame {
        let entry = &self.entries[at];
        entry.frames[framing as usize].get_or_init(|| self.encode(entry, framing))
    }

    #[cold]
    fn encode(&self, entry: &SegmentEntry, framing: Framing) -> EventFrame {
        let event = entry.body.value().map(|value| {
            EventView::decode(value).expect("an entry is only made of an event or a tombstone")
        });
        let channel = entry.channel();
        let content =
            FrameContent { channel, state_key: entry.state_key(), account: entry.account(), event };
        // State is not resumed: it begins with another snapshot.
        let token = (!entry.is_state()).then(|| token(self.epoch, self.partition, &entry.after));
        let frame = EventFrame::encode(framing, &content, token.as_deref()).shared(&self.totals);
        self.totals.encodes.fetch_add(1, Ordering::Relaxed);
        self.held_bytes.fetch_add(frame.segment_bytes(), Ordering::Relaxed);
        self.totals.held_bytes.fetch_add(frame.segment_bytes(), Ordering::Relaxed);
        self.count_frame(frame.len());
        frame
    }

    /// Adds a frame to the rings' bytes if this segment is in a ring. It may leave at any moment:
    /// the total is increased first, so that `leave_ring` never subtracts what is not in it yet.
    fn count_frame(&self, bytes: usize) {
        if self.frame_bytes.load(Ordering::Relaxed) >= EVICTED_MARK {
            return;
        }
        self.totals.ring_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.frame_bytes.fetch_add(bytes, Ordering::AcqRel) >= EVICTED_MARK {
            self.totals.ring_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Adds this segment to the rings' bytes.
    pub(super) fn enter_ring(&self) {
        self.frame_bytes.store(0, Ordering::Relaxed);
        self.totals.ring_bytes.fetch_add(self.record_bytes, Ordering::Relaxed);
    }

    /// Removes it from the rings' bytes.
    pub(super) fn leave_ring(&self) {
        let frames = self.frame_bytes.swap(EVICTED_MARK, Ordering::AcqRel);
        self.totals.ring_bytes.fetch_sub(self.record_bytes + frames, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let held = self.held_bytes.load(Ordering::Relaxed);
        self.totals.held_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}
