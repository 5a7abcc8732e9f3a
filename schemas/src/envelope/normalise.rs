//! Steps 1 to 5 of admission: presets, snake_case, lifting, other spellings, defaults.
//!
//! `data` is a list of members whose values stay slices of the producer's text. A step renames and
//! adds members; the object is written again only if a step changed it. A field that is present and
//! not null is never overwritten, except by a preset, since the alias itself states that value.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::reason::{Reason, Rejection, shown};
use crate::catalogue::{Alias, Catalogue, EventType, FieldDefault, Lift, Rename};
use crate::json::{self, JsonError, JsonErrorKind, JsonMember, Scanner, quoted};

/// How deep `data` may be nested, itself counted: clients parse it recursively.
pub const DATA_MAX_DEPTH: usize = 32;

/// How many fields `data` may have at its top. The largest type declares 22; a linear search for
/// each of them among so many takes less than a millisecond.
pub const DATA_MAX_FIELDS: usize = 1024;

/// Up to how many members a name is compared with each; few events have more.
const COMPARED_MEMBERS: usize = 32;

/// The names of members. To compare each with all others would take seconds for one request.
#[derive(Default)]
struct MemberNames<'a> {
    names: BTreeSet<Cow<'a, str>>,
    /// How many of the members are in `names`: none while they are few.
    indexed: usize,
}

impl<'a> MemberNames<'a> {
    /// Whether a member has this name. Callers pass the same members, or more of them, each time.
    fn contain(&mut self, members: &[JsonMember<'a>], name: &str) -> bool {
        if members.len() <= COMPARED_MEMBERS {
            return members.iter().any(|member| member.name == name);
        }
        self.names.extend(members[self.indexed..].iter().map(|member| member.name.clone()));
        self.indexed = members.len();
        self.names.contains(name)
    }

    /// Adds the new name of a member that was passed before.
    fn add(&mut self, name: &str) {
        if self.indexed > 0 {
            self.names.insert(Cow::Owned(name.to_owned()));
        }
    }
}

/// An event's `data` during normalisation.
#[derive(Debug)]
pub(crate) struct EventData<'a> {
    raw: &'a str,
    members: Vec<JsonMember<'a>>,
    /// Whether the text has insignificant white space, which NDJSON must not contain.
    spaced: bool,
    /// Whether `members` differ from `raw`.
    changed: bool,
}

impl<'a> EventData<'a> {
    /// Reads the object that begins at the scanner.
    pub(crate) fn read(scanner: &mut Scanner<'a>, text: &'a str) -> Result<Self, Rejection> {
        let (start, spaces) = (scanner.position(), scanner.spaces);
        scanner.open(b'{').map_err(rejection)?;
        let mut members: Vec<JsonMember<'a>> = Vec::with_capacity(16);
        let mut names = MemberNames::default();
        let mut first = true;
        while let Some(name) = scanner.next_name(&mut first).map_err(rejection)? {
            if members.len() == DATA_MAX_FIELDS {
                let message = format!("data has more than {DATA_MAX_FIELDS} fields");
                return Err(Rejection::of(Reason::TooLarge, "data", message));
            }
            if names.contain(&members, &name) {
                let message = format!("data has `{}` twice; send it once", shown(&name));
                return Err(Rejection::of(Reason::BadField, name, message).in_data());
            }
            let in_member = |error| member_rejection(error, &format!("data.{name}"));
            let value = Cow::Borrowed(scanner.value().map_err(in_member)?);
            members.push(JsonMember { name, value });
        }
        let raw = &text[start..scanner.position()];
        Ok(Self { raw, members, spaced: scanner.spaces != spaces, changed: false })
    }

    /// Data from members whose values are compact JSON.
    pub(crate) fn of_members(members: Vec<JsonMember<'a>>) -> Self {
        Self { raw: "", members, spaced: false, changed: true }
    }

    /// A field's value as JSON text; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| member.name == name)?;
        (member.value != "null").then_some(&*member.value)
    }

    pub(super) fn members(&self) -> &[JsonMember<'a>] {
        &self.members
    }

    /// Whether an alias's condition holds; names of the sent data may still be camelCase.
    pub(super) fn fits(&self, alias: &Alias) -> bool {
        struct CamelCaseFields<'d, 'a>(&'d EventData<'a>);
        impl crate::catalogue::FieldLookup for CamelCaseFields<'_, '_> {
            fn value(&self, name: &str) -> Option<&str> {
                let named = |member: &&JsonMember<'_>| {
                    member.name == name || snake_case(&member.name).as_deref() == Some(name)
                };
                let member = self.0.members.iter().find(named)?;
                (member.value != "null").then_some(&*member.value)
            }
        }
        alias.when.as_ref().is_some_and(|condition| condition.holds(&CamelCaseFields(self)))
    }

    /// Steps 1 to 5, in order.
    pub(super) fn normalise(
        &mut self,
        catalogue: &Catalogue,
        event_type: &EventType,
        alias: Option<&Alias>,
    ) {
        let presets = alias.and_then(|alias| alias.preset.as_ref());
        for (field, value) in event_type.presets.iter().chain(presets) {
            self.set(field, quoted(value));
        }
        self.names_to_snake_case();
        for lift in catalogue.lifts() {
            self.lift(lift);
        }
        for rename in &event_type.renames {
            self.rename(rename);
        }
    }

    /// Step 5, once the ids of the envelope are known.
    pub(super) fn fill(&mut self, event_type: &EventType, envelope: &[(&str, &str)]) {
        for default in &event_type.defaults {
            if self.get(&default.field).is_none()
                && let Some(text) = self.default_text(default, envelope)
            {
                self.set(&default.field, quoted(&text));
            }
        }
    }

    fn default_text(&self, default: &FieldDefault, envelope: &[(&str, &str)]) -> Option<String> {
        let Some(name) = &default.value else { return Some(default.prefix.clone()) };
        let own = envelope.iter().find(|(known, _)| known == name).map(|(_, text)| *text);
        let value = match own {
            Some(text) => Cow::Borrowed(text),
            None => json::scalar(self.get(name)?)?,
        };
        Some(format!("{}{value}", default.prefix))
    }

    /// Sets a field, in place if it is present.
    fn set(&mut self, name: &str, value: String) {
        self.changed = true;
        match self.members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.value = Cow::Owned(value),
            None => self
                .members
                .push(JsonMember { name: Cow::Owned(name.to_owned()), value: Cow::Owned(value) }),
        }
    }

    fn names_to_snake_case(&mut self) {
        let mut names = MemberNames::default();
        for at in 0..self.members.len() {
            let Some(name) = snake_case(&self.members[at].name) else { continue };
            if !names.contain(&self.members, &name) {
                names.add(&name);
                self.members[at].name = Cow::Owned(name);
                self.changed = true;
            }
        }
    }

    fn lift(&mut self, lift: &Lift) {
        // Few events have the object, so that is checked first.
        let object = self.get(&lift.object).filter(|value| value.starts_with('{'));
        let Some(object) = object else { return };
        if self.get(&lift.field).is_some() {
            return;
        }
        let value = lift.from.iter().find_map(|name| inner(object, name)).map(str::to_owned);
        if let Some(value) = value {
            self.set(&lift.field, value);
        }
    }

    fn rename(&mut self, rename: &Rename) {
        if self.get(&rename.to).is_some() || self.get(&rename.from).is_none() {
            return;
        }
        self.members.retain(|member| member.name != rename.to);
        let member = self.members.iter_mut().find(|member| member.name == rename.from);
        let member = member.expect("`from` is present, and only `to` was removed");
        member.name = Cow::Owned(rename.to.clone());
        if rename.lower
            && let Some(text) = json::string(&member.value)
        {
            member.value = Cow::Owned(quoted(&text.to_lowercase()));
        }
        self.changed = true;
    }

    /// The normalised object: the producer's bytes unless a step changed it or it has insignificant
    /// white space.
    pub(super) fn into_text(self) -> String {
        if !self.changed && !self.spaced {
            return self.raw.to_owned();
        }
        let mut out = String::with_capacity(self.raw.len() + 64);
        if !self.changed {
            json::compact(self.raw, &mut out);
            return out;
        }
        out.push('{');
        for (n, member) in self.members.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            json::quote(&member.name, &mut out);
            out.push(':');
            if self.spaced {
                json::compact(&member.value, &mut out);
            } else {
                out.push_str(&member.value);
            }
        }
        out.push('}');
        out
    }
}

impl crate::catalogue::FieldLookup for EventData<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}

/// The rejection of text that is not valid JSON.
pub(crate) fn rejection(error: JsonError) -> Rejection {
    match error.kind {
        JsonErrorKind::Syntax(what) => {
            Rejection::new(Reason::NotJson, format!("at byte {}: {what}", error.at))
        }
        JsonErrorKind::NonNumber(name) => Rejection::new(
            Reason::NotJson,
            format!("at byte {}: {name} is not JSON; send null or a string", error.at),
        ),
        JsonErrorKind::OutOfRange => Rejection::new(
            Reason::BadField,
            format!("at byte {}: a number is outside the range of a double", error.at),
        ),
        JsonErrorKind::TooDeep => Rejection::of(
            Reason::TooLarge,
            "data",
            format!("at byte {}: data is nested more than {DATA_MAX_DEPTH} levels deep", error.at),
        ),
    }
}

/// The rejection of a member's value that is not valid JSON, which names the member.
pub(super) fn member_rejection(error: JsonError, name: &str) -> Rejection {
    let Rejection { reason, field, message } = rejection(error);
    Rejection::of(reason, field.unwrap_or_else(|| name.to_owned()), message)
}

/// A field of a nested object, under this name or its camelCase form; null counts as absent.
fn inner<'a>(object: &'a str, wanted: &str) -> Option<&'a str> {
    let mut found = None;
    json::each_member(object, |name, value| {
        let named = name == wanted || snake_case(&name).as_deref() == Some(wanted);
        if named && value != "null" {
            found = Some(value);
        }
        found.is_none()
    })
    .ok()?;
    found
}

/// The snake_case form of a camelCase name; `None` if it has no capital or does not begin with a
/// lower-case letter. A run of capitals is one word (`avatarURL`).
pub(super) fn snake_case(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    if !bytes.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if !plain || !bytes[0].is_ascii_lowercase() {
        return None;
    }
    let mut out = String::with_capacity(name.len() + 4);
    for (at, byte) in bytes.iter().enumerate() {
        if byte.is_ascii_uppercase() {
            let before = bytes[at - 1];
            let next_is_small = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
            let starts_word = !before.is_ascii_uppercase() || next_is_small;
            if starts_word && before != b'_' {
                out.push('_');
            }
        }
        out.push(char::from(byte.to_ascii_lowercase()));
    }
    Some(out)
}
