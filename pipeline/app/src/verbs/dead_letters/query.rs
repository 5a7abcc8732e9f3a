//! The query parameters of the admin interface: parsed, checked, and written as a query string.
//!
//! The command line and HTTP use the same parameters, so a command means the same wherever the log
//! is. An error says what is valid.

use tidewire_engine::dead_letters::Filter;
use tidewire_engine::record::Millis;
use tidewire_schemas::envelope::Reason;
use tidewire_schemas::time::parse_rfc3339;

use super::Action;

/// Dead letters listed by default.
const LIST_DEFAULT: usize = 100;
/// Dead letters listed at most: the answer is built in memory.
pub(crate) const LIST_MAX: usize = 10_000;

/// Names and texts; a name may be given more than once.
pub(super) type Parameters = Vec<(String, String)>;

/// The names of an action's parameters.
pub(super) fn names_of(action: Action) -> &'static [&'static str] {
    match action {
        Action::List => &["id", "reason", "source", "operator", "since", "until", "limit", "all"],
        Action::Show => &["id"],
        Action::Requeue | Action::Drop => &[
            "id", "reason", "source", "operator", "since", "until", "limit", "all_open", "dry_run",
            "because",
        ],
    }
}

/// The parsed parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) limit: Option<usize>,
    /// Include resolved ones.
    pub(super) all: bool,
    /// Select every open one.
    pub(super) all_open: bool,
    pub(super) dry_run: bool,
    pub(super) because: Option<String>,
}

impl Query {
    /// Parses parameters; the error says what is valid.
    pub(super) fn read(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, text) in parameters {
            match name.as_str() {
                "id" => drop(query.filter.ids.insert(text.clone())),
                "reason" => query.filter.reasons.push(reason(text)?),
                "source" => query.filter.sources.push(text.clone()),
                "operator" => query.filter.operators.push(text.clone()),
                "since" => query.filter.since = Some(time(name, text)?),
                "until" => query.filter.until = Some(time(name, text)?),
                "limit" => query.limit = Some(number(text)?),
                "all" => query.all = boolean(name, text)?,
                "all_open" => query.all_open = boolean(name, text)?,
                "dry_run" => query.dry_run = boolean(name, text)?,
                "because" => query.because = Some(text.clone()),
                _ => return Err(format!("there is no parameter {name}; {NAMES}")),
            }
        }
        Ok(query)
    }

    /// How many to list.
    pub(super) fn list_limit(&self) -> Result<usize, String> {
        match self.limit.unwrap_or(LIST_DEFAULT) {
            limit if limit <= LIST_MAX => Ok(limit),
            _ => Err(format!("limit: give at most {LIST_MAX}, or a filter to list fewer")),
        }
    }

    /// Whether it selects the dead letters to change.
    pub(super) fn check_selection(&self) -> Result<(), String> {
        match (self.filter.is_empty(), self.all_open) {
            (true, false) => {
                Err("nothing is selected; give id, reason, source, operator, since or until, or \
                     all_open (on the command line --all-open) for every open one"
                    .into())
            }
            (false, true) => {
                Err("all_open (on the command line --all-open) selects every open one; give \
                     either it, or ids and filters"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

const NAMES: &str = "give id, reason, source, operator, since, until, limit, all, all_open, \
                     dry_run, because";

fn reason(text: &str) -> Result<String, String> {
    let mut known = Reason::ALL.into_iter().map(Reason::as_str);
    if known.any(|known| known == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
    Err(format!("there is no reason {text:?}; give one of {}", known.join(", ")))
}

/// A time of a parameter: RFC 3339, or milliseconds since 1970.
pub(crate) fn time(name: &str, text: &str) -> Result<Millis, String> {
    let time = parse_rfc3339(text).or_else(|| text.parse().ok());
    time.map(Millis).ok_or_else(|| {
        format!(
            "{name}: {text:?} is not a time; give one such as 2026-01-05T10:00:00Z, or \
             milliseconds since 1970"
        )
    })
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("limit: {text:?}: give a whole number of 1 or more")),
    }
}

fn boolean(name: &str, text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{name}: {text:?}: give true or false"))
}

/// Parameters as a query string.
pub(crate) fn query_string(parameters: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, text) in parameters {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                    out.push(char::from(byte));
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Query, String> {
        let parameters: Parameters =
            parameters.iter().map(|(n, t)| ((*n).into(), (*t).into())).collect();
        Query::read(&parameters)
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        let query = read(&[("since", "2026-01-05T10:00:00Z"), ("until", "1767607200001")]);
        let filter = query.expect("right").filter;
        assert_eq!(filter.since, Some(Millis(1_767_607_200_000)));
        assert_eq!(filter.until, Some(Millis(1_767_607_200_001)));
    }

    #[test]
    fn an_error_says_what_is_valid() {
        for (name, text, part) in [
            ("since", "yesterday", "give one such as 2026-"),
            ("reason", "not_jason", "not_json"),
            ("limit", "0", "of 1 or more"),
            ("all", "yes", "give true or false"),
            ("colour", "blue", "give id, reason"),
        ] {
            let error = read(&[(name, text)]).expect_err(name);
            assert!(error.contains(part), "{error}");
        }
        assert!(read(&[("limit", "10001")]).expect("a number").list_limit().is_err());
    }

    #[test]
    fn nothing_is_changed_without_a_selection() {
        let chosen = |parameters| read(parameters).expect("right").check_selection();
        assert!(chosen(&[]).expect_err("nothing").contains("--all-open"));
        assert!(chosen(&[("limit", "3")]).is_err(), "a limit selects nothing");
        assert_eq!(chosen(&[("id", "tw.in/1/2")]), Ok(()));
        assert_eq!(chosen(&[("all_open", "true")]), Ok(()));
        assert!(chosen(&[("all_open", "true"), ("source", "http")]).is_err());
    }

    #[test]
    fn any_text_can_be_in_a_query() {
        let parameters =
            [("id".to_owned(), "a/1/2".to_owned()), ("because".to_owned(), "ä &".into())];
        assert_eq!(query_string(&parameters), "?id=a%2F1%2F2&because=%C3%A4%20%26");
        assert_eq!(query_string(&[]), "");
    }
}
