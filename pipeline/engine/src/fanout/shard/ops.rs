//! What clients ask for: reading their frames, doing what they say, and the small frames that
//! answer. Every refusal says what is right; a bad frame costs an error frame, ten of them the
//! connection.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use tidewire_schemas::position::Position;

use super::channels::ListSubscriber;
use super::conn::{CatchUpFeed, Conn, FOLLOWS, RateDecision, Subscription};
use super::{Framing, Shard};
use crate::fanout::catchup::sweeper::FeedStart;
use crate::fanout::config::{
    CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S, REQUEST_ID_MAX_BYTES,
    SSE_RETRY_MS, SUBSCRIPTIONS_MAX, UNREAD_ERRORS_MAX_BYTES, WEBSOCKET_KEEPALIVE_MS,
};
use crate::fanout::offsets::{PartitionOffsets, token};
use crate::fanout::protocol::frame::{put_json_text, put_object};
use crate::fanout::protocol::names::{FrameName, GapReason, OpName};
use crate::fanout::protocol::native::{
    CloseReason, ErrorCode, RequestError, StartAt, authorize_channel,
};
use crate::telemetry;
use tidewire_schemas::partition::partition_for;

/// A request.
enum ClientOp {
    Subscribe { channel: String, start: StartAt },
    Unsubscribe { channel: String },
    Ping,
}

/// A frame read as far as it could be.
struct ClientRequest {
    /// The client's id, as JSON.
    id: Option<Box<str>>,
    op: Result<ClientOp, RequestError>,
}

/// Where a new subscription begins.
enum SubscriptionStart {
    /// At the hub's head.
    Follow,
    /// There too, because the token is of another log; it is named in the gap.
    OtherEpoch(Box<str>),
    Behind(FeedStart),
}

fn decode_request(text: &str) -> ClientRequest {
    let invalid =
        |code, message: &str| ClientRequest { id: None, op: Err(RequestError::new(code, message)) };
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return invalid(ErrorCode::InvalidMessage, "send an object with an `op`"),
        Err(error) => {
            return invalid(ErrorCode::InvalidJson, &format!("send one JSON object: {error}"));
        }
    };
    let id: Option<Box<str>> = match object.get("id") {
        None | Some(Value::Null) => None,
        Some(id @ (Value::Number(_) | Value::String(_))) => Some(id.to_string().into()),
        Some(_) => return invalid(ErrorCode::InvalidMessage, "`id` is a number or a text"),
    };
    if id.as_ref().is_some_and(|id| id.len() > REQUEST_ID_MAX_BYTES) {
        return invalid(ErrorCode::InvalidMessage, "`id` has at most 62 characters");
    }
    ClientRequest { id, op: decode_op(&object) }
}

fn decode_op(object: &Map<String, Value>) -> Result<ClientOp, RequestError> {
    let later = |what: &str| {
        let text = format!("{what} is not served yet");
        Err(RequestError::new(ErrorCode::NotFound, text))
    };
    match object.get("op").and_then(Value::as_str).and_then(OpName::parse) {
        Some(OpName::Ping) => Ok(ClientOp::Ping),
        Some(OpName::Subscribe) => decode_subscribe(object),
        Some(OpName::Unsubscribe) => Ok(ClientOp::Unsubscribe { channel: decode_channel(object)? }),
        Some(OpName::History) => later("`history`: subscribe with `from` instead; it"),
        Some(OpName::Send) => later("`send`: post to /v1/events instead; it"),
        Some(OpName::Command) => later("`command`"),
        Some(OpName::Refresh) => later("`refresh`: connect again with the new token; it"),
        None => {
            let text = "`op` is one of subscribe, unsubscribe, ping";
            Err(RequestError::new(ErrorCode::InvalidMessage, text))
        }
    }
}

fn decode_channel(object: &Map<String, Value>) -> Result<String, RequestError> {
    match object.get("channel") {
        Some(Value::String(channel)) => Ok(channel.clone()),
        _ => {
            let text = "`channel` is a text such as \"posts:alice\"";
            Err(RequestError::new(ErrorCode::InvalidMessage, text))
        }
    }
}

fn decode_subscribe(object: &Map<String, Value>) -> Result<ClientOp, RequestError> {
    let channel = decode_channel(object)?;
    if object.get("filter").is_some_and(|filter| !filter.is_null()) {
        return Err(RequestError::new(ErrorCode::InvalidFilter, "filters are not served yet"));
    }
    let start = match object.get("from") {
        None | Some(Value::Null) => StartAt::Latest,
        Some(Value::String(from)) => StartAt::parse(from)?,
        Some(_) => {
            let text = "`from` is \"latest\", \"earliest\", a position or an RFC 3339 time";
            return Err(RequestError::new(ErrorCode::InvalidPosition, text));
        }
    };
    Ok(ClientOp::Subscribe { channel, start })
}

impl Shard {
    /// Reads a client's frame and does what it says.
    pub(super) fn handle_text(&mut self, conn: &mut Conn, text: &str) {
        if text.len() > CLIENT_FRAME_MAX_BYTES {
            return self.end(conn, CloseReason::TooLarge);
        }
        match conn.limiter.message(self.now.0) {
            RateDecision::Allowed => {}
            RateDecision::LimitedTooLong => return self.end(conn, CloseReason::RateLimited),
            RateDecision::Limited => {
                let text = format!("send at most {CLIENT_MESSAGES_PER_S} messages a second");
                let error = RequestError::new(ErrorCode::RateLimited, text);
                return self.reject(conn, None, &error);
            }
        }
        let ClientRequest { id, op } = decode_request(text);
        let done = match op {
            Ok(ClientOp::Ping) => {
                put_answer(conn, FrameName::Pong, id.as_deref(), |_| {});
                Ok(())
            }
            Ok(ClientOp::Unsubscribe { channel }) => {
                self.unsubscribe(conn, id.as_deref(), &channel)
            }
            Ok(ClientOp::Subscribe { channel, start }) => {
                self.subscribe(conn, id.clone(), (&channel, &start))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.reject(conn, id.as_deref(), &error);
        }
    }

    fn reject(&mut self, conn: &mut Conn, id: Option<&str>, error: &RequestError) {
        telemetry::requests_refused(error.code.as_str());
        put_error(conn, id, error);
        let bad = matches!(error.code, ErrorCode::InvalidJson | ErrorCode::InvalidMessage);
        if bad && conn.limiter.bad_frame(self.now.0) {
            self.end(conn, CloseReason::ProtocolError);
        } else if conn.control.len() > UNREAD_ERRORS_MAX_BYTES {
            self.end(conn, CloseReason::Slow);
        }
    }

    fn subscribe(
        &mut self,
        conn: &mut Conn,
        id: Option<Box<str>>,
        (channel, start): (&str, &StartAt),
    ) -> Result<(), RequestError> {
        let name = authorize_channel(&conn.identity, channel)?;
        if conn.subs.len() >= SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(RequestError::new(ErrorCode::TooManySubscriptions, text));
        }
        if self.sub_of(conn, &name).is_some() {
            let text = format!("`{name}` is subscribed already: unsubscribe first");
            return Err(RequestError::new(ErrorCode::InvalidMessage, text));
        }
        let partition = partition_for(name.as_bytes(), self.hub.partitions());
        let begin = resolve_start(self.hub.epoch(), partition, start)?;
        let sub = self.add_sub(conn, &name, partition);
        let head = self.mirrors[partition as usize].head;
        let here = token(self.hub.epoch(), partition, &head);
        match begin {
            SubscriptionStart::Follow => {
                put_ok(&mut conn.control, id.as_deref(), &name, Some(&here))
            }
            SubscriptionStart::OtherEpoch(from) => {
                put_ok(&mut conn.control, id.as_deref(), &name, Some(&from));
                telemetry::gaps(GapReason::Epoch.as_str());
                let json = gap(&name, GapReason::Epoch, (&from, &here));
                put_object(conn.framing, FrameName::Gap, &json, &mut conn.control);
            }
            SubscriptionStart::Behind(start) => {
                let mut feed = CatchUpFeed::new(self.new_feed_number(), partition, start);
                feed.reply = id;
                conn.subs[sub].feed = feed.number;
                conn.feeds.push(Box::new(feed));
            }
        }
        Ok(())
    }

    /// Subscribes an SSE stream to all its channels at once: one feed per partition, because one
    /// token speaks for all.
    pub(super) fn subscribe_all(&mut self, conn: &mut Conn, names: &[String], start: &StartAt) {
        let partitions = self.hub.partitions();
        let epoch = self.hub.epoch();
        let mut begins = Vec::with_capacity(names.len());
        for name in names {
            let partition = partition_for(name.as_bytes(), partitions);
            // A token that never touched a partition says nothing about its channels: they are new.
            let begin = resolve_start(epoch, partition, start).unwrap_or(SubscriptionStart::Follow);
            begins.push((name, partition, begin));
        }
        for (name, partition, begin) in begins {
            if self.sub_of(conn, name).is_some() {
                continue;
            }
            let sub = self.add_sub(conn, name, partition);
            let head = self.mirrors[partition as usize].head;
            if let Err(at) = conn.partition_offsets.binary_search_by_key(&partition, |(p, _)| *p) {
                conn.partition_offsets.reserve_exact(1);
                conn.partition_offsets.insert(at, (partition, head));
            }
            match begin {
                SubscriptionStart::Follow => {}
                SubscriptionStart::OtherEpoch(from) => {
                    telemetry::gaps(GapReason::Epoch.as_str());
                    let json =
                        gap(name, GapReason::Epoch, (&from, &token(epoch, partition, &head)));
                    put_object(conn.framing, FrameName::Gap, &json, &mut conn.control);
                }
                SubscriptionStart::Behind(start) => self.join_feed(conn, sub, start),
            }
        }
    }

    fn join_feed(&mut self, conn: &mut Conn, sub: usize, start: FeedStart) {
        let partition = self.channels.list(conn.subs[sub].list).partition;
        if let Some(feed) = conn.feeds.iter().find(|feed| feed.partition == partition) {
            conn.subs[sub].feed = feed.number;
            return;
        }
        let feed = CatchUpFeed::new(self.new_feed_number(), partition, start);
        conn.subs[sub].feed = feed.number;
        conn.feeds.push(Box::new(feed));
    }

    fn unsubscribe(
        &mut self,
        conn: &mut Conn,
        id: Option<&str>,
        channel: &str,
    ) -> Result<(), RequestError> {
        let name = authorize_channel(&conn.identity, channel)?;
        let Some(at) = self.sub_of(conn, &name) else {
            let text = format!("`{name}` is not subscribed");
            return Err(RequestError::new(ErrorCode::NotFound, text));
        };
        let feed = conn.subs[at].feed;
        self.remove_sub(conn, at);
        let last = feed != FOLLOWS && !conn.subs.iter().any(|sub| sub.feed == feed);
        if let Some(at) = conn.feeds.iter().position(|f| last && f.number == feed) {
            self.drop_feed(conn, at);
        }
        put_ok(&mut conn.control, id, &name, None);
        Ok(())
    }

    fn sub_of(&self, conn: &Conn, name: &str) -> Option<usize> {
        conn.subs.iter().position(|sub| *self.channels.list(sub.list).name == *name)
    }

    /// Adds a subscription that follows from the hub's head.
    fn add_sub(&mut self, conn: &mut Conn, name: &str, partition: u32) -> usize {
        let at = conn.subs.len();
        let subscriber = ListSubscriber { slot: conn.id.slot, sub: at as u32 };
        let accounts = &conn.identity.accounts;
        let (list, list_index) = self.channels.subscribe((name, partition), accounts, subscriber);
        let cursor = self.channels.list(list).end();
        conn.subs.reserve_exact(1);
        conn.subs.push(Subscription { list, list_index, feed: FOLLOWS, cursor });
        self.subscriptions += 1;
        at
    }

    /// Removes a subscription; two others may have to be told their new places.
    pub(super) fn remove_sub(&mut self, conn: &mut Conn, at: usize) {
        let sub = conn.subs.swap_remove(at);
        self.subscriptions -= 1;
        let moved = self.channels.unsubscribe(sub.list, sub.list_index);
        // A connection is on a list once, so the one that moved is never this one.
        if let Some(moved) = moved
            && let Some(other) = self.conn_mut(moved.slot)
        {
            other.subs[moved.sub as usize].list_index = sub.list_index;
        }
        if let Some(moved) = conn.subs.get(at) {
            let list = self.channels.list_mut(moved.list);
            list.subscribers[moved.list_index as usize].sub = at as u32;
        }
    }

    /// Removes a feed and its subscriptions.
    pub(super) fn remove_subs_of(&mut self, conn: &mut Conn, feed: u32) {
        for at in (0..conn.subs.len()).rev() {
            if conn.subs[at].feed == feed {
                self.remove_sub(conn, at);
            }
        }
        if let Some(at) = conn.feeds.iter().position(|f| f.number == feed) {
            self.drop_feed(conn, at);
        }
    }
}

fn resolve_start(
    epoch: u32,
    partition: u32,
    start: &StartAt,
) -> Result<SubscriptionStart, RequestError> {
    let token = match start {
        StartAt::Latest => return Ok(SubscriptionStart::Follow),
        StartAt::Earliest => return Ok(SubscriptionStart::Behind(FeedStart::Earliest)),
        StartAt::Time(time) => return Ok(SubscriptionStart::Behind(FeedStart::Time(*time))),
        StartAt::Token(token) => token,
    };
    let position = Position::decode(token)
        .map_err(|error| RequestError::new(ErrorCode::InvalidPosition, error.to_string()))?;
    if position.epoch != epoch {
        return Ok(SubscriptionStart::OtherEpoch(token.clone()));
    }
    match position.partition(partition) {
        Some(cut) => Ok(SubscriptionStart::Behind(FeedStart::At(PartitionOffsets(cut.next)))),
        None => {
            let text = "the position says nothing about this channel: send one of its own, or \
                        `latest` or `earliest`";
            Err(RequestError::new(ErrorCode::InvalidPosition, text))
        }
    }
}

/// Appends an answer with `op`, the id and what `more` adds.
fn put_answer(conn: &mut Conn, op: FrameName, id: Option<&str>, more: impl FnOnce(&mut Vec<u8>)) {
    let mut json = Vec::with_capacity(128);
    open_answer(&mut json, op, id);
    more(&mut json);
    json.push(b'}');
    put_object(conn.framing, op, &json, &mut conn.control);
}

fn open_answer(json: &mut Vec<u8>, op: FrameName, id: Option<&str>) {
    json.extend_from_slice(b"{\"op\":\"");
    json.extend_from_slice(op.as_str().as_bytes());
    json.push(b'"');
    if let Some(id) = id {
        json.extend_from_slice(b",\"id\":");
        json.extend_from_slice(id.as_bytes());
    }
}

fn put_member(json: &mut Vec<u8>, name: &str, text: &str) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    put_json_text(json, text);
}

/// Appends `ok` (WebSocket only: nobody else asks).
pub(super) fn put_ok(out: &mut Vec<u8>, id: Option<&str>, channel: &str, position: Option<&str>) {
    let mut json = Vec::with_capacity(128);
    open_answer(&mut json, FrameName::Ok, id);
    put_member(&mut json, "channel", channel);
    if let Some(position) = position {
        put_member(&mut json, "position", position);
    }
    json.push(b'}');
    put_object(Framing::WebSocket, FrameName::Ok, &json, out);
}

pub(super) fn put_error(conn: &mut Conn, id: Option<&str>, error: &RequestError) {
    put_answer(conn, FrameName::Error, id, |json| {
        put_member(json, "code", error.code.as_str());
        put_member(json, "message", &error.message);
    });
}

/// The object of a `gap`.
pub(super) fn gap(channel: &str, reason: GapReason, (from, to): (&str, &str)) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    open_answer(&mut json, FrameName::Gap, None);
    put_member(&mut json, "channel", channel);
    put_member(&mut json, "reason", reason.as_str());
    put_member(&mut json, "from", from);
    put_member(&mut json, "to", to);
    json.push(b'}');
    json
}

/// Puts the first frame of a connection.
pub(super) fn put_welcome(conn: &mut Conn, shard: u32) {
    if conn.framing == Framing::Sse {
        conn.control.extend_from_slice(format!("retry: {SSE_RETRY_MS}\n\n").as_bytes());
        return;
    }
    let mut name = String::with_capacity(24);
    let _ = write!(name, "{shard}-{}-{}", conn.id.slot, conn.id.generation);
    let user = conn.identity.user.clone();
    put_answer(conn, FrameName::Welcome, None, |json| {
        put_member(json, "connection", &name);
        put_member(json, "user", &user);
        let limits = format!(
            ",\"heartbeat_ms\":{WEBSOCKET_KEEPALIVE_MS},\"limits\":{{\"subscriptions\":\
             {SUBSCRIPTIONS_MAX},\"frame_bytes\":{CLIENT_FRAME_MAX_BYTES},\"messages_per_second\":\
             {CLIENT_MESSAGES_PER_S},\"burst\":{CLIENT_MESSAGES_BURST}}}"
        );
        json.extend_from_slice(limits.as_bytes());
    });
}
