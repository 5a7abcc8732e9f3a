//! Builds and starts the HTTP server of a process: endpoints, guard and limits by role.
//!
//! Every role serves health, metrics and the admin endpoints. Roles that serve clients also accept
//! events, open streams and show the web page; this version has no tokens, so their guard accepts
//! only loopback names. The other roles may listen where monitoring reaches them, under names that
//! no public web page can have.

use std::fs;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tidewire_connectors::socket::gateway::{
    Gateway, GatewayConfig, GatewayHandle, GatewayParts, PublishParts,
};
use tidewire_connectors::socket::http::admin::{AdminEndpoint, Effect};
use tidewire_connectors::socket::http::guard::{Guard, UnlistedHosts};
use tidewire_connectors::socket::http::publish::IngestTopics;
use tidewire_connectors::socket::http::state::{AppHooks, Asset};
use tidewire_connectors::socket::limits::{ConnectionLimits, RequestTimeouts};
use tidewire_connectors::socket::memory::MemoryBudget;
use tidewire_connectors::socket::stream::worker::{self, WorkerHandle};
use tidewire_engine::admit::PoisonBreaker;
use tidewire_engine::derive::RestoreProgress;
use tidewire_engine::fanout::hub::Hub;
use tidewire_schemas::catalogue::Catalogue;

use crate::api::documents;
use crate::build_name::BUILD_NAME;
use crate::config::{Config, LogConfig};
use crate::process_exit::{ProcessExit, in_one_line};
use crate::role::Role;
use crate::runtime::page;
use crate::runtime::readiness::Readiness;
use crate::runtime::startup::GatewayInputs;
use crate::runtime::storage::{self, ProcessPorts};
use crate::verbs::dead_letters::{self, AdminApi};
use crate::verbs::explain::{self, ExplainApi};
use crate::verbs::resume::RESUME_PATH;
use crate::verbs::running_process::DATA_DIR;

/// What the endpoints show.
pub struct ServerState<'a> {
    /// The role of the process.
    pub role: Role,
    /// The log of the admin endpoints and of `/v1/stats`.
    pub ports: &'a ProcessPorts,
    /// What `/readyz` checks.
    pub ready: Readiness,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
}

/// Listens on `listen` and serves.
pub fn start(
    config: &Config,
    state: ServerState<'_>,
    gateway_inputs: Option<GatewayInputs>,
) -> Result<GatewayHandle, ProcessExit> {
    let ports = state.ports;
    let (publish, workers, hub) = match gateway_inputs {
        Some(GatewayInputs { hub, appender }) => {
            let topics = ingest_topics(ports);
            let (clock, registry) = (ports.clock.clone(), ports.registry.clone());
            let publish = PublishParts { appender, topics, clock, registry };
            (Some(publish), start_workers(config, &hub)?, Some(hub))
        }
        None => (None, Vec::new(), None),
    };
    let gateway = GatewayConfig {
        listen: config.listen,
        limits: ConnectionLimits {
            loopback_exempt: config.insecure_dev,
            ..ConnectionLimits::of_process()
        },
        guard: guard(config, state.role),
        timeouts: RequestTimeouts::default(),
        catalogue: config.catalogue(),
    };
    let parts = GatewayParts { publish, hooks: pages(config, state), workers, hub };
    Gateway::start(gateway, parts).map_err(|error| {
        ProcessExit::because(
            format!(
                "could not listen on {}; stop the process that uses it, or give another --listen",
                config.listen
            ),
            error,
        )
    })
}

fn guard(config: &Config, role: Role) -> Guard {
    let shared = !role.serves_clients() && !config.listen.ip().is_loopback();
    Guard {
        hosts: config.allowed_hosts.clone(),
        origins: config.allowed_origins.clone(),
        unlisted_hosts: if shared { UnlistedHosts::Internal } else { UnlistedHosts::Loopback },
    }
}

fn start_workers(config: &Config, hub: &Arc<Hub>) -> Result<Vec<WorkerHandle>, ProcessExit> {
    let memory = MemoryBudget::over_hub(config.gateway.connections_bytes, hub);
    worker::start_all(config.gateway.shards, &memory, hub).map_err(|error| {
        ProcessExit::because(
            "could not start the worker threads; raise the limits of threads and open files",
            error,
        )
    })
}

fn ingest_topics(ports: &ProcessPorts) -> IngestTopics {
    let topology = &ports.topology;
    IngestTopics {
        input: topology.input().clone(),
        urgent: topology.input_urgent().clone(),
        dead_letters: topology.dead_letters().clone(),
        partitions: topology.partitions(),
    }
}

fn pages(config: &Config, state: ServerState<'_>) -> AppHooks {
    let ServerState { role, ports, ready, metrics } = state;
    let (log, instance, catalogue) =
        (ports.log.clone(), config.instance.clone(), config.catalogue());
    let data_dir = embedded_data_dir(config);
    let (started, restores, verbs) = (ready.clone(), ready.clone(), verbs(config, ports, &ready));
    AppHooks {
        accepts_subscribers: Box::new(move || started.check_started().is_ok()),
        admin_endpoints: verbs,
        ready: Box::new(move || ready.check()),
        metrics: Box::new(move || metrics.render()),
        stats: Box::new(move || {
            let mut stats = json!({
                "version": BUILD_NAME,
                "role": role.verb(),
                "instance": instance,
                "restoring": restores.restores().iter().map(restore).collect::<Vec<_>>(),
            });
            if let Some(dir) = &data_dir {
                stats[DATA_DIR] = json!(dir);
            }
            match storage::topic_reports(&*log) {
                Ok(topics) => stats["topics"] = json!(topics),
                Err(error) => stats["error"] = json!(in_one_line(&error)),
            }
            stats
        }),
        assets: if role.serves_clients() { assets(catalogue) } else { Vec::new() },
    }
}

/// The folder of the embedded log, so that commands recognise its process.
fn embedded_data_dir(config: &Config) -> Option<String> {
    match config.log {
        LogConfig::Embedded => fs::canonicalize(&config.data.dir).ok()?.to_str().map(str::to_owned),
        LogConfig::Kafka(_) => None,
    }
}

/// The files for clients: the web page and the descriptions of the interface.
fn assets(catalogue: &Catalogue) -> Vec<Asset> {
    page::assets().into_iter().chain(documents::assets(catalogue)).collect()
}

/// The progress of a task's restore, as in `/v1/stats`.
fn restore(at: &RestoreProgress) -> Value {
    json!({
        "partition": at.partition.0,
        "done": at.done,
        "total": at.total,
        "seconds_left": at.left_ms().map(|ms| ms.div_ceil(1_000)),
    })
}

/// The admin endpoints: dead letters in every role, `explain` in the process of an embedded log,
/// `resume` in those that read the input.
fn verbs(config: &Config, ports: &ProcessPorts, ready: &Readiness) -> Vec<AdminEndpoint> {
    let mut verbs = dead_letters::verbs(AdminApi::new(ports.log.clone(), ports.topology.clone()));
    if config.log == LogConfig::Embedded {
        let api = ExplainApi::new(&ports.log, &ports.topology, explain::folder(config));
        verbs.push(explain::endpoint(api));
    }
    if !ready.breakers.is_empty() {
        let breakers = ready.breakers.clone();
        let run = move |_: &[(String, String)]| {
            let resumed =
                breakers.iter().filter_map(PoisonBreaker::resume).map(|why| why.to_string());
            Ok(json!({ "resumed": resumed.collect::<Vec<_>>() }))
        };
        verbs.push(AdminEndpoint {
            path: RESUME_PATH,
            effect: Effect::Mutating,
            parameters: &[],
            run: Arc::new(run),
        });
    }
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigUsage;
    use crate::config::settings::Settings;

    fn names(role: Role, listen: &str) -> UnlistedHosts {
        let mut settings = Settings::defaults();
        settings.add_flag("listen", "--listen", Some(listen.into()));
        let config = Config::parse(settings, ConfigUsage::Command).expect("right");
        guard(&config, role).unlisted_hosts
    }

    #[test]
    fn only_roles_without_clients_accept_names_of_other_machines() {
        assert_eq!(names(Role::Derive, "0.0.0.0:9100"), UnlistedHosts::Internal);
        assert_eq!(names(Role::Derive, "127.0.0.1:9100"), UnlistedHosts::Loopback);
        assert_eq!(names(Role::Gateway, "0.0.0.0:8080"), UnlistedHosts::Loopback);
    }
}
