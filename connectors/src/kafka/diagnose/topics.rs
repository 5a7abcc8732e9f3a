//! Checks that the topics exist as they must be, without creating or changing any.
//!
//! Topics in another layout, or at a value level that this build can't read, are one finding: what
//! else is wrong with them does not matter.
//!
//! A problem that several topics share is one finding that names one of them: a wrong
//! `topics.partitions` is one mistake, not one for each topic.

use std::collections::BTreeMap;

use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::derive::highest_level;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{LogError, TopicSpec};
use tidewire_engine::topics_layout::{
    FoundLayout, LayoutNumber, LayoutRefusal, LogPlace, find_layout,
};
use tidewire_engine::topology::has_one_partition;
use tidewire_engine::value_level::{level_in_force, level_text};

use super::client_log::ClusterView;
use super::rights::{self, Operation, TopicRights};
use super::{DoctorTarget, Finding, pluralize, such_as};
use crate::kafka::admin::{Admin, SettingMismatch};
use crate::kafka::log::KafkaLog;

/// A check of every topic, and what it compares.
pub(super) struct TopicCheck<'a> {
    pub(super) target: &'a DoctorTarget<'a>,
    pub(super) cluster: &'a ClusterView,
    pub(super) admin: &'a Admin,
    pub(super) rights: &'a TopicRights,
}

impl TopicCheck<'_> {
    /// Checks every topic.
    pub(super) fn run(&self, report: &mut dyn FnMut(Finding)) {
        let Self { target, rights, .. } = self;
        let specs = target.topology.specs();
        if rights.missing.len() < specs.len() {
            match self.check_layout(&specs) {
                Ok(None) => {}
                Ok(Some(refusal @ Finding::Fix(_))) => return report(refusal),
                Ok(Some(level)) => report(level),
                Err(why) => report(Finding::Warn(format!("the layout was not checked: {why}"))),
            }
        }
        let is_missing =
            |spec: &&TopicSpec| rights.missing.iter().any(|t| t == spec.topic.as_str());
        let (missing, present): (Vec<_>, Vec<_>) = specs.iter().partition(is_missing);
        let mut wrong = Vec::new();
        if let Some(first) = missing.first() {
            wrong.push(format!(
                "{} of {} topics do not exist, such as {}; create them with `tidewire topics \
                 create`, or correct topics.prefix (\"{}\")",
                missing.len(),
                specs.len(),
                first.topic,
                target.topology.prefix()
            ));
            wrong.extend(self.validate_missing(&missing));
        }
        wrong.extend(self.partition_problems(&present));
        wrong.extend(self.setting_problems(&present));
        if wrong.is_empty() {
            report(self.summary(&present));
        }
        wrong.into_iter().for_each(|text| report(Finding::Fix(text)));
    }

    /// The refusal of topics in another layout or at a higher value level, or else that level. The
    /// error says why it is not known.
    fn check_layout(&self, specs: &[TopicSpec]) -> Result<Option<Finding>, String> {
        let Self { target, rights, .. } = self;
        let may = |topic: &str, operation| {
            rights.allow(topic, operation) || rights.missing.iter().any(|name| name == topic)
        };
        let catalogues = target.topology.catalogues().as_str();
        let describes = |spec: &TopicSpec| may(spec.topic.as_str(), Operation::DescribeConfigs);
        if !may(catalogues, Operation::Read) || !specs.iter().all(describes) {
            return Err(format!("it needs DescribeConfigs on all topics and Read on {catalogues}"));
        }
        let log = KafkaLog::open(target.config.clone()).map_err(|error| super::sentence(&error))?;
        let found = find_layout(&*log, target.topology).map_err(|error| super::sentence(&error))?;
        if found == FoundLayout::Empty && rights.missing.is_empty() {
            return Ok(Some(Finding::Fix(format!(
                "the topics are empty and {catalogues} has no layout record; write it with \
                 `tidewire topics create`"
            ))));
        }
        let refusal = LayoutRefusal::of(target.topology, &found, LayoutNumber::CURRENT);
        let place = LogPlace::Kafka(target.config.bootstrap.clone());
        if refusal.is_some() || found == FoundLayout::Empty {
            return Ok(refusal.map(|refusal| Finding::Fix(refusal.sentence(&place))));
        }
        let highest = highest_level(OPERATORS);
        match level_in_force(&*log, target.topology, highest) {
            Ok(level) => Ok(Some(Finding::Ok(level_text(level, highest)))),
            Err(LogError::Invalid(why)) => Ok(Some(Finding::Fix(why))),
            Err(error) => Err(super::sentence(&error)),
        }
    }

    fn summary(&self, present: &[&TopicSpec]) -> Finding {
        let shows =
            |s: &&&TopicSpec| self.rights.allow(s.topic.as_str(), Operation::DescribeConfigs);
        let shown = present.iter().filter(shows).count();
        let all = pluralize(present.len(), "topic");
        match shown == present.len() {
            true => Finding::Ok(format!("{all} exist with the required settings")),
            false => Finding::Warn(format!(
                "the settings of {shown} of {all} were checked; the others need DescribeConfigs"
            )),
        }
    }

    /// Whether the missing topics could be created.
    fn validate_missing(&self, missing: &[&TopicSpec]) -> Vec<String> {
        let mut denied = Vec::new();
        let mut failed: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for spec in missing {
            match self.admin.validate_create(spec) {
                Ok(()) => {}
                Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                    denied.push(spec.topic.as_str());
                }
                Err(code) => {
                    failed.entry(code.to_string()).or_default().push(spec.topic.as_str());
                    if code == Code::OperationTimedOut {
                        break;
                    }
                }
            }
        }
        let mut wrong = Vec::new();
        if !denied.is_empty() {
            let names = such_as("topic", &denied);
            wrong.push(rights::missing_permission(
                self.target,
                &[Operation::Create],
                "topic",
                &names,
            ));
        }
        for (why, names) in failed {
            wrong.push(format!(
                "creating fails for the {}: {why}; check kafka.replication and kafka.min_insync \
                 against the number of brokers",
                such_as("topic", &names)
            ));
        }
        wrong
    }

    /// Differences in partitions and replicas.
    fn partition_problems(&self, present: &[&TopicSpec]) -> Vec<String> {
        let Self { target, cluster, .. } = self;
        // By the number found and the number needed.
        let mut counts: BTreeMap<(usize, u32), Vec<&TopicSpec>> = BTreeMap::new();
        let mut fewest: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let wanted = target.config.replication.map_or(0, usize::from);
        for spec in present {
            let Some(found) = find(cluster, spec.topic.as_str()) else { continue };
            let partitions = found.partitions().len();
            if partitions != spec.partitions as usize {
                counts.entry((partitions, spec.partitions)).or_default().push(spec);
            }
            let replicas = found.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            if replicas < wanted {
                fewest.entry(replicas).or_default().push(spec.topic.as_str());
            }
        }
        let mut wrong = Vec::new();
        let shared = present.iter().filter(|spec| !has_one_partition(&spec.topic)).count();
        for ((partitions, wanted), specs) in counts {
            let fix = match specs.iter().filter(|spec| !has_one_partition(&spec.topic)).count() {
                0 => "set another topics.prefix for a new set of topics".to_owned(),
                wrong if wrong == shared => format!(
                    "set topics.partitions = {partitions}, or another topics.prefix for a new set \
                     of topics"
                ),
                _ => "the other topics have another number: set another topics.prefix for a new \
                      set of topics"
                    .to_owned(),
            };
            let names: Vec<&str> = specs.iter().map(|spec| spec.topic.as_str()).collect();
            wrong.push(format!(
                "{} instead of {wanted} in the {}; {fix}",
                pluralize(partitions, "partition"),
                such_as("topic", &names)
            ));
        }
        for (replicas, names) in fewest {
            let replicas =
                if replicas == 1 { "one replica".into() } else { format!("{replicas} replicas") };
            wrong.push(format!(
                "{replicas} of each partition instead of {wanted} in the {}; add replicas with \
                 `kafka-reassign-partitions.sh`, or lower kafka.replication",
                such_as("topic", &names)
            ));
        }
        wrong
    }

    /// Differences in settings, as far as this user may read them.
    fn setting_problems(&self, present: &[&TopicSpec]) -> Vec<String> {
        let Self { admin, rights, .. } = self;
        let allowed = |s: &&&TopicSpec| rights.allow(s.topic.as_str(), Operation::DescribeConfigs);
        let present: Vec<&TopicSpec> = present.iter().filter(allowed).copied().collect();
        if present.is_empty() {
            return Vec::new();
        }
        let names: Vec<&str> = present.iter().map(|spec| spec.topic.as_str()).collect();
        let described = match admin.describe(&names) {
            Ok(described) => described,
            Err(error) => return vec![super::sentence(&error)],
        };
        let mut alike: BTreeMap<Vec<SettingMismatch>, Vec<&str>> = BTreeMap::new();
        for (spec, found) in present.into_iter().zip(&described) {
            alike.entry(admin.mismatches(spec, found)).or_default().push(spec.topic.as_str());
        }
        let name = |(wrong, names): (Vec<SettingMismatch>, Vec<&str>)| {
            let (first, rest) = names.split_first().filter(|_| !wrong.is_empty())?;
            Some(format!(
                "{} in the {}; correct it with `{}`{}, or set another topics.prefix",
                SettingMismatch::list(&wrong),
                such_as("topic", &names),
                admin.alter_command(first, &wrong),
                if rest.is_empty() { "" } else { " and likewise for each of them" }
            ))
        };
        alike.into_iter().filter_map(name).collect()
    }
}

/// A topic in the cluster's metadata.
pub(super) fn find<'a>(cluster: &'a ClusterView, topic: &str) -> Option<&'a MetadataTopic> {
    cluster.metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none())
}
