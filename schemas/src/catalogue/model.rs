//! The model of the catalogue: event types, channel kinds, operators and their rules.
//!
//! Plain data: names are resolved and conditions parsed, but nothing here is evaluated. The readers
//! of a channel kind are stated here; the gateway decides access.

use crate::Priority;

/// A file that adds to the built-in catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// Its name without folder and `.toml`.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// How a channel keeps what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// History and resume.
    Stream,
    /// The latest per key: a snapshot on subscribe, then changes.
    State,
    /// Kept for a minute at most, no resume.
    Ephemeral,
    /// A live union of other channels; never written to.
    Derived,
}

impl Class {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::State => "state",
            Self::Ephemeral => "ephemeral",
            Self::Derived => "derived",
        }
    }
}

/// Who may read a channel, given the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReaderRole {
    /// Any token with the account.
    Anyone,
    /// The roles member, analyst and admin.
    Member,
    /// Members and participants of the thread or conversation.
    Participant,
    /// The user whose id it is.
    User,
    /// The roles producer and admin.
    Producer,
}

impl ReaderRole {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Member => "member",
            Self::Participant => "participant",
            Self::User => "user",
            Self::Producer => "producer",
        }
    }
}

/// A kind of channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelKind {
    /// The file it is in, without `.toml`.
    pub file: String,
    /// The part before the colon.
    pub name: String,
    /// What the id after the colon is: `account`, `workspace`, `user`, `author`, `post`, …
    pub id: String,
    /// Its classes; the first is the default of a type's entry.
    pub classes: Vec<Class>,
    /// Who may read it; one of these roles is enough.
    pub readers: Vec<ReaderRole>,
    /// Roles that replace `readers` for ids with this prefix.
    pub readers_by_prefix: Vec<(String, Vec<ReaderRole>)>,
    /// The default key of a state entry.
    pub state_key: Vec<Source>,
    /// For a derived kind: the kinds it is a union of.
    pub union: Vec<String>,
    /// The operator that writes it, if no type lists it.
    pub written_by: Option<String>,
    /// What it carries, for the reference page.
    pub carries: String,
}

impl ChannelKind {
    /// Whether the id is the event's account, so that the kind may be named without one.
    pub fn is_per_account(&self) -> bool {
        matches!(self.id.as_str(), "account" | "workspace")
    }

    /// Who may read the channel of this id.
    pub fn readers_for(&self, id: &str) -> &[ReaderRole] {
        let special =
            self.readers_by_prefix.iter().find(|(prefix, _)| id.starts_with(prefix.as_str()));
        special.map_or(&self.readers, |(_, readers)| readers)
    }
}

/// What a field of data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// A string of 1 to 128 characters or an integer.
    Id,
    /// A string.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A finite number.
    Number,
    /// `true` or `false`.
    Bool,
    /// RFC 3339 or epoch milliseconds.
    Time,
    /// An object.
    Object,
    /// A list of strings.
    Texts,
    /// A list of objects.
    Objects,
}

impl FieldKind {
    /// What it is called in answers and on the reference page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Text => "string",
            Self::Integer => "int64",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Time => "time",
            Self::Object => "object",
            Self::Texts => "string list",
            Self::Objects => "object list",
        }
    }
}

/// A field of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether an event without it is rejected.
    pub required: bool,
    /// Whether keys or channel names contain it, so that it must be a valid id.
    pub identifies: bool,
    /// The allowed values; empty if any is allowed.
    pub values: Vec<String>,
    /// The least and the greatest allowed number.
    pub range: Option<(f64, f64)>,
    /// The shape of an object in it, for the reference page; not checked.
    pub shape: Option<String>,
}

/// Where a part of a key or of a channel's id comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The envelope's account.
    Account,
    /// The event's canonical type.
    Type,
    /// A field of data.
    Field(String),
    /// A field of an object in data.
    Inner(String, String),
}

impl Source {
    /// The field of data, if it is one.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            Self::Account | Self::Type | Self::Inner(..) => None,
        }
    }
}

/// A test of one field of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub field: String,
    /// What it is tested for.
    pub predicate: Predicate,
    /// Whether the condition holds when the test fails.
    pub negated: bool,
}

/// What a field is tested for. Numbers and booleans are compared as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// It is there and not null.
    Present,
    /// It equals this text.
    Is(String),
    /// It begins with this text.
    Begins(String),
}

/// Another name a type is sent under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// The surface that uses it: `S0` to `S4`.
    pub surface: String,
    /// A field the name sets.
    pub preset: Option<(String, String)>,
    /// The condition under which the name means this type.
    pub when: Option<Condition>,
}

/// A channel events of a type go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// The channel's kind.
    pub kind: String,
    /// Its id.
    pub id: Source,
    /// As which of its classes.
    pub classes: Vec<Class>,
    /// What makes the key of a state entry.
    pub state_key: Vec<Source>,
    /// Only if this holds.
    pub when: Option<Condition>,
    /// The rule as it is written in the file.
    pub text: String,
}

/// An entry of a type's routing plan: an operator whose state an event changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The operator.
    pub operator: String,
    /// The key it runs for.
    pub key: MoveKey,
    /// Only if this holds.
    pub when: Option<Condition>,
}

/// The key of the state that an operator changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveKey {
    /// The event's own.
    Own,
    /// The first of these that gives a key; if none does, the operator is not run.
    FirstOf(Vec<KeyPart>),
}

/// A field that gives a key, or a list that gives several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Where it comes from.
    pub source: Source,
    /// Whether it is a list, each element a key.
    pub is_list: bool,
}

/// Which events of a type go to its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryPolicy {
    /// All.
    Always,
    /// Only those an operator emitted; a producer's event only changes that operator's state.
    Emitted,
}

/// Another spelling of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// As it is sent.
    pub from: String,
    /// As it is kept.
    pub to: String,
    /// Whether its text becomes lower case.
    pub lower: bool,
}

/// The default of an absent field: a text, optionally followed by a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDefault {
    /// The field.
    pub field: String,
    /// What it begins with.
    pub prefix: String,
    /// What follows: `event_id`, `account_id` or a field of data.
    pub value: Option<String>,
}

/// Fills an absent flat field from a nested object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lift {
    /// The object.
    pub object: String,
    /// The flat field.
    pub field: String,
    /// The object's fields to copy it from; the first that is present.
    pub from: Vec<String>,
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSpec {
    /// Its name.
    pub name: String,
    /// Where it runs: `admit`, `derive` or `gateway`.
    pub stage: String,
    /// Whether it processes every event.
    pub all: bool,
    /// The types it emits.
    pub emits: Vec<String>,
}

/// An event type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventType {
    /// Its index in [`Catalogue::types`](super::Catalogue::types).
    pub index: usize,
    /// The canonical name; `prefix.*` covers every name with that prefix and no entry of its own.
    pub name: String,
    /// The part of the catalogue it is in.
    pub domain: String,
    /// Other names it is sent under.
    pub aliases: Vec<Alias>,
    /// The default priority.
    pub priority: Priority,
    /// Priorities under a condition; the first that holds replaces the default.
    pub priority_if: Vec<(Condition, Priority)>,
    /// The default entity key: the first of these that is present.
    pub key: Vec<Source>,
    /// The fields of data, by name.
    pub fields: Vec<Field>,
    /// Groups of fields; at least one field of each group is required.
    pub one_of: Vec<Vec<String>>,
    /// Where its events go.
    pub channels: Vec<ChannelRule>,
    /// Which events go there.
    pub delivery_policy: DeliveryPolicy,
    /// The operators whose state its events change, except those that process every event.
    pub moves: Vec<Move>,
    /// The operators that emit it.
    pub emitted_by: Vec<String>,
    /// Whether producers send it too.
    pub producers: bool,
    /// Whether its data is neither normalised nor validated.
    pub unchecked: bool,
    /// Whether only Tidewire's own processes write it.
    pub internal: bool,
    /// Whether it goes to every partition of its lane.
    pub broadcast: bool,
    /// Fields the type itself sets.
    pub presets: Vec<(String, String)>,
    /// Other spellings of its fields, in the order they are tried.
    pub renames: Vec<Rename>,
    /// What absent fields become.
    pub defaults: Vec<FieldDefault>,
    /// Whether its channels are made of fields of data, or depend on some.
    pub(crate) reads_fields: bool,
    /// Fields of objects in data that must be valid ids.
    pub(crate) inner_ids: Vec<Source>,
}

impl EventType {
    /// A field of data by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        // At most two dozen fields of different lengths: faster than a binary search.
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether its events skip the lanes: every channel is ephemeral and no operator keeps anything
    /// of them.
    pub fn is_ephemeral(&self) -> bool {
        let ephemeral = |rule: &ChannelRule| rule.classes == [Class::Ephemeral];
        !self.channels.is_empty() && self.moves.is_empty() && self.channels.iter().all(ephemeral)
    }
}
