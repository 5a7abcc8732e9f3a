//! Generates the reference page `schemas/CATALOGUE.md` from the catalogue.
//!
//! The page is committed, so that it can be read without a build; a test fails if it differs. It
//! contains nothing that is not in the catalogue.

use std::fmt::Write;

use super::lookup::Catalogue;
use super::model::{
    ChannelKind, Condition, DeliveryPolicy, EventType, Field, FieldKind, KeyPart, MoveKey,
    Predicate, ReaderRole, Source,
};
use crate::envelope::Reason;

/// How to bring the committed page up to date.
pub const UPDATE_COMMAND: &str =
    "TIDEWIRE_UPDATE=1 cargo test --release -p tidewire-schemas the_committed_page";

/// The text before the tables.
const INTRODUCTION: &str = "\
Generated from `schemas/catalogue/`. To change it, edit the files there and run
`{command}`.

**How to read it.** The fields of a type are those of `data`. Fields before `/` are required; of
`a|b` at least one is required. A field without a kind is a string, or an id (a string of 1 to 128
characters or an integer) if it is `id` or ends in `_id`. Kinds: `:i` 64-bit integer, `:f` number,
`:b` boolean, `:t` time (RFC 3339 or epoch milliseconds), `:o` object, `:s[]` and `:o[]` lists.
Braces show the shape of an object, parentheses the allowed values or range. Unknown fields are
kept and passed on. `key` is the entity whose order is kept: the first field that is present. A
channel is written `kind:{field}`; without a field its id is the event's account. `as` gives the
class if it is not the kind's first, `by` the key of a state entry, `if` and `unless` a condition.
*Moves* are the operators whose state an event changes, each with its key: `notify by mentions[]`
runs once per element of the list (at most 100), `by a|b` for the first that is present, and without
`by` the key is the event's own. An operator never runs for what it emitted itself.
Events of an *ephemeral* type skip the lanes and can't be resumed. The mark before an alias is the
kind of existing interface that sends the name: S0 social accounts, S1 social network, S2 workspace,
S3 outreach, S4 live feed.

**To add a type** to a deployment, without a build, see
[your own event type](../docs/your-own-event-type.md). A built-in one is an entry in the file of its
domain; no code is needed. An entry has `aliases` by surface (`name`, `name(field=value)`,
`name if field=value`), `priority`, `priority_if`, `key`, `data`, `channels` and `moves` (a leading
`+` adds to the domain's default),
`producers = false` if only operators emit it, `deliver = \"emitted\"` if only what they emit is
delivered, `preset`, `unchecked`, `internal` and `broadcast`. The types that an operator emits are
`emits` of its entry in `operators.toml`. A process does not start with an inconsistent catalogue;
it lists every error. No operator may follow from itself, and at most 4 copies for other keys and
emissions may follow from one event.
";

/// The text after the counts: what is declared but does not happen yet.
const NOT_IN_THIS_VERSION: &str = "\n\
This version runs the operators `dedup`, `posts`, `notify.resolve`, `engagement`, `follows`,
`threads`, `participation`, `membership`, `notify`, `unread` and `delivery`. All others are declared
only: what a type moves them to do and what they emit does not happen yet. The column *who* of the
channels is not enforced, because there are no tokens.
";

/// The page.
pub fn page(catalogue: &Catalogue) -> String {
    let mut out = String::new();
    let aliases: usize = catalogue.types().iter().map(|t| t.aliases.len()).sum();
    out.push_str("# Event catalogue\n\n");
    out.push_str(&INTRODUCTION.replace("{command}", UPDATE_COMMAND));
    line(
        &mut out,
        format_args!(
            "\n{} types with {aliases} aliases, {} channel kinds, {} operators.",
            catalogue.types().len(),
            catalogue.channel_kinds().len(),
            catalogue.operators().len()
        ),
    );
    out.push_str(NOT_IN_THIS_VERSION);
    for (domain, title) in catalogue.domains() {
        let types: Vec<&EventType> =
            catalogue.types().iter().filter(|t| t.domain == *domain).collect();
        type_table(&mut out, title, &types);
    }
    channel_table(&mut out, catalogue);
    normalisation_section(&mut out, catalogue);
    out.push_str("\n## Dead-letter reasons\n\n|reason|meaning|\n|---|---|\n");
    for reason in Reason::ALL {
        line(&mut out, format_args!("|{}|{}|", reason.as_str(), reason.meaning()));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes everything");
}

fn type_table(out: &mut String, title: &str, types: &[&EventType]) {
    line(out, format_args!("\n## {title}\n"));
    out.push_str(
        "|type|aliases|priority|key|data|channels|moves|\n|---|---|---|---|---|---|---|\n",
    );
    for event_type in types {
        let channels: Vec<String> =
            event_type.channels.iter().map(|rule| format!("`{}`", rule.text)).collect();
        line(
            out,
            format_args!(
                "|{}|{}|{}|{}|{}|{}|{}|",
                name(event_type),
                aliases(event_type),
                priority(event_type),
                join(event_type.key.iter().map(source)),
                data(event_type),
                join(channels.into_iter()),
                moves(event_type),
            ),
        );
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// The name with the properties of the type.
fn name(event_type: &EventType) -> String {
    let mut notes = Vec::new();
    let emitters = event_type.emitted_by.join(" and ");
    match (emitters.is_empty(), event_type.producers) {
        (true, _) => {}
        (false, false) => notes.push(format!("only emitted by {emitters}")),
        (false, true) => notes.push(format!("also emitted by {emitters}")),
    }
    if event_type.delivery_policy == DeliveryPolicy::Emitted {
        notes.push("only emitted events are delivered".to_owned());
    }
    for (on, note) in [
        (event_type.unchecked, "not validated"),
        (event_type.internal, "internal"),
        (event_type.broadcast, "to every partition"),
        (event_type.is_ephemeral(), "ephemeral"),
    ] {
        if on {
            notes.push(note.to_owned());
        }
    }
    if notes.is_empty() {
        return format!("`{}`", event_type.name);
    }
    format!("`{}` ({})", event_type.name, notes.join("; "))
}

fn aliases(event_type: &EventType) -> String {
    join(event_type.aliases.iter().map(|alias| {
        let preset = alias.preset.as_ref().map(|(field, value)| format!("({field}={value})"));
        let when = alias.when.as_ref().map(|when| format!(" {}", condition(when)));
        let name = format!("{}{}", alias.name, preset.unwrap_or_default());
        format!("{} `{name}{}`", alias.surface, when.unwrap_or_default())
    }))
}

fn priority(event_type: &EventType) -> String {
    let mut out = event_type.priority.number().to_string();
    for (when, priority) in &event_type.priority_if {
        out.push_str(&format!("; {} {}", priority.number(), condition(when)));
    }
    out
}

fn condition(condition: &Condition) -> String {
    let word = if condition.negated { "unless" } else { "if" };
    match &condition.predicate {
        Predicate::Present => format!("{word} {}", condition.field),
        Predicate::Is(value) => format!("{word} {}={value}", condition.field),
        Predicate::Begins(beginning) => format!("{word} {}={beginning}*", condition.field),
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Account => "account_id".to_owned(),
        Source::Type => "type".to_owned(),
        Source::Field(name) => name.clone(),
        Source::Inner(object, name) => format!("{object}.{name}"),
    }
}

fn data(event_type: &EventType) -> String {
    if event_type.unchecked {
        return "anything".to_owned();
    }
    let alternative =
        |field: &&Field| event_type.one_of.iter().any(|group| group.contains(&field.name));
    let required = event_type.fields.iter().filter(|field| field.required).map(field_text);
    let groups = event_type.one_of.iter().map(|group| {
        let fields = group.iter().filter_map(|name| event_type.field(name));
        fields.map(field_text).collect::<Vec<_>>().join("\\|")
    });
    let optional = event_type.fields.iter().filter(|f| !f.required && !alternative(f));
    let optional: Vec<String> = optional.map(field_text).collect();
    let mut out = join(required.chain(groups));
    if !optional.is_empty() {
        out.push_str(" / ");
        out.push_str(&optional.join(", "));
    }
    for (field, value) in &event_type.presets {
        out.push_str(&format!("; sets {field}={value}"));
    }
    out
}

fn field_text(field: &Field) -> String {
    let mut out = field.name.clone();
    out.push_str(match field.kind {
        FieldKind::Id | FieldKind::Text => "",
        FieldKind::Integer => ":i",
        FieldKind::Number => ":f",
        FieldKind::Bool => ":b",
        FieldKind::Time => ":t",
        FieldKind::Object => ":o",
        FieldKind::Texts => ":s[]",
        FieldKind::Objects => ":o[]",
    });
    if let Some(shape) = &field.shape {
        out.push_str(&format!("{{{shape}}}"));
    }
    if !field.values.is_empty() {
        out.push_str(&format!("({})", field.values.join(" ")));
    }
    if let Some((least, greatest)) = field.range {
        out.push_str(&format!("({least}..{greatest})"));
    }
    out
}

fn moves(event_type: &EventType) -> String {
    join(event_type.moves.iter().map(|m| {
        let when = m.when.as_ref().map(|when| format!(" {}", condition(when)));
        format!("{}{}{}", m.operator, move_key(&m.key), when.unwrap_or_default())
    }))
}

fn move_key(key: &MoveKey) -> String {
    let part = |part: &KeyPart| match part.is_list {
        true => format!("{}[]", source(&part.source)),
        false => source(&part.source),
    };
    match key {
        MoveKey::Own => String::new(),
        // In a table a bar ends the cell.
        MoveKey::FirstOf(parts) => {
            format!(" by {}", parts.iter().map(part).collect::<Vec<_>>().join("\\|"))
        }
    }
}

fn channel_table(out: &mut String, catalogue: &Catalogue) {
    out.push_str("\n## Channels\n\n");
    out.push_str(
        "A name is `kind:id`. Ids are visible ASCII without comma, `*`, `{` and `}`; the rest is\n\
         percent-encoded. Each name needs its id, also if that is the account or workspace.\n\n",
    );
    out.push_str("|channel|class|who|state key|carries|\n|---|---|---|---|---|\n");
    for kind in catalogue.channel_kinds() {
        let classes = join(kind.classes.iter().map(|class| class.as_str().to_owned()));
        line(
            out,
            format_args!(
                "|`{}:{{{}}}`|{classes}|{}|{}|{}|",
                kind.name,
                kind.id,
                readers(kind),
                join(kind.state_key.iter().map(source)),
                kind.carries,
            ),
        );
    }
}

fn readers(kind: &ChannelKind) -> String {
    let names = |roles: &[ReaderRole]| join(roles.iter().map(|role| role.as_str().to_owned()));
    let mut out = names(&kind.readers);
    for (prefix, roles) in &kind.readers_by_prefix {
        out.push_str(&format!("; `{prefix}…`: {}", names(roles)));
    }
    out
}

/// How data is normalised.
fn normalisation_section(out: &mut String, catalogue: &Catalogue) {
    out.push_str("\n## Normalisation\n\n");
    out.push_str(
        "In this order: alias and preset, snake_case of the top-level names, copies out of\n\
         nested objects, other spellings, defaults, validation. A field that is present and not\n\
         null is never replaced, except by a preset.\n\n",
    );
    let reserved = join(catalogue.reserved().iter().map(|name| format!("`{name}`")));
    line(out, format_args!("Reserved names, rejected as types: {reserved}.\n"));
    out.push_str("|copied field|from|\n|---|---|\n");
    for lift in catalogue.lifts() {
        let from = join(lift.from.iter().map(|name| format!("{}.{name}", lift.object)));
        line(out, format_args!("|{}|{from}|", lift.field));
    }
    out.push_str("\n|type|other spellings|defaults|\n|---|---|---|\n");
    for event_type in catalogue.types() {
        let renames = event_type.renames.iter().filter(|rename| rename.from != "tweet_id");
        let renames: Vec<String> = renames
            .map(|r| format!("{} → {}{}", r.from, r.to, if r.lower { " (lower case)" } else { "" }))
            .collect();
        let defaults: Vec<String> = (event_type.defaults.iter())
            .map(|d| {
                let value = d.value.as_ref().map(|name| format!("{{{name}}}"));
                format!("{} = `{}{}`", d.field, d.prefix, value.unwrap_or_default())
            })
            .collect();
        if !renames.is_empty() || !defaults.is_empty() {
            let (renames, defaults) = (join(renames.into_iter()), join(defaults.into_iter()));
            line(out, format_args!("|`{}`|{renames}|{defaults}|", event_type.name));
        }
    }
    out.push_str("\nIn all types except custom ones: tweet_id → post_id.\n");
}
