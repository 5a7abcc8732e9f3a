//! Step 6 of admission: checks required fields, types of fields and ids.
//!
//! Null counts as absent: a required field that is null is missing; an optional one is passed on.
//! Fields that the type does not declare are not checked.

use std::borrow::Cow;

use super::normalise::EventData;
use super::reason::{Reason, Rejection};
use crate::catalogue::{EventType, Field, FieldKind, Source};
use crate::channel::{ID_MAX_ENCODED_CHARS, encoded_len};
use crate::{json, time};

pub use crate::channel::ID_MAX_CHARS;

/// Checks the fields of data against the event type.
pub(super) fn validate(event_type: &EventType, data: &EventData<'_>) -> Result<(), Rejection> {
    for field in event_type.fields.iter().filter(|field| field.required) {
        if data.get(&field.name).is_none() {
            let message = format!("{} needs `{}` in data", event_type.name, field.name);
            return Err(Rejection::of(Reason::MissingField, &field.name, message));
        }
    }
    for group in &event_type.one_of {
        if group.iter().all(|name| data.get(name).is_none()) {
            let names = group.join("` or `");
            let message = format!("{} needs `{names}` in data", event_type.name);
            return Err(Rejection::of(Reason::MissingField, &group[0], message));
        }
    }
    for member in data.members().iter().filter(|member| member.value != "null") {
        if let Some(field) = event_type.field(&member.name) {
            check(field, &member.value)?;
        }
    }
    for source in &event_type.inner_ids {
        let Source::Inner(object, name) = source else { continue };
        let Some(value) = data.get(object) else { continue };
        let path = format!("{object}.{name}");
        match json::member(value, name) {
            Some(value) => drop(id(&path, value)?),
            None => {
                let message = format!("{} needs `{path}` in data", event_type.name);
                return Err(Rejection::of(Reason::MissingField, path, message));
            }
        }
    }
    Ok(())
}

fn check(field: &Field, value: &str) -> Result<(), Rejection> {
    let first = value.as_bytes()[0];
    let is_number = matches!(first, b'-' | b'0'..=b'9');
    let fits = match field.kind {
        FieldKind::Id => return id(&field.name, value).map(drop),
        FieldKind::Text => first == b'"',
        FieldKind::Integer => value.parse::<i64>().is_ok(),
        FieldKind::Number => is_number && value.parse::<f64>().is_ok_and(f64::is_finite),
        FieldKind::Bool => matches!(first, b't' | b'f'),
        FieldKind::Time => instant(value).is_some(),
        FieldKind::Object => first == b'{',
        FieldKind::Texts => json::is_array_of(value, b'"'),
        FieldKind::Objects => json::is_array_of(value, b'{'),
    };
    if !fits {
        let kind = match field.kind {
            FieldKind::Integer => "an integer of 64 bits",
            FieldKind::Number => "a finite number",
            FieldKind::Bool => "true or false",
            FieldKind::Time => "an RFC 3339 time or epoch milliseconds",
            FieldKind::Object => "an object",
            FieldKind::Texts => "a list of strings",
            FieldKind::Objects => "a list of objects",
            FieldKind::Id | FieldKind::Text => "a string",
        };
        let message = format!("data.{} must be {kind}", field.name);
        return Err(Rejection::of(Reason::BadField, &field.name, message));
    }
    if field.identifies {
        return id(&field.name, value).map(drop);
    }
    check_value(field, value)
}

/// Checks the listed values or the range of a field, if it has them.
fn check_value(field: &Field, value: &str) -> Result<(), Rejection> {
    if !field.values.is_empty() {
        let text = json::scalar(value).unwrap_or_default();
        if !field.values.iter().any(|known| *known == text) {
            let known = field.values.join(", ");
            let message = format!("data.{} must be one of {known}", field.name);
            return Err(Rejection::of(Reason::BadField, &field.name, message));
        }
    }
    if let Some((least, greatest)) = field.range
        && !value.parse::<f64>().is_ok_and(|number| (least..=greatest).contains(&number))
    {
        let message = format!("data.{} must be between {least} and {greatest}", field.name);
        return Err(Rejection::of(Reason::BadField, &field.name, message));
    }
    Ok(())
}

/// Reads an id: a string of 1 to 128 characters, or an integer, which becomes its decimal text. Ids
/// with control characters, and ids that are too long for a channel name once encoded, are invalid.
pub(super) fn id<'a>(field: &str, value: &'a str) -> Result<Cow<'a, str>, Rejection> {
    let bad = |message: String| Err(Rejection::of(Reason::BadId, field, message));
    let text = match value.as_bytes().first() {
        Some(b'"') => json::string(value).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') if !value.contains(['.', 'e', 'E']) => Cow::Borrowed(value),
        _ => return bad(format!("{field} must be a string or an integer")),
    };
    let short = text.len() <= ID_MAX_CHARS || text.chars().count() <= ID_MAX_CHARS;
    if text.is_empty() || !short {
        return bad(format!("{field} must have 1 to {ID_MAX_CHARS} characters"));
    }
    if text.chars().any(char::is_control) {
        return bad(format!("{field} must not contain control characters"));
    }
    if text.len() * 3 > ID_MAX_ENCODED_CHARS && encoded_len(&text) > ID_MAX_ENCODED_CHARS {
        return bad(format!(
            "{field} is too long for a channel name: percent-encoded it may have at most \
             {ID_MAX_ENCODED_CHARS} characters"
        ));
    }
    Ok(text)
}

/// A time as sent: RFC 3339 in a string, or epoch milliseconds (a fraction is cut off).
pub(super) fn instant(value: &str) -> Option<i64> {
    if let Some(text) = json::string(value) {
        return time::parse_rfc3339(&text);
    }
    let millis = match value.parse::<i64>() {
        Ok(millis) => millis,
        Err(_) => {
            let millis = value.parse::<f64>().ok().filter(|millis| millis.is_finite())?;
            millis.floor() as i64
        }
    };
    (time::MIN_MS..=time::MAX_MS).contains(&millis).then_some(millis)
}
