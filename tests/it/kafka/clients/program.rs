//! Runs the programs of `tests/clients`: one per Kafka client, all with the same command line.
//!
//! A program that fails, hangs or prints something else fails the test, whose message names the
//! client and contains its output. Records are passed as the programs' README says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Deserializer, Serialize};
use tidewire_tests::child_process;

/// A program gives up after a minute; one that runs longer hangs.
const HANG_LIMIT: Duration = Duration::from_secs(150);

/// How often a running program is polled.
const POLL: Duration = Duration::from_millis(5);

/// How much of a program's output is kept, from its end.
const OUTPUT_BYTES: usize = 8 << 10;

/// One client.
#[derive(Debug)]
pub(in crate::kafka) struct ClientProgram {
    /// Its command.
    pub(super) name: String,
    command: Vec<String>,
    /// The compressions it can write and read.
    pub(super) compressions: Vec<String>,
}

/// A topic of a broker.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) struct TopicAddress<'a> {
    pub(in crate::kafka) bootstrap: &'a str,
    pub(in crate::kafka) topic: &'a str,
}

/// How a client writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteOptions<'a> {
    pub(super) compression: &'a str,
    pub(super) transaction_end: TransactionEnd,
}

/// What happens to the records.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransactionEnd {
    /// They are written outside transactions.
    Plain,
    /// They are one transaction, which is committed.
    Commit,
    /// They are one transaction, which is aborted when the broker has them.
    Abort,
}

/// Which records a client reads.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) enum IsolationArgument {
    /// Records outside transactions and of committed ones.
    Committed,
    /// All.
    Uncommitted,
}

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct ProducedRecord {
    pub(super) key: Option<String>,
    pub(super) value: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// A record that was read.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::kafka) struct ConsumedRecord {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(in crate::kafka) key: Option<String>,
    /// None: a tombstone.
    #[serde(rename = "value_base64", deserialize_with = "bytes")]
    pub(in crate::kafka) value: Option<Vec<u8>>,
    pub(super) headers: BTreeMap<String, String>,
}

impl ConsumedRecord {
    /// The value of a record that has one.
    pub(super) fn bytes(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_else(|| panic!("{self:?} has no value"))
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let decode = |text| BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom);
    text.map(decode).transpose()
}

/// The program that writes every format of an event; it is not a client.
const FORMATS: &str = "formats";

/// The output of the install script, which runs once.
fn listed() -> &'static str {
    static LISTED: OnceLock<String> = OnceLock::new();
    LISTED.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/install.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output();
        let output = output.expect("the script of this repository runs");
        assert!(output.status.success(), "{script} failed; see its output above");
        String::from_utf8(output.stdout).expect("paths in UTF-8")
    })
}

/// Every client, installed if needed.
pub(super) fn all() -> &'static [ClientProgram] {
    static ALL: OnceLock<Vec<ClientProgram>> = OnceLock::new();
    ALL.get_or_init(|| {
        let lines = listed().lines().filter(|line| !line.starts_with(FORMATS));
        let clients: Vec<_> = lines.map(ClientProgram::listed).collect();
        assert_eq!(clients.len(), 6, "{}", listed());
        clients
    })
}

/// Apache Kafka's own client.
pub(in crate::kafka) fn apache() -> &'static ClientProgram {
    all().iter().find(|client| client.name == "kafka-clients").expect("it is listed")
}

/// Writes one event in every format, by the libraries people use.
pub(in crate::kafka) fn write_formats(arguments: &[&str]) {
    let line = listed().lines().find(|line| line.starts_with(FORMATS)).expect("it is listed");
    ClientProgram::named(line).succeed(arguments, None);
}

impl ClientProgram {
    fn named(line: &str) -> Self {
        let mut words = line.split('\t').map(str::to_owned);
        let name = words.next().expect("split gives at least one part");
        Self { name, command: words.collect(), compressions: Vec::new() }
    }

    /// Reads one line of the install script.
    fn listed(line: &str) -> Self {
        let mut client = Self::named(line);
        let printed = client.succeed(&["compressions"], None);
        client.compressions = printed.lines().map(str::to_owned).collect();
        client
    }

    /// Whether it supports this compression.
    pub(super) fn can(&self, compression: &str) -> bool {
        self.compressions.iter().any(|known| known == compression)
    }

    /// Writes the records; all are acknowledged when this returns.
    pub(super) fn produce(
        &self,
        to: TopicAddress<'_>,
        options: WriteOptions<'_>,
        records: &[ProducedRecord],
    ) {
        let id = self.transactional_id(to);
        self.succeed(&produce_arguments(to, options, &id), Some(records));
    }

    /// Tries to write records that the broker refuses, and returns the client's output.
    pub(super) fn fail_to_produce(
        &self,
        to: TopicAddress<'_>,
        options: WriteOptions<'_>,
        records: &[ProducedRecord],
    ) -> String {
        let id = self.transactional_id(to);
        let run = self.run(&produce_arguments(to, options, &id), Some(records));
        assert_eq!(run.status.code(), Some(1), "{} {}: {}", self.name, run.status, run.output());
        run.output()
    }

    /// Stable, as a user's group is, but not shared with another test on the same broker.
    fn transactional_id(&self, to: TopicAddress<'_>) -> String {
        format!("{}-{}", self.name, to.topic)
    }

    /// Reads from the beginning until `count` records arrived, and any that follow at once.
    pub(in crate::kafka) fn consume(
        &self,
        from: TopicAddress<'_>,
        count: usize,
        isolation: IsolationArgument,
    ) -> Vec<ConsumedRecord> {
        let count = count.to_string();
        let isolation = match isolation {
            IsolationArgument::Committed => "read_committed",
            IsolationArgument::Uncommitted => "read_uncommitted",
        };
        let arguments = ["consume", from.bootstrap, from.topic, &count, isolation];
        let printed = self.succeed(&arguments, None);
        let read = |line: &str| serde_json::from_str(line);
        let records: Result<Vec<_>, _> = printed.lines().map(read).collect();
        records.unwrap_or_else(|error| panic!("{} printed no record: {error}", self.name))
    }

    fn succeed(&self, arguments: &[&str], input: Option<&[ProducedRecord]>) -> String {
        let run = self.run(arguments, input);
        let (name, status, output) = (&self.name, run.status, run.output());
        assert!(status.success(), "{name} {arguments:?} ended with {status}:\n{output}");
        String::from_utf8(run.stdout).unwrap_or_else(|e| panic!("{name} printed {e}:\n{output}"))
    }

    fn run(&self, arguments: &[&str], input: Option<&[ProducedRecord]>) -> ProgramRun {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let files = ["in", "out", "err"].map(|name| folder.path().join(name));
        let lines = input.unwrap_or_default().iter();
        let lines = lines.map(|record| serde_json::to_string(record).expect("text") + "\n");
        fs::write(&files[0], lines.collect::<String>()).expect("the input can be written");
        let mut command = child_process::command(&self.command[0]);
        command.args(&self.command[1..]).args(arguments).process_group(0);
        command.stdin(File::open(&files[0]).expect("it was just written"));
        command.stdout(create(&files[1])).stderr(create(&files[2]));
        let mut child =
            child_process::spawn(command).expect("setpriv starts a program that is installed");
        let deadline = Instant::now() + HANG_LIMIT;
        let status = loop {
            match child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() < deadline => thread::sleep(POLL),
                None => {
                    let group = Pid::from_child(&child);
                    kill_process_group(group, Signal::KILL).expect("it is our child");
                    child.wait().expect("it is our child");
                    let output = tail(&files[2]);
                    panic!("{} {arguments:?} hangs; its output:\n{output}", self.name);
                }
            }
        };
        let stdout = fs::read(&files[1]).expect("it was just written");
        ProgramRun { status, stdout, stderr: tail(&files[2]) }
    }
}

fn produce_arguments<'a>(
    to: TopicAddress<'a>,
    options: WriteOptions<'a>,
    id: &'a str,
) -> Vec<&'a str> {
    let mut arguments = vec!["produce", to.bootstrap, to.topic, options.compression];
    match options.transaction_end {
        TransactionEnd::Plain => {}
        TransactionEnd::Commit => arguments.extend([id, "commit"]),
        TransactionEnd::Abort => arguments.extend([id, "abort"]),
    }
    arguments
}

/// The result of a program.
struct ProgramRun {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

impl ProgramRun {
    fn output(&self) -> String {
        self.stderr.clone()
    }
}

fn create(path: &Path) -> File {
    File::create(path).expect("the temporary folder can be written")
}

fn tail(path: &PathBuf) -> String {
    let text = fs::read(path).expect("it was just written");
    let start = text.len().saturating_sub(OUTPUT_BYTES);
    String::from_utf8_lossy(&text[start..]).into_owned()
}
