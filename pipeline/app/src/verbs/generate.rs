//! `tidewire generate`: writes synthetic events to standard output or sends them to a process.
//!
//! Without a rate it is as fast as the receiver; with one, events are sent when they are due, in
//! small groups, so that a high rate costs few wake-ups. The bytes depend only on the seed, not on
//! the rate or the grouping.

use std::time::Duration;

use crate::api_client::ApiClient;
use crate::cli::GenerateArgs;
use crate::process_exit::ProcessExit;
use crate::runtime::clock::{self, Pacer};
use crate::synthetic::Generator;
use crate::terminal;

/// The most events of a group.
const GROUP_EVENTS_MAX: u64 = 500;
/// How often a paced stream sends what is due.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// Generates events until there are `--count` of them, or until interrupted.
pub fn run(args: &GenerateArgs) -> Result<(), ProcessExit> {
    let client = args.url.as_deref().map(ApiClient::new).transpose()?;
    let mut generator = Generator::new(args.seed, &args.account);
    let pacer = args.rate.map(Pacer::new);
    let count = args.count.unwrap_or(u64::MAX);
    let mut group = String::new();
    while generator.made() < count {
        let due = match &pacer {
            None => count,
            Some(pacer) => wait_until_due(pacer, generator.made()).min(count),
        };
        let size = (due - generator.made()).min(GROUP_EVENTS_MAX);
        group.clear();
        for _ in 0..size {
            generator.next_line(&mut group);
            group.push('\n');
        }
        match &client {
            None => terminal::print_bytes(group.as_bytes())?,
            Some(client) => send(client, &group)?,
        }
    }
    if client.is_some() {
        terminal::print_line(&format!("{} accepted", generator.made()))?;
    }
    Ok(())
}

/// Waits until at least one more event is due, and returns how many are due by then.
fn wait_until_due(pacer: &Pacer, made: u64) -> u64 {
    clock::pause(pacer.until(made));
    loop {
        match pacer.due() {
            due if due > made => return due,
            _ => clock::pause(SEND_INTERVAL),
        }
    }
}

fn send(client: &ApiClient, group: &str) -> Result<(), ProcessExit> {
    let answers = client.send(group.as_bytes())?;
    match answers.into_iter().find_map(|answer| answer.error) {
        None => Ok(()),
        Some(refusal) => Err(ProcessExit::failed(format!(
            "a synthetic event was refused: {}: {}; the process may be of another version, or this \
             is a bug of the generator",
            refusal.reason, refusal.message
        ))),
    }
}
