//! Sends synthetic events to this process over HTTP, at a low rate, for the demo.
//!
//! They enter through `POST /v1/events` like those of any producer, so the web page shows the whole
//! pipeline. A failed request is repeated with the same bytes until the process stops.

use std::time::Duration;

use tidewire_engine::port::Clock;

use crate::api_client::ApiClient;
use crate::process_exit::{ProcessExit, with_causes};
use crate::runtime::clock::{Pacer, SystemClock};
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::telemetry;
use crate::synthetic::Generator;

/// The account of the demo's events.
pub const ACCOUNT: &str = "demo";
/// The wait after a failed request.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Sends events until asked to stop.
pub fn run(url: &str, rate_per_s: u32, stop: &StopSignal) -> Result<(), ProcessExit> {
    let client = ApiClient::new(url)?;
    // A new seed for each start: the same ids again would be dropped as duplicates.
    let seed = SystemClock.now().0.unsigned_abs();
    let mut generator = Generator::new(seed, ACCOUNT);
    let pacer = Pacer::new(f64::from(rate_per_s));
    let mut group = String::new();
    while !stop.is_requested() {
        stop.pause(pacer.until(generator.made()));
        let due = pacer.due().saturating_sub(generator.made()).min(500);
        group.clear();
        for _ in 0..due {
            generator.next_line(&mut group);
            group.push('\n');
        }
        feed(&client, &group, stop);
        telemetry::demo_events_sent(due);
    }
    Ok(())
}

fn feed(client: &ApiClient, group: &str, stop: &StopSignal) {
    while !group.is_empty() && !stop.is_requested() {
        match client.try_send(group.as_bytes()) {
            Ok(answers) => {
                for refusal in answers.into_iter().filter_map(|answer| answer.error) {
                    tracing::error!(reason = refusal.reason, refusal.message, "demo event refused");
                }
                return;
            }
            Err(_) if stop.is_requested() => return,
            Err(error) => {
                tracing::warn!(
                    because = with_causes(&error),
                    "the demo could not send; trying again"
                );
                stop.pause(RETRY_WAIT);
            }
        }
    }
}
