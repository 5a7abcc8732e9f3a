//! Receives the body of a request: claims each byte as it arrives and ends bodies that are slow.
//!
//! A body has a time limit and a minimum rate. The rate is checked over windows of a few seconds,
//! not since the start, so that a client can't send most of a body at once and hold it for long.
//! While the budget is short, a body that holds bytes and does not arrive is ended within a second.
//!
//! A body that ends before its time gives its bytes back through its permit.

use std::time::{Duration, Instant};

use axum::body::Body;
use http_body_util::BodyExt;
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::body_budget::{BodyPermit, BudgetExceeded, INGEST_BYTES_PER_ADDRESS};
use super::response::{ErrorResponse, HttpErrorCode};
use crate::socket::limits::{BODY_BYTES, BODY_BYTES_PER_S, RequestTimeouts};
use crate::{clock, telemetry};

/// How often the rate is checked while the budget is short: this often per window.
const CHECKS_PER_WINDOW: u32 = 10;

/// Bytes that arrived since a point in time.
struct Interval {
    begun: Instant,
    bytes: usize,
    length: Duration,
}

impl Interval {
    fn begin(length: Duration) -> Self {
        Self { begun: clock::now(), bytes: 0, length }
    }

    /// Whether it is over; `Some(false)` if too few bytes arrived in it. Then the next one begins.
    fn end(&mut self) -> Option<bool> {
        if self.begun.elapsed() < self.length {
            return None;
        }
        let is_fast_enough = self.bytes >= least_bytes(self.length);
        *self = Self::begin(self.length);
        Some(is_fast_enough)
    }
}

fn least_bytes(time: Duration) -> usize {
    let bytes = time.as_millis() * BODY_BYTES_PER_S as u128 / 1_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// When a body began and how fast it arrives.
struct Arrival {
    timeouts: RequestTimeouts,
    begun: Instant,
    window: Interval,
    /// The part of the window that counts while the budget is short.
    check: Interval,
}

impl Arrival {
    fn begin(timeouts: RequestTimeouts) -> Self {
        Self {
            timeouts,
            begun: clock::now(),
            window: Interval::begin(timeouts.body_window),
            check: Interval::begin(timeouts.body_window / CHECKS_PER_WINDOW),
        }
    }

    fn add(&mut self, bytes: usize) {
        self.window.bytes += bytes;
        self.check.bytes += bytes;
    }

    /// Fails if the body is too slow.
    fn check(&mut self, permit: &BodyPermit) -> Result<(), ErrorResponse> {
        let RequestTimeouts { body, body_window, .. } = self.timeouts;
        if self.begun.elapsed() >= body {
            let seconds = body.as_secs();
            return Err(too_slow(format!("the body did not arrive within {seconds} s")));
        }
        if self.check.end() == Some(false) && permit.bytes() > 0 && permit.is_budget_short() {
            telemetry::ingest_overloaded("stalled");
            return Err(ErrorResponse::overloaded(
                "too many bodies are being sent at once and this one stopped arriving; send it \
                 again after Retry-After",
            ));
        }
        if self.window.end() == Some(false) {
            return Err(too_slow(format!(
                "fewer than {} bytes of the body arrived within {} s",
                least_bytes(body_window),
                body_window.as_secs()
            )));
        }
        Ok(())
    }
}

fn too_slow(what: String) -> ErrorResponse {
    telemetry::connection_refused("slow_body");
    let message = format!("{what}; send it again, faster or in smaller parts");
    ErrorResponse::new(HttpErrorCode::Timeout, message)
}

impl From<BudgetExceeded> for ErrorResponse {
    fn from(exceeded: BudgetExceeded) -> Self {
        match exceeded {
            BudgetExceeded::Process => {
                telemetry::ingest_overloaded("bytes");
                Self::overloaded(
                    "too many bytes of events are being handled; send the request again after \
                     Retry-After",
                )
            }
            BudgetExceeded::Address => {
                telemetry::connection_refused("address_bytes");
                let message = format!(
                    "bodies of this address have reached their limit of {} MiB at once; wait for \
                     answers before sending more",
                    INGEST_BYTES_PER_ADDRESS >> 20
                );
                Self::new(ErrorCode::RateLimited, message)
            }
        }
    }
}

/// The whole body as it was sent. `permit` holds its bytes then.
pub(super) async fn receive(
    mut body: Body,
    timeouts: RequestTimeouts,
    permit: &mut BodyPermit,
) -> Result<Vec<u8>, ErrorResponse> {
    let mut arrival = Arrival::begin(timeouts);
    let mut whole = Vec::new();
    loop {
        // Frames that come without a pause would never let the time limit of `frame` pass, so the
        // rate is checked after each of them too.
        match tokio::time::timeout(arrival.check.length, body.frame()).await {
            Err(_) => {}
            Ok(None) => return Ok(whole),
            Ok(Some(frame)) => {
                let frame = frame.map_err(|_| {
                    let message = "the body ended before it was complete; send it again";
                    ErrorResponse::new(ErrorCode::InvalidMessage, message)
                })?;
                if let Ok(data) = frame.into_data() {
                    if whole.len() + data.len() > BODY_BYTES {
                        return Err(ErrorResponse::body_too_large());
                    }
                    permit.claim(data.len())?;
                    whole.extend_from_slice(&data);
                    arrival.add(data.len());
                }
            }
        }
        arrival.check(permit)?;
    }
}
