//! `tidewire explain`: prints what an event has caused, as a tree.
//!
//! It reads `out.audit` by an index in a folder, which is brought up to date first, in steps, so
//! that each request to a process is answered in time. The embedded log belongs to one process: a
//! running one is asked over HTTP, the folder of a stopped one is opened here, and so is Kafka.

mod api;
mod print;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tidewire_connectors::socket::http::admin::{AdminEndpoint, Effect};
use tidewire_engine::derive::AuditMode;

use crate::api_client::ApiClient;
use crate::cli::ExplainArgs;
use crate::config::{Config, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::storage;
use crate::verbs::dead_letters::query_string;
use crate::verbs::running_process::{self, AtListen, has_log, no_data};
use crate::{configure, terminal};

pub use api::ExplainApi;

/// Where the process of an embedded log explains an event.
pub const EXPLAIN_PATH: &str = "/v1/explain";

/// The folder of the index in the data folder.
const INDEX: &str = "explain";

/// The folder of the index of these settings.
pub fn folder(config: &Config) -> PathBuf {
    config.data.dir.join(INDEX)
}

/// The admin endpoint.
pub fn endpoint(api: ExplainApi) -> AdminEndpoint {
    let run = move |parameters: &[(String, String)]| Ok(api.handle(parameters)?);
    AdminEndpoint {
        path: EXPLAIN_PATH,
        effect: Effect::ReadOnly,
        parameters: &["id", "account", "since"],
        run: Arc::new(run),
    }
}

/// Brings the index up to date, and prints the tree.
pub fn run(args: &ExplainArgs) -> Result<(), ProcessExit> {
    let parameter = |name: &str, text: &String| (name.to_owned(), text.clone());
    let mut parameters = vec![parameter("id", &args.id)];
    parameters.extend(args.account.iter().map(|account| parameter("account", account)));
    parameters.extend(args.since.iter().map(|since| parameter("since", since)));
    api::check(&parameters).map_err(ProcessExit::Usage)?;
    let source = AuditSource::find(args)?;
    let mut left_before = u64::MAX;
    let answer = loop {
        let answer = source.ask(&parameters)?;
        let Some(left) = answer["index"]["left"].as_u64().filter(|left| *left > 0) else {
            break answer;
        };
        if left < left_before {
            terminal::print_notice(&format!("reading the audit: {left} records are left"));
        }
        left_before = left;
    };
    if answer["events"].as_array().is_none_or(Vec::is_empty) {
        return Err(unknown(args, &answer["index"], source.audit_mode()));
    }
    if args.json {
        return terminal::print_line(&answer.to_string());
    }
    print::tree(&answer)
}

/// Where the audit is.
enum AuditSource {
    Remote(ApiClient, String),
    Local(Box<(ExplainApi, Config)>),
}

impl AuditSource {
    fn find(args: &ExplainArgs) -> Result<Self, ProcessExit> {
        if let Some(url) = &args.at.url {
            return Ok(Self::Remote(ApiClient::new(url)?, url.clone()));
        }
        let config = configure::for_command(&args.at.settings)?;
        if config.log != LogConfig::Embedded {
            return Self::open(args, config);
        }
        match running_process::find(&config)? {
            AtListen::Ours(running) | AtListen::Only(running) => {
                Ok(Self::Remote(running.client, running.url))
            }
            at_listen if !has_log(&config.data.dir) => Err(no_data(&config, &at_listen)),
            AtListen::Nothing | AtListen::Other { .. } => Self::open(args, config),
        }
    }

    fn open(args: &ExplainArgs, config: Config) -> Result<Self, ProcessExit> {
        let log = storage::open_log(&config)?;
        storage::refuse_other_layout(&config, &*log)?;
        let folder = args.index.clone().unwrap_or_else(|| folder(&config));
        let api = ExplainApi::new(&log, &config.topology(), folder);
        Ok(Self::Local(Box::new((api, config))))
    }

    fn ask(&self, parameters: &[(String, String)]) -> Result<Value, ProcessExit> {
        match self {
            Self::Local(opened) => {
                let (api, config) = &**opened;
                api.handle(parameters).map_err(|error| error.exit(config))
            }
            Self::Remote(client, url) => {
                let path = format!("{EXPLAIN_PATH}{}", query_string(parameters));
                client.get_json(&path)?.ok_or_else(|| {
                    ProcessExit::failed(format!(
                        "no answer from {url}; check that the process runs, then repeat the command"
                    ))
                })
            }
        }
    }

    /// The mode of these settings, which may be another than that of DERIVE.
    fn audit_mode(&self) -> AuditMode {
        match self {
            Self::Local(opened) => opened.1.derive_audit,
            Self::Remote(..) => AuditMode::On,
        }
    }
}

/// Says why nothing may be known of an event.
fn unknown(args: &ExplainArgs, index: &Value, mode: AuditMode) -> ProcessExit {
    let of = args.account.iter().map(|account| format!(" of {account}")).collect::<String>();
    let mut text = format!("nothing is known of the event {}{of}", args.id);
    if index["empty"].as_bool() == Some(true) {
        text += ": there is no audit yet. DERIVE has processed nothing, or runs with derive.audit \
                 = off";
    } else {
        text += ": it has another id or account, it is older than out.audit keeps (`tidewire \
                 topics list`), it was processed while derive.audit was off, or DERIVE has not \
                 processed it yet (`tidewire dead-letters list` has what ADMIT refused)";
    }
    if mode == AuditMode::Off {
        text += ". derive.audit is off in these settings";
    }
    if let Some(since) = index["since"].as_str() {
        text += &format!(". The index begins at {since}; give an earlier --since");
    }
    ProcessExit::failed(text)
}
