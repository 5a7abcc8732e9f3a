//! Serves one HTTP connection with hyper, and detaches its socket when a request opens a stream.
//!
//! The handler of a WebSocket or SSE request leaves a [`Takeover`](super::takeover::Takeover) in
//! the connection's [`TakeoverSlot`]. The service then returns an error instead of a response, for
//! which hyper writes nothing and returns the socket with the bytes it had read ahead. The worker
//! so gets every byte the client sent after its request, and no task, timer or buffer of the HTTP
//! server remains.
//!
//! A connection on which no byte moves is dropped after a while, unless a handler works, and so is
//! one whose client reads a response too slowly. A request
//! that is not valid HTTP is answered here, since hyper calls no service for it. This file never
//! decides who may connect.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower_service::Service;

use super::extensions::{AnswerPermit, ClientAddress, PermitSlot, TakeoverSlot};
use super::monitored_stream::{ConnectionActivity, MonitoredStream};
use super::response::ErrorResponse;
use super::security_headers;
use super::takeover::DetachedConnection;
use crate::socket::limits::{ConnectionPermit, REQUEST_HEAD_BYTES, RequestTimeouts};
use crate::telemetry;

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
    activity: ConnectionActivity,
}

impl hyper::service::Service<Request<Incoming>> for HyperService {
    type Response = Response;
    type Error = TakeoverRequested;
    type Future = Pin<Box<dyn Future<Output = Result<Response, TakeoverRequested>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { mut router, takeover_slot, permit_slot, client, activity } = self.clone();
        let (exchange, handler) = activity.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(takeover_slot.clone());
        request.extensions_mut().insert(permit_slot);
        request.extensions_mut().insert(client);
        Box::pin(async move {
            let Ok(mut response) = router.call(request).await;
            drop(handler);
            if takeover_slot.is_set() {
                return Err(TakeoverRequested);
            }
            if let Some(answer) = response.extensions_mut().remove::<AnswerPermit>() {
                activity.hold(answer);
            }
            Ok(response.map(|body| {
                // The closure holds the exchange until hyper drops the body.
                Body::new(body.map_err(move |error| {
                    let _open = &exchange;
                    error
                }))
            }))
        })
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
            activity: ConnectionActivity::new(),
        };
        let io = MonitoredStream::new(stream, service.activity.clone(), self.timeouts);
        let mut parts = serve_http(io, service, self.timeouts, self.draining).await?;
        let Some(takeover) = takeover_slot.take() else {
            if !parts.io.refusal.is_empty() {
                refuse(&mut parts.io).await;
            }
            if !parts.io.is_unread {
                linger(parts.io.stream).await;
            }
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
    timeouts: RequestTimeouts,
    mut draining: watch::Receiver<bool>,
) -> Option<FinishedConnection> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        // A client that sends nothing after its request may end its half with it.
        .half_close(true)
        .max_headers(REQUEST_HEADERS)
        .max_header_size(REQUEST_HEAD_BYTES)
        .max_buf_size(HTTP_BUFFER_BYTES);
    let takeover_slot = service.takeover_slot.clone();
    let activity = service.activity.clone();
    let mut connection = http.serve_connection(TokioIo::new(io), service);
    let mut stall_check = tokio::time::interval(timeouts.stall / 3);
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
                if activity.has_stalled(timeouts.stall) {
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

/// Answers a request that hyper could not parse: hyper's head with the error as its body.
async fn refuse(io: &mut MonitoredStream) {
    telemetry::connection_refused("invalid_http");
    let answer = refusal(&String::from_utf8_lossy(&io.refusal));
    let written = io.stream.write_all(answer.as_bytes());
    // Failed or timed out: the client does not read, and the connection ends in any case.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, written).await;
}

/// Where hyper's head has room for a body.
const NO_BODY: &str = "content-length: 0\r\n";

fn refusal(head: &str) -> String {
    let message = match head.get(9..12) {
        Some("431" | "414") => format!(
            "the head of the request is too large: it has at most {REQUEST_HEAD_BYTES} bytes and \
             {REQUEST_HEADERS} headers; send fewer or shorter headers"
        ),
        _ => "the request is not valid HTTP/1.1: its first line is METHOD PATH HTTP/1.1, every \
              other line of its head NAME: VALUE, and this port does not speak TLS or HTTP/2"
            .to_owned(),
    };
    let body = ErrorResponse::new(ErrorCode::InvalidMessage, message).body();
    let fields = format!(
        "content-type: application/json\r\ncache-control: no-store\r\n{}content-length: {}\r\n",
        security_headers::lines(),
        body.len()
    );
    let head = head.replacen(NO_BODY, &fields, 1);
    if head.contains(&fields) { head + &body } else { head }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_hyper_gets_a_body() {
        let hyper = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                     content-length: 0\r\ndate: Mon, 05 Jan 2026 10:00:00 GMT\r\n\r\n";
        let answer = refusal(hyper);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("date: Mon, 05 Jan 2026 10:00:00 GMT"), "{head}");
        assert!(body.contains("16384 bytes and 64 headers"), "{body}");
        assert_eq!(refusal("HTTP/1.1 400 Bad Request\r\n\r\n"), "HTTP/1.1 400 Bad Request\r\n\r\n");
    }
}
