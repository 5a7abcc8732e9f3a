//! The registry as decoding wants it: a schema by its id, from memory wherever that is possible.
//!
//! Nobody holds the memory's lock while the registry is asked. So two threads may ask the same at
//! once; what each of them waits for is bounded.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_schemas::codec::{Registry, RegistryFault, WriterSchema};

use super::cache::SchemaCache;
use super::config::{Config, QueryPolicy};
use super::exchange::Exchange;
use super::resolve;
use crate::{clock, telemetry};

/// A schema registry behind Confluent's API. It blocks, so async code asks from another thread.
pub struct SchemaRegistry {
    pub(super) exchange: Exchange,
    cache: Mutex<SchemaCache>,
    policy: QueryPolicy,
}

impl SchemaRegistry {
    /// The registry at the addresses; nothing is asked yet. There has to be one address at least,
    /// and [`Config::certificates`] must have nothing against the authorities.
    pub fn new(config: &Config) -> Self {
        assert!(!config.urls.is_empty(), "a registry has an address");
        Self { exchange: Exchange::new(config), cache: Mutex::default(), policy: config.policy }
    }

    /// The addresses, for messages.
    pub fn addresses(&self) -> String {
        self.exchange.addresses()
    }

    fn cache(&self) -> MutexGuard<'_, SchemaCache> {
        self.cache.lock().expect("no holder panics")
    }
}

impl Registry for SchemaRegistry {
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        if let Some(answer) = self.cache().answer(id, clock::now()) {
            return answer;
        }
        telemetry::registry_asked();
        let answer = resolve::schema(&self.exchange, id, self.exchange.deadline());
        let mut cache = self.cache();
        let answer = match answer {
            Ok((schema, bytes)) => {
                let schema = Arc::new(schema);
                cache.store(id, schema.clone(), bytes);
                Ok(schema)
            }
            Err(fault) => {
                telemetry::registry_failed(reason(&fault));
                cache.store_fault(id, &fault, clock::now(), &self.policy);
                Err(fault)
            }
        };
        telemetry::registry_schemas(cache.len());
        answer
    }
}

fn reason(fault: &RegistryFault) -> &'static str {
    match fault {
        RegistryFault::Unknown(_) => "unknown",
        RegistryFault::Unavailable(_) => "unavailable",
        RegistryFault::Unusable(_) => "unusable",
    }
}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry").field("urls", &self.addresses()).finish_non_exhaustive()
    }
}
