//! Selects dead letters by id, reason, source, operator and time. All given conditions must match.

use std::collections::BTreeSet;

use crate::dead_letters::dead_letter::DeadLetter;
use crate::record::{Millis, Partition};
use crate::topology::Topology;

/// The conditions; the default matches every dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ids: one of these.
    pub ids: BTreeSet<String>,
    /// Reasons: one of these.
    pub reasons: Vec<String>,
    /// Sources: one of these topics, with or without the prefix, or `http`.
    pub sources: Vec<String>,
    /// Operators: one of these failed.
    pub operators: Vec<String>,
    /// The first time that matches.
    pub since: Option<Millis>,
    /// The first time that does not match any more.
    pub until: Option<Millis>,
}

impl Filter {
    /// Whether it has no condition.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a dead letter matches.
    pub fn matches(&self, letter: &DeadLetter, topology: &Topology) -> bool {
        let time = letter.time();
        (self.ids.is_empty() || self.ids.contains(&*letter.id()))
            && (self.reasons.is_empty() || self.reasons.iter().any(|r| *r == letter.reason()))
            && (self.sources.is_empty() || self.comes_from(letter, topology))
            && (self.operators.is_empty() || self.is_of_an_operator(letter))
            && self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
    }

    fn comes_from(&self, letter: &DeadLetter, topology: &Topology) -> bool {
        let Some(source_position) = letter.source_position() else { return false };
        let short = source_position.topic.strip_prefix(topology.prefix());
        self.sources.iter().any(|s| *s == source_position.topic || short == Some(s.as_str()))
    }

    fn is_of_an_operator(&self, letter: &DeadLetter) -> bool {
        let failed = letter.operator_failure();
        let mut names = failed.iter().flat_map(|failed| failed.operator.split(','));
        names.any(|name| self.operators.iter().any(|wanted| wanted == name))
    }

    /// The partitions with possible matches: the id of a dead letter determines its partition.
    pub(super) fn partitions(&self, topology: &Topology) -> BTreeSet<Partition> {
        if self.ids.is_empty() {
            return (0..topology.partitions()).map(Partition).collect();
        }
        self.ids.iter().map(|id| topology.partition_of(id.as_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::record::{REASON, TIME};
    use crate::record::{Body, Offset, Record};

    fn check(filter: Filter, expected: &[&str]) {
        let topology = Topology::new("tw.", 4);
        let letters = [
            ("tw.in/1/7", "not_json", "100"),
            ("tw.in.urgent/1/8", "not_json", "200"),
            ("http/300/0", "bad_id", "300"),
        ];
        let taken: Vec<&str> = letters
            .iter()
            .filter(|(id, reason, time)| {
                let headers = [(REASON, reason.as_bytes()), (TIME, time.as_bytes())];
                let body = Body::new(Some(id.as_bytes()), Some(b"x"), &headers);
                let record = Record { offset: Offset(0), timestamp: Millis(999), body };
                filter.matches(&DeadLetter::of(Partition(0), record), &topology)
            })
            .map(|(id, _, _)| *id)
            .collect();
        assert_eq!(taken, expected, "{filter:?}");
    }

    #[test]
    fn an_operators_dead_letters_are_selected_by_its_name() {
        let topology = Topology::new("t.", 4);
        let headers: &[(&str, &[u8])] = &[
            ("operator", b"unread"),
            ("trigger", b"timer"),
            ("account", b"acc"),
            ("emission", b"0"),
        ];
        let matches = |name: &str, headers: &[(&str, &[u8])]| {
            let body = Body::new(Some(b"t.lane.low/0/7/unread"), None, headers);
            let record = Record { offset: Offset(0), timestamp: Millis(9), body };
            let filter = Filter { operators: vec![name.to_owned()], ..Filter::default() };
            filter.matches(&DeadLetter::of(Partition(0), record), &topology)
        };
        assert!(matches("unread", headers));
        assert!(!matches("notify", headers));
        let several = [&[("operator", &b"notify,unread"[..])], &headers[1..]].concat();
        assert!(["notify", "unread"].iter().all(|name| matches(name, &several)));
        assert!(!matches("unread", &headers[1..]), "it is of the whole record");
    }

    #[test]
    fn all_given_conditions_must_match() {
        let all = ["tw.in/1/7", "tw.in.urgent/1/8", "http/300/0"];
        let none = Filter::default;
        check(none(), &all);
        check(Filter { reasons: vec!["not_json".into()], ..none() }, &all[..2]);
        check(Filter { sources: vec!["in".into()], ..none() }, &all[..1]);
        check(Filter { sources: vec!["tw.in.urgent".into(), "http".into()], ..none() }, &all[1..]);
        check(Filter { since: Some(Millis(200)), ..none() }, &all[1..]);
        check(Filter { until: Some(Millis(200)), ..none() }, &all[..1]);
        check(Filter { ids: ["http/300/0".to_owned()].into(), ..none() }, &all[2..]);
        let both = Filter { ids: [all[0].to_owned()].into(), since: Some(Millis(101)), ..none() };
        check(both, &[]);
    }
}
