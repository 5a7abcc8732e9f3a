//! Creates the topics of a deployment, the layout record first.
//!
//! Several processes may create them at once, of one build or of two. The layout record is written
//! in a transaction under one transactional id: a process that takes the id over sees what its
//! predecessor has committed, and the predecessor's commit fails if it comes later. So there is one
//! layout record, and the process that loses reads it.

use crate::committed_write::write_committed;
use crate::port::{Log, LogError, TopicSpec};
use crate::record::{Body, Outgoing, Partition, Topic};
use crate::topics_layout::find::{FoundLayout, find_layout};
use crate::topics_layout::record::{LAYOUT_KEY, LayoutNumber};
use crate::topics_layout::refusal::LayoutRefusal;
use crate::topology::Topology;
use crate::value_level::{ValueLevel, level_record};

/// Why topics could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTopicsError {
    /// They are in another layout. Nothing was created.
    #[error("{0}")]
    Refused(LayoutRefusal),
    /// The log failed at a topic, or has it with other settings.
    #[error("the topic {topic} could not be created or checked")]
    Topic {
        /// The topic.
        topic: Topic,
        /// The error.
        #[source]
        source: LogError,
    },
    /// The log failed while the layout was read or written.
    #[error("the layout of the topics could not be read or written")]
    Layout(#[from] LogError),
}

/// Creates missing topics and checks existing ones; returns how many are new. Topics in another
/// layout are refused before anything is created. A new deployment starts at this value level.
pub fn create_topics(
    log: &dyn Log,
    topology: &Topology,
    layout: LayoutNumber,
    level: ValueLevel,
) -> Result<usize, CreateTopicsError> {
    let mut created = 0;
    if !is_marked(log, topology, layout)? {
        let specs = topology.specs();
        let catalogues = specs.iter().find(|spec| spec.topic == *topology.catalogues());
        created += create(log, catalogues.expect("every topic has a spec"))?;
        mark(log, topology, layout, level)?;
    }
    Ok(created + create_missing(log, topology)?)
}

/// The same for topics whose layout is known to be that of this build.
pub fn create_missing(log: &dyn Log, topology: &Topology) -> Result<usize, CreateTopicsError> {
    topology.specs().iter().map(|spec| create(log, spec)).sum()
}

/// Whether the topics have the record of this layout; an error if they are in another.
fn is_marked(
    log: &dyn Log,
    topology: &Topology,
    layout: LayoutNumber,
) -> Result<bool, CreateTopicsError> {
    let found = find_layout(log, topology)?;
    if let Some(refusal) = LayoutRefusal::of(topology, &found, layout) {
        return Err(CreateTopicsError::Refused(refusal));
    }
    Ok(found != FoundLayout::Empty)
}

/// Creates one topic; returns how many are new.
fn create(log: &dyn Log, spec: &TopicSpec) -> Result<usize, CreateTopicsError> {
    let topic = &spec.topic;
    let created = log.create(spec);
    let created =
        created.map_err(|source| CreateTopicsError::Topic { topic: topic.clone(), source })?;
    Ok(usize::from(created))
}

/// Writes the layout record and the value level, unless another process was first.
fn mark(
    log: &dyn Log,
    topology: &Topology,
    layout: LayoutNumber,
    level: ValueLevel,
) -> Result<(), CreateTopicsError> {
    let mut transactor = log.transactor(&topology.layout_transactional_id())?;
    // A process that had the id before can't commit any more. What it has committed is seen now.
    if is_marked(log, topology, layout)? {
        return Ok(());
    }
    let body = Body::new(Some(LAYOUT_KEY.as_bytes()), Some(&layout.encode()), &[]);
    let topic = topology.catalogues().clone();
    let record = Outgoing { topic, partition: Partition(0), body };
    // The next attempt after a failure takes the id over again and reads the outcome.
    Ok(write_committed(&mut *transactor, &[record, level_record(topology, level)])?)
}
