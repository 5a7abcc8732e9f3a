//! Serves one HTTP connection with hyper, and detaches its socket when a request opens a stream.
//!
//! The handler of a WebSocket or SSE request leaves a [`Takeover`](super::takeover::Takeover) in
//! the connection's [`TakeoverSlot`]. The service then returns an error instead of a response, for
//! which hyper writes nothing and returns the socket with the bytes it had read ahead. The worker
//! so gets every byte the client sent after its request, and no task, timer or buffer of the HTTP
//! server remains.
//!
//! A connection on which no byte moves for [`STALL_TIMEOUT`] is dropped. This file never decides
//! who may connect and never writes a response of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

use super::extensions::{ClientAddress, PermitSlot, TakeoverSlot};
use super::takeover::DetachedConnection;
use crate::socket::limits::{ConnectionPermit, REQUEST_HEAD_BYTES, RequestTimeouts, STALL_TIMEOUT};
use crate::{clock, telemetry};

/// Hyper's read buffer. A larger body arrives in several reads.
const HTTP_BUFFER_BYTES: usize = 64 * 1_024;

/// Headers of one request.
pub const REQUEST_HEADERS: usize = 64;

/// For how long, and up to how many bytes, a client may go on sending after its last response:
/// closing with unread bytes resets the connection, and a reset can destroy that response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 8 * 1_024 * 1_024;

/// The error that makes hyper return the socket.
#[derive(Debug, thiserror::Error)]
#[error("the connection leaves the HTTP server")]
struct TakeoverRequested;

/// The router as hyper's service: fills each request's extensions, and returns
/// [`TakeoverRequested`] if the handler left a takeover.
#[derive(Clone)]
struct HyperService {
    router: Router,
    takeover_slot: TakeoverSlot,
    permit_slot: PermitSlot,
    client: ClientAddress,
}

impl hyper::service::Service<Request<Incoming>> for HyperService {
    type Response = Response;
    type Error = TakeoverRequested;
    type Future = Pin<Box<dyn Future<Output = Result<Response, TakeoverRequested>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { mut router, takeover_slot, permit_slot, client } = self.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(takeover_slot.clone());
        request.extensions_mut().insert(permit_slot);
        request.extensions_mut().insert(client);
        Box::pin(async move {
            let Ok(response) = router.call(request).await;
            if takeover_slot.is_set() { Err(TakeoverRequested) } else { Ok(response) }
        })
    }
}

/// When bytes last moved on a connection; readable while hyper owns the socket.
#[derive(Clone, Debug)]
struct IoProgress {
    start: Instant,
    moved_ms: Arc<AtomicU64>,
}

impl IoProgress {
    fn new() -> Self {
        Self { start: clock::now(), moved_ms: Arc::default() }
    }

    fn mark(&self) {
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

/// The socket under hyper. Records progress, and whether hyper still holds unsent bytes.
#[derive(Debug)]
struct MonitoredStream {
    stream: TcpStream,
    progress: IoProgress,
    writing: bool,
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_ready() {
            self.progress.mark();
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
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(&done, bytes.len());
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note_write(&done, parts.iter().map(|part| part.len()).sum());
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

impl MonitoredStream {
    fn note_write(&mut self, done: &Poll<io::Result<usize>>, asked: usize) {
        self.writing = !matches!(done, Poll::Ready(Ok(written)) if *written == asked);
        if done.is_ready() {
            self.progress.mark();
        }
    }
}

/// Serves HTTP connections.
#[derive(Clone)]
pub struct HttpServer {
    /// Answers the requests.
    pub router: Router,
    /// How long clients may take.
    pub timeouts: RequestTimeouts,
    /// Turns true when the gateway drains: the response in progress is the last.
    pub draining: watch::Receiver<bool>,
}

impl HttpServer {
    /// Serves requests until the connection ends (`None`) or leaves for a worker. A connection
    /// without a permit can't leave.
    pub async fn serve(
        self,
        stream: TcpStream,
        permit: Option<ConnectionPermit>,
    ) -> Option<DetachedConnection> {
        let takeover_slot = TakeoverSlot::default();
        let permit_slot = PermitSlot::new(permit);
        let client = ClientAddress(stream.peer_addr().ok().map(|address| address.ip()));
        let (slot_clone, permit_clone) = (takeover_slot.clone(), permit_slot.clone());
        let service = HyperService {
            router: self.router,
            takeover_slot: slot_clone,
            permit_slot: permit_clone,
            client,
        };
        let io = MonitoredStream { stream, progress: IoProgress::new(), writing: false };
        let parts = serve_http(io, service, self.timeouts.head, self.draining).await?;
        let Some(takeover) = takeover_slot.take() else {
            linger(parts.io.stream).await;
            return None;
        };
        let permit = permit_slot.take()?;
        if parts.io.writing {
            // The response to an earlier, pipelined request is unsent in hyper and would be lost.
            telemetry::connection_refused("pipelined");
            return None;
        }
        match parts.io.stream.into_std() {
            Ok(stream) => {
                Some(DetachedConnection { stream, read_ahead: parts.read_ahead, takeover, permit })
            }
            Err(error) => {
                tracing::warn!(%error, "a socket could not leave the HTTP server and is closed");
                None
            }
        }
    }
}

struct FinishedConnection {
    io: MonitoredStream,
    read_ahead: Bytes,
}

/// Runs hyper on the socket. `None`: the connection stalled and was dropped.
async fn serve_http(
    io: MonitoredStream,
    service: HyperService,
    head_timeout: Duration,
    mut draining: watch::Receiver<bool>,
) -> Option<FinishedConnection> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(REQUEST_HEADERS)
        .max_header_size(REQUEST_HEAD_BYTES)
        .max_buf_size(HTTP_BUFFER_BYTES);
    let takeover_slot = service.takeover_slot.clone();
    let progress = io.progress.clone();
    let mut connection = http.serve_connection(TokioIo::new(io), service);
    let mut stall_check = tokio::time::interval(STALL_TIMEOUT / 3);
    let mut is_draining = *draining.borrow();
    if is_draining {
        Pin::new(&mut connection).graceful_shutdown();
    }
    loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if let Err(error) = ended && !takeover_slot.is_set() {
                    tracing::debug!(%error, "an HTTP connection ended with an error");
                }
                break;
            }
            changed = draining.changed(), if !is_draining => {
                is_draining = true;
                if changed.is_ok() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
            _ = stall_check.tick() => {
                if progress.has_stalled() {
                    // The client neither reads nor writes, so a response would not reach it.
                    telemetry::connection_closed("http_stalled");
                    return None;
                }
            }
        }
    }
    let parts = connection.into_parts();
    Some(FinishedConnection { io: parts.io.into_inner(), read_ahead: parts.read_buf })
}

/// Ends a connection so that its last response arrives even if the client is still sending.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(LINGER_BYTES);
    let mut sink = tokio::io::sink();
    let drained = tokio::io::copy(&mut rest, &mut sink);
    // Ended, failed or timed out: the socket is closed next in any case.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drained).await;
}
