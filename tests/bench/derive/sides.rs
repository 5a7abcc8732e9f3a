//! The two sides as processes: start, resource usage, stop.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidewire_engine::record::Topic;
use tidewire_tests::child_process;
use tidewire_tests::process::{Usage, usage};

use crate::fixture::BenchFixture;
use crate::tidewire;

/// How long a side may take to print a line, on a machine under load.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The side that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Tidewire,
    /// Kafka Streams, which commits every so many milliseconds.
    Streams {
        commit_ms: u32,
    },
}

impl Side {
    /// Its name for `--only`, and of the folder of its state.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Tidewire => "tidewire",
            Self::Streams { .. } => "streams",
        }
    }

    /// Its name in tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tidewire => "Tidewire".to_owned(),
            Self::Streams { commit_ms } => format!("Kafka Streams, {commit_ms} ms"),
        }
    }

    /// The consumer group.
    pub(crate) fn group(self, fixture: &BenchFixture) -> String {
        match self {
            Self::Tidewire => fixture.topology.derive_group(),
            Self::Streams { .. } => format!("{}streams", fixture.topology.prefix()),
        }
    }

    /// The topic of its counts.
    pub(crate) fn output(self, fixture: &BenchFixture) -> Topic {
        match self {
            Self::Tidewire => fixture.topology.out_state().clone(),
            Self::Streams { .. } => {
                Topic::new(format!("{}streams-counts", fixture.topology.prefix()))
            }
        }
    }

    /// Starts it.
    pub(crate) fn start(self, fixture: &BenchFixture) -> io::Result<SideProcess> {
        let mut command = match self {
            Self::Tidewire => tidewire_command(fixture)?,
            Self::Streams { commit_ms } => streams_command(fixture, self, commit_ms)?,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child_process::spawn(command)?;
        if self == Self::Tidewire {
            eprintln!("Tidewire's DERIVE is process {}", child.id());
        }
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The receiver may be gone.
                sender.send(line).ok();
            }
        });
        let input = child.stdin.take();
        Ok(SideProcess { child, input, lines })
    }
}

fn tidewire_command(fixture: &BenchFixture) -> io::Result<Command> {
    let this = std::env::current_exe()?;
    let mut command = child_process::command(&this.to_string_lossy());
    command.args([tidewire::SUBCOMMAND, &fixture.bootstrap, fixture.topology.prefix()]);
    command.arg(fixture.dir(Side::Tidewire.kind()));
    Ok(command)
}

fn streams_command(fixture: &BenchFixture, side: Side, commit_ms: u32) -> io::Result<Command> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/kafka-streams/install.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other("Kafka Streams could not be installed; see above"));
    }
    let class_path = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let mut command = child_process::command("java");
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &class_path]);
    command.args(["CountByKey", &fixture.bootstrap, fixture.input()]);
    command.args([side.output(fixture).as_str(), &side.group(fixture)]);
    command.arg(fixture.dir(side.kind())).arg(commit_ms.to_string());
    Ok(command)
}

/// A running side.
pub(crate) struct SideProcess {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl SideProcess {
    /// The resources it has used so far.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        usage(self.child.id())
    }

    /// Waits for a line with this beginning; returns the rest of it.
    pub(crate) fn wait_for_line(&self, beginning: &str) -> io::Result<String> {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT).map_err(io::Error::other)?;
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Kills it, as if its machine was lost.
    pub(crate) fn kill9(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended: {status}"))) }
    }
}

impl Drop for SideProcess {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
