//! The steady phase: latency at a fixed rate.
//!
//! The posts have 64 authors, so that every lane partition has its share, and all are delivered to
//! every subscriber of one timeline.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::process::usage;
use tidewire_tests::publisher::{LineEncoder, PostTarget, Schedule, pace};
use tidewire_tests::server::Server;
use tidewire_tests::subscriber_pool::SubscriberPool;

use crate::{ACCOUNT, Arguments, endpoint, row, transactions};

/// Authors the posts are spread over.
const AUTHORS: u64 = 64;

/// How long the last records of a schedule may take to be acknowledged.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// Sends the events of a schedule, each when it is due.
pub(crate) type SchedulePublisher = Arc<dyn Fn(Schedule) -> io::Result<()> + Send + Sync>;

/// One request per event.
pub(crate) fn by_post(server: &Server) -> SchedulePublisher {
    let target = PostTarget { addr: server.addr(), path: "/v1/events", line: posts() };
    Arc::new(move |schedule| pace(&target, schedule))
}

/// One record per event, by a plain producer of Kafka.
pub(crate) fn by_producer(bootstrap: &str, prefix: &str) -> io::Result<SchedulePublisher> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .map_err(io::Error::other)?;
    let (topic, line) = (format!("{prefix}in"), posts());
    Ok(Arc::new(move |schedule| {
        let mut body = Vec::new();
        for seq in schedule.first_seq..schedule.first_seq + schedule.count {
            let due = schedule.intended(seq).expect("a number of the schedule");
            thread::sleep(due.saturating_duration_since(Instant::now()));
            body.clear();
            line(seq, &mut body);
            let key = format!("a{}", seq % AUTHORS);
            let sent = producer.send(BaseRecord::to(&topic).key(&key).payload(&body));
            sent.map_err(|(error, _)| io::Error::other(error))?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(FLUSH_LIMIT).map_err(io::Error::other)
    }))
}

pub(crate) fn run(
    arguments: &Arguments,
    server: &Server,
    from: &str,
    pace: SchedulePublisher,
) -> io::Result<()> {
    let endpoint = endpoint(server, &format!("timeline:{ACCOUNT}"), "\"seq\":\"");
    let mut pool =
        SubscriberPool::connect(&endpoint, arguments.subscribers, arguments.subscribers)?;
    let interval = Duration::from_secs(1) / u32::try_from(arguments.rate).unwrap_or(u32::MAX);
    let mut follow = |first_seq: u64, seconds: u64| {
        let count = arguments.rate * seconds;
        let start = Instant::now() + interval;
        let schedule = Schedule { first_seq, count, start, interval };
        let pace = Arc::clone(&pace);
        let publisher = thread::spawn(move || pace(schedule));
        let latencies = pool.follow(&schedule)?;
        publisher.join().expect("the publisher returns its errors")?;
        let expected = count * arguments.subscribers as u64;
        let delivered = latencies.count() as u64;
        if (delivered, pool.repeated()) != (expected, 0) {
            let repeated = pool.repeated();
            let text = format!("expected {expected}, delivered {delivered}, repeated {repeated}");
            return Err(io::Error::other(text));
        }
        Ok(latencies)
    };
    follow(0, arguments.warm_up)?;
    let before = usage(server.pid())?;
    let committed = transactions::read(server)?;
    let mut latencies = follow(arguments.rate * arguments.warm_up, arguments.seconds)?;
    let cpu = usage(server.pid())?.cpu - before.cpu;
    let deliveries = latencies.count() as f64;
    let events = deliveries / arguments.subscribers as f64;
    let millis = |latency: Duration| latency.as_secs_f64() * 1e3;
    println!("| {} events/s to {} subscribers | |", arguments.rate, arguments.subscribers);
    row(&format!("{from} to socket, p50 ms"), millis(latencies.percentile(50.0)));
    row(&format!("{from} to socket, p99 ms"), millis(latencies.percentile(99.0)));
    row("CPU µs per event, its deliveries included", cpu.as_secs_f64() * 1e6 / events);
    transactions::report(server, &committed)?;
    row("expected = delivered", deliveries);
    Ok(())
}

fn posts() -> LineEncoder {
    Arc::new(|seq, body| {
        let author = seq % AUTHORS;
        let event = format!(
            "{{\"event_id\":\"s-{seq}\",\"event_type\":\"post.created\",\
             \"account_id\":\"{ACCOUNT}\",\"data\":{{\"post_id\":\"p{seq}\",\
             \"author_id\":\"a{author}\",\"text\":\"the tide comes in\",\"seq\":\"{seq:010}\"}}}}"
        );
        body.extend_from_slice(event.as_bytes());
    })
}
