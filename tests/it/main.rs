//! Integration tests: the whole product, tested from outside.

mod api_documents;
mod bad_input;
mod benchmarks;
mod browser;
mod build_name;
mod build_script;
mod catalogues;
mod channel_state;
mod command_line;
#[path = "../conformance/mod.rs"]
mod conformance;
mod dead_letters;
mod deploy;
mod dev_command;
mod embedded_log;
mod entities;
mod explain;
mod full_disk;
mod http_formats;
mod internal_types;
mod kafka;
mod own_event_type;
mod peer_reports;
mod pipeline;
mod quickstart;
mod real_posts;
mod registry;
mod replay;
mod schemas_command;
mod sse_clients;
mod state;
mod state_get;
mod store_killed;
mod topics_layout;
mod value_level;
