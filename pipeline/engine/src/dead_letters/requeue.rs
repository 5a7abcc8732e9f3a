//! Creates the record of a requeued dead letter, and chooses its topic and partition.
//!
//! It has the key, bytes and headers of the original record, and its trail. It goes to the topic it
//! was read from; records of HTTP and of lanes that ADMIT writes go to the input. It keeps its
//! partition: the producer writes later records of the same key there, so their order holds.
//!
//! What one operator failed on goes to `lane.facts` of its task's partition, marked with the
//! operator: the others have processed it, and so has ADMIT. It keeps its hops.

use crate::dead_letters::dead_letter::{
    DeadLetter, REQUEUED_FROM, REQUEUED_REASON, SourcePosition, TRAIL_MAX,
};
use crate::dead_letters::operator_failure::{FOR_OPERATOR, FOR_TRIGGER, OperatorFailure};
use crate::lane_record::{SETTINGS_HASH, SOURCE};
use crate::record::{Body, Outgoing, Partition, Topic, TopicPartition};
use crate::topology::{Lane, Topology};

/// The topic name of dead letters of HTTP.
const HTTP: &str = "http";

/// Bytes of a record that is requeued: less than a broker accepts by default. A larger one can't
/// become an event.
const REQUEUED_MAX_BYTES: usize = 1_000_000;

/// The partition to which a dead letter's record is requeued. `None` if its topic is unknown, or if
/// it is too large.
pub fn destination(topology: &Topology, letter: &DeadLetter) -> Option<TopicPartition> {
    if letter.cut().is_some() || letter.size() > REQUEUED_MAX_BYTES {
        return None;
    }
    let SourcePosition { topic, partition, .. } = letter.source_position()?;
    let lane = |lane: &Lane| topology.lane(*lane).as_str() == topic;
    let of_task = topic == topology.order().as_str() || Lane::ALL.iter().any(lane);
    let to: &Topic = match topic.as_str() {
        _ if letter.operator_failure().is_some() && of_task => topology.facts(),
        own if own == topology.input().as_str() => topology.input(),
        own if own == topology.input_urgent().as_str() => topology.input_urgent(),
        HTTP => return Some(TopicPartition::new(topology.input(), letter.at.0)),
        _ if lane(&Lane::Facts) => topology.facts(),
        _ if Lane::ALL.iter().any(lane) => topology.input(),
        _ => return None,
    };
    // The partition of its producer, who writes later records of the same key there too.
    let partition = u32::try_from(partition).ok().filter(|p| *p < topology.partitions());
    Some(TopicPartition::new(to, Partition(partition?)))
}

/// The original record with its trail.
pub(crate) fn requeued_record(letter: &DeadLetter, to: &TopicPartition) -> Outgoing {
    let mut trail = letter.trail();
    trail.push(letter.id().into_owned());
    trail.drain(..trail.len().saturating_sub(TRAIL_MAX));
    let (trail, reason) = (trail.join(" "), letter.reason());
    let failure = letter.operator_failure();
    // ADMIT added src and v. It sets them again, and where it does not they are about another
    // record: this one is a copy that DERIVE must not compare with ADMIT's own copies.
    let passing = [REQUEUED_FROM, REQUEUED_REASON, SOURCE, SETTINGS_HASH];
    let marks = [FOR_OPERATOR, FOR_TRIGGER];
    let passes = |name| passing.contains(&name) || (failure.is_some() && marks.contains(&name));
    let mut headers: Vec<(&str, &[u8])> =
        letter.own_headers().filter(|(name, _)| !passes(*name)).collect();
    headers.push((REQUEUED_FROM, trail.as_bytes()));
    headers.push((REQUEUED_REASON, reason.as_bytes()));
    if let Some(OperatorFailure { operator, trigger, .. }) = failure {
        headers.push((FOR_OPERATOR, operator.as_bytes()));
        headers.push((FOR_TRIGGER, trigger.as_str().as_bytes()));
    }
    Outgoing {
        topic: to.topic.clone(),
        partition: to.partition,
        body: Body::new(letter.source_key(), letter.value(), &headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::record::{Diagnosis, dead_letter};
    use crate::record::{Millis, Offset, Record};

    /// Dead-letters a record of `from` and returns its requeued record.
    fn round(from: &TopicPartition, offset: u64, body: &Body) -> Option<Outgoing> {
        let topology = Topology::new("t.", 4);
        let record = Record { offset: Offset(offset), timestamp: Millis(5), body: body.clone() };
        let diagnosis = Diagnosis { reason: "not_json", field: None, detail: "send JSON" };
        let out = dead_letter(&topology, from, &record, diagnosis);
        let stored = Record { offset: Offset(0), timestamp: Millis(6), body: out.body };
        let letter = DeadLetter::of(out.partition, stored);
        destination(&topology, &letter).map(|to| requeued_record(&letter, &to))
    }

    fn at(topic: &str, partition: u32) -> TopicPartition {
        TopicPartition::new(&Topic::new(topic), Partition(partition))
    }

    #[test]
    fn records_are_requeued_to_their_topic_and_lanes_to_the_input() {
        let body = Body::new(Some(b"k"), Some(b"v"), &[]);
        for (from, to) in [
            ("t.in", Some("t.in")),
            ("t.in.urgent", Some("t.in.urgent")),
            ("t.lane.low", Some("t.in")),
            ("t.lane.facts", Some("t.lane.facts")),
            ("t.order", None),
            ("u.in", None),
        ] {
            let back = round(&at(from, 3), 7, &body);
            let place = back.map(|out| (out.topic.to_string(), out.partition));
            assert_eq!(place, to.map(|to| (to.to_owned(), Partition(3))), "{from}");
        }
        assert_eq!(round(&at("t.in", 4), 7, &body), None, "there is no such partition");
        for bytes in [1_000_001, 3_000_000] {
            let body = Body::new(Some(b"k"), Some(&vec![7; bytes]), &[]);
            assert_eq!(round(&at("t.in", 3), 7, &body), None, "a broker refuses it");
        }
        let by_http = round(&at("http", 1_000_000), 7, &body).expect("back to the input");
        assert_eq!(by_http.topic.as_str(), "t.in");
    }

    #[test]
    fn each_requeue_extends_the_trail_up_to_its_limit() {
        let own = [("trace", &b"t1"[..]), ("src", b"t.in/0/1"), ("v", b"12345678")];
        let mut body = Body::new(Some(b"k"), Some(b"\xff"), &own);
        for round_number in 0..20u64 {
            let out = round(&at("t.in", 2), round_number, &body).expect("back to the input");
            assert_eq!(out.body.key(), Some(&b"k"[..]));
            assert_eq!(out.body.value(), Some(&b"\xff"[..]));
            assert_eq!(out.body.header("trace"), Some(&b"t1"[..]));
            assert_eq!(out.body.header("src"), None, "ADMIT writes its own");
            assert_eq!(out.body.header(REQUEUED_REASON), Some(&b"not_json"[..]));
            assert_eq!(out.body.headers().count(), 3, "no header is there twice");
            body = out.body;
        }
        let trail = crate::dead_letters::trail(body.header(REQUEUED_FROM).expect("a trail"));
        let expected: Vec<String> = (4..20).map(|n| format!("t.in/2/{n}")).collect();
        assert_eq!(trail, expected);
    }
}
