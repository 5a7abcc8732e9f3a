//! Stores each catalogue in force in the topic `catalogues`, and refuses one that breaks its state.
//!
//! ```text
//! key    `catalogue/` and the hash in 16 hexadecimal digits
//! value  the files that add to the built-in catalogue (tidewire_schemas::catalogue::encode_stored)
//! ```
//!
//! DERIVE owns the state that the keys of a catalogue decide, so it writes: before its first
//! transaction it compares its catalogue with the newest stored one. Of two processes with
//! different catalogues one writes first, because both use one transactional id, and the other
//! compares with it. ADMIT and GATEWAY only read: they may lag behind DERIVE, but not be ahead of
//! it, since DERIVE would put events of unknown types aside.
//!
//! A restored or replayed history finds the files of its `catalogue hash` here. Records of this
//! topic with other keys are not of this form. Nothing waits for a log that does not answer.

use tidewire_schemas::catalogue::{Catalogue, compare, decode_stored, encode_stored};

use crate::committed_read::read_committed;
use crate::committed_write::write_committed;
use crate::port::{Log, LogError};
use crate::record::{Body, Outgoing, Partition, TopicPartition};
use crate::topology::Topology;

/// How the key of a stored catalogue begins.
const KEY: &str = "catalogue/";

/// Whether a process decides which catalogue is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogueAccess {
    /// It runs DERIVE.
    Writes,
    /// It runs ADMIT or GATEWAY alone.
    Reads,
}

/// Why a process can't start with its catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It changes what state or stored events depend on.
    #[error("{0}")]
    Refused(String),
    /// It is ahead of the stored one, which DERIVE has to change first.
    #[error("{0}")]
    Ahead(String),
    /// The log failed.
    #[error("the catalogues could not be read or written")]
    Log(#[from] LogError),
}

/// Checks a process's catalogue against the newest stored one, and stores it if it is new and the
/// process writes.
pub fn put_in_force(
    log: &dyn Log,
    topology: &Topology,
    catalogue: &Catalogue,
    access: CatalogueAccess,
) -> Result<(), CatalogueError> {
    let stored = newest(log, topology)?;
    match access {
        CatalogueAccess::Reads => check_reader(topology, stored.as_ref(), catalogue),
        CatalogueAccess::Writes if is_current(stored.as_ref(), catalogue) => Ok(()),
        CatalogueAccess::Writes => {
            // A process that had the id before can't commit any more.
            let mut transactor = log.transactor(&topology.catalogue_transactional_id())?;
            let stored = newest(log, topology)?;
            if is_current(stored.as_ref(), catalogue) {
                return Ok(());
            }
            check_writer(topology, stored.as_ref(), catalogue)?;
            // The next attempt after a failure takes the id over again and reads the outcome.
            Ok(write_committed(&mut *transactor, &[record(topology, catalogue)])?)
        }
    }
}

/// The newest stored catalogue, with the files that add to the built-in one. `None`: nothing is
/// stored yet.
pub fn stored(log: &dyn Log, topology: &Topology) -> Result<Option<Catalogue>, CatalogueError> {
    newest(log, topology)?.map(|stored| stored.compile(topology)).transpose()
}

/// A catalogue as the topic has it.
struct StoredCatalogue {
    key: Vec<u8>,
    value: Vec<u8>,
}

fn key(catalogue: &Catalogue) -> String {
    format!("{KEY}{:016x}", catalogue.hash())
}

fn is_current(stored: Option<&StoredCatalogue>, catalogue: &Catalogue) -> bool {
    stored.is_some_and(|stored| stored.key == key(catalogue).as_bytes())
}

impl StoredCatalogue {
    /// Its files, compiled by this build.
    fn compile(&self, topology: &Topology) -> Result<Catalogue, CatalogueError> {
        let refused = |why: String| {
            let key = String::from_utf8_lossy(&self.key).into_owned();
            CatalogueError::Refused(format!(
                "this build can't read {key} in {}: {why}; start the build that wrote it, or give \
                 another topics.prefix",
                topology.catalogues()
            ))
        };
        let files = decode_stored(&self.value).map_err(|error| refused(error.to_string()))?;
        Catalogue::of_stored(&files).map_err(|errors| refused(errors.to_string()))
    }
}

fn check_writer(
    topology: &Topology,
    stored: Option<&StoredCatalogue>,
    catalogue: &Catalogue,
) -> Result<(), CatalogueError> {
    let Some(stored) = stored else { return Ok(()) };
    let refused = compare(&stored.compile(topology)?, catalogue).refused;
    match refused.is_empty() {
        true => Ok(()),
        false => Err(refusal(topology, &refused)),
    }
}

fn check_reader(
    topology: &Topology,
    stored: Option<&StoredCatalogue>,
    catalogue: &Catalogue,
) -> Result<(), CatalogueError> {
    let ahead = || {
        CatalogueError::Ahead(format!(
            "catalogue.dir adds what {} does not have; start DERIVE with this folder first",
            topology.catalogues()
        ))
    };
    let Some(stored) = stored else {
        // What is built in needs no other process.
        return if catalogue.own_files().is_empty() { Ok(()) } else { Err(ahead()) };
    };
    let stored = stored.compile(topology)?;
    if compare(catalogue, &stored).refused.is_empty() {
        return Ok(());
    }
    let refused = compare(&stored, catalogue).refused;
    Err(if refused.is_empty() { ahead() } else { refusal(topology, &refused) })
}

fn refusal(topology: &Topology, refused: &[String]) -> CatalogueError {
    CatalogueError::Refused(format!(
        "catalogue.dir is not compatible with the catalogue that the topics of {} were written \
         with; give the folder that was in force with additions only, or start with another \
         topics.prefix (on the embedded log: another data_dir)\n  {}",
        topology.prefix(),
        refused.join("\n  ")
    ))
}

/// The newest stored catalogue.
fn newest(log: &dyn Log, topology: &Topology) -> Result<Option<StoredCatalogue>, LogError> {
    let at = TopicPartition::new(topology.catalogues(), Partition(0));
    let mut found = None;
    read_committed(log, &at, |record| {
        if let (Some(key), Some(value)) = (record.body.key(), record.body.value())
            && key.starts_with(KEY.as_bytes())
        {
            found = Some(StoredCatalogue { key: key.to_vec(), value: value.to_vec() });
        }
    })?;
    Ok(found)
}

/// The record of a catalogue.
fn record(topology: &Topology, catalogue: &Catalogue) -> Outgoing {
    let value = encode_stored(catalogue.own_files()).expect("a folder's size is limited");
    let body = Body::new(Some(key(catalogue).as_bytes()), Some(&value), &[]);
    Outgoing { topic: topology.catalogues().clone(), partition: Partition(0), body }
}
