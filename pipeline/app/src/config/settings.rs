//! Settings as given: a TOML file, then `TIDEWIRE_*` variables, then flags; the later wins.
//!
//! One table names every setting, so that an unknown one is refused wherever it stands and the
//! variable's name follows from the key (`gateway.ring_bytes` is `TIDEWIRE_GATEWAY_RING_BYTES`).
//! Kafka's own properties are the exception: any name passes, and librdkafka judges it.
//!
//! Values stay text here, each with the place it came from; [`crate::config`] parses them once.
//! Problems are collected, never returned one by one, and a secret's value is never in them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What the name of every environment variable of ours begins with.
const VARIABLE_PREFIX: &str = "TIDEWIRE_";

/// What the key of every property of librdkafka begins with.
const PROPERTY_PREFIX: &str = "kafka.properties.";

/// The same in the environment; behind it `_` stands for a dot, which no property's name needs.
const PROPERTY_VARIABLE_PREFIX: &str = "TIDEWIRE_KAFKA_PROPERTIES_";

/// A setting: its key in the file, its value when nobody gives one, what it is for.
#[derive(Debug)]
pub struct Setting {
    /// Dotted key, as in the file.
    pub key: &'static str,
    /// The value when nothing is given; an empty text stands for "unset".
    pub default: &'static str,
    /// One clause for the reader of `tidewire settings`.
    pub meaning: &'static str,
}

/// Every setting, in the order a reader wants them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        default: "127.0.0.1:8080",
        meaning: "address and port of HTTP, WebSocket and SSE",
    },
    Setting { key: "data_dir", default: ".tidewire", meaning: "folder of the log and the state" },
    Setting {
        key: "log",
        default: "embedded",
        meaning: "which log: embedded, or kafka://HOST:PORT (several: kafka://HOST:PORT,HOST:PORT)",
    },
    Setting {
        key: "instance",
        default: "",
        meaning: "a name for this process, stable over restarts and unlike any other's; unset: dev \
                  on the embedded log, the host's name on Kafka",
    },
    Setting {
        key: "durability",
        default: "process",
        meaning: "what an acknowledged record survives on the embedded log: process (kill -9) or \
                  host (power loss)",
    },
    Setting {
        key: "insecure_dev",
        default: "",
        meaning: "true: believe ?user= without a token, on loopback only; `dev` sets it",
    },
    Setting {
        key: "allowed_hosts",
        default: "",
        meaning: "host names to answer to beside this machine's own, separated by commas; \
                  .example.org is every name that ends so",
    },
    Setting {
        key: "allowed_origins",
        default: "",
        meaning: "origins of web pages that may use it, separated by commas, such as \
                  http://localhost:3000",
    },
    Setting {
        key: "log_filter",
        default: "info",
        meaning: "what is logged: error, warn, info, debug, trace, or module=level,…",
    },
    Setting {
        key: "topics.prefix",
        default: "tw.",
        meaning: "what every topic's name begins with",
    },
    Setting {
        key: "topics.partitions",
        default: "8",
        meaning: "partitions of each topic, fixed when the topics are created (1 to 64)",
    },
    Setting {
        key: "kafka.replication",
        default: "",
        meaning: "copies of each partition of the topics; unset: the broker's default",
    },
    Setting {
        key: "kafka.min_insync",
        default: "",
        meaning: "copies that must have a record before it is acknowledged; unset: the broker's \
                  default",
    },
    Setting {
        key: "kafka.group_protocol",
        default: "classic",
        meaning: "how processes share out partitions: classic, or consumer (KIP-848, Kafka 4)",
    },
    Setting {
        key: "registry.url",
        default: "",
        meaning: "address of a schema registry with Confluent's API, such as \
                  http://127.0.0.1:8081; several of one registry as a list, or separated by commas",
    },
    Setting { key: "registry.username", default: "", meaning: "user, or key, for the registry" },
    Setting {
        key: "registry.password",
        default: "",
        meaning: "that user's password, or secret; never shown",
    },
    Setting {
        key: "registry.token",
        default: "",
        meaning: "bearer token for the registry, in place of a user; never shown",
    },
    Setting {
        key: "registry.ca",
        default: "",
        meaning: "PEM file of the authorities that vouch for an https registry; unset: the public \
                  ones",
    },
    Setting {
        key: "admit.poison_share",
        default: "0.5",
        meaning: "share of a minute's input that may be no events before ADMIT stands still (0 to \
                  1; 1: it never does)",
    },
    Setting {
        key: "admit.poison_min_records",
        default: "100",
        meaning: "records in a minute below which it does not (1 to 1000000)",
    },
    Setting {
        key: "derive.threads",
        default: "1",
        meaning: "threads that deduplicate and deliver, each a share of the partitions (1 to 64)",
    },
    Setting {
        key: "derive.standby",
        default: "false",
        meaning: "follow the state of other processes' partitions, to take them over sooner",
    },
    Setting {
        key: "gateway.ring_bytes",
        default: "64 MiB",
        meaning: "memory for the newest records, from which connections resume (1 MiB to 64 GiB)",
    },
    Setting {
        key: "gateway.shards",
        default: "0",
        meaning: "threads that serve sockets (1 to 64); 0: one per processor",
    },
    Setting { key: "demo.enabled", default: "false", meaning: "true: feed synthetic events" },
    Setting {
        key: "demo.rate",
        default: "25",
        meaning: "synthetic events per second (1 to 10000)",
    },
];

/// Settings that may stand in a file as a list of texts.
const LISTS: &[&str] = &["allowed_hosts", "allowed_origins", "registry.url"];

/// Kafka's own properties, which no table lists. Their values are never shown.
pub const PROPERTIES: Setting = Setting {
    key: "kafka.properties",
    default: "",
    meaning: "a table of librdkafka's properties for TLS, SASL and the rest, such as \
              \"sasl.username\"",
};

/// Where a value came from, for the reader of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingSource {
    /// Nobody gave it.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

/// A value as given. It is printed as the place where it stands: some are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// The key it belongs to.
    pub key: String,
    /// The text.
    pub text: String,
    /// Where it came from.
    pub source: SettingSource,
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

/// All layers laid over each other, and what was wrong with them.
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

    /// Lays the text of a TOML file over what is there.
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
                    "{}: {key}: a list or a date stands here; give a text, a number, true or false",
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

    /// Lays every `TIDEWIRE_*` variable over what is there; others are not ours and are skipped.
    pub fn add_variables(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, text) in variables.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)) {
            if let Some(property) = name.strip_prefix(PROPERTY_VARIABLE_PREFIX) {
                let property = property.replace('_', ".").to_lowercase();
                self.set_property(&property, text, SettingSource::Variable(name));
                continue;
            }
            match SETTINGS.iter().find(|s| variable_of(s.key) == name) {
                Some(setting) => self.set(setting, text, SettingSource::Variable(name)),
                None => {
                    let hint = hint(&name, SETTINGS.iter().map(|s| variable_of(s.key)));
                    self.add_problem(format!("{name}: {hint}"));
                }
            }
        }
    }

    /// Lays a flag over what is there, if it was given.
    pub fn add_flag(&mut self, key: &'static str, flag: &str, value: Option<String>) {
        let setting = find(key).expect("flags name settings of the table");
        if let Some(text) = value {
            self.set(setting, text, SettingSource::Flag(flag.into()));
        }
    }

    /// What was given for `key`.
    pub fn value(&self, key: &str) -> &SettingValue {
        self.values.get(key).expect("the table holds every key that is asked for")
    }

    /// What was given of Kafka's own properties, by librdkafka's names.
    pub fn properties(&self) -> &BTreeMap<String, SettingValue> {
        &self.properties
    }

    /// The first setting of Kafka that somebody gave.
    pub fn first_kafka_value(&self) -> Option<&SettingValue> {
        let given = |given: &&SettingValue| {
            given.key.starts_with("kafka.") && !matches!(given.source, SettingSource::Default)
        };
        self.values.values().find(given).or_else(|| self.properties.values().next())
    }

    /// Notes something wrong, in a sentence that says where and what is right.
    pub fn add_problem(&mut self, sentence: String) {
        self.problems.push(sentence);
    }

    /// Everything wrong so far.
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
            self.add_problem(format!("{given}: it stands there twice; keep one"));
        }
        self.properties.insert(name.to_owned(), given);
    }
}

/// The variable that sets `key`.
pub fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

/// A value of a file as text; `None` for what no setting is.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Table(_) | toml::Value::Array(_) | toml::Value::Datetime(_) => None,
    }
}

/// A list of texts as one, with commas between them; `None` for what is no such list.
fn list_of(value: &toml::Value) -> Option<String> {
    let texts: Option<Vec<&str>> = value.as_array()?.iter().map(toml::Value::as_str).collect();
    Some(texts?.join(","))
}

fn line_of(text: &str, at: usize) -> String {
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    format!(":{line}")
}

/// What to say of a name that is no setting: the one that was probably meant, if there is one.
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

/// Levenshtein's distance: how many characters to change, add or drop.
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
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
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
    fn an_unknown_variable_is_refused_and_a_foreign_one_is_not_ours() {
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

    fn properties(settings: &Settings) -> Vec<(&str, &str)> {
        let all = settings.properties().iter();
        all.map(|(name, given)| (name.as_str(), given.text.as_str())).collect()
    }

    #[test]
    fn properties_of_kafka_pass_however_they_are_nested_and_become_text() {
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
    fn a_property_that_stands_twice_in_a_file_or_is_no_table_is_named() {
        check_file(
            "[kafka.properties]\n'sasl.password' = 'one'\nsasl.password = 'two'",
            &["t.toml: kafka.properties.sasl.password: it stands there twice; keep one"],
        );
        check_file(
            "[kafka]\nproperties = 'security.protocol=SSL'",
            &["t.toml: kafka.properties: give a table of properties, such as \
               kafka.properties.sasl.username"],
        );
    }

    #[test]
    fn a_broken_file_is_named_without_what_stands_in_it() {
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
    fn a_list_stands_for_its_texts_with_commas_and_only_where_there_may_be_several() {
        let mut settings = Settings::defaults();
        settings.add_file(Path::new("t.toml"), "[registry]\nurl = ['http://a:1', 'http://b:1']");
        assert_eq!(settings.value("registry.url").text, "http://a:1,http://b:1");
        assert_eq!(settings.problems(), &[] as &[String]);
        let wrong = "a list or a date stands here; give a text, a number, true or false";
        for text in ["listen = ['a']", "registry.url = [1]"] {
            let mut settings = Settings::defaults();
            settings.add_file(Path::new("t.toml"), text);
            let [problem] = settings.problems() else { panic!("{settings:?}") };
            assert!(problem.contains(wrong), "{problem}");
        }
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let names: std::collections::BTreeSet<_> =
            SETTINGS.iter().map(|s| variable_of(s.key)).collect();
        assert_eq!(names.len(), SETTINGS.len());
    }
}
