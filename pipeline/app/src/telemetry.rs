//! The binary's metrics: one function per metric, and the table that says what each one means.
//!
//! Call sites call a function of this file and nothing else, so that the catalogue is complete by
//! construction. Rendering for `/metrics` is here too; there is no listener besides the gateway's.

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::ending::Ending;

/// Name, kind, labels and meaning of every metric of this crate.
pub const CATALOGUE: &[(&str, &str, &str, &str)] = &[
    (
        "tidewire_loop_rebuilds_total",
        "counter",
        "thread",
        "times a loop was made anew after a failure that passes",
    ),
    ("tidewire_demo_events_total", "counter", "", "synthetic events fed by the demo"),
    ("tidewire_build_info", "gauge", "version", "1; the label names the build"),
];

/// A loop was made anew.
pub fn loop_rebuilt(thread: &'static str) {
    counter!("tidewire_loop_rebuilds_total", "thread" => thread).increment(1);
}

/// The demo fed this many events.
pub fn demo_fed(events: u64) {
    counter!("tidewire_demo_events_total").increment(events);
}

/// Collects every metric of the process from now on, and renders them in Prometheus' text form.
pub fn start() -> Result<PrometheusHandle, Ending> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Ending::because("could not start collecting metrics", error))?;
    gauge!("tidewire_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}
