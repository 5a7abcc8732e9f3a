//! Runs the real binary in its own process, on a free port and a temporary folder.
//!
//! Tests measure it, stop or kill it, and start it again on the same data. Dropping a server kills
//! its process by id and removes its folder, and the process does not outlive this one, even if
//! this one is killed. Every panic here includes what the server printed last.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::child_process;
use crate::http::HttpClient;

/// A start on a machine busy with other tests; the product's own target is far below.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long a stop may take on a machine busy with other tests: longer than the product's own
/// limit, so that the product reports what was late.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How often a stopping process is polled.
const POLL: Duration = Duration::from_millis(5);

/// A free port of this machine, chosen by the kernel.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Printed lines kept for messages.
const KEPT_LINES: usize = 200;

/// A running `tidewire dev`, or a role of it, and its data.
#[derive(Debug)]
pub struct Server {
    process: Option<RunningProcess>,
    data_dir: TempDir,
    verb: String,
    args: Vec<String>,
    /// Environment variables, by name.
    variables: Vec<(String, String)>,
    starts: Vec<Duration>,
    /// Where it listens, or listened last.
    last_addr: SocketAddr,
}

#[derive(Debug)]
struct RunningProcess {
    child: Child,
    addr: SocketAddr,
    ready_line: String,
    printed: PrintedLines,
}

type PrintedLines = Arc<Mutex<VecDeque<String>>>;

impl Server {
    /// Starts `tidewire dev` with these further arguments and waits for its ready line.
    pub fn start(args: &[&str]) -> Self {
        Self::start_as("dev", args, &[])
    }

    /// Starts another serving verb, with these settings as environment variables.
    pub fn start_as(verb: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let data_dir = tempfile::Builder::new().prefix("tidewire-test-").tempdir();
        let mut server = Self {
            process: None,
            data_dir: data_dir.expect("the temporary folder can be written"),
            verb: verb.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            variables: variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            starts: Vec::new(),
            last_addr: ANY_PORT,
        };
        server.restart();
        server
    }

    /// Starts it again on the same data, on another free port.
    pub fn restart(&mut self) {
        self.launch(ANY_PORT);
    }

    /// Starts it again on the same data and address, so that clients that retry this address find
    /// it.
    pub fn restart_in_place(&mut self) {
        self.launch(self.last_addr);
    }

    fn launch(&mut self, listen: SocketAddr) {
        assert!(self.process.is_none(), "still running: stop or kill it first");
        let begin = Instant::now();
        let mut command = without_settings(child_process::command(&binary().to_string_lossy()));
        command.args([&self.verb, "--listen", &listen.to_string(), "--data-dir"]);
        command.arg(self.data_dir()).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(&self.args).current_dir(self.data_dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child_process::spawn(command).expect("the binary starts");
        let printed = PrintedLines::default();
        let (found, ready) = mpsc::channel();
        watch(child.stdout.take(), &printed, found.clone());
        watch(child.stderr.take(), &printed, found);
        match ready.recv_timeout(READY_LIMIT) {
            Ok((ready_line, addr)) => {
                self.starts.push(begin.elapsed());
                self.last_addr = addr;
                self.process = Some(RunningProcess { child, addr, ready_line, printed });
            }
            Err(why) => {
                // It may have ended by itself, which the message below shows.
                child.kill().ok();
                let status = child.wait();
                panic!("no ready line ({why}), {status:?}, it printed:\n{}", text(&printed));
            }
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.running().addr
    }

    /// The line it printed when it was ready.
    pub fn ready_line(&self) -> &str {
        &self.running().ready_line
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// How long each start took until the ready line.
    pub fn starts(&self) -> &[Duration] {
        &self.starts
    }

    /// Its data folder, which outlives the process.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.path().join("data")
    }

    /// What it printed last.
    pub fn printed(&self) -> String {
        text(&self.running().printed)
    }

    /// A new HTTP connection to it.
    pub fn http(&self) -> HttpClient {
        HttpClient::connect(self.addr())
            .unwrap_or_else(|error| panic!("{error}; it printed:\n{}", self.printed()))
    }

    /// Kills it with SIGKILL: it gets no chance to write anything.
    pub fn kill9(&mut self) {
        let mut running = self.process.take().expect("a running server");
        running.child.kill().expect("it is our child");
        running.child.wait().expect("it is our child");
    }

    /// Stops it with `SIGTERM`.
    pub fn stop(&mut self) {
        self.stop_by(Signal::TERM);
    }

    /// Sends a signal and expects exit code 0 within [`STOP_LIMIT`]; returns how long that took.
    pub fn stop_by(&mut self, signal: Signal) -> Duration {
        let mut running = self.process.take().expect("a running server");
        let begin = Instant::now();
        let pid = Pid::from_child(&running.child);
        kill_process(pid, signal).expect("it is our child");
        let status = wait(&mut running.child, STOP_LIMIT);
        let took = begin.elapsed();
        let Some(status) = status else {
            running.child.kill().expect("it is our child");
            running.child.wait().expect("it is our child");
            panic!("still there {took:?} after {signal:?}:\n{}", text(&running.printed));
        };
        assert_eq!(status.code(), Some(0), "{status}:\n{}", text(&running.printed));
        took
    }

    /// Pauses it with `SIGSTOP`, as when a machine swaps or is migrated.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes it.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.running().child);
        kill_process(pid, signal).expect("it is our child");
    }

    /// Waits until it ends by itself; returns its exit code and output. Panics if it does not end.
    pub fn ended(&mut self, within: Duration) -> (Option<i32>, String) {
        let mut running = self.process.take().expect("a running server");
        let status = wait(&mut running.child, within);
        // Its last lines may still be in the pipe.
        thread::sleep(POLL * 20);
        let printed = text(&running.printed);
        let Some(status) = status else {
            self.process = Some(running);
            panic!("it goes on after {within:?}:\n{printed}");
        };
        (status.code(), printed)
    }

    /// A value of `/metrics`, by the beginning of its line: name and labels.
    pub fn metric(&self, line: &str) -> Option<f64> {
        let metrics = self.http().get("/metrics").expect("an answer").text();
        let rest = metrics.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        rest.and_then(|number| number.trim().parse().ok())
    }

    /// Runs another verb of the binary against this server, with `input` on standard input.
    pub fn run_verb(&self, args: &[&str], input: Option<&Path>) -> (ExitStatus, String) {
        let url = format!("http://{}", self.addr());
        let stdin = match input {
            Some(path) => std::fs::File::open(path).expect("the input can be read").into(),
            None => Stdio::null(),
        };
        let mut command = command();
        command.args(args).args(["--url", &url]).current_dir(self.data_dir.path());
        let output = command.stdin(stdin).output().expect("the binary starts");
        let printed = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&printed).into_owned())
    }

    fn running(&self) -> &RunningProcess {
        self.process.as_ref().expect("a running server")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.process.take() {
            if thread::panicking() {
                if let Ok(Some(status)) = running.child.try_wait() {
                    eprintln!("tidewire {} has ended by itself: {status}", self.verb);
                }
                eprintln!("what tidewire {} printed:\n{}", self.verb, text(&running.printed));
            }
            // Nothing to do about failures here: the process is gone, or was never ours.
            running.child.kill().ok();
            running.child.wait().ok();
        }
    }
}

/// Waits for a child to end, at most this long.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().expect("it is our child") {
            None if Instant::now() < deadline => thread::sleep(POLL),
            ended => return ended,
        }
    }
}

/// Keeps what a process prints, and sends the first line that contains an HTTP address.
fn watch(
    output: Option<impl Read + Send + 'static>,
    printed: &PrintedLines,
    found: mpsc::Sender<(String, SocketAddr)>,
) {
    let lines = BufReader::new(output.expect("the output is piped")).lines();
    let printed = Arc::clone(printed);
    thread::spawn(move || {
        for line in lines.map_while(io::Result::ok) {
            if let Some(addr) = address_in(&line) {
                // Only the first line is waited for.
                found.send((line.clone(), addr)).ok();
            }
            let mut kept = printed.lock().expect("no thread panics while it holds this");
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    });
}

fn text(printed: &PrintedLines) -> String {
    let kept = printed.lock().expect("no thread panics while it holds this");
    kept.iter().map(|line| format!("  | {line}\n")).collect()
}

/// The address of the first `http://HOST:PORT` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// The binary under test, without settings from the developer's environment.
pub fn command() -> Command {
    without_settings(Command::new(binary()))
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEWIRE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The binary under test: `TIDEWIRE_BIN`, or the one beside this process, built once if outdated.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("TIDEWIRE_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Cargo builds a package's binaries only for that package's own tests, and these are another
/// package's.
fn build() -> PathBuf {
    let this = env::current_exe().expect("Linux knows the path of a process");
    let mut profile_dir = this.parent().expect("a file is in a folder");
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir.parent().expect("a target folder has a parent");
    }
    let binary = profile_dir.join("tidewire");
    if let Some(cargo) = env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--workspace", "--bin", "tidewire", "--target-dir"]);
        command.arg(profile_dir.parent().expect("a profile folder has a parent"));
        if profile_dir.ends_with("release") {
            command.arg("--release");
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo told this process about its package: with these variables, build scripts that
        // read them would run again, here and at the next build, and rebuild all that depends on
        // them.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        let status = command.status().expect("cargo started this process, so it is there");
        assert!(status.success(), "the binary could not be built");
    }
    assert!(binary.exists(), "no {}: run `make` first", binary.display());
    binary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_parsed_from_a_line() {
        let line = "ready: http://127.0.0.1:8080/ and curl -N http://127.0.0.1:8080/v1/sse";
        assert_eq!(address_in(line), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address_in("see http://example.org/"), None);
    }
}
