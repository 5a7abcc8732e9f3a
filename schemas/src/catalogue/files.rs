//! The TOML files of the catalogue as serde reads them.
//!
//! Unknown keys are errors, so a misspelt key is found at once. Values are not checked here:
//! `notation` and `load` do that.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Every file of the built-in catalogue, by name. Files with types are domains; the reference page
/// uses this order.
pub const FILES: &[(&str, &str)] = &[
    ("channels", include_str!("../../catalogue/channels.toml")),
    ("operators", include_str!("../../catalogue/operators.toml")),
    ("ingress", include_str!("../../catalogue/ingress.toml")),
    ("posts", include_str!("../../catalogue/posts.toml")),
    ("users", include_str!("../../catalogue/users.toml")),
    ("accounts", include_str!("../../catalogue/accounts.toml")),
    ("messages", include_str!("../../catalogue/messages.toml")),
    ("notifications", include_str!("../../catalogue/notifications.toml")),
    ("trends", include_str!("../../catalogue/trends.toml")),
    ("outreach", include_str!("../../catalogue/outreach.toml")),
    ("commands", include_str!("../../catalogue/commands.toml")),
    ("internal", include_str!("../../catalogue/internal.toml")),
];

/// A file; each has some of these sections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CatalogueFile {
    pub(super) title: Option<String>,
    pub(super) alias_with_colon: Option<String>,
    pub(super) defaults: TypeDefaults,
    pub(super) groups: BTreeMap<String, String>,
    pub(super) types: BTreeMap<String, TypeEntry>,
    pub(super) kinds: BTreeMap<String, KindEntry>,
    pub(super) operators: BTreeMap<String, OperatorEntry>,
    pub(super) reserved: Vec<String>,
    pub(super) lift: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    pub(super) rename: Vec<RenameEntry>,
    pub(super) default: Vec<DefaultEntry>,
}

/// Defaults for the types of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TypeDefaults {
    pub(super) priority: i64,
    pub(super) key: Vec<String>,
    pub(super) channels: Vec<String>,
    pub(super) moves: Vec<String>,
}

/// An event type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypeEntry {
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    pub(super) priority: Option<i64>,
    #[serde(default)]
    pub(super) priority_if: BTreeMap<String, i64>,
    pub(super) key: Option<Vec<String>>,
    pub(super) data: String,
    pub(super) channels: Option<Vec<String>>,
    pub(super) moves: Option<Vec<String>>,
    pub(super) producers: Option<bool>,
    pub(super) deliver: Option<String>,
    #[serde(default)]
    pub(super) preset: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) unchecked: bool,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) broadcast: bool,
}

/// A channel kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindEntry {
    pub(super) id: String,
    pub(super) classes: Vec<String>,
    pub(super) who: Vec<String>,
    #[serde(default)]
    pub(super) who_by_prefix: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) state_key: Vec<String>,
    #[serde(default)]
    pub(super) union: Vec<String>,
    pub(super) written_by: Option<String>,
    pub(super) carries: String,
}

/// An operator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorEntry {
    pub(super) stage: String,
    #[serde(default)]
    pub(super) all: bool,
    #[serde(default)]
    pub(super) emits: Vec<String>,
}

/// Other spellings of fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameEntry {
    /// The file it is in.
    #[serde(skip)]
    pub(super) place: String,
    pub(super) types: Vec<String>,
    pub(super) fields: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) lower: bool,
}

/// Defaults of fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultEntry {
    /// The file it is in.
    #[serde(skip)]
    pub(super) place: String,
    pub(super) types: Vec<String>,
    pub(super) fields: BTreeMap<String, String>,
}
