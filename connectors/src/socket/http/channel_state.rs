//! `GET /v1/channels/{channel}`: the state of a channel as one JSON document.
//!
//! It is the snapshot that a subscriber gets, with the position from which on the channel's events
//! follow. The entries are shared with everyone who reads the same snapshot and are sent piece by
//! piece, so a slow reader keeps no copy of them.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde_json::{Value, json};
use tidewire_engine::fanout::fold::request::SnapshotAnswer;
use tidewire_engine::fanout::fold::snapshot::ChannelSnapshot;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_engine::fanout::protocol::served_channel::ServedChannel;
use tokio::sync::oneshot;

use super::response::{ErrorResponse, JSON};
use super::state::RouterState;
use super::subscribe::dev_identity;
use super::subscribe_query::SubscribeQuery;

/// How long an answer is waited for: longer than a fold that runs may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// `GET /v1/channels/{channel}`.
pub(super) async fn get(
    State(state): State<RouterState>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let Ok(Path(name)) = name else {
        let message = "the channel in the path is not percent-encoded UTF-8";
        return Err(ErrorResponse::new(ErrorCode::InvalidChannel, message));
    };
    let query = SubscribeQuery::of_state(request.uri().query())?;
    let identity = dev_identity(&query.user()?);
    let channel = ServedChannel::authorize(state.catalogue(), &identity, &name)?;
    if !channel.classes.has_state() {
        let message = format!(
            "`{}` has events and no state: subscribe to it at /v1/sse or /v1/ws",
            channel.name
        );
        return Err(ErrorResponse::new(ErrorCode::NotFound, message));
    }
    state.wait_until_started().await;
    let Some(hub) = state.hub() else { return Err(ErrorResponse::stopping()) };
    // Before the snapshot is made: events behind the position may be in it, none is missing.
    let position = hub.position_of(&channel.name);
    let (answer, answered) = oneshot::channel();
    let send = Box::new(move |found| drop(answer.send(found)));
    if !hub.ask_snapshot(&channel.name, identity.accounts, send) {
        let message = "the gateway opens its copy of the state, or too many requests for it wait; \
                       repeat it after Retry-After";
        return Err(ErrorResponse::overloaded(message));
    }
    match tokio::time::timeout(ANSWER_LIMIT, answered).await {
        Ok(Ok(SnapshotAnswer::Found(snapshot))) => Ok(respond(&channel.name, &position, &snapshot)),
        Ok(Ok(SnapshotAnswer::Unavailable) | Err(_)) | Err(_) => {
            let message = "the newest state of this channel could not be read in time; repeat it \
                           after Retry-After";
            Err(ErrorResponse::overloaded(message))
        }
    }
}

fn respond(channel: &str, position: &str, snapshot: &ChannelSnapshot) -> Response {
    let head = json!({
        "channel": channel,
        "position": position,
        "truncated": snapshot.is_truncated(),
    });
    let mut pieces = vec![Bytes::from(open_object(&head))];
    for (at, page) in snapshot.pages().enumerate() {
        if at > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(page);
    }
    pieces.push(Bytes::from_static(b"]}"));
    let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The object up to its last member, whose array is open.
fn open_object(head: &Value) -> String {
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"state\":[");
    text
}
