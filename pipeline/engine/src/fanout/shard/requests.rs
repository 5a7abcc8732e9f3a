//! Handles the requests of a WebSocket client: decodes a frame, acts on it and answers.
//!
//! Every refusal says what is right. A bad frame costs an error frame; ten of them within a minute,
//! or errors that the client does not read, cost the connection.

use super::channels::ListSource;
use super::conn::{CatchUpFeed, Conn, FeedProgress, Mode};
use super::limiter::RateDecision;
use super::state::Shard;
use super::subscriptions::{SubscriptionStart, decode_start};
use crate::fanout::config::{
    CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGES_PER_S, SUBSCRIPTIONS_MAX, UNREAD_ERRORS_MAX_BYTES,
};
use crate::fanout::offsets::token;
use crate::fanout::protocol::client_requests::{ClientOp, ClientRequest, SubscribeOp};
use crate::fanout::protocol::native::{CloseReason, ErrorCode, RequestError};
use crate::fanout::protocol::served_channel::ServedChannel;
use crate::fanout::protocol::server_messages::ServerMessage;
use crate::telemetry;

impl Shard {
    /// Handles a client's frame.
    pub(super) fn handle_text(&mut self, conn: &mut Conn, text: &str) {
        if text.len() > CLIENT_FRAME_MAX_BYTES {
            return self.end(conn, CloseReason::TooLarge);
        }
        match conn.limiter.message(self.now) {
            RateDecision::Allowed => {}
            RateDecision::LimitedTooLong => return self.end(conn, CloseReason::RateLimited),
            RateDecision::Limited => {
                let text =
                    format!("too many messages: send at most {CLIENT_MESSAGES_PER_S} a second");
                let error = RequestError::new(ErrorCode::RateLimited, text);
                return self.reject(conn, None, &error);
            }
        }
        let ClientRequest { id, op } = ClientRequest::decode(text);
        let done = match op {
            Ok(ClientOp::Ping) => {
                put(conn, ServerMessage::Pong { id: id.as_deref() });
                Ok(())
            }
            Ok(ClientOp::Unsubscribe { channel }) => {
                self.unsubscribe(conn, id.as_deref(), &channel)
            }
            Ok(ClientOp::Subscribe(op)) => self.subscribe(conn, id.clone(), &op),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.reject(conn, id.as_deref(), &error);
        }
    }

    fn reject(&mut self, conn: &mut Conn, id: Option<&str>, error: &RequestError) {
        telemetry::requests_refused(error.code.as_str());
        put(conn, ServerMessage::Error { id, error });
        let bad = matches!(error.code, ErrorCode::InvalidJson | ErrorCode::InvalidMessage);
        if bad && conn.limiter.bad_frame(self.now) {
            self.end(conn, CloseReason::ProtocolError);
        } else if conn.control.len() > UNREAD_ERRORS_MAX_BYTES {
            self.end(conn, CloseReason::Slow);
        }
    }

    fn subscribe(
        &mut self,
        conn: &mut Conn,
        id: Option<Box<str>>,
        op: &SubscribeOp,
    ) -> Result<(), RequestError> {
        let catalogue = self.hub.config().catalogue;
        let channel = ServedChannel::authorize(catalogue, &conn.identity, &op.channel)?;
        let name = &*channel.name;
        if self.is_subscribed(conn, name) {
            let text = format!("already subscribed to `{name}`: unsubscribe first");
            return Err(RequestError::new(ErrorCode::AlreadySubscribed, text));
        }
        if conn.channels as usize >= SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(RequestError::new(ErrorCode::TooManySubscriptions, text));
        }
        let partition = self.hub.partition_of(name);
        let start = decode_start(self.epoch, partition, &op.start)?;
        self.add_channel(conn, &channel, op.snapshot);
        let head = token(self.epoch, partition, &self.mirror(partition).head);
        let stream = self.sub_of(conn, name, ListSource::Log);
        match (start, stream) {
            // State has one start, its snapshot.
            (SubscriptionStart::Head, _) | (_, None) => {
                let position = Some(&*head);
                put(conn, ServerMessage::Ok { id: id.as_deref(), channel: name, position });
            }
            (SubscriptionStart::AfterGap { from, reason }, Some(_)) => {
                let position = Some(&*from);
                put(conn, ServerMessage::Ok { id: id.as_deref(), channel: name, position });
                telemetry::gaps(reason.as_str());
                put(conn, ServerMessage::Gap { channel: name, reason, from: &from, to: &head });
            }
            (SubscriptionStart::Behind(start), Some(sub)) => {
                let number = self.new_feed_number();
                let progress = FeedProgress::Unresolved(start);
                let mut feed = CatchUpFeed::new(number, partition, progress);
                feed.reply = id;
                conn.subs[sub].mode = Mode::Behind(number);
                conn.feeds.push(Box::new(feed));
            }
        }
        Ok(())
    }

    fn unsubscribe(
        &mut self,
        conn: &mut Conn,
        id: Option<&str>,
        channel: &str,
    ) -> Result<(), RequestError> {
        let catalogue = self.hub.config().catalogue;
        let ServedChannel { name, .. } =
            ServedChannel::authorize(catalogue, &conn.identity, channel)?;
        if !self.is_subscribed(conn, &name) {
            let text = format!("not subscribed to `{name}`");
            return Err(RequestError::new(ErrorCode::NotFound, text));
        }
        self.remove_channel(conn, &name);
        put(conn, ServerMessage::Ok { id, channel: &name, position: None });
        Ok(())
    }
}

fn put(conn: &mut Conn, message: ServerMessage<'_>) {
    message.put(conn.framing, &mut conn.control);
}
