//! What is asked of the desk: pairs of names and texts, as they stand in a query.
//!
//! The command line makes them, HTTP carries them, the desk reads them; so a verb means the same
//! wherever the log is. Whatever is wrong is answered by what would be right.

use tidewire_engine::dead_letters::Filter;
use tidewire_engine::record::Millis;
use tidewire_schemas::envelope::Reason;
use tidewire_schemas::time::parse_rfc3339;

/// Letters listed unless told otherwise.
const LIST_DEFAULT: usize = 100;
/// Letters listed at most: an answer has to fit.
const LIST_MAX: usize = 10_000;

/// Names and texts; a name may stand there more than once.
pub(super) type Parameters = Vec<(String, String)>;

/// What is asked, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) limit: Option<usize>,
    /// Resolved ones too.
    pub(super) all: bool,
    /// Every open one is meant.
    pub(super) all_open: bool,
    pub(super) dry_run: bool,
    pub(super) because: Option<String>,
}

impl Query {
    /// Reads pairs; an error says what would be right.
    pub(super) fn read(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, text) in parameters {
            match name.as_str() {
                "id" => drop(query.filter.ids.insert(text.clone())),
                "reason" => query.filter.reasons.push(reason(text)?),
                "source" => query.filter.sources.push(text.clone()),
                "since" => query.filter.since = Some(time(name, text)?),
                "until" => query.filter.until = Some(time(name, text)?),
                "limit" => query.limit = Some(number(text)?),
                "all" => query.all = boolean(name, text)?,
                "all_open" => query.all_open = boolean(name, text)?,
                "dry_run" => query.dry_run = boolean(name, text)?,
                "because" => query.because = Some(text.clone()),
                _ => return Err(format!("there is no {name}; {NAMES}")),
            }
        }
        Ok(query)
    }

    /// How many to list.
    pub(super) fn list_limit(&self) -> Result<usize, String> {
        match self.limit.unwrap_or(LIST_DEFAULT) {
            limit if limit <= LIST_MAX => Ok(limit),
            _ => Err(format!("limit: at most {LIST_MAX} are listed; narrow them down instead")),
        }
    }

    /// Whether it says which letters are to be changed.
    pub(super) fn check_selection(&self) -> Result<(), String> {
        match (self.filter.is_empty(), self.all_open) {
            (true, false) => {
                Err("say which: give ids, or --reason, --source, --since or --until; \
                                  --all-open means every one that is open"
                    .into())
            }
            (false, true) => Err("--all-open means every one; leave it out, or the ids and \
                                  filters beside it"
                .into()),
            _ => Ok(()),
        }
    }
}

const NAMES: &str = "give id, reason, source, since, until, limit, all, all_open, dry_run, because";

fn reason(text: &str) -> Result<String, String> {
    let mut known = Reason::ALL.into_iter().map(Reason::as_str);
    if known.any(|known| known == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
    Err(format!("there is no reason {text:?}; there are {}", known.join(", ")))
}

fn time(name: &str, text: &str) -> Result<Millis, String> {
    let time = parse_rfc3339(text).or_else(|| text.parse().ok());
    time.map(Millis).ok_or_else(|| {
        format!(
            "{name}: {text:?} is no time; give such as 2026-01-05T10:00:00Z, or milliseconds \
             since 1970"
        )
    })
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("limit: {text:?}: give a whole number from 1 on")),
    }
}

fn boolean(name: &str, text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{name}: {text:?}: give true or false"))
}

/// Pairs as a query.
pub(super) fn query_string(parameters: &[(String, String)]) -> String {
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
    fn what_is_wrong_is_answered_by_what_is_right() {
        for (name, text, part) in [
            ("since", "yesterday", "give such as 2026-"),
            ("reason", "not_jason", "not_json"),
            ("limit", "0", "from 1 on"),
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
        assert!(chosen(&[("limit", "3")]).is_err(), "how many is not which");
        assert_eq!(chosen(&[("id", "tw.in/1/2")]), Ok(()));
        assert_eq!(chosen(&[("all_open", "true")]), Ok(()));
        assert!(chosen(&[("all_open", "true"), ("source", "http")]).is_err());
    }

    #[test]
    fn a_query_carries_any_text() {
        let parameters =
            [("id".to_owned(), "a/1/2".to_owned()), ("because".to_owned(), "ä &".into())];
        assert_eq!(query_string(&parameters), "?id=a%2F1%2F2&because=%C3%A4%20%26");
        assert_eq!(query_string(&[]), "");
    }
}
