//! Keeps a client able to find its brokers.
//!
//! librdkafka forgets all brokers when one answers that there are none, and never asks again: its
//! issue 5301, open in 2.13. A lone broker answers so for a moment after it stood still for longer
//! than its session with the controller. So whoever waits in vain looks now and then whether its
//! client still knows anybody, and if not, tells it the bootstrap addresses again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::Config;
use super::context::{KafkaContext, lock};
use super::native;
use crate::{clock, telemetry};

/// How often a client is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// When a client was last looked at.
#[derive(Default)]
pub(super) struct BootstrapRefresh(Mutex<Option<Instant>>);

impl BootstrapRefresh {
    /// Looks, if it is time to: a request that is given no time fails in one way if it could be
    /// sent and in another if there was nobody to send it to. What it brings is the same refresh
    /// that librdkafka makes every ten seconds by itself.
    pub(super) fn check(&self, config: &Config, client: &Client<KafkaContext>) {
        let mut last_check = lock(&self.0);
        if last_check.is_some_and(|at| at.elapsed() < CHECK_EVERY) {
            return;
        }
        *last_check = Some(clock::now());
        let topic = format!("{}order", config.prefix);
        let asked = client.fetch_metadata(Some(&topic), Duration::ZERO);
        if let Err(KafkaError::MetadataFetch(Code::BrokerTransportFailure)) = asked {
            telemetry::kafka_bootstrap_refreshed();
            native::add_brokers(client, &config.bootstrap);
        }
    }
}
