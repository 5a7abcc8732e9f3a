//! The engine's metrics: one function per metric, and the table that says what each one means.
//!
//! Call sites call a function of this file and nothing else, so that the catalogue is complete by
//! construction; dashboards and alerts are checked against it. Counters are added to once per
//! batch, never once per record.
