//! `tidewire generate`: synthetic events to standard output or into a running process.
//!
//! Without a rate it goes as fast as the other side takes; with one, events leave when they are due
//! by the clock, in small groups, so that a rate of thousands costs few wake-ups. The bytes depend
//! on the seed alone, never on the rate or on how the events were grouped.

use std::time::Duration;

use crate::cli::GenerateArgs;
use crate::clock::{self, Pace};
use crate::ending::Ending;
use crate::generate::Generator;
use crate::remote::Remote;
use crate::terminal;

/// Events that travel together at most.
const GROUP_EVENTS_MAX: u64 = 500;
/// How often a paced stream sends what is due.
const BEAT: Duration = Duration::from_millis(10);

/// Makes events until there were `--count` of them, or until interrupted.
pub fn run(args: &GenerateArgs) -> Result<(), Ending> {
    let remote = args.url.as_deref().map(Remote::new).transpose()?;
    let mut generator = Generator::new(args.seed, &args.account);
    let pace = args.rate.map(Pace::new);
    let count = args.count.unwrap_or(u64::MAX);
    let mut group = String::new();
    while generator.made() < count {
        let due = match &pace {
            None => count,
            Some(pace) => wait_until_due(pace, generator.made()).min(count),
        };
        let size = (due - generator.made()).min(GROUP_EVENTS_MAX);
        group.clear();
        for _ in 0..size {
            generator.next_line(&mut group);
            group.push('\n');
        }
        match &remote {
            None => terminal::pour(group.as_bytes())?,
            Some(remote) => send(remote, &group)?,
        }
    }
    if remote.is_some() {
        terminal::say(&format!("{} accepted", generator.made()))?;
    }
    Ok(())
}

/// Waits until at least one more event is due, and returns how many are due by then.
fn wait_until_due(pace: &Pace, made: u64) -> u64 {
    clock::pause(pace.until(made));
    loop {
        match pace.due() {
            due if due > made => return due,
            _ => clock::pause(BEAT),
        }
    }
}

fn send(remote: &Remote, group: &str) -> Result<(), Ending> {
    let answers = remote.send(group.as_bytes())?;
    match answers.into_iter().find_map(|answer| answer.error) {
        None => Ok(()),
        Some(refusal) => Err(Ending::failed(format!(
            "a synthetic event was refused, which is a bug of the generator or another version on \
             the other side: {}: {}",
            refusal.reason, refusal.message
        ))),
    }
}
