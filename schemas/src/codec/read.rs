//! Decodes an Avro record to JSON text, field by field, in one pass.
//!
//! The bytes are untrusted. Reading follows the plan, never allocates by a length it read, and
//! limits depth and output, so that a recursive record or a list of a billion nulls ends early.
//!
//! The output equals what apache-avro's `Value` becomes as JSON, with two exceptions: times finer
//! than a millisecond become milliseconds, and decimals and binary UUIDs become text.

use std::fmt::Write as _;
use std::ops::Range;

use super::decimal::{DECIMAL_MAX_BYTES, DECIMAL_MAX_SCALE, write_decimal};
use super::read_plan::{Node, NodeId, PlanRecord, ReadPlan};
use crate::envelope::{DATA_MAX_DEPTH, EVENT_MAX_BYTES, Reason, Rejection, shown};
use crate::json;

/// The longest record as JSON text. Twice the longest event, because a string of JSON text grows by
/// a backslash before each quote; admission limits the data itself.
const RECORD_JSON_MAX_BYTES: usize = 2 * EVENT_MAX_BYTES;

/// The fields of a record as JSON.
#[derive(Debug)]
pub(super) struct DecodedFields<'a> {
    /// The record's type; of a union of records, the one that was written.
    pub(super) record: &'a PlanRecord,
    text: String,
    /// The range of each field's value in `text`, in the order of `record`.
    values: Vec<Range<u32>>,
}

impl DecodedFields<'_> {
    /// A field's value, null included, by its index in `record`.
    pub(super) fn value(&self, at: usize) -> &str {
        let Range { start, end } = self.values[at];
        &self.text[start as usize..end as usize]
    }

    /// All fields as one object.
    pub(super) fn to_object(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 32 * self.values.len());
        out.push('{');
        for (at, field) in self.record.fields.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&field.quoted);
            out.push_str(self.value(at));
        }
        out.push('}');
        out
    }
}

/// Reads a record; bytes after it are an error.
pub(super) fn read<'a>(plan: &'a ReadPlan, bytes: &[u8]) -> Result<DecodedFields<'a>, Rejection> {
    let text = String::with_capacity(bytes.len() * 2);
    let mut reader = AvroReader { plan, bytes, at: 0, text, depth: 1 };
    let record = match reader.root() {
        Ok(record) => record,
        Err(error) => return Err(reader.rejection(error, "of a union", None)),
    };
    let mut values = Vec::with_capacity(record.fields.len());
    for field in &record.fields {
        let start = reader.text.len() as u32;
        reader
            .value(field.node)
            .and_then(|()| reader.within_limit())
            .map_err(|error| reader.rejection(error, &record.name, Some(&field.name)))?;
        values.push(start..reader.text.len() as u32);
    }
    if reader.at < bytes.len() {
        let rest = bytes.len() - reader.at;
        let message = format!(
            "{rest} bytes follow the record; it may have been written with another version of {}",
            shown(&record.name)
        );
        return Err(Rejection::new(Reason::AvroDecode, message));
    }
    Ok(DecodedFields { record, text: reader.text, values })
}

/// Why reading ends.
enum AvroError {
    /// The bytes don't follow the schema.
    Malformed(&'static str),
    /// A number that names none of `count` branches or symbols.
    NotOneOf {
        what: &'static str,
        number: i64,
        count: usize,
    },
    TooDeep,
    TooLong,
    DecimalTooLong,
}

struct AvroReader<'p, 'b> {
    plan: &'p ReadPlan,
    bytes: &'b [u8],
    at: usize,
    text: String,
    /// Nesting depth of the value, `data` included.
    depth: usize,
}

impl<'p, 'b> AvroReader<'p, 'b> {
    fn rejection(&self, error: AvroError, name: &str, field: Option<&str>) -> Rejection {
        let name = shown(name);
        let (reason, message) = match error {
            AvroError::Malformed(what) => {
                (Reason::AvroDecode, format!("at byte {} of the record {name}: {what}", self.at))
            }
            AvroError::NotOneOf { what, number, count } => {
                let place =
                    field.map_or(String::new(), |field| format!(", field {}", shown(field)));
                let message = format!(
                    "at byte {} of the record {name}{place}: {what} number {number} does not \
                     exist, its schema has {count}, counted from 0; write with the schema that \
                     the record names",
                    self.at
                );
                (Reason::AvroDecode, message)
            }
            AvroError::TooDeep => (
                Reason::TooLarge,
                format!("the record {name} is nested more than {DATA_MAX_DEPTH} levels deep"),
            ),
            AvroError::TooLong => (
                Reason::TooLarge,
                format!("the record {name} has more than {RECORD_JSON_MAX_BYTES} bytes as JSON"),
            ),
            AvroError::DecimalTooLong => (
                Reason::TooLarge,
                format!(
                    "a decimal of the record {name} has more than {DECIMAL_MAX_BYTES} bytes, or a \
                     scale above {DECIMAL_MAX_SCALE}; send it as a string"
                ),
            ),
        };
        match field {
            Some(field) => Rejection::of(reason, field, message),
            None => Rejection::new(reason, message),
        }
    }

    /// The record at the top, of which a union writes the branch first.
    fn root(&mut self) -> Result<&'p PlanRecord, AvroError> {
        let plan = self.plan;
        let node = match plan.root() {
            Node::Union(branches) => plan.node(self.branch(branches)?),
            node => node,
        };
        match node {
            Node::Record(record) => Ok(record),
            _ => Err(AvroError::Malformed(
                "the union's branch is not a record; an event is a record, whose fields are its \
                 data",
            )),
        }
    }

    fn branch(&mut self, branches: &[NodeId]) -> Result<NodeId, AvroError> {
        let number = self.long()?;
        let branch = usize::try_from(number).ok().and_then(|at| branches.get(at));
        let count = branches.len();
        branch.copied().ok_or(AvroError::NotOneOf { what: "branch of the union", number, count })
    }

    fn within_limit(&self) -> Result<(), AvroError> {
        if self.text.len() > RECORD_JSON_MAX_BYTES { Err(AvroError::TooLong) } else { Ok(()) }
    }

    fn value(&mut self, id: NodeId) -> Result<(), AvroError> {
        self.within_limit()?;
        let plan = self.plan;
        match plan.node(id) {
            Node::List(item) => self.blocks('[', ']', |reader| reader.value(*item)),
            Node::Map(value) => self.blocks('{', '}', |reader| {
                let name = reader.utf8()?;
                json::quote(name, &mut reader.text);
                reader.text.push(':');
                reader.value(*value)
            }),
            Node::Union(branches) => {
                let branch = self.branch(branches)?;
                self.value(branch)
            }
            Node::Record(record) => {
                self.enter('{')?;
                for (n, field) in record.fields.iter().enumerate() {
                    if n > 0 {
                        self.text.push(',');
                    }
                    self.text.push_str(&field.quoted);
                    self.value(field.node)?;
                }
                self.leave('}');
                Ok(())
            }
            single => self.single(single),
        }
    }

    /// A value without nested values.
    fn single(&mut self, node: &Node) -> Result<(), AvroError> {
        match node {
            Node::Null => self.text.push_str("null"),
            Node::Bool => match self.take(1)? {
                [0] => self.text.push_str("false"),
                [1] => self.text.push_str("true"),
                _ => return Err(AvroError::Malformed("a boolean is neither 0 nor 1")),
            },
            Node::Int => {
                let value = i32::try_from(self.long()?);
                self.integer(
                    value.map_err(|_| AvroError::Malformed("an int has more than 32 bits"))?.into(),
                );
            }
            Node::Long => {
                let value = self.long()?;
                self.integer(value);
            }
            Node::Time(per_ms) => {
                let value = self.long()?.div_euclid(*per_ms);
                self.integer(value);
            }
            Node::Float => {
                let bytes = self.array::<4>()?;
                self.number(f32::from_le_bytes(bytes).into())?;
            }
            Node::Double => {
                let bytes = self.array::<8>()?;
                self.number(f64::from_le_bytes(bytes))?;
            }
            Node::Bytes => {
                let bytes = self.counted()?;
                self.numbers(bytes)?;
            }
            Node::Fixed(size) => {
                let bytes = self.take(*size)?;
                self.numbers(bytes)?;
            }
            Node::Decimal { scale, fixed } => self.decimal(*scale, *fixed)?,
            Node::Uuid { fixed } => self.uuid(*fixed)?,
            Node::Text => {
                let text = self.utf8()?;
                json::quote(text, &mut self.text);
            }
            Node::Enum(symbols) => {
                let number = self.long()?;
                let symbol = usize::try_from(number).ok().and_then(|at| symbols.get(at));
                let (what, count) = ("symbol of the enum", symbols.len());
                let symbol = symbol.ok_or(AvroError::NotOneOf { what, number, count })?;
                self.text.push_str(symbol);
            }
            Node::Pending | Node::List(_) | Node::Map(_) | Node::Union(_) | Node::Record(_) => {
                return Err(AvroError::Malformed("its schema is incomplete"));
            }
        }
        Ok(())
    }

    fn enter(&mut self, bracket: char) -> Result<(), AvroError> {
        if self.depth == DATA_MAX_DEPTH {
            return Err(AvroError::TooDeep);
        }
        self.depth += 1;
        self.text.push(bracket);
        Ok(())
    }

    fn leave(&mut self, bracket: char) {
        self.depth -= 1;
        self.text.push(bracket);
    }

    /// Items in blocks, each preceded by its count; a negative count is followed by a size.
    fn blocks(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), AvroError>,
    ) -> Result<(), AvroError> {
        self.enter(open)?;
        let mut first = true;
        loop {
            let mut count = self.long()?;
            if count < 0 {
                self.long()?;
                count = count
                    .checked_neg()
                    .ok_or(AvroError::Malformed("a block's count is too large"))?;
            }
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if !std::mem::take(&mut first) {
                    self.text.push(',');
                }
                item(self)?;
            }
        }
        self.leave(close);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], AvroError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(AvroError::Malformed("the record ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AvroError> {
        Ok(*self.take(N)?.first_chunk().expect("take returns N bytes"))
    }

    /// Avro's `int` and `long`: LEB128, then zigzag.
    fn long(&mut self) -> Result<i64, AvroError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(AvroError::Malformed("the record ends too early"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(AvroError::Malformed("a number has more than 64 bits"))
    }

    fn counted(&mut self) -> Result<&'b [u8], AvroError> {
        let count = usize::try_from(self.long()?);
        self.take(count.map_err(|_| AvroError::Malformed("a length is negative"))?)
    }

    fn sized(&mut self, fixed: Option<usize>) -> Result<&'b [u8], AvroError> {
        match fixed {
            Some(size) => self.take(size),
            None => self.counted(),
        }
    }

    fn utf8(&mut self) -> Result<&'b str, AvroError> {
        std::str::from_utf8(self.counted()?)
            .map_err(|_| AvroError::Malformed("a string is not UTF-8"))
    }

    fn integer(&mut self, value: i64) {
        self.text.push_str(itoa::Buffer::new().format(value));
    }

    fn number(&mut self, value: f64) -> Result<(), AvroError> {
        if !value.is_finite() {
            return Err(AvroError::Malformed("JSON has no number for infinity or NaN; send null"));
        }
        // The same digits as serde_json: of two shortest forms, the nearer to the number.
        self.text.push_str(zmij::Buffer::new().format_finite(value));
        Ok(())
    }

    fn numbers(&mut self, bytes: &[u8]) -> Result<(), AvroError> {
        self.enter('[')?;
        for (n, byte) in bytes.iter().enumerate() {
            if n > 0 {
                self.text.push(',');
            }
            self.integer(i64::from(*byte));
        }
        self.leave(']');
        Ok(())
    }

    fn decimal(&mut self, scale: usize, fixed: Option<usize>) -> Result<(), AvroError> {
        let bytes = self.sized(fixed)?;
        self.text.push('"');
        if !write_decimal(bytes, scale, &mut self.text) {
            return Err(AvroError::DecimalTooLong);
        }
        self.text.push('"');
        Ok(())
    }

    fn uuid(&mut self, fixed: Option<usize>) -> Result<(), AvroError> {
        let bytes = self.sized(fixed)?;
        if bytes.len() != 16 {
            return Err(AvroError::Malformed("a UUID does not have 16 bytes"));
        }
        self.text.push('"');
        for (n, byte) in bytes.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                self.text.push('-');
            }
            write!(self.text, "{byte:02x}").expect("a string takes everything");
        }
        self.text.push('"');
        Ok(())
    }
}
