//! Benchmark of the whole pipeline, from the post to the socket.
//!
//! Steady: one request (on Kafka: one record of a plain producer) per event on a fixed schedule,
//! every one to 50 subscribers, latency from the moment an event was due. Saturated: the mix of
//! `tidewire generate`, posted as fast as requests are answered; the clock stops when the last
//! expected event has reached the subscribers, who must have each once. CPU and memory are the
//! server's process alone.
//!
//! Each phase also prints how many partitions a transaction of DERIVE wrote to.
//!
//! On Kafka (`--log kafka`) the broker runs on the same machine; its append times give the share of
//! each stage, and the cost of the idle process is measured last.
//!
//! `bench-pipeline [--log embedded|kafka] [--warm-up 2] [--seconds 10] [--rate 1000]
//! [--subscribers 50] [--events 300000]`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

mod hops;
mod idle;
mod saturated;
mod steady;
mod transactions;

use std::io;
use std::process::ExitCode;

use tidewire_tests::broker::Broker;
use tidewire_tests::machine;
use tidewire_tests::server::Server;
use tidewire_tests::subscriber_pool::SubscriberEndpoint;

/// The account of all events.
const ACCOUNT: &str = "bench";

/// Size of the run.
struct Arguments {
    kafka: bool,
    /// Seconds of the steady schedule that are not measured: the first events find cold caches, and
    /// a broker's code is compiled while it runs.
    warm_up: u64,
    seconds: u64,
    rate: u64,
    subscribers: usize,
    events: u64,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("bench-pipeline: {why}");
            return ExitCode::from(2);
        }
    };
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        kafka: false,
        warm_up: 2,
        seconds: 10,
        rate: 1_000,
        subscribers: 50,
        events: 300_000,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        if word == "--log" {
            arguments.kafka = match value.as_str() {
                "kafka" => true,
                "embedded" => false,
                _ => return Err(format!("--log {value}: give embedded or kafka")),
            };
            continue;
        }
        let number: u64 = value.parse().map_err(|_| format!("{word} {value}: no number"))?;
        match word.as_str() {
            "--warm-up" => arguments.warm_up = number,
            "--seconds" => arguments.seconds = number,
            "--rate" => arguments.rate = number,
            "--subscribers" => arguments.subscribers = number as usize,
            "--events" => arguments.events = number,
            _ => {
                return Err(format!(
                    "{word}: unknown; see the top of tests/bench/pipeline/main.rs"
                ));
            }
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    println!("{}", machine::describe());
    if !arguments.kafka {
        println!("\n| embedded log | |\n|---|---:|");
        let server = Server::start(&[]);
        steady::run(arguments, &server, "post", steady::by_post(&server))?;
        drop(server);
        return saturated::run(arguments, &Server::start(&[]));
    }
    let broker = Broker::for_figures();
    println!("\n| Apache Kafka, one broker on the same machine | |\n|---|---:|");
    let server = on(&broker, "steady.");
    let pace = steady::by_producer(&broker.bootstrap(), "steady.")?;
    steady::run(arguments, &server, "produced", pace)?;
    hops::report(&broker.bootstrap(), "steady.")?;
    idle::run(arguments.seconds, &server, &broker)?;
    drop(server);
    saturated::run(arguments, &on(&broker, "saturated."))
}

/// Runs everything in one process, on topics of this prefix.
fn on(broker: &Broker, prefix: &str) -> Server {
    let log = format!("kafka://{}", broker.bootstrap());
    Server::start_as("dev", &["--log", &log], &[("TIDEWIRE_TOPICS_PREFIX", prefix)])
}

/// A subscriber of one channel, from `latest`.
fn endpoint(server: &Server, channel: &str, seq_marker: &'static str) -> SubscriberEndpoint {
    let subscribe = format!(r#"{{"op":"subscribe","id":1,"channel":"{channel}","from":"latest"}}"#);
    SubscriberEndpoint {
        addr: server.addr(),
        path: "/v1/ws?user=bench".to_owned(),
        greeting: Some((subscribe, r#""op":"ok""#)),
        seq_marker,
    }
}

/// One line of the table.
fn row(name: &str, value: f64) {
    let digits = if value >= 100.0 { 0 } else { 2 };
    println!("| {name} | {value:.digits$} |");
}
