//! Reads the query of a request to subscribe.
//!
//! A name that is not known is refused with the nearest one that is: a position under a misspelled
//! name would otherwise start the stream at `latest`, and events would be missing without a word.
//! The names under which client libraries send a position are all understood. A name that begins
//! with an underscore is ignored, since some libraries add one to get past caches.

use percent_encoding::percent_decode_str;

use super::response::{ErrorResponse, HttpErrorCode};

/// The parameters, as they are documented.
const NAMES: [&str; 4] = ["user", "channels", "from", "last_event_id"];

/// Other names of `last_event_id`: those of the header, of polyfills and of other servers.
const POSITION_NAMES: [&str; 5] =
    ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "last-event-id"];

/// The longest value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// What a request to subscribe asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SubscribeQuery {
    pub(super) user: Option<String>,
    pub(super) channels: Option<String>,
    pub(super) from: Option<String>,
    pub(super) last_event_id: Option<String>,
}

impl SubscribeQuery {
    /// Reads a query; an empty value counts as absent.
    pub(super) fn parse(query: &str) -> Result<Self, ErrorResponse> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name.starts_with('_') {
                continue;
            }
            let place = match name.as_str() {
                "user" => &mut found.user,
                "channels" => &mut found.channels,
                "from" => &mut found.from,
                other if POSITION_NAMES.contains(&other) => &mut found.last_event_id,
                other => return Err(unknown(other)),
            };
            match place {
                _ if value.is_empty() => {}
                Some(first) if *first != value => {
                    return Err(contradictory(&name, [first, &value]));
                }
                _ => *place = Some(value),
            }
        }
        found.from = found.from.map(with_plus);
        Ok(found)
    }
}

/// A part of a query as text: form encoding, in which a plus is a space.
fn decode(part: &str) -> Result<String, ErrorResponse> {
    let plain = part.replace('+', " ");
    let mut rest = plain.as_str();
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3).unwrap_or("");
        if digits.len() != 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let shown = shorten(part);
            return Err(refuse(format!(
                "`{shown}` in the query is not percent-encoded: write a percent sign as %25"
            )));
        }
        rest = &rest[at + 3..];
    }
    let decoded = percent_decode_str(&plain).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| refuse(format!("`{}` in the query is not UTF-8 once decoded", shorten(part))))
}

/// A time whose plus was not escaped, and so became a space: `…T19:00:00 09:00`.
fn with_plus(from: String) -> String {
    match from.rsplit_once(' ') {
        Some((time, zone)) if time.contains('T') && zone.len() == 5 && zone.contains(':') => {
            format!("{time}+{zone}")
        }
        _ => from,
    }
}

fn unknown(name: &str) -> ErrorResponse {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let wanted = plain(name);
    let near = NAMES.into_iter().map(|known| (distance(&wanted, &plain(known)), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 2.max(wanted.len() / 3) => {
            format!("did you mean `{known}`?")
        }
        // What other servers call a position.
        _ if ["position", "since", "offset", "start", "cursor"].contains(&wanted.as_str()) => {
            "give a position as `last_event_id` or `from`".to_owned()
        }
        _ => format!("the parameters are {}", NAMES.join(", ")),
    };
    refuse(format!("the query has the unknown parameter `{}`; {hint}", shorten(name)))
}

fn contradictory(name: &str, [first, other]: [&str; 2]) -> ErrorResponse {
    let (name, first, other) = (shorten(name), shorten(first), shorten(other));
    refuse(format!(
        "the parameter {name} occurs with different values, `{first}` and `{other}`; send it once"
    ))
}

fn refuse(message: String) -> ErrorResponse {
    ErrorResponse::new(HttpErrorCode::InvalidQuery, message)
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// The fewest insertions, deletions and replacements that make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, character) in one.chars().take(SHOWN_CHARS).enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *against);
            diagonal = row[m + 1];
            row[m + 1] = replaced.min(diagonal + 1).min(row[m] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str, part: &str) {
        let error = SubscribeQuery::parse(query).expect_err(query);
        assert!(error.message.contains(part), "{query}: {}", error.message);
    }

    #[test]
    fn a_position_is_understood_under_the_names_that_clients_use() {
        for name in POSITION_NAMES {
            let found = SubscribeQuery::parse(&format!("channels=a&{name}=TOKEN")).expect(name);
            assert_eq!(found.last_event_id.as_deref(), Some("TOKEN"), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_known_one() {
        refused("fron=earliest", "`fron`; did you mean `from`?");
        refused("channel=a", "did you mean `channels`?");
        refused("LAST_EVENT=x", "did you mean `last_event_id`?");
        refused("position=x", "`last_event_id` or `from`");
        refused("colour=red", "the parameters are user, channels, from, last_event_id");
        SubscribeQuery::parse("channels=a&_=1767607200").expect("a cache buster");
    }

    #[test]
    fn a_name_that_occurs_twice_needs_one_value() {
        refused("from=latest&from=earliest", "`latest` and `earliest`");
        refused("lastEventId=a&last_event_id=b", "`a` and `b`");
        let found = SubscribeQuery::parse("user=&user=ann&user=ann").expect("one value");
        assert_eq!(found.user.as_deref(), Some("ann"));
    }

    #[test]
    fn what_is_not_percent_encoded_text_is_refused() {
        refused("channels=100%", "percent sign as %25");
        refused("channels=%zz", "percent sign as %25");
        refused("channels=%ff", "not UTF-8");
        let found = SubscribeQuery::parse("channels=posts:%C3%A9%2Cposts:b").expect("text");
        assert_eq!(found.channels.as_deref(), Some("posts:é,posts:b"));
    }

    #[test]
    fn the_plus_of_a_time_zone_need_not_be_escaped() {
        for query in ["from=2026-01-05T19:00:00+09:00", "from=2026-01-05T19:00:00%2B09:00"] {
            let found = SubscribeQuery::parse(query).expect("a time");
            assert_eq!(found.from.as_deref(), Some("2026-01-05T19:00:00+09:00"), "{query}");
        }
    }
}
