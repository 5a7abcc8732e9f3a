//! The soak test: kills roles at random moments under load and checks all outputs after each round.
//!
//! Each event must be delivered once to each of its channels, in order per key and lane.
//!
//! `soak [--kills 1000] [--seed 1] [--log kafka|embedded|both]`. A round is at most fifty kills on
//! topics of its own; its moments follow from the seed and its number. Progress is kept in the
//! cache folder, so the same command continues there; another seed starts from the beginning. A
//! failed round ends the soak with the command that repeats it (`--round N` runs only that round).

#![expect(clippy::print_stdout, reason = "it prints its progress")]

mod embedded;
#[path = "../it/kafka/fixture.rs"]
mod fixture;
mod kafka;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use tidewire_tests::test_rng::TestRng;

/// Kills per round: few enough to find the one that caused a failure.
const KILLS_PER_ROUND: usize = 50;

/// Longest time between kills: some come right after a start, some after stores were written.
const LIFE_MS_MAX: u64 = 1_500;

struct Arguments {
    kills: usize,
    seed: u64,
    logs: Vec<&'static str>,
    /// Only this round.
    round: Option<usize>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(arguments) => {
            arguments.logs.iter().for_each(|log| soak(log, &arguments));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("soak: {why}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let logs = vec!["embedded", "kafka"];
    let mut arguments = Arguments { kills: 1_000, seed: 1, logs, round: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = value.parse::<usize>().map_err(|_| format!("{word} {value}: no number"));
        match word.as_str() {
            "--kills" => arguments.kills = number?,
            "--seed" => arguments.seed = number? as u64,
            "--round" => arguments.round = Some(number?),
            "--log" if value == "both" => {}
            "--log" => {
                arguments.logs.retain(|log| *log == value);
                if arguments.logs.is_empty() {
                    return Err(format!("--log {value}: give kafka, embedded or both"));
                }
            }
            _ => return Err(format!("{word}: unknown; see the top of tests/soak/main.rs")),
        }
    }
    Ok(arguments)
}

/// Runs rounds on one log until there were enough kills. A failed round panics.
fn soak(log: &str, arguments: &Arguments) {
    let Arguments { kills, seed, round, .. } = *arguments;
    let mut done =
        round.map_or_else(|| progress(log, seed).min(kills), |round| round * KILLS_PER_ROUND);
    let until = round.map_or(kills, |round| round * KILLS_PER_ROUND + kills.min(KILLS_PER_ROUND));
    while done < until {
        let (round, kills) = (done / KILLS_PER_ROUND, KILLS_PER_ROUND.min(until - done));
        println!("{log}: {done} of {until} kills; if the next {kills} fail, this repeats them:");
        println!("  make soak ARGS=\"--log {log} --seed {seed} --round {round} --kills {kills}\"");
        // Adjacent rounds must not share random numbers.
        let rng = TestRng::new(seed ^ (round as u64).wrapping_mul(0xD134_2543_DE82_EF95));
        let numbers = match log {
            "kafka" => kafka::round(rng, kills),
            _ => embedded::round(rng, kills),
        };
        done += kills;
        if arguments.round.is_none() {
            fs::write(progress_file(log), format!("{seed} {done}"))
                .expect("the cache can be written");
        }
        println!("{log}: {numbers} events, each delivered once and in order");
    }
    println!("{log}: {done} kills with seed {seed} are done; use another seed for more");
}

/// Kills done with this seed.
fn progress(log: &str, seed: u64) -> usize {
    let text = fs::read_to_string(progress_file(log)).unwrap_or_default();
    let mut words = text.split(' ');
    let same = words.next().and_then(|word| word.parse().ok()) == Some(seed);
    let done = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    if same { done } else { 0 }
}

fn progress_file(log: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("TIDEWIRE_CACHE").unwrap_or_else(|| {
        let home = || variable("HOME").unwrap_or_default().join(".cache");
        variable("XDG_CACHE_HOME").unwrap_or_else(home).join("tidewire")
    });
    fs::create_dir_all(&cache).expect("the cache can be written");
    cache.join(format!("soak-{log}"))
}
