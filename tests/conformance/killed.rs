//! The clause about killed writers: a child writes and is killed at a random moment, fifty times.
//!
//! The child appends numbers outside transactions. It also writes transactions with records in two
//! partitions and a group's offset, and aborts every third. It prints a line *after* each
//! acknowledgement, so what it printed is a lower bound of what must be in the log; at most one
//! more of each kind may be there, complete.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidewire_engine::port::{Isolation, Log, TopicSpec};
use tidewire_engine::record::{Topic, TopicPartition};
use tidewire_tests::test_rng::TestRng;

use super::log_under_test::{
    Capability, FOR_EVER, LogUnderTest, TIMEOUT, at, committed, has_capability, member, names,
    progress, read, record, settle, topic, values,
};

const ROUNDS: u64 = 50;
const GROUP: &str = "killed";
const TRANSACTOR: &str = "killed";
const LOCATION: &str = "TIDEWIRE_TEST_PLACE";
const FIRST: &str = "TIDEWIRE_TEST_FIRST";
const TOPIC: &str = "TIDEWIRE_TEST_TOPIC";

/// The newest number of each kind that a child printed as acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    appended: Option<u64>,
    committed: Option<u64>,
}

/// The partitions: numbers outside transactions, and two halves of each transaction.
fn partitions(topic: &Topic) -> [TopicPartition; 3] {
    [at(topic, 0), at(topic, 1), at(topic, 2)]
}

/// The child: writes numbers from the first on, until it is killed.
pub(crate) fn write_until_killed<S: LogUnderTest>() {
    let Ok(location) = std::env::var(LOCATION) else { return };
    let first: u64 = std::env::var(FIRST).expect("given with the place").parse().expect("a number");
    let topic = Topic::new(std::env::var(TOPIC).expect("given with the place"));
    let log = S::open_in_child(&location);
    let [plain, left, right] = partitions(&topic);
    let mut only = member(&*log, GROUP, "child", std::slice::from_ref(&topic));
    settle(&mut [(&mut *only, &mut Vec::new())], &[&names(&[&topic], &[0, 1, 2])]);
    let mut appender = log.appender().expect("an appender");
    let mut transactor = log.transactor(TRANSACTOR).expect("a transactor");
    let say = |kind: char, n: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {kind} {n}").expect("the parent listens");
        out.flush().expect("the parent listens");
    };
    for n in first.. {
        appender.append(&[record(&plain, &n.to_string())]).expect("appended");
        say('a', n);
        let value = n.to_string();
        transactor.begin().expect("begun");
        let halves = [record(&left, &value), record(&right, &value), record(&left, &value)];
        transactor.append(&halves).expect("appended");
        transactor.drain().expect("drained");
        transactor
            .send_offsets(&only.token().expect("a token"), &progress(&plain, n))
            .expect("sent");
        if n % 3 == 0 {
            transactor.abort().expect("aborted");
        } else {
            transactor.commit().expect("committed");
            say('c', n);
        }
        only.changes().expect("still a member");
    }
}

/// The parent: starts, kills and checks each child.
pub(crate) fn kill_children<S: LogUnderTest>(child: &str) {
    if !has_capability::<S>(Capability::Kill) {
        return;
    }
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("repeat with TIDEWIRE_SEED={seed}");
    let mut rng = TestRng::new(seed);
    let mut subject = S::new();
    let topic = topic(&subject, "killed", (3, FOR_EVER));
    let id = topic_id(&*subject.log(), &topic);
    let (mut first, mut transactions) = (1, 0);
    for round in 0..ROUNDS {
        let location = subject.hand_to_child();
        let acks = one_child(child, [&location, &first.to_string(), topic.as_str()], &mut rng);
        subject.take_back();
        let log = subject.log();
        // The next owner ends what the killed process left open.
        drop(log.transactor(TRANSACTOR).expect("initialised"));
        assert_eq!(topic_id(&*log, &topic), id, "round {round}: nothing was lost");
        first = check(&*log, &topic, first, &acks).unwrap_or_else(|why| {
            panic!("round {round}: {why}; acknowledged: {acks:?}, seed {seed}")
        });
        transactions += u64::from(acks.committed.is_some());
    }
    assert!(transactions > ROUNDS / 4, "children were killed before they wrote: {transactions}");
}

fn topic_id(log: &dyn Log, topic: &Topic) -> u128 {
    let topics = log.topics().expect("topics");
    let found = topics.iter().find(|info| info.spec.topic == *topic).expect("the topic is there");
    let expected = TopicSpec { topic: topic.clone(), partitions: 3, cleanup: FOR_EVER };
    assert_eq!(found.spec, expected);
    found.id
}

/// Starts a child, kills it some milliseconds after its first line; returns what it acknowledged.
fn one_child(test: &str, [location, first, topic]: [&str; 3], rng: &mut TestRng) -> Acknowledged {
    // The path of a test has no crate name in it.
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .envs([(LOCATION, location), (FIRST, first), (TOPIC, topic)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout).lines();
    let mut acks = Acknowledged::default();
    let begun = Instant::now();
    while acks.appended.is_none() {
        assert!(begun.elapsed() < TIMEOUT, "the child prints nothing");
        match lines.next() {
            Some(Ok(line)) => parse_line(&mut acks, &line),
            _ => panic!("the child ended before it wrote: {:?}", child.wait()),
        }
    }
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| {
            for line in lines.map_while(Result::ok) {
                parse_line(&mut acks, &line);
            }
        });
        kill_after(&mut child, Duration::from_micros(rng.below(40_000)));
        rest.join().expect("the reading thread ends with the child");
    });
    acks
}

fn kill_after(child: &mut Child, time: Duration) {
    std::thread::sleep(time);
    child.kill().expect("SIGKILL");
    child.wait().expect("reaped");
}

/// Parses a line; an incomplete one is ignored.
fn parse_line(acks: &mut Acknowledged, line: &str) {
    // The test runner may have printed before it on the same line.
    let Some((_, word)) = line.rsplit_once("acknowledged ") else { return };
    let Some((kind, n)) = word.split_once(' ') else { return };
    let Ok(n) = n.parse() else { return };
    match kind {
        "a" => acks.appended = Some(n),
        "c" => acks.committed = Some(n),
        _ => {}
    }
}

/// Compares the log with what was acknowledged; returns the first number of the next child.
fn check(log: &dyn Log, topic: &Topic, first: u64, acks: &Acknowledged) -> Result<u64, String> {
    let [plain, left, right] = partitions(topic);
    let numbers = |at: &TopicPartition| -> Vec<u64> {
        let end = log.bounds(at, Isolation::Committed).expect("bounds");
        let found = values(&read(log, at, end.start.0));
        found.iter().map(|value| value.parse().expect("a number")).collect()
    };
    let appended = numbers(&plain);
    let last = appended.last().copied().unwrap_or(0);
    if !appended.iter().copied().eq(1..=last) {
        return Err(format!("numbers are missing or repeated up to {last}"));
    }
    let acknowledged = acks.appended.unwrap_or(0);
    if last < acknowledged || last > acknowledged + 1 {
        return Err(format!("appended up to {last}, acknowledged {acknowledged}"));
    }
    let (lefts, rights) = (numbers(&left), numbers(&right));
    if !rights.iter().flat_map(|n| [n, n]).eq(&lefts) {
        return Err("a transaction is incomplete".to_owned());
    }
    // Of this child's transactions the aborted ones must be missing, the acknowledged ones must be
    // there, and one more may be.
    let own: Vec<u64> = rights.iter().copied().filter(|n| *n >= first).collect();
    let asked = (first..=last).filter(|n| n % 3 != 0);
    if !own.iter().copied().eq(asked.clone().take(own.len())) {
        return Err(format!("an aborted transaction is there, or one is missing: {own:?}"));
    }
    let promised = acks.committed.unwrap_or(0);
    let acknowledged = asked.filter(|n| *n <= promised).count();
    if own.len() < acknowledged || own.len() > acknowledged + 1 {
        return Err(format!("committed {own:?}, acknowledged up to {promised}"));
    }
    let newest = rights.last().copied().unwrap_or(0);
    let stored = committed(log, GROUP, &plain).unwrap_or(0);
    if stored != newest {
        return Err(format!("the group is at {stored}, its transaction at {newest}"));
    }
    Ok(last + 1)
}
