//! Ends the process when topics that ADMIT or DERIVE read are deleted, created again or extended.
//!
//! Offsets then mean other records, or keys belong to other partitions, and a client that goes on
//! reading by name does not notice. The gateway watches its output topics itself and goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewire_engine::port::{Log, LogError, TopicInfo};
use tidewire_engine::record::Topic;
use tidewire_engine::topology::{Topology, misfit_sentence};

use crate::process_exit::ProcessExit;
use crate::runtime::clock::Stopwatch;
use crate::runtime::stop_signal::StopSignal;

/// How often the topics are checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How soon a difference is checked again. Brokers differ for a moment.
const RECHECK_AFTER: Duration = Duration::from_secs(2);

/// How long a topic may be missing.
const MISSING_AT_MOST: Duration = Duration::from_secs(60);

/// A difference between the topics at the start and now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TopicsDifference {
    Missing(Topic),
    Recreated(Topic),
    Extended(Topic, u32),
}

/// What the watch has found, for `/readyz`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TopicsProblem(Arc<Mutex<Option<String>>>);

impl TopicsProblem {
    /// What is wrong with the topics, if anything is.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Watches the topics that roles other than the gateway read.
pub struct TopicsWatch {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The names of the topics and groups.
    pub topology: Topology,
    /// Where a difference is reported.
    pub problem: TopicsProblem,
}

impl TopicsWatch {
    /// Checks until asked to stop. A difference that lasts ends the process with exit code 3.
    pub fn run(&self, stop: &StopSignal) -> Result<(), ProcessExit> {
        let mut started = None;
        let mut found: Option<(TopicsDifference, Stopwatch)> = None;
        while !stop.is_requested() {
            let pause = match self.log.topics() {
                // No answer says nothing about the topics.
                Err(LogError::Retry(_)) => RECHECK_AFTER,
                Err(error) => {
                    let message = "the topics could not be listed".to_owned();
                    return Err(ProcessExit::of_log(message, error));
                }
                Ok(infos) => {
                    let before = started.get_or_insert_with(|| self.ids(&infos));
                    let difference = self.compare(before, &infos);
                    self.problem.set(difference.as_ref().map(|found| self.sentence(found)));
                    match (difference, &found) {
                        (None, _) => found = None,
                        (Some(now), Some((before, since))) if now == *before => {
                            self.end_if_final(&now, since.elapsed())?;
                        }
                        (Some(now), _) => found = Some((now, Stopwatch::start())),
                    }
                    if found.is_some() { RECHECK_AFTER } else { CHECK_EVERY }
                }
            };
            stop.pause(pause);
        }
        Ok(())
    }

    /// The topics that are read, by name.
    fn names(&self) -> Vec<&Topic> {
        let topology = &self.topology;
        let others = [
            topology.input(),
            topology.input_urgent(),
            topology.order(),
            topology.state(),
            topology.windows(),
        ];
        others.into_iter().chain(topology.lanes()).collect()
    }

    fn ids(&self, infos: &[TopicInfo]) -> BTreeMap<Topic, u128> {
        let names = self.names();
        let ours = infos.iter().filter(|info| names.contains(&&info.spec.topic));
        ours.map(|info| (info.spec.topic.clone(), info.id)).collect()
    }

    fn compare(
        &self,
        before: &BTreeMap<Topic, u128>,
        infos: &[TopicInfo],
    ) -> Option<TopicsDifference> {
        self.names().into_iter().find_map(|topic| {
            let info = infos.iter().find(|info| info.spec.topic == *topic);
            match info.filter(|info| info.spec.partitions > 0) {
                None => Some(TopicsDifference::Missing(topic.clone())),
                Some(info) if before.get(topic).is_some_and(|id| *id != info.id) => {
                    Some(TopicsDifference::Recreated(topic.clone()))
                }
                Some(info) if info.spec.partitions != self.topology.partitions() => {
                    Some(TopicsDifference::Extended(topic.clone(), info.spec.partitions))
                }
                Some(_) => None,
            }
        })
    }

    fn end_if_final(
        &self,
        difference: &TopicsDifference,
        since: Duration,
    ) -> Result<(), ProcessExit> {
        match difference {
            TopicsDifference::Missing(_) if since < MISSING_AT_MOST => Ok(()),
            difference => {
                Err(ProcessExit::LostLog { message: self.sentence(difference), source: None })
            }
        }
    }

    fn sentence(&self, difference: &TopicsDifference) -> String {
        match difference {
            TopicsDifference::Missing(topic) => format!(
                "topic {topic} was deleted while this process ran: run `tidewire topics create`, \
                 then start every process of this prefix again"
            ),
            TopicsDifference::Recreated(topic) => {
                let inputs = [self.topology.input(), self.topology.input_urgent()];
                let group = match inputs.contains(&topic) {
                    true => self.topology.admit_group(),
                    false => self.topology.derive_group(),
                };
                format!(
                    "topic {topic} was deleted and created again while this process ran, and \
                     records of the new topic may have been passed over. Stop every process of \
                     this prefix, run `kafka-consumer-groups.sh --bootstrap-server HOST:PORT \
                     --delete-offsets --group {group} --topic {topic}`, so that the new topic is \
                     read from its beginning, and start them again"
                )
            }
            TopicsDifference::Extended(topic, count) => {
                misfit_sentence(topic, *count, self.topology.partitions())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_connectors::embedded::{Config, EmbeddedLog};

    use crate::runtime::clock::SystemClock;

    #[test]
    fn each_difference_has_a_sentence_that_names_the_topic_and_what_to_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = EmbeddedLog::open(Config::new(dir.path()), Arc::new(SystemClock));
        let (log, topology) = (log.expect("a new log"), Topology::new("t.", 2));
        for spec in topology.specs() {
            log.create(&spec).expect("a new topic");
        }
        let infos = log.topics().expect("it lists them");
        let watch = TopicsWatch { log, topology, problem: TopicsProblem::default() };
        let before = watch.ids(&infos);
        assert_eq!(watch.compare(&before, &infos), None);
        let changed = |change: fn(&mut TopicInfo)| {
            let mut infos = infos.clone();
            let input = watch.topology.input();
            change(infos.iter_mut().find(|info| info.spec.topic == *input).expect("it exists"));
            watch.sentence(&watch.compare(&before, &infos).expect("a difference"))
        };
        let sentence = changed(|info| info.id += 1);
        assert!(sentence.starts_with("topic t.in was deleted and created again"), "{sentence}");
        assert!(sentence.contains("--group t.admit --topic t.in"), "{sentence}");
        let sentence = changed(|info| info.spec.partitions = 3);
        assert!(sentence.starts_with("topic t.in has 3 partitions"), "{sentence}");
        let sentence = changed(|info| info.spec.topic = Topic::new("t.other"));
        assert!(sentence.starts_with("topic t.in was deleted while"), "{sentence}");
    }
}
