//! Which channels are served, what a subscription to one gets, and who may subscribe.
//!
//! A kind of class `stream` delivers events, one of class `state` the newest value of each key, and
//! one of both delivers both. Derived and ephemeral kinds are not served yet.

use tidewire_schemas::catalogue::{Catalogue, Class};
use tidewire_schemas::channel::Channel;

use super::native::{ErrorCode, RequestError};
use crate::fanout::identity::{Accounts, Identity};

/// What a channel delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedClasses {
    /// Events.
    Stream,
    /// The newest value of each key.
    State,
    /// Events, and the newest value of each key.
    Both,
}

impl ServedClasses {
    /// Whether events are delivered.
    pub fn has_stream(self) -> bool {
        self != Self::State
    }

    /// Whether state is delivered.
    pub fn has_state(self) -> bool {
        self != Self::Stream
    }
}

/// A channel that an identity may subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedChannel {
    /// The name by which its outputs are keyed.
    pub name: String,
    /// What it delivers.
    pub classes: ServedClasses,
}

impl ServedChannel {
    /// Checks whether an identity may subscribe to a channel of the catalogue's kinds.
    pub fn authorize(
        catalogue: &'static Catalogue,
        identity: &Identity,
        name: &str,
    ) -> Result<Self, RequestError> {
        let mut channel = Channel::parse(catalogue, name)
            .map_err(|error| RequestError::new(ErrorCode::InvalidChannel, error.to_string()))?;
        if channel.id.is_none() {
            match &identity.accounts {
                Accounts::Only(only) if only.len() == 1 => channel.id = Some(only[0].to_string()),
                _ => {
                    let text = format!("`{name}` needs an account: `{name}:ACCOUNT`");
                    return Err(RequestError::new(ErrorCode::InvalidChannel, text));
                }
            }
        }
        if !identity.may_read(&channel) {
            let text = format!("user `{}` may not read `{name}`", identity.user);
            return Err(RequestError::new(ErrorCode::Forbidden, text));
        }
        let has = |class| channel.kind.classes.contains(&class);
        let classes = match (has(Class::Stream), has(Class::State)) {
            (true, true) => ServedClasses::Both,
            (true, false) => ServedClasses::Stream,
            (false, true) => ServedClasses::State,
            (false, false) => {
                let class = if has(Class::Derived) { "derived" } else { "ephemeral" };
                let text = format!("`{name}`: {class} channels are not served yet");
                return Err(RequestError::new(ErrorCode::NotFound, text));
            }
        };
        Ok(Self { name: channel.name(), classes })
    }
}
