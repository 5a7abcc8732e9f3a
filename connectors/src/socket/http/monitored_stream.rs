//! The socket under hyper: records progress, unsent bytes, and responses that hyper makes itself.
//!
//! Hyper answers a request that it can't parse by a head of its own, without a body and without
//! calling the service. Such a head is kept back here, so that the server can send an error in its
//! usual form. It is known by the time it is written: no request is open, no response unsent.
//!
//! A connection is stalled if no byte moves, except while a handler works: then the client waits
//! for the server and not the server for the client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock;

#[derive(Debug)]
struct ActivityState {
    start: Instant,
    /// When a byte moved or a handler ended.
    moved_ms: AtomicU64,
    /// Handlers that work.
    handlers: AtomicUsize,
    /// Requests from their arrival until hyper has taken the whole response.
    exchanges: AtomicUsize,
    /// Whether hyper may have a part of a response that is not written.
    unsent: AtomicBool,
}

/// What happens on a connection; readable while hyper owns the socket.
#[derive(Clone, Debug)]
pub(super) struct ConnectionActivity(Arc<ActivityState>);

/// Counts a request until its response has been given to hyper, or is not needed any more.
#[derive(Debug)]
pub(super) struct OpenExchange(ConnectionActivity);

/// Counts a handler that works.
#[derive(Debug)]
pub(super) struct HandlerInProgress(ConnectionActivity);

impl ConnectionActivity {
    pub(super) fn new() -> Self {
        Self(Arc::new(ActivityState {
            start: clock::now(),
            moved_ms: AtomicU64::default(),
            handlers: AtomicUsize::default(),
            exchanges: AtomicUsize::default(),
            unsent: AtomicBool::default(),
        }))
    }

    /// Begins a request. The handler ends first, the exchange with the body of the response.
    pub(super) fn begin(&self) -> (OpenExchange, HandlerInProgress) {
        self.0.handlers.fetch_add(1, Ordering::Relaxed);
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
        self.0.unsent.store(true, Ordering::Relaxed);
        (OpenExchange(self.clone()), HandlerInProgress(self.clone()))
    }

    /// Whether nothing has moved for longer than `limit` although the server waits for the client.
    pub(super) fn has_stalled(&self, limit: Duration) -> bool {
        let still_ms = self.now_ms().saturating_sub(self.0.moved_ms.load(Ordering::Relaxed));
        self.0.handlers.load(Ordering::Relaxed) == 0 && Duration::from_millis(still_ms) > limit
    }

    fn mark(&self) {
        self.0.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn has_open_exchange(&self) -> bool {
        self.0.exchanges.load(Ordering::Relaxed) > 0
    }

    /// Everything that hyper had is written.
    fn mark_flushed(&self) {
        if !self.has_open_exchange() {
            self.0.unsent.store(false, Ordering::Relaxed);
        }
    }

    /// Whether bytes that are written now belong to no request.
    fn is_between_requests(&self) -> bool {
        !self.has_open_exchange() && !self.0.unsent.load(Ordering::Relaxed)
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        self.0.0.exchanges.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for HandlerInProgress {
    fn drop(&mut self) {
        self.0.mark();
        self.0.0.handlers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The socket under hyper.
#[derive(Debug)]
pub(super) struct MonitoredStream {
    pub(super) stream: TcpStream,
    /// Whether hyper still holds unsent bytes.
    pub(super) writing: bool,
    /// The head of a response that hyper made itself, which was not sent.
    pub(super) refusal: Vec<u8>,
    activity: ConnectionActivity,
}

impl MonitoredStream {
    pub(super) fn new(stream: TcpStream, activity: ConnectionActivity) -> Self {
        Self { stream, writing: false, refusal: Vec::new(), activity }
    }

    fn note_write(&mut self, done: &Poll<io::Result<usize>>, asked: usize) {
        self.writing = !matches!(done, Poll::Ready(Ok(written)) if *written == asked);
        if done.is_ready() {
            self.activity.mark();
        }
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_ready() {
            self.activity.mark();
        }
        done
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.activity.is_between_requests() {
            self.refusal.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(&done, bytes.len());
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = parts.iter().map(|part| part.len()).sum();
        if self.activity.is_between_requests() {
            parts.iter().for_each(|part| self.refusal.extend_from_slice(part));
            return Poll::Ready(Ok(asked));
        }
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note_write(&done, asked);
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(done, Poll::Ready(Ok(()))) {
            // Hyper flushes the socket once its own buffer is empty.
            self.activity.mark_flushed();
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
