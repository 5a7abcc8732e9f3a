//! Connections that have ended for their shard and only have to reach their clients' notice.
//!
//! What is left to send is sent, then the sending half is shut; the receiving half is read and
//! thrown away until the client ends it too. Closing while the client's bytes lie unread would
//! reset the connection, and a reset destroys the close frame on its way. All of it is bounded by a
//! deadline and by [`LINGERING`].

use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::limits::Seat;
use super::peer::{Unsent, read_some, write_some};
use crate::clock;

/// How long a client may take to read the end.
pub const LINGER: Duration = Duration::from_secs(2);

/// Connections lingering at once in one worker; those beyond are closed at once.
const LINGERING: usize = 1_024;

/// Tokens from here on are lingering connections'.
pub const FIRST_TOKEN: usize = 1 << 40;

#[derive(Debug)]
struct Leaving {
    stream: TcpStream,
    unsent: Unsent,
    deadline: Instant,
    is_shut: bool,
    _seat: Seat,
}

/// The lingering connections of one worker.
#[derive(Debug, Default)]
pub struct Lingering {
    places: Vec<Option<Leaving>>,
    count: usize,
}

impl Lingering {
    /// Whether nobody lingers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes over a registered connection. Without room for it, it is closed at once.
    pub fn add(
        &mut self,
        registry: &Registry,
        mut stream: TcpStream,
        (unsent, seat): (Unsent, Seat),
    ) {
        if self.count >= LINGERING {
            return;
        }
        let free = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.reregister(&mut stream, Token(FIRST_TOKEN + free), interest).is_err() {
            return;
        }
        let deadline = clock::now() + LINGER;
        let leaving = Leaving { stream, unsent, deadline, is_shut: false, _seat: seat };
        if free == self.places.len() {
            self.places.push(None);
        }
        self.places[free] = Some(leaving);
        self.count += 1;
        self.advance(FIRST_TOKEN + free);
    }

    /// Goes on with the connection of this token.
    pub fn advance(&mut self, token: usize) {
        let Some(place) = self.places.get_mut(token - FIRST_TOKEN) else { return };
        if place.as_mut().is_some_and(|leaving| !leaving.advance()) {
            *place = None;
            self.count -= 1;
        }
    }

    /// Closes those whose time is over.
    pub fn expire(&mut self, now: Instant) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|leaving| leaving.deadline <= now) {
                *place = None;
                self.count -= 1;
            }
        }
        if self.count == 0 {
            self.places = Vec::new();
        }
    }
}

impl Leaving {
    /// `false` once it is over.
    fn advance(&mut self) -> bool {
        if !self.unsent.is_empty() {
            let mut rest = Vec::new();
            self.unsent.move_to(&mut rest);
            match write_some(&self.stream, &rest) {
                Ok(sent) => self.unsent.keep(&rest[sent..]),
                Err(_) => return false,
            }
        }
        if self.unsent.is_empty() && !self.is_shut {
            self.is_shut = true;
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        let mut nowhere = [0; 4_096];
        // Bounded, so that a client that never stops sending can't keep the worker; what is left
        // unread then costs it the reset.
        for _ in 0..16 {
            match read_some(&self.stream, &mut nowhere) {
                Ok(None) => return true,
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(_)) => {}
            }
        }
        false
    }
}
