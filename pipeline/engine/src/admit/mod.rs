//! ADMIT: reads the input, validates each record and writes it to a lane or to the dead letters.
//!
//! It is stateless and at-least-once: it may write an event twice, but loses none; DERIVE drops the
//! duplicate. Offsets are committed after the log acknowledged everything made of the records
//! before them. A failure restarts from the committed offset, so first copies keep their order.
//!
//! It decides by the record alone and drops nothing silently. Above the poison limit it stops
//! reading instead of writing most of its input to the dead letters. A record whose schema the
//! registry can't be asked for makes its partition wait; the others go on.

mod admit_loop;
mod classify;
mod poison_breaker;
mod waiting;

pub use admit_loop::{Admit, AdmitConfig, AdmitInput};
pub use poison_breaker::{PoisonBreaker, PoisonLimit, PoisonStop};
pub use waiting::WaitingPartitions;
