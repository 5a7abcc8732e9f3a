//! Clauses about topics.

use tidewire_engine::port::{Cleanup, Isolation, LogError, TopicSpec};
use tidewire_engine::record::Topic;

use super::log_under_test::{FOR_EVER, LogUnderTest, append, at, record, topic};

pub(crate) fn create_reports_whether_the_topic_is_new<S: LogUnderTest>() {
    let subject = S::new();
    let spec = TopicSpec { topic: subject.name("new"), partitions: 3, cleanup: FOR_EVER };
    assert!(subject.log().create(&spec).unwrap());
    assert!(!subject.log().create(&spec).unwrap());
    let topics = subject.log().topics().unwrap();
    let found: Vec<_> = topics.iter().filter(|info| info.spec.topic == spec.topic).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].spec, spec);
}

pub(crate) fn create_fails_when_the_topic_exists_with_other_settings<S: LogUnderTest>() {
    let subject = S::new();
    let topic = topic(&subject, "there", (3, FOR_EVER));
    let spec = TopicSpec { topic: topic.clone(), partitions: 3, cleanup: FOR_EVER };
    let compacted = Cleanup::Compact { delete_retention_ms: 1_000 };
    for other in [
        TopicSpec { partitions: 4, ..spec.clone() },
        TopicSpec { cleanup: compacted, ..spec.clone() },
    ] {
        match subject.log().create(&other) {
            Err(LogError::Invalid(text)) => assert!(text.contains(topic.as_str()), "{text}"),
            outcome => panic!("not refused: {outcome:?}"),
        }
    }
    assert!(!subject.log().create(&spec).unwrap());
}

pub(crate) fn an_unknown_topic_or_partition_is_named_in_the_error<S: LogUnderTest>() {
    let subject = S::new();
    let log = subject.log();
    let there = topic(&subject, "known", (1, FOR_EVER));
    let unknown = Topic::new(format!("{there}-unknown"));
    for partition in [at(&unknown, 0), at(&there, 1)] {
        let name = partition.topic.as_str();
        let refusals = [
            log.appender().unwrap().append(&[record(&partition, "x")]).map(drop),
            log.bounds(&partition, Isolation::Committed).map(drop),
        ];
        for refusal in refusals {
            match refusal {
                Err(LogError::Invalid(text)) => assert!(text.contains(name), "{text}"),
                outcome => panic!("{partition} is not refused: {outcome:?}"),
            }
        }
    }
}

pub(crate) fn a_topic_keeps_its_id<S: LogUnderTest>() {
    let subject = S::new();
    let (a, b) = (topic(&subject, "a", (1, FOR_EVER)), topic(&subject, "b", (1, FOR_EVER)));
    let id = |name: &Topic| {
        let topics = subject.log().topics().unwrap();
        topics.iter().find(|info| info.spec.topic == *name).unwrap().id
    };
    let before = id(&a);
    assert_ne!(before, id(&b));
    append(&*subject.log(), &at(&a, 0), &["x"]);
    assert_eq!(id(&a), before);
}
