//! What a request to subscribe asks for: the parameters of its query, and `Last-Event-ID`.
//!
//! Where a stream starts decides what a client misses, so nothing here is guessed: unknown
//! parameters, contradictory values and unreadable headers are refused. The position has several
//! names, because clients that can't set a header put it into the query under a name of their own.

use http::HeaderMap;
use tidewire_engine::fanout::config::SUBSCRIPTIONS_MAX;
use tidewire_engine::fanout::protocol::native::{ErrorCode, RequestError, SnapshotWish, StartAt};

use super::query::{QueryError, QueryPairs, SingleValue, unknown};
use super::request_headers;
use super::response::ErrorResponse;

/// The user of a request without `user=` (development only).
const ANONYMOUS: &str = "anonymous";

/// The longest `user=`.
pub const USER_CHARS: usize = 128;

/// Characters of a value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// The parameters of a WebSocket.
const WEBSOCKET_PARAMETERS: [&str; 1] = ["user"];

/// The parameters of a stream.
const STREAM_PARAMETERS: [&str; 5] = ["channels", "from", "last_event_id", "snapshot", "user"];

/// The header with the last `id:` of a former stream.
const LAST_EVENT_ID: &str = "last-event-id";

/// The parameters of all endpoints for subscribers, decoded. An empty one counts as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct SubscribeQuery {
    user: SingleValue,
    channels: SingleValue,
    from: SingleValue,
    last_event_id: SingleValue,
    snapshot: SingleValue,
}

impl SubscribeQuery {
    /// Reads the query of a WebSocket's handshake.
    pub(super) fn of_websocket(query: Option<&str>) -> Result<Self, ErrorResponse> {
        let mut found = Self::default();
        for (name, value) in QueryPairs::parse(query)?.as_slice() {
            match name.as_str() {
                "user" => found.user.set(name, value)?,
                name if is_position(name) || STREAM_PARAMETERS.contains(&name) => {
                    return Err(QueryError(format!(
                        "a WebSocket has no query parameter `{name}`; send it in the operation \
                         subscribe, as `channel` or `from`"
                    ))
                    .into());
                }
                name => return Err(unknown(name, &WEBSOCKET_PARAMETERS).into()),
            }
        }
        Ok(found)
    }

    /// Reads the query of a request for a channel's state.
    pub(super) fn of_state(query: Option<&str>) -> Result<Self, ErrorResponse> {
        let mut found = Self::default();
        for (name, value) in QueryPairs::parse(query)?.as_slice() {
            match name.as_str() {
                "user" => found.user.set(name, value)?,
                name => return Err(unknown(name, &WEBSOCKET_PARAMETERS).into()),
            }
        }
        Ok(found)
    }

    /// Reads the query of a stream.
    pub(super) fn of_stream(query: Option<&str>) -> Result<Self, ErrorResponse> {
        let mut found = Self::default();
        for (name, value) in QueryPairs::parse(query)?.as_slice() {
            match name.as_str() {
                "user" => found.user.set(name, value)?,
                "channels" => found.channels.set(name, value)?,
                "from" => found.from.set(name, value)?,
                "snapshot" => found.snapshot.set(name, value)?,
                name if is_position(name) => found.last_event_id.set(name, value)?,
                name => return Err(unknown(name, &STREAM_PARAMETERS).into()),
            }
        }
        Ok(found)
    }

    /// Who connects.
    pub(super) fn user(&self) -> Result<String, ErrorResponse> {
        let user = self.user.get().unwrap_or(ANONYMOUS);
        if user.chars().count() > USER_CHARS || user.chars().any(char::is_control) {
            let message = format!("user= must have 1 to {USER_CHARS} printable characters");
            return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message));
        }
        Ok(user.to_owned())
    }

    /// The channels of a stream.
    pub(super) fn channels(&self) -> Result<Vec<String>, ErrorResponse> {
        let list = self.channels.get().unwrap_or_default();
        let channels: Vec<String> =
            list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if channels.is_empty() || channels.len() > SUBSCRIPTIONS_MAX {
            let message = format!(
                "channels= has {} channels; give 1 to {SUBSCRIPTIONS_MAX}, separated by commas",
                channels.len()
            );
            return Err(ErrorResponse::new(ErrorCode::InvalidChannel, message));
        }
        Ok(channels)
    }

    /// Where a stream starts: the header wins over the position in the query, which wins over
    /// `from`. A client that reconnects repeats its first query and adds the header.
    pub(super) fn start(&self, headers: &HeaderMap) -> Result<StartAt, ErrorResponse> {
        let header = request_headers::single(headers, LAST_EVENT_ID)?;
        let start = header.or(self.last_event_id.get()).or(self.from.get());
        Ok(start.map_or(Ok(StartAt::Latest), parse_start)?)
    }
}

impl SubscribeQuery {
    /// Whether the state of a stream's channels begins with a snapshot.
    pub(super) fn snapshot(&self) -> Result<SnapshotWish, ErrorResponse> {
        match self.snapshot.get() {
            Some("true") => Ok(SnapshotWish::Send),
            None | Some("false") => Ok(SnapshotWish::Skip),
            Some(other) => {
                let shown: String = other.chars().take(SHOWN_CHARS).collect();
                let message = format!("snapshot=`{shown}`: give true or false");
                Err(ErrorResponse::new(ErrorCode::InvalidMessage, message))
            }
        }
    }
}

/// Whether a parameter is the position of a client that can't set `Last-Event-ID`:
/// `last_event_id`, `lastEventId` (the default of the most used polyfill), `Last-Event-ID`.
fn is_position(name: &str) -> bool {
    let plain = name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase());
    plain.eq("lasteventid".chars())
}

/// Reads a start. The plus of a time zone is a space if the client did not escape it.
fn parse_start(text: &str) -> Result<StartAt, RequestError> {
    StartAt::parse(text).or_else(|error| {
        let zone = text.len().checked_sub("+09:00".len());
        match zone.and_then(|at| Some((text.get(..at)?, text.get(at..)?.strip_prefix(' ')?))) {
            Some((time, zone)) => StartAt::parse(&format!("{time}+{zone}")).map_err(|_| error),
            None => Err(error),
        }
    })
}

impl From<QueryError> for ErrorResponse {
    fn from(QueryError(message): QueryError) -> Self {
        Self::new(ErrorCode::InvalidMessage, message)
    }
}

impl From<RequestError> for ErrorResponse {
    fn from(error: RequestError) -> Self {
        Self::new(error.code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tidewire_engine::record::Millis;

    use super::*;

    const TOKEN: &str = "AbHz3fEJAQcAAAAMjlKG";
    const NEWER: &str = "AbHz3fEJAQcAAQB7FvCV";

    fn start(query: &str, ids: &[&[u8]]) -> Result<StartAt, ErrorResponse> {
        let mut headers = HeaderMap::new();
        for id in ids {
            let id = HeaderValue::from_bytes(id).expect("a value");
            headers.append(LAST_EVENT_ID, id);
        }
        SubscribeQuery::of_stream(Some(query))?.start(&headers)
    }

    fn check(query: &str, ids: &[&[u8]], expected: &StartAt) {
        let got = start(query, ids);
        assert_eq!(got.as_ref(), Ok(expected), "{query} {ids:?}");
    }

    fn check_refused(query: &str, ids: &[&[u8]], part: &str) {
        let refused = start(query, ids).expect_err(query);
        assert_eq!(refused.status, 400, "{query} {ids:?}");
        assert!(refused.message.contains(part), "{}", refused.message);
    }

    fn token(text: &str) -> StartAt {
        StartAt::Token(text.into())
    }

    #[test]
    fn an_event_id_that_can_not_be_read_or_comes_twice_is_refused_and_a_blank_one_is_absent() {
        let id = TOKEN.as_bytes();
        check("", &[], &StartAt::Latest);
        check("", &[id], &token(TOKEN));
        check("", &[b"", id, b" "], &token(TOKEN));
        check("", &[id, id], &token(TOKEN));
        check(&format!("last_event_id={TOKEN}"), &[b""], &token(TOKEN));
        check(&format!("last_event_id={NEWER}&from=earliest"), &[id], &token(TOKEN));
        check_refused("", &[b"AbHz3fEJAQcAAAAMjlKG\xff"], "last-event-id");
        check_refused("", &[id, NEWER.as_bytes()], "last-event-id");
    }

    #[test]
    fn the_names_that_polyfills_give_to_the_position_are_understood() {
        for name in ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "LASTEVENTID"]
        {
            check(&format!("{name}={TOKEN}&from=earliest"), &[], &token(TOKEN));
            check(&format!("{name}=&from=earliest"), &[], &StartAt::Earliest);
        }
        check(&format!("lastEventId={TOKEN}&last_event_id={TOKEN}"), &[], &token(TOKEN));
        check_refused(
            &format!("lastEventId={TOKEN}&last_event_id={NEWER}"),
            &[],
            "different values",
        );
    }

    #[test]
    fn unknown_names_are_refused_with_a_suggestion() {
        check_refused("fron=earliest", &[], "did you mean `from`?");
        check_refused("From=earliest", &[], "did you mean `from`?");
        check_refused("lastEvent=x", &[], "did you mean `last_event_id`?");
        check_refused("position=x", &[], "give channels, from, last_event_id, snapshot, user");
        check_refused("from=%ff", &[], "not UTF-8");
        check("_=1767607200&from=earliest", &[], &StartAt::Earliest);
        let refused = SubscribeQuery::of_websocket(Some("from=earliest")).expect_err("not there");
        assert!(refused.message.contains("subscribe"), "{}", refused.message);
        assert!(SubscribeQuery::of_websocket(Some("user=ann&_=1")).is_ok());
        assert!(SubscribeQuery::of_websocket(Some("usr=ann")).is_err());
    }

    #[test]
    fn a_snapshot_is_sent_if_the_query_says_true() {
        let wish = |query| SubscribeQuery::of_stream(Some(query)).and_then(|read| read.snapshot());
        assert_eq!(wish(""), Ok(SnapshotWish::Skip));
        assert_eq!(wish("snapshot=true"), Ok(SnapshotWish::Send));
        assert_eq!(wish("snapshot=false"), Ok(SnapshotWish::Skip));
        assert!(wish("snapshot=no").is_err_and(|error| error.message.contains("true or false")));
    }

    #[test]
    fn times_may_have_an_unescaped_plus_and_be_a_date_or_milliseconds() {
        let ten = StartAt::Time(Millis(1_767_607_200_000));
        for from in [
            "2026-01-05T10:00:00Z",
            "2026-01-05T19:00:00+09:00",
            "2026-01-05T19:00:00%2B09:00",
            "2026-01-05%2019:00:00+09:00",
            "2026-01-05T05:00:00-05:00",
            "1767607200000",
        ] {
            check(&format!("from={from}"), &[], &ten);
        }
        check("from=2026-01-05", &[], &StartAt::Time(Millis(1_767_571_200_000)));
        for from in ["yesterday", "2026-01-05T19:00:00 9:00", "2026-13-05", "1767607200"] {
            check_refused(&format!("from={from}"), &[], "2026-01-05T10:00:00Z");
            check_refused(&format!("from={from}"), &[], TOKEN);
        }
    }
}
