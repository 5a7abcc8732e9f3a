//! The demo: synthetic events at a modest rate, sent to our own interface as any producer would.
//!
//! It takes the same road as everyone's events, HTTP included, so that what the page shows is the
//! pipeline and not a shortcut. A failed attempt is made again with the same bytes.

use std::time::Duration;

use tidewire_engine::port::Clock;

use crate::clock::{Pace, WallClock};
use crate::ending::{Ending, with_causes};
use crate::generate::Generator;
use crate::remote::Remote;
use crate::supervisor::Stop;
use crate::telemetry;

/// The account of the demo's events.
pub const ACCOUNT: &str = "demo";
/// The wait after an attempt that failed.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Feeds events until told to stop.
pub fn run(url: &str, rate_per_s: u32, stop: &Stop) -> Result<(), Ending> {
    let remote = Remote::new(url)?;
    // Each start is another history: the same ids again would be dropped as seen before.
    let seed = WallClock.now().0.unsigned_abs();
    let mut generator = Generator::new(seed, ACCOUNT);
    let pace = Pace::new(f64::from(rate_per_s));
    let mut group = String::new();
    while !stop.is_asked() {
        stop.pause(pace.until(generator.made()));
        let due = pace.due().saturating_sub(generator.made()).min(500);
        group.clear();
        for _ in 0..due {
            generator.next_line(&mut group);
            group.push('\n');
        }
        feed(&remote, &group, stop);
        telemetry::demo_fed(due);
    }
    Ok(())
}

fn feed(remote: &Remote, group: &str, stop: &Stop) {
    while !group.is_empty() && !stop.is_asked() {
        match remote.try_send(group.as_bytes()) {
            Ok(answers) => {
                for refusal in answers.into_iter().filter_map(|answer| answer.error) {
                    tracing::error!(reason = refusal.reason, refusal.message, "demo event refused");
                }
                return;
            }
            Err(_) if stop.is_asked() => return,
            Err(error) => {
                tracing::warn!(because = with_causes(&error), "the demo waits");
                stop.pause(RETRY_WAIT);
            }
        }
    }
}
