//! The number of the layout of a deployment's topics, and the creation of these topics.
//!
//! A build that divides entities among partitions in another way, or reads `order` or state in
//! another form, must not work on topics of an earlier one: copies of one event would meet in
//! different tasks, and each would be delivered. So the layout has a number, the number is a record
//! of the topics themselves, and every process compares it at its start.
//!
//! ```text
//! no topics ─▶ catalogues ─▶ layout record ─▶ all other topics
//! ```
//!
//! In this order nothing can be written before the layout is known, and a crash in between leaves
//! topics that are empty, which the next creation completes. Topics with records and without a
//! layout record are those of a build that did not write it.
//!
//! Everything uses the `Log` port alone, so it works on every log. It never waits for a log that
//! does not answer: the caller repeats.

mod create;
mod find;
mod record;
mod refusal;

pub use create::{CreateTopicsError, create_missing, create_topics};
pub use find::{FoundLayout, find_layout};
pub use record::{InvalidLayout, LAYOUT_KEY, LayoutNumber};
pub use refusal::{LayoutRefusal, LogPlace};
