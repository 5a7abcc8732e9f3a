//! One broker: its folder, its process, and what tests do with it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::broker_dir::BrokerDir;
use super::clock::BrokerClock;
use super::setup::Setup;
use super::{java, secure};
use crate::child_process;

/// A start on a machine busy with other tests and builds; it usually takes two seconds.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// A clean stop, which flushes everything.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How often a starting or stopping process is polled.
const POLL: Duration = Duration::from_millis(10);

/// How long one attempt to get a response may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What a broker logs once it serves.
const STARTED: &str = "Kafka Server started";

/// What Java says when another process has the port.
const PORT_TAKEN: &str = "Address already in use";

/// Lines of the log in messages.
const TAIL_LINES: usize = 40;

/// The exit code of a clean stop by `SIGTERM`, as Java reports it.
const STOPPED: i32 = 143;

/// A broker and its data. See [`crate::broker`] for how to start one.
#[derive(Debug)]
pub struct Broker {
    setup: Setup,
    broker_dir: BrokerDir,
    child: Option<Child>,
    clock: Option<BrokerClock>,
    /// The size of the log when this start began.
    log_before: u64,
}

/// Why a broker does not serve.
#[derive(Debug)]
pub(super) enum NotReady {
    /// Another process took a port first.
    PortTaken,
    /// Something else, with the end of its log.
    Failed(String),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken => write!(f, "another process took a port of the broker"),
            Self::Failed(why) => write!(f, "the broker does not serve: {why}"),
        }
    }
}

impl Broker {
    /// A broker that is ready to be launched for the first time.
    pub(super) fn new(setup: Setup, broker_dir: BrokerDir) -> Self {
        broker_dir.format(&setup);
        let clock = setup.clock_ahead_ms().map(BrokerClock::new);
        Self { setup, broker_dir, child: None, clock, log_before: 0 }
    }

    /// Starts its process.
    pub(super) fn launch(&mut self) {
        assert!(self.child.is_none(), "still running: stop or kill it first");
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("its folder can be written");
        self.log_before = log.metadata().expect("an open file").len();
        let mut command = child_process::command("java");
        command.args(self.setup.java()).arg(self.class()).arg(self.broker_dir.properties());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("an open file")).stderr(log);
        if let Some(clock) = &self.clock {
            clock.configure(&mut command);
        }
        let child = child_process::spawn(command);
        let child = child.expect("setpriv and Java are there: scripts/install.sh test");
        let child = self.child.insert(child);
        if let Some(clock) = &self.clock {
            clock.attach(child);
        }
    }

    /// Waits until it responds to a request.
    pub(super) fn wait_ready(&mut self) -> Result<(), NotReady> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let ended = self.running_mut().try_wait().expect("it is our child");
            let logged = self.logged_since_start();
            if let Some(status) = ended {
                self.child = None;
                let taken = logged.contains(PORT_TAKEN);
                let failed = || NotReady::Failed(format!("{status}, it logged:\n{logged}"));
                return Err(if taken { NotReady::PortTaken } else { failed() });
            }
            if logged.contains(STARTED) && responds(self.broker_dir.address()).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(NotReady::Failed(format!("not ready in time:\n{}", self.log_tail())));
            }
            thread::sleep(POLL);
        }
    }

    /// Its address for clients, `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        self.broker_dir.address().to_string()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running().id()
    }

    /// Its number in the cluster, from 1.
    pub fn number(&self) -> u32 {
        self.broker_dir.number()
    }

    /// Its folder, with its properties, data and log.
    pub(super) fn folder(&self) -> &Path {
        self.broker_dir.folder()
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Stops it with `SIGTERM` and waits: it flushes everything and moves its leaders.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it was running");
        let status = wait(&mut child, STOP_LIMIT);
        let Some(status) = status else {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("still there {STOP_LIMIT:?} after SIGTERM:\n{}", self.log_tail());
        };
        assert_eq!(status.code(), Some(STOPPED), "{status}:\n{}", self.log_tail());
    }

    /// Kills it with `SIGKILL`.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running broker");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Starts it again on the same ports and data, and waits until it responds; stops it first if
    /// it is running.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        self.launch();
        if let Err(why) = self.wait_ready() {
            panic!("{why}");
        }
    }

    /// Pauses it with `SIGSTOP`: connections stay open and nothing responds.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes it.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The end of what it logged, for messages.
    pub fn log_tail(&self) -> String {
        let logged = self.logged_since_start();
        let lines: Vec<&str> = logged.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines[from..].iter().map(|line| format!("  | {line}\n")).collect()
    }

    /// Runs one of Kafka's tools on this broker, such as `org.apache.kafka.tools.TopicCommand`
    /// with `--create …`, and returns what it printed. Panics if the tool fails.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let bootstrap = self.bootstrap();
        java::run(class, &[&["--bootstrap-server", &bootstrap], arguments].concat())
    }

    /// The file with the first records of a partition, for tests that damage it.
    pub fn first_segment(&self, topic: &str, partition: u32) -> PathBuf {
        let folder = self.broker_dir.data().join(format!("{topic}-{partition}"));
        folder.join("00000000000000000000.log")
    }

    /// Sets its clock forward and waits until retention and compaction have done what they would do
    /// in that time. The active segment is closed first, as the next append would do, so that it is
    /// included. Nothing may append meanwhile to a topic with `compact,delete`.
    pub fn advance_time(&self, ms: u64) {
        let clock = self.clock.as_ref().expect("start it by Broker::with_clock");
        assert!(clock.advance_time(ms), "time did not pass:\n{}", self.log_tail());
    }

    /// The address of its listener with TLS and SCRAM.
    pub fn secure_bootstrap(&self) -> String {
        self.broker_dir.secure_address().to_string()
    }

    /// The certificate of the authority that signed the broker's.
    pub fn ca_pem(&self) -> PathBuf {
        secure::ca_pem(self.folder())
    }

    /// Grants a right to [`secure::GUEST`], with the arguments of `kafka-acls`, such as
    /// `["--operation", "Read", "--topic", "tw.in"]`.
    pub fn grant(&self, right: &[&str]) {
        self.grant_to(secure::GUEST, right);
    }

    /// The same for another user; `*` for every user.
    pub fn grant_to(&self, user: &str, right: &[&str]) {
        let user = format!("User:{user}");
        self.tool(secure::ACLS, &[&["--add", "--allow-principal", &user], right].concat());
    }

    fn class(&self) -> &'static str {
        match self.clock {
            Some(_) => "ClockedBroker",
            None => "kafka.Kafka",
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("broker.log")
    }

    fn logged_since_start(&self) -> String {
        let read = || -> io::Result<String> {
            let log = File::open(self.log_path())?;
            let length = log.metadata()?.len().saturating_sub(self.log_before);
            let mut bytes = vec![0; usize::try_from(length).expect("a log fits in memory")];
            log.read_exact_at(&mut bytes, self.log_before)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.running()), signal).expect("it is our child");
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("a running broker")
    }

    fn running_mut(&mut self) -> &mut Child {
        self.child.as_mut().expect("a running broker")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Failures change nothing: the process is gone already.
            child.kill().ok();
            child.wait().ok();
        }
        if thread::panicking() {
            // The folder is removed now, and the broker's log may say why the test failed.
            let lines = self.log_tail();
            io::stderr().write_all(format!("broker {}:\n{lines}", self.number()).as_bytes()).ok();
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

/// Requests the API versions, as every Kafka client does first; version 0 has no body and needs
/// no rights.
pub(super) fn responds(address: SocketAddr) -> io::Result<()> {
    const API_VERSIONS: u16 = 18;
    const CORRELATION: u32 = 7;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut request = Vec::new();
    request.extend(API_VERSIONS.to_be_bytes());
    request.extend(0u16.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    request.extend((-1i16).to_be_bytes());
    stream.write_all(&u32::try_from(request.len()).expect("ten bytes").to_be_bytes())?;
    stream.write_all(&request)?;
    // The length, the correlation and the error code.
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    let good = head[4..8] == CORRELATION.to_be_bytes() && head[8..] == [0, 0];
    if good { Ok(()) } else { Err(io::Error::other("a response of another form")) }
}
