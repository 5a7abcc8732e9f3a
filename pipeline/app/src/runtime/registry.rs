//! Creates the client of the schema registry, if the settings name one.
//!
//! A registry that is down is no reason not to start: only records with unknown schemas need it.

use std::sync::Arc;

use tidewire_connectors::registry::SchemaRegistry;
use tidewire_schemas::codec::Registry;

use crate::config::Config;

/// The client. It sends nothing before the first record that needs a schema.
pub fn open(config: &Config) -> Option<Arc<dyn Registry>> {
    let registry = SchemaRegistry::new(config.registry.as_ref()?);
    Some(Arc::new(registry))
}
