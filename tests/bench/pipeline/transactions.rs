//! How many partitions a transaction of DERIVE writes to during a phase; each costs time at a
//! broker.
//!
//! The figures are quantiles of the server's own histogram, linear between its bounds.

use std::io;

use tidewire_tests::metric_histogram::MetricHistogram;
use tidewire_tests::server::Server;

use crate::row;

const METRIC: &str = "tidewire_derive_transaction_partitions";

/// The histogram up to now.
pub(crate) fn read(server: &Server) -> io::Result<MetricHistogram> {
    let metrics = server.http().get("/metrics")?.text();
    Ok(MetricHistogram::read(&metrics, METRIC))
}

/// Prints the rows of the transactions since `before`.
pub(crate) fn report(server: &Server, before: &MetricHistogram) -> io::Result<()> {
    let phase = read(server)?.since(before);
    let none = || io::Error::other(format!("{METRIC}: no transaction was committed"));
    row("transactions of DERIVE", phase.count());
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let partitions = phase.quantile(share).ok_or_else(none)?;
        row(&format!("partitions per transaction, {name}"), partitions);
    }
    Ok(())
}
