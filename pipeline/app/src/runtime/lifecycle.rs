//! Runs a process of any role, from opening its log to the last drained connection.
//!
//! The order is what this file is for: the log, the loops, the HTTP server, and the ready line once
//! all of them are ready; the shutdown is in reverse. The state folders stay locked until the
//! stores are closed.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tidewire_connectors::socket::gateway::GatewayHandle;
use tidewire_connectors::socket::limits;

use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::role::Role;
use crate::runtime::http_server::ServerState;
use crate::runtime::readiness::Readiness;
use crate::runtime::startup::ProcessParts;
use crate::runtime::storage::ProcessPorts;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::topics_watch::TopicsWatch;
use crate::runtime::{demo, fanout, http_server, pipeline, startup, telemetry};
use crate::terminal;

/// How long open connections have to receive what is pending, once the process is asked to end.
const DRAIN_WINDOW: Duration = Duration::from_secs(1);
/// How long the loops have to finish their turn, write their state and leave their groups. On an
/// idle machine that takes a fraction of a second; together with the drain it stays below the 10 s
/// after which container runtimes kill.
const LOOPS_CLOSE_LIMIT: Duration = Duration::from_secs(8);

/// Attempts to find out why positions are beyond the end of the log.
const EXPLAIN_ATTEMPTS: u32 = 16;

/// Runs until a signal, or until the process cannot go on.
pub fn run(role: Role, config: &Config) -> Result<(), ProcessExit> {
    limits::raise_open_files();
    let metrics = telemetry::start()?;
    let supervisor = Supervisor::start()?;
    let Some(opened) = startup::open(&supervisor, role, config)? else { return Ok(()) };
    // Held until the loops have closed their stores: another process may use the folders then.
    let folders = opened.folders.clone();
    let mut process = ServingProcess { role, config, supervisor, watch: None };
    let ended = process.serve(opened, metrics);
    let closed = process.supervisor.drain(LOOPS_CLOSE_LIMIT);
    drop(folders);
    ended.and(closed)
}

/// A process whose log and folders are open.
struct ServingProcess<'a> {
    role: Role,
    config: &'a Config,
    supervisor: Supervisor,
    /// Watches the topics, in a process with ADMIT or DERIVE.
    watch: Option<Arc<TopicsWatch>>,
}

impl ServingProcess<'_> {
    fn serve(
        &mut self,
        opened: ProcessParts,
        metrics: PrometheusHandle,
    ) -> Result<(), ProcessExit> {
        self.start_metrics_upkeep(&metrics)?;
        let ready = self.start_loops(&opened)?;
        let state =
            ServerState { role: self.role, ports: &opened.ports, ready: ready.clone(), metrics };
        let gateway = http_server::start(self.config, state, opened.gateway_inputs)?;
        let ended = self.run_until_stopped(&gateway, &ready);
        self.supervisor.request_stop();
        gateway.drain(DRAIN_WINDOW);
        gateway.join();
        ended.map_err(|exit| self.explain(exit))
    }

    /// Names every topic that was created again, if a position that is beyond the end of one of
    /// them ended the process.
    fn explain(&self, exit: ProcessExit) -> ProcessExit {
        let Some(watch) = self.watch.clone().filter(|_| exit.is_lost_position()) else {
            return exit;
        };
        // A failure of a further loop ends an attempt: several may have lost their positions.
        for _ in 0..EXPLAIN_ATTEMPTS {
            let watch = watch.clone();
            let explain = move || watch.explain_lost_positions();
            match self.supervisor.attempt("topics-at-end", explain) {
                Ok(Some(Some(message))) => return ProcessExit::LostLog { message, source: None },
                Ok(_) => break,
                Err(_) => {}
            }
        }
        exit
    }

    fn start_metrics_upkeep(&mut self, metrics: &PrometheusHandle) -> Result<(), ProcessExit> {
        let (metrics, stop) = (metrics.clone(), self.supervisor.stop());
        self.supervisor.spawn_task("metrics", move || {
            telemetry::run_upkeep(&metrics, &stop);
            Ok(())
        })
    }

    fn start_loops(&mut self, opened: &ProcessParts) -> Result<Readiness, ProcessExit> {
        let (config, ports) = (self.config, &opened.ports);
        let mut ready = Readiness { log: Some(ports.log.clone()), ..Readiness::default() };
        if self.role.admits() {
            for handle in pipeline::start_admit(&mut self.supervisor, config, ports)? {
                ready.loops.push(handle.status);
                ready.breakers.push(handle.breaker);
                ready.waiting.push(handle.waiting);
            }
        }
        if self.role.derives() {
            ready.loops.extend(pipeline::start_derive(&mut self.supervisor, config, ports)?);
        }
        if self.role.admits() || self.role.derives() {
            self.watch_topics(ports, &ready)?;
        }
        if let Some(gateway_inputs) = &opened.gateway_inputs {
            fanout::start(&mut self.supervisor, ports, &gateway_inputs.hub)?;
            ready.hub = Some(gateway_inputs.hub.clone());
        }
        Ok(ready)
    }

    fn watch_topics(&mut self, ports: &ProcessPorts, ready: &Readiness) -> Result<(), ProcessExit> {
        let (log, topology) = (ports.log.clone(), ports.topology.clone());
        let watch = Arc::new(TopicsWatch::new(log, topology, ready.topics.clone()));
        self.watch = Some(watch.clone());
        let stop = self.supervisor.stop();
        self.supervisor.spawn_observer("topics", move || watch.run(&stop))
    }

    /// From the listening server to what ends the process.
    fn run_until_stopped(
        &mut self,
        gateway: &GatewayHandle,
        ready: &Readiness,
    ) -> Result<(), ProcessExit> {
        if !self.supervisor.wait_until(|| ready.check_started().is_ok())? {
            return Ok(());
        }
        let url = format!("http://{}", gateway.local_addr());
        terminal::print_line(&ready_line(self.role, &url))?;
        if let Some(rate) = self.config.demo_rate_per_s
            && self.role.serves_clients()
        {
            let stop = self.supervisor.stop();
            self.supervisor.spawn_task("demo", move || demo::run(&url, rate, &stop))?;
        }
        let signal = self.supervisor.wait(|| gateway_failure(gateway))?;
        tracing::info!(
            "{signal} received: ending in order within 10 s; a second signal ends at once"
        );
        Ok(())
    }
}

/// Failures that the supervisor cannot see: the gateway's threads are its own.
fn gateway_failure(gateway: &GatewayHandle) -> Option<ProcessExit> {
    if gateway.has_lost_log() {
        let message = "events can no longer be appended to the log; see the lines above".into();
        return Some(ProcessExit::LostLog { message, source: None });
    }
    gateway.has_lost_a_thread().then(|| {
        ProcessExit::failed("a thread of the HTTP server ended, which is a bug; please report it")
    })
}

fn ready_line(role: Role, url: &str) -> String {
    let verb = role.verb();
    match role {
        Role::All => format!(
            "tidewire is ready: page {url}/  events: curl -N '{url}/v1/sse?channels=timeline:{}'",
            demo::ACCOUNT
        ),
        Role::Gateway => format!("tidewire {verb} is ready: page {url}/  metrics {url}/metrics"),
        Role::Admit | Role::Derive => format!("tidewire {verb} is ready: {url}/metrics"),
    }
}
