//! The two sides as processes: started, asked what they have used, told to end.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidewire_engine::record::Topic;
use tidewire_tests::keeper;
use tidewire_tests::process::{Usage, usage};

use crate::ground::Ground;
use crate::tidewire;

/// How long a side may take to say something, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Tidewire,
    /// Kafka Streams, which commits every so many milliseconds.
    Streams {
        commit_ms: u32,
    },
}

impl Side {
    /// What `--only` calls it; also the folder of its state.
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
    pub(crate) fn group(self, ground: &Ground) -> String {
        match self {
            Self::Tidewire => ground.topology.derive_group(),
            Self::Streams { .. } => format!("{}streams", ground.topology.prefix()),
        }
    }

    /// Where its counts come out.
    pub(crate) fn output(self, ground: &Ground) -> Topic {
        match self {
            Self::Tidewire => ground.topology.out_state().clone(),
            Self::Streams { .. } => {
                Topic::new(format!("{}streams-counts", ground.topology.prefix()))
            }
        }
    }

    /// Starts it.
    pub(crate) fn start(self, ground: &Ground) -> io::Result<Running> {
        let mut command = match self {
            Self::Tidewire => tidewire_command(ground)?,
            Self::Streams { commit_ms } => streams_command(ground, self, commit_ms)?,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = keeper::spawn(command)?;
        if self == Self::Tidewire {
            eprintln!("Tidewire's DERIVE is process {}", child.id());
        }
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody may want to know any more.
                sender.send(line).ok();
            }
        });
        let input = child.stdin.take();
        Ok(Running { child, input, said })
    }
}

fn tidewire_command(ground: &Ground) -> io::Result<Command> {
    let this = std::env::current_exe()?;
    let mut command = keeper::command(&this.to_string_lossy());
    command.args([tidewire::WORD, &ground.bootstrap, ground.topology.prefix()]);
    command.arg(ground.dir(Side::Tidewire.kind()));
    Ok(command)
}

fn streams_command(ground: &Ground, side: Side, commit_ms: u32) -> io::Result<Command> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/kafka-streams/install.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other("Kafka Streams could not be installed; see above"));
    }
    let class_path = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let mut command = keeper::command("java");
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &class_path]);
    command.args(["CountByKey", &ground.bootstrap, ground.input()]);
    command.args([side.output(ground).as_str(), &side.group(ground)]);
    command.arg(ground.dir(side.kind())).arg(commit_ms.to_string());
    Ok(command)
}

/// A side at work.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    said: mpsc::Receiver<String>,
}

impl Running {
    /// What it has used so far.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        usage(self.child.id())
    }

    /// Waits for a line that begins so; returns the rest of it.
    pub(crate) fn hear(&self, beginning: &str) -> io::Result<String> {
        loop {
            let line = self.said.recv_timeout(PATIENCE).map_err(io::Error::other)?;
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Ends it at once, as a lost machine does.
    pub(crate) fn kill9(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Ends it in good order.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended: {status}"))) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
