//! Opens what a process needs before its loops run: the log, topics, state folders and the hub.
//!
//! It waits for a broker that does not answer yet, up to a limit, and stops waiting when the
//! process is asked to end. What is opened depends only on the role.

use std::sync::Arc;
use std::time::Duration;

use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::catalogues::{CatalogueAccess, CatalogueError, put_in_force};
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::port::{Appender, Log, Stores};

use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::role::Role;
use crate::runtime::clock::SystemClock;
use crate::runtime::fanout;
use crate::runtime::registry;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::state_folder::{FollowError, StateFolder, StateKind};
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::storage::{self, ProcessPorts};
use crate::runtime::supervisor::Supervisor;

/// How long a start waits for what it needs: a broker that starts together with us, an election,
/// the topics that another process is about to create.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// Files that each store of channels keeps open.
const CHANNEL_OPEN_FILES: i32 = 32;

/// Bytes of the block cache of all stores of channels' state together.
const CHANNEL_CACHE_BYTES: usize = 16 << 20;
/// Bytes of the write buffers of all stores of channels' state together, at least.
const CHANNEL_BUFFER_BYTES: usize = 16 << 20;
/// Bytes of write buffers per store: its first writes take more than 1 MiB, and a flush is due when
/// the buffers of all are full.
const STORE_BUFFER_BYTES: usize = 2 << 20;

/// What a process opened.
pub struct ProcessParts {
    /// The log and the stores.
    pub ports: ProcessPorts,
    /// For a role that serves clients: what they read from and write with.
    pub gateway_inputs: Option<GatewayInputs>,
    /// The locked folders: of tasks' state, of channels' state.
    pub folders: Vec<StateFolder>,
}

/// What a role that serves clients needs.
pub struct GatewayInputs {
    /// The newest outputs.
    pub hub: Arc<Hub>,
    /// Appends the events of HTTP producers.
    pub appender: Box<dyn Appender>,
}

/// Opens what the role needs. `None`: the process was asked to end while it waited.
pub fn open(
    supervisor: &Supervisor,
    role: Role,
    config: &Config,
) -> Result<Option<ProcessParts>, ProcessExit> {
    let (config, stop) = (config.clone(), supervisor.stop());
    supervisor.attempt("opening", move || open_with_retries(role, &config, &stop))?.transpose()
}

fn open_with_retries(
    role: Role,
    config: &Config,
    stop: &StopSignal,
) -> Result<ProcessParts, ProcessExit> {
    let log = storage::open_log(config)?;
    let topology = config.topology();
    let mut folders = Vec::new();
    let mut open_stores = |kind: StateKind| -> Result<Arc<dyn Stores>, ProcessExit> {
        let folder = StateFolder::claim(&config.data.dir, kind)?;
        let stores = RocksStores::new(store_config(&folder, kind, topology.partitions()));
        folders.push(folder);
        Ok(stores)
    };
    let ports = ProcessPorts {
        log,
        stores: role.derives().then(|| open_stores(StateKind::Tasks)).transpose()?,
        channel_stores: role
            .serves_clients()
            .then(|| open_stores(StateKind::Channels))
            .transpose()?,
        topology,
        clock: Arc::new(SystemClock),
        registry: registry::open(config),
    };
    let gateway_inputs = with_retries(START_LIMIT, stop, || {
        prepare(role, config, &*ports.log, &folders)?;
        if role.serves_clients() { open_gateway_inputs(config, &ports).map(Some) } else { Ok(None) }
    })?;
    Ok(ProcessParts { ports, gateway_inputs, folders })
}

/// The memory of a folder's stores. Those of channels are read in ranges, and only for snapshots.
fn store_config(folder: &StateFolder, kind: StateKind, partitions: u32) -> rocks::Config {
    let defaults = rocks::Config::new(folder.dir());
    match kind {
        StateKind::Tasks => defaults,
        StateKind::Channels => rocks::Config {
            block_cache_bytes: CHANNEL_CACHE_BYTES,
            open_files_max: CHANNEL_OPEN_FILES,
            write_buffer_bytes: CHANNEL_BUFFER_BYTES.max(partitions as usize * STORE_BUFFER_BYTES),
            ..defaults
        },
    }
}

/// Creates or checks the topics, checks their value level, and makes sure that the state folders
/// follow them.
fn prepare(
    role: Role,
    config: &Config,
    log: &dyn Log,
    folders: &[StateFolder],
) -> Result<(), AttemptError> {
    if role.is_apart() {
        storage::require_topics(config, log)?;
    } else {
        storage::create_topics(config, log)?;
    }
    storage::check_value_level(config, log)?;
    put_catalogue_in_force(role, config, log)?;
    folders.iter().try_for_each(|folder| follow(folder, config, log))
}

fn follow(folder: &StateFolder, config: &Config, log: &dyn Log) -> Result<(), AttemptError> {
    folder.follow(log, &config.topology()).map_err(|error| match error {
        FollowError::Log(error) => {
            let doing = "could not list the topics".into();
            AttemptError::of_log(doing, &storage::unreachable_message(config), error)
        }
        FollowError::Folder(_) => {
            let message = format!("could not use the state folder {}", folder.dir().display());
            AttemptError::Permanent(ProcessExit::because(message, error))
        }
    })
}

/// Refuses a catalogue that does not fit the topics, before anything is read or written with it.
fn put_catalogue_in_force(role: Role, config: &Config, log: &dyn Log) -> Result<(), AttemptError> {
    let access = match role.derives() {
        true => CatalogueAccess::Writes,
        false => CatalogueAccess::Reads,
    };
    let result = put_in_force(log, &config.topology(), config.catalogue(), access);
    result.map_err(|error| match error {
        CatalogueError::Refused(text) => AttemptError::Permanent(ProcessExit::Usage(text)),
        CatalogueError::Ahead(text) => AttemptError::Transient(ProcessExit::Usage(text)),
        CatalogueError::Log(error) => {
            let doing = "could not read or store the catalogue in force".into();
            AttemptError::of_log(doing, &storage::unreachable_message(config), error)
        }
    })
}

fn open_gateway_inputs(
    config: &Config,
    ports: &ProcessPorts,
) -> Result<GatewayInputs, AttemptError> {
    let unanswered = storage::unreachable_message(config);
    let hub = fanout::open_hub(config, ports)
        .map_err(|error| AttemptError::of_engine("the hub", &unanswered, error))?;
    let appender = ports.log.appender().map_err(|error| {
        AttemptError::of_log("could not open a producer".into(), &unanswered, error)
    })?;
    Ok(GatewayInputs { hub, appender })
}
