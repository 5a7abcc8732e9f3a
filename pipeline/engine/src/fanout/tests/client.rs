//! Decodes server frames and positions as a client does.
//!
//! Written apart from the encoders, so that an encoding error is not decoded away. Panics on any
//! frame that a client could not read.

use serde_json::Value;
use tidewire_schemas::position::Position;

use super::super::shard::Framing;
use crate::record::Partition;

/// A decoded frame of the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ServerFrame {
    /// A JSON object, by `op` or by SSE event name, with the block's SSE `id:` if it has one.
    Object {
        op: String,
        id: Option<String>,
        json: Value,
    },
    Ping,
    /// An SSE block without data.
    Id(String),
}

/// Removes complete frames from the front of `bytes` and decodes them.
pub(super) fn read_frames(framing: Framing, bytes: &mut Vec<u8>) -> Vec<ServerFrame> {
    let mut frames = Vec::new();
    while let Some((frame, len)) = match framing {
        Framing::WebSocket => read_websocket(bytes),
        Framing::Sse => read_block(bytes),
    } {
        frames.extend(frame);
        bytes.drain(..len);
    }
    frames
}

fn read_websocket(bytes: &[u8]) -> Option<(Option<ServerFrame>, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (len, header) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header..header + len)?;
    if first == 0x89 {
        return Some((Some(ServerFrame::Ping), header + len));
    }
    assert_eq!(first, 0x81, "a text frame");
    let json: Value = serde_json::from_slice(payload).expect("frames are JSON");
    assert!(!payload.contains(&b'\n'));
    let op = json["op"].as_str().expect("an op").to_owned();
    Some((Some(ServerFrame::Object { op, id: None, json }), header + len))
}

fn read_block(bytes: &[u8]) -> Option<(Option<ServerFrame>, usize)> {
    let len = bytes.windows(2).position(|two| two == b"\n\n")? + 2;
    let text = std::str::from_utf8(&bytes[..len]).expect("UTF-8");
    let (mut id, mut op, mut json) = (None, String::new(), None);
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
        let (field, value) = line.split_once(": ").expect("a field");
        match field {
            "id" => id = Some(value.to_owned()),
            "event" => op = value.to_owned(),
            "data" => json = Some(serde_json::from_str(value).expect("data is JSON")),
            "retry" => {}
            other => panic!("unknown field {other}"),
        }
    }
    let frame = match (json, id) {
        (Some(json), id) => Some(ServerFrame::Object { op, id, json }),
        (None, Some(id)) => Some(ServerFrame::Id(id)),
        (None, None) => None,
    };
    Some((frame, len))
}

/// The next offsets of a token in one partition.
pub(super) fn cut_of(token: &str, partition: Partition) -> Option<[u64; 3]> {
    Position::decode(token)
        .expect("tokens of the server decode")
        .partition(partition.0)
        .map(|c| c.next)
}
