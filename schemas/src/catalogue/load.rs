//! Loads a catalogue from its files and reports all errors together.
//!
//! The first pass, here, reads kinds, operators and types on their own; the second, `check`,
//! compares them with each other. A catalogue that loads needs no further checks. The built-in
//! catalogue can't fail at run time: a test loads the same files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use super::errors::{CatalogueErrors, Errors};
use super::ingress::IngressRules;
use super::lookup::Catalogue;
use super::model::{
    Alias, ChannelKind, ChannelRule, Class, Condition, DeliveryPolicy, EventType, FieldKind, Lift,
    OperatorSpec, OwnFile, ReaderRole, Source,
};
use super::moves::MoveCompiler;
use super::{chains, check, files, meaning, notation, own};
use crate::Priority;
use crate::channel::{ID_MAX_ENCODED_CHARS, NAME_MAX_CHARS};
use crate::envelope::TYPE_MAX_CHARS;

impl Catalogue {
    /// The catalogue of this build, read and checked at the first call.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
            Catalogue::load(files::FILES).unwrap_or_else(|errors| panic!("{errors}"))
        });
        &BUILTIN
    }

    /// Reads a catalogue from files given as name and text; returns all errors. A name is without
    /// `.toml`.
    pub fn load(files: &[(&str, &str)]) -> Result<Self, CatalogueErrors> {
        let mut errors = Errors::default();
        let read = parse(files, &mut errors);
        compile(read.ok_or_else(|| errors.take())?, errors)
    }

    /// The built-in catalogue with what these files add, which may change nothing of it. Returns
    /// all errors, each with the file and the entry.
    pub fn extended(files: &[(&str, &str)]) -> Result<Self, CatalogueErrors> {
        let mut errors = Errors::default();
        let own = parse(files, &mut errors);
        let builtin = parse(files::FILES, &mut errors);
        let (Some(mut read), Some(mut own)) = (builtin, own) else { return Err(errors.take()) };
        for (name, file) in &mut own {
            own::restrict(&format!("{name}.toml"), file, &mut errors);
        }
        read.extend(own);
        let mut catalogue = compile(read, errors)?;
        catalogue.own_files.extend(files.iter().map(|(path, text)| {
            let name = path.rsplit_once('/').map_or(*path, |(_, name)| name);
            OwnFile { name: name.to_owned(), text: (*text).to_owned() }
        }));
        Ok(catalogue)
    }
}

/// A file's name and what it says.
type NamedFile<'a> = (&'a str, files::CatalogueFile);

/// Parses every file; `None` if any of them is not valid.
fn parse<'a>(files: &[(&'a str, &str)], errors: &mut Errors) -> Option<Vec<NamedFile<'a>>> {
    let mut read = Vec::new();
    for (name, text) in files {
        let place = format!("{name}.toml");
        match toml::from_str::<files::CatalogueFile>(text) {
            Ok(mut file) => {
                file.rename.iter_mut().for_each(|entry| entry.place.clone_from(&place));
                file.default.iter_mut().for_each(|entry| entry.place.clone_from(&place));
                read.push((*name, file));
            }
            Err(error) => errors.add(&place, error.to_string().trim_end()),
        }
    }
    (read.len() == files.len()).then_some(read)
}

fn compile(mut read: Vec<NamedFile<'_>>, mut errors: Errors) -> Result<Catalogue, CatalogueErrors> {
    let mut catalogue = Catalogue::default();
    let mut ingress = IngressRules::default();
    for (name, file) in &mut read {
        catalogue.reserved.append(&mut file.reserved);
        ingress.renames.append(&mut file.rename);
        ingress.defaults.append(&mut file.default);
        catalogue.lifts.extend(lifts(std::mem::take(&mut file.lift)));
        let operators = std::mem::take(&mut file.operators).into_iter();
        catalogue.operators.extend(operators.map(|(name, entry)| OperatorSpec {
            name,
            stage: entry.stage,
            all: entry.all,
            emits: entry.emits,
        }));
        for (kind, entry) in std::mem::take(&mut file.kinds) {
            let place = format!("{name}.toml, {kind}");
            if let Some(kind) = errors.keep(&place, channel_kind(name, kind, entry)) {
                catalogue.kinds.push(kind);
            }
        }
    }
    for (name, file) in &mut read {
        let types = std::mem::take(&mut file.types);
        if let (false, Some(title)) = (types.is_empty(), &file.title) {
            catalogue.domains.push(((*name).to_owned(), title.clone()));
        }
        for (type_name, entry) in types {
            let place = format!("{name}.toml, {type_name}");
            let mut reader = TypeReader {
                errors: &mut errors,
                place,
                file,
                catalogue: &catalogue,
                ingress: &ingress,
            };
            reader.check_name(&type_name);
            let event_type = reader.read(name, type_name, entry);
            catalogue.types.push(event_type);
        }
    }
    chains::emitted(&mut catalogue, &mut errors);
    check::writers(&catalogue, &mut errors);
    chains::check(&catalogue, &mut errors);
    check::ingress(&catalogue, &ingress, &mut errors);
    check::kinds(&catalogue, &mut errors);
    catalogue.names = check::names(&catalogue, &mut errors);
    if !errors.is_empty() {
        return Err(errors.take());
    }
    catalogue.hash = meaning::hash(&catalogue);
    Ok(catalogue)
}

fn lifts(entries: BTreeMap<String, BTreeMap<String, Vec<String>>>) -> impl Iterator<Item = Lift> {
    entries.into_iter().flat_map(|(object, fields)| {
        fields.into_iter().map(move |(field, from)| Lift { object: object.clone(), field, from })
    })
}

fn class(text: &str) -> Result<Class, String> {
    let all = [Class::Stream, Class::State, Class::Ephemeral, Class::Derived];
    let found = all.into_iter().find(|class| class.as_str() == text);
    found.ok_or_else(|| format!("unknown class `{text}` (stream, state, ephemeral or derived)"))
}

fn reader_roles(texts: &[String]) -> Result<Vec<ReaderRole>, String> {
    let all = [
        ReaderRole::Anyone,
        ReaderRole::Member,
        ReaderRole::Participant,
        ReaderRole::User,
        ReaderRole::Producer,
    ];
    let one = |text: &String| all.into_iter().find(|role| role.as_str() == text);
    texts.iter().map(|text| one(text).ok_or_else(|| format!("unknown role `{text}`"))).collect()
}

fn channel_kind(file: &str, name: String, entry: files::KindEntry) -> Result<ChannelKind, String> {
    if !notation::is_word(&name) {
        return Err(format!("`{name}` is no channel kind: give a word of a-z, 0-9 and _"));
    }
    if name.len() + 1 + ID_MAX_ENCODED_CHARS > NAME_MAX_CHARS {
        return Err(format!(
            "the name is too long: with an id it exceeds {NAME_MAX_CHARS} characters"
        ));
    }
    let classes = entry.classes.iter().map(|text| class(text)).collect::<Result<Vec<_>, _>>()?;
    if classes.is_empty() || entry.who.is_empty() {
        return Err("a channel kind needs at least one class and one role in `who`".to_owned());
    }
    let by_prefix = entry.who_by_prefix.into_iter();
    Ok(ChannelKind {
        file: file.to_owned(),
        name,
        id: entry.id,
        classes,
        readers: reader_roles(&entry.who)?,
        readers_by_prefix: by_prefix
            .map(|(prefix, texts)| reader_roles(&texts).map(|readers| (prefix, readers)))
            .collect::<Result<_, _>>()?,
        state_key: entry.state_key.iter().map(|s| notation::source(s)).collect::<Result<_, _>>()?,
        union: entry.union,
        written_by: entry.written_by,
        carries: entry.carries,
    })
}

/// Reads one type's entry.
struct TypeReader<'a> {
    errors: &'a mut Errors,
    place: String,
    file: &'a files::CatalogueFile,
    catalogue: &'a Catalogue,
    ingress: &'a IngressRules,
}

impl TypeReader<'_> {
    fn error(&mut self, error: impl fmt::Display) {
        self.errors.add(&self.place, error);
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        self.errors.keep(&self.place, result)
    }

    /// A name becomes a part of a schema's name, in which `_` begins a capital.
    fn check_name(&mut self, name: &str) {
        let path = name.strip_suffix(".*").unwrap_or(name);
        let is_path = path.split('.').all(notation::is_word);
        let has_parts = name.contains('.');
        if !is_path || !has_parts || name.len() > TYPE_MAX_CHARS {
            self.error(format!(
                "`{name}` is no type name: give at most {TYPE_MAX_CHARS} characters, at least two \
                 words separated by a dot, as in `order.placed`"
            ));
        }
    }

    fn read(&mut self, domain: &str, name: String, entry: files::TypeEntry) -> EventType {
        let data = self.keep(notation::data(&entry.data, &self.file.groups)).unwrap_or_default();
        let defaults = &self.file.defaults;
        let key = entry.key.as_ref().unwrap_or(&defaults.key);
        let mut event_type = EventType {
            index: self.catalogue.types.len(),
            domain: domain.to_owned(),
            aliases: self.aliases(&name, &entry.aliases),
            priority: self.priority(entry.priority.unwrap_or(defaults.priority)),
            priority_if: Vec::new(),
            key: key.iter().filter_map(|key| self.keep(notation::source(key))).collect(),
            fields: data.fields,
            one_of: data.one_of,
            channels: Vec::new(),
            delivery_policy: self.delivery_policy(entry.deliver.as_deref()),
            moves: Vec::new(),
            producers: entry.producers.unwrap_or(!entry.internal),
            emitted_by: Vec::new(),
            unchecked: entry.unchecked,
            internal: entry.internal,
            broadcast: entry.broadcast,
            presets: entry.preset.into_iter().collect(),
            renames: Vec::new(),
            defaults: Vec::new(),
            reads_fields: false,
            inner_ids: Vec::new(),
            name,
        };
        for (condition, priority) in &entry.priority_if {
            let priority = self.priority(*priority);
            if let Some(condition) = self.keep(notation::condition(condition)) {
                event_type.priority_if.push((condition, priority));
            }
        }
        for line in plus(&defaults.channels, entry.channels.as_deref()) {
            let rule = self.channel(line);
            event_type.channels.extend(rule);
        }
        let moves = plus(&defaults.moves, entry.moves.as_deref());
        let operators = &self.catalogue.operators;
        MoveCompiler { operators, errors: self.errors, place: &self.place }
            .compile(&mut event_type, &moves);
        if !event_type.unchecked {
            self.ingress.apply(&mut event_type);
        }
        self.finish(event_type)
    }

    fn priority(&mut self, number: i64) -> Priority {
        let priority = Priority::from_number(number);
        if priority.is_none() {
            self.error(format!("{number} is not a priority (0 to 3)"));
        }
        priority.unwrap_or(Priority::Normal)
    }

    fn delivery_policy(&mut self, text: Option<&str>) -> DeliveryPolicy {
        match text {
            None => DeliveryPolicy::Always,
            Some("emitted") => DeliveryPolicy::Emitted,
            Some(other) => {
                self.error(format!(
                    "unknown value `{other}` of deliver (`emitted`, or leave it out)"
                ));
                DeliveryPolicy::Always
            }
        }
    }

    fn aliases(&mut self, name: &str, entries: &BTreeMap<String, Vec<String>>) -> Vec<Alias> {
        let mut out = Vec::new();
        if let Some(surface) = &self.file.alias_with_colon {
            let (surface, name) = (surface.clone(), name.replace('.', ":"));
            out.push(Alias { name, surface, preset: None, when: None });
        }
        for (surface, lines) in entries {
            if !matches!(surface.as_str(), "S0" | "S1" | "S2" | "S3" | "S4") {
                self.error(format!("unknown surface `{surface}` (S0 to S4)"));
            }
            for line in lines {
                if let Some(alias) = self.keep(notation::alias(line)) {
                    let name = alias.name.to_owned();
                    let surface = surface.clone();
                    out.push(Alias { name, surface, preset: alias.preset, when: alias.when });
                }
            }
        }
        out
    }

    fn channel(&mut self, line: &str) -> Option<ChannelRule> {
        let parsed = self.keep(notation::channel(line))?;
        let Some(kind) = self.catalogue.channel_kind(parsed.kind) else {
            self.error(format!("unknown channel kind `{}`", parsed.kind));
            return None;
        };
        let id = match (parsed.id, kind.is_per_account()) {
            (None, true) => Source::Account,
            (Some(id), false) => id,
            (None, false) => {
                self.error(format!(
                    "`{line}` needs a field for the id, as in `{}:{{field}}`",
                    kind.name
                ));
                return None;
            }
            (Some(_), true) => {
                self.error(format!("`{line}`: the id of `{}` is always the account", kind.name));
                return None;
            }
        };
        let classes = match &parsed.classes[..] {
            [] => vec![kind.classes[0]],
            texts => texts.iter().filter_map(|text| self.keep(class(text))).collect(),
        };
        for class in &classes {
            if *class == Class::Derived || !kind.classes.contains(class) {
                self.error(format!("`{line}`: the kind can't be written as {}", class.as_str()));
            }
        }
        let mut state_key = Vec::new();
        if classes.contains(&Class::State) {
            state_key = parsed.state_key;
            if state_key.is_empty() {
                state_key.clone_from(&kind.state_key);
            }
            if state_key.is_empty() {
                self.error(format!("`{line}`: a state entry needs a key (`by field`)"));
            }
        } else if !parsed.state_key.is_empty() {
            self.error(format!("`{line}`: `by` is for state only"));
        }
        let (kind, text) = (kind.name.clone(), line.to_owned());
        Some(ChannelRule { kind, id, classes, state_key, when: parsed.when, text })
    }

    /// Checks a type on its own and collects the fields that evaluation needs.
    fn finish(&mut self, mut event_type: EventType) -> EventType {
        let of_channels: Vec<Source> = (event_type.channels.iter())
            .flat_map(|rule| rule.state_key.iter().chain([&rule.id]).cloned())
            .collect();
        for source in event_type.key.clone().iter().chain(&of_channels) {
            self.mark_id(&mut event_type, source);
        }
        let conditions = (event_type.channels.iter().filter_map(|rule| rule.when.as_ref()))
            .chain(event_type.moves.iter().filter_map(|m| m.when.as_ref()))
            .chain(event_type.priority_if.iter().map(|(condition, _)| condition));
        for Condition { field, .. } in conditions {
            if event_type.field(field).is_none() {
                self.errors.add(&self.place, format!("the condition's `{field}` is not a field"));
            }
        }
        let presets = event_type
            .presets
            .iter()
            .chain(event_type.aliases.iter().filter_map(|alias| alias.preset.as_ref()));
        for (field, _) in presets {
            if event_type.field(field).is_none() {
                self.errors.add(&self.place, format!("the preset's `{field}` is not a field"));
            }
        }
        if !event_type.key.iter().any(|source| always_there(&event_type, source)) {
            self.error("the key may be missing: end it with a required field or `account_id`");
        }
        event_type.reads_fields = event_type.channels.iter().any(reads_fields);
        event_type
    }

    fn mark_id(&mut self, event_type: &mut EventType, source: &Source) {
        let name = match source {
            Source::Account | Source::Type => return,
            Source::Field(name) | Source::Inner(name, _) => name,
        };
        let Some(field) = event_type.fields.iter_mut().find(|field| field.name == *name) else {
            return self.error(format!("`{name}` is not a field, but a key or a channel uses it"));
        };
        match (source, field.kind) {
            (Source::Inner(..), FieldKind::Object) => {
                if !event_type.inner_ids.contains(source) {
                    event_type.inner_ids.push(source.clone());
                }
            }
            (Source::Inner(..), _) => self.error(format!("`{name}` is not an object")),
            (_, FieldKind::Id | FieldKind::Text) => field.identifies = true,
            _ => {
                self.error(format!("a key or a channel can't use `{name}`: it is no id or string"))
            }
        }
    }
}

/// The defaults with the lines an entry adds (`+`), or the lines that replace them.
fn plus<'a>(defaults: &'a [String], own: Option<&'a [String]>) -> Vec<&'a str> {
    let own: Vec<&str> = match own {
        None => return defaults.iter().map(String::as_str).collect(),
        Some(own) => own.iter().map(String::as_str).collect(),
    };
    if own.is_empty() || !own.iter().all(|line| line.starts_with('+')) {
        return own;
    }
    let added = own.iter().map(|line| &line[1..]);
    defaults.iter().map(String::as_str).chain(added).collect()
}

fn always_there(event_type: &EventType, source: &Source) -> bool {
    match source {
        Source::Account | Source::Type => true,
        Source::Field(name) | Source::Inner(name, _) => {
            event_type.field(name).is_some_and(|field| field.required)
        }
    }
}

fn reads_fields(rule: &ChannelRule) -> bool {
    let of_data = |source: &Source| matches!(source, Source::Field(_) | Source::Inner(..));
    rule.when.is_some() || rule.state_key.iter().chain([&rule.id]).any(of_data)
}
