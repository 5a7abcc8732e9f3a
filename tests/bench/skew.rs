//! Benchmark of skew: what one busy account, or one popular post, costs everybody else.
//!
//! The others post 250 events/s by default, by 64 authors, each timed from when it was due to
//! its arrival at a subscriber. Beside them nine times as many events are posted:
//! in the *even* run likes of many posts by many accounts, in the *account* run all by one account,
//! in the *post* run likes of one post, which has a million likes already. The gate: the others'
//! p99 is at most 1.5 times that of the even run. It has processed those before it is measured.
//!
//! Every run has a server of its own, on the embedded log. Memory is the server's.
//!
//! `bench-skew [--rate 250] [--seconds 20] [--likes 1000000]`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::http::HttpClient;
use tidewire_tests::latency::Latencies;
use tidewire_tests::machine;
use tidewire_tests::process::usage;
use tidewire_tests::publisher::{LineEncoder, PostTarget, Schedule, pace};
use tidewire_tests::server::Server;
use tidewire_tests::subscriber_pool::{SubscriberEndpoint, SubscriberPool};

/// How often a part of the load is posted.
const LOAD_EVERY: Duration = Duration::from_millis(50);

/// Events of the load per event of the others: the load is 90 % of the traffic.
const LOAD_PER_EVENT: u64 = 9;

/// Accounts and posts of the even load.
const ACCOUNTS: u64 = 64;

/// Seconds before the latencies count.
const WARM_UP: u64 = 3;

/// How long a server must be idle, at less than a twentieth of a processor, before it is measured.
const IDLE_ROUND: Duration = Duration::from_secs(3);

/// Ten minutes.
const IDLE_ROUNDS_MAX: u32 = 200;

/// What the p99 of the others may be, as a multiple of that of the even run.
const P99_MAX_RATIO: f64 = 1.5;

/// Who sends the load, and what it concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Skew {
    Even,
    Account,
    Post,
}

impl Skew {
    fn name(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Account => "one account",
            Self::Post => "one post",
        }
    }

    /// A like with this number.
    fn line(self) -> LineEncoder {
        Arc::new(move |n, body| {
            let (account, post) = match self {
                Self::Even => (n % ACCOUNTS, n / ACCOUNTS % ACCOUNTS),
                Self::Account => (0, n % ACCOUNTS),
                Self::Post => (0, 0),
            };
            let event = format!(
                "{{\"event_id\":\"l-{n}\",\"event_type\":\"post.liked\",\
                 \"account_id\":\"load{account}\",\"data\":{{\"post_id\":\"p{post}\",\"user_id\":\"u{n}\",\"author_id\":\"a{post}\"}}}}"
            );
            body.extend_from_slice(event.as_bytes());
        })
    }
}

#[derive(Clone, Copy)]
struct Arguments {
    rate: u64,
    seconds: u64,
    likes: u64,
}

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1))
        .map_err(io::Error::other)
        .and_then(|arguments| measure(&arguments));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-skew: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { rate: 250, seconds: 20, likes: 1_000_000 };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number: u64 = value.parse().map_err(|_| format!("{word} {value}: no number"))?;
        match word.as_str() {
            "--rate" => arguments.rate = number,
            "--seconds" => arguments.seconds = number,
            "--likes" => arguments.likes = number,
            _ => return Err(format!("{word}: unknown; see the top of tests/bench/skew.rs")),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    println!("{}", machine::describe());
    println!(
        "{} events/s of others beside {} of the load, embedded log",
        arguments.rate,
        arguments.rate * LOAD_PER_EVENT
    );
    println!("\n| load | others' p50 ms | p99 ms | p99 to even | resident MiB |");
    println!("|---|---:|---:|---:|---:|");
    let mut even = None;
    for skew in [Skew::Even, Skew::Account, Skew::Post] {
        let (mut latencies, resident) = run(arguments, skew)?;
        let [p50, p99] = [50.0, 99.0].map(|p| latencies.percentile(p).as_secs_f64() * 1e3);
        let ratio = p99 / *even.get_or_insert(p99);
        let name = skew.name();
        println!("| {name} | {p50:.2} | {p99:.2} | {ratio:.2} | {resident:.0} |");
        if ratio > P99_MAX_RATIO {
            println!("\nmissed: the p99 beside {name} is {ratio:.2} times that of the even run");
        }
    }
    Ok(())
}

/// The latencies of the others and the server's memory in MiB.
fn run(arguments: &Arguments, skew: Skew) -> io::Result<(Latencies, f64)> {
    let server = Server::start(&[]);
    let load = PostTarget { addr: server.addr(), path: "/v1/events", line: skew.line() };
    if skew == Skew::Post {
        fill(&load, arguments.likes)?;
        wait_until_idle(&server)?;
    }
    let mut pool = SubscriberPool::connect(&endpoint(&server), 1, 1)?;
    let interval = Duration::from_secs(1) / u32::try_from(arguments.rate).unwrap_or(u32::MAX);
    let seconds = WARM_UP + arguments.seconds;
    let (rate, first) = (arguments.rate * LOAD_PER_EVENT, arguments.likes);
    let loader = thread::spawn(move || send_load(&load, first, (rate, seconds)));
    let others = PostTarget { addr: server.addr(), path: "/v1/events", line: others() };
    let mut follow = |first_seq, seconds| {
        let start = Instant::now() + interval;
        let schedule = Schedule { first_seq, count: arguments.rate * seconds, start, interval };
        let others = others.clone();
        let publisher = thread::spawn(move || pace(&others, schedule));
        let latencies = pool.follow(&schedule)?;
        publisher.join().expect("the publisher returns its errors")?;
        Ok::<_, io::Error>(latencies)
    };
    follow(0, WARM_UP)?;
    let latencies = follow(arguments.rate * WARM_UP, arguments.seconds)?;
    loader.join().expect("the loader returns its errors")?;
    let expected = arguments.rate * arguments.seconds;
    if latencies.count() as u64 != expected {
        let text = format!("expected {expected} events, delivered {}", latencies.count());
        return Err(io::Error::other(text));
    }
    Ok((latencies, usage(server.pid())?.resident_bytes as f64 / f64::from(1 << 20)))
}

/// Posts this many events of the load as fast as the server takes them.
fn fill(load: &PostTarget, count: u64) -> io::Result<()> {
    let mut client = HttpClient::connect(load.addr)?;
    let mut done = 0;
    while done < count {
        let batch = 500.min(count - done);
        post(&mut client, load, (done, batch))?;
        done += batch;
    }
    Ok(())
}

/// Waits until the server has processed what was posted, and its upkeep has nothing to do.
fn wait_until_idle(server: &Server) -> io::Result<()> {
    for _ in 0..IDLE_ROUNDS_MAX {
        let before = usage(server.pid())?.cpu;
        thread::sleep(IDLE_ROUND);
        if usage(server.pid())?.cpu.saturating_sub(before) < IDLE_ROUND / 20 {
            return Ok(());
        }
    }
    Err(io::Error::other("the server has not processed the likes in ten minutes"))
}

/// Posts the load at its rate for some seconds.
fn send_load(load: &PostTarget, first: u64, (rate, seconds): (u64, u64)) -> io::Result<()> {
    let mut client = HttpClient::connect(load.addr)?;
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let batch = 500.min(due - sent);
            post(&mut client, load, (first + sent, batch))?;
            sent += batch;
        }
        thread::sleep(LOAD_EVERY);
    }
    Ok(())
}

fn post(client: &mut HttpClient, load: &PostTarget, (first, count): (u64, u64)) -> io::Result<()> {
    let mut body = Vec::new();
    for n in first..first + count {
        (load.line)(n, &mut body);
        body.push(b'\n');
    }
    loop {
        let response = client.post(load.path, "application/x-ndjson", &body)?;
        match response.status {
            202 => return Ok(()),
            // Full: a producer must wait and send again.
            429 | 503 => thread::sleep(Duration::from_millis(5)),
            status => return Err(io::Error::other(format!("{status}: {}", response.text()))),
        }
    }
}

/// The posts of the others.
fn others() -> LineEncoder {
    Arc::new(|seq, body| {
        let author = seq % ACCOUNTS;
        let event = format!(
            "{{\"event_id\":\"o-{seq}\",\"event_type\":\"post.created\",\"account_id\":\"others\",\
             \"data\":{{\"post_id\":\"o{seq}\",\"author_id\":\"a{author}\",\
             \"text\":\"the tide comes in\",\"seq\":\"{seq:010}\"}}}}"
        );
        body.extend_from_slice(event.as_bytes());
    })
}

/// A subscriber of the others' timeline.
fn endpoint(server: &Server) -> SubscriberEndpoint {
    let subscribe = r#"{"op":"subscribe","id":1,"channel":"timeline:others","from":"latest"}"#;
    SubscriberEndpoint {
        addr: server.addr(),
        path: "/v1/ws?user=bench".to_owned(),
        greeting: Some((subscribe.to_owned(), r#""op":"ok""#)),
        seq_marker: "\"seq\":\"",
    }
}
