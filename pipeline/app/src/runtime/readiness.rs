//! Readiness of the process, from the phase of each loop; `/readyz` shows it.
//!
//! A rebuilt loop is joining again, so a process that lost its log is not ready until it has
//! rejoined its groups. A loop that the group assigned no partitions is ready: it is a spare.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidewire_engine::admit::{PoisonBreaker, WaitingPartitions};
use tidewire_engine::derive::RestoreProgress;
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::port::Log;

use crate::runtime::topics_watch::TopicsProblem;

/// The phase of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LoopPhase {
    /// It waits for the group to assign partitions.
    Joining = 0,
    /// It restores the state of its partitions.
    Restoring = 1,
    /// It processes records.
    Working = 2,
}

/// Where a loop records its phase and the progress of its restores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LoopStatus {
    loop_name: &'static str,
    phase: Arc<AtomicU8>,
    restores: Arc<Mutex<Vec<RestoreProgress>>>,
}

impl LoopStatus {
    /// A loop that is joining.
    pub fn new(loop_name: &'static str) -> Self {
        let phase = Arc::new(AtomicU8::new(LoopPhase::Joining as u8));
        Self { loop_name, phase, restores: Arc::default() }
    }

    /// Records its phase.
    pub fn set(&self, phase: LoopPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Records the progress of its restores.
    pub fn set_restores(&self, restores: Vec<RestoreProgress>) {
        *self.restores.lock().unwrap_or_else(PoisonError::into_inner) = restores;
    }

    /// The progress of its restores.
    fn restores(&self) -> Vec<RestoreProgress> {
        self.restores.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, phase: LoopPhase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

/// What has to work for the process to be ready. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    /// The loops that process records.
    pub loops: Vec<LoopStatus>,
    /// The poison breakers of the loops that read the input.
    pub breakers: Vec<PoisonBreaker>,
    /// The partitions of the input that wait for the schema registry.
    pub waiting: Vec<WaitingPartitions>,
    /// What is wrong with the topics that ADMIT and DERIVE read.
    pub topics: TopicsProblem,
    /// The log, which names the partitions that can't be read.
    pub log: Option<Arc<dyn Log>>,
    /// The hub, in a process that serves subscribers.
    pub hub: Option<Arc<Hub>>,
}

impl Readiness {
    /// Whether the process is ready; if not, what it waits for. Problems that an administrator has
    /// to solve come first: a restore that waits for an unreadable partition never ends.
    pub fn check(&self) -> Result<(), String> {
        let output_problem = || self.hub.as_ref().and_then(|hub| hub.problem());
        if let Some(problem) = self.topics.get().or_else(output_problem) {
            return Err(problem);
        }
        let mut unreadable = self.log.as_ref().map(|log| log.read_problems()).unwrap_or_default();
        unreadable.extend(self.hub.iter().flat_map(|hub| hub.unanswered()));
        if let Some(first) = first_of(&unreadable, "can't be read either") {
            return Err(format!("{first}. It is tried again every few seconds"));
        }
        let waiting: Vec<String> =
            self.waiting.iter().flat_map(WaitingPartitions::sentences).collect();
        if let Some(first) = first_of(&waiting, "wait too") {
            return Err(format!("{first}. It goes on by itself when the registry answers"));
        }
        self.check_started()?;
        match self.breakers.iter().find_map(PoisonBreaker::stopped) {
            Some(stopped) => Err(format!(
                "{stopped}; none of these records was processed. Fix the producer, or deploy a \
                 build that reads its records; then run `tidewire resume --url URL` with the URL \
                 of this process. Records that are invalid then become dead letters"
            )),
            None => Ok(()),
        }
    }

    /// The progress of the restores of every loop.
    pub fn restores(&self) -> Vec<RestoreProgress> {
        self.loops.iter().flat_map(LoopStatus::restores).collect()
    }

    /// The same without the poison limit: subscribers are served while ADMIT is stopped.
    pub fn check_started(&self) -> Result<(), String> {
        if let Some(joining) = self.loops.iter().find(|status| status.is(LoopPhase::Joining)) {
            let name = joining.loop_name;
            return Err(format!("{name} is waiting for its partitions; try again in a moment"));
        }
        if self.loops.iter().any(|status| status.is(LoopPhase::Restoring)) {
            return Err(restore_message(&self.restores()));
        }
        match &self.hub {
            Some(hub) => match hub.problem() {
                Some(problem) => Err(problem),
                None if !hub.warm() => {
                    Err("the newest outputs are being read from the log; try again in a moment"
                        .into())
                }
                None if !hub.fold_warm() => {
                    Err("the state of channels is being read from the log; try again in a moment"
                        .into())
                }
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// The first of some sentences about partitions, and how many more there are.
fn first_of(sentences: &[String], what: &str) -> Option<String> {
    let (first, others) = sentences.split_first()?;
    Some(match others.len() {
        0 => first.clone(),
        more => format!("{first} ({more} more partitions {what})"),
    })
}

/// How much of the state is restored, and how long the rest will take.
fn restore_message(restores: &[RestoreProgress]) -> String {
    let (done, total) = restores.iter().fold((0, 0), |(d, t), at| (d + at.done, t + at.total));
    let percent = (done * 100).checked_div(total).unwrap_or(0);
    let left = restores.iter().filter_map(RestoreProgress::left_ms).max();
    let left = left.map(|ms| format!(", about {} s left", ms.div_ceil(1_000)));
    let (tasks, left) = (restores.len(), left.unwrap_or_default());
    format!("the state of {tasks} tasks is being restored: {percent} %{left}; try again then")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::fanout::config::FanoutConfig;
    use tidewire_engine::port::TopicInfo;
    use tidewire_engine::record::Partition;
    use tidewire_engine::topology::Topology;

    use crate::runtime::listed_log::ListedLog;

    #[test]
    fn it_is_ready_once_every_loop_works_and_names_what_it_waits_for() {
        let (admit, derive) = (LoopStatus::new("admit"), LoopStatus::new("derive"));
        let ready =
            Readiness { loops: vec![admit.clone(), derive.clone()], ..Readiness::default() };
        let says = |part: &str| {
            let text = ready.check().expect_err("not ready");
            assert!(text.contains(part), "{text}");
        };
        says("admit is waiting for its partitions");
        admit.set(LoopPhase::Working);
        says("derive is waiting for its partitions");
        derive.set(LoopPhase::Restoring);
        let at = |partition, done| RestoreProgress {
            partition: Partition(partition),
            done,
            total: 1_000,
            elapsed_ms: 4_000,
        };
        derive.set_restores(vec![at(0, 0), at(1, 500)]);
        says("the state of 2 tasks is being restored: 25 %, about 4 s left");
        derive.set_restores(Vec::new());
        derive.set(LoopPhase::Working);
        assert_eq!(ready.check(), Ok(()));
        admit.set(LoopPhase::Joining);
        says("admit is waiting for its partitions");
    }

    #[test]
    fn topics_and_partitions_that_need_an_administrator_come_before_restores_and_warm_up() {
        let derive = LoopStatus::new("derive");
        let log = Arc::new(ListedLog::default());
        let topics = TopicsProblem::default();
        let ready = Readiness {
            loops: vec![derive.clone()],
            topics: topics.clone(),
            log: Some(log.clone()),
            ..Readiness::default()
        };
        for phase in [LoopPhase::Joining, LoopPhase::Restoring] {
            derive.set(phase);
            log.set_read_problems(&["t.order/3 can't be read at offset 7: damaged"]);
            let text = ready.check().expect_err("a restore waits for it");
            assert!(text.starts_with("t.order/3 can't be read at offset 7: damaged"), "{text}");
            topics.set(Some("topic t.order was deleted".to_owned()));
            assert_eq!(ready.check(), Err("topic t.order was deleted".to_owned()));
            topics.set(None);
            log.set_read_problems(&[]);
            let text = ready.check().expect_err("it has not started");
            assert!(text.contains("waiting") || text.contains("restored"), "{text}");
        }
    }

    #[test]
    fn an_unreadable_output_comes_before_the_warm_up() {
        let topology = Topology::new("t.", 1);
        let log = Arc::new(ListedLog::default());
        let infos = topology.specs().into_iter().map(|spec| TopicInfo { spec, id: 1 }).collect();
        log.set_topics(Ok(infos));
        let hub = Hub::open(&*log, &topology, FanoutConfig::default()).expect("the topics fit");
        let ready = Readiness { log: Some(log.clone()), hub: Some(hub), ..Readiness::default() };
        let text = ready.check().expect_err("nothing was read");
        assert!(text.starts_with("the newest outputs are being read"), "{text}");
        log.set_read_problems(&["t.out.stream/0 can't be read at offset 7: damaged"]);
        let text = ready.check().expect_err("it never will be");
        assert!(text.starts_with("t.out.stream/0 can't be read at offset 7"), "{text}");
    }
}
