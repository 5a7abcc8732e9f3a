//! Creates the client of the schema registry, if the settings name one.

use std::sync::Arc;

use tidewire_connectors::registry::SchemaRegistry;
use tidewire_schemas::codec::Registry;

use crate::config::Config;

/// The client. It sends nothing before the first record that needs a schema, so a registry that is
/// down does not delay a start.
pub fn open(config: &Config) -> Option<Arc<dyn Registry>> {
    let registry = SchemaRegistry::new(config.registry.as_ref()?);
    Some(Arc::new(registry))
}
