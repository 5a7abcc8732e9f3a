//! Creates the record of a requeued dead letter, and chooses its topic and partition.
//!
//! It has the key, bytes and headers of the original record, and its trail. It goes to the topic it
//! was read from; records of HTTP and of lanes that ADMIT writes go to the input. Those that came
//! to a lane by `in.internal` go back there, because no other input takes internal types. It keeps
//! its partition: the producer writes later records of the same key there, so their order holds.
//!
//! What one operator failed on goes to `lane.facts` of its task's partition, marked with the
//! operator: the others have processed it, and so has ADMIT. It keeps its hops. It is a pack of its
//! own there, as is any other entry of a pack that became a dead letter. A pack that could not be
//! decoded goes back as it was.

use crate::dead_letters::dead_letter::{DeadLetter, REQUEUED_FROM, REQUEUED_REASON, TRAIL_MAX};
use crate::dead_letters::operator_failure::{FOR_OPERATOR, FOR_TRIGGER, OperatorFailure};
use crate::fact_pack::pack_of_record;
use crate::lane_record::VERDICT;
use crate::record::{Body, Outgoing, Partition, TopicPartition};
use crate::topology::{Lane, Topology};
use crate::verdict::Verdict;

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
    let from = letter.source_position()?;
    if from.topic == HTTP {
        return Some(TopicPartition::new(topology.input(), letter.at.0));
    }
    let at_lane = Lane::ALL.into_iter().find(|lane| topology.lane(*lane).as_str() == from.topic);
    let of_task = at_lane.is_some() || from.topic == topology.order().as_str();
    let (to, partition) = match at_lane {
        _ if letter.operator_failure().is_some() && of_task => (topology.facts(), from.partition),
        Some(lane @ (Lane::Facts | Lane::FactsUrgent)) => (topology.lane(lane), from.partition),
        Some(_) => internal_origin(topology, letter)
            .map_or((topology.input(), from.partition), |at| {
                (topology.input_internal(), at.0.into())
            }),
        None => {
            let mut inputs = topology.inputs().into_iter();
            (inputs.find(|input| input.as_str() == from.topic)?, from.partition)
        }
    };
    // The partition of its producer, who writes later records of the same key there too.
    let partition = u32::try_from(partition).ok().filter(|p| *p < topology.partitions());
    Some(TopicPartition::new(to, Partition(partition?)))
}

/// The partition of `in.internal` that a record of a lane came from, if it did. The copies of a
/// broadcast event are in every partition of the lane, and came from one.
fn internal_origin(topology: &Topology, letter: &DeadLetter) -> Option<Partition> {
    let (_, verdict) = letter.own_headers().find(|(name, _)| *name == VERDICT)?;
    let source = Verdict::decode(verdict).ok()?.source;
    let is_internal = topology.input_of(source.input) == Some(topology.input_internal());
    is_internal.then_some(source.partition)
}

/// The original record with its trail.
pub(crate) fn requeued_record(letter: &DeadLetter, to: &TopicPartition) -> Outgoing {
    let mut trail = letter.trail();
    trail.push(letter.id().into_owned());
    trail.drain(..trail.len().saturating_sub(TRAIL_MAX));
    let (trail, reason) = (trail.join(" "), letter.reason());
    let failure = letter.operator_failure();
    // ADMIT writes another verdict. What one operator gets again keeps the verdict of its event.
    let of_one = letter.own_headers().any(|(name, _)| name == FOR_OPERATOR);
    let written_again = match failure {
        Some(_) => [REQUEUED_FROM, REQUEUED_REASON, FOR_OPERATOR, FOR_TRIGGER].as_slice(),
        None if of_one => &[REQUEUED_FROM, REQUEUED_REASON],
        None => &[REQUEUED_FROM, REQUEUED_REASON, VERDICT],
    };
    let passes = |name| written_again.contains(&name);
    let mut headers: Vec<(&str, &[u8])> =
        letter.own_headers().filter(|(name, _)| !passes(*name)).collect();
    headers.push((REQUEUED_FROM, trail.as_bytes()));
    headers.push((REQUEUED_REASON, reason.as_bytes()));
    if let Some(OperatorFailure { operator, trigger, .. }) = failure {
        headers.push((FOR_OPERATOR, operator.as_bytes()));
        headers.push((FOR_TRIGGER, trigger.as_str().as_bytes()));
    }
    let record = Body::new(letter.source_key(), letter.value(), &headers);
    let of_pack = letter.source_position().is_some_and(|from| from.entry.is_some());
    let body = if failure.is_some() || of_pack { pack_of_record(&record) } else { record };
    Outgoing { topic: to.topic.clone(), partition: to.partition, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::record::{Diagnosis, SourceAddress, dead_letter, dead_letter_of};
    use crate::fact_pack::decode;
    use crate::record::{Millis, Offset, Record, Topic};
    use crate::verdict::{Decision, TopicId, VerdictSource};

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
            ("t.in.internal", Some("t.in.internal")),
            ("t.lane.low", Some("t.in")),
            ("t.lane.facts", Some("t.lane.facts")),
            ("t.lane.facts.urgent", Some("t.lane.facts.urgent")),
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
    fn an_internal_event_that_failed_in_derive_goes_back_to_the_partition_it_came_from() {
        for (input, to) in [(2, ("t.in.internal", 1)), (1, ("t.in", 3))] {
            let (offset, zero) = (Offset(9), Offset(0));
            let source = VerdictSource {
                input,
                topic: TopicId(1),
                partition: Partition(1),
                offset,
                delivered_from: zero,
                delivered_to: zero,
            };
            let verdict = Verdict {
                decision: Decision::Passed,
                settings_hash: 0,
                control: zero,
                append_time: Millis(5),
                source,
                rules: Vec::new(),
            };
            let headers: &[(&str, &[u8])] = &[(VERDICT, &verdict.encode())];
            let body = Body::new(Some(b"k"), Some(b"v"), headers);
            let back = round(&at("t.lane.critical", 3), 7, &body).expect("requeued");
            assert_eq!((back.topic.as_str(), back.partition.0), to, "{input}");
        }
    }

    #[test]
    fn a_record_of_one_operator_keeps_its_verdict_although_the_operator_was_not_found() {
        let own = [(FOR_OPERATOR, &b"counter"[..]), (FOR_TRIGGER, b"event"), (VERDICT, b"v")];
        let body = Body::new(Some(b"k"), Some(b"v"), &own);
        let record = Record { offset: Offset(3), timestamp: Millis(5), body };
        let topology = Topology::new("t.", 4);
        let of_lane = at("t.lane.facts", 2);
        let from = SourceAddress { at: &of_lane, record: &record, entry: Some(6) };
        let diagnosis = Diagnosis { reason: "processing_failed", field: None, detail: "none" };
        let out = dead_letter_of(&topology, from, diagnosis);
        let stored = Record { offset: Offset(0), timestamp: Millis(6), body: out.body };
        let letter = DeadLetter::of(out.partition, stored);
        assert_eq!(letter.id(), "t.lane.facts/2/3/6");
        let to = destination(&topology, &letter).expect("back to the lane");
        let pack = requeued_record(&letter, &to).body.value_bytes().expect("a pack");
        let again = decode(&pack).expect("our own").remove(0).to_body();
        for (name, value) in own {
            assert_eq!(again.header(name), Some(value), "its append time is in the verdict");
        }
    }

    #[test]
    fn each_requeue_extends_the_trail_up_to_its_limit() {
        let own = [("trace", &b"t1"[..]), (VERDICT, b"12345678")];
        let mut body = Body::new(Some(b"k"), Some(b"\xff"), &own);
        for round_number in 0..20u64 {
            let out = round(&at("t.in", 2), round_number, &body).expect("back to the input");
            assert_eq!(out.body.key(), Some(&b"k"[..]));
            assert_eq!(out.body.value(), Some(&b"\xff"[..]));
            assert_eq!(out.body.header("trace"), Some(&b"t1"[..]));
            assert_eq!(out.body.header(VERDICT), None, "ADMIT writes its own");
            assert_eq!(out.body.header(REQUEUED_REASON), Some(&b"not_json"[..]));
            assert_eq!(out.body.headers().count(), 3, "no header is there twice");
            body = out.body;
        }
        let trail = crate::dead_letters::trail(body.header(REQUEUED_FROM).expect("a trail"));
        let expected: Vec<String> = (4..20).map(|n| format!("t.in/2/{n}")).collect();
        assert_eq!(trail, expected);
    }
}
