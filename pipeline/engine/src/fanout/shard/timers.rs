//! What a shard does once a second: keepalives, and closing slow and silent connections.
//!
//! Time is a value that the worker passes in, on a monotonic clock: setting the wall clock ends no
//! connection and delays no check. There is no timer per connection: keepalives are
//! spread over their cycle by slot, so that no second has all of them.

use std::sync::atomic::Ordering;

use super::conn::Conn;
use super::interface::ConnectionMemory;
use super::ready::ReadySince;
use super::state::Shard;
use crate::fanout::config::{
    SILENT_CLOSE_MS, SSE_KEEPALIVE_MS, SSE_POSITION_MS, WEBSOCKET_KEEPALIVE_MS,
};
use crate::fanout::protocol::framing::{Framing, put_comment, put_ping};
use crate::fanout::protocol::native::CloseReason;
use crate::record::MonotonicMillis;
use crate::telemetry;

const WEBSOCKET_KEEPALIVE_S: i64 = WEBSOCKET_KEEPALIVE_MS as i64 / 1_000;
const SSE_KEEPALIVE_S: i64 = SSE_KEEPALIVE_MS as i64 / 1_000;

/// The most that the shard's time moves on between two ticks. A worker ticks several times a
/// second; after a longer break it stood still (a paused machine, a swapped process), and nothing
/// that its clients sent meanwhile is read yet.
const TICK_MAX_MS: i64 = 2_000;

/// The window of the check for slow readers while the memory for connections is full. The rate that
/// it asks for is the same.
const SLOW_WINDOW_FULL_MS: i64 = 5_000;

impl Shard {
    /// Sets the time and does what is due. Call it in every round of the loop and at least once a
    /// second.
    pub fn tick(&mut self, now: MonotonicMillis, memory: ConnectionMemory) {
        let last = self.ticked.replace(now).unwrap_or(now);
        self.now = self.now.plus(now.since(last).clamp(0, TICK_MAX_MS));
        let second = self.now.0.div_euclid(1_000);
        if second <= self.second {
            return;
        }
        for due in self.second + 1..=second {
            self.send_keepalives(due);
        }
        self.second = second;
        let full = memory == ConnectionMemory::Full;
        self.hub.totals().memory_full.store(full, Ordering::Relaxed);
        self.close_silent();
        self.close_slow(memory);
        for slot in std::mem::take(&mut self.retry) {
            self.ready.mark(slot);
        }
        telemetry::deliveries(self.deliveries - self.deliveries_reported);
        self.deliveries_reported = self.deliveries;
    }

    fn send_keepalives(&mut self, second: i64) {
        let first = second.rem_euclid(SSE_KEEPALIVE_S) as usize;
        for slot in (first..self.slots.len()).step_by(SSE_KEEPALIVE_S as usize) {
            self.with_conn_at(slot as u32, |shard, conn| shard.send_keepalive(conn, second));
        }
    }

    fn send_keepalive(&mut self, conn: &mut Conn, second: i64) {
        let slot = conn.id.slot;
        let due = match conn.framing {
            Framing::WebSocket => {
                i64::from(slot) % WEBSOCKET_KEEPALIVE_S == second.rem_euclid(WEBSOCKET_KEEPALIVE_S)
            }
            Framing::Sse => true,
        };
        if !due || conn.closing {
            return;
        }
        if conn.framing == Framing::WebSocket {
            put_ping(&mut conn.control);
            conn.position_due = true;
        } else {
            put_comment(&mut conn.control);
            let waited = self.now.since(conn.position_at) >= i64::from(SSE_POSITION_MS);
            if conn.has_begun && conn.position_moved && waited {
                conn.position_at = self.now;
                conn.position_due = true;
            }
        }
        self.ready.mark(slot);
    }

    /// Closes WebSockets from which nothing has arrived for [`SILENT_CLOSE_MS`].
    fn close_silent(&mut self) {
        let limit = self.now.plus(-i64::from(SILENT_CLOSE_MS));
        for slot in 0..self.slots.len() {
            if self.slots[slot].last_heard >= limit {
                continue;
            }
            self.with_conn_at(slot as u32, |shard, conn| {
                if conn.framing == Framing::WebSocket {
                    shard.end(conn, CloseReason::Silent);
                }
            });
        }
    }

    /// Closes connections that had more to read for a whole window and read too little of it. One
    /// whose socket accepts all that it is given is not slow: without memory it is given little.
    fn close_slow(&mut self, memory: ConnectionMemory) {
        let configured = i64::from(self.hub.config().slow_window_ms);
        let window = match memory {
            ConnectionMemory::Available => configured,
            ConnectionMemory::Full => configured.min(SLOW_WINDOW_FULL_MS),
        };
        let enough = i64::from(self.hub.config().slow_min_bytes) * window / configured.max(1);
        for (slot, since) in self.ready.waiting() {
            self.with_conn_at(slot, |shard, conn| {
                let over = shard.now.since(conn.window) >= window;
                let waited = since == ReadySince::Before;
                let little = conn.unsent_bytes > 0 && i64::from(conn.window_bytes) < enough;
                if !conn.closing && waited && over && little {
                    shard.end(conn, CloseReason::Slow);
                }
                if !waited || over {
                    conn.window = shard.now;
                    conn.window_bytes = 0;
                }
            });
        }
    }
}
