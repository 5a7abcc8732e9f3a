//! Tests of state channels through the test driver.

use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use super::*;
use crate::derive::{Flow, Input, Operator, START, TopologyDriver};
use crate::topology::Lane;

const DAY_MS: i64 = 24 * 3_600_000;

const EDGES: StateChannel = StateChannel::new("follows");

const THREADS: StateChannel =
    StateChannel::expiring("participation", 60, "participation.life", 30 * DAY_MS);

/// Publishes a followed event, removes the edge of an unfollowed one, renews the entry of others.
struct Edges;

impl Operator for Edges {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "edges"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[THREADS.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let user = event.key;
        match event.event_type {
            "user.followed" => {
                EDGES.publish_current(context, user, "follows/t")?;
                THREADS.publish_current(context, user, "t")?;
            }
            "user.unfollowed" => {
                EDGES.remove(context, user, "follows/t")?;
                THREADS.remove(context, user, "t")?;
            }
            _ => THREADS.renew(context, user, "t")?,
        }
        Ok(Flow::Continue)
    }
}

fn event(event_type: &str, account: &str) -> Event {
    Event {
        event_id: format!("{event_type}-{account}"),
        event_type: event_type.to_owned(),
        account_id: account.to_owned(),
        timestamp_ms: 5,
        correlation_id: "c".to_owned(),
        priority: Priority::Normal,
        key: "ann,1".to_owned(),
        source: None,
        alias: None,
        data: r#"{"user_id":"ann,1","target_id":"t"}"#.to_owned(),
    }
}

/// The key of each entry written, `00` as a slash, and the type of its event.
fn written(driver: &mut TopologyDriver) -> Vec<(String, Option<String>)> {
    let topic = driver.topology().out_state().clone();
    let read = |body: Body| {
        let key = String::from_utf8_lossy(body.key().expect("a key")).replace('\0', " ");
        let event_type = body.value().map(|value| EventView::decode(value).expect("an event"));
        (key, event_type.map(|event| event.event_type.to_owned()))
    };
    driver.read_output(&topic).into_iter().map(read).collect()
}

fn entry_of(kind: &str, account: &str, event_type: Option<&str>) -> (String, Option<String>) {
    let state_key = if kind == "follows" { "follows/t" } else { "t" };
    (format!("{kind}:ann%2C1 {account} {state_key}"), event_type.map(str::to_owned))
}

#[test]
fn an_entry_holds_the_event_until_its_tombstone_and_accounts_are_apart() {
    let mut driver = TopologyDriver::new(&[&Edges]);
    for account in ["a", "b"] {
        driver.pipe_input(&event("user.followed", account));
        let followed = Some("user.followed");
        let both = ["follows", "participation"].map(|kind| entry_of(kind, account, followed));
        assert_eq!(written(&mut driver), both);
    }
    driver.pipe_input(&event("user.unfollowed", "a"));
    let gone = ["follows", "participation"].map(|kind| entry_of(kind, "a", None));
    assert_eq!(written(&mut driver), gone);
    assert_eq!((driver.all(Table(60)).len(), driver.all(Table(5)).len()), (1, 1), "b's life");
    driver.replay().expect("the same again");
}

#[test]
fn an_entry_ends_its_life_after_its_last_renewal_with_a_tombstone() {
    let mut driver = TopologyDriver::new(&[&Edges]);
    driver.pipe_input(&event("user.followed", "a"));
    written(&mut driver);
    driver.advance_wall_clock_time(DAY_MS);
    driver.pipe_input(&event("user.muted", "a"));
    driver.advance_wall_clock_time(19 * DAY_MS);
    driver.pipe_input(&event("user.muted", "a"));
    driver.advance_wall_clock_time(30 * DAY_MS - 1);
    assert_eq!(written(&mut driver), []);
    driver.advance_wall_clock_time(1);
    assert_eq!(written(&mut driver), [entry_of("participation", "a", None)]);
    assert_eq!((driver.all(Table(60)), driver.all(Table(5))), (vec![], vec![]));
    driver.replay().expect("the same again");
}

#[test]
fn a_lane_with_a_backlog_holds_the_end_of_a_life_back() {
    let mut driver = TopologyDriver::new(&[&Edges]);
    driver.pipe_input(&event("user.followed", "a"));
    written(&mut driver);
    driver.begin_backlog(Lane::Low);
    driver.advance_wall_clock_time(40 * DAY_MS);
    assert_eq!(written(&mut driver), []);
    let at = Millis(START.0 + 29 * DAY_MS);
    driver.pipe_late(Lane::Low, &event("user.muted", "a"), at);
    driver.end_backlog(Lane::Low);
    driver.advance_wall_clock_time(DAY_MS);
    assert_eq!(written(&mut driver), [], "it was renewed in time");
    driver.advance_wall_clock_time(18 * DAY_MS);
    assert_eq!(written(&mut driver), [entry_of("participation", "a", None)]);
    driver.replay().expect("the same again");
}

#[test]
fn a_thousand_entries_that_end_at_once_take_several_ticks() {
    let mut driver = TopologyDriver::new(&[&Edges]);
    for n in 0..2_500 {
        driver.pipe_input(&event("user.followed", &format!("a{n}")));
    }
    written(&mut driver);
    driver.advance_wall_clock_time(30 * DAY_MS);
    assert_eq!(written(&mut driver).len(), 2_500);
    let ticks = driver.last_order().expect("a tick").ticks.len();
    assert_eq!(ticks, 1, "each tick is a transaction of its own");
}
