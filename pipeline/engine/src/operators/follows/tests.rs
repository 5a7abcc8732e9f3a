//! Tests of the follow graph: cases, marks, the order of the lanes, and a model without rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use tidewire_schemas::event::Event;

use super::*;
use crate::derive::stores::MARK_MS;
use crate::derive::{START, TopologyDriver};
use crate::operators::testing::{
    ACCOUNT, appended, at, dead_letters, event, event_of, latest, lines, pipe, pipe_interleaved,
    state,
};
use crate::port::Table;

const EDGE_ROWS: Table = Table(110);

/// `user.TYPE` of one user about another; `text` is `al followed bo`.
fn act(event_id: &str, text: &str) -> Event {
    act_of(ACCOUNT, event_id, text)
}

fn act_of(account: &str, event_id: &str, text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    let [user, verb, target] = words[..] else { panic!("{text}") };
    let data = json!({"user_id": user, "target_id": target});
    event_of(account, event_id, &format!("user.{verb}"), data)
}

/// Events a second apart, in this order.
fn acts(texts: &[&str]) -> Vec<Event> {
    let act = |(n, text): (usize, &&str)| at(1_000 * n as i64, act(&format!("e{n}"), text));
    texts.iter().enumerate().map(act).collect()
}

fn driver() -> TopologyDriver {
    TopologyDriver::new(&[&Follows])
}

/// The entries of state channels after these events: `al: follows/bo`.
fn entries_after(events: &[Event]) -> Vec<String> {
    let mut driver = driver();
    pipe(&mut driver, events);
    let written = state(&mut driver);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
    entries(latest(&written).into_keys())
}

fn entries(keys: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let entry = |(channel, state_key): (String, String)| {
        format!("{}: {state_key}", channel.strip_prefix("follows:").expect("a channel of follows"))
    };
    keys.map(entry).collect()
}

#[test]
fn the_last_event_about_an_edge_decides() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["al followed bo"], &["al: follows/bo"]),
        (&["al followed bo", "al unfollowed bo"], &[]),
        (&["al unfollowed bo", "al followed bo"], &["al: follows/bo"]),
        (&["al muted bo"], &["al: mutes/bo"]),
        (&["al followed bo", "al muted bo"], &["al: follows/bo", "al: mutes/bo"]),
        (&["al muted bo", "al unmuted bo"], &[]),
        (&["al blocked bo"], &["al: blocks/bo", "bo: blocked_by/al"]),
        (&["al blocked bo", "al unblocked bo"], &[]),
        (
            &["al blocked bo", "bo blocked al", "al unblocked bo"],
            &["al: blocked_by/bo", "bo: blocks/al"],
        ),
        (&["al followed bo", "bo followed cy"], &["al: follows/bo", "bo: follows/cy"]),
    ];
    for (texts, expected) in cases {
        assert_eq!(entries_after(&acts(texts)), *expected, "{texts:?}");
    }
}

#[test]
fn a_block_ends_the_follow_of_either_and_its_end_brings_none_back() {
    let both = ["al followed bo", "bo followed al", "bo followed cy", "al blocked bo"];
    let left = ["al: blocks/bo", "bo: blocked_by/al", "bo: follows/cy"];
    assert_eq!(entries_after(&acts(&both)), left);
    let unblocked = [&both[..], &["al unblocked bo"]].concat();
    assert_eq!(entries_after(&acts(&unblocked)), ["bo: follows/cy"]);
    let again = [&unblocked[..], &["bo followed al"]].concat();
    assert_eq!(entries_after(&acts(&again)), ["bo: follows/al", "bo: follows/cy"]);
}

#[test]
fn an_edge_to_oneself_has_both_sides() {
    let own = ["al followed al", "al blocked al"];
    assert_eq!(entries_after(&acts(&own)), ["al: blocked_by/al", "al: blocks/al"]);
    assert_eq!(entries_after(&acts(&["al followed al"])), ["al: follows/al"]);
}

#[test]
fn an_entry_is_the_event_that_decided_and_is_removed_with_a_tombstone() {
    let mut driver = driver();
    let followed = acts(&["al followed bo", "al unfollowed bo", "al unfollowed bo"]);
    pipe(&mut driver, &followed);
    let written = state(&mut driver);
    let added = r#"user.followed {"target_id":"bo","user_id":"al"}"#;
    let expected =
        [format!("follows:al[follows/bo] = {added}"), "follows:al[follows/bo] removed".to_owned()];
    assert_eq!(lines(&written), expected, "an absent entry is not removed again");
    assert_eq!(written[0].event.as_ref(), Some(&followed[0]));
    driver.replay().unwrap();
}

#[test]
fn equal_users_of_two_accounts_never_meet() {
    let mut driver = driver();
    pipe(&mut driver, &[act("e1", "al followed bo"), act_of("other", "e2", "al blocked bo")]);
    let expected = ["follows:al", "other/follows:al", "other/follows:bo"];
    let channels: Vec<String> = state(&mut driver).into_iter().map(|w| w.channel).collect();
    assert_eq!(channels, expected);
    assert_eq!(driver.all(EDGE_ROWS).len(), 5);
    driver.replay().unwrap();
}

#[test]
fn a_removal_leaves_a_mark_for_as_long_as_lanes_keep_records() {
    const HOUR_MS: i64 = 3_600_000;
    let mut driver = driver();
    pipe(&mut driver, &acts(&["al followed bo", "al unfollowed bo", "al followed cy"]));
    let before = at(500, act("e9", "al followed bo"));
    driver.advance_wall_clock_time(MARK_MS - HOUR_MS);
    pipe(&mut driver, std::slice::from_ref(&before));
    assert_eq!(lines(&state(&mut driver)).len(), 3, "an older event does not bring it back");
    assert_eq!(driver.all(EDGE_ROWS).len(), 2);
    driver.advance_wall_clock_time(2 * HOUR_MS);
    assert_eq!(driver.all(EDGE_ROWS).len(), 1, "the edge stays, the mark does not");
    assert_eq!(driver.all(Table(5)), [], "no timer is left");
    pipe(&mut driver, &[before]);
    assert_eq!(lines(&state(&mut driver)).len(), 1, "nothing is kept for longer");
    driver.replay().unwrap();
}

/// Publishes for each post whether its author's key hides `bo`, `cy` and `di`.
struct AskHides;

impl Operator for AskHides {
    fn number(&self) -> u8 {
        200
    }

    fn name(&self) -> &'static str {
        "ask"
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type == "post.created" {
            for user in ["bo", "cy", "di"] {
                if hides(context, user)? {
                    StateChannel::new("hidden").publish_current(
                        context,
                        context.key().to_owned().as_str(),
                        user,
                    )?;
                }
            }
        }
        Ok(Flow::Continue)
    }
}

#[test]
fn a_user_hides_whom_the_user_blocks_or_mutes_and_who_blocks_the_user() {
    let mut driver = TopologyDriver::new(&[&Follows, &AskHides]);
    let texts = ["al muted bo", "cy blocked al", "al blocked di", "al followed di"];
    pipe(&mut driver, &acts(&texts));
    state(&mut driver);
    let mut hidden = |author: &str| -> Vec<String> {
        let data = json!({"post_id": "p", "author_id": author, "text": "x"});
        pipe(&mut driver, &[event("p1", "post.created", data)]);
        state(&mut driver).into_iter().map(|written| written.state_key).collect()
    };
    assert_eq!(hidden("al"), ["bo", "cy", "di"]);
    assert_eq!(hidden("bo"), [""; 0], "who is muted hides nobody");
    assert_eq!(hidden("eve"), [""; 0]);
    driver.replay().unwrap();
}

const USERS: [&str; 3] = ["al", "bo", "cy"];
const VERBS: [&str; 6] = ["followed", "unfollowed", "blocked", "unblocked", "muted", "unmuted"];

/// What counts after these events, whatever their order: for each edge the last event about it.
fn model(events: &[Event]) -> Vec<String> {
    let mut last: BTreeMap<String, ((i64, &str), bool)> = BTreeMap::new();
    for event in events {
        let fields = tidewire_schemas::fields::Fields::of(&event.data).unwrap();
        let (a, b) = (fields.text("user_id").unwrap(), fields.text("target_id").unwrap());
        let about: &[(&str, &str, &str, bool)] = match &event.event_type[..] {
            "user.followed" => &[(&a, "follows", &b, true)],
            "user.unfollowed" => &[(&a, "follows", &b, false)],
            "user.muted" => &[(&a, "mutes", &b, true)],
            "user.unmuted" => &[(&a, "mutes", &b, false)],
            "user.blocked" => &[
                (&a, "blocks", &b, true),
                (&b, "blocked_by", &a, true),
                (&a, "follows", &b, false),
                (&b, "follows", &a, false),
            ],
            _ => &[(&a, "blocks", &b, false), (&b, "blocked_by", &a, false)],
        };
        for (user, relation, target, is_there) in about {
            let stamp = (event.timestamp_ms, &event.event_id[..]);
            let edge = last.entry(format!("{user}: {relation}/{target}"));
            let edge = edge.or_insert((stamp, *is_there));
            if edge.0 <= stamp {
                *edge = (stamp, *is_there);
            }
        }
    }
    last.into_iter().filter(|(_, (_, is_there))| *is_there).map(|(edge, _)| edge).collect()
}

fn histories() -> impl Strategy<Value = Vec<Event>> {
    let one = (0..3usize, 0..6usize, 0..3usize, 0..20i64);
    proptest::collection::vec(one, 0..40).prop_map(|ones| {
        let act = |(n, (user, verb, target, time)): (usize, (usize, usize, usize, i64))| {
            let text = format!("{} {} {}", USERS[user], VERBS[verb], USERS[target]);
            at(time * 1_000, act(&format!("e{n}"), &text))
        };
        ones.into_iter().enumerate().map(act).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_order_of_the_lanes_ends_as_the_model_says(events in histories(), seed in 0u64..1_000) {
        let mut driver = driver();
        pipe_interleaved(&mut driver, &appended(&events, 700), seed);
        let mut found = entries(latest(&state(&mut driver)).into_keys());
        found.sort();
        prop_assert_eq!(found, model(&events));
        prop_assert_eq!(dead_letters(&mut driver), [""; 0]);
        prop_assert!(driver.now() >= START);
        driver.replay().unwrap();
    }

    #[test]
    fn rows_and_entries_do_not_depend_on_the_order(events in histories(), seed in 1u64..1_000) {
        let input = appended(&events, 700);
        let result = |seed| {
            let mut driver = driver();
            pipe_interleaved(&mut driver, &input, seed);
            (driver.all(EDGE_ROWS), latest(&state(&mut driver)))
        };
        prop_assert_eq!(result(seed), result(0));
    }
}
