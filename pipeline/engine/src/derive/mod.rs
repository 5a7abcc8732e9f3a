//! DERIVE: processes the lanes into outputs and state, exactly once.
//!
//! One transaction makes the offsets read, the outputs and the state changes visible together or
//! not at all. The local store only follows what the log has committed.
//!
//! Parts in reading order: the loop and its transactions; a task's steps and its restore; a task
//! without a log; what an operator is, and the operators; last the persisted formats, one file
//! each.

mod assign;
mod commit;
mod commit_group;
mod commit_updates;
mod derive_loop;
mod lag;
mod limits;
mod ticks;

mod batch;
mod failure;
mod fire;
mod flush_partials;
mod open_pack;
mod operate;
mod operator_call;
mod quiet;
mod restore;
mod running;
mod standby;
mod store_fit;
mod task;
mod unpack;

mod driver;
mod memory_store;
mod sandbox;

pub mod audit;
pub mod dedup;
mod delivery;
mod effect_limits;
pub mod emit;
mod forward;
mod input;
mod intervals;
mod operator;
mod partial;
mod partial_decl;
mod pending_copies;
mod plan;
mod state_channel;
pub mod stores;
mod table_decl;
mod tables;
mod taken_record;
mod timers;
mod trigger;
mod updates;

mod accepted_id;
mod changelog;
pub(crate) mod encoding;
mod id_filter;
pub mod lane_times;
pub mod order;
mod partial_rows;
pub mod progress;
mod skipped;
pub mod source_changes;
pub mod source_offsets;
mod timer_cause;

pub use audit::{AuditMode, PART_MAX_BYTES};
pub use delivery::ChannelDelivery;
pub use derive_loop::{Derive, DeriveConfig, DerivePorts, HAND_OVER_BYTES, HAND_OVER_MS};
pub use driver::{DrivenTasks, PackedBatch, ProcessedBatch, START, TopologyDriver};
pub use effect_limits::{
    CAUSE_MAX_BYTES, EMISSION_MAX_BYTES, STATE_KEY_MAX_BYTES, STATE_VALUE_MAX_BYTES,
    URGENT_FACTS_MAX,
};
pub use emit::{Emission, StateKey};
pub use flush_partials::FLUSH_PARTS_MAX;
pub use id_filter::{DEDUP_FILTER_BYTES, DEDUP_FILTER_BYTES_MIN};
pub use input::Input;
pub use limits::{MAX_BYTES, MAX_OPEN_MS, MAX_RECORDS, URGENT_WAIT_MS};
pub use operator::{Context, Flow, OnFailure, Operator, OperatorError};
pub use partial::{EARLY_FLUSH_PARTS, PARTIAL_KEYS_MAX, Partial, PartialKey, PartialValue};
pub use partial_decl::{PartialDecl, PartialSpec};
pub use plan::Events;
pub use quiet::QUIET_MS;
pub use restore::RestoreProgress;
pub use running::SETTLE_MS;
pub use sandbox::{Operators, table_specs};
pub use state_channel::StateChannel;
pub use table_decl::{Changelog, TableDecl};
pub use tables::highest_level;
pub use ticks::TICK_MS;
pub use timers::{MAX_EXPIRIES_PER_TICK, MAX_TIMERS_PER_TICK};
pub use trigger::KeptCause;
pub use updates::Updates;

pub(crate) use running::TickTime;
pub(crate) use sandbox::{Executed, Sandbox, StoredTask};
