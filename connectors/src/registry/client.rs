//! The `Registry` port on Confluent's API: a schema by id or GUID, from the cache where possible.
//!
//! The lock of the cache is not held during a request. So two threads may request the same schema
//! at once; each waits for a bounded time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tidewire_schemas::codec::{Registry, RegistryFault, SchemaKey, WriterSchema};

use super::cache::{CacheAnswer, SchemaCache};
use super::config::{Config, QueryPolicy};
use super::exchange::Exchange;
use super::resolve::{self, SchemaFailure};
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
        if let Some(fault) = resolve::impossible_id(key) {
            return Err(fault);
        }
        let asked = clock::now();
        let mut limit = self.exchange.limit();
        let known = self.cache().answer(key, asked, &self.policy);
        match known {
            CacheAnswer::Known(answer) => return answer,
            CacheAnswer::Ask => {}
            CacheAnswer::AskOnce => limit.tries = 1,
        }
        telemetry::registry_asked();
        let resolved = resolve::schema(&self.exchange, key, limit);
        let answer = self.remember(key, asked, resolved);
        if let Err(fault) = &answer {
            telemetry::registry_failed(reason(fault));
        }
        answer
    }

    /// Stores what the registry answered to a question that began at `asked`.
    fn remember(
        &self,
        key: SchemaKey,
        asked: Instant,
        resolved: Result<(WriterSchema, usize), SchemaFailure>,
    ) -> Result<Arc<WriterSchema>, RegistryFault> {
        let (mut cache, now) = (self.cache(), clock::now());
        let answer = match resolved {
            Ok((schema, bytes)) => {
                let schema = Arc::new(schema);
                cache.store(key, schema.clone(), bytes);
                Ok(schema)
            }
            Err(SchemaFailure::OfSchema(fault)) => {
                cache.store_fault(key, &fault, now, &self.policy);
                Err(fault)
            }
            Err(SchemaFailure::Outage(why)) => {
                if cache.store_outage(&why, asked, now, &self.policy) {
                    telemetry::registry_away(&why);
                }
                return Err(RegistryFault::Unavailable(why));
            }
        };
        if let Some(outage) = cache.end_outage() {
            telemetry::registry_back(outage.lasted(now));
        }
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
