//! Compiles the `moves` of a type into its routing plan: operator, key and condition.
//!
//! Every key is a field of the type that holds ids, so that evaluation can't fail on an event that
//! admission passed. A key that is the type's own is compiled as such: the operator then runs in
//! the event's own task.

use super::errors::Errors;
use super::model::{EventType, FieldKind, KeyPart, Move, MoveKey, OperatorSpec, Source};
use super::notation;

/// The stage whose operators a type moves.
const STAGE: &str = "derive";

/// Compiles lines for one type.
pub(super) struct MoveCompiler<'a> {
    pub(super) operators: &'a [OperatorSpec],
    pub(super) errors: &'a mut Errors,
    pub(super) place: &'a str,
}

impl MoveCompiler<'_> {
    /// Adds the plan of these lines to the type, whose fields and key are known.
    pub(super) fn compile(&mut self, event_type: &mut EventType, lines: &[&str]) {
        for line in lines {
            let Some(parsed) = self.errors.keep(self.place, notation::moved(line)) else {
                continue;
            };
            self.check_operator(parsed.operator);
            for part in &parsed.key {
                self.check_part(event_type, part, line);
            }
            let key = match &parsed.key[..] {
                [] => MoveKey::Own,
                parts if is_own_key(event_type, parts) => MoveKey::Own,
                _ => MoveKey::FirstOf(parsed.key),
            };
            let compiled = Move { operator: parsed.operator.to_owned(), key, when: parsed.when };
            if event_type.moves.contains(&compiled) {
                let text = "is listed twice with the same key and condition";
                self.errors.add(self.place, format!("`{line}`: `{}` {text}", compiled.operator));
            }
            event_type.moves.push(compiled);
        }
    }

    fn check_operator(&mut self, name: &str) {
        match self.operators.iter().find(|known| known.name == name) {
            None => self.errors.add(self.place, format!("unknown operator `{name}`")),
            Some(known) if known.stage != STAGE => self.errors.add(
                self.place,
                format!("operator `{name}` runs in {}, `moves` is for {STAGE}", known.stage),
            ),
            Some(known) if known.all => self.errors.add(
                self.place,
                format!("operator `{name}` processes every event; remove it from `moves`"),
            ),
            Some(_) => {}
        }
    }

    /// A scalar must be an id or a string, which is then checked as an id; a list has `[]`.
    fn check_part(&mut self, event_type: &mut EventType, part: &KeyPart, line: &str) {
        let name = match &part.source {
            Source::Field(name) => name,
            Source::Account | Source::Type if !part.is_list => return,
            Source::Account | Source::Type => {
                return self.errors.add(self.place, format!("`{line}`: `[]` is for lists only"));
            }
            Source::Inner(object, field) => {
                let text = format!("`{line}`: a key can't be `{object}.{field}`; use a field");
                return self.errors.add(self.place, text);
            }
        };
        let Some(field) = event_type.fields.iter_mut().find(|field| field.name == *name) else {
            let text = format!("`{line}`: `{name}` is not a field of this type");
            return self.errors.add(self.place, text);
        };
        let problem = match (field.kind, part.is_list) {
            (FieldKind::Texts, true) => return,
            (FieldKind::Id | FieldKind::Text, false) => {
                field.identifies = true;
                return;
            }
            (FieldKind::Texts, false) => format!("`{name}` is a list; write `{name}[]`"),
            (FieldKind::Objects, _) => format!("`{name}` is a list of objects, not of ids"),
            (_, true) => format!("`{name}` is not a list; write it without `[]`"),
            (_, false) => format!("`{name}` is no id, string or list, so it can't be a key"),
        };
        self.errors.add(self.place, format!("`{line}`: {problem}"));
    }
}

/// Whether the parts give what the type's key gives.
fn is_own_key(event_type: &EventType, parts: &[KeyPart]) -> bool {
    let sources = parts.iter().map(|part| (&part.source, part.is_list));
    sources.eq(event_type.key.iter().map(|source| (source, false)))
}
