//! The rules of `ingress.toml`: other spellings and defaults of fields.
//!
//! Each rule is copied into every type it covers when the catalogue is loaded, so admission looks
//! at its event type alone.

use super::files;
use super::model::{EventType, FieldDefault, Rename};
use super::notation;

/// The rules, while types are read.
#[derive(Default)]
pub(super) struct IngressRules {
    pub(super) renames: Vec<files::RenameEntry>,
    pub(super) defaults: Vec<files::DefaultEntry>,
}

impl IngressRules {
    /// Gives a type the rules that cover it.
    pub(super) fn apply(&self, event_type: &mut EventType) {
        for entry in &self.renames {
            if entry.types.iter().any(|pattern| notation::covers(pattern, &event_type.name)) {
                event_type.renames.extend(entry.fields.iter().map(|(from, to)| Rename {
                    from: from.clone(),
                    to: to.clone(),
                    lower: entry.lower,
                }));
            }
        }
        for entry in &self.defaults {
            if !entry.types.iter().any(|pattern| notation::covers(pattern, &event_type.name)) {
                continue;
            }
            for (field, text) in &entry.fields {
                if event_type.field(field).is_some() {
                    event_type.defaults.push(default(field, text));
                }
            }
        }
    }
}

fn default(field: &str, text: &str) -> FieldDefault {
    let braces = text.strip_suffix('}').and_then(|text| text.split_once('{'));
    let (prefix, value) = match braces {
        Some((prefix, value)) => (prefix, Some(value.to_owned())),
        None => (text, None),
    };
    FieldDefault { field: field.to_owned(), prefix: prefix.to_owned(), value }
}
