//! From a record in any form producers send to an [`Event`](crate::event::Event).

mod registry;
mod writer;

pub use registry::{Registry, RegistryFault};
pub use writer::{SchemaFault, WriterSchema};
