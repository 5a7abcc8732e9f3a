//! Parses Prometheus's configuration and the alerts into types that refuse unknown keys.
//!
//! `tidy` checks that alerts name existing metrics; these tests check that Prometheus would load
//! the files, and that each alert has what an administrator needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::deploy::compose::{Compose, duration, file};

/// The file that the service mounts.
const CONFIG: &str = "deploy/prometheus/prometheus.yml";
/// The alerts beside it.
const ALERTS: &str = "deploy/prometheus/alerts.yml";

/// The scrape configuration and the rule files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrometheusConfig {
    global: Global,
    rule_files: Vec<String>,
    scrape_configs: Vec<ScrapeJob>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Global {
    scrape_interval: String,
    scrape_timeout: String,
    evaluation_interval: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeJob {
    job_name: String,
    static_configs: Vec<Targets>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alerts {
    groups: Vec<AlertGroup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertGroup {
    name: String,
    rules: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl PrometheusConfig {
    /// Reads the file of this repository.
    pub(crate) fn read() -> Self {
        serde_saphyr::from_str(&file(CONFIG)).unwrap_or_else(|why| panic!("{CONFIG}: {why}"))
    }

    /// Each target's address, by the role its label names.
    pub(crate) fn targets(&self) -> BTreeMap<String, String> {
        let all = self.scrape_configs.iter().flat_map(|job| &job.static_configs);
        let mut by_role = BTreeMap::new();
        for Targets { targets, labels } in all {
            let role = labels.get("role").expect("a target has a role label");
            let [address] = &targets[..] else { panic!("{role}: one target each") };
            let before = by_role.insert(role.clone(), address.clone());
            assert!(before.is_none(), "{role} is scraped twice");
        }
        by_role
    }
}

/// The option of a command with this beginning.
fn option<'a>(command: &'a [String], name: &str) -> &'a str {
    let found = command.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("prometheus has no option {name}"))
}

#[test]
fn prometheus_finds_its_configuration_alerts_and_volume() {
    let compose = Compose::read();
    let service = compose.service("prometheus");
    let mounts = service.mounts();
    let target_of = |source: &str| {
        let found = mounts.iter().find(|mount| mount.source.trim_start_matches("./") == source);
        found.unwrap_or_else(|| panic!("{source} is not mounted")).target.as_str()
    };
    assert_eq!(target_of(CONFIG), option(&service.command, "--config.file"));
    assert_eq!(PrometheusConfig::read().rule_files, [target_of(ALERTS)]);
    let data = option(&service.command, "--storage.tsdb.path");
    assert!(mounts.iter().any(|mount| mount.target == data && !mount.read_only), "{mounts:?}");
    option(&service.command, "--storage.tsdb.retention.size");
}

#[test]
fn it_scrapes_every_role_at_its_address() {
    let compose = Compose::read();
    let listens: BTreeMap<String, String> = compose
        .roles()
        .map(|(name, service, _)| (name.to_owned(), service.environment["TIDEWIRE_LISTEN"].clone()))
        .collect();
    assert_eq!(PrometheusConfig::read().targets(), listens);
}

#[test]
fn a_scrape_times_out_before_the_next_one_begins() {
    let PrometheusConfig { global, scrape_configs, .. } = PrometheusConfig::read();
    assert!(duration(&global.scrape_timeout) < duration(&global.scrape_interval));
    assert!(duration(&global.scrape_interval) <= duration(&global.evaluation_interval));
    let names: BTreeSet<&str> = scrape_configs.iter().map(|job| job.job_name.as_str()).collect();
    assert_eq!(names.len(), scrape_configs.len(), "jobs have names of their own");
}

#[test]
fn each_alert_has_a_severity_a_summary_and_a_first_step() {
    let alerts: Alerts =
        serde_saphyr::from_str(&file(ALERTS)).unwrap_or_else(|why| panic!("{ALERTS}: {why}"));
    let mut seen = BTreeSet::new();
    for group in &alerts.groups {
        assert!(!group.rules.is_empty(), "{}: a group without rules", group.name);
        for alert in &group.rules {
            let name = &alert.alert;
            assert!(seen.insert(name), "{name} is defined twice");
            assert!(alert.expr.contains("tidewire_"), "{name}: {}", alert.expr);
            let severity = alert.labels.get("severity").map(String::as_str);
            assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
            for part in ["summary", "runbook"] {
                let text = alert.annotations.get(part).map_or("", String::as_str);
                assert!(text.ends_with('.'), "{name}: {part}: {text:?} is not a sentence");
            }
            if let Some(lasting) = &alert.lasting {
                duration(lasting);
            }
        }
    }
    assert!(seen.len() > 5, "there are alerts: {seen:?}");
}
