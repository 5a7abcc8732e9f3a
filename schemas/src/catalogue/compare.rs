//! Compares two catalogues: what the newer one adds, and what it may not change.
//!
//! State, positions and stored outputs of a deployment are keyed by the older catalogue. A change
//! of a key, of a channel's class or of a state key would leave that state without an owner, and a
//! removed name or a narrower field would turn events into dead letters. A name that gets another
//! meaning would give equal events different keys. Such a change needs new topics, so a new prefix.
//! Everything else applies to events from the start of the processes on.

use std::collections::BTreeSet;

use super::lookup::Catalogue;
use super::model::{ChannelKind, ChannelRule, Condition, EventType, Field, Move, MoveKey};

/// The differences of two catalogues, each a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What is added or applies to new events only.
    pub compatible: Vec<String>,
    /// What needs a new prefix.
    pub refused: Vec<String>,
}

/// What `new` changes of `old`.
pub fn compare(old: &Catalogue, new: &Catalogue) -> Comparison {
    let mut out = Comparison::default();
    for kind in &old.kinds {
        match new.channel_kind(&kind.name) {
            None => out.refuse(format!("channel kind `{}` is removed", kind.name)),
            Some(now) => out.kind(kind, now),
        }
    }
    for kind in new.kinds.iter().filter(|kind| old.channel_kind(&kind.name).is_none()) {
        out.compatible.push(format!("channel kind `{}` is added", kind.name));
    }
    let find = |of: &'_ Catalogue, name: &str| of.types.iter().position(|t| t.name == name);
    for event_type in &old.types {
        match find(new, &event_type.name) {
            None => out.refuse(format!("type `{}` is removed", event_type.name)),
            Some(at) => out.event_type(event_type, &new.types[at]),
        }
    }
    for event_type in new.types.iter().filter(|t| find(old, &t.name).is_none()) {
        out.compatible.push(format!("type `{}` is added", event_type.name));
    }
    out.meanings(old, new);
    let others = out.compatible.is_empty() && out.refused.is_empty() && old.hash != new.hash;
    if others {
        out.compatible.push("operators or rules of normalisation changed".to_owned());
    }
    out
}

/// The types that a name means: those under a condition in the order in which they are tried, and
/// the one otherwise.
#[derive(PartialEq)]
struct NameMeaning<'a> {
    conditional: Vec<(Option<&'a Condition>, &'a str)>,
    otherwise: Option<&'a str>,
}

impl<'a> NameMeaning<'a> {
    fn of(name: &str, catalogue: &'a Catalogue) -> Self {
        let conditional = catalogue.names.conditional.get(name).into_iter().flatten();
        let conditional = conditional.map(|&(at, alias)| {
            let event_type = &catalogue.types[at];
            (event_type.aliases[alias].when.as_ref(), event_type.name.as_str())
        });
        let otherwise = catalogue.resolve(name).map(|event_type| event_type.name.as_str());
        Self { conditional: conditional.collect(), otherwise }
    }

    /// The meaning in words, if the name has one. A name with a condition has a type without one.
    fn text(&self) -> Option<String> {
        let conditional =
            self.conditional.iter().map(|(_, name)| format!("`{name}` on a condition"));
        let otherwise = format!("`{}`", self.otherwise?);
        Some(conditional.chain([otherwise]).collect::<Vec<_>>().join(", else "))
    }
}

impl Comparison {
    fn refuse(&mut self, text: String) {
        self.refused.push(text);
    }

    /// Names that the new catalogue gives another meaning: an added type or alias may be covered by
    /// a pattern, or name another type under a condition. Removed names are compared elsewhere.
    fn meanings(&mut self, old: &Catalogue, new: &Catalogue) {
        let names = new.names.exact.keys().chain(new.names.conditional.keys());
        for name in names.filter(|name| !name.ends_with('*')).collect::<BTreeSet<_>>() {
            let (before, now) = (NameMeaning::of(name, old), NameMeaning::of(name, new));
            if before != now
                && let (Some(before), Some(now)) = (before.text(), now.text())
            {
                self.refuse(format!("name `{name}`: it meant {before} and means {now}"));
            }
        }
    }

    fn kind(&mut self, old: &ChannelKind, new: &ChannelKind) {
        let name = &old.name;
        let before = (self.refused.len(), self.compatible.len());
        if old.id != new.id {
            self.refuse(format!(
                "channel kind `{name}`: the id was `{}` and is `{}`",
                old.id, new.id
            ));
        }
        for class in old.classes.iter().filter(|class| !new.classes.contains(class)) {
            self.refuse(format!("channel kind `{name}`: class {} is removed", class.as_str()));
        }
        if old.state_key != new.state_key {
            self.refuse(format!("channel kind `{name}`: the state key changed"));
        }
        if old.readers != new.readers || old.readers_by_prefix != new.readers_by_prefix {
            self.compatible.push(format!("channel kind `{name}`: who may read it changed"));
        }
        let same =
            ChannelKind { file: old.file.clone(), carries: old.carries.clone(), ..new.clone() }
                == *old;
        if before == (self.refused.len(), self.compatible.len()) && !same {
            self.compatible.push(format!("channel kind `{name}` changed"));
        }
    }

    fn event_type(&mut self, old: &EventType, new: &EventType) {
        let name = &old.name;
        let before = (self.refused.len(), self.compatible.len());
        if old.key != new.key {
            self.refuse(format!("type `{name}`: the key changed"));
        }
        self.names(old, new);
        self.fields(old, new);
        self.channels(old, new);
        self.moves(old, new);
        if old.priority != new.priority || old.priority_if != new.priority_if {
            self.compatible.push(format!("type `{name}`: the priority changed"));
        }
        let is_other = before == (self.refused.len(), self.compatible.len());
        if is_other && !is_same(old, new) {
            self.compatible.push(format!("type `{name}`: other rules changed"));
        }
    }

    fn names(&mut self, old: &EventType, new: &EventType) {
        let names = |of: &EventType| -> BTreeSet<String> {
            of.aliases.iter().map(|alias| alias.name.clone()).collect()
        };
        let (old_names, new_names) = (names(old), names(new));
        for alias in old_names.difference(&new_names) {
            self.refuse(format!("type `{}`: its alias `{alias}` is removed", old.name));
        }
        for alias in new_names.difference(&old_names) {
            self.compatible.push(format!("type `{}`: alias `{alias}` is added", old.name));
        }
    }

    fn fields(&mut self, old: &EventType, new: &EventType) {
        let name = &old.name;
        for field in &old.fields {
            match new.field(&field.name) {
                None => self
                    .compatible
                    .push(format!("type `{name}`: field `{}` is no longer declared", field.name)),
                Some(now) if now.kind != field.kind => self.refuse(format!(
                    "type `{name}`: field `{}` was {} and is {}",
                    field.name,
                    field.kind.as_str(),
                    now.kind.as_str()
                )),
                Some(now) if now.required && !field.required => {
                    self.refuse(format!("type `{name}`: field `{}` is now required", field.name));
                }
                Some(now) if !is_wider(field, now) => self.refuse(format!(
                    "type `{name}`: field `{}` no longer allows all its values",
                    field.name
                )),
                Some(_) => {}
            }
        }
        for group in new.one_of.iter().filter(|group| !is_given(old, group)) {
            let fields = group.join("`, `");
            self.refuse(format!("type `{name}`: one of the fields `{fields}` is now required"));
        }
        if old.unchecked && !new.unchecked {
            self.refuse(format!("type `{name}`: its fields are checked now"));
        }
        let is_new = |field: &&Field| old.field(&field.name).is_none();
        for field in new.fields.iter().filter(is_new) {
            let text = format!("type `{name}`: field `{}` is added", field.name);
            match field.required {
                true => self.refuse(format!("{text} and required")),
                false => self.compatible.push(text),
            }
        }
    }

    fn channels(&mut self, old: &EventType, new: &EventType) {
        let name = &old.name;
        for rule in &old.channels {
            let same_channel = |now: &&ChannelRule| now.kind == rule.kind && now.id == rule.id;
            let mut now = new.channels.iter().filter(same_channel).peekable();
            if now.peek().is_none() {
                self.compatible.push(format!("type `{name}`: channel `{}` is removed", rule.kind));
                continue;
            }
            let now: Vec<&ChannelRule> = now.collect();
            for class in &rule.classes {
                let of_class: Vec<_> =
                    now.iter().filter(|now| now.classes.contains(class)).collect();
                let channel = format!("type `{name}`: channel `{}`", rule.kind);
                if of_class.is_empty() {
                    self.refuse(format!("{channel} is no longer of class {}", class.as_str()));
                } else if *class == super::Class::State
                    && !of_class.iter().any(|now| now.state_key == rule.state_key)
                {
                    self.refuse(format!("{channel}: the state key changed"));
                }
            }
        }
        let is_new = |now: &&ChannelRule| {
            !old.channels.iter().any(|rule| rule.kind == now.kind && rule.id == now.id)
        };
        for rule in new.channels.iter().filter(is_new) {
            self.compatible.push(format!("type `{name}`: channel `{}` is added", rule.kind));
        }
    }

    /// An operator that runs for other keys would leave the state of the former ones behind.
    fn moves(&mut self, old: &EventType, new: &EventType) {
        let name = &old.name;
        let keys = |of: &EventType, operator: &str| -> Vec<MoveKey> {
            let entries = of.moves.iter().filter(|entry| entry.operator == operator);
            entries.map(|entry: &Move| entry.key.clone()).collect()
        };
        let operators = |of: &EventType| -> BTreeSet<String> {
            of.moves.iter().map(|entry| entry.operator.clone()).collect()
        };
        let (before, now) = (operators(old), operators(new));
        for operator in before.difference(&now) {
            self.compatible.push(format!("type `{name}`: it no longer moves `{operator}`"));
        }
        for operator in now.difference(&before) {
            self.compatible.push(format!("type `{name}`: it moves `{operator}`"));
        }
        for operator in before.intersection(&now) {
            let new_keys = keys(new, operator);
            if keys(old, operator).iter().any(|key| !new_keys.contains(key)) {
                self.refuse(format!("type `{name}`: the key of `{operator}` changed"));
            }
        }
    }
}

/// Whether a field allows every value that it allowed.
fn is_wider(old: &Field, new: &Field) -> bool {
    let values = match (&old.values[..], &new.values[..]) {
        (_, []) => true,
        ([], _) => false,
        (old, new) => old.iter().all(|value| new.contains(value)),
    };
    let range = match (old.range, new.range) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => new.0 <= old.0 && old.1 <= new.1,
    };
    values && range
}

/// Whether every event of the type had one of these fields.
fn is_given(old: &EventType, group: &[String]) -> bool {
    let is_required = |name: &String| old.field(name).is_some_and(|field| field.required);
    let is_part = |of: &Vec<String>| of.iter().all(|name| group.contains(name));
    group.iter().any(is_required) || old.one_of.iter().any(is_part)
}

/// Whether both treat events alike; what only the reference page shows is left out.
fn is_same(old: &EventType, new: &EventType) -> bool {
    super::meaning::of_type(old) == super::meaning::of_type(new)
}
