//! Mutation tests: the simulator must notice each of these deliberate bugs in the engine.
//!
//! ```text
//! pipeline/engine ──copy──▶ with every mutant of the list, behind one switch
//! tests/sim ─────────────▶ the same histories in a program of their own ──▶ run once per mutant
//! ```
//!
//! A check that nothing can fail proves nothing. The bugs are only in the copy, never in the code
//! that ships.
//!
//! In reading order: the list, how a copy is changed, the package around that copy, the check.
//! `program.rs` belongs to the package, not to this module.

mod check;
mod list;
mod package;
mod schema;
