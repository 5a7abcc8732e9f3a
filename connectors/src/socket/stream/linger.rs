//! Lingering close: sends a closed connection's last bytes and waits for the client to close.
//!
//! The rest is sent, then the sending half is shut down, and what the client still sends is read
//! and discarded until it closes, too. Closing a socket with unread bytes would reset the
//! connection, and a reset can destroy the close frame before the client reads it.
//!
//! Every connection that ends lingers, for [`LINGER_TIMEOUT`] or [`DISCARDED_BYTES_MAX`] at most.
//! Their number is bounded by the connection limit of the process, since each keeps its permit.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::live_connection::{Unsent, read_some};
use crate::clock;
use crate::socket::limits::ConnectionPermit;

/// How long a client may take to read the rest and close.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a client that are discarded after the close frame: a large message that it is still
/// sending. One that sends more gets a reset.
const DISCARDED_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Bytes discarded at once, on the stack.
const READ_BYTES: usize = 16 * 1_024;

/// Reads of one connection per turn.
const READS_PER_TURN: usize = 4;

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
    discarded: usize,
    _permit: ConnectionPermit,
}

/// The lingering connections of one worker.
#[derive(Debug, Default)]
pub struct Lingering {
    slots: Vec<Option<LingeringConnection>>,
    /// Slots without a connection.
    free: Vec<usize>,
    /// Slots whose socket may hold more to read.
    reading: Vec<usize>,
}

/// What is left to do for a lingering connection.
#[derive(PartialEq, Eq)]
enum LingerState {
    /// To wait for the client.
    Waiting,
    /// To read on in the next turn.
    Reading,
    /// Nothing.
    Done,
}

impl Lingering {
    /// Whether no connection lingers.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Whether [`Lingering::read_more`] has something to do.
    pub fn has_more_to_read(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Starts to close a connection.
    pub fn add(&mut self, registry: &Registry, ended: EndedConnection) {
        let EndedConnection { stream, unsent, permit } = ended;
        let deadline = clock::now() + LINGER_TIMEOUT;
        let mut lingering = LingeringConnection {
            stream,
            unsent,
            deadline,
            is_shut: false,
            discarded: 0,
            _permit: permit,
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(FIRST_LINGER_TOKEN + slot);
        if registry.reregister(&mut lingering.stream, token, interest).is_err() {
            // One attempt to send the end, without events about it.
            lingering.advance();
            self.free.push(slot);
            return;
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(lingering);
        self.advance_slot(slot);
    }

    /// Continues with the connection of this token, which had an event.
    pub fn advance(&mut self, token: usize) {
        self.advance_slot(token - FIRST_LINGER_TOKEN);
    }

    /// Continues with the connections that had more to read than their share of a turn.
    pub fn read_more(&mut self) {
        for slot in std::mem::take(&mut self.reading) {
            self.advance_slot(slot);
        }
    }

    fn advance_slot(&mut self, slot: usize) {
        let Some(Some(lingering)) = self.slots.get_mut(slot) else { return };
        match lingering.advance() {
            LingerState::Waiting => {}
            LingerState::Reading if self.reading.contains(&slot) => {}
            LingerState::Reading => self.reading.push(slot),
            LingerState::Done => self.remove(slot),
        }
    }

    fn remove(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// Closes those whose deadline has passed.
    pub fn expire(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|lingering| lingering.deadline <= now) {
                self.remove(slot);
            }
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl LingeringConnection {
    /// Sends and reads this turn's share.
    fn advance(&mut self) -> LingerState {
        if self.unsent.send(&self.stream).is_err() {
            return LingerState::Done;
        }
        if self.unsent.is_empty() && !self.is_shut {
            self.is_shut = true;
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return LingerState::Done;
            }
        }
        let mut bytes = [0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            match read_some(&self.stream, &mut bytes) {
                Ok(None) => return LingerState::Waiting,
                Ok(Some(0)) | Err(_) => return LingerState::Done,
                Ok(Some(count)) => self.discarded += count,
            }
        }
        if self.discarded > DISCARDED_BYTES_MAX { LingerState::Done } else { LingerState::Reading }
    }
}
