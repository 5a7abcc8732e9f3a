//! Typed stores for operators: tables of a task, each a constant of its operator.
//!
//! ```text
//! KeyValue<K, V>   one value per key                          state
//! Index<G, S, I>   ids of a group in order, first n cheaply   state
//! Expiring<K, V>   a value until its expiry time              state, and timers
//! Latest<K, V>     the value with the greatest stamp          state, and timers
//! Windowed<K, V>   a value per key and window                 state.windows, ranges dropped by age
//! Sessions<K, V>   a value per key and burst of events        state.windows, ranges dropped by age
//! ```
//!
//! A store has no data of its own; the task's state has it. A persisted layout is a [`StoreKey`] or
//! a [`StoreValue`], in a file next to its operator; values begin with their version, which the
//! value level in force decides.

mod expiring;
mod keyed;
mod latest;
mod layout;
mod session;
#[cfg(test)]
mod tests;
mod window;

pub use expiring::Expiring;
pub(super) use expiring::{EXPIRY, expire};
pub use keyed::{Index, KeyValue};
pub use latest::{Latest, LatestPage, MARK_MS, Replacement, Stamp, Stamped};
pub use layout::{Desc, FieldDecoder, StoreKey, StoreValue, put_bytes, put_signed};
pub(super) use layout::{key_bytes, newest_level, put_value, read_value, unreadable};
pub use session::{MAX_AHEAD_MS, Session, SessionEvent, SessionWindows, Sessions};
pub use window::{Updated, Windowed, Windows};
