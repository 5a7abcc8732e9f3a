//! What a shard does once a second: keepalives, and closing slow and silent connections.
//!
//! Time is a value that the worker passes in. There is no timer per connection: keepalives are
//! spread over their cycle by slot, so that no second has all of them.

use super::conn::Conn;
use super::ready::ReadySince;
use super::state::Shard;
use crate::fanout::config::{
    SILENT_CLOSE_MS, SSE_KEEPALIVE_MS, SSE_POSITION_MS, WEBSOCKET_KEEPALIVE_MS,
};
use crate::fanout::protocol::framing::{Framing, put_comment, put_ping};
use crate::fanout::protocol::native::CloseReason;
use crate::record::Millis;
use crate::telemetry;

const WEBSOCKET_KEEPALIVE_S: i64 = WEBSOCKET_KEEPALIVE_MS as i64 / 1_000;
const SSE_KEEPALIVE_S: i64 = SSE_KEEPALIVE_MS as i64 / 1_000;

impl Shard {
    /// Sets the time and does what is due. Call it in every round of the loop and at least once a
    /// second.
    pub fn tick(&mut self, now: Millis) {
        self.now = now;
        let second = now.0.div_euclid(1_000);
        if second <= self.second {
            return;
        }
        for due in self.second.max(second - WEBSOCKET_KEEPALIVE_S) + 1..=second {
            self.send_keepalives(due);
        }
        self.second = second;
        self.close_slow();
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
            if self.now.0 - conn.last_input_ms > i64::from(SILENT_CLOSE_MS) {
                self.end(conn, CloseReason::Silent);
            }
            conn.position_due = true;
        } else {
            put_comment(&mut conn.control);
            let waited = self.now.0 - conn.position_ms >= i64::from(SSE_POSITION_MS);
            if conn.has_begun && conn.position_moved && waited {
                conn.position_ms = self.now.0;
                conn.position_due = true;
            }
        }
        self.ready.mark(slot);
    }

    /// Closes connections that had more to read for a whole window and read too little of it.
    fn close_slow(&mut self) {
        let window = i64::from(self.hub.config().slow_window_ms);
        let enough = self.hub.config().slow_min_bytes;
        for (slot, since) in self.ready.waiting() {
            self.with_conn_at(slot, |shard, conn| {
                let over = shard.now.0 - conn.window_ms >= window;
                let waited = since == ReadySince::Before;
                if !conn.closing && waited && over && conn.window_bytes < enough {
                    shard.end(conn, CloseReason::Slow);
                }
                if !waited || over {
                    conn.window_ms = shard.now.0;
                    conn.window_bytes = 0;
                }
            });
        }
    }
}
