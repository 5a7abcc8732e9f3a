//! Channel names: what clients subscribe to and outputs are keyed by.
//!
//! A name is `kind:id`. Ids are visible ASCII without comma, `*`, `{` and `}`; everything else (and
//! `%`) is percent-encoded, so a name is safe in queries, lists and globs. Kinds whose id is the
//! account may be written bare, which means that kind for every account of the claim. The kinds
//! themselves are data: see [`crate::catalogue`].
//!
//! Nothing here decides who may subscribe; it only says which rule applies.

use crate::catalogue::{Catalogue, ChannelKind};

/// The longest name, in characters.
pub const NAME_MAX_CHARS: usize = 160;

/// A channel, named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its kind: classes, who may read it, what it carries.
    pub kind: &'static ChannelKind,
    /// The id, decoded; `None` for a bare kind.
    pub id: Option<String>,
}

/// Why a text names no channel; the text says what is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChannelError(pub String);

impl Channel {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.len() > NAME_MAX_CHARS {
            let text = format!("a channel name has at most {NAME_MAX_CHARS} characters");
            return Err(ChannelError(text));
        }
        let (kind, id) = match name.split_once(':') {
            Some((kind, id)) => (kind, Some(id.to_owned())),
            None => (name, None),
        };
        let kind = Catalogue::builtin()
            .channel_kind(kind)
            .ok_or_else(|| ChannelError(format!("unknown channel kind `{kind}`")))?;
        Ok(Self { kind, id })
    }

    /// The canonical name.
    pub fn name(&self) -> String {
        let mut out = self.kind.name.clone();
        if let Some(id) = &self.id {
            out.push(':');
            encode_id(id, &mut out);
        }
        out
    }
}

/// Appends an id as it stands in a channel name.
pub fn encode_id(id: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in id.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b',' | b'*' | b'{' | b'}' | b'%')
}
