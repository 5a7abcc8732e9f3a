//! Parses the JSON text of a writer's Avro schema into a read plan.
//!
//! Reading needs the types and their order. Names are only labels here, and defaults, aliases and
//! documentation are not used, so none of them is checked: Java writes names such as `srv-1.db` and
//! `Outer$Inner`, and Kafka Connect writes defaults that do not fit their type. A name must still
//! mean one type, and the fields of a record must differ.
//!
//! A logical type that is unknown or invalid is ignored, as the specification demands. Anyone may
//! have written the schema: serde_json limits its nesting to 128 levels, and the plan its nodes.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::read_plan::SchemaFault;
use super::read_plan::{Node, NodeId, PlanField, PlanRecord, ReadPlan, SCHEMA_MAX_NODES};
use crate::envelope::shown;
use crate::json;

/// The longest full name: each type inside a namespace repeats it.
const NAME_MAX_BYTES: usize = 1024;

/// The attributes of a type.
type Attributes = Map<String, Value>;

/// A type's full name, and the namespace that types inside it inherit.
struct FullName {
    full: String,
    namespace: String,
}

/// Parses a schema with the schemas it refers to, each before the first that refers to it.
pub(super) fn parse(text: &str, references: &[String]) -> Result<ReadPlan, SchemaFault> {
    let mut parser = SchemaParser { nodes: Vec::new(), named: HashMap::new() };
    for reference in references {
        parser.node(&json_value(reference)?, "")?;
    }
    let root = parser.node(&json_value(text)?, "")?;
    ReadPlan::new(parser.nodes, root)
}

fn json_value(text: &str) -> Result<Value, SchemaFault> {
    serde_json::from_str(text).map_err(|error| invalid(format!("it is not JSON: {error}")))
}

fn invalid(why: impl std::fmt::Display) -> SchemaFault {
    SchemaFault(format!("invalid Avro schema: {why}"))
}

/// A plan that is being built.
struct SchemaParser {
    nodes: Vec<Node>,
    /// Nodes of named types, by full name.
    named: HashMap<String, NodeId>,
}

impl SchemaParser {
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

    /// Adds a schema that occurs inside a namespace.
    fn node(&mut self, schema: &Value, namespace: &str) -> Result<NodeId, SchemaFault> {
        match schema {
            Value::String(name) => match primitive(name) {
                Some(node) => self.add(node),
                None => self.reference(name, namespace),
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.node(branch, namespace));
                let branches = branches.collect::<Result<_, _>>()?;
                self.add(Node::Union(branches))
            }
            Value::Object(attributes) => self.complex(attributes, namespace),
            other => Err(invalid(format!("{} is not a type", shown(&other.to_string())))),
        }
    }

    fn complex(&mut self, of: &Attributes, namespace: &str) -> Result<NodeId, SchemaFault> {
        let known = self.nodes.len();
        let id = match of.get("type") {
            Some(Value::String(kind)) => match kind.as_str() {
                "record" | "error" => self.record(of, namespace)?,
                "enum" => self.enumeration(of, namespace)?,
                "fixed" => self.fixed(of, namespace)?,
                "array" => {
                    let items = self.node(attribute(of, "items")?, namespace)?;
                    self.add(Node::List(items))?
                }
                "map" => {
                    let values = self.node(attribute(of, "values")?, namespace)?;
                    self.add(Node::Map(values))?
                }
                _ => self.node(&of["type"], namespace)?,
            },
            Some(inner) => self.node(inner, namespace)?,
            None => return Err(invalid("a type has no attribute \"type\"")),
        };
        // A reference to a type keeps the meaning of its definition.
        if id as usize >= known
            && let Some(node) = logical(of, self.at(id))?
        {
            *self.at(id) = node;
        }
        Ok(id)
    }

    fn reference(&self, name: &str, namespace: &str) -> Result<NodeId, SchemaFault> {
        within_limit(name)?;
        let inherited =
            (!name.contains('.')).then(|| self.named.get(&qualified(namespace, name))).flatten();
        inherited.or_else(|| self.named.get(name)).copied().ok_or_else(|| {
            let name = shown(name);
            SchemaFault(format!("the schema refers to {name}, which is not defined"))
        })
    }

    fn define(&mut self, name: &FullName, node: Node) -> Result<NodeId, SchemaFault> {
        let id = self.add(node)?;
        match self.named.insert(name.full.clone(), id) {
            None => Ok(id),
            Some(_) => Err(invalid(format!("it defines {} twice", shown(&name.full)))),
        }
    }

    fn record(&mut self, of: &Attributes, namespace: &str) -> Result<NodeId, SchemaFault> {
        let name = full_name(of, namespace)?;
        let id = self.define(&name, Node::Pending)?;
        let described = array(of, "fields")?;
        let mut fields = Vec::with_capacity(described.len());
        let mut names = HashSet::with_capacity(described.len());
        for field in described {
            let field = field.as_object();
            let field = field.ok_or_else(|| {
                invalid(format!("a field of the record {} is not an object", shown(&name.full)))
            })?;
            let label = text(field, "name")?;
            if !names.insert(label) {
                let (name, label) = (shown(&name.full), shown(label));
                return Err(invalid(format!("{name} has two fields {label}")));
            }
            let node = self.node(attribute(field, "type")?, &name.namespace)?;
            fields.push(PlanField::of(label, node));
        }
        *self.at(id) = Node::Record(PlanRecord { name: name.full, fields });
        Ok(id)
    }

    fn enumeration(&mut self, of: &Attributes, namespace: &str) -> Result<NodeId, SchemaFault> {
        let name = full_name(of, namespace)?;
        let quoted = array(of, "symbols")?.iter().map(|symbol| symbol.as_str().map(json::quoted));
        let symbols: Option<_> = quoted.collect();
        let symbols = symbols.ok_or_else(|| {
            invalid(format!("a symbol of the enum {} is not a string", shown(&name.full)))
        })?;
        self.define(&name, Node::Enum(symbols))
    }

    fn fixed(&mut self, of: &Attributes, namespace: &str) -> Result<NodeId, SchemaFault> {
        let name = full_name(of, namespace)?;
        let size = integer(attribute(of, "size")?);
        let size =
            size.ok_or_else(|| invalid(format!("{} has no valid size", shown(&name.full))))?;
        self.define(&name, Node::Fixed(size))
    }
}

fn primitive(name: &str) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Bool,
        "int" => Node::Int,
        "long" => Node::Long,
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes,
        "string" => Node::Text,
        _ => return None,
    })
}

/// The node of a valid logical type that is read otherwise than its underlying type.
fn logical(of: &Attributes, underlying: &Node) -> Result<Option<Node>, SchemaFault> {
    let Some(name) = of.get("logicalType").and_then(Value::as_str) else { return Ok(None) };
    let fixed = match underlying {
        Node::Fixed(size) => Some(*size),
        _ => None,
    };
    Ok(match (name, underlying) {
        ("timestamp-millis" | "local-timestamp-millis", Node::Long) => Some(Node::Time(1)),
        ("timestamp-micros" | "local-timestamp-micros", Node::Long) => Some(Node::Time(1_000)),
        ("timestamp-nanos" | "local-timestamp-nanos", Node::Long) => Some(Node::Time(1_000_000)),
        ("decimal", Node::Bytes | Node::Fixed(_)) => {
            decimal_scale(of).map(|scale| Node::Decimal { scale, fixed })
        }
        ("uuid", Node::Bytes | Node::Fixed(16)) => Some(Node::Uuid { fixed }),
        ("big-decimal", Node::Bytes) => {
            let message = "the logical type big-decimal is not supported; use decimal or string";
            return Err(SchemaFault(message.to_owned()));
        }
        _ => None,
    })
}

/// The scale of a decimal; `None` if the specification calls its scale or precision invalid.
fn decimal_scale(of: &Attributes) -> Option<usize> {
    let precision = integer(of.get("precision")?)?;
    let scale = of.get("scale").map_or(Some(0), integer)?;
    (precision > 0 && scale <= precision).then_some(scale)
}

fn integer(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|value| usize::try_from(value).ok())
}

fn full_name(of: &Attributes, enclosing: &str) -> Result<FullName, SchemaFault> {
    let name = text(of, "name")?;
    if let Some((namespace, _)) = name.rsplit_once('.') {
        within_limit(name)?;
        return Ok(FullName { full: name.to_owned(), namespace: namespace.to_owned() });
    }
    let namespace = of.get("namespace").and_then(Value::as_str).unwrap_or(enclosing);
    let full = qualified(namespace, name);
    within_limit(&full)?;
    Ok(FullName { full, namespace: namespace.to_owned() })
}

fn within_limit(full_name: &str) -> Result<(), SchemaFault> {
    if full_name.len() <= NAME_MAX_BYTES {
        return Ok(());
    }
    let (name, bytes) = (shown(full_name), full_name.len());
    Err(invalid(format!(
        "the name {name} has {bytes} bytes; at most {NAME_MAX_BYTES} are allowed, its namespace \
         included"
    )))
}

fn qualified(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn attribute<'a>(of: &'a Attributes, name: &str) -> Result<&'a Value, SchemaFault> {
    of.get(name).ok_or_else(|| {
        let subject = of.get("name").or_else(|| of.get("type")).unwrap_or(&Value::Null);
        invalid(format!("{} has no attribute {name:?}", shown(&subject.to_string())))
    })
}

fn text<'a>(of: &'a Attributes, name: &str) -> Result<&'a str, SchemaFault> {
    let value = attribute(of, name)?;
    value.as_str().ok_or_else(|| invalid(format!("the attribute {name:?} is not a string")))
}

fn array<'a>(of: &'a Attributes, name: &str) -> Result<&'a Vec<Value>, SchemaFault> {
    let value = attribute(of, name)?;
    value.as_array().ok_or_else(|| invalid(format!("the attribute {name:?} is not an array")))
}

#[cfg(test)]
mod tests {
    use super::super::WriterSchema;
    use serde_json::{Value, json};

    fn schema(text: &Value, references: &[Value]) -> WriterSchema {
        let references: Vec<String> = references.iter().map(Value::to_string).collect();
        WriterSchema::avro(&text.to_string(), &references).expect("a schema that can be used")
    }

    fn read(text: &Value, references: &[Value], record: &[u8]) -> String {
        schema(text, references).to_json(record).expect("its record").into_owned()
    }

    /// A record with one field.
    fn record(name: &str, of: &Value) -> Value {
        json!({"type": "record", "name": name, "fields": [{"name": "a", "type": of}]})
    }

    fn check(of: &Value, bytes: &[u8], expected: &str) {
        let found = read(&record("R", of), &[], bytes);
        assert_eq!(found, format!("{{\"a\":{expected}}}"), "{of}");
    }

    fn refused(text: &str) -> String {
        WriterSchema::avro(text, &[]).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_union_at_the_top_is_read_by_its_branch() {
        let post = json!({"type": "record", "name": "Post", "namespace": "com.acme", "fields": [
            {"name": "id", "type": "string"}, {"name": "reply", "type": ["null", "Post"]}]});
        let like = record("com.acme.Like", &json!("com.acme.Post"));
        let of_both = [post.clone(), like.clone()];
        for (union, references) in [
            (json!(["null", "com.acme.Post", "com.acme.Like"]), &of_both[..]),
            (json!(["null", post, like]), &[][..]),
            (json!({"type": ["null", post, like]}), &[][..]),
        ] {
            let post = read(&union, references, b"\x02\x04p1\x02\x04p2\0");
            assert_eq!(post, r#"{"id":"p1","reply":{"id":"p2","reply":null}}"#);
            let like = read(&union, references, b"\x04\x04p3\0");
            assert_eq!(like, r#"{"a":{"id":"p3","reply":null}}"#);
            let schema = schema(&union, references);
            let no_record = schema.to_json(b"\0").expect_err("null is no record").to_string();
            assert!(no_record.contains("the union's branch is not a record"), "{no_record}");
            let no_branch = schema.to_json(b"\x06").expect_err("3 branches").to_string();
            let told = "branch of the union number 3 does not exist, its schema has 3";
            assert!(no_branch.contains(told), "{no_branch}");
            schema.to_json(b"").expect_err("the branch is missing");
        }
        assert!(refused(r#"["null", "string"]"#).contains("must be a record"));
        assert!(refused("[]").contains("must be a record"));
        let reference = read(&json!("com.acme.Post"), &of_both, b"\x04p4\0");
        assert_eq!(reference, r#"{"id":"p4","reply":null}"#);
    }

    #[test]
    fn names_that_java_writes_are_labels() {
        let inner = json!({"type": "record", "name": "Outer$Inner", "fields": [
            {"name": "a-b", "type": ["null", "Outer$Inner"]},
            {"name": "grün", "type":
                {"type": "enum", "name": "srv-1.db.E", "symbols": ["x-y", "1"]}},
            {"name": "e", "type": "srv-1.db.E"}]});
        let outer = json!({"type": "record", "name": "Root", "namespace": "srv-1.db", "fields": [
            {"name": "op/1", "type": inner}, {"name": "", "type": "srv-1.db.Outer$Inner"}]});
        let found = read(&outer, &[], b"\x02\0\0\x02\x02\0\0\x02\0");
        assert_eq!(
            found,
            r#"{"op/1":{"a-b":{"a-b":null,"grün":"x-y","e":"1"},"grün":"1","e":"x-y"},"#.to_owned()
                + r#""":{"a-b":null,"grün":"1","e":"x-y"}}"#
        );
    }

    #[test]
    fn a_reference_is_resolved_in_its_namespace_first() {
        let fixed = |name: &str, size: u32| json!({"type": "fixed", "name": name, "size": size});
        let text = json!({"type": "record", "name": "n.R", "fields": [
            {"name": "a", "type": "F"},
            {"name": "b", "type": {"type": "record", "name": "S", "namespace": "", "fields": [
                {"name": "c", "type": "F"}]}},
            {"name": "d", "type": "G"}]});
        let references = [fixed("F", 1), fixed("n.F", 2), fixed("G", 0)];
        let found = read(&text, &references, &[1, 2, 3]);
        assert_eq!(found, r#"{"a":[1,2],"b":{"c":[3]},"d":[]}"#);
    }

    #[test]
    fn defaults_aliases_and_unknown_attributes_are_not_used() {
        for default in [json!("x"), json!(null), json!(-1), json!({"a": []}), json!([])] {
            let text = json!({"type": "record", "name": "ConnectDefault", "namespace": "io.connect",
                "aliases": [7], "doc": 1, "connect.name": "x", "fields": [
                    {"name": "a", "type": ["null", "int"], "default": default, "aliases": "b"},
                    {"name": "c", "type": {"type": "int", "connect.default": 5}, "default": default,
                        "order": "up"},
                    {"name": "d", "type": {"type": "bytes", "scale": 2, "precision": 64,
                        "connect.version": 1, "connect.parameters": {"scale": "2"},
                        "logicalType": "decimal"}, "default": default},
                    {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"],
                        "default": default}, "default": default}]});
            let found = read(&text, &[], &[2, 4, 6, 2, 7, 0]);
            assert_eq!(found, r#"{"a":2,"c":3,"d":"0.07","e":"A"}"#);
        }
    }

    #[test]
    fn a_decimal_is_exact_and_an_invalid_one_is_its_underlying_type() {
        let decimal = |precision: Value, scale: Value| {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision,
                "scale": scale})
        };
        let small = format!("\"0.{}7\"", "0".repeat(99));
        check(&decimal(json!(100), json!(100)), &[2, 7], &small);
        check(&decimal(json!(200), json!(65)), &[2, 0xff], &format!("\"-0.{}1\"", "0".repeat(64)));
        check(
            &json!({"type": "bytes", "logicalType": "decimal", "precision": 1}),
            &[2, 7],
            "\"7\"",
        );
        let fixed = json!({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal",
            "precision": 4, "scale": 1});
        check(&fixed, &[0xff, 0xfe], "\"-0.2\"");
        for (precision, scale) in [
            (json!(2), json!(3)),
            (json!(0), json!(0)),
            (json!(-1), json!(-2)),
            (json!(9), json!(-2)),
            (json!("9"), json!(2)),
            (json!(9), json!("2")),
            (json!(9), json!(2.5)),
            (json!(9), json!(null)),
            (json!(null), json!(2)),
        ] {
            check(&decimal(precision, scale), &[2, 7], "[7]");
        }
        check(&json!({"type": "bytes", "logicalType": "decimal", "scale": 2}), &[2, 7], "[7]");
        check(
            &json!({"type": "string", "logicalType": "decimal", "precision": 9}),
            b"\x02x",
            "\"x\"",
        );
    }

    #[test]
    fn a_decimal_beyond_the_limits_is_refused_where_it_occurs() {
        let text = record(
            "R",
            &json!(["null", {"type": "bytes", "logicalType": "decimal",
            "precision": 4_000_000_000u32, "scale": 4_000_000_000u32}]),
        );
        assert_eq!(read(&text, &[], &[0]), r#"{"a":null}"#);
        let refused = schema(&text, &[]).to_json(&[2, 2, 7]).expect_err("too long").to_string();
        assert!(refused.contains("a scale above 16384; send it as a string"), "{refused}");
    }

    #[test]
    fn an_unknown_or_misplaced_logical_type_is_ignored() {
        let logical = |of: &str, logical: Value| json!({"type": of, "logicalType": logical});
        check(&logical("int", json!("timestamp-micros")), &[4], "2");
        check(&logical("string", json!("date")), b"\x02x", "\"x\"");
        check(&logical("long", json!(7)), &[4], "2");
        check(
            &json!({"type": {"type": "long"}, "logicalType": "timestamp-micros"}),
            &[0xd0, 0x0f],
            "1",
        );
        let short = json!({"type": "fixed", "name": "F", "size": 2, "logicalType": "uuid"});
        check(&short, &[1, 2], "[1,2]");
        assert!(
            refused(&record("R", &logical("bytes", json!("big-decimal"))).to_string())
                .contains("use decimal or string")
        );
    }

    #[test]
    fn a_full_name_has_at_most_1024_bytes() {
        let of = |namespace: usize| {
            let namespace = "n".repeat(namespace);
            json!({"type": "record", "name": "R", "namespace": namespace, "fields": []})
        };
        assert!(WriterSchema::avro(&of(1022).to_string(), &[]).is_ok());
        let long = refused(&of(1023).to_string());
        assert!(long.contains("has 1025 bytes; at most 1024 are allowed"), "{long}");
        let inner = json!({"type": "enum", "name": "E", "namespace": "n".repeat(5000),
            "symbols": []});
        for of in [inner, json!("n".repeat(5000)), json!(format!("a.{}", "n".repeat(5000)))] {
            let refused = refused(&record("R", &of).to_string());
            assert!(refused.contains("at most 1024 are allowed"), "{refused}");
        }
    }

    #[test]
    fn a_fault_shows_the_beginning_of_a_long_name() {
        let long = "n".repeat(1000);
        let enumeration =
            |symbols: Value| json!({"type": "enum", "name": long, "symbols": symbols});
        let many = json!({"type": "record", "name": "A", "fields": [
            {"name": "f".repeat(9000), "type": "int"}, {"name": "f".repeat(9000), "type": "int"}]});
        for of in [
            json!(long),
            enumeration(json!([1])),
            json!({"type": "fixed", "name": long, "size": -1}),
            json!({"type": "record", "name": long, "fields": [1]}),
            json!({"type": "fixed", "name": long}),
            json!([enumeration(json!([])), enumeration(json!([]))]),
            many,
        ] {
            let refused = refused(&record("R", &of).to_string());
            assert!(refused.len() < 300, "{} bytes: {refused:.400}", refused.len());
        }
    }

    #[test]
    fn schemas_that_have_no_single_meaning_are_refused() {
        for (of, why) in [
            (json!({"type": "array"}), "\"array\" has no attribute \"items\""),
            (json!({"type": "map", "items": "int"}), "\"map\" has no attribute \"values\""),
            (json!({"items": "int"}), "no attribute \"type\""),
            (json!("Nobody"), "refers to Nobody, which is not defined"),
            (json!({"type": "fixed", "name": "F", "size": -1}), "F has no valid size"),
            (json!({"type": "enum", "name": "E"}), "\"E\" has no attribute \"symbols\""),
            (json!({"type": "enum", "name": "E", "symbols": [1]}), "the enum E is not a string"),
            (json!({"type": "record", "name": "N", "fields": {}}), "is not an array"),
            (
                json!({"type": "record", "name": "N", "fields": [1]}),
                "the record N is not an object",
            ),
            (json!({"type": "record", "name": 7, "fields": []}), "\"name\" is not a string"),
            (json!({"type": "record", "name": "R", "fields": []}), "it defines R twice"),
            (json!(7), "7 is not a type"),
        ] {
            let refused = refused(&record("R", &of).to_string());
            assert!(refused.contains(why), "{of}: {refused}");
        }
        let twice = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},
            {"name":"a","type":"int"}]}"#;
        assert!(refused(twice).contains("R has two fields a"));
        let deep = format!("{}\"int\"{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(refused(&deep).contains("recursion limit"));
    }
}
