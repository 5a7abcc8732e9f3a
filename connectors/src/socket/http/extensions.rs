//! What handlers and their connection tell each other, in extensions of requests and responses.
//!
//! The HTTP server inserts the first three into every request, the check before every handler
//! [`CheckedOrigin`]. A handler may insert [`AnswerPermit`] into its response.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::body_budget::BodyPermit;
use super::guard::RequestOrigin;
use super::takeover::Takeover;
use crate::socket::limits::ConnectionPermit;

/// The address of the client; unknown if the socket is gone.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub Option<IpAddr>);

/// Where a handler leaves a [`Takeover`] for the connection it runs on.
#[derive(Clone, Debug, Default)]
pub struct TakeoverSlot(Arc<Mutex<Option<Takeover>>>);

impl TakeoverSlot {
    /// Makes the connection leave the HTTP server once the handler has returned.
    pub fn put(&self, takeover: Takeover) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
    }

    /// Removes what the handler left.
    pub(super) fn take(&self) -> Option<Takeover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the handler left something.
    pub(super) fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The connection's permit, lent to handlers so that they can count its user.
#[derive(Clone, Debug)]
pub struct PermitSlot(Arc<Mutex<Option<ConnectionPermit>>>);

impl PermitSlot {
    /// Holds the permit; empty for a connection that got none.
    pub(super) fn new(permit: Option<ConnectionPermit>) -> Self {
        Self(Arc::new(Mutex::new(permit)))
    }

    /// Calls `with` on the permit; `None` if there is none, or the connection has left.
    pub fn with_permit<T>(&self, with: impl FnOnce(&mut ConnectionPermit) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(with)
    }

    /// Removes the permit, for the worker.
    pub(super) fn take(&self) -> Option<ConnectionPermit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the guard found out about a request that it let pass.
#[derive(Clone, Debug)]
pub struct CheckedOrigin(pub RequestOrigin);

/// The permit for the bytes of a response, which the connection keeps until they are written.
#[derive(Clone, Debug)]
pub struct AnswerPermit(pub Arc<BodyPermit>);
