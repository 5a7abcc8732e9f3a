//! Settings by layer: a TOML file, then `TIDEWIRE_*` variables, then flags; the later wins.
//!
//! One table names every setting, so that an unknown one is refused wherever it is given, and the
//! variable's name follows from the key (`gateway.ring_bytes` is `TIDEWIRE_GATEWAY_RING_BYTES`).
//! The properties of librdkafka are the exception: any name is accepted here, and librdkafka
//! validates it.
//!
//! Values stay text here, each with the place it came from; [`crate::config`] parses them once.
//! Problems are collected, and none of them contains the value of a secret.

mod service_links;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use table::{PROPERTIES, SETTINGS, Setting};

/// The first characters of every environment variable of Tidewire.
const VARIABLE_PREFIX: &str = "TIDEWIRE_";

/// The first characters of the key of every property of librdkafka.
const PROPERTY_PREFIX: &str = "kafka.properties.";

/// The same in the environment. After it `_` means a dot, which loses nothing: no property has an
/// underscore in its name.
const PROPERTY_VARIABLE_PREFIX: &str = "TIDEWIRE_KAFKA_PROPERTIES_";

/// Settings whose values are never printed; neither are librdkafka's properties.
const SECRETS: &[&str] = &["registry.password", "registry.token"];

/// Settings that may be a list in a file.
const LISTS: &[&str] = &["allowed_hosts", "allowed_origins", "registry.url"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingSource {
    /// It was not given.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

/// A value as given. It is printed as the place it came from, never as its text: some are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// The key it belongs to.
    pub key: String,
    /// The text.
    pub text: String,
    /// Where it came from.
    pub source: SettingSource,
}

impl SettingValue {
    /// The value for a person: without its text if it is a secret, and without a login in a URL.
    pub fn shown(&self) -> String {
        let secret = SECRETS.contains(&self.key.as_str()) || self.key.starts_with(PROPERTY_PREFIX);
        if secret { "(not printed)".to_owned() } else { format!("{:?}", redacted(&self.text)) }
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            SettingSource::Default => write!(f, "{} (default)", self.key),
            SettingSource::File(path) => write!(f, "{}: {}", path.display(), self.key),
            SettingSource::Variable(name) | SettingSource::Flag(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The layers merged, and the problems found in them.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, SettingValue>,
    /// By librdkafka's name.
    properties: BTreeMap<String, SettingValue>,
    problems: Vec<String>,
}

impl Settings {
    /// The defaults alone.
    pub fn defaults() -> Self {
        let default = |s: &Setting| SettingValue {
            key: s.key.into(),
            text: s.default.into(),
            source: SettingSource::Default,
        };
        let values = SETTINGS.iter().map(|s| (s.key, default(s))).collect();
        Self { values, properties: BTreeMap::new(), problems: Vec::new() }
    }

    /// Adds the settings of a TOML file.
    pub fn add_file(&mut self, path: &Path, text: &str) {
        match text.parse::<toml::Table>() {
            Ok(table) => self.add_table(path, "", &table),
            Err(error) => {
                let place = error.span().map_or(String::new(), |span| line_of(text, span.start));
                self.add_problem(format!("{}{place}: {}", path.display(), error.message()));
            }
        }
    }

    fn add_table(&mut self, path: &Path, prefix: &str, table: &toml::Table) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            if let toml::Value::Table(inner) = value {
                self.add_table(path, &format!("{key}."), inner);
                continue;
            }
            let source = SettingSource::File(path.to_owned());
            let list = LISTS.contains(&key.as_str()).then(|| list_of(value)).flatten();
            let Some(text) = list.or_else(|| text_of(value)) else {
                self.add_problem(format!(
                    "{}: {key}: found a list or a date; give a string, a number, true or false",
                    path.display()
                ));
                continue;
            };
            match (key.strip_prefix(PROPERTY_PREFIX), find(&key)) {
                (Some(property), _) => self.set_property(property, text, source),
                (None, Some(setting)) => self.set(setting, text, source),
                (None, None) => {
                    let hint = hint(&key, SETTINGS.iter().map(|s| s.key.to_owned()));
                    self.add_problem(format!("{}: {key}: {hint}", path.display()));
                }
            }
        }
    }

    /// Adds every `TIDEWIRE_*` variable; others are skipped, and so are those that Kubernetes and
    /// Docker make for a service with such a name.
    pub fn add_variables(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let ours = |(name, _): &(String, String)| name.starts_with(VARIABLE_PREFIX);
        let variables: Vec<(String, String)> = variables.filter(ours).collect();
        let linked = service_links::linked_containers(&variables);
        for (name, text) in variables {
            if let Some(property) = name.strip_prefix(PROPERTY_VARIABLE_PREFIX) {
                let property = property.replace('_', ".").to_lowercase();
                self.set_property(&property, text, SettingSource::Variable(name));
                continue;
            }
            match SETTINGS.iter().find(|s| variable_of(s.key) == name) {
                Some(setting) => self.set(setting, text, SettingSource::Variable(name)),
                None if service_links::is_service_link(&name, &text, &linked) => {}
                None => {
                    let hint = hint(&name, SETTINGS.iter().map(|s| variable_of(s.key)));
                    self.add_problem(format!("{name}: {hint}"));
                }
            }
        }
    }

    /// Adds a flag, if it was given.
    pub fn add_flag(&mut self, key: &'static str, flag: &str, value: Option<String>) {
        let setting = find(key).expect("flags are for settings of the table");
        if let Some(text) = value {
            self.set(setting, text, SettingSource::Flag(flag.into()));
        }
    }

    /// What was given for `key`.
    pub fn value(&self, key: &str) -> &SettingValue {
        self.values.get(key).expect("the table has every key that the code uses")
    }

    /// The properties of librdkafka that were given, by name.
    pub fn properties(&self) -> &BTreeMap<String, SettingValue> {
        &self.properties
    }

    /// The first Kafka setting that was given.
    pub fn first_kafka_value(&self) -> Option<&SettingValue> {
        let given = |given: &&SettingValue| {
            given.key.starts_with("kafka.") && !matches!(given.source, SettingSource::Default)
        };
        self.values.values().find(given).or_else(|| self.properties.values().next())
    }

    /// Records a problem: a sentence with the place, the value and what is valid.
    pub fn add_problem(&mut self, sentence: String) {
        self.problems.push(sentence);
    }

    /// All problems so far.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn set(&mut self, setting: &'static Setting, text: String, source: SettingSource) {
        self.values.insert(setting.key, SettingValue { key: setting.key.into(), text, source });
    }

    fn set_property(&mut self, name: &str, text: String, source: SettingSource) {
        let given = SettingValue { key: format!("{PROPERTY_PREFIX}{name}"), text, source };
        let before = self.properties.get(name).filter(|before| before.source == given.source);
        if before.is_some() {
            self.add_problem(format!("{given}: given twice; keep one"));
        }
        self.properties.insert(name.to_owned(), given);
    }
}

/// The text without what could be a password in a URL.
pub(super) fn redacted(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => text.to_owned(),
    }
}

/// The variable that sets `key`.
pub fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// A value of a file as text; `None` if no setting has its type.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Table(_) | toml::Value::Array(_) | toml::Value::Datetime(_) => None,
    }
}

/// A list of strings, joined by commas; `None` for any other value.
fn list_of(value: &toml::Value) -> Option<String> {
    let texts: Option<Vec<&str>> = value.as_array()?.iter().map(toml::Value::as_str).collect();
    Some(texts?.join(","))
}

fn line_of(text: &str, at: usize) -> String {
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!(":{line}")
}

/// The hint for a name that is no setting: the nearest setting, if there is one.
fn hint(name: &str, known: impl Iterator<Item = String>) -> String {
    if [PROPERTIES.key, &variable_of(PROPERTIES.key)].contains(&name) {
        return format!("give a table of properties, such as {PROPERTY_PREFIX}sasl.username");
    }
    let closest = known.map(|k| (distance(name, &k), k)).min();
    match closest {
        Some((distance, known)) if distance <= 3 => {
            format!("there is no such setting; did you mean {known}?")
        }
        _ => "there is no such setting; `tidewire settings` lists them all".into(),
    }
}

/// Levenshtein distance: how many characters to change, add or remove.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    fn check_file(text: &str, expected: &[&str]) {
        let mut settings = Settings::defaults();
        settings.add_file(Path::new("t.toml"), text);
        assert_eq!(settings.problems(), expected);
    }

    #[test]
    fn the_later_layer_wins_and_says_where_it_came_from() {
        let mut settings = Settings::defaults();
        assert_eq!(settings.value("listen").source, SettingSource::Default);
        settings.add_file(Path::new("t.toml"), "listen = '127.0.0.1:1'\n[gateway]\nshards = 3");
        assert_eq!(settings.value("gateway.shards").text, "3");
        let variables = [("TIDEWIRE_LISTEN".to_owned(), "127.0.0.1:2".to_owned())];
        settings.add_variables(variables.into_iter());
        assert_eq!(settings.value("listen").text, "127.0.0.1:2");
        settings.add_flag("listen", "--listen", Some("127.0.0.1:3".into()));
        assert_eq!(settings.value("listen").text, "127.0.0.1:3");
        assert_eq!(settings.value("listen").to_string(), "--listen");
        settings.add_flag("listen", "--listen", None);
        assert_eq!(settings.value("listen").text, "127.0.0.1:3");
        assert_eq!(settings.problems(), &[] as &[String]);
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_setting() {
        check_file(
            "listn = 'x'",
            &["t.toml: listn: there is no such setting; did you mean listen?"],
        );
        check_file(
            "[gateway]\nring_byte = 1\nfavourite_colour = 'blue'",
            &[
                "t.toml: gateway.favourite_colour: there is no such setting; `tidewire settings` \
                 lists them all",
                "t.toml: gateway.ring_byte: there is no such setting; did you mean \
                 gateway.ring_bytes?",
            ],
        );
    }

    #[test]
    fn an_unknown_variable_is_refused_and_one_without_the_prefix_is_skipped() {
        let mut settings = Settings::defaults();
        let variables = [("TIDEWIRE_LISTN", "x"), ("HOME", "y")];
        settings.add_variables(variables.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        let expected = "TIDEWIRE_LISTN: there is no such setting; did you mean TIDEWIRE_LISTEN?";
        assert_eq!(settings.problems(), &[expected]);
    }

    #[test]
    fn a_file_that_is_not_toml_names_the_line() {
        let mut settings = Settings::defaults();
        settings.add_file(Path::new("t.toml"), "listen = '127.0.0.1:1'\nlog = \n");
        assert_eq!(settings.problems().len(), 1);
        assert!(settings.problems()[0].starts_with("t.toml:2: "), "{:?}", settings.problems());
    }

    #[test]
    fn what_the_table_says_is_never_printed_is_not_printed() {
        let mut settings = Settings::defaults();
        for setting in SETTINGS {
            settings.add_flag(setting.key, "flag", Some("http://ann:s3cret@h:1".into()));
            let shown = settings.value(setting.key).shown();
            assert!(!shown.contains("s3cret"), "{}: {shown}", setting.key);
            let secret = setting.meaning.contains("never printed");
            assert_eq!(shown == "(not printed)", secret, "{}", setting.key);
        }
        settings.add_file(Path::new("t.toml"), "[kafka.properties]\n'sasl.password' = 's3cret'");
        assert_eq!(settings.properties()["sasl.password"].shown(), "(not printed)");
    }

    fn properties(settings: &Settings) -> Vec<(&str, &str)> {
        let all = settings.properties().iter();
        all.map(|(name, given)| (name.as_str(), given.text.as_str())).collect()
    }

    #[test]
    fn properties_may_be_nested_or_quoted_and_become_text() {
        let mut settings = Settings::defaults();
        settings.add_file(
            Path::new("t.toml"),
            "[kafka.properties]\n'sasl.username' = 'ann'\nsocket.timeout.ms = 5000\n\
             enable.ssl.certificate.verification = false\n[kafka.properties.ssl]\nca.location \
             = 'x'",
        );
        let variables = [
            ("TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD", "s3cret"),
            ("TIDEWIRE_KAFKA_PROPERTIES_SASL_USERNAME", "bob"),
        ];
        settings.add_variables(variables.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        let expected = [
            ("enable.ssl.certificate.verification", "false"),
            ("sasl.password", "s3cret"),
            ("sasl.username", "bob"),
            ("socket.timeout.ms", "5000"),
            ("ssl.ca.location", "x"),
        ];
        assert_eq!(properties(&settings), expected);
        assert_eq!(settings.problems(), &[] as &[String]);
        assert!(!format!("{settings:?}").contains("s3cret"), "{settings:?}");
    }

    #[test]
    fn a_property_given_twice_and_properties_that_are_no_table_are_reported() {
        check_file(
            "[kafka.properties]\n'sasl.password' = 'one'\nsasl.password = 'two'",
            &["t.toml: kafka.properties.sasl.password: given twice; keep one"],
        );
        check_file(
            "[kafka]\nproperties = 'security.protocol=SSL'",
            &["t.toml: kafka.properties: give a table of properties, such as \
               kafka.properties.sasl.username"],
        );
    }

    #[test]
    fn a_broken_file_is_reported_without_its_content() {
        for text in [
            "[kafka.properties]\n'sasl.password' = s3cret",
            "[kafka.properties]\n'sasl.password' = 's3cret",
            "[kafka.properties]\n'sasl.password' = ['s3cret']",
            "[kafka.properties]\nsasl.password = 's3cret'\nsasl.password = 's3cret'",
            "kafka.properties.'sasl.password' = \"s3cret\\x\"",
        ] {
            let mut settings = Settings::defaults();
            settings.add_file(Path::new("t.toml"), text);
            let problems = settings.problems();
            assert_eq!(problems.len(), 1, "{text}");
            assert!(!problems[0].contains("s3cret"), "{problems:?}");
        }
    }

    #[test]
    fn a_list_is_its_strings_with_commas_and_only_some_settings_have_one() {
        let mut settings = Settings::defaults();
        settings.add_file(Path::new("t.toml"), "[registry]\nurl = ['http://a:1', 'http://b:1']");
        assert_eq!(settings.value("registry.url").text, "http://a:1,http://b:1");
        assert_eq!(settings.problems(), &[] as &[String]);
        let wrong = "found a list or a date; give a string, a number, true or false";
        for text in ["listen = ['a']", "registry.url = [1]"] {
            let mut settings = Settings::defaults();
            settings.add_file(Path::new("t.toml"), text);
            let [problem] = settings.problems() else { panic!("{settings:?}") };
            assert!(problem.contains(wrong), "{problem}");
        }
    }

    #[test]
    fn every_flag_of_the_table_is_one_of_the_command_line() {
        let mut flags = std::collections::BTreeSet::new();
        add_flags(&Cli::command(), &mut flags);
        for setting in SETTINGS {
            let known = setting.flag.is_none_or(|flag| flags.contains(flag));
            assert!(known, "{}: no flag {:?}", setting.key, setting.flag);
        }
    }

    fn add_flags(command: &clap::Command, flags: &mut std::collections::BTreeSet<String>) {
        let own = command.get_arguments().filter_map(clap::Arg::get_long);
        flags.extend(own.map(|name| format!("--{name}")));
        command.get_subcommands().for_each(|inner| add_flags(inner, flags));
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let names: std::collections::BTreeSet<_> =
            SETTINGS.iter().map(|s| variable_of(s.key)).collect();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
