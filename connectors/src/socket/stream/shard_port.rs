//! What a worker's event loop needs of its shard, as a trait.
//!
//! The production implementation is the engine's [`Shard`], method by method. Tests use a scripted
//! one, which sends exactly the frames a test needs.

use tidewire_engine::fanout::out_buffer::OutBuffer;
use tidewire_engine::fanout::protocol::native::RequestError;
use tidewire_engine::fanout::shard::{
    BadFrame, Close, ConnId, ConnectionMemory, Filled, OpenRequest, Shard, ShardStats,
};
use tidewire_engine::record::MonotonicMillis;

/// A worker's shard. The methods are documented at [`Shard`].
pub trait ShardPort {
    /// See [`Shard::open`].
    fn open(&mut self, open: OpenRequest) -> Result<ConnId, RequestError>;
    /// See [`Shard::close`].
    fn close(&mut self, conn: ConnId);
    /// See [`Shard::input`].
    fn input(&mut self, conn: ConnId, text: &str);
    /// See [`Shard::mark_alive`].
    fn mark_alive(&mut self, conn: ConnId);
    /// See [`Shard::bad_frame`].
    fn bad_frame(&mut self, conn: ConnId, bad: BadFrame);
    /// See [`Shard::pull`].
    fn pull(&mut self);
    /// See [`Shard::tick`].
    fn tick(&mut self, now: MonotonicMillis, memory: ConnectionMemory);
    /// See [`Shard::take_ready`].
    fn take_ready(&mut self, into: &mut Vec<ConnId>);
    /// See [`Shard::fill`].
    fn fill(&mut self, conn: ConnId, out: &mut OutBuffer, budget: usize) -> Filled;
    /// See [`Shard::waiting_bytes`].
    fn waiting_bytes(&self, conn: ConnId) -> usize;
    /// See [`Shard::set_unsent`].
    fn set_unsent(&mut self, conn: ConnId, bytes: usize);
    /// See [`Shard::take_closes`].
    fn take_closes(&mut self, into: &mut Vec<Close>);
    /// See [`Shard::drain`].
    fn drain(&mut self);
    /// See [`Shard::stats`].
    fn stats(&self) -> ShardStats;
}

impl ShardPort for Shard {
    fn open(&mut self, open: OpenRequest) -> Result<ConnId, RequestError> {
        Shard::open(self, open)
    }

    fn close(&mut self, conn: ConnId) {
        Shard::close(self, conn);
    }

    fn input(&mut self, conn: ConnId, text: &str) {
        Shard::input(self, conn, text);
    }

    fn mark_alive(&mut self, conn: ConnId) {
        Shard::mark_alive(self, conn);
    }

    fn bad_frame(&mut self, conn: ConnId, bad: BadFrame) {
        Shard::bad_frame(self, conn, bad);
    }

    fn pull(&mut self) {
        Shard::pull(self);
    }

    fn tick(&mut self, now: MonotonicMillis, memory: ConnectionMemory) {
        Shard::tick(self, now, memory);
    }

    fn take_ready(&mut self, into: &mut Vec<ConnId>) {
        Shard::take_ready(self, into);
    }

    fn fill(&mut self, conn: ConnId, out: &mut OutBuffer, budget: usize) -> Filled {
        Shard::fill(self, conn, out, budget)
    }

    fn waiting_bytes(&self, conn: ConnId) -> usize {
        Shard::waiting_bytes(self, conn)
    }

    fn set_unsent(&mut self, conn: ConnId, bytes: usize) {
        Shard::set_unsent(self, conn, bytes);
    }

    fn take_closes(&mut self, into: &mut Vec<Close>) {
        Shard::take_closes(self, into);
    }

    fn drain(&mut self) {
        Shard::drain(self);
    }

    fn stats(&self) -> ShardStats {
        Shard::stats(self)
    }
}
