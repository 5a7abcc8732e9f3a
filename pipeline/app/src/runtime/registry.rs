//! The schema registry as the rest of the process wants it.

use std::sync::Arc;

use tidewire_connectors::registry::SchemaRegistry;
use tidewire_schemas::codec::Registry;

use crate::config::Config;

/// The registry of the settings, if they name one. Nothing is asked of it before the first record
/// that needs it, so that a registry that is away keeps nobody from starting.
pub fn open(config: &Config) -> Option<Arc<dyn Registry>> {
    let registry = SchemaRegistry::new(config.registry.as_ref()?);
    Some(Arc::new(registry))
}
