//! The operators of every deployment, with failures and crashes, beside a run without any.
//!
//! How lanes interleave, where transactions end and what is sent coalesced differs between the two.
//! What must not differ: the events that are delivered, each once per channel, and the last value
//! of each entry of a state channel.
//!
//! A block or mute hides what its task processes after it, and the deletion of a post suppresses
//! notifications of acts that come to the post's task after it. So these would differ: here only
//! somebody who does nothing is blocked, and acts on the post that is deleted name the author. Of
//! two equal acts the first processed one gives the notification its time, so users read everything
//! there is.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_engine::operators::OPERATORS;
use tidewire_engine::record::Record;
use tidewire_engine::topology::Lane;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::Fields;
use tidewire_tests::test_rng::TestRng;

use crate::one_machine::OneMachine;

/// Histories in one run.
const HISTORIES: u64 = 30;

/// Events in each.
const EVENTS: u64 = 300;

/// Turns with faults.
const TURNS: u64 = 160;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 1_500;

/// The only post that is deleted.
const DELETED: &str = "p5";

/// Types whose events are sent coalesced, so that how many there are depends on the run.
const COALESCED: [&str; 3] =
    ["engagement.updated", "reaction.counted", "notification.unread_changed"];

fn pick<'a>(rng: &mut TestRng, of: &[&'a str]) -> &'a str {
    of[rng.index(of.len())]
}

/// An event of a few users about a few posts, threads and workspaces.
pub(crate) fn event(rng: &mut TestRng, n: u64) -> Event {
    const USERS: [&str; 5] = ["ann", "bob", "cy", "dee", "eve"];
    const POSTS: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];
    let (user, other) = (pick(rng, &USERS), pick(rng, &USERS));
    let (post, account) = (pick(rng, &POSTS), pick(rng, &["a1", "a2"]));
    // The author of a post is always the same user.
    let author = USERS[post.as_bytes()[1] as usize % USERS.len()];
    let named = if post == DELETED { format!(r#","author_id":"{author}""#) } else { String::new() };
    let act = format!(r#""post_id":"{post}","user_id":"{user}"{named}"#);
    let edge = format!(r#""user_id":"{user}","target_id":"{other}""#);
    let thread = format!(r#""thread_id":"t{}","user_id":"{user}""#, n % 3);
    let (event_type, data) = match rng.below(20) {
        0 | 1 => (
            "post.created",
            format!(
                r#""post_id":"{post}","author_id":"{author}","text":"x","mentions":["{other}"]"#
            ),
        ),
        2 => ("post.deleted", format!(r#""post_id":"{DELETED}","author_id":"ann""#)),
        3 | 4 => ("post.liked", act),
        5 if named.is_empty() => ("post.liked", format!(r#"{act},"author_id":"{author}""#)),
        5 | 6 => ("post.unliked", act),
        7 => ("post.replied", format!(r#"{act},"reply_id":"r{n}","text":"y""#)),
        8 => ("post.reposted", act),
        9 => ("post.reacted", format!(r#"{act},"reaction_type":"wow""#)),
        10 => ("post.unreacted", format!(r#"{act},"reaction_type":"wow""#)),
        11 | 12 => ("user.followed", edge),
        13 => ("user.unfollowed", edge),
        14 => (
            pick(rng, &["user.blocked", "user.unblocked", "user.muted"]),
            format!(r#""user_id":"{user}","target_id":"zed""#),
        ),
        15 => ("notification.read", format!(r#""user_id":"{user}","all":true"#)),
        16 => (pick(rng, &["thread.joined", "thread.left"]), thread),
        17 => ("chat.message", format!(r#"{thread},"text":"z""#)),
        18 => (pick(rng, &["member.added", "member.removed"]), format!(r#""user_id":"{user}""#)),
        _ => (
            "mention.created",
            format!(r#""author_id":"{user}","text":"m","mentioned_user_id":"{other}""#),
        ),
    };
    let data = format!("{{{data}}}");
    let known = Catalogue::builtin().resolve(event_type).expect("a type");
    let fields = Fields::of(&data).expect("an object");
    let read_ms = if event_type == "notification.read" { 1_000_000 } else { 0 };
    Event {
        event_id: format!("e-{n}"),
        event_type: event_type.to_owned(),
        account_id: account.to_owned(),
        // Some events overtake others.
        timestamp_ms: 1_000_000 + read_ms + (n * 10 + rng.below(40)) as i64,
        correlation_id: format!("e-{n}"),
        priority: known.priority_of(&fields),
        key: known.key_of(account, &fields).expect("it has a key").into_owned(),
        source: None,
        alias: None,
        data,
    }
}

/// What a run has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How often each event was delivered to each channel.
    pub(crate) delivered: BTreeMap<(String, String), usize>,
    /// Type and data of the last value of each entry; `None`: it is removed.
    pub(crate) state: BTreeMap<String, Option<(String, String)>>,
    /// Events that no operator could process.
    letters: BTreeSet<String>,
}

fn key_of(record: &Record) -> String {
    String::from_utf8_lossy(record.body.key().expect("a key")).replace('\0', " ")
}

pub(crate) fn outcome(machine: &OneMachine) -> Outcome {
    let topology = &machine.topology;
    let mut delivered = BTreeMap::new();
    for topic in [topology.out_stream(), topology.out_urgent()] {
        for record in machine.records(topic) {
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            if !COALESCED.contains(&event.event_type) {
                let id = format!("{} {}", event.event_type, event.event_id);
                *delivered.entry((id, key_of(&record))).or_default() += 1;
            }
        }
    }
    let mut state = BTreeMap::new();
    for record in machine.records(topology.out_state()) {
        let value = record.body.value().map(|value| {
            let event = EventView::decode(value).expect("an event");
            (event.event_type.to_owned(), event.data.to_owned())
        });
        state.insert(key_of(&record), value);
    }
    // An entry that never was and one that is gone are alike.
    state.retain(|_, value| value.is_some());
    let letters = machine.records(topology.dead_letters());
    let detail = |record: &Record| {
        String::from_utf8_lossy(record.body.header("detail").unwrap_or_default()).into_owned()
    };
    Outcome { delivered, state, letters: letters.iter().map(detail).collect() }
}

/// Appends the events of a history, and runs it to its end.
fn run(seed: u64, faults: Faults) -> Outcome {
    let (mut machine, mut rng) = (OneMachine::new(seed, OPERATORS), TestRng::new(seed));
    for n in 0..EVENTS {
        let event = event(&mut rng, n);
        machine.append(Lane::of(event.priority), &event);
        if n % 60 == 59 {
            match faults {
                Faults::Injected => machine.turn_with_faults(TURNS * 60 / EVENTS),
                Faults::None => machine.settle(QUIET_TURNS),
            }
        }
    }
    machine.settle(QUIET_TURNS);
    outcome(&machine)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    None,
    Injected,
}

#[test]
fn failures_and_crashes_change_nothing_that_the_operators_say() {
    for seed in 0..HISTORIES {
        let (calm, rough) = (run(seed, Faults::None), run(seed, Faults::Injected));
        assert_eq!(calm.letters, BTreeSet::new(), "history {seed}");
        let twice: Vec<_> = rough.delivered.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "history {seed}: {twice:?}");
        for (what, times) in &calm.delivered {
            assert_eq!(rough.delivered.get(what), Some(times), "history {seed}: {what:?}");
        }
        for (what, times) in &rough.delivered {
            assert_eq!(calm.delivered.get(what), Some(times), "history {seed}: {what:?} is more");
        }
        for (key, value) in calm.state.iter().chain(&rough.state) {
            let both = (calm.state.get(key), rough.state.get(key));
            assert_eq!(both, (Some(value), Some(value)), "history {seed}: {key}");
        }
        assert_eq!(rough.letters, BTreeSet::new(), "history {seed}");
    }
}
