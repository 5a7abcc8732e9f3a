//! Dead letters on Kafka, requeued by two processes at once that are killed again and again.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::dead_letters::{Filter, list};
use tidewire_engine::derive::{ChannelDelivery, dedup::Dedup};
use tidewire_engine::port::{Isolation, Log};
use tidewire_engine::record::{Partition, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_tests::broker;
use tidewire_tests::server::command;
use tidewire_tests::test_rng::TestRng;

use super::fixture::{TopicNamespace, serve};
use crate::dead_letters::fixture::{
    VerbOutput, append, check_delivered, dead_letter_record, delivered, wait_until,
};
use crate::dead_letters::operator::{Counting, FIXED, OperatorRound};

const PREFIX: &str = "letters.";
const DEAD_LETTERS: usize = 15_000;
const KILLS: usize = 5;

/// How long two concurrent requeues may take until one of them has made progress.
const ROUND_MAX: Duration = Duration::from_secs(60);

fn requeue(bootstrap: &str) -> Child {
    let mut command = command();
    command.args(["dead-letters", "requeue", "--all-open", "--log"]);
    command.arg(format!("kafka://{bootstrap}")).env("TIDEWIRE_TOPICS_PREFIX", PREFIX);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

#[test]
fn an_operator_that_fails_or_writes_too_much_gets_its_events_back_alone() {
    const PREFIX: &str = "operator.";
    const COUNTING: Counting = Counting(&FIXED[1]);
    let bootstrap = broker::shared().bootstrap();
    let topology = Topology::new(PREFIX, Topology::default().partitions());
    let log_at = || -> Arc<dyn Log> {
        let config = Config {
            wrapping: vec![topology.dead_letters().to_string()],
            ..Config::new(&bootstrap, PREFIX)
        };
        KafkaLog::open(config).expect("the configuration is right")
    };
    let log = log_at();
    for spec in topology.specs() {
        log.create(&spec).expect("a new topic");
    }
    drop(log);
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let address = format!("kafka://{bootstrap}");
    OperatorRound {
        topology: topology.clone(),
        open: &log_at,
        command: &|args| {
            let mut command = command();
            command.arg("dead-letters").args(args).args(["--log", &address]);
            let done = command.env("TIDEWIRE_TOPICS_PREFIX", PREFIX).output().expect("it starts");
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            VerbOutput {
                code: done.status.code(),
                out: text(&done.stdout),
                err: text(&done.stderr),
            }
        },
        operators: &[&Dedup, &COUNTING, &ChannelDelivery],
        fixed: &FIXED[1],
        state: dir.path(),
    }
    .check();
}

#[test]
fn killed_and_concurrent_requeues_deliver_once() {
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    eprintln!("repeat with TIDEWIRE_SEED={seed}");
    let mut rng = TestRng::new(seed);
    let bootstrap = broker::shared().bootstrap();
    let server = serve("dev", TopicNamespace::new(&bootstrap, PREFIX), "only");
    let topology = Topology::new(PREFIX, Topology::default().partitions());
    let log: Arc<dyn Log> =
        KafkaLog::open(Config::new(&bootstrap, PREFIX)).expect("the configuration is right");
    append(&*log, &(0..DEAD_LETTERS).map(|n| dead_letter_record(&topology, n)).collect::<Vec<_>>());
    let open = || list(&*log, &topology, &Filter::default()).expect("read").open().entries.len();
    let back = || {
        let end = |p| {
            let at = TopicPartition::new(topology.input(), Partition(p));
            log.bounds(&at, Isolation::Committed).expect("bounds").end.0
        };
        (0..topology.partitions()).map(end).sum::<u64>()
    };
    for _ in 0..KILLS {
        let before = back();
        let mut both = [requeue(&bootstrap), requeue(&bootstrap)];
        let begun = Instant::now();
        while begun.elapsed() < ROUND_MAX && back() == before {
            let ended = |child: &mut Child| child.try_wait().expect("it is our child").is_some();
            if both.iter_mut().all(ended) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(back() > before || open() == 0, "the requeues fenced each other for {ROUND_MAX:?}");
        std::thread::sleep(Duration::from_millis(rng.below(200)));
        for child in &mut both {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
        eprintln!("{} of {DEAD_LETTERS} requeued", back());
    }
    let left = open();
    eprintln!("{left} are open");
    assert!(left < DEAD_LETTERS, "the killed processes had begun to requeue");
    wait_until("one has finished", || {
        let begun = Instant::now();
        let done = requeue(&bootstrap).wait_with_output().expect("it is our child");
        let output = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        eprintln!("{output}in {:?}", begun.elapsed());
        done.status.success()
    });
    assert_eq!(open(), 0);
    wait_until("everything is delivered", || delivered(&*log, &topology) >= DEAD_LETTERS * 3);
    std::thread::sleep(Duration::from_secs(1));
    check_delivered(&*log, &topology, DEAD_LETTERS);
    drop(server);
}
