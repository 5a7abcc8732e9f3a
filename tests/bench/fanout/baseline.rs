//! The baseline server: axum with a task per connection and a tokio broadcast channel.
//!
//! It is what most people would write, with one `send().await` per message. It is fed like
//! Tidewire, by HTTP with one event per line, and only passes events on: no log, no positions, no
//! resume. A connection that is too slow loses events (`Lagged`), which fails the run.

use std::io;

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};

/// The first argument that makes this program the server instead of the generator.
pub(crate) const SUBCOMMAND: &str = "serve-baseline";

/// Events a slow connection may lag behind; four times what the generator keeps in flight.
const CHANNEL_EVENTS: usize = 1_024;

type Events = broadcast::Sender<Utf8Bytes>;

/// Serves on a free loopback port, which its first line prints, until killed.
pub(crate) fn serve() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            stream.set_nodelay(true).expect("a new TCP stream takes TCP_NODELAY");
        });
        let (events, _) = broadcast::channel::<Utf8Bytes>(CHANNEL_EVENTS);
        let router = Router::new()
            .route("/ws", get(subscribe))
            .route("/publish", post(publish))
            .layer(DefaultBodyLimit::max(4 << 20))
            .with_state(events);
        axum::serve(listener, router).await
    })
}

async fn subscribe(upgrade: WebSocketUpgrade, State(events): State<Events>) -> Response {
    let receiver = events.subscribe();
    upgrade.on_upgrade(move |socket| deliver(socket, receiver))
}

async fn deliver(mut socket: WebSocket, mut receiver: broadcast::Receiver<Utf8Bytes>) {
    loop {
        tokio::select! {
            event = receiver.recv() => match event {
                Ok(text) => {
                    if socket.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            incoming = socket.recv() => {
                if !matches!(incoming, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}

async fn publish(State(events): State<Events>, body: String) -> StatusCode {
    for line in body.lines() {
        // No subscribers is not an error.
        events.send(Utf8Bytes::from(line)).ok();
    }
    StatusCode::ACCEPTED
}
