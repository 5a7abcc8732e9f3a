//! Ends the process when topics that ADMIT or DERIVE read are deleted, created again or extended.
//!
//! Offsets then mean other records, or keys belong to other partitions, and a client that goes on
//! reading by name does not notice. The gateway watches its output topics itself and goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewire_engine::port::{Cause, Log, LogError, TopicInfo};
use tidewire_engine::record::Topic;
use tidewire_engine::topology::{Topology, misfit_sentence, unlisted_sentence};

use crate::process_exit::ProcessExit;
use crate::runtime::clock::Stopwatch;
use crate::runtime::stop_signal::StopSignal;

/// How often the topics are checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How soon a difference is checked again. Brokers differ for a moment.
const RECHECK_AFTER: Duration = Duration::from_secs(2);

/// How long a topic may be missing.
const MISSING_AT_MOST: Duration = Duration::from_secs(60);

/// How long listings may fail before that is reported.
const UNLISTED_REPORTED_AFTER: Duration = Duration::from_secs(30);

/// How often failing listings are logged.
const UNLISTED_LOG_EVERY: Duration = Duration::from_secs(60);

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

/// What the watch has seen. Times are counted from its start.
#[derive(Default)]
struct WatchHistory {
    /// The ids of the topics in the first listing.
    started: Option<BTreeMap<Topic, u128>>,
    /// The difference of the last listing, and since when each listing has had it.
    found: Option<(TopicsDifference, Duration)>,
    unlisted: Option<Unlisted>,
}

/// Listings that fail.
struct Unlisted {
    since: Duration,
    logged: Option<Duration>,
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
        let (mut history, time) = (WatchHistory::default(), Stopwatch::start());
        while !stop.is_requested() {
            let listed = self.log.topics();
            stop.pause(self.observe(&mut history, listed, time.elapsed())?);
        }
        Ok(())
    }

    /// Compares a listing with those before, `now` after the start. Returns the time until the next.
    fn observe(
        &self,
        history: &mut WatchHistory,
        listed: Result<Vec<TopicInfo>, LogError>,
        now: Duration,
    ) -> Result<Duration, ProcessExit> {
        let infos = match listed {
            Ok(infos) => infos,
            // No answer says nothing about the topics, nor that a difference lasts.
            Err(LogError::Retry(cause)) => {
                history.found = None;
                self.report_unlisted(history, &cause, now);
                return Ok(RECHECK_AFTER);
            }
            Err(error) => {
                let message = "the topics could not be listed".to_owned();
                return Err(ProcessExit::of_log(message, error));
            }
        };
        history.unlisted = None;
        let before = history.started.get_or_insert_with(|| self.ids(&infos));
        let difference = self.compare(before, &infos);
        self.problem.set(difference.as_ref().map(|found| self.sentence(found)));
        match (difference, &history.found) {
            (None, _) => history.found = None,
            (Some(found), Some((before, since))) if found == *before => {
                self.end_if_final(&found, now.saturating_sub(*since))?;
            }
            (Some(found), _) => history.found = Some((found, now)),
        }
        Ok(if history.found.is_some() { RECHECK_AFTER } else { CHECK_EVERY })
    }

    /// Reports that the topics could not be listed for a while.
    fn report_unlisted(&self, history: &mut WatchHistory, cause: &Cause, now: Duration) {
        let unlisted = history.unlisted.get_or_insert(Unlisted { since: now, logged: None });
        if now.saturating_sub(unlisted.since) < UNLISTED_REPORTED_AFTER {
            return;
        }
        let sentence = unlisted_sentence(cause);
        if unlisted.logged.is_none_or(|at| now.saturating_sub(at) >= UNLISTED_LOG_EVERY) {
            unlisted.logged = Some(now);
            tracing::warn!("{sentence}");
        }
        self.problem.set(Some(sentence));
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

    use crate::runtime::listed_log::ListedLog;

    /// A watch and the topics that it has seen at its start.
    struct Watched {
        watch: TopicsWatch,
        history: WatchHistory,
        infos: Vec<TopicInfo>,
        now: Duration,
    }

    impl Watched {
        fn new() -> Self {
            let (log, topology) = (Arc::new(ListedLog::default()), Topology::new("t.", 2));
            let specs = topology.specs().into_iter();
            let infos: Vec<_> = specs.map(|spec| TopicInfo { spec, id: 7 }).collect();
            let watch = TopicsWatch { log, topology, problem: TopicsProblem::default() };
            let mut watched =
                Self { watch, history: WatchHistory::default(), infos, now: Duration::ZERO };
            watched.list(&|_| ()).expect("nothing is wrong");
            watched
        }

        /// A listing with this change, at the time when it is due.
        fn list(&mut self, change: &dyn Fn(&mut Vec<TopicInfo>)) -> Result<(), ProcessExit> {
            let mut infos = self.infos.clone();
            change(&mut infos);
            self.observe(Ok(infos))
        }

        fn observe(
            &mut self,
            listed: Result<Vec<TopicInfo>, LogError>,
        ) -> Result<(), ProcessExit> {
            self.now += self.watch.observe(&mut self.history, listed, self.now)?;
            Ok(())
        }

        fn pass_without_answers(&mut self, time: Duration) {
            let until = self.now + time;
            while self.now < until {
                let listed = Err(LogError::Retry("t.in is being deleted".into()));
                self.observe(listed).expect("no answer says nothing");
            }
        }

        /// The sentence with which a lasting change ends the process.
        fn ends(&mut self, change: &dyn Fn(&mut Vec<TopicInfo>)) -> String {
            for _ in 0..100 {
                if let Err(exit) = self.list(change) {
                    assert_eq!(exit.code(), 3, "{exit}");
                    return exit.to_string();
                }
                assert!(self.watch.problem.get().is_some(), "/readyz says so meanwhile");
            }
            panic!("it goes on");
        }
    }

    fn of<'a>(infos: &'a mut [TopicInfo], name: &str) -> &'a mut TopicInfo {
        infos.iter_mut().find(|info| info.spec.topic.as_str() == name).expect("it exists")
    }

    #[test]
    fn each_difference_has_a_sentence_that_names_the_topic_and_what_to_do() {
        let sentence = Watched::new().ends(&|infos| of(infos, "t.in").id += 1);
        assert!(sentence.starts_with("topic t.in was deleted and created again"), "{sentence}");
        assert!(sentence.contains("--group t.admit --topic t.in"), "{sentence}");
        let sentence = Watched::new().ends(&|infos| of(infos, "t.in").spec.partitions = 3);
        assert!(sentence.starts_with("topic t.in has 3 partitions"), "{sentence}");
        let mut watched = Watched::new();
        let sentence = watched.ends(&|infos| of(infos, "t.in").spec.topic = Topic::new("t.x"));
        assert!(sentence.starts_with("topic t.in was deleted while"), "{sentence}");
        assert!(watched.now >= MISSING_AT_MOST, "{:?}", watched.now);
    }

    #[test]
    fn a_time_without_answers_does_not_count_as_a_time_without_topics() {
        let mut watched = Watched::new();
        for _ in 0..3 {
            watched.list(&Vec::clear).expect("one false listing");
            watched.pass_without_answers(MISSING_AT_MOST * 2);
        }
        watched.list(&Vec::clear).expect("one false listing");
        watched.list(&|_| ()).expect("nothing has changed");
        assert_eq!(watched.watch.problem.get(), None);
    }

    #[test]
    fn listings_that_fail_for_a_while_are_reported_with_the_cause() {
        let mut watched = Watched::new();
        watched.pass_without_answers(UNLISTED_REPORTED_AFTER);
        assert_eq!(watched.watch.problem.get(), None, "a broker may start again");
        watched.pass_without_answers(RECHECK_AFTER * 2);
        let problem = watched.watch.problem.get().expect("it is reported");
        assert!(problem.starts_with("the topics can't be listed"), "{problem}");
        assert!(problem.contains("t.in is being deleted"), "{problem}");
        watched.list(&|_| ()).expect("nothing has changed");
        assert_eq!(watched.watch.problem.get(), None);
    }
}
