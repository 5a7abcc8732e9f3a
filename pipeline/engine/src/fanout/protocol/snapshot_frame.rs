//! Encodes a page of a snapshot as a frame around entries that all its subscribers share.
//!
//! ```text
//! WebSocket  {"op":"snapshot","channel":…,"reset":…,"first":…,"last":…,"state":[entries]}
//! SSE        event: snapshot, data: the same
//! ```
//!
//! It has no position: the channel's events have theirs, and state begins with another snapshot.
//! `truncated` is there if the channel has more entries than a snapshot may have.

use std::sync::Arc;

use super::framing::{Framing, put_field, put_header};
use super::names::FrameName;
use crate::fanout::out_buffer::{OutBuffer, SharedFrame};

/// What is said of a page beside its entries.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) struct SnapshotPage<'a> {
    pub(in crate::fanout) channel: &'a str,
    pub(in crate::fanout) place: PagePlace,
    pub(in crate::fanout) extent: SnapshotExtent,
    /// The entries, joined by commas; `None`: there is none.
    pub(in crate::fanout) entries: Option<&'a Arc<SharedFrame>>,
}

/// Where a page is in its snapshot, and what the snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) struct PagePlace {
    pub(in crate::fanout) kind: SnapshotKind,
    pub(in crate::fanout) is_first: bool,
    pub(in crate::fanout) is_last: bool,
}

/// Whether a subscription has been given state before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum SnapshotKind {
    /// No.
    First,
    /// It has: changes between are lost, so what the client has is to be replaced.
    Replacing,
}

/// Whether a snapshot has every entry of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum SnapshotExtent {
    /// It does.
    Whole,
    /// The channel has more than a snapshot may have.
    Truncated,
}

impl SnapshotPage<'_> {
    /// Appends the page's frame.
    pub(in crate::fanout) fn put(self, framing: Framing, out: &mut OutBuffer) {
        let head = self.head();
        let entries = self.entries.map_or(0, |entries| entries.bytes().len());
        let own = out.own_mut();
        match framing {
            Framing::WebSocket => put_header(own, head.len() + entries + TAIL.len()),
            Framing::Sse => {
                own.extend_from_slice(b"event: ");
                own.extend_from_slice(FrameName::Snapshot.in_stream().as_bytes());
                own.extend_from_slice(b"\ndata: ");
            }
        }
        own.extend_from_slice(&head);
        if let Some(entries) = self.entries {
            out.put_reference(entries, 0);
        }
        out.own_mut().extend_from_slice(TAIL);
        if framing == Framing::Sse {
            out.own_mut().extend_from_slice(b"\n\n");
        }
    }

    fn head(self) -> Vec<u8> {
        let mut json = Vec::with_capacity(160);
        json.push(b'{');
        put_field(&mut json, "op", FrameName::Snapshot.as_str());
        put_field(&mut json, "channel", self.channel);
        put_flag(&mut json, "reset", self.place.kind == SnapshotKind::Replacing);
        put_flag(&mut json, "first", self.place.is_first);
        put_flag(&mut json, "last", self.place.is_last);
        if self.extent == SnapshotExtent::Truncated {
            put_flag(&mut json, "truncated", true);
        }
        json.extend_from_slice(b"\"state\":[");
        json
    }
}

/// What ends the object.
const TAIL: &[u8] = b"]}";

fn put_flag(json: &mut Vec<u8>, name: &str, is_set: impl Into<serde_json::Value>) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    json.extend_from_slice(is_set.into().to_string().as_bytes());
    json.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(framing: Framing, entries: Option<&str>) -> Vec<u8> {
        let entries =
            entries.map(|json| Arc::new(SharedFrame::new(json.as_bytes().into(), &Arc::default())));
        let page = SnapshotPage {
            channel: "follows:ann",
            place: PagePlace { kind: SnapshotKind::First, is_first: true, is_last: true },
            extent: SnapshotExtent::Whole,
            entries: entries.as_ref(),
        };
        let mut out = OutBuffer::default();
        page.put(framing, &mut out);
        out.pieces().concat()
    }

    #[test]
    fn a_page_is_one_text_frame_whose_length_counts_the_shared_entries() {
        let frame = page(Framing::WebSocket, Some(r#"{"key":"bob"}"#));
        let json = concat!(
            r#"{"op":"snapshot","channel":"follows:ann","reset":false,"#,
            r#""first":true,"last":true,"state":[{"key":"bob"}]}"#
        );
        assert_eq!(&frame[..2], [0x81, json.len() as u8]);
        assert_eq!(std::str::from_utf8(&frame[2..]).unwrap(), json);
    }

    #[test]
    fn a_page_is_one_block_and_may_be_empty() {
        let block = String::from_utf8(page(Framing::Sse, None)).unwrap();
        let expected = concat!(
            "event: snapshot\ndata: {\"op\":\"snapshot\",\"channel\":\"follows:ann\",",
            "\"reset\":false,\"first\":true,\"last\":true,\"state\":[]}\n\n"
        );
        assert_eq!(block, expected);
    }
}
