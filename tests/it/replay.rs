//! `tidewire replay verify` with the real binary on the embedded log.
//!
//! Verifies a history with a `kill -9`, from its start and from a checkpoint, and a log with one
//! changed byte.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_connectors::rocks::{Checkpoint, checkpoints};
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::port::{Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::TopicId;
use tidewire_tests::server::{Server, command};

use crate::dead_letters::fixture::{open, read, wait_until};

/// Events before the process is killed, and again after it.
const EVENTS: usize = 1_500;

/// Channels that carry one of our events.
const CHANNELS: usize = 3;

/// The verb's output and exit code.
pub(crate) struct VerifyOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl VerifyOutput {
    /// The sum of the numbers before this word, over all lines.
    pub(crate) fn sum(&self, word: &str) -> usize {
        let before = |line: &str| {
            let text = line.split_once(word).map_or("", |(before, _)| before);
            text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        self.out.lines().map(before).sum::<usize>()
    }
}

pub(crate) fn verify(data: &Path, args: &[&str], prefix: &str) -> VerifyOutput {
    let mut command = command();
    command.args(["replay", "verify", "--data-dir"]).arg(data).args(args);
    command.env("TIDEWIRE_TOPICS_PREFIX", prefix).stdin(Stdio::null());
    let output = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    let output = VerifyOutput {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    eprintln!("{:?} {:?}\n{}{}", args, output.code, output.out, output.err);
    output
}

fn produce(server: &Server, numbers: std::ops::Range<usize>) {
    let line = |n: usize| {
        let author = format!("k{}", n % 40);
        serde_json::json!({
            "event_id": format!("e-{n}"),
            "event_type": "post.created",
            "account_id": "acc",
            "priority": n / 40 % 4,
            "key": author,
            "data": {"post_id": format!("p{n}"), "author_id": author, "text": n.to_string()},
        })
        .to_string()
    };
    let text: String = numbers.map(|n| line(n) + "\n").collect();
    let file = server.data_dir().join("events.ndjson");
    std::fs::write(&file, text).expect("the folder can be written");
    let (status, output) = server.run_verb(&["produce", &file.to_string_lossy()], None);
    assert!(status.success(), "{output}");
}

/// Waits until this many events are in channels.
pub(crate) fn wait_for_outputs(server: &Server, count: usize) {
    wait_until("everything came out", || {
        let stats = server.http().get("/v1/stats").expect("it answers").json();
        let topics = stats["topics"].as_array().expect("topics").iter();
        let outs = topics.filter(|t| {
            ["tw.out.stream", "tw.out.urgent"].contains(&t["topic"].as_str().expect("a name"))
        });
        let ends = outs.flat_map(|t| t["offsets"].as_array().expect("offsets"));
        ends.map(|bounds| bounds[1].as_u64().expect("an end") as usize).sum::<usize>() >= count
    });
}

pub(crate) fn kept(data: &Path) -> Vec<(u32, Checkpoint)> {
    let of = |p| {
        let kept = checkpoints(&data.join("state"), Partition(p)).expect("the folder can be read");
        kept.into_iter().map(move |kept| (p, kept))
    };
    (0..Topology::default().partitions()).flat_map(of).collect()
}

/// The end of every partition, and what DERIVE's group has committed.
fn trace(data: &Path) -> String {
    let (log, topology) = (open(data), Topology::default());
    let mut text = String::new();
    for info in log.topics().expect("topics") {
        for p in (0..info.spec.partitions).map(Partition) {
            let at = TopicPartition::new(&info.spec.topic, p);
            let bounds = log.bounds(&at, Isolation::Uncommitted).expect("bounds");
            let committed =
                log.committed(&topology.derive_group(), std::slice::from_ref(&at)).expect("answer");
            text.push_str(&format!("{at}: {bounds:?} {committed:?}\n"));
        }
    }
    text
}

#[test]
fn a_history_with_a_kill_replays_whole_and_from_a_checkpoint() {
    let mut server = Server::start(&[]);
    let data = server.data_dir();
    produce(&server, 0..EVENTS);
    wait_for_outputs(&server, EVENTS * CHANNELS);
    // The first one of a task may be of its empty store. One that is kept now has transactions
    // after it.
    let begun = || kept(&data).into_iter().find(|(_, kept)| kept.order.0 > 0);
    wait_until("a checkpoint is kept", || begun().is_some());
    let (task, checkpoint) = begun().expect("it was there");
    server.kill9();
    server.restart();
    produce(&server, EVENTS..2 * EVENTS);
    wait_for_outputs(&server, 2 * EVENTS * CHANNELS);
    let output = verify(&data, &[], "tw.");
    assert_eq!(output.code, Some(1), "a log in use is not opened");
    assert!(output.err.contains("in use by another process"), "{}", output.err);
    server.stop();

    let before = trace(&data);
    let whole = verify(&data, &[], "tw.");
    assert_eq!(whole.code, Some(0));
    assert_eq!(whole.out.lines().filter(|line| line.contains(": identical")).count(), 8);
    // And a copy for the operators that keep the author of the post.
    assert_eq!(whole.sum(" outputs"), 2 * EVENTS * (CHANNELS + 1));
    assert!(whole.sum(" records") >= 2 * EVENTS, "ADMIT may have written some twice");

    let (task, from) = (task.to_string(), checkpoint.order.0.to_string());
    let part = verify(&data, &["--task", &task, "--from", &from], "tw.");
    assert_eq!(part.code, Some(0));
    assert!(part.out.contains(&format!("from the checkpoint at {from})")), "{}", part.out);
    assert!(part.sum(" transactions") > 0, "there are transactions after the checkpoint");
    let none = verify(&data, &["--task", &task, "--from", "2100-01-01T00:00:00Z"], "tw.");
    assert_eq!((none.code, none.sum(" transactions")), (Some(0), 0));
    assert_eq!(before, trace(&data), "a replay changes nothing in the log");
    let scratch = std::fs::read_dir(data.join("replay")).expect("its folder").count();
    assert_eq!(scratch, 1, "only the lock is left of its own files");

    check_usage(&data);
    check_damage(&data);
}

fn check_usage(data: &Path) {
    for (args, says) in [
        (&["--task", "8"][..], "there is no task 8"),
        (&["--from", "yesterday"], "--from: \"yesterday\" is neither"),
        (&["--task", "0", "--from", "99999999"], "tw.order/0 ends at"),
    ] {
        let output = verify(data, args, "tw.");
        assert_eq!(output.code, Some(2), "{args:?}");
        assert!(output.err.contains(says), "{args:?}: {}", output.err);
    }
}

/// A clock that tests set.
struct RecordedClock(AtomicI64);

impl Clock for RecordedClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
}

/// The ids of the lanes' topics.
fn lane_ids(log: &dyn Log, topology: &Topology) -> [TopicId; Lane::COUNT] {
    let topics = log.topics().expect("a new log");
    Lane::ALL.map(|lane| {
        let found = topics.iter().find(|info| info.spec.topic == *topology.lane(lane));
        TopicId::of(found.expect("it was created"))
    })
}

/// Copies every record to a new log, at the same offsets and times, one with a changed byte. Only
/// the ids of the topics differ, so the order records get those of the copy. `state` stays empty:
/// compaction has left holes in it, which no log can be given. A replay compares only what
/// compaction has left.
fn copy_with_damage(from: &Path, to: &Path, damaged: (&TopicPartition, Offset)) {
    let (log, topology) = (open(from), Topology::default());
    let clock = Arc::new(RecordedClock(AtomicI64::new(0)));
    let copy = EmbeddedLog::open(Config::new(to.join("log")), clock.clone()).expect("a new log");
    let mut appender = copy.appender().expect("an appender");
    for spec in topology.specs() {
        copy.create(&spec).expect("a new topic");
    }
    let lane_ids = lane_ids(&*copy, &topology);
    for spec in topology.specs() {
        if spec.topic == *topology.state() {
            continue;
        }
        for (at, record) in read(&*log, &topology, &spec.topic) {
            let mut body = record.body.clone();
            if spec.topic == *topology.order() {
                let order = OrderRecord::decode(body.value().expect("an order record"));
                let order = OrderRecord { lane_ids, ..order.expect("of this build") };
                body = Body::new(body.key(), Some(&order.encode()), &[]);
            }
            if (&at, record.offset) == damaged {
                let mut value = body.value().expect("an event").to_vec();
                let last = value.len() - 2;
                value[last] ^= 1;
                body = Body::new(body.key(), Some(&value), &[]);
            }
            clock.0.store(record.timestamp.0, Ordering::Relaxed);
            let outgoing = Outgoing { topic: at.topic, partition: at.partition, body };
            let offsets = appender.append(&[outgoing]).expect("appended");
            assert_eq!(offsets, [record.offset], "offsets are the same");
        }
    }
}

fn check_damage(data: &Path) {
    let topology = Topology::default();
    let (at, offset) = {
        let outputs = read(&*open(data), &topology, topology.out_stream());
        let (at, record) = &outputs[outputs.len() / 2];
        (at.clone(), record.offset)
    };
    let other = tempfile::tempdir().expect("the temporary folder can be written");
    copy_with_damage(data, other.path(), (&at, offset));
    let output = verify(other.path(), &[], "tw.");
    assert_eq!(output.code, Some(1));
    let differing: Vec<&str> =
        output.out.lines().filter(|l| l.contains(": differs after")).collect();
    assert_eq!(differing.len(), 1, "one task wrote it: {differing:?}");
    let nearest = format!("nearest is {at}/{} (bytes that differ: 1, the first at", offset.0);
    assert!(differing[0].contains(&nearest), "{} says {nearest:?}", differing[0]);
    assert!(output.err.contains("1 of 8 tasks differ"), "{}", output.err);
}
