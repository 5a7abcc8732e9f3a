//! Keeps a client able to find its brokers.
//!
//! librdkafka forgets all brokers when one answers that there are none, and never asks again: its
//! issue 5301, open in 2.13. A lone broker answers so for a moment after it stood still for longer
//! than its session with the controller. So whoever waits in vain looks now and then whether its
//! client still knows anybody, and if not, tells it the bootstrap addresses again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::Config;
use super::context::Context;
use super::native;
use crate::{clock, telemetry};

/// How often a client is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When a client was last looked at.
#[derive(Default)]
pub(super) struct Reach(Mutex<Option<Instant>>);

impl Reach {
    /// Looks, if it is time to: a request that is given no time fails in one way if it could be
    /// sent and in another if there was nobody to send it to. What it brings is the same refresh
    /// that librdkafka makes every ten seconds by itself.
    pub(super) fn look(&self, config: &Config, client: &Client<Context>) {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        *looked = Some(clock::now());
        let topic = format!("{}order", config.prefix);
        let asked = client.fetch_metadata(Some(&topic), Duration::ZERO);
        if let Err(KafkaError::MetadataFetch(Code::BrokerTransportFailure)) = asked {
            telemetry::kafka_brokers_told();
            native::tell_brokers(client, &config.bootstrap);
        }
    }
}
