//! `tidewire replay verify`: executes the history of tasks again and compares it with the log.
//!
//! The log is only read. The embedded log belongs to one process, which has to be stopped first; on
//! Kafka the pipeline may run. A replay starts from a copy of a task's checkpoint, if the data
//! folder has one of this log, and writes only to a temporary folder.

mod scratch;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use tidewire_connectors::rocks::{self, Checkpoint, RocksStores, checkpoints};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Log, LogError};
use tidewire_engine::record::{Millis, Offset, Partition};
use tidewire_engine::replay::{
    Divergence, Point, ReadOnlyLog, ReplayError, ReplayPlan, ReplayRange, Replayed, TaskSpec,
    Verification, VerifyStep,
};
use tidewire_schemas::time::parse_rfc3339;

use crate::build_name::BUILD_NAME;
use crate::cli::{ReplayArgs, ReplayVerb, VerifyArgs};
use crate::config::{Config, LogConfig};
use crate::process_exit::{ProcessExit, in_one_line};
use crate::runtime::pipeline::SETTINGS_HASH;
use crate::runtime::{state_folder, storage};
use crate::{configure, terminal};

use scratch::Scratch;

/// Runs the subcommand.
pub fn run(args: &ReplayArgs) -> Result<(), ProcessExit> {
    let ReplayVerb::Verify(args) = &args.verb;
    let from = args.from.as_deref().map(|text| point("--from", text)).transpose()?;
    let to = args.to.as_deref().map(|text| point("--to", text)).transpose()?;
    let config = configure::with_catalogue(&args.settings)?;
    let tasks = tasks(args, &config)?;
    let verifier = Verifier::open(&config)?;
    let mut summary = VerifySummary::default();
    for partition in tasks {
        verifier.verify(partition, ReplayRange { from, to }, &mut summary)?;
    }
    summary.conclude()
}

fn point(flag: &str, text: &str) -> Result<Point, ProcessExit> {
    if let Ok(offset) = text.parse() {
        return Ok(Point::Offset(Offset(offset)));
    }
    parse_rfc3339(text).map(|ms| Point::Time(Millis(ms))).ok_or_else(|| {
        ProcessExit::Usage(format!(
            "{flag}: {text:?} is neither an offset nor a time; give an offset of `order` such as \
             1200, or a time such as 2026-01-05T10:00:00Z"
        ))
    })
}

fn tasks(args: &VerifyArgs, config: &Config) -> Result<Vec<Partition>, ProcessExit> {
    let count = config.topics.partitions;
    match args.task {
        None => Ok((0..count).map(Partition).collect()),
        Some(task) if task < count => Ok(vec![Partition(task)]),
        Some(task) => Err(ProcessExit::Usage(format!(
            "--task: there is no task {task}; with topics.partitions = {count} give 0 to {}",
            count - 1
        ))),
    }
}

/// The results of all tasks.
#[derive(Default)]
struct VerifySummary {
    identical: u32,
    differing: u32,
    /// Tasks that could not be verified, with the reason.
    refused: Vec<String>,
}

impl VerifySummary {
    fn conclude(self) -> Result<(), ProcessExit> {
        if self.differing > 0 {
            let tasks = self.identical + self.differing;
            return Err(ProcessExit::failed(format!(
                "{} of {tasks} tasks differ: this build makes other outputs from the records than \
                 the log has; the first difference of each is above",
                self.differing
            )));
        }
        match self.refused.as_slice() {
            [] => Ok(()),
            refused => Err(ProcessExit::Usage(format!("not verified\n  {}", refused.join("\n  ")))),
        }
    }
}

/// A log, and the checkpoints of its tasks.
struct Verifier<'a> {
    config: &'a Config,
    log: ReadOnlyLog,
    scratch: Scratch,
    /// The state folder with the checkpoints, if the data folder has one of this log.
    state: Option<PathBuf>,
}

impl<'a> Verifier<'a> {
    fn open(config: &'a Config) -> Result<Self, ProcessExit> {
        let dir = &config.data.dir;
        if config.log == LogConfig::Embedded && fs::metadata(dir.join("log")).is_err() {
            return Err(ProcessExit::failed(format!(
                "there is no data in {}; give another --data-dir, or --log kafka://HOST:PORT",
                dir.display()
            )));
        }
        let log = open_log(config)?;
        storage::refuse_other_layout(config, &*log)?;
        let log = ReadOnlyLog::new(log);
        let topics = log.topics().map_err(|error| log_failed(config, error))?;
        let topology = config.topology();
        let specs = topology.specs();
        if let Some(missing) =
            specs.iter().find(|spec| !topics.iter().any(|info| info.spec.topic == spec.topic))
        {
            return Err(ProcessExit::Usage(format!(
                "there is no topic {}; check topics.prefix",
                missing.topic
            )));
        }
        let state = state_folder::find_for_log(dir, &topics, &topology);
        Ok(Self { config, log, scratch: Scratch::claim(dir)?, state })
    }

    fn verify(
        &self,
        partition: Partition,
        range: ReplayRange,
        summary: &mut VerifySummary,
    ) -> Result<(), ProcessExit> {
        let task = TaskSpec {
            topology: self.config.topology(),
            catalogue: self.config.catalogue(),
            partition,
            build: BUILD_NAME.into(),
            settings_hash: SETTINGS_HASH,
            operators: OPERATORS,
        };
        match self.replay(&task, range) {
            Ok((plan, replayed, None)) => {
                summary.identical += 1;
                terminal::print_line(&format!(
                    "task {}: {}",
                    partition.0,
                    identical(&plan, replayed)
                ))
            }
            Ok((_, replayed, Some(difference))) => {
                summary.differing += 1;
                terminal::print_line(&format!(
                    "task {}: differs after {} transactions: {difference}",
                    partition.0, replayed.transactions
                ))
            }
            Err(VerifyError::Replay(ReplayError::Refused(text))) => {
                summary.refused.push(format!("task {}: {text}", partition.0));
                Ok(())
            }
            Err(VerifyError::Replay(ReplayError::Log(error))) => {
                Err(log_failed(self.config, error))
            }
            Err(VerifyError::Replay(error)) => {
                Err(ProcessExit::failed(format!("task {}: {}", partition.0, in_one_line(&error))))
            }
            Err(VerifyError::Checkpoint(error)) => Err(ProcessExit::because(
                format!(
                    "could not copy a checkpoint of task {}; the task may have removed it \
                     meanwhile: run the command again",
                    partition.0
                ),
                error,
            )),
        }
    }

    fn replay(
        &self,
        task: &TaskSpec,
        range: ReplayRange,
    ) -> Result<(ReplayPlan, Replayed, Option<Divergence>), VerifyError> {
        let kept = match &self.state {
            Some(stores) => checkpoints(stores, task.partition)?,
            None => Vec::new(),
        };
        let offsets: BTreeSet<Offset> = kept.iter().map(|kept| kept.order).collect();
        let plan = task.plan(&self.log, &offsets, range)?;
        let stores =
            self.stores(task.partition, kept.iter().find(|k| plan.checkpoint == Some(k.order)))?;
        let mut verification = Verification::begin(&self.log, task, plan.clone(), &*stores)?;
        let bar = progress_bar(plan.transactions);
        let difference = loop {
            match verification.step()? {
                VerifyStep::Same => bar.inc(1),
                VerifyStep::Done => break None,
                VerifyStep::Differs(difference) => break Some(*difference),
            }
        };
        bar.finish_and_clear();
        Ok((plan, verification.replayed(), difference))
    }

    /// Stores with a copy of this checkpoint, or empty ones.
    fn stores(
        &self,
        partition: Partition,
        checkpoint: Option<&Checkpoint>,
    ) -> io::Result<Arc<RocksStores>> {
        let dir = self.scratch.stores(partition);
        if let Some(checkpoint) = checkpoint {
            checkpoint.restore(&dir, partition)?;
        }
        Ok(RocksStores::new(rocks::Config::new(dir)))
    }
}

/// A running process cannot be asked for a replay, so its lock on the embedded log is an error.
fn open_log(config: &Config) -> Result<Arc<dyn Log>, ProcessExit> {
    storage::open_log(config).map_err(|error| match config.log {
        LogConfig::Embedded => ProcessExit::because(
            "could not open the log for a replay; if a process runs on this data folder, stop it",
            error,
        ),
        LogConfig::Kafka(_) => error,
    })
}

/// Why a task could not be verified.
enum VerifyError {
    Replay(ReplayError),
    Checkpoint(io::Error),
}

impl From<ReplayError> for VerifyError {
    fn from(error: ReplayError) -> Self {
        Self::Replay(error)
    }
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        Self::Checkpoint(error)
    }
}

fn identical(plan: &ReplayPlan, replayed: Replayed) -> String {
    let Replayed { before, transactions, records, outputs, only_hashed } = replayed;
    let mut text = format!(
        "{transactions} transactions, {records} records, {outputs} outputs: identical (order {} \
         to {}, from ",
        plan.from.0, plan.to.0
    );
    match plan.checkpoint {
        Some(at) => text += &format!("the checkpoint at {}", at.0),
        None => text += "the start of the log",
    }
    if before > 0 {
        text += &format!(" by {before} earlier transactions");
    }
    if only_hashed > 0 {
        text += &format!(
            "; {only_hashed} outputs were removed from their topics since (retention); their hash \
             in `order` is identical"
        );
    }
    text + ")"
}

fn log_failed(config: &Config, error: LogError) -> ProcessExit {
    match error {
        LogError::Retry(cause) => ProcessExit::LostLog {
            message: storage::unreachable_message(config),
            source: Some(cause),
        },
        error => ProcessExit::of_log("could not read the log".into(), error),
    }
}

/// A progress bar, hidden if standard error is not a terminal.
fn progress_bar(transactions: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:32} {pos}/{len} transactions, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    ProgressBar::new(transactions).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_an_offset_or_a_time() {
        let of = |text| point("--from", text).map_err(|error| error.to_string());
        assert_eq!(of("1200"), Ok(Point::Offset(Offset(1_200))));
        assert_eq!(of("1970-01-01T00:00:01Z"), Ok(Point::Time(Millis(1_000))));
        let text = of("yesterday").expect_err("neither");
        assert!(text.starts_with("--from: \"yesterday\" is neither"), "{text}");
    }

    #[test]
    fn a_difference_is_a_failure_and_a_refusal_is_usage() {
        let exit =
            |differing, refused| VerifySummary { identical: 1, differing, refused }.conclude();
        assert!(matches!(exit(0, vec![]), Ok(())));
        assert!(matches!(exit(1, vec!["x".into()]), Err(ProcessExit::Failed { .. })));
        assert!(matches!(exit(0, vec!["x".into()]), Err(ProcessExit::Usage(_))));
    }
}
