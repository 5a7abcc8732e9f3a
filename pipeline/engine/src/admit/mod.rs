//! ADMIT: from what producers sent to priority lanes. Stateless and at-least-once.
//!
//! The one idea: it may say an event twice, never lose one; DERIVE's de-duplication ends the second
//! saying. Offsets are committed after the log answered for everything made of them, and any
//! failure starts again from the committed offset, so that first occurrences keep their order.
//!
//! It holds no state, judges with nothing but the record itself, and drops nothing silently. When
//! too much of the input is no event it stands still rather than put all of it aside.
//!
//! Parts in reading order.

mod admit_loop;
mod classify;
mod poison_breaker;

pub use admit_loop::{Admit, AdmitConfig, AdmitInput};
pub use poison_breaker::{PoisonBreaker, PoisonLimit, PoisonStop};
