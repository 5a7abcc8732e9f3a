//! What a subscription to state costs at most, and how it ends if there is no state to be had.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::config::FanoutConfig;
use super::super::fold::worker::StateFold;
use super::super::identity::Accounts;
use super::super::protocol::native::CloseReason;
use super::super::shard::ConnectionMemory;
use super::fixture::{ClientConnection, FanoutFixture, identity, objects};
use super::stores::MemoryStores;

/// Two channels of one partition or of two.
const CHANNELS: [&str; 2] = ["follows:ann", "follows:bob"];

fn subscribed(fixture: &mut FanoutFixture) -> ClientConnection {
    let connection = ClientConnection::open(fixture, 0, &identity(Accounts::All));
    for channel in CHANNELS {
        let op = json!({"op": "subscribe", "channel": channel, "snapshot": true});
        connection.send(fixture, &op);
    }
    connection
}

fn open_fold(fixture: &FanoutFixture) -> StateFold {
    let (log, hub) = (fixture.log.clone(), &fixture.gateways[0].hub);
    StateFold::open(log, &MemoryStores::default(), hub, fixture.now).unwrap()
}

/// The fold answers what it is asked, and the client reads.
fn answer(
    fixture: &mut FanoutFixture,
    fold: &mut StateFold,
    client: &mut ClientConnection,
) -> Vec<Value> {
    while fold.turn(fixture.monotonic, Duration::ZERO).unwrap() {}
    fixture.gateways[0].shard.pull();
    let frames = client.read(fixture);
    objects(&frames, "snapshot").into_iter().map(|frame| frame["channel"].clone()).collect()
}

#[test]
fn a_connection_is_given_one_snapshot_after_the_other() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut fold = open_fold(&fixture);
    let mut client = subscribed(&mut fixture);
    client.read(&mut fixture);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [CHANNELS[0]]);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [CHANNELS[1]]);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [Value::Null; 0]);
}

#[test]
fn a_subscription_that_is_ended_makes_way_for_the_next_snapshot() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut fold = open_fold(&fixture);
    let mut client = subscribed(&mut fixture);
    client.read(&mut fixture);
    client.send(&mut fixture, &json!({"op": "unsubscribe", "channel": CHANNELS[0]}));
    client.read(&mut fixture);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [CHANNELS[1]]);
}

#[test]
fn without_a_fold_the_connection_ends_after_10_s_and_not_before() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut client = subscribed(&mut fixture);
    for second in 0..=10 {
        client.read(&mut fixture);
        let closes = client.closes(&mut fixture);
        let reasons: Vec<_> = closes.into_iter().map(|close| close.reason).collect();
        match second {
            10 => assert_eq!(reasons, [CloseReason::Overloaded]),
            _ => assert_eq!(reasons, [], "after {second} s"),
        }
        fixture.pass_time(1_000);
    }
}

#[test]
fn while_the_memory_for_connections_is_full_no_snapshot_is_asked_for() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut fold = open_fold(&fixture);
    fixture.memory = ConnectionMemory::Full;
    fixture.pass_time(1_000);
    let mut client = subscribed(&mut fixture);
    client.read(&mut fixture);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [Value::Null; 0]);
    fixture.memory = ConnectionMemory::Available;
    fixture.pass_time(2_000);
    client.read(&mut fixture);
    assert_eq!(answer(&mut fixture, &mut fold, &mut client), [CHANNELS[0]]);
}
