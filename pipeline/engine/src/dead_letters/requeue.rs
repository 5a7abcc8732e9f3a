//! The way back: which topic and partition a letter's record goes to, and what it looks like there.
//!
//! It is the record as it came: key, bytes and headers of its own, and the trail of where it has
//! been. It goes to the topic it came from; what a lane or the HTTP door refused goes to the input.
//! It goes to the partition it came from: that is where its producer puts this key, so what follows
//! the record there still follows it.

use crate::dead_letters::dead_letter::{
    DeadLetter, REQUEUED_FROM, REQUEUED_REASON, SourcePosition, TRAIL_MAX,
};
use crate::lane_record::{SOURCE, VERDICT};
use crate::record::{Body, Outgoing, Partition, Topic, TopicPartition};
use crate::topology::{Lane, Topology};

/// What the topic of a letter that came by HTTP is called.
const HTTP: &str = "http";

/// Where the record of a letter goes back to. None: it is not a producer's (what a timer left, a
/// fact of DERIVE's own), or its topic is none of these.
pub fn destination(topology: &Topology, letter: &DeadLetter) -> Option<TopicPartition> {
    let SourcePosition { topic, partition, .. } = letter.source_position()?;
    let lane = |lane: &Lane| topology.lane(*lane).as_str() == topic;
    let facts = Lane::Facts;
    let to: &Topic = match topic.as_str() {
        own if own == topology.input().as_str() => topology.input(),
        own if own == topology.input_urgent().as_str() => topology.input_urgent(),
        HTTP => return Some(TopicPartition::new(topology.input(), letter.at.0)),
        _ if Lane::ALL.iter().any(lane) && !lane(&facts) => topology.input(),
        _ => return None,
    };
    // Where its producer put it, whose later records of the same key stand there too.
    let partition = u32::try_from(partition).ok().filter(|p| *p < topology.partitions());
    Some(TopicPartition::new(to, Partition(partition?)))
}

/// The record as it came, with where it has been.
pub(super) fn requeued_record(letter: &DeadLetter, to: &TopicPartition) -> Outgoing {
    let mut trail = letter.trail();
    trail.push(letter.id().into_owned());
    trail.drain(..trail.len().saturating_sub(TRAIL_MAX));
    let (trail, reason) = (trail.join(" "), letter.reason());
    // ADMIT's own on a lane record; the next time it is admitted they are others.
    let passing = [REQUEUED_FROM, REQUEUED_REASON, SOURCE, VERDICT];
    let mut headers: Vec<(&str, &[u8])> =
        letter.own_headers().filter(|(name, _)| !passing.contains(name)).collect();
    headers.push((REQUEUED_FROM, trail.as_bytes()));
    headers.push((REQUEUED_REASON, reason.as_bytes()));
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

    /// The record of the letter that is made of what stands at `from`, as it goes back.
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
    fn records_go_back_to_where_they_came_from_and_lanes_to_the_input() {
        let body = Body::new(Some(b"k"), Some(b"v"), &[]);
        for (from, to) in [
            ("t.in", Some("t.in")),
            ("t.in.urgent", Some("t.in.urgent")),
            ("t.lane.low", Some("t.in")),
            ("t.lane.facts", None),
            ("t.order", None),
            ("u.in", None),
        ] {
            let back = round(&at(from, 3), 7, &body);
            let place = back.map(|out| (out.topic.to_string(), out.partition));
            assert_eq!(place, to.map(|to| (to.to_owned(), Partition(3))), "{from}");
        }
        assert_eq!(round(&at("t.in", 4), 7, &body), None, "there is no such partition");
        let by_http = round(&at("http", 1_000_000), 7, &body).expect("back to the input");
        assert_eq!(by_http.topic.as_str(), "t.in");
    }

    #[test]
    fn the_trail_grows_by_one_each_time_and_is_bounded() {
        let own = [("trace", &b"t1"[..]), ("src", b"t.in/0/1"), ("v", b"12345678")];
        let mut body = Body::new(Some(b"k"), Some(b"\xff"), &own);
        for round_number in 0..20u64 {
            let out = round(&at("t.in", 2), round_number, &body).expect("back to the input");
            assert_eq!(out.body.key(), Some(&b"k"[..]));
            assert_eq!(out.body.value(), Some(&b"\xff"[..]));
            assert_eq!(out.body.header("trace"), Some(&b"t1"[..]));
            assert_eq!(out.body.header("src"), None, "ADMIT writes its own");
            assert_eq!(out.body.header(REQUEUED_REASON), Some(&b"not_json"[..]));
            assert_eq!(out.body.headers().count(), 3, "nothing stands there twice");
            body = out.body;
        }
        let trail = crate::dead_letters::trail(body.header(REQUEUED_FROM).expect("a trail"));
        let expected: Vec<String> = (4..20).map(|n| format!("t.in/2/{n}")).collect();
        assert_eq!(trail, expected);
    }
}
