//! The code broken on purpose: whoever keeps the promises must notice each of these.
//!
//! ```text
//! pipeline/engine ──copy──▶ every mutant of the list in place, behind one switch
//! tests/sim ─────────────▶ the same histories, a program of their own ──▶ once per mutant
//! ```
//!
//! The one idea: a check that nothing can fail proves nothing, so what the simulation would find is
//! tried; and nothing of that stands in the code that ships.
//!
//! Parts in reading order: the list, its way into a copy, the package around that copy, the hunt.
//! `program.rs` is the package's, not this one's.

mod check;
mod list;
mod package;
mod schema;
