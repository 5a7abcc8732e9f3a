//! The socket under hyper: records progress, unsent bytes, and responses that hyper makes itself.
//!
//! Hyper answers a request that it can't parse by a head of its own, without a body and without
//! calling the service. Such a head is kept back here, so that the server can send an error in its
//! usual form. It is known by the time it is written: no request is open, no response unsent.
//!
//! A connection is stalled if no byte moves, except while a handler works: then the client waits
//! for the server and not the server for the client. A response that its client reads too slowly
//! fails the write, which ends the connection; the response's bytes are in the budget until then.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::extensions::AnswerPermit;
use super::transfer_rate::RateInterval;
use crate::socket::limits::RequestTimeouts;
use crate::{clock, telemetry};

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
    /// The permits of responses that are not written.
    answers: Mutex<Vec<AnswerPermit>>,
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
            answers: Mutex::default(),
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

    /// Keeps the permit of a response until it is written.
    pub(super) fn hold(&self, answer: AnswerPermit) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// The rate at which the unwritten responses have to be read now.
    fn least_bytes_per_s(&self) -> u64 {
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().map(|AnswerPermit(permit)| permit.least_bytes_per_s()).sum()
    }

    /// Everything that hyper had is written.
    fn mark_flushed(&self) {
        if !self.has_open_exchange() {
            self.0.unsent.store(false, Ordering::Relaxed);
            self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

/// A response that the socket does not accept as a whole, because the client does not read.
#[derive(Debug)]
struct UnreadResponse {
    begun: Instant,
    rate: RateInterval,
    next_check: Pin<Box<Sleep>>,
}

impl UnreadResponse {
    fn begin(timeouts: &RequestTimeouts) -> Self {
        let rate = RateInterval::begin(timeouts.rate_check());
        let next_check = Box::pin(tokio::time::sleep(rate.length()));
        Self { begun: clock::now(), rate, next_check }
    }

    /// Ready once the client has read too slowly. It is checked in intervals.
    fn poll_too_slow(
        &mut self,
        cx: &mut Context<'_>,
        timeout: Duration,
        activity: &ConnectionActivity,
    ) -> Poll<()> {
        loop {
            ready!(self.next_check.as_mut().poll(cx));
            let is_late = self.begun.elapsed() >= timeout;
            if is_late || self.rate.end(activity.least_bytes_per_s()) == Some(false) {
                return Poll::Ready(());
            }
            self.next_check.set(tokio::time::sleep(self.rate.length()));
        }
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
    /// Whether the client read a response too slowly; the connection is of no use then.
    pub(super) is_unread: bool,
    unread: Option<UnreadResponse>,
    timeouts: RequestTimeouts,
    activity: ConnectionActivity,
}

impl MonitoredStream {
    pub(super) fn new(
        stream: TcpStream,
        activity: ConnectionActivity,
        timeouts: RequestTimeouts,
    ) -> Self {
        Self {
            stream,
            writing: false,
            refusal: Vec::new(),
            is_unread: false,
            unread: None,
            timeouts,
            activity,
        }
    }

    /// Takes note of a write of `asked` bytes; it fails if the client reads too slowly.
    fn note_write(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
        asked: usize,
    ) -> Poll<io::Result<usize>> {
        self.writing = !matches!(done, Poll::Ready(Ok(written)) if written == asked);
        if done.is_ready() {
            self.activity.mark();
        }
        if !self.writing {
            self.unread = None;
            return done;
        }
        let unread = self.unread.get_or_insert_with(|| UnreadResponse::begin(&self.timeouts));
        match done {
            Poll::Ready(Ok(written)) => unread.rate.add(written),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                ready!(unread.poll_too_slow(cx, self.timeouts.response, &self.activity));
                telemetry::connection_closed("http_unread");
                self.is_unread = true;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        done
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
        self.note_write(cx, done, bytes.len())
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
        self.note_write(cx, done, asked)
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
