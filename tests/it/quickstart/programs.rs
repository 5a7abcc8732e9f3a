//! Runs the programs of the quickstart in one folder, with the packages that
//! `tests/clients/install.sh quickstart` installs.
//!
//! A program runs as it is printed. Only the document's address is replaced by that of the server
//! under test. A program that hangs is ended by `timeout` or with its process group.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tidewire_tests::child_process;

/// Seconds a sending program may take; it retries failed requests.
const SEND_LIMIT_S: &str = "120";

/// The snippets as files, and how each is run.
pub(super) struct Programs {
    folder: TempDir,
}

/// A program that runs until it is dropped.
pub(super) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

/// What the install script lists, by name.
fn installed() -> &'static BTreeMap<String, Vec<String>> {
    static INSTALLED: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/install.sh");
        let output = Command::new(script).arg("quickstart").stderr(Stdio::inherit()).output();
        let output = output.expect("the script of this repository runs");
        assert!(output.status.success(), "{script} failed; its output is above");
        let text = String::from_utf8(output.stdout).expect("paths in UTF-8");
        let words = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(words).map(|mut line| (line.remove(0), line)).collect()
    })
}

impl Programs {
    /// Writes the snippets with another address in place of the document's.
    pub(super) fn write(snippets: &BTreeMap<String, String>, address: (&str, &str)) -> Self {
        let folder = tempfile::Builder::new().prefix("tidewire-quickstart-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        for (name, text) in snippets {
            let text = text.replace(address.0, address.1);
            fs::write(folder.path().join(name), text).expect("the temporary folder can be written");
        }
        let modules = &installed()["node_modules"][0];
        symlink(modules, folder.path().join("node_modules")).expect("the folder is new");
        for name in ["go.mod", "go.sum"] {
            let from = Path::new(&installed()["go_module"][0]).join(name);
            fs::copy(&from, folder.path().join(name)).expect("the script has put it there");
        }
        Self { folder }
    }

    /// The text of a snippet with the address replaced.
    pub(super) fn text(&self, file: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(file));
        text.unwrap_or_else(|error| panic!("no snippet {file}: {error}"))
    }

    /// Runs a program to its end and returns what it printed.
    pub(super) fn run(&self, file: &str) -> String {
        let limit = ["timeout", "--kill-after=5", SEND_LIMIT_S].map(str::to_owned);
        let mut command = self.prepare([limit.to_vec(), self.words(file)].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child =
            child_process::spawn(command).expect("setpriv starts a program that is installed");
        let output = child.wait_with_output().expect("it is our child");
        let printed =
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{file} ended with {}:\n{printed}", output.status);
        printed
    }

    /// Starts a program that does not end by itself.
    pub(super) fn start(&self, file: &str) -> Running {
        let mut command = self.prepare(self.words(file));
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            child_process::spawn(command).expect("setpriv starts a program that is installed");
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take(), "", sender.clone());
        forward(child.stderr.take(), "stderr: ", sender);
        Running { child, lines }
    }

    /// How the document says that a file is run.
    fn words(&self, file: &str) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let (_, kind) = file.rsplit_once('.').expect("a snippet's name has an ending");
        match kind {
            "sh" => words(&["bash", file]),
            "py" => [installed()["python"].clone(), words(&[file])].concat(),
            "mjs" => words(&["node", file]),
            "go" => vec![self.compile(file).to_string_lossy().into_owned()],
            "java" => words(&["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", file]),
            _ => panic!("{file}: no way to run it is known"),
        }
    }

    /// `go run` would leave the program running when it is killed itself.
    fn compile(&self, file: &str) -> PathBuf {
        let program = self.folder.path().join(file.replace('.', "-"));
        if !program.exists() {
            let output = program.to_string_lossy().into_owned();
            let build = ["build", "-o", output.as_str(), file].map(str::to_owned);
            let mut command = self.prepare([installed()["go"].clone(), build.to_vec()].concat());
            let compiled = command.output().expect("setpriv starts a program that is installed");
            let printed = String::from_utf8_lossy(&compiled.stderr);
            assert!(compiled.status.success(), "{file} does not compile:\n{printed}");
        }
        program
    }

    fn prepare(&self, words: Vec<String>) -> Command {
        let mut command = child_process::command(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).stdin(Stdio::null());
        // The loopback must not be reached through a proxy of this machine.
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command
    }
}

impl Running {
    /// What it has printed since the last call.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Running {
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
