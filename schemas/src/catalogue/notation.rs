//! Parsers of the short notations in the catalogue's files: fields, channels, aliases, conditions.
//!
//! ```text
//! data       post_id, id|all:b / lang, tags:s[], author:o{id, name}, level(low|high), s:f(-1..1)
//! channel    kind[:{field}] [as class[+class]] [by field,field] [if condition | unless condition]
//! move       operator [by key|key] [if condition | unless condition], a key: field | list[]
//! alias      name[(field=value)] [if condition]
//! condition  field | field=value | field=beginning*
//! ```
//!
//! Fields before the `/` of a data line are required. `@group` is replaced by that group's line.
//! Alternatives joined by `|` are optional each, but one of them is required. Errors are sentences;
//! no parser knows the rest of the catalogue.

use std::collections::BTreeMap;

use super::model::{Condition, Field, FieldKind, KeyPart, Predicate, Source};

/// Bytes of a data line with its groups.
const DATA_LINE_MAX_BYTES: usize = 64 << 10;

/// Fields of a type; with [`ALTERNATIVES_MAX`] its Avro schema is then one that can be read.
const FIELDS_MAX: usize = 512;

/// Fields of which one is required.
const ALTERNATIVES_MAX: usize = 16;

/// A parsed data line.
#[derive(Debug, Default)]
pub(super) struct DataLine {
    pub(super) fields: Vec<Field>,
    pub(super) one_of: Vec<Vec<String>>,
}

/// A parsed channel line.
#[derive(Debug)]
pub(super) struct ChannelLine<'a> {
    pub(super) kind: &'a str,
    pub(super) id: Option<Source>,
    pub(super) classes: Vec<&'a str>,
    pub(super) state_key: Vec<Source>,
    pub(super) when: Option<Condition>,
}

/// A parsed alias line.
#[derive(Debug)]
pub(super) struct AliasLine<'a> {
    pub(super) name: &'a str,
    pub(super) preset: Option<(String, String)>,
    pub(super) when: Option<Condition>,
}

/// A parsed `moves` line.
#[derive(Debug)]
pub(super) struct MoveLine<'a> {
    pub(super) operator: &'a str,
    /// Empty: the event's own key.
    pub(super) key: Vec<KeyPart>,
    pub(super) when: Option<Condition>,
}

/// Reads a data line.
pub(super) fn data(line: &str, groups: &BTreeMap<String, String>) -> Result<DataLine, String> {
    let mut text = line.to_owned();
    // Backwards, so that `@author_name` is replaced before `@author`.
    for (name, group) in groups.iter().rev() {
        let name = format!("@{name}");
        if text.len() + text.matches(&name).count() * group.len() > DATA_LINE_MAX_BYTES {
            return Err(format!(
                "the line has over {DATA_LINE_MAX_BYTES} bytes with its groups; list fewer fields"
            ));
        }
        text = text.replace(&name, group);
    }
    if let Some(at) = text.find('@') {
        return Err(format!("`{}` is not a group of this file", &text[at..]));
    }
    let halves: Vec<&str> = split(&text, '/');
    let [required, rest @ ..] = &halves[..] else { return Ok(DataLine::default()) };
    let optional = match rest {
        [] => "",
        [optional] => optional,
        _ => return Err("more than one `/` separates required from optional fields".to_owned()),
    };
    let mut out = DataLine::default();
    for item in split(required, ',') {
        let names = split(item, '|');
        if names.len() > ALTERNATIVES_MAX {
            return Err(format!("`{item}` has over {ALTERNATIVES_MAX} alternatives"));
        }
        let alone = names.len() == 1;
        let mut group = Vec::new();
        for name in names {
            let mut field = field(name)?;
            field.required = alone;
            group.push(field.name.clone());
            out.fields.push(field);
        }
        if !alone {
            out.one_of.push(group);
        }
    }
    for item in split(optional, ',') {
        out.fields.push(field(item)?);
    }
    if out.fields.len() > FIELDS_MAX {
        return Err(format!("there are over {FIELDS_MAX} fields; keep the others in an object"));
    }
    out.fields.sort_by(|a, b| a.name.cmp(&b.name));
    match out.fields.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(format!("field `{}` is listed twice", pair[0].name)),
        None => Ok(out),
    }
}

/// Splits at `sign` outside brackets; parts are trimmed, and empty ones dropped except around `/`.
fn split(text: &str, sign: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, char) in text.char_indices() {
        match char {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            _ if char == sign && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + char.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let keep_empty = sign == '/';
    parts.iter().map(|part| part.trim()).filter(|part| keep_empty || !part.is_empty()).collect()
}

/// Reads `name[:kind][{shape}][(values)]`.
fn field(text: &str) -> Result<Field, String> {
    let (rest, values) = bracketed(text, ['(', ')'])?;
    let (rest, shape) = bracketed(rest, ['{', '}'])?;
    let (name, kind) = match rest.split_once(':') {
        None if rest == "id" || rest.ends_with("_id") => (rest, FieldKind::Id),
        None => (rest, FieldKind::Text),
        Some((name, kind)) => (name, field_kind(kind)?),
    };
    is_name(name)?;
    let mut field = Field {
        name: name.to_owned(),
        kind,
        required: false,
        identifies: false,
        values: Vec::new(),
        range: None,
        shape: shape.map(str::to_owned),
    };
    if let Some(values) = values {
        match values.split_once("..") {
            Some((least, greatest)) => {
                let number = |text: &str| {
                    text.trim().parse().map_err(|_| format!("`{text}` is not a number in `{rest}`"))
                };
                field.range = Some((number(least)?, number(greatest)?));
            }
            None => field.values = values.split('|').map(|value| value.trim().to_owned()).collect(),
        }
    }
    Ok(field)
}

fn field_kind(text: &str) -> Result<FieldKind, String> {
    Ok(match text {
        "i" => FieldKind::Integer,
        "f" => FieldKind::Number,
        "b" => FieldKind::Bool,
        "t" => FieldKind::Time,
        "o" => FieldKind::Object,
        "s[]" => FieldKind::Texts,
        "o[]" => FieldKind::Objects,
        _ => return Err(format!("unknown kind of field `:{text}` (i, f, b, t, o, s[] or o[])")),
    })
}

/// Splits off the text in brackets at the end.
fn bracketed(text: &str, brackets: [char; 2]) -> Result<(&str, Option<&str>), String> {
    let Some(open) = text.strip_suffix(brackets[1]) else { return Ok((text, None)) };
    match open.split_once(brackets[0]) {
        Some((rest, inside)) => Ok((rest.trim(), Some(inside.trim()))),
        None => Err(format!("`{text}` has no opening bracket")),
    }
}

fn is_name(name: &str) -> Result<(), String> {
    if is_word(name) {
        return Ok(());
    }
    Err(format!("`{name}` is not a field name (a-z, 0-9 and _, each part begins with a letter)"))
}

/// Whether it is made of a-z and 0-9 in parts joined by `_`, each of which begins with a letter:
/// as the name of an Avro record or field it is valid and no two such names become one.
pub(super) fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part =
        |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase()) && part.bytes().all(plain);
    text.split('_').all(is_part)
}

/// Reads where a value comes from: `account_id`, `$type`, a field, or `object.field`.
pub(super) fn source(text: &str) -> Result<Source, String> {
    match text {
        "account_id" => return Ok(Source::Account),
        "$type" => return Ok(Source::Type),
        _ => {}
    }
    match text.split_once('.') {
        None => is_name(text).map(|()| Source::Field(text.to_owned())),
        Some((object, field)) => {
            is_name(object)?;
            is_name(field)?;
            Ok(Source::Inner(object.to_owned(), field.to_owned()))
        }
    }
}

/// Reads a condition.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    let (field, predicate) = match text.split_once('=') {
        None => (text, Predicate::Present),
        Some((field, value)) => match value.strip_suffix('*') {
            Some(beginning) => (field, Predicate::Begins(beginning.to_owned())),
            None => (field, Predicate::Is(value.to_owned())),
        },
    };
    is_name(field)?;
    Ok(Condition { field: field.to_owned(), predicate, negated: false })
}

/// Reads the rest of a line: nothing, or one condition.
fn when(words: &[&str]) -> Result<Option<Condition>, String> {
    match words {
        [] => Ok(None),
        ["if", text] => condition(text).map(Some),
        ["unless", text] => {
            condition(text).map(|condition| Some(Condition { negated: true, ..condition }))
        }
        _ => Err(format!("`{}` is neither `if` nor `unless` and a condition", words.join(" "))),
    }
}

/// Reads a channel line.
pub(super) fn channel(line: &str) -> Result<ChannelLine<'_>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, rest @ ..] = &words[..] else { return Err("a channel line is empty".to_owned()) };
    let (kind, id) = match name.split_once(':') {
        None => (*name, None),
        Some((kind, id)) => {
            let inside = id.strip_prefix('{').and_then(|id| id.strip_suffix('}'));
            let field = inside.ok_or_else(|| format!("`{id}` is not a field in braces"))?;
            (kind, Some(source(field)?))
        }
    };
    let (classes, rest) = match rest {
        ["as", classes, rest @ ..] => (classes.split('+').collect(), rest),
        rest => (Vec::new(), rest),
    };
    let (state_key, rest) = match rest {
        ["by", fields, rest @ ..] => {
            (fields.split(',').map(source).collect::<Result<_, _>>()?, rest)
        }
        rest => (Vec::new(), rest),
    };
    Ok(ChannelLine { kind, id, classes, state_key, when: when(rest)? })
}

/// Reads an alias line.
pub(super) fn alias(line: &str) -> Result<AliasLine<'_>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, rest @ ..] = &words[..] else { return Err("an alias is empty".to_owned()) };
    let (name, preset) = bracketed(name, ['(', ')'])?;
    let preset = preset
        .map(|preset| match preset.split_once('=') {
            Some((field, value)) => Ok((field.to_owned(), value.to_owned())),
            None => Err(format!("`{preset}` is not of the form field=value")),
        })
        .transpose()?;
    Ok(AliasLine { name, preset, when: when(rest)? })
}

/// Reads a `moves` line.
pub(super) fn moved(line: &str) -> Result<MoveLine<'_>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [operator, rest @ ..] = &words[..] else {
        return Err("the name of an operator is empty".to_owned());
    };
    let (key, rest) = match rest {
        ["by", keys, rest @ ..] => (keys.split('|').map(key_part).collect::<Result<_, _>>()?, rest),
        ["by"] => return Err(format!("`{line}` names no field after `by`")),
        rest => (Vec::new(), rest),
    };
    Ok(MoveLine { operator, key, when: when(rest)? })
}

fn key_part(text: &str) -> Result<KeyPart, String> {
    let (name, is_list) = match text.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (text, false),
    };
    Ok(KeyPart { source: source(name)?, is_list })
}

/// Whether a pattern (`name`, `prefix.*` or `*`) covers a canonical name.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}
