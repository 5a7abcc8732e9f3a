//! A read plan: an Avro schema prepared so that reading a record looks nothing up.
//!
//! A plan is a flat list of nodes that refer to each other by number, with names resolved and field
//! names quoted. A recursive schema is a node that refers back. The number of nodes is limited,
//! since anyone may have written the schema.

use crate::json;

/// The most nodes of a schema, fields and branches included: sixteen times the fields of `data`.
pub const SCHEMA_MAX_NODES: usize = 16 * 1024;

/// Why a schema can't be used to read records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaFault(pub String);

/// The index of a node in its plan.
pub(super) type NodeId = u32;

/// How one value is read, and what it is written as.
#[derive(Debug)]
pub(super) enum Node {
    /// A named node that is still being built; never met when reading.
    Pending,
    Null,
    Bool,
    Int,
    Long,
    /// A time; the number of its units in a millisecond.
    Time(i64),
    Float,
    Double,
    /// Written as a list of numbers.
    Bytes,
    Fixed(usize),
    /// Written as text with `scale` digits after the point; `fixed` is its size in bytes, if fixed.
    Decimal {
        scale: usize,
        fixed: Option<usize>,
    },
    /// Sixteen bytes, written as text; `fixed` is the size of its type, if fixed.
    Uuid {
        fixed: Option<usize>,
    },
    Text,
    /// The symbols, quoted.
    Enum(Vec<String>),
    List(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(PlanRecord),
}

/// A record type.
#[derive(Debug)]
pub(super) struct PlanRecord {
    /// Its full name.
    pub(super) name: String,
    pub(super) fields: Vec<PlanField>,
}

/// One field of a record.
#[derive(Debug)]
pub(super) struct PlanField {
    pub(super) name: String,
    /// `"name":`
    pub(super) quoted: String,
    pub(super) node: NodeId,
}

/// A schema prepared for reading.
#[derive(Debug)]
pub(super) struct ReadPlan {
    /// A record, or a union with at least one record.
    root: NodeId,
    nodes: Vec<Node>,
}

impl ReadPlan {
    /// A plan of nodes that refer to each other.
    pub(super) fn new(nodes: Vec<Node>, root: NodeId) -> Result<Self, SchemaFault> {
        let plan = Self { root, nodes };
        let is_record = |id: &NodeId| matches!(plan.node(*id), Node::Record(_));
        let has_record = match plan.root() {
            Node::Union(branches) => branches.iter().any(is_record),
            _ => is_record(&root),
        };
        if has_record {
            return Ok(plan);
        }
        let message = "an event's schema must be a record, whose fields are the event's data, or \
                       a union of records";
        Err(SchemaFault(message.to_owned()))
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// What a whole value is.
    pub(super) fn root(&self) -> &Node {
        self.node(self.root)
    }
}

impl PlanField {
    /// A field of this name.
    pub(super) fn of(name: &str, node: NodeId) -> Self {
        Self { name: name.to_owned(), quoted: json::quoted(name) + ":", node }
    }
}
