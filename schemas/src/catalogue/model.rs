//! What an event type and a channel kind are, once read.
//!
//! Plain data: names are resolved and conditions parsed, but nothing here is evaluated. Who may
//! read a channel is stated here and decided by the gateway.

use crate::Priority;

/// How a channel keeps what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// History and resume.
    Stream,
    /// The latest per key: a snapshot on subscribe, then changes.
    State,
    /// Kept at most a minute, no resume.
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
    /// The account's own people: role member, analyst or admin.
    Member,
    /// Members, or a participant of the thread or conversation.
    Participant,
    /// The user whose id it is.
    User,
    /// Role producer or admin.
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
    /// What stands before the colon.
    pub name: String,
    /// What stands behind it: `account`, `workspace`, `user`, `author`, `post`, …
    pub id: String,
    /// How it keeps what it carries; the first is what a type's entry means where it says nothing.
    pub classes: Vec<Class>,
    /// Who may read it; any of these.
    pub readers: Vec<ReaderRole>,
    /// Who may read it instead where the id begins so.
    pub readers_by_prefix: Vec<(String, Vec<ReaderRole>)>,
    /// What makes the key of a state entry, where the type's entry says nothing.
    pub state_key: Vec<Source>,
    /// For a derived kind: the kinds it is a union of.
    pub union: Vec<String>,
    /// The operator that writes it, where no type's entry names it.
    pub written_by: Option<String>,
    /// What it carries, for people.
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
    /// Whether an event without it is refused.
    pub required: bool,
    /// Whether keys or channel names are made of it, so that it has to be a usable id.
    pub identifies: bool,
    /// The only texts it may hold, where there are such.
    pub values: Vec<String>,
    /// The least and the greatest number it may hold, where there are such.
    pub range: Option<(f64, f64)>,
    /// What an object in it looks like, for people; nothing checks it.
    pub shape: Option<String>,
}

/// Where a part of a key or a channel's id comes from.
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

/// A test of one field of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The field.
    pub field: String,
    /// What it is tested for.
    pub predicate: Predicate,
    /// Whether the test has to fail.
    pub negated: bool,
}

/// What a field is tested for. Numbers and booleans are compared as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// It is there and not null.
    Present,
    /// It is this.
    Is(String),
    /// It begins so.
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
    /// The name means this type only if this holds; without it, another one.
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

/// An operator an event moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The operator.
    pub operator: String,
    /// Only if this holds.
    pub when: Option<Condition>,
}

/// Which events of a type go to its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryPolicy {
    /// All.
    Always,
    /// Only those an operator emitted; a producer's event moves that operator's state.
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

/// What an absent field becomes: a text, then perhaps a value.
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
    /// The object's fields to take it from; the first that is there.
    pub from: Vec<String>,
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSpec {
    /// Its name.
    pub name: String,
    /// Where it runs: `admit`, `derive` or `gateway`.
    pub stage: String,
    /// Whether it takes every event.
    pub all: bool,
}

/// An event type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventType {
    /// The canonical name; `prefix.*` stands for every name that begins so and has no own entry.
    pub name: String,
    /// The part of the catalogue it is in.
    pub domain: String,
    /// Other names it is sent under.
    pub aliases: Vec<Alias>,
    /// The priority where the producer gives none.
    pub priority: Priority,
    /// Priorities that take its place if a condition holds; the first.
    pub priority_if: Vec<(Condition, Priority)>,
    /// The entity key where the producer gives none: the first of these that is there.
    pub key: Vec<Source>,
    /// The fields of data, by name.
    pub fields: Vec<Field>,
    /// Of each of these groups at least one field has to be there.
    pub one_of: Vec<Vec<String>>,
    /// Where its events go.
    pub channels: Vec<ChannelRule>,
    /// Which events go there.
    pub delivery_policy: DeliveryPolicy,
    /// The operators its events move, besides those that take every event.
    pub moves: Vec<Move>,
    /// The operator that emits it.
    pub emitted_by: Option<String>,
    /// Whether producers send it too.
    pub producers: bool,
    /// Whether its data is taken as it is, neither normalised nor validated.
    pub unchecked: bool,
    /// Whether it is written by Tidewire's own processes only.
    pub internal: bool,
    /// Whether it goes to every partition of its lane.
    pub broadcast: bool,
    /// Fields the type itself sets.
    pub presets: Vec<(String, String)>,
    /// Other spellings of its fields, in the order they are tried.
    pub renames: Vec<Rename>,
    /// What absent fields become.
    pub defaults: Vec<FieldDefault>,
    /// The fields of data its channels are made of or depend on.
    pub(crate) wanted: Vec<String>,
    /// Fields of objects in data that have to be usable ids.
    pub(crate) inner_ids: Vec<Source>,
}

impl EventType {
    /// A field of data by name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        // At most two dozen, and their lengths differ: faster than a search by halves.
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether its events only pass by: every channel is ephemeral and no operator keeps anything
    /// of them, so they skip the lanes.
    pub fn is_ephemeral(&self) -> bool {
        let ephemeral = |rule: &ChannelRule| rule.classes == [Class::Ephemeral];
        !self.channels.is_empty() && self.moves.is_empty() && self.channels.iter().all(ephemeral)
    }
}
