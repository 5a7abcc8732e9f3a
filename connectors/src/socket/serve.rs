//! One HTTP connection: hyper speaks, the router answers, and a stream that is going to live long
//! is taken out of both.
//!
//! The one idea: a WebSocket or SSE request is judged by an ordinary handler, which leaves a
//! [`Takeover`] in the connection's [`Exit`]. The service then ends with an error instead of a
//! response. Hyper writes nothing for that, and gives back the socket and the bytes it had read too
//! far, so a shard gets the connection exactly as the client left it. After that no task, no timer
//! and no buffer of the HTTP server is left behind for it.
//!
//! It never decides who may connect and never writes a response of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower_service::Service;

use super::limits::{Patience, REQUEST_HEAD_BYTES, STALL_TIMEOUT, Seat};
use super::takeover::Takeover;
use super::verbs::Peer;
use crate::{clock, telemetry};

/// Hyper's read buffer. A body larger than this arrives in pieces.
const HTTP_BUFFER_BYTES: usize = 64 * 1_024;

/// Headers of one request.
const HEADERS: usize = 64;

/// How long, and how much, a client that is still sending may go on after its answer: closing at
/// once would reset the connection and could destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 8 * 1_024 * 1_024;

/// Where a handler leaves a [`Takeover`] for the connection it runs on. In every request's
/// extensions.
#[derive(Clone, Debug, Default)]
pub struct Exit(Arc<Mutex<Option<Takeover>>>);

impl Exit {
    /// Asks for this connection to leave the HTTP server once the handler has returned.
    pub fn leave(&self, takeover: Takeover) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
    }

    fn take(&self) -> Option<Takeover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_asked(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The connection's seat, lent to handlers so that they can count its user. In every request's
/// extensions.
#[derive(Clone, Debug)]
pub struct Place(Arc<Mutex<Option<Seat>>>);

impl Place {
    /// Calls `with` on the seat; `None` once the connection has left.
    pub fn with_seat<T>(&self, with: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(with)
    }
}

/// A connection that left the HTTP server for a shard.
#[derive(Debug)]
pub struct Departure {
    /// The socket, still registered nowhere.
    pub stream: std::net::TcpStream,
    /// What the client sent behind its request.
    pub read_ahead: Bytes,
    /// What is to become of it.
    pub takeover: Takeover,
    /// Its place in the house.
    pub seat: Seat,
}

/// The error that makes hyper let go.
#[derive(Debug, thiserror::Error)]
#[error("the connection leaves the HTTP server")]
struct Leave;

/// Hyper's side of the router: adds what handlers need to each request and ends with [`Leave`] when
/// one asked for it.
#[derive(Clone)]
struct Door {
    router: Router,
    exit: Exit,
    place: Place,
    from: Peer,
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response;
    type Error = Leave;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Leave>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { mut router, exit, place, from } = self.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(exit.clone());
        request.extensions_mut().insert(place);
        request.extensions_mut().insert(from);
        Box::pin(async move {
            let Ok(response) = router.call(request).await;
            if exit.is_asked() { Err(Leave) } else { Ok(response) }
        })
    }
}

/// When bytes last moved on a connection, readable while hyper owns the socket.
#[derive(Clone, Debug)]
struct Progress {
    start: Instant,
    moved_ms: Arc<AtomicU64>,
}

impl Progress {
    fn new() -> Self {
        Self { start: clock::now(), moved_ms: Arc::default() }
    }

    fn note(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn has_stalled(&self) -> bool {
        let still_ms = self.now_ms().saturating_sub(self.moved_ms.load(Ordering::Relaxed));
        Duration::from_millis(still_ms) > STALL_TIMEOUT
    }
}

/// The socket under hyper. It notes progress, and whether bytes wait to be written.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    progress: Progress,
    writing: bool,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_ready() {
            self.progress.note();
        }
        done
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&done, bytes.len());
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(&done, parts.iter().map(|part| part.len()).sum());
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Wire {
    fn note(&mut self, done: &Poll<io::Result<usize>>, asked: usize) {
        self.writing = !matches!(done, Poll::Ready(Ok(written)) if *written == asked);
        if done.is_ready() {
            self.progress.note();
        }
    }
}

/// How a connection is served.
#[derive(Clone)]
pub struct Server {
    /// What answers.
    pub router: Router,
    /// How long clients may take.
    pub patience: Patience,
    /// Turns true when the gateway drains: the answer under way is the last.
    pub draining: watch::Receiver<bool>,
}

impl Server {
    /// Serves requests until the connection ends (`None`) or leaves for a shard. Only who has a
    /// seat can leave.
    pub async fn serve(self, stream: TcpStream, seat: Option<Seat>) -> Option<Departure> {
        let exit = Exit::default();
        let place = Place(Arc::new(Mutex::new(seat)));
        let from = Peer(stream.peer_addr().ok().map(|address| address.ip()));
        let (exit_too, place_too) = (exit.clone(), place.clone());
        let door = Door { router: self.router, exit: exit_too, place: place_too, from };
        let wire = Wire { stream, progress: Progress::new(), writing: false };
        let parts = speak(wire, door, (self.patience.head, self.draining)).await?;
        let Some(takeover) = exit.take() else {
            linger(parts.io.stream).await;
            return None;
        };
        let seat = place.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if parts.io.writing {
            // A pipelined earlier answer is still unsent inside hyper and would be lost.
            telemetry::connection_refused("pipelined");
            return None;
        }
        match parts.io.stream.into_std() {
            Ok(stream) => Some(Departure { stream, read_ahead: parts.read_ahead, takeover, seat }),
            Err(error) => {
                tracing::warn!(%error, "a connection could not leave the HTTP server");
                None
            }
        }
    }
}

struct Ended {
    io: Wire,
    read_ahead: Bytes,
}

/// Runs hyper on the socket. `None`: it stalled and is dropped as it is.
async fn speak(
    wire: Wire,
    door: Door,
    (head_timeout, mut draining): (Duration, watch::Receiver<bool>),
) -> Option<Ended> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS)
        .max_header_size(REQUEST_HEAD_BYTES)
        .max_buf_size(HTTP_BUFFER_BYTES);
    let exit = door.exit.clone();
    let progress = wire.progress.clone();
    let mut connection = http.serve_connection(TokioIo::new(wire), door);
    let mut patrol = tokio::time::interval(STALL_TIMEOUT / 3);
    let mut is_draining = *draining.borrow();
    if is_draining {
        Pin::new(&mut connection).graceful_shutdown();
    }
    loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if let Err(error) = ended && !exit.is_asked() {
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            changed = draining.changed(), if !is_draining => {
                is_draining = true;
                if changed.is_ok() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            _ = patrol.tick() => {
                if progress.has_stalled() {
                    // The peer neither reads nor writes: dropping the socket is all there is.
                    telemetry::connection_closed("http_stalled");
                    return None;
                }
            }
        }
    }
    let parts = connection.into_parts();
    Some(Ended { io: parts.io.into_inner(), read_ahead: parts.read_buf })
}

/// Ends a connection so that its last answer arrives even if the client is still sending.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    let drained = tokio::io::copy(&mut rest, &mut nowhere);
    // Whatever comes of it, the connection is over.
    let _ = tokio::time::timeout(LINGER, drained).await;
}
