//! Benchmark of skew: what one busy account, or one popular post, costs everybody else.
//!
//! The others post 250 events/s by default, by 64 authors, each timed from when it was due to
//! its arrival at a subscriber. Beside them nine times as many events are posted:
//! in the *even* run likes of many posts by many accounts, in the *account* run all by one account,
//! in the *post* run likes of one post, which has a million likes already. The gate: the others'
//! p99 is at most 1.5 times that of the even run. It has processed those before it is measured.
//!
//! With `--users` instead of a busy account or post: the state of so many users, then a load of
//! acts of any of them, beside the even run. It prints how fast the state is made, and its size.
//!
//! Every run has a server of its own, on the embedded log. Memory is the server's.
//!
//! `bench-skew [--rate 250] [--seconds 20] [--likes 1000000] [--users 1000000]`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

mod idle;
mod load;
mod users;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::latency::Latencies;
use tidewire_tests::machine;
use tidewire_tests::process::usage;
use tidewire_tests::publisher::{LineEncoder, PostTarget, Schedule, pace};
use tidewire_tests::server::Server;
use tidewire_tests::subscriber_pool::{SubscriberEndpoint, SubscriberPool};

use crate::idle::wait_until_idle;
use crate::load::{ACCOUNTS, Skew, fill, send_load};
use crate::users::StateOfUsers;

/// Events of the load per event of the others: the load is 90 % of the traffic.
const LOAD_PER_EVENT: u64 = 9;

/// Seconds before the latencies count.
const WARM_UP: u64 = 3;

/// What the p99 of the others may be, as a multiple of that of the even run.
const P99_MAX_RATIO: f64 = 1.5;

#[derive(Clone, Copy)]
struct Arguments {
    rate: u64,
    seconds: u64,
    likes: u64,
    /// Measure the state of this many users.
    users: Option<u64>,
}

/// What one run gives.
struct SkewRun {
    /// Of the others.
    latencies: Latencies,
    resident_mib: f64,
    made: Option<StateOfUsers>,
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
    let mut arguments = Arguments { rate: 250, seconds: 20, likes: 1_000_000, users: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number: u64 = value.parse().map_err(|_| format!("{word} {value}: no number"))?;
        match word.as_str() {
            "--rate" => arguments.rate = number,
            "--seconds" => arguments.seconds = number,
            "--likes" => arguments.likes = number,
            "--users" => {
                let users = Some(number).filter(|users| *users >= 2);
                arguments.users = Some(users.ok_or("--users needs a number from 2")?);
            }
            _ => return Err(format!("{word}: unknown; see the top of tests/bench/skew/main.rs")),
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
    let (mut even, mut states) = (None, Vec::new());
    let skews = match arguments.users {
        Some(users) => vec![Skew::Even, Skew::Users(users)],
        None => vec![Skew::Even, Skew::Account, Skew::Post],
    };
    for skew in skews {
        let SkewRun { mut latencies, resident_mib, made } = run(arguments, skew)?;
        states.extend(made);
        let [p50, p99] = [50.0, 99.0].map(|p| latencies.percentile(p).as_secs_f64() * 1e3);
        let ratio = p99 / *even.get_or_insert(p99);
        let name = skew.name();
        println!("| {name} | {p50:.2} | {p99:.2} | {ratio:.2} | {resident_mib:.0} |");
        if ratio > P99_MAX_RATIO {
            println!("\nmissed: the p99 beside {name} is {ratio:.2} times that of the even run");
        }
    }
    states.iter().for_each(StateOfUsers::report);
    Ok(())
}

fn run(arguments: &Arguments, skew: Skew) -> io::Result<SkewRun> {
    let server = Server::start(&[]);
    let load = PostTarget { addr: server.addr(), path: "/v1/events", line: skew.line() };
    let made = match skew {
        Skew::Even | Skew::Account => None,
        Skew::Post => {
            fill(&load, arguments.likes)?;
            wait_until_idle(&server)?;
            None
        }
        Skew::Users(users) => Some(users::make(&server, users)?),
    };
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
    let resident_mib = usage(server.pid())?.resident_bytes as f64 / f64::from(1 << 20);
    Ok(SkewRun { latencies, resident_mib, made })
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
