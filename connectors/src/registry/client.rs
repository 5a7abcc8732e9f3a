//! The `Registry` port on Confluent's API: a schema by id or GUID, from the cache where possible.
//!
//! The lock of the cache is not held during a request. So two threads may request the same schema
//! at once; each waits for a bounded time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_schemas::codec::{Registry, RegistryFault, WriterSchema};

use super::cache::{SchemaCache, SchemaKey};
use super::config::{Config, QueryPolicy};
use super::exchange::Exchange;
use super::resolve;
use crate::{clock, telemetry};

/// A schema registry with Confluent's API. Calls block, so async code needs another thread.
pub struct SchemaRegistry {
    pub(super) exchange: Exchange,
    cache: Mutex<SchemaCache>,
    policy: QueryPolicy,
}

impl SchemaRegistry {
    /// The registry at these addresses; sends no request yet. There must be at least one address,
    /// and [`Config::certificates`] must accept the authorities.
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

    fn find(&self, key: SchemaKey) -> Result<Arc<WriterSchema>, RegistryFault> {
        if let Some(answer) = self.cache().answer(key, clock::now()) {
            return answer;
        }
        telemetry::registry_asked();
        let answer = resolve::schema(&self.exchange, key, self.exchange.deadline());
        let mut cache = self.cache();
        let answer = match answer {
            Ok((schema, bytes)) => {
                let schema = Arc::new(schema);
                cache.store(key, schema.clone(), bytes);
                Ok(schema)
            }
            Err(fault) => {
                telemetry::registry_failed(reason(&fault));
                cache.store_fault(key, &fault, clock::now(), &self.policy);
                Err(fault)
            }
        };
        telemetry::registry_schemas(cache.len());
        answer
    }
}

impl Registry for SchemaRegistry {
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        self.find(SchemaKey::Id(id))
    }

    fn schema_by_guid(&self, guid: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        self.find(SchemaKey::Guid(guid))
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
