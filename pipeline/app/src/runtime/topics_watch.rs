//! Ends the process when topics of ADMIT or DERIVE are deleted, created again or extended.
//!
//! Offsets then mean other records, or keys belong to other partitions, and a client that goes on
//! reading by name does not notice. A topic that they only write to may be created again, but not
//! stay away: their loops would be created again for ever. The gateway watches the outputs itself
//! and goes on when they are created again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tidewire_engine::port::{Cause, Log, LogError, TopicInfo};
use tidewire_engine::record::Topic;
use tidewire_engine::topology::{Topology, unlisted_sentence};

use crate::process_exit::ProcessExit;
use crate::runtime::clock::{self, Stopwatch};
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::topics_difference::{TopicsDifference, topic_ids};

/// How often the topics are checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// How soon a difference is checked again. Brokers differ for a moment.
const RECHECK_AFTER: Duration = Duration::from_secs(2);

/// How long a topic may be missing.
const MISSING_AT_MOST: Duration = Duration::from_secs(60);

/// How long topics may be missing while others were created again or extended.
const MISSING_BESIDE_OTHERS_AT_MOST: Duration = Duration::from_secs(10);

/// How long listings may fail before that is reported.
const UNLISTED_REPORTED_AFTER: Duration = Duration::from_secs(30);

/// How often failing listings are logged.
const UNLISTED_LOG_EVERY: Duration = Duration::from_secs(60);

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
    /// The difference of the last listing, and since when each listing has had it.
    found: Option<(TopicsDifference, Duration)>,
    unlisted: Option<Unlisted>,
}

/// Listings that fail.
struct Unlisted {
    since: Duration,
    logged: Option<Duration>,
}

/// Watches the topics that roles other than the gateway read and write.
pub struct TopicsWatch {
    log: Arc<dyn Log>,
    topology: Topology,
    /// Where a difference is reported.
    problem: TopicsProblem,
    /// The ids of the topics in the first listing.
    started: OnceLock<BTreeMap<Topic, u128>>,
}

impl TopicsWatch {
    /// A watch over these topics, which reports to `problem`.
    pub fn new(log: Arc<dyn Log>, topology: Topology, problem: TopicsProblem) -> Self {
        Self { log, topology, problem, started: OnceLock::new() }
    }

    /// Checks until asked to stop. A difference that lasts ends the process with exit code 3.
    pub fn run(&self, stop: &StopSignal) -> Result<(), ProcessExit> {
        let (mut history, time) = (WatchHistory::default(), Stopwatch::start());
        while !stop.is_requested() {
            let listed = self.log.topics();
            stop.pause(self.observe(&mut history, listed, time.elapsed())?);
        }
        Ok(())
    }

    /// Compares a listing with those before. Returns the time until the next.
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
        let started = self.started.get_or_init(|| topic_ids(&self.topology, &infos));
        let difference = TopicsDifference::find(&self.topology, started, &infos);
        self.problem.set(difference.as_ref().map(|found| found.sentence(&self.topology)));
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

    /// What to do about topics that were created again, for a process that ends because a position
    /// is beyond a topic's end: this watch may not have looked yet. `None`: none was. Waits a
    /// moment for topics that are just being created.
    pub fn explain_lost_positions(&self) -> Option<String> {
        let (started, time) = (self.started.get()?, Stopwatch::start());
        let mut last = None;
        loop {
            let infos = self.log.topics().ok()?;
            let found = TopicsDifference::find(&self.topology, started, &infos)?;
            let is_settled = last.as_ref() == Some(&found) && !found.has_missing();
            if is_settled || time.elapsed() >= MISSING_BESIDE_OTHERS_AT_MOST {
                return found.has_recreated().then(|| found.sentence(&self.topology));
            }
            last = Some(found);
            clock::pause(RECHECK_AFTER);
        }
    }

    /// Ends the process if a difference will not pass. Topics that are missing beside others are
    /// probably about to be created again, and then they are named too.
    fn end_if_final(&self, found: &TopicsDifference, since: Duration) -> Result<(), ProcessExit> {
        let wait = match (found.has_missing(), found.has_lasting()) {
            (true, false) => MISSING_AT_MOST,
            (true, true) => MISSING_BESIDE_OTHERS_AT_MOST,
            (false, _) => Duration::ZERO,
        };
        if since < wait {
            return Ok(());
        }
        Err(ProcessExit::LostLog { message: found.sentence(&self.topology), source: None })
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
            let watch = TopicsWatch::new(log, topology, TopicsProblem::default());
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

        fn observe(&mut self, listed: Result<Vec<TopicInfo>, LogError>) -> Result<(), ProcessExit> {
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
    fn all_topics_that_are_created_again_one_after_the_other_are_named() {
        let mut watched = Watched::new();
        let again = |infos: &mut Vec<TopicInfo>| of(infos, "t.in").id = 8;
        let missing = |infos: &mut Vec<TopicInfo>| {
            again(infos);
            infos.retain(|info| info.spec.topic.as_str() != "t.lane.high");
        };
        watched.list(&again).expect("it is looked at again");
        for _ in 0..4 {
            watched.list(&missing).expect("the other one is about to be created");
        }
        let sentence = watched.ends(&|infos| {
            again(infos);
            of(infos, "t.lane.high").id = 8;
        });
        assert!(sentence.starts_with("topics t.in and t.lane.high were deleted"), "{sentence}");
        let sentence = Watched::new().ends(&missing);
        assert!(sentence.contains("topic t.lane.high was deleted while"), "{sentence}");
        assert!(sentence.contains("topic t.in was deleted and created again"), "{sentence}");
    }

    #[test]
    fn a_lost_position_is_explained_by_all_topics_that_were_created_again() {
        let (log, topology) = (Arc::new(ListedLog::default()), Topology::new("t.", 2));
        let specs = topology.specs().into_iter();
        let mut infos: Vec<_> = specs.map(|spec| TopicInfo { spec, id: 7 }).collect();
        let watch = TopicsWatch::new(log.clone(), topology, TopicsProblem::default());
        let first = watch.observe(&mut WatchHistory::default(), Ok(infos.clone()), Duration::ZERO);
        first.expect("nothing is wrong");
        log.set_topics(Ok(infos.clone()));
        assert_eq!(watch.explain_lost_positions(), None);
        ["t.in", "t.order"].iter().for_each(|name| of(&mut infos, name).id = 8);
        log.set_topics(Ok(infos));
        let text = watch.explain_lost_positions().expect("they were created again");
        assert!(text.contains("topic t.in was") && text.contains("topic t.order was"), "{text}");
        log.set_topics(Err("no broker answers".to_owned()));
        assert_eq!(watch.explain_lost_positions(), None);
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
