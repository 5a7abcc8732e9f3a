//! Lingering close: sends a closed connection's last bytes and waits for the client to close.
//!
//! The rest is sent, then the sending half is shut down, and what the client still sends is read
//! and discarded until it closes, too. Closing a socket with unread bytes would reset the
//! connection, and a reset can destroy the close frame before the client reads it.
//!
//! A connection that lingers longer than [`LINGER_TIMEOUT`], or is beyond [`LINGERING_MAX`], is
//! closed at once.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::live_connection::{Unsent, read_some};
use crate::clock;
use crate::socket::limits::ConnectionPermit;

/// How long a client may take to read the rest and close.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections lingering at the same time in one worker.
const LINGERING_MAX: usize = 1_024;

/// The first token of lingering connections; smaller ones are slots of live connections.
pub const FIRST_LINGER_TOKEN: usize = 1 << 40;

/// A connection that has ended for its shard.
#[derive(Debug)]
pub struct EndedConnection {
    /// The socket, registered with the worker's poll.
    pub stream: TcpStream,
    /// What is still to be sent, including a close frame.
    pub unsent: Unsent,
    /// Keeps the connection counted until the client has read the end.
    pub permit: ConnectionPermit,
}

#[derive(Debug)]
struct LingeringConnection {
    stream: TcpStream,
    unsent: Unsent,
    deadline: Instant,
    is_shut: bool,
    _permit: ConnectionPermit,
}

/// The lingering connections of one worker.
#[derive(Debug, Default)]
pub struct Lingering {
    slots: Vec<Option<LingeringConnection>>,
    count: usize,
}

impl Lingering {
    /// Whether no connection lingers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Starts to close a connection; at the limit, closes it at once.
    pub fn add(&mut self, registry: &Registry, ended: EndedConnection) {
        let EndedConnection { mut stream, unsent, permit } = ended;
        if self.count >= LINGERING_MAX {
            return;
        }
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.reregister(&mut stream, Token(FIRST_LINGER_TOKEN + free), interest).is_err() {
            return;
        }
        let deadline = clock::now() + LINGER_TIMEOUT;
        let lingering =
            LingeringConnection { stream, unsent, deadline, is_shut: false, _permit: permit };
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some(lingering);
        self.count += 1;
        self.advance(FIRST_LINGER_TOKEN + free);
    }

    /// Continues with the connection of this token, which had an event.
    pub fn advance(&mut self, token: usize) {
        let Some(slot) = self.slots.get_mut(token - FIRST_LINGER_TOKEN) else { return };
        if slot.as_mut().is_some_and(|lingering| !lingering.advance()) {
            *slot = None;
            self.count -= 1;
        }
    }

    /// Closes those whose deadline has passed.
    pub fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|lingering| lingering.deadline <= now) {
                *slot = None;
                self.count -= 1;
            }
        }
        if self.count == 0 {
            self.slots = Vec::new();
        }
    }
}

impl LingeringConnection {
    /// Sends and reads what is possible now; `false` once the connection is done.
    fn advance(&mut self) -> bool {
        if self.unsent.send(&self.stream).is_err() {
            return false;
        }
        if self.unsent.is_empty() && !self.is_shut {
            self.is_shut = true;
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        let mut discarded = [0; 4_096];
        // Bounded, because a client that never stops sending would occupy the worker; it gets a
        // reset instead.
        for _ in 0..16 {
            match read_some(&self.stream, &mut discarded) {
                Ok(None) => return true,
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(_)) => {}
            }
        }
        false
    }
}
