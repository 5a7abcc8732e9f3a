//! Gives a client the bootstrap addresses again after it has lost all brokers.
//!
//! librdkafka forgets all brokers when one answers a metadata request with none, and never asks
//! again (its issue 5301, open in 2.13). A lone broker answers so for a moment after it was paused
//! for longer than its session with the controller. So a client that waits for answers is checked
//! from time to time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::Config;
use super::context::{KafkaContext, lock};
use super::native;
use crate::{clock, telemetry};

/// How often a client is checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// When a client was last checked.
#[derive(Default)]
pub(super) struct BootstrapRefresh(Mutex<Option<Instant>>);

impl BootstrapRefresh {
    /// Checks a client, if it is due. A metadata request without any time fails in one way if it
    /// could be sent and in another if there was no broker to send it to. A request that is sent
    /// does no harm: librdkafka sends the same one every ten seconds.
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
