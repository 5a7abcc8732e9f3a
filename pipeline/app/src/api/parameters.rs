//! The query parameters of the endpoints for subscribers.
//!
//! An empty parameter counts as absent. Unknown ones are refused, except those that begin with `_`.

use serde_json::json;
use tidewire_connectors::socket::http::subscribe_query::USER_CHARS;
use tidewire_engine::fanout::config::SUBSCRIPTIONS_MAX;

use super::property::{Property, always, reference, sometimes};

/// Those of `/v1/ws`.
pub fn of_websocket() -> Vec<Property> {
    of_user()
}

fn of_user() -> Vec<Property> {
    let name = json!({ "type": "string", "maxLength": USER_CHARS });
    vec![sometimes(
        "user",
        name,
        "the user; `anonymous` if absent. Nothing proves it in this version",
    )]
}

/// Those of `/v1/sse`.
pub fn of_stream() -> Vec<Property> {
    let channels = json!({
        "type": "array",
        "minItems": 1,
        "maxItems": SUBSCRIPTIONS_MAX,
        "items": reference("ChannelName"),
    });
    let mut all = vec![
        always("channels", channels, "channel names, separated by commas"),
        sometimes("from", reference("StartAt"), "where to start; `latest` if absent"),
        sometimes(
            "last_event_id",
            reference("StartAt"),
            "the last `id:` of a former stream, for clients that can't set the header; takes \
             precedence over `from`. `lastEventId` and `Last-Event-ID` in any case mean the same",
        ),
    ];
    all.push(sometimes(
        "snapshot",
        json!({ "type": "boolean" }),
        "whether to begin with the channels' state; false if absent",
    ));
    all.extend(of_user());
    all
}

/// Those of `/v1/channels/{channel}`, without the channel in its path.
pub fn of_state() -> Vec<Property> {
    of_user()
}
