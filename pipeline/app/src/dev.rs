//! `tidewire dev`: everything in one process, from opening the data to the last drained socket.
//!
//! The order is the content: the log first, then the loops, then the door; the ready line when all
//! of it has caught up; and the way down in reverse. Nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tidewire_connectors::socket::events::IngestTopics;
use tidewire_connectors::socket::gateway::{
    Gateway, GatewayConfig, GatewayHandle, GatewayParts, Ingress,
};
use tidewire_connectors::socket::guard::Guard;
use tidewire_connectors::socket::limits::{self, Limits, Patience};
use tidewire_connectors::socket::routes::Pages;
use tidewire_connectors::socket::worker;
use tidewire_engine::fanout::hub::Hub;

use crate::config::Config;
use crate::data::{self, Data};
use crate::ending::Ending;
use crate::pipeline::CaughtUp;
use crate::supervisor::Supervisor;
use crate::{demo, fanout, page, pipeline, telemetry, terminal};

/// How long open sockets are given to take what is pending, once the process is asked to end.
const DRAIN_WINDOW: Duration = Duration::from_secs(1);
/// How long the loops are given to finish their turn and write their state.
const LOOPS_CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Runs until a signal, or until something is lost.
pub fn run(config: &Config) -> Result<(), Ending> {
    let mut supervisor = Supervisor::start()?;
    let ended = serve(&mut supervisor, config);
    let closed = supervisor.drain(LOOPS_CLOSE_LIMIT);
    ended.and(closed)
}

fn serve(supervisor: &mut Supervisor, config: &Config) -> Result<(), Ending> {
    limits::raise_open_files();
    let metrics = telemetry::start()?;
    let (upkeep, stop) = (metrics.clone(), supervisor.stop());
    supervisor.run("metrics", move || {
        telemetry::keep_small(&upkeep, &stop);
        Ok(())
    })?;
    let data = Data::open(config)?;
    let caught_up = pipeline::start(supervisor, config, &data)?;
    let hub = fanout::start(supervisor, config, &data)?;
    let gateway = open_door(config, &data, (&hub, &caught_up, metrics))?;
    let ready = || caught_up.all() && hub.warm();
    let ended = work(supervisor, config, (&gateway, &ready));
    supervisor.ask_to_stop();
    gateway.drain(DRAIN_WINDOW);
    gateway.join();
    ended
}

/// From the open door to whatever ends the process.
fn work(
    supervisor: &mut Supervisor,
    config: &Config,
    (gateway, ready): (&GatewayHandle, &dyn Fn() -> bool),
) -> Result<(), Ending> {
    if !supervisor.wait_until(ready)? {
        return Ok(());
    }
    let url = format!("http://{}", gateway.local_addr());
    terminal::say(&ready_line(&url))?;
    if let Some(rate) = config.demo_rate_per_s {
        let stop = supervisor.stop();
        supervisor.run("demo", move || demo::run(&url, rate, &stop))?;
    }
    let signal = supervisor.wait()?;
    tracing::info!("{signal}: draining");
    Ok(())
}

fn ready_line(url: &str) -> String {
    format!(
        "tidewire is ready: page {url}/  events: curl -N '{url}/v1/sse?channels=timeline:{}'",
        demo::ACCOUNT
    )
}

fn open_door(
    config: &Config,
    data: &Data,
    (hub, caught_up, metrics): (&Arc<Hub>, &CaughtUp, PrometheusHandle),
) -> Result<GatewayHandle, Ending> {
    let appender = data
        .log
        .appender()
        .map_err(|error| Ending::of_log("could not open a producer".into(), error))?;
    let ingress = Ingress { appender, topics: ingest_topics(data), clock: data.clock.clone() };
    let gateway = GatewayConfig {
        listen: config.listen,
        limits: Limits { loopback_is_free: config.insecure_dev, ..Limits::of_process() },
        guard: Guard::default(),
        patience: Patience::default(),
    };
    let workers = worker::start_all(config.gateway.shards, &data.clock, hub).map_err(|error| {
        Ending::because("could not start the threads that serve sockets", error)
    })?;
    let parts = GatewayParts {
        ingress: Some(ingress),
        pages: pages(data, (hub, caught_up, metrics)),
        workers,
    };
    Gateway::start(gateway, parts).map_err(|error| {
        Ending::because(
            format!(
                "could not listen on {}; stop what uses it, or give another --listen (`tidewire \
                 doctor` looks closer)",
                config.listen
            ),
            error,
        )
    })
}

fn ingest_topics(data: &Data) -> IngestTopics {
    let topology = &data.topology;
    IngestTopics {
        input: topology.input().clone(),
        urgent: topology.input_urgent().clone(),
        dead_letters: topology.dead_letters().clone(),
        partitions: topology.partitions(),
    }
}

fn pages(
    data: &Data,
    (hub, caught_up, metrics): (&Arc<Hub>, &CaughtUp, PrometheusHandle),
) -> Pages {
    let (hub, caught_up) = (hub.clone(), caught_up.clone());
    let log = data.log.clone();
    Pages {
        ready: Box::new(move || match (caught_up.all(), hub.warm()) {
            (true, true) => Ok(()),
            (false, _) => Err("the state is being restored; ask again in a moment".into()),
            (_, false) => Err("the newest records are being read; ask again in a moment".into()),
        }),
        metrics: Box::new(move || metrics.render()),
        stats: Box::new(move || match data::report(&*log) {
            Ok(topics) => json!({ "version": env!("CARGO_PKG_VERSION"), "topics": topics }),
            Err(error) => {
                json!({ "version": env!("CARGO_PKG_VERSION"), "error": error.to_string() })
            }
        }),
        assets: page::assets(),
    }
}
