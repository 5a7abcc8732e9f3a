//! A shard for tests: it sends a welcome, echoes, and as many frames as a client requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tidewire_engine::fanout::out_buffer::OutBuffer;
use tidewire_engine::fanout::protocol::native::{CloseReason, ErrorCode, RequestError, StartAt};
use tidewire_engine::fanout::shard::{
    BadFrame, Close, ConnId, ConnectionMemory, Filled, Framing, OpenRequest, ShardStats,
};
use tidewire_engine::port::Wake;
use tidewire_engine::record::MonotonicMillis;

use crate::socket::stream::shard_port::ShardPort;

/// What the shard has observed, and what it sends next.
#[derive(Default)]
pub(in crate::socket) struct ShardObservations {
    pub(in crate::socket) inputs: Vec<String>,
    pub(in crate::socket) alive: usize,
    pub(in crate::socket) starts: Vec<StartAt>,
    pub(in crate::socket) opened: usize,
    pub(in crate::socket) closed: usize,
    /// Sent to all connections at the next pull.
    pub(in crate::socket) broadcasts: VecDeque<Vec<u8>>,
    /// The most bytes that ever waited for one connection.
    pub(in crate::socket) most_waiting: usize,
    /// Refuse new connections.
    pub(in crate::socket) is_full: bool,
}

#[derive(Clone, Default)]
pub(in crate::socket) struct ShardScript {
    pub(in crate::socket) seen: Arc<Mutex<ShardObservations>>,
    pub(in crate::socket) wake: Arc<Mutex<Option<Arc<dyn Wake>>>>,
}

impl ShardScript {
    pub(in crate::socket) fn shard(&self, wake: Arc<dyn Wake>) -> ScriptedShard {
        *self.wake.lock().unwrap() = Some(wake);
        ScriptedShard { seen: Arc::clone(&self.seen), ..ScriptedShard::default() }
    }

    pub(in crate::socket) fn broadcast(&self, text: &str) {
        self.seen.lock().unwrap().broadcasts.push_back(text.as_bytes().to_vec());
        self.wake.lock().unwrap().as_ref().expect("a worker").wake();
    }
}

struct ScriptedStream {
    generation: u32,
    framing: Framing,
    due: VecDeque<Vec<u8>>,
    /// The bytes of `due`.
    waiting: usize,
    is_ready: bool,
}

#[derive(Default)]
pub(in crate::socket) struct ScriptedShard {
    seen: Arc<Mutex<ShardObservations>>,
    streams: Vec<Option<ScriptedStream>>,
    generation: u32,
    ready: Vec<ConnId>,
    closes: Vec<Close>,
}

impl ScriptedShard {
    fn push(&mut self, slot: usize, text: Vec<u8>) {
        let Some(Some(stream)) = self.streams.get_mut(slot) else { return };
        stream.waiting += text.len();
        stream.due.push_back(text);
        let mut seen = self.seen.lock().unwrap();
        seen.most_waiting = seen.most_waiting.max(stream.waiting);
        drop(seen);
        if !stream.is_ready {
            stream.is_ready = true;
            self.ready.push(ConnId { slot: slot as u32, generation: stream.generation });
        }
    }

    fn stream(&mut self, conn: ConnId) -> Option<&mut ScriptedStream> {
        self.streams
            .get_mut(conn.slot as usize)?
            .as_mut()
            .filter(|s| s.generation == conn.generation)
    }

    fn all(&self) -> Vec<ConnId> {
        let all = self.streams.iter().enumerate();
        all.filter_map(|(slot, stream)| {
            stream.as_ref().map(|s| ConnId { slot: slot as u32, generation: s.generation })
        })
        .collect()
    }
}

impl ShardPort for ScriptedShard {
    fn open(&mut self, open: OpenRequest) -> Result<ConnId, RequestError> {
        if self.seen.lock().unwrap().is_full {
            return Err(RequestError::new(ErrorCode::Overloaded, "full"));
        }
        self.seen.lock().unwrap().opened += 1;
        self.seen.lock().unwrap().starts.push(open.start);
        self.generation += 1;
        let stream = ScriptedStream {
            generation: self.generation,
            framing: open.framing,
            due: VecDeque::new(),
            waiting: 0,
            is_ready: false,
        };
        let slot = self.streams.iter().position(Option::is_none).unwrap_or(self.streams.len());
        if slot == self.streams.len() {
            self.streams.push(None);
        }
        self.streams[slot] = Some(stream);
        self.push(slot, b"welcome".to_vec());
        Ok(ConnId { slot: slot as u32, generation: self.generation })
    }

    fn close(&mut self, conn: ConnId) {
        if self.stream(conn).is_some() {
            self.streams[conn.slot as usize] = None;
            self.seen.lock().unwrap().closed += 1;
        }
    }

    fn input(&mut self, conn: ConnId, text: &str) {
        self.seen.lock().unwrap().inputs.push(text.chars().take(100).collect());
        let slot = conn.slot as usize;
        match text.split_once(' ') {
            Some(("echo", rest)) => self.push(slot, rest.as_bytes().to_vec()),
            Some(("frames", count)) => {
                for n in 0..count.parse::<usize>().expect("a count") {
                    self.push(slot, format!("{n:01000}").into_bytes());
                }
            }
            _ if text == "slow" => self.closes.push(Close { conn, reason: CloseReason::Slow }),
            _ => {}
        }
    }

    fn mark_alive(&mut self, _: ConnId) {
        self.seen.lock().unwrap().alive += 1;
    }

    fn bad_frame(&mut self, conn: ConnId, bad: BadFrame) {
        let reason = match bad {
            BadFrame::NotText => CloseReason::ProtocolError,
            BadFrame::TooLarge => CloseReason::TooLarge,
        };
        self.closes.push(Close { conn, reason });
    }

    fn pull(&mut self) {
        let texts = std::mem::take(&mut self.seen.lock().unwrap().broadcasts);
        for text in texts {
            for conn in self.all() {
                self.push(conn.slot as usize, text.clone());
            }
        }
    }

    fn tick(&mut self, _: MonotonicMillis, _: ConnectionMemory) {}

    fn waiting_bytes(&self, conn: ConnId) -> usize {
        self.streams[conn.slot as usize].as_ref().map_or(0, |stream| stream.waiting)
    }

    fn set_unsent(&mut self, _: ConnId, _: usize) {}

    fn take_ready(&mut self, into: &mut Vec<ConnId>) {
        into.append(&mut self.ready);
    }

    fn fill(&mut self, conn: ConnId, out: &mut OutBuffer, budget: usize) -> Filled {
        let Some(stream) = self.stream(conn) else { return Filled::Drained };
        let out = out.own_mut();
        let begun = out.len();
        while let Some(text) = stream.due.pop_front() {
            stream.waiting -= text.len();
            match stream.framing {
                Framing::WebSocket => put_text(out, &text),
                Framing::Sse => {
                    out.extend_from_slice(b"data: ");
                    out.extend_from_slice(&text);
                    out.extend_from_slice(b"\n\n");
                }
            }
            if out.len() - begun >= budget {
                break;
            }
        }
        stream.is_ready = !stream.due.is_empty();
        if stream.is_ready { Filled::More } else { Filled::Drained }
    }

    fn take_closes(&mut self, into: &mut Vec<Close>) {
        into.append(&mut self.closes);
    }

    fn drain(&mut self) {
        let all = self.all();
        self.closes.extend(all.into_iter().map(|conn| Close { conn, reason: CloseReason::Drain }));
    }

    fn stats(&self) -> ShardStats {
        let open = self.all().len();
        ShardStats { websockets: open, ..ShardStats::default() }
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    match text.len() {
        len @ 0..=125 => out.push(len as u8),
        len => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}
