//! Generates synthetic events: the same seed gives the same bytes on every machine.
//!
//! The demo, the benchmarks and `tidewire generate` use it. Events have no timestamp, so that they
//! don't depend on a clock: their time is that of the append. Their ids contain the seed, so that
//! sending the same sequence twice adds nothing.

pub mod mix;
pub mod rng;
pub mod words;

use std::fmt::Write as _;

use mix::{EventTemplate, FieldValue, MIX, TemplateGroup};
use rng::TrafficRng;

/// How many users act in the traffic.
const USERS: u32 = 10_000;
/// How many of the newest posts other events refer to.
const RECENT_POSTS: usize = 1_024;

/// An endless stream of events, one JSON text each.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    account: String,
    number: u64,
    rng: TrafficRng,
    recent: Vec<(u64, u32)>,
}

/// Who and what the current event is about.
struct EventSubject {
    user: u32,
    post: u64,
    author: u32,
}

impl Generator {
    /// The events of `seed`, all of the account `account`, whose characters need no escape in JSON.
    pub fn new(seed: u64, account: &str) -> Self {
        Self {
            seed,
            account: account.to_owned(),
            number: 0,
            rng: TrafficRng::new(seed),
            recent: Vec::with_capacity(RECENT_POSTS),
        }
    }

    /// How many events were generated so far.
    pub fn made(&self) -> u64 {
        self.number
    }

    /// Appends the next event to `out` as one line of JSON, without a line end.
    pub fn next_line(&mut self, out: &mut String) {
        let template = self.choose();
        let user = self.rng.skewed_below(USERS);
        let (post, author) = match self.recent.len() {
            0 => (0, 0),
            len => self.recent[self.rng.below(len as u32) as usize],
        };
        let subject = EventSubject { user, post, author };
        let _ = write!(
            out,
            r#"{{"event_id":"g{}-{}","event_type":"{}","account_id":"{}","data":{{"#,
            self.seed, self.number, template.event_type, self.account
        );
        for (i, (name, make)) in template.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(out, r#"{comma}"{name}":"#);
            self.value(*make, &subject, out);
        }
        out.push_str("}}");
        if template.event_type == "post.created" {
            self.remember((self.number, user));
        }
        self.number += 1;
    }

    fn choose(&mut self) -> &'static EventTemplate {
        let group: &'static TemplateGroup = weighted(&mut self.rng, MIX, |group| group.percent);
        weighted(&mut self.rng, group.templates, |template| template.weight)
    }

    fn remember(&mut self, post: (u64, u32)) {
        if self.recent.len() < RECENT_POSTS {
            self.recent.push(post);
        } else {
            let at = self.rng.below(RECENT_POSTS as u32) as usize;
            self.recent[at] = post;
        }
    }

    /// Writing to a `String` cannot fail, so the results of `write!` are ignored.
    fn value(&mut self, make: FieldValue, subject: &EventSubject, out: &mut String) {
        let _ = match make {
            FieldValue::Post => write!(out, r#""p{}""#, subject.post),
            FieldValue::PostAuthor => write!(out, r#""u{}""#, subject.author),
            FieldValue::User => write!(out, r#""u{}""#, subject.user),
            FieldValue::Name => write!(out, r#""{}""#, words::name(subject.user)),
            FieldValue::Other => write!(out, r#""u{}""#, self.rng.skewed_below(USERS)),
            FieldValue::Text => {
                out.push('"');
                words::post(&mut self.rng, out);
                out.push('"');
                Ok(())
            }
            FieldValue::Topic => write!(out, r#""{}""#, self.rng.pick(words::TOPICS)),
            FieldValue::Topics => self.topics(out),
            FieldValue::Id(word, of) => write!(out, r#""{word}{}""#, self.rng.skewed_below(of)),
            FieldValue::Fresh(word) => write!(out, r#""{word}{}""#, self.number),
            FieldValue::OneOf(of) => write!(out, r#""{}""#, self.rng.pick(of)),
            FieldValue::Count(below) => write!(out, "{}", self.rng.below(below)),
            FieldValue::Part => write!(out, "{:.2}", f64::from(self.rng.below(200)) / 100.0 - 1.0),
            FieldValue::Percent => write!(out, "{}", self.rng.below(101)),
            FieldValue::Either => write!(out, "{}", self.rng.below(2) == 0),
        };
    }

    fn topics(&mut self, out: &mut String) -> std::fmt::Result {
        let first = self.rng.pick(words::TOPICS);
        let second = self.rng.pick(words::TOPICS);
        if first == second {
            write!(out, r#"["{first}"]"#)
        } else {
            write!(out, r#"["{first}","{second}"]"#)
        }
    }
}

fn weighted<T>(rng: &mut TrafficRng, of: &'static [T], weight: impl Fn(&T) -> u32) -> &'static T {
    let mut left = rng.below(of.iter().map(&weight).sum());
    for entry in of {
        match left.checked_sub(weight(entry)) {
            None => return entry,
            Some(rest) => left = rest,
        }
    }
    unreachable!("the number is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidewire_schemas::catalogue::Catalogue;
    use tidewire_schemas::envelope::{RecordOrigin, Writers, admit};

    fn lines(seed: u64, count: usize) -> Vec<String> {
        let mut generator = Generator::new(seed, "demo");
        let line = |_| {
            let mut line = String::new();
            generator.next_line(&mut line);
            line
        };
        (0..count).map(line).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        assert_eq!(lines(1, 500), lines(1, 500));
        assert_ne!(lines(1, 500), lines(2, 500));
    }

    #[test]
    fn the_bytes_of_seed_1_never_change() {
        assert_eq!(fletcher(&lines(1, 10_000).join("\n")), FIRST_TEN_THOUSAND_OF_SEED_1);
    }

    /// If this number changes, figures measured with a seed can no longer be compared.
    const FIRST_TEN_THOUSAND_OF_SEED_1: u32 = 2_388_549_916;

    /// Fletcher's checksum: it detects a change and needs no dependency.
    fn fletcher(text: &str) -> u32 {
        let (a, b) = text.bytes().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn every_event_is_json_with_an_id_of_its_own() {
        let mut ids = std::collections::BTreeSet::new();
        for line in lines(3, 2_000) {
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert!(ids.insert(event["event_id"].as_str().expect("an id").to_owned()));
            assert_eq!(event["account_id"], "demo");
        }
    }

    #[test]
    fn the_pipeline_accepts_every_event_of_the_mix() {
        let catalogue = Catalogue::builtin();
        let origin = RecordOrigin {
            topic: "in",
            partition: 0,
            offset: 0,
            append_time_ms: 0,
            writers: Writers::Producers,
        };
        for line in lines(5, 5_000) {
            let admitted = admit(catalogue, Some(line.as_bytes()), &origin);
            let admitted = admitted.unwrap_or_else(|rejection| panic!("{rejection}: {line}"));
            assert_eq!(admitted.ignored_fields, 0, "{line}");
        }
    }

    #[test]
    fn sixty_percent_are_reactions_and_twenty_are_posts() {
        let mut counts = BTreeMap::new();
        for line in lines(4, 20_000) {
            let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let event_type = event["event_type"].as_str().expect("a type").to_owned();
            *counts.entry(event_type).or_insert(0usize) += 1;
        }
        let share = |group: &TemplateGroup| {
            let templates =
                group.templates.iter().filter_map(|template| counts.get(template.event_type));
            templates.sum::<usize>() * 100 / 20_000
        };
        assert!((58..=62).contains(&share(&MIX[0])), "{counts:?}");
        assert!((18..=22).contains(&share(&MIX[1])), "{counts:?}");
        let all: usize = MIX.iter().map(|group| group.templates.len()).sum();
        assert_eq!(counts.len(), all, "every type of the mix occurs");
    }
}
