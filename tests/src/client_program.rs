//! Client programs of other languages: installs what they need, runs them and reads their lines.
//!
//! `tests/clients/install.sh` installs packages into the cache folder and lists commands. A program
//! is ended with its process group.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::child_process;

/// Installs a set of clients and returns what the install script lists: words, by name.
pub fn install(set: &str) -> BTreeMap<String, Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/install.sh");
    let output = Command::new(script).arg(set).stderr(Stdio::inherit()).output();
    let output = output.expect("the script of this repository runs");
    assert!(output.status.success(), "{script} failed; its output is above");
    let text = String::from_utf8(output.stdout).expect("paths in UTF-8");
    let words = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(words).map(|mut line| (line.remove(0), line)).collect()
}

/// The command of a client, for [`child_process::spawn`] or [`PrintingProgram::start`].
pub fn command(words: &[String]) -> Command {
    let mut command = child_process::command(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    // The loopback must not be reached through a proxy of this machine.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

/// A program that runs until it is dropped, and prints lines.
pub struct PrintingProgram {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl PrintingProgram {
    /// Starts a program that does not end by itself.
    pub fn start(mut command: Command) -> Self {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            child_process::spawn(command).expect("setpriv starts a program that is installed");
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take(), "", sender.clone());
        forward(child.stderr.take(), "stderr: ", sender);
        Self { child, lines }
    }

    /// What it has printed since the last call.
    pub fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for PrintingProgram {
    fn drop(&mut self) {
        // With its children, such as the curl of a shell script. It may have ended already.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }
}

fn forward(from: Option<impl Read + Send + 'static>, mark: &'static str, to: mpsc::Sender<String>) {
    let lines = BufReader::new(from.expect("the output is piped")).lines();
    thread::spawn(move || {
        for line in lines.map_while(io::Result::ok) {
            // The receiver is gone once the program was dropped.
            to.send(format!("{mark}{line}")).ok();
        }
    });
}
