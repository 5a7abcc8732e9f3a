//! Limits how many bodies are validated outside the HTTP threads at once.
//!
//! Both HTTP threads stay free for other clients while large bodies are unpacked and parsed. Bodies
//! that may wait for a schema registry have slots of their own, so that a registry that does not
//! answer holds up no others. A request waits for a slot for a bounded time; its body is in the
//! budget meanwhile, so waiting requests take no memory beyond it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::ValidationCost;
use super::response::ErrorResponse;
use crate::telemetry;

/// Bodies unpacked and parsed at once. Each needs a core, and up to 8 MiB for the window of zstd.
const WORKING_AT_ONCE: usize = 4;

/// Bodies at once that may wait for a schema registry. They need a thread, but hardly any work.
const WAITING_AT_ONCE: usize = 64;

/// How long a request waits for a slot: longer than one question to a schema registry takes.
const SLOT_WAIT: Duration = Duration::from_secs(6);

/// The slots of one process.
#[derive(Debug)]
pub struct ValidationSlots {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for ValidationSlots {
    fn default() -> Self {
        Self {
            working: Arc::new(Semaphore::new(WORKING_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING_AT_ONCE)),
        }
    }
}

impl ValidationSlots {
    /// A slot for a body of this cost, held while it is validated; `None` if it needs none.
    pub(super) async fn acquire(
        &self,
        cost: ValidationCost,
    ) -> Result<Option<OwnedSemaphorePermit>, ErrorResponse> {
        let slots = match cost {
            ValidationCost::Quick => return Ok(None),
            ValidationCost::Work => &self.working,
            ValidationCost::Wait => &self.waiting,
        };
        let slot = tokio::time::timeout(SLOT_WAIT, Arc::clone(slots).acquire_owned()).await;
        match slot {
            Ok(Ok(slot)) => Ok(Some(slot)),
            // The semaphores are never closed.
            Ok(Err(_)) => Err(ErrorResponse::stopping()),
            Err(_) => {
                telemetry::ingest_overloaded("validation");
                Err(ErrorResponse::overloaded(
                    "too many large bodies are being validated; send the request again after \
                     Retry-After",
                ))
            }
        }
    }
}
