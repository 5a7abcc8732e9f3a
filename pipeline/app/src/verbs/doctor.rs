//! `tidewire doctor`: checks what a process needs and prints a fix for each problem.
//!
//! It leaves nothing behind: files and ports are released, and what it writes to Kafka expires
//! after a minute. Each line is printed as soon as it is known, because some checks wait for
//! brokers. Exit code 1 if there is a line with `fix:`; a `warn` is a check that was not possible.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tidewire_connectors::kafka::{DoctorTarget, Finding, diagnose};
use tidewire_connectors::registry::SchemaRegistry;
use tidewire_connectors::socket::limits;
use tidewire_engine::derive::highest_level;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::value_level::{level_in_force, level_text};

use crate::api_client::ApiClient;
use crate::cli::SettingArgs;
use crate::config::{Config, KafkaConfig, LogConfig};
use crate::process_exit::{ProcessExit, with_causes};
use crate::runtime::clock::SystemClock;
use crate::runtime::storage;
use crate::verbs::running_process::{self, AtListen, has_log};
use crate::{configure, terminal};

/// Free space below which some hours of events may fill the disk.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Open files below which too few are left for connections besides the files of the log.
const OPEN_FILES_MIN: usize = 4_096;
/// Connections that a gateway should have files for, besides those of Kafka and of the state.
const SOCKETS_MIN: usize = OPEN_FILES_MIN - limits::RESERVED_FILES;
/// Files of one partition's state, that of its task and that of its channels: the tables that
/// RocksDB keeps open, and a few of its own.
const FILES_PER_PARTITION: usize = 136 + 40;
/// Kafka clients of a process with all roles, and those that each thread of DERIVE adds.
const CLIENTS: usize = 17;
const CLIENTS_PER_THREAD: usize = 6;
/// Files of a client's connection to a broker: a socket, and the pipe that wakes its thread.
const FILES_PER_CONNECTION: usize = 3;
/// Connections of a client besides one to each broker: to a coordinator, and to the bootstrap
/// address.
const FURTHER_CONNECTIONS: usize = 2;

/// Runs every check and prints its result.
pub fn run(args: &SettingArgs) -> Result<(), ProcessExit> {
    let config = configure::with_catalogue(args)?;
    let owner = find_port_owner(&config);
    let mut findings = Findings::default();
    findings.add(check_port(&config, owner));
    findings.add(check_folder(&config.data.dir));
    findings.add(check_space(&config.data.dir));
    match &config.log {
        LogConfig::Embedded => {
            findings.add(check_files());
            findings.add(check_log(&config));
        }
        LogConfig::Kafka(kafka) => {
            let brokers = check_kafka(&config, kafka, &mut findings);
            findings.add(check_files_on_kafka(&config, brokers));
        }
    }
    if let Some(registry) = &config.registry {
        findings.add(check_registry(&SchemaRegistry::new(registry)));
    }
    findings.conclude()
}

/// The results so far.
#[derive(Default)]
struct Findings {
    problems: usize,
    /// Why no further line could be printed.
    output_error: Option<ProcessExit>,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        let line = match finding {
            Finding::Ok(text) => format!("ok    {text}"),
            Finding::Warn(text) => format!("warn  {text}"),
            Finding::Fix(text) => {
                self.problems += 1;
                format!("fix:  {text}")
            }
        };
        if self.output_error.is_none() {
            self.output_error = terminal::print_line(&line).err();
        }
    }

    fn conclude(self) -> Result<(), ProcessExit> {
        match (self.output_error, self.problems) {
            (Some(exit), _) => Err(exit),
            (None, 0) => Ok(()),
            (None, 1) => Err(ProcessExit::failed("1 problem was found; see the line with `fix:`")),
            (None, n) => Err(ProcessExit::failed(format!(
                "{n} problems were found; see the lines with `fix:`"
            ))),
        }
    }
}

/// Whether the schema registry answers and accepts our login.
fn check_registry(registry: &SchemaRegistry) -> Finding {
    match registry.count_subjects() {
        Ok(count) => Finding::Ok(format!(
            "the schema registry at {} answers, {count} subjects",
            registry.addresses()
        )),
        // The error names the address and the fix.
        Err(error) => Finding::Fix(format!("the schema registry: {error}")),
    }
}

/// Which program answers at the address of `listen`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PortOwner {
    Tidewire,
    Unknown,
}

fn find_port_owner(config: &Config) -> PortOwner {
    let asked =
        ApiClient::new(&format!("http://{}", config.listen)).and_then(|r| r.get_json("/v1/stats"));
    match asked {
        Ok(Some(stats)) if stats["topics"].is_array() => PortOwner::Tidewire,
        _ => PortOwner::Unknown,
    }
}

fn check_port(config: &Config, owner: PortOwner) -> Finding {
    let at = config.listen;
    match TcpListener::bind(at) {
        Ok(_) => Finding::Ok(format!("{at} is free to listen on")),
        Err(_) if owner == PortOwner::Tidewire => {
            Finding::Ok(format!("{at} is in use by a running tidewire"))
        }
        Err(error) => Finding::Fix(format!(
            "cannot listen on {at} ({error}); stop the process that uses it, or give another \
             --listen"
        )),
    }
}

fn check_folder(dir: &Path) -> Finding {
    let shown = dir.display();
    let there = nearest_existing(dir);
    let probe = there.join(format!(".tidewire-doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) if there == dir => Finding::Ok(format!("the folder {shown} can be written")),
        Ok(()) => Finding::Ok(format!("the folder {shown} does not exist yet and can be created")),
        Err(error) => Finding::Fix(format!(
            "the folder {} cannot be written ({error}); change its owner, or give another \
             --data-dir",
            there.display()
        )),
    }
}

fn check_space(dir: &Path) -> Finding {
    let there = nearest_existing(dir);
    match rustix::fs::statvfs(&there) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let gib = free as f64 / f64::from(1 << 30);
            let text = format!("{gib:.1} GiB are free for {}", dir.display());
            if free >= FREE_BYTES_MIN {
                Finding::Ok(text)
            } else {
                Finding::Fix(format!("only {text}; free some space, or give another --data-dir"))
            }
        }
        Err(error) => Finding::Fix(format!(
            "the free space of {} is unknown ({error}); give another --data-dir",
            there.display()
        )),
    }
}

fn check_log(config: &Config) -> Finding {
    let dir = config.data.dir.display();
    if !has_log(&config.data.dir) {
        return Finding::Ok(format!("there is no log in {dir} yet; the first start creates it"));
    }
    let opened = storage::open_log(config).and_then(|log| {
        storage::refuse_other_layout(config, &*log)?;
        let topics = storage::topic_reports(&*log)
            .map_err(|error| ProcessExit::of_log("could not list the topics".into(), error))?;
        let highest = highest_level(OPERATORS);
        let level = level_in_force(&*log, &config.topology(), highest);
        let level = level
            .map_err(|error| ProcessExit::of_log("could not read the value level".into(), error))?;
        Ok((topics.len(), level_text(level, highest)))
    });
    match opened {
        Ok((topics, level)) => Finding::Ok(format!(
            "the log in {dir} opens, {topics} topics in the layout of this build; {level}"
        )),
        Err(error) => match running_process::find(config) {
            Ok(AtListen::Ours(running)) => Finding::Ok(format!(
                "the log in {dir} is in use by the tidewire at {}",
                running.url
            )),
            _ => Finding::Fix(with_causes(&error)),
        },
    }
}

fn check_files() -> Finding {
    let files = limits::raise_open_files();
    let text = format!("{files} open files are allowed, connections included");
    if files >= OPEN_FILES_MIN {
        Finding::Ok(text)
    } else {
        Finding::Fix(format!(
            "only {text}; raise the hard limit: `ulimit -Hn 65536`, or LimitNOFILE= of the service"
        ))
    }
}

/// Checks Kafka; returns how many brokers there are.
fn check_kafka(config: &Config, kafka: &KafkaConfig, findings: &mut Findings) -> usize {
    let target = DoctorTarget {
        config: &kafka.connector(config),
        topology: &config.topology(),
        instance: &config.instance,
        clock: &SystemClock,
    };
    diagnose(&target, &mut |finding| findings.add(finding))
}

/// The limit of open files for a process that owns every partition, with this many brokers.
fn check_files_on_kafka(config: &Config, brokers: usize) -> Finding {
    let partitions = config.topics.partitions as usize;
    let clients = CLIENTS + CLIENTS_PER_THREAD * config.derive_threads as usize;
    let connections = clients * (brokers + FURTHER_CONNECTIONS);
    let own = partitions * FILES_PER_PARTITION + connections * FILES_PER_CONNECTION;
    let files = limits::raise_open_files();
    let noun = if brokers == 1 { "broker" } else { "brokers" };
    let text = format!(
        "{files} open files are allowed; {own} are for the state of {partitions} partitions and \
         for {brokers} {noun}, the rest for connections"
    );
    let least = own + SOCKETS_MIN;
    if files >= least {
        return Finding::Ok(text);
    }
    Finding::Fix(format!(
        "only {text}; raise the hard limit to {least} or more: `ulimit -Hn {least}`, or \
         LimitNOFILE= of the service"
    ))
}

/// The folder itself, or the nearest parent that exists.
fn nearest_existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = absolute.ancestors().find(|path| path.is_dir());
    match there {
        Some(path) if path == absolute => dir.to_owned(),
        Some(path) => path.to_owned(),
        None => PathBuf::from("/"),
    }
}
