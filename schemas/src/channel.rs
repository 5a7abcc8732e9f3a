//! Parses and formats channel names, which clients subscribe to and which key the outputs.
//!
//! A name is `kind:id`. Ids are visible ASCII without comma, `*`, `{` and `}`; all other
//! characters, and `%`, are percent-encoded, so a name is safe in queries, lists and globs. Kinds
//! whose id is the account may be written bare, which means that kind for every account of the
//! token. The kinds are data: see [`crate::catalogue`].
//!
//! Nothing here decides who may subscribe; it only finds the rule that applies.

use crate::catalogue::{Catalogue, ChannelKind};

/// The longest name, in characters.
pub const NAME_MAX_CHARS: usize = 160;

/// The longest id.
pub const ID_MAX_CHARS: usize = 128;

/// The longest id in its encoded form, so that it fits a name with the longest kind. Ids of events
/// are limited to it, so that every event's channels have names.
pub const ID_MAX_ENCODED_CHARS: usize = 144;

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its kind: classes, readers, content.
    pub kind: &'static ChannelKind,
    /// The id, decoded; `None` for a bare kind.
    pub id: Option<String>,
}

/// Why a text is no channel name, and what would be valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChannelError(pub String);

impl Channel {
    /// Reads a name of one of the catalogue's kinds.
    pub fn parse(catalogue: &'static Catalogue, name: &str) -> Result<Self, ChannelError> {
        if name.len() > NAME_MAX_CHARS {
            return fail(format!("the channel name has more than {NAME_MAX_CHARS} characters"));
        }
        let (kind_name, id) = match name.split_once(':') {
            Some((kind, id)) => (kind, Some(id)),
            None => (name, None),
        };
        let Some(kind) = catalogue.channel_kind(kind_name) else {
            return fail(unknown_kind(catalogue, kind_name));
        };
        let id = match id {
            None if kind.is_per_account() => None,
            None | Some("") => {
                let shape = &kind.id;
                return fail(format!("`{kind_name}` needs an id: `{kind_name}:{{{shape}}}`"));
            }
            Some(id) => Some(decode_id(id)?),
        };
        let channel = Self { kind, id };
        if channel.name().len() > NAME_MAX_CHARS {
            return fail(format!("the channel name has more than {NAME_MAX_CHARS} characters"));
        }
        Ok(channel)
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

fn fail<T>(message: String) -> Result<T, ChannelError> {
    Err(ChannelError(message))
}

fn unknown_kind(catalogue: &Catalogue, name: &str) -> String {
    let kinds = catalogue.channel_kinds().iter().map(|kind| kind.name.as_str());
    let near = kinds.filter(|kind| kind.starts_with(name) || name.starts_with(kind));
    match near.filter(|_| !name.is_empty()).max_by_key(|kind| kind.len()) {
        Some(kind) => format!("unknown channel kind `{name}`, did you mean `{kind}`?"),
        None => {
            let kinds = catalogue.channel_kinds().iter().map(|kind| kind.name.as_str());
            let kinds: Vec<&str> = kinds.collect();
            format!("unknown channel kind `{name}`; the kinds are {}", kinds.join(", "))
        }
    }
}

/// Decodes the id of a name. Needless escapes are accepted; characters that must be escaped are an
/// error that shows the valid id.
fn decode_id(id: &str) -> Result<String, ChannelError> {
    let mut bytes = Vec::with_capacity(id.len());
    let mut rest = id.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = rest.first_chunk::<2>().and_then(|digits| hex2(*digits));
            let Some(decoded) = digits else {
                return fail(
                    "`%` in a channel name must be followed by two hexadecimal digits".into(),
                );
            };
            bytes.push(decoded);
            rest = &rest[2..];
        } else if is_plain(byte) {
            bytes.push(byte);
        } else {
            let mut right = String::new();
            encode_id(id, &mut right);
            return fail(format!(
                "the id must be visible ASCII without comma, `*`, `{{` and `}}`, the rest \
                 percent-encoded; this one is written `{right}`"
            ));
        }
    }
    match String::from_utf8(bytes) {
        Ok(id) if !id.chars().any(char::is_control) => Ok(id),
        Ok(_) => fail("a channel id must not contain control characters".into()),
        Err(_) => fail("the channel id is not UTF-8 after percent-decoding".into()),
    }
}

fn hex2([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Appends an id in the encoded form of a channel name.
pub fn encode_id(id: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if id.bytes().all(is_plain) {
        return out.push_str(id);
    }
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

/// Whether a text can be the id of an entity: not too long, also in a channel name, and without
/// control characters.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= ID_MAX_CHARS
        && !text.chars().any(char::is_control)
        && encoded_len(text) <= ID_MAX_ENCODED_CHARS
}

/// The length of an id in its encoded form.
pub(crate) fn encoded_len(id: &str) -> usize {
    id.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(name: &str, expected: Result<(&str, Option<&str>), &str>) {
        let parsed = Channel::parse(Catalogue::builtin(), name);
        match (&parsed, expected) {
            (Ok(channel), Ok((kind, id))) => {
                assert_eq!(
                    (channel.kind.name.as_str(), channel.id.as_deref()),
                    (kind, id),
                    "{name}"
                );
            }
            (Err(error), Err(part)) => assert!(error.0.contains(part), "{name}: {error}"),
            _ => panic!("{name}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn names_are_read() {
        check("posts:alice", Ok(("posts", Some("alice"))));
        check("posts:%E6%97%A5", Ok(("posts", Some("日"))));
        check("posts:a%2cb", Ok(("posts", Some("a,b"))));
        check("typing:user/u1", Ok(("typing", Some("user/u1"))));
        check("conversation:a:b", Ok(("conversation", Some("a:b"))));
        check("campaigns", Ok(("campaigns", None)));
        check("inbox", Ok(("inbox", None)));
    }

    #[test]
    fn an_invalid_name_gives_an_error_with_the_valid_form() {
        check("", Err("the kinds are"));
        check("post:1", Err("did you mean `posts`"));
        check("posts", Err("`posts:{author}`"));
        check("posts:", Err("`posts:{author}`"));
        check("posts:a,b", Err("written `a%2Cb`"));
        check("posts:日", Err("written `%E6%97%A5`"));
        check("posts:*", Err("written `%2A`"));
        check("posts:%4", Err("two hexadecimal digits"));
        check("posts:%ff", Err("UTF-8"));
        check("posts:%00", Err("control"));
        check(&format!("posts:{}", "a".repeat(160)), Err("160"));
    }

    #[test]
    fn a_name_has_one_canonical_form() {
        let name = |text| Channel::parse(Catalogue::builtin(), text).map(|channel| channel.name());
        assert_eq!(name("posts:%61%2c"), Ok("posts:a%2C".to_owned()));
        assert_eq!(name("inbox"), Ok("inbox".to_owned()));
    }

    #[test]
    fn readers_depend_on_the_prefix_of_the_id() {
        let who = |name| {
            let channel = Channel::parse(Catalogue::builtin(), name).expect("a name");
            channel.kind.readers_for(channel.id.as_deref().unwrap_or_default()).to_vec()
        };
        assert_eq!(who("typing:user/u1"), [crate::catalogue::ReaderRole::User]);
        assert_eq!(who("typing:thread-1"), [crate::catalogue::ReaderRole::Participant]);
    }

    proptest! {
        #[test]
        fn any_id_reads_back_what_was_encoded(id in "\\PC{1,30}") {
            let mut name = "posts:".to_owned();
            encode_id(&id, &mut name);
            prop_assert_eq!(name.len(), 6 + encoded_len(&id));
            if name.len() <= NAME_MAX_CHARS {
                let channel = Channel::parse(Catalogue::builtin(), &name).expect("encoded");
                prop_assert_eq!(channel.name(), name);
                prop_assert_eq!(channel.id, Some(id));
            }
        }

        #[test]
        fn no_text_panics(name in "(posts|inbox|x)?:?[%a-f0-9:/日]{0,12}") {
            let _ = Channel::parse(Catalogue::builtin(), &name);
        }
    }
}
