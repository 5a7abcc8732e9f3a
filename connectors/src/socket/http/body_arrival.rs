//! Receives the body of a request: claims each byte as it arrives and ends bodies that are slow.
//!
//! A body has a time limit and a minimum rate. The rate is checked over windows of a few seconds,
//! not since the start, so that a client can't send most of a body at once and hold it for long.
//! While the budget is short, a body has to arrive at a rate in proportion to the bytes it holds.
//!
//! A body that ends before its time gives its bytes back through its permit.

use std::time::Instant;

use axum::body::Body;
use http_body_util::BodyExt;
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::body_budget::{BodyPermit, BudgetExceeded, INGEST_BYTES_PER_ADDRESS};
use super::response::{ErrorResponse, HttpErrorCode};
use super::transfer_rate::{RateInterval, least_bytes};
use crate::socket::limits::{BODY_BYTES, BODY_BYTES_PER_S, RequestTimeouts};
use crate::{clock, telemetry};

/// When a body began and how fast it arrives.
struct Arrival {
    timeouts: RequestTimeouts,
    begun: Instant,
    window: RateInterval,
    /// The part of the window that counts while the budget is short.
    check: RateInterval,
}

impl Arrival {
    fn begin(timeouts: RequestTimeouts) -> Self {
        Self {
            timeouts,
            begun: clock::now(),
            window: RateInterval::begin(timeouts.body_window),
            check: RateInterval::begin(timeouts.rate_check()),
        }
    }

    fn add(&mut self, bytes: usize) {
        self.window.add(bytes);
        self.check.add(bytes);
    }

    /// Fails if the body is too slow.
    fn check(&mut self, permit: &BodyPermit) -> Result<(), ErrorResponse> {
        let RequestTimeouts { body, body_window, .. } = self.timeouts;
        if self.begun.elapsed() >= body {
            let seconds = body.as_secs();
            return Err(too_slow(format!("the body did not arrive within {seconds} s")));
        }
        if self.check.end(permit.least_bytes_per_s()) == Some(false) {
            telemetry::ingest_overloaded("stalled");
            return Err(ErrorResponse::overloaded(
                "too many bodies are being sent at once and this one arrives too slowly for the \
                 memory it holds; send it again after Retry-After, or in smaller parts",
            ));
        }
        if self.window.end(BODY_BYTES_PER_S) == Some(false) {
            return Err(too_slow(format!(
                "fewer than {} bytes of the body arrived within {} s",
                least_bytes(body_window, BODY_BYTES_PER_S),
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
                    "bodies and unread answers of this address have reached their limit of {} \
                     MiB at once; read the answers before sending more",
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
        match tokio::time::timeout(arrival.check.length(), body.frame()).await {
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
