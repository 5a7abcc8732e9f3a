//! A snapshot: the state of one channel at one offset, encoded in pages that all readers share.
//!
//! An entry is a JSON object, and a page is entries joined by commas, without brackets, so that
//! each reader writes its own frame around the same bytes:
//!
//! ```text
//! {"key":…,"account_id":…,"type":…,"event_id":…,"timestamp":…,"value":{the event's data}}
//! ```
//!
//! A snapshot has a limited number of entries and bytes. The entries are in the order of account
//! and key, so what a truncated snapshot has is the same each time.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use crate::fanout::out_buffer::SharedFrame;
use crate::fanout::protocol::framing::{put_json, put_json_text};
use crate::fanout::protocol::snapshot_frame::SnapshotExtent;
use crate::fanout::totals::FanoutTotals;
use crate::record::Partition;

/// Bytes of a page; an entry that is larger has a page of its own.
const PAGE_MAX_BYTES: usize = 256 * 1_024;

/// Entries of a page.
const PAGE_MAX_ENTRIES: usize = 1_000;

/// Bytes of a snapshot: a subscriber that reads slowly holds so much.
const SNAPSHOT_MAX_BYTES: usize = 4 * 1_024 * 1_024;

/// Entries of a snapshot.
const SNAPSHOT_MAX_ENTRIES: usize = 10_000;

/// The state of a channel.
#[derive(Debug)]
pub struct ChannelSnapshot {
    pub(in crate::fanout) channel: Box<str>,
    pub(in crate::fanout) partition: Partition,
    /// Of the topics that `at` is an offset in.
    pub(in crate::fanout) epoch: u32,
    /// The offset of the state topic: it has exactly the records before.
    pub(in crate::fanout) at: u64,
    pub(in crate::fanout) extent: SnapshotExtent,
    /// The entries; no page if there is none.
    pub(in crate::fanout) pages: Vec<Arc<SharedFrame>>,
}

impl ChannelSnapshot {
    /// The channel's name.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Bytes of all pages.
    pub(super) fn bytes(&self) -> usize {
        self.pages.iter().map(|page| page.bytes().len()).sum()
    }

    /// Whether the channel has more entries than a snapshot may have.
    pub fn is_truncated(&self) -> bool {
        self.extent == SnapshotExtent::Truncated
    }

    /// The pages, without copying them. Each is some JSON objects joined by commas.
    pub fn pages(&self) -> impl Iterator<Item = Bytes> {
        self.pages.iter().map(|page| Bytes::from_owner(OwnedPage(Arc::clone(page))))
    }
}

/// A page that somebody else writes.
struct OwnedPage(Arc<SharedFrame>);

impl AsRef<[u8]> for OwnedPage {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// One value of a channel's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotEntry<'a> {
    pub(super) account: &'a str,
    pub(super) state_key: &'a str,
    pub(super) event: &'a EventView<'a>,
}

/// Encodes entries into pages.
pub(super) struct PageEncoder<'a> {
    totals: &'a Arc<FanoutTotals>,
    pages: Vec<Arc<SharedFrame>>,
    page: Vec<u8>,
    page_entries: usize,
    /// Of the whole snapshot.
    entries: usize,
    bytes: usize,
    extent: SnapshotExtent,
    /// The entry at hand.
    entry: Vec<u8>,
}

impl<'a> PageEncoder<'a> {
    pub(super) fn new(totals: &'a Arc<FanoutTotals>) -> Self {
        Self {
            totals,
            pages: Vec::new(),
            page: Vec::new(),
            page_entries: 0,
            entries: 0,
            bytes: 0,
            extent: SnapshotExtent::Whole,
            entry: Vec::new(),
        }
    }

    /// Adds an entry. `Break` if it does not fit: the snapshot is truncated before it.
    pub(super) fn add(&mut self, entry: SnapshotEntry<'_>) -> ControlFlow<()> {
        self.entry.clear();
        put_entry(&mut self.entry, entry);
        // With the comma that may be before it.
        let len = self.entry.len() + 1;
        if self.entries == SNAPSHOT_MAX_ENTRIES || self.bytes + len > SNAPSHOT_MAX_BYTES {
            self.extent = SnapshotExtent::Truncated;
            return ControlFlow::Break(());
        }
        if self.page_entries == PAGE_MAX_ENTRIES || self.page.len() + len > PAGE_MAX_BYTES {
            self.end_page();
        }
        if self.page_entries > 0 {
            self.page.push(b',');
        }
        self.page.extend_from_slice(&self.entry);
        self.page_entries += 1;
        self.entries += 1;
        self.bytes += len;
        ControlFlow::Continue(())
    }

    fn end_page(&mut self) {
        if self.page_entries > 0 {
            let page = std::mem::take(&mut self.page).into_boxed_slice();
            self.pages.push(Arc::new(SharedFrame::new(page, self.totals)));
            self.page_entries = 0;
        }
    }

    /// The pages, and whether they have all entries.
    pub(super) fn finish(mut self) -> (Vec<Arc<SharedFrame>>, SnapshotExtent) {
        self.end_page();
        (self.pages, self.extent)
    }
}

fn put_entry(out: &mut Vec<u8>, entry: SnapshotEntry<'_>) {
    let SnapshotEntry { account, state_key, event } = entry;
    let mut time = String::with_capacity(24);
    format_rfc3339(event.timestamp_ms, &mut time);
    let members = [
        ("{\"key\":", state_key),
        (",\"account_id\":", account),
        (",\"type\":", event.event_type),
        (",\"event_id\":", event.event_id),
        (",\"timestamp\":", &time),
    ];
    for (name, text) in members {
        out.extend_from_slice(name.as_bytes());
        put_json_text(out, text);
    }
    out.extend_from_slice(b",\"value\":");
    put_json(out, event.data);
    out.push(b'}');
}
