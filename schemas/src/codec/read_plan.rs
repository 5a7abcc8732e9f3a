//! A read plan: an Avro schema prepared so that reading a record looks nothing up.
//!
//! A plan is a flat list of nodes that refer to each other by number, with names resolved and field
//! names quoted. A recursive schema is a node that refers back. The number of nodes is limited,
//! since anyone may have written the schema.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, UuidSchema};

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
    Record(Vec<PlanField>),
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
    /// The full name of its record.
    pub(super) name: String,
    root: NodeId,
    nodes: Vec<Node>,
}

impl ReadPlan {
    pub(super) fn of(schema: &Schema, others: &[Schema]) -> Result<Self, SchemaFault> {
        let Schema::Record(record) = schema else {
            let message = "an event's schema must be a record, whose fields are the event's data";
            return Err(SchemaFault(message.to_owned()));
        };
        let mut layout = Layout { nodes: Vec::new(), named: HashMap::new() };
        for other in others {
            layout.node(other)?;
        }
        let root = layout.node(schema)?;
        Ok(Self { name: record.name.fullname(None), root, nodes: layout.nodes })
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// The fields of its record.
    pub(super) fn fields(&self) -> &[PlanField] {
        match self.node(self.root) {
            Node::Record(fields) => fields,
            _ => &[],
        }
    }
}

impl PlanField {
    fn of(name: &str, node: NodeId) -> Self {
        Self { name: name.to_owned(), quoted: json::quoted(name) + ":", node }
    }
}

/// A plan that is being built.
struct Layout {
    nodes: Vec<Node>,
    named: HashMap<Name, NodeId>,
}

impl Layout {
    fn at(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn add(&mut self, node: Node) -> Result<NodeId, SchemaFault> {
        if self.nodes.len() == SCHEMA_MAX_NODES {
            let message = format!(
                "the schema has more than {SCHEMA_MAX_NODES} fields, branches and items in all"
            );
            return Err(SchemaFault(message));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as NodeId - 1)
    }

    fn node(&mut self, schema: &Schema) -> Result<NodeId, SchemaFault> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Bool,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Int,
            Schema::Long | Schema::TimeMicros => Node::Long,
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Node::Time(1),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Node::Time(1_000),
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Node::Time(1_000_000),
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid { fixed: None },
            Schema::Decimal(decimal) => return self.decimal(decimal),
            Schema::BigDecimal => {
                let message =
                    "the logical type big-decimal is not supported; use decimal or string";
                return Err(SchemaFault(message.to_owned()));
            }
            Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                return self.named(&fixed.name, Node::Uuid { fixed: Some(fixed.size) });
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => {
                return self.named(&fixed.name, Node::Fixed(fixed.size));
            }
            Schema::Enum(symbols) => {
                let quoted = symbols.symbols.iter().map(|symbol| json::quoted(symbol));
                return self.named(&symbols.name, Node::Enum(quoted.collect()));
            }
            Schema::Array(array) => Node::List(self.node(&array.items)?),
            Schema::Map(map) => Node::Map(self.node(&map.types)?),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.node(branch));
                Node::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => return self.record(record),
            Schema::Ref { name } => {
                let known = self.named.get(name).copied();
                return known.ok_or_else(|| {
                    SchemaFault(format!("the schema refers to {name}, which is not defined"))
                });
            }
        };
        self.add(node)
    }

    fn named(&mut self, name: &Name, node: Node) -> Result<NodeId, SchemaFault> {
        let id = self.add(node)?;
        self.named.insert(name.clone(), id);
        Ok(id)
    }

    fn record(&mut self, record: &RecordSchema) -> Result<NodeId, SchemaFault> {
        let id = self.named(&record.name, Node::Pending)?;
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            fields.push(PlanField::of(&field.name, self.node(&field.schema)?));
        }
        *self.at(id) = Node::Record(fields);
        Ok(id)
    }

    fn decimal(
        &mut self,
        decimal: &apache_avro::schema::DecimalSchema,
    ) -> Result<NodeId, SchemaFault> {
        let scale = decimal.scale;
        match &decimal.inner {
            InnerDecimalSchema::Bytes => self.add(Node::Decimal { scale, fixed: None }),
            InnerDecimalSchema::Fixed(fixed) => {
                self.named(&fixed.name, Node::Decimal { scale, fixed: Some(fixed.size) })
            }
        }
    }
}
