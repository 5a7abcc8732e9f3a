//! Tests of the operators `posts` and `notify.resolve`: cases, a model, and interleaved lanes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use tidewire_schemas::event::{Event, EventView};

use super::*;
use crate::derive::{START, TopologyDriver};
use crate::operators::testing::{
    Appended, appended, at, dead_letters, dropped, event, event_of, pipe, pipe_interleaved, stream,
};
use crate::record::Body;
use crate::topology::Lane;

const OPERATORS: &[&dyn Operator] = &[&Posts, &NotifyResolve];

fn created(id: &str, post: &str, author: &str) -> Event {
    event(id, "post.created", json!({"post_id": post, "author_id": author, "text": "x"}))
}

fn deleted(id: &str, post: &str, author: &str) -> Event {
    event(id, "post.deleted", json!({"post_id": post, "author_id": author}))
}

fn liked(id: &str, post: &str, user: &str) -> Event {
    event(id, "post.liked", json!({"post_id": post, "user_id": user}))
}

/// Each `notify.due`, as recipient, kind, actor and post.
fn due(facts: &[(String, Event)]) -> Vec<String> {
    let due = facts.iter().filter(|(_, event)| event.event_type == "notify.due");
    let line = |(key, event): &(String, Event)| {
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        let text = |name: &str| data[name].as_str().unwrap_or("-").to_owned();
        assert_eq!((&text("user_id"), &event.key), (key, key));
        format!("{key}: {} by {} on {}", text("kind"), text("actor_id"), text("post_id"))
    };
    due.map(line).collect()
}

fn driver() -> TopologyDriver {
    TopologyDriver::new(OPERATORS)
}

#[test]
fn acts_are_due_to_the_author_of_their_post() {
    let mut driver = driver();
    let act = |id, event_type, more: Value| {
        let mut data = json!({"post_id": "p1", "user_id": "bob", "user_name": "Bob"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        at(7, event(id, event_type, data))
    };
    let facts = pipe(
        &mut driver,
        &[
            created("e1", "p1", "al"),
            act("e2", "post.liked", json!({})),
            act("e3", "post.replied", json!({"reply_id": "r1", "text": "hi"})),
            act("e4", "post.reposted", json!({"repost_id": "p2"})),
            act("e5", "post.quoted", json!({"quote_id": "p3", "text": "\u{1}".repeat(1_000)})),
            act("e6", "post.liked", json!({"author_id": "al"})),
        ],
    );
    let lines =
        ["like", "reply", "retweet", "quote"].map(|kind| format!("al: {kind} by bob on p1"));
    assert_eq!(due(&facts), lines, "an event with author_id moves notify itself");
    let data: Vec<Value> = facts
        .iter()
        .filter(|(_, event)| event.event_type == "notify.due")
        .map(|(_, event)| serde_json::from_str(&event.data).unwrap())
        .collect();
    let expected = json!({
        "user_id": "al", "kind": "reply", "post_id": "p1", "actor_id": "bob", "actor_name": "Bob",
        "reply_id": "r1", "text": "hi",
    });
    assert_eq!(data[1], expected);
    assert_eq!((&data[2]["repost_id"], &data[3]["quote_id"]), (&json!("p2"), &json!("p3")));
    assert_eq!(data[3]["text"].as_str().unwrap().len(), TEXT_MAX_CHARS);
    assert_eq!(facts.last().unwrap().1.timestamp_ms, START.0 + 7);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn an_act_waits_for_the_author_and_only_for_its_own_post_and_account() {
    let mut driver = driver();
    let other = json!({"post_id": "p1", "author_id": "eve", "text": "x"});
    let early = [
        liked("e1", "p1", "bob"),
        liked("e2", "p2", "bob"),
        event_of("other", "e3", "post.created", other),
    ];
    assert_eq!(due(&pipe(&mut driver, &early)), [""; 0]);
    let facts = pipe(&mut driver, &[created("e4", "p1", "al")]);
    assert_eq!(due(&facts), ["al: like by bob on p1"]);
    let facts = pipe(&mut driver, &[created("e5", "p1", "al")]);
    assert_eq!(due(&facts), [""; 0], "it is due once");
    assert_eq!(driver.all(WAITING.decl().spec.table).len(), 1);
    driver.replay().unwrap();
}

#[test]
fn an_act_stops_to_wait_after_ten_minutes_of_settled_time_and_is_counted() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        pipe(&mut driver, &[liked("e1", "p1", "bob")]);
        driver.begin_backlog(Lane::Normal);
        driver.advance_wall_clock_time(WAIT_MS);
        assert_eq!(driver.all(WAITING.decl().spec.table).len(), 1, "a lane may hold the post");
        driver.end_backlog(Lane::Normal);
        driver.tick();
        assert_eq!(driver.all(WAITING.decl().spec.table), []);
        assert_eq!(driver.all(WAITING_COUNTS.decl().spec.table), []);
        assert_eq!(due(&pipe(&mut driver, &[created("e2", "p1", "al")])), [""; 0]);
        driver
    });
    driver.replay().unwrap();
    assert_eq!(drops, ["notify.resolve unknown 1"]);
}

/// `posts` that fails while it is broken.
struct BreakablePosts(&'static AtomicBool);

impl Operator for BreakablePosts {
    fn number(&self) -> u8 {
        Posts.number()
    }

    fn name(&self) -> &'static str {
        Posts.name()
    }

    fn tables(&self) -> &'static [TableDecl] {
        Posts.tables()
    }

    fn events(&self) -> Events {
        Posts.events()
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("broken".to_owned())),
            false => Posts.on_event(event, context),
        }
    }
}

#[test]
fn an_act_finds_the_author_whom_posts_learned_from_its_dead_letter() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    const BREAKABLE: &[&dyn Operator] = &[&BreakablePosts(&BROKEN), &NotifyResolve];
    let mut driver = TopologyDriver::new(BREAKABLE);
    let facts = pipe(&mut driver, &[liked("e1", "p1", "bob"), created("e2", "p1", "al")]);
    assert_eq!(due(&facts), [""; 0], "posts has failed on the post");
    BROKEN.store(false, Ordering::SeqCst);
    let letters = driver.read_dead_letters();
    driver.requeue(&letters[0]);
    driver.advance_wall_clock_time(WAIT_MS);
    let facts = crate::operators::testing::pipe_facts(&mut driver);
    assert_eq!(due(&facts), ["al: like by bob on p1"]);
    assert_eq!(driver.all(WAITING.decl().spec.table), []);
    assert_eq!(driver.all(WAITING_COUNTS.decl().spec.table), []);
}

#[test]
fn an_act_that_waited_keeps_its_append_time_and_correlation() {
    let mut driver = driver();
    driver.pipe_late(Lane::Low, &liked("e1", "p1", "bob"), Millis(START.0 + 20));
    driver.pipe_late(Lane::Normal, &created("e2", "p1", "al"), Millis(START.0 + 50));
    let facts = driver.topology().facts().clone();
    // The copy for the post's key lets the act go on.
    for copy in driver.read_output(&facts) {
        driver.pipe_fact(Lane::Facts, &copy);
    }
    let written = driver.read_output(&facts);
    let of = |fact: &&Body| EventView::decode(fact.value()?).ok().map(|e| e.event_type.to_owned());
    let fact = written.iter().find(|fact| of(fact).as_deref() == Some("notify.due"));
    let fact = fact.expect("the act is due");
    let event = EventView::decode(fact.value().expect("an event")).expect("an event");
    assert_eq!(event.correlation_id, "e1");
    assert_eq!(fact.header("tw-time"), Some(&(START.0 + 20).to_be_bytes()[..]));
    assert_eq!(fact.header("tw-hops"), Some(&[2][..]), "the copy is the first one");
    driver.replay().unwrap();
}

#[test]
fn a_hundred_acts_wait_for_one_post_and_the_others_are_counted() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        let text = "\u{1}".repeat(2_000);
        let reply = |n: usize| {
            let id = format!("r{n:03}");
            let data = json!({
                "post_id": "p1", "user_id": "bob", "reply_id": &id,
                "text": &text, "user_name": &text,
            });
            event(&id, "post.replied", data)
        };
        let replies: Vec<Event> = (0..WAITING_MAX + 5).map(reply).collect();
        pipe(&mut driver, &replies);
        pipe(&mut driver, &[liked("e0", "p2", "bob")]);
        let facts = pipe(&mut driver, &[created("e1", "p1", "al")]);
        assert_eq!(due(&facts).len(), WAITING_MAX);
        assert_eq!(driver.all(WAITING.decl().spec.table).len(), 1, "of the other post");
        assert_eq!(due(&pipe(&mut driver, &replies[..1])).len(), 1);
        assert_eq!(dead_letters(&mut driver), [""; 0]);
        driver
    });
    driver.replay().unwrap();
    assert_eq!(drops, ["notify.resolve full 5"]);
}

#[test]
fn nothing_after_the_deletion_of_a_post_is_due_for_thirty_days() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        pipe(&mut driver, &[liked("e1", "p1", "early"), deleted("e2", "p1", "al")]);
        let facts = pipe(&mut driver, &[liked("e3", "p1", "bob"), created("e4", "p1", "al")]);
        assert_eq!(due(&facts), ["al: like by early on p1"], "it precedes the deletion");
        driver.advance_wall_clock_time(KEPT_MS - 1);
        assert_eq!(due(&pipe(&mut driver, &[liked("e5", "p1", "bob")])), [""; 0]);
        driver.advance_wall_clock_time(1);
        assert_eq!(driver.all(POSTS.decl().spec.table), [], "the mark has expired");
        driver
    });
    driver.replay().unwrap();
    assert_eq!(drops, ["notify.resolve deleted 2"]);
}

#[test]
fn a_waiting_act_after_a_deletion_is_counted_once_the_deletion_is_processed() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        let input = [
            (Lane::Low, liked("e1", "p1", "bob"), 20),
            (Lane::Normal, deleted("e2", "p1", "al"), 10),
        ];
        for (lane, event, ms) in input {
            driver.pipe_late(lane, &event, Millis(START.0 + ms));
            driver.pipe_facts();
        }
        assert_eq!(driver.all(WAITING.decl().spec.table), []);
        driver
    });
    driver.replay().unwrap();
    assert_eq!(drops, ["notify.resolve deleted 1"]);
}

#[test]
fn an_author_is_known_for_thirty_days() {
    let mut driver = driver();
    pipe(&mut driver, &[created("e1", "p1", "al")]);
    driver.advance_wall_clock_time(KEPT_MS - 1);
    assert_eq!(due(&pipe(&mut driver, &[liked("e2", "p1", "bob")])).len(), 1);
    driver.advance_wall_clock_time(1);
    assert_eq!(due(&pipe(&mut driver, &[liked("e3", "p1", "bob")])).len(), 0);
    driver.replay().unwrap();
}

#[test]
fn a_long_post_with_a_hundred_mentions_is_known() {
    let mut driver = TopologyDriver::new(crate::operators::OPERATORS);
    let mentions: Vec<String> = (0..100).map(|n| format!("u{n}")).collect();
    let text = "x".repeat(60_000);
    let data = json!({"post_id": "p1", "author_id": "al", "text": text, "mentions": mentions});
    pipe(&mut driver, &[event("e1", "post.created", data)]);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    assert_eq!(due(&pipe(&mut driver, &[liked("e2", "p1", "bob")])), ["al: like by bob on p1"]);
    driver.replay().unwrap();
}

#[test]
fn the_same_notifications_exist_however_lanes_interleave() {
    let mut events = vec![created("c1", "p1", "al"), created("c2", "p2", "eve")];
    for n in 0..20 {
        let (post, user) = (["p1", "p2"][n % 2], format!("u{}", n % 5));
        let data = json!({"post_id": post, "user_id": &user, "reply_id": format!("r{n}")});
        events.insert(n % 3, event(&format!("r{n:02}"), "post.replied", data));
        events.push(liked(&format!("l{n:02}"), post, &user));
    }
    let input = appended(&events, 1_000);
    let mut first = None;
    for seed in 0..12 {
        let mut driver = TopologyDriver::new(crate::operators::OPERATORS);
        let facts = pipe_interleaved(&mut driver, &input, seed);
        let mut ids: BTreeSet<String> = stream(&mut driver)
            .into_iter()
            .filter(|written| written.channel.starts_with("notifications:"))
            .filter_map(|written| Some(format!("{} {}", written.channel, written.event?.event_id)))
            .collect();
        assert_eq!(ids.len(), 20 + 10, "a like of each user and post, and every reply");
        let due = facts.into_iter().filter(|(_, fact)| fact.event_type == "notify.due");
        ids.extend(due.map(|(_, fact)| fact.event_id));
        assert_eq!(ids.len(), 20 + 10 + 20 + 20, "every like and every reply is due");
        assert_eq!(first.get_or_insert_with(|| ids.clone()), &ids, "seed {seed}");
        assert_eq!(dead_letters(&mut driver), [""; 0]);
        driver.replay().unwrap();
    }
}

/// What the events of an input mean in the end, computed from the whole of it: those that must be
/// due, and those that may be: acts after a deletion that was not processed yet.
fn model(input: &[Appended]) -> (BTreeSet<String>, BTreeSet<String>) {
    let field = |event: &Event, name: &str| {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        data[name].as_str().unwrap_or_default().to_owned()
    };
    let of = |event_type: &'static str, post: String| {
        input.iter().filter(move |other| {
            other.event.event_type == event_type && field(&other.event, "post_id") == post
        })
    };
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    for Appended { event, time, .. } in input {
        let Some(kind) = kind_of(&event.event_type) else { continue };
        let post = field(event, "post_id");
        let first = of("post.created", post.clone()).map(|created| created.time.0).min();
        if first.is_none_or(|first| first >= time.0 + WAIT_MS) {
            continue;
        }
        let line = format!("al of {post}: {kind} by {} on {post}", field(event, "user_id"));
        let deletion = of("post.deleted", post).map(|deletion| deletion.time).min();
        match deletion.is_some_and(|deletion| deletion < *time) {
            true => may.insert(line),
            false => must.insert(line),
        };
    }
    (must, may)
}

/// One event of a history: what happens to which post.
fn step() -> impl Strategy<Value = (usize, usize)> {
    (0usize..8, 0usize..3)
}

fn history(steps: &[(usize, usize)]) -> Vec<Event> {
    let event = |(n, (what, post)): (usize, &(usize, usize))| {
        let (id, post) = (format!("e{n:03}"), format!("p{post}"));
        let author = format!("al of {post}");
        let (user, own) = (format!("u{n}"), format!("r{n}"));
        let data = |name: &str| json!({"post_id": &post, "user_id": &user, name: &own});
        match what {
            0 | 1 => created(&id, &post, &author),
            2 => deleted(&id, &post, &author),
            3 => event(&id, "post.replied", data("reply_id")),
            4 => event(&id, "post.quoted", data("quote_id")),
            5 => event(&id, "post.reposted", data("repost_id")),
            _ => liked(&id, &post, &user),
        }
    };
    steps.iter().enumerate().map(event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_lanes_interleave_the_same_acts_are_due(
        steps in proptest::collection::vec(step(), 1..40),
        step_ms in proptest::sample::select(vec![1i64, 1_000, 60_000, 240_000]),
        seed: u64,
    ) {
        let input = appended(&history(&steps), step_ms);
        let (must, may) = model(&input);
        for seed in [0, 1, 2, seed] {
            let mut driver = driver();
            let mut facts = pipe_interleaved(&mut driver, &input, seed);
            driver.advance_wall_clock_time(WAIT_MS);
            facts.extend(crate::operators::testing::pipe_facts(&mut driver));
            let lines = due(&facts);
            let is: BTreeSet<String> = lines.iter().cloned().collect();
            prop_assert_eq!(lines.len(), is.len(), "each is due once");
            prop_assert!(must.is_subset(&is), "seed {}: {:?} lacks of {:?}", seed, is, must);
            let more: Vec<&String> = is.difference(&must).collect();
            prop_assert!(more.iter().all(|line| may.contains(*line)), "seed {}: {:?}", seed, more);
            prop_assert_eq!(driver.all(WAITING.decl().spec.table), vec![]);
            prop_assert_eq!(driver.all(WAITING_COUNTS.decl().spec.table), vec![]);
            prop_assert_eq!(dead_letters(&mut driver), Vec::<String>::new());
            driver.replay().unwrap();
        }
    }
}
