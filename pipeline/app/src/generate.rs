//! Synthetic traffic: the same seed gives the same bytes, for ever and everywhere.
//!
//! It feeds the demo, the benchmarks and whoever wants a stream to look at. Events carry no
//! timestamp, so that they don't depend on a clock: their time is when the log appends them. Their
//! ids hold the seed, so that sending the same history twice adds nothing.

pub mod dice;
pub mod mix;
pub mod words;

use std::fmt::Write as _;

use dice::Dice;
use mix::{Group, MIX, Make, Row};

/// How many users act in the traffic.
const USERS: u32 = 10_000;
/// How many of the newest posts others react to.
const RECENT_POSTS: usize = 1_024;

/// An endless stream of events, one JSON text each.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    account: String,
    number: u64,
    dice: Dice,
    recent: Vec<(u64, u32)>,
}

/// Who and what the event at hand is about.
struct Subject {
    user: u32,
    post: u64,
    author: u32,
}

impl Generator {
    /// The stream of `seed`, all of it of `account`, which consists of characters that JSON takes
    /// unescaped.
    pub fn new(seed: u64, account: &str) -> Self {
        Self {
            seed,
            account: account.to_owned(),
            number: 0,
            dice: Dice::new(seed),
            recent: Vec::with_capacity(RECENT_POSTS),
        }
    }

    /// How many events were made so far.
    pub fn made(&self) -> u64 {
        self.number
    }

    /// Appends the next event to `out` as one line of JSON, without a line end.
    pub fn next_line(&mut self, out: &mut String) {
        let row = self.choose();
        let user = self.dice.famous_below(USERS);
        let (post, author) = match self.recent.len() {
            0 => (0, 0),
            len => self.recent[self.dice.below(len as u32) as usize],
        };
        let subject = Subject { user, post, author };
        let _ = write!(
            out,
            r#"{{"event_id":"g{}-{}","event_type":"{}","account_id":"{}","data":{{"#,
            self.seed, self.number, row.event_type, self.account
        );
        for (i, (name, make)) in row.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(out, r#"{comma}"{name}":"#);
            self.value(*make, &subject, out);
        }
        out.push_str("}}");
        if row.event_type == "post.created" {
            self.remember((self.number, user));
        }
        self.number += 1;
    }

    fn choose(&mut self) -> &'static Row {
        let group: &'static Group = weighted(&mut self.dice, MIX, |group| group.percent);
        weighted(&mut self.dice, group.rows, |row| row.weight)
    }

    fn remember(&mut self, post: (u64, u32)) {
        if self.recent.len() < RECENT_POSTS {
            self.recent.push(post);
        } else {
            let at = self.dice.below(RECENT_POSTS as u32) as usize;
            self.recent[at] = post;
        }
    }

    /// Writing to a text can't fail, so the results of `write!` are not looked at.
    fn value(&mut self, make: Make, subject: &Subject, out: &mut String) {
        let _ = match make {
            Make::Post => write!(out, r#""p{}""#, subject.post),
            Make::PostAuthor => write!(out, r#""u{}""#, subject.author),
            Make::User => write!(out, r#""u{}""#, subject.user),
            Make::Name => write!(out, r#""{}""#, words::name(subject.user)),
            Make::Other => write!(out, r#""u{}""#, self.dice.famous_below(USERS)),
            Make::Text => {
                out.push('"');
                words::post(&mut self.dice, out);
                out.push('"');
                Ok(())
            }
            Make::Topic => write!(out, r#""{}""#, self.dice.pick(words::TOPICS)),
            Make::Topics => self.topics(out),
            Make::Id(word, of) => write!(out, r#""{word}{}""#, self.dice.famous_below(of)),
            Make::Fresh(word) => write!(out, r#""{word}{}""#, self.number),
            Make::OneOf(of) => write!(out, r#""{}""#, self.dice.pick(of)),
            Make::Count(below) => write!(out, "{}", self.dice.below(below)),
            Make::Part => write!(out, "{:.2}", f64::from(self.dice.below(200)) / 100.0 - 1.0),
            Make::Percent => write!(out, "{}", self.dice.below(101)),
            Make::Either => write!(out, "{}", self.dice.below(2) == 0),
        };
    }

    fn topics(&mut self, out: &mut String) -> std::fmt::Result {
        let first = self.dice.pick(words::TOPICS);
        let second = self.dice.pick(words::TOPICS);
        if first == second {
            write!(out, r#"["{first}"]"#)
        } else {
            write!(out, r#"["{first}","{second}"]"#)
        }
    }
}

fn weighted<T>(dice: &mut Dice, of: &'static [T], weight: impl Fn(&T) -> u32) -> &'static T {
    let mut left = dice.below(of.iter().map(&weight).sum());
    for entry in of {
        match left.checked_sub(weight(entry)) {
            None => return entry,
            Some(rest) => left = rest,
        }
    }
    unreachable!("a number below the sum of the weights falls on one of them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidewire_schemas::catalogue::Catalogue;
    use tidewire_schemas::envelope::{Origin, admit};

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

    /// If this number changes, so does every stored figure that was measured with a seed.
    const FIRST_TEN_THOUSAND_OF_SEED_1: u32 = 2_388_549_916;

    /// Fletcher's sum: enough to see that bytes changed, and no dependency.
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
    fn the_pipeline_takes_every_event_of_the_mix() {
        let catalogue = Catalogue::builtin();
        let origin = Origin { topic: "in", partition: 0, offset: 0, append_time_ms: 0 };
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
        let share = |group: &Group| {
            let rows = group.rows.iter().filter_map(|row| counts.get(row.event_type));
            rows.sum::<usize>() * 100 / 20_000
        };
        assert!((58..=62).contains(&share(&MIX[0])), "{counts:?}");
        assert!((18..=22).contains(&share(&MIX[1])), "{counts:?}");
        let all: usize = MIX.iter().map(|group| group.rows.len()).sum();
        assert_eq!(counts.len(), all, "every type of the mix comes");
    }
}
