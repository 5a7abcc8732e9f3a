//! Readiness: what each loop of the process has come to, and whether that is enough for work to be
//! sent here.
//!
//! A loop that was made anew is joining again, so a process that lost its log is not ready until it
//! has found it again. A loop to whom the group gave no partitions is ready: it stands by.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidewire_engine::admit::PoisonBreaker;
use tidewire_engine::derive::RestoreProgress;
use tidewire_engine::fanout::hub::Hub;

/// What a loop has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LoopPhase {
    /// It waits for the group to share out partitions.
    Joining = 0,
    /// It restores the state of its partitions.
    Restoring = 1,
    /// It takes records.
    Working = 2,
}

/// Where a loop notes its standing. Cheap to clone.
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

    /// Notes what it has come to.
    pub fn set(&self, phase: LoopPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Notes how far its restores have come.
    pub fn set_restores(&self, restores: Vec<RestoreProgress>) {
        *self.restores.lock().unwrap_or_else(PoisonError::into_inner) = restores;
    }

    /// How far its restores have come.
    fn restores(&self) -> Vec<RestoreProgress> {
        self.restores.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, phase: LoopPhase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

/// What has to be well for the process to be ready. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    /// The loops that take records.
    pub loops: Vec<LoopStatus>,
    /// What stops the loops that read the input.
    pub breakers: Vec<PoisonBreaker>,
    /// The newest records, where they are served.
    pub hub: Option<Arc<Hub>>,
}

impl Readiness {
    /// Whether work may be sent here; if not, what it waits for.
    pub fn check(&self) -> Result<(), String> {
        self.check_started()?;
        match self.breakers.iter().find_map(PoisonBreaker::stopped) {
            Some(stopped) => Err(format!(
                "{stopped}; nothing of that was taken. Mend the producer, or what reads it here; \
                 then `tidewire resume --url URL` with the URL of this process takes the line on, \
                 and what stands in the input by then becomes dead letters where it is no event"
            )),
            None => Ok(()),
        }
    }

    /// How far the restores of every loop have come.
    pub fn restores(&self) -> Vec<RestoreProgress> {
        self.loops.iter().flat_map(LoopStatus::restores).collect()
    }

    /// The same but for an input that stands still, which keeps nobody from being served.
    pub fn check_started(&self) -> Result<(), String> {
        if let Some(joining) = self.loops.iter().find(|status| status.is(LoopPhase::Joining)) {
            let name = joining.loop_name;
            return Err(format!("{name} waits for its partitions; ask again in a moment"));
        }
        if self.loops.iter().any(|status| status.is(LoopPhase::Restoring)) {
            return Err(restore_message(&self.restores()));
        }
        match &self.hub {
            Some(hub) if !hub.warm() => {
                Err("the newest records are being read; ask again in a moment".into())
            }
            _ => Ok(()),
        }
    }
}

/// How much of the state is there, and how long the rest will take.
fn restore_message(restores: &[RestoreProgress]) -> String {
    let (done, total) = restores.iter().fold((0, 0), |(d, t), at| (d + at.done, t + at.total));
    let percent = (done * 100).checked_div(total).unwrap_or(0);
    let left = restores.iter().filter_map(RestoreProgress::left_ms).max();
    let left = left.map(|ms| format!(", about {} s left", ms.div_ceil(1_000)));
    let (tasks, left) = (restores.len(), left.unwrap_or_default());
    format!("the state of {tasks} tasks is being restored: {percent} %{left}; ask again then")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::record::Partition;

    #[test]
    fn it_is_ready_once_every_loop_works_and_says_before_what_it_waits_for() {
        let (admit, derive) = (LoopStatus::new("admit"), LoopStatus::new("derive"));
        let ready =
            Readiness { loops: vec![admit.clone(), derive.clone()], ..Readiness::default() };
        let says = |part: &str| {
            let text = ready.check().expect_err("not ready");
            assert!(text.contains(part), "{text}");
        };
        says("admit waits for its partitions");
        admit.set(LoopPhase::Working);
        says("derive waits for its partitions");
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
        says("admit waits for its partitions");
    }
}
