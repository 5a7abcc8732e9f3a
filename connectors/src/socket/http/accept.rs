//! The accept loop: accepts connections and serves each, or refuses it at a connection limit.
//!
//! A refused client gets an answer too (429 or 503 with `Retry-After`, or a stream that ends at
//! once), from a router that answers nothing else. Only [`REFUSALS_AT_ONCE`] of them are open at
//! once, since they use files that are reserved for other things; those beyond are closed
//! unanswered. Out of files, accepting pauses.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::connection::HttpServer;
use super::routes::refusal_router;
use super::state::RouterState;
use super::takeover::DetachedConnection;
use crate::socket::limits::{ConnectionLimiter, LimitReached, REFUSALS_AT_ONCE};
use crate::telemetry;

/// Connections the kernel queues until they are accepted; `net.core.somaxconn` may lower it.
const BACKLOG: u32 = 4_096;

/// How long accepting pauses when the process or the system is out of files or memory.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);

/// Gives a connection that left the HTTP server to a worker.
pub type HandOver = dyn Fn(DetachedConnection) + Send + Sync;

/// Accepts connections and serves them.
pub struct Acceptor {
    /// Serves the connections.
    pub server: HttpServer,
    /// Checks the requests that are refused.
    pub state: RouterState,
    /// Counts the connections.
    pub limiter: Arc<ConnectionLimiter>,
    /// Where connections go that become streams.
    pub hand_over: Arc<HandOver>,
}

/// Opens the listening socket.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

impl Acceptor {
    /// Accepts until the gateway drains, then closes the listener.
    pub async fn run(self, listener: TcpListener) {
        let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
        let mut draining = self.server.draining.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match accepted {
                Ok((stream, from)) => self.serve_or_refuse(stream, from, &refusals),
                Err(error) => pause_if_out_of_files(&error).await,
            }
        }
    }

    fn serve_or_refuse(&self, stream: TcpStream, from: SocketAddr, refusals: &Arc<Semaphore>) {
        // Otherwise the last bytes of a response could wait for the client's acknowledgement.
        if stream.set_nodelay(true).is_err() {
            telemetry::connection_closed("reset");
            return;
        }
        match self.limiter.acquire(from.ip()) {
            Ok(permit) => {
                let server = self.server.clone();
                let hand_over = Arc::clone(&self.hand_over);
                tokio::spawn(async move {
                    if let Some(detached) = server.serve(stream, Some(permit)).await {
                        hand_over(detached);
                    }
                });
            }
            Err(full) => self.refuse(stream, full, refusals),
        }
    }

    fn refuse(&self, stream: TcpStream, full: LimitReached, refusals: &Arc<Semaphore>) {
        let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else {
            telemetry::connection_refused("unanswered");
            return;
        };
        let router = refusal_router(&self.state, full);
        let server = HttpServer { router, ..self.server.clone() };
        tokio::spawn(async move {
            server.serve(stream, None).await;
            drop(permit);
        });
    }
}

async fn pause_if_out_of_files(error: &io::Error) {
    let full = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| full.contains(&code)) {
        tracing::warn!(%error, "out of files or memory; accepting pauses; raise the file limit");
        telemetry::connection_refused("out_of_files");
        tokio::time::sleep(OUT_OF_FILES_PAUSE).await;
    }
}
