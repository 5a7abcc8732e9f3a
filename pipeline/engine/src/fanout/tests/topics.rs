//! Tests of output topics that change while a gateway runs: created again, missing, grown.

use std::time::Duration;

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::protocol::native::StartAt;
use super::client::ServerFrame;
use super::fixture::{ClientConnection, FanoutFixture, identity, numbers, objects};
use crate::port::LogError;
use crate::turn::EngineError;

fn fixture() -> FanoutFixture {
    FanoutFixture::new(1, &FanoutConfig::default())
}

/// Turns of the lookup worker over this time, one a second. Returns its failure.
fn watch(fixture: &mut FanoutFixture, seconds: u32) -> Result<(), EngineError> {
    for _ in 0..seconds {
        fixture.monotonic.0 += 1_000;
        fixture.gateways[0].lookups.turn(fixture.monotonic, Duration::ZERO)?;
    }
    Ok(())
}

#[test]
fn streams_over_topics_that_are_created_again_get_a_gap_and_the_new_events() {
    let mut fixture = fixture();
    let mut socket = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    socket.subscribe(&mut fixture, "posts:a", "latest");
    let channels = ["posts:a".to_owned(), "posts:b".to_owned()];
    let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
    for _ in 0..10 {
        fixture.append("posts:a", 1);
    }
    for connection in [&mut socket, &mut stream] {
        assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 10);
    }
    fixture.create_topics_again();
    for _ in 0..20 {
        fixture.append("posts:a", 1);
    }
    let frames = socket.read_all(&mut fixture);
    let [gap] = objects(&frames, "gap")[..] else { panic!("{frames:?}") };
    assert_eq!(gap["reason"], "epoch");
    assert_eq!(fixture.generation_of(gap["from"].as_str().unwrap()), 0);
    assert_eq!(fixture.generation_of(gap["to"].as_str().unwrap()), 1);
    assert_eq!(numbers(&frames), (10..30).collect::<Vec<_>>());
    let frames = stream.read_all(&mut fixture);
    assert_eq!(objects(&frames, "gap").len(), 2, "{frames:?}");
    let ids: Vec<bool> = frames[..2]
        .iter()
        .map(|frame| matches!(frame, ServerFrame::Object { id: Some(_), .. }))
        .collect();
    assert_eq!(ids, [false, true], "only the last gap carries the position behind both");
    assert_eq!(numbers(&frames), (10..30).collect::<Vec<_>>());
    for frame in objects(&frames, "post.created") {
        assert_eq!(frame["channel"], "posts:a");
    }
    assert!(fixture.gateways[0].hub.problem().is_none());
}

#[test]
fn a_subscription_that_waits_for_its_start_is_answered_when_topics_are_created_again() {
    let mut fixture = fixture();
    fixture.append("posts:a", 1);
    fixture.settle();
    let mut socket = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    socket.subscribe(&mut fixture, "posts:a", "earliest");
    let mut stream =
        ClientConnection::stream(&mut fixture, 0, &["posts:a".to_owned()], StartAt::Earliest);
    for connection in [&mut socket, &mut stream] {
        connection.fill(&mut fixture, 1 << 20);
    }
    fixture.create_topics_again();
    fixture.append("posts:a", 1);
    let frames = socket.read_all(&mut fixture);
    assert_eq!(objects(&frames, "ok").len(), 1, "{frames:?}");
    assert_eq!(objects(&frames, "gap").len(), 1, "{frames:?}");
    assert_eq!(numbers(&frames), [1]);
    let frames = stream.read_all(&mut fixture);
    assert!(matches!(&frames[0], ServerFrame::Id(_)), "{frames:?}");
    assert_eq!(objects(&frames, "gap").len(), 1, "{frames:?}");
    assert_eq!(numbers(&frames), [1]);
}

#[test]
fn topics_that_grow_end_the_process_with_what_to_do() {
    let mut fixture = fixture();
    fixture.log.change_topics(|topics| {
        topics.iter_mut().for_each(|info| info.spec.partitions = 12);
    });
    let error = watch(&mut fixture, 30).expect_err("the topology does not fit");
    let EngineError::Fatal { source, .. } = error else { panic!("{error}") };
    let Some(LogError::Fatal(text, _)) = source.downcast_ref() else { panic!("{source}") };
    assert!(text.contains("12 partitions") && text.contains("topics.prefix"), "{text}");
}

#[test]
fn missing_topics_are_a_problem_at_once_and_the_end_after_a_minute() {
    let mut fixture = fixture();
    let mut topics = Vec::new();
    fixture.log.change_topics(|all| topics = std::mem::take(all));
    watch(&mut fixture, 15).expect("a broker that starts knows no topic");
    let problem = fixture.gateways[0].hub.problem().expect("it is not ready");
    assert!(problem.contains("missing"), "{problem}");
    // The broker has learnt of its topics.
    fixture.log.change_topics(|all| all.clone_from(&topics));
    watch(&mut fixture, 5).expect("nothing is wrong");
    assert_eq!(fixture.gateways[0].hub.problem(), None);
    fixture.log.change_topics(Vec::clear);
    let error = watch(&mut fixture, 90).expect_err("they are deleted");
    assert!(error.to_string().contains("run `tidewire topics create`"), "{error}");
}

#[test]
fn a_broker_that_does_not_answer_is_no_deletion() {
    let mut fixture = fixture();
    fixture.log.set_away(true);
    watch(&mut fixture, 30).expect("the broker may come back");
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0]);
    watch(&mut fixture, 300).expect("the broker may come back");
    assert_eq!(fixture.gateways[0].hub.problem(), None);
    let [text] = &fixture.gateways[0].hub.unanswered()[..] else { panic!("it is reported") };
    assert!(text.starts_with("the topics can't be listed") && text.contains("no broker"), "{text}");
    assert_eq!(fixture.gateways[0].hub.next_epoch(), None);
    fixture.log.set_away(false);
    watch(&mut fixture, 30).expect("nothing has changed");
    assert_eq!(fixture.gateways[0].hub.next_epoch(), None);
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0]);
}

#[test]
fn a_time_without_answers_does_not_count_as_a_time_without_topics() {
    let mut fixture = fixture();
    let mut topics = Vec::new();
    fixture.log.change_topics(|all| topics = std::mem::take(all));
    watch(&mut fixture, 11).expect("one false listing");
    fixture.log.set_away(true);
    watch(&mut fixture, 90).expect("no answer says nothing");
    fixture.log.set_away(false);
    watch(&mut fixture, 30).expect("a broker that starts knows no topic");
    fixture.log.change_topics(|all| all.clone_from(&topics));
    watch(&mut fixture, 30).expect("nothing has changed");
    assert_eq!(fixture.gateways[0].hub.problem(), None);
}

#[test]
fn one_broker_that_knows_older_topics_is_not_believed() {
    let mut fixture = fixture();
    for id in [8, 7, 8, 7, 8, 7] {
        fixture.log.change_topics(|topics| topics.iter_mut().for_each(|info| info.id = id));
        watch(&mut fixture, 1).expect("not sure yet");
    }
    assert_eq!(fixture.gateways[0].hub.next_epoch(), None);
}
