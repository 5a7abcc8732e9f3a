//! The limits of what one operator call may write, so that the log accepts every record of DERIVE.
//!
//! A broker refuses a record above its limit, at every attempt, and the process would end at every
//! start. So each record is measured before it is kept: above a limit the call fails, which is a
//! dead letter of that operator. Kafka's default limit is 1,048,588 bytes for a record with its
//! key and headers; nothing of DERIVE but a dead letter comes near it, and the topic of those takes
//! twice as much.
//!
//! What de-duplication and delivery write is not measured: they write the event itself, which ADMIT
//! has limited, once per channel of its type. The same holds for a copy of an event for another
//! key; only all copies of one transaction have a limit, and the others follow in further ones
//! (`pending_copies.rs`).

/// Bytes of a key of a table: some texts of 128 characters, escaped.
pub const STATE_KEY_MAX_BYTES: usize = 8 << 10;

/// Bytes of a value of a table, its version included: as much as an event has.
pub const STATE_VALUE_MAX_BYTES: usize = 256 << 10;

/// Bytes of an emitted record, its key and headers included: as much as an event has.
pub const EMISSION_MAX_BYTES: usize = 256 << 10;

/// Bytes of all records that follow from one event or timer in a transaction: half of that.
pub const CAUSE_MAX_BYTES: usize = 4 << 20;

/// Facts and copies of one critical event that are urgent, as for a handful of users whom it names;
/// the others are processed with those of all events. Else one event with a hundred `mentions`
/// delays what follows from every other critical one.
pub const URGENT_FACTS_MAX: usize = 16;

/// Whether a row of a table is small enough.
pub(super) fn row_fits(key: &[u8], value: &[u8]) -> bool {
    key.len() <= STATE_KEY_MAX_BYTES && value.len() <= STATE_VALUE_MAX_BYTES
}

/// Says that a row of the table of this name is too large.
pub(super) fn row_excess(table: &str, key: &[u8], value: &[u8]) -> String {
    let (what, bytes, limit) = match key.len() {
        bytes if bytes > STATE_KEY_MAX_BYTES => ("key", bytes, STATE_KEY_MAX_BYTES),
        _ => ("value", value.len(), STATE_VALUE_MAX_BYTES),
    };
    format!(
        "a {what} of table {table} has {bytes} bytes, and {limit} is the limit; keep less per key, \
         or split it over several keys"
    )
}

/// Why an emitted record is too large; `None` if it is not. `before` is what was emitted for the
/// same event or timer.
pub(super) fn emission_excess(what: &str, bytes: usize, before: usize) -> Option<String> {
    if bytes > EMISSION_MAX_BYTES {
        return Some(format!(
            "a record of {what} has {bytes} bytes, and {EMISSION_MAX_BYTES} is the limit; emit \
             less in one event"
        ));
    }
    let total = before + bytes;
    (!cause_fits(bytes, before)).then(|| {
        format!(
            "with a record of {what}, {total} bytes are emitted for one event or timer, and \
             {CAUSE_MAX_BYTES} is the limit; emit fewer or smaller events"
        )
    })
}

/// Whether a record fits into what one event or timer may cause. `before` is what it has caused.
pub(super) fn cause_fits(bytes: usize, before: usize) -> bool {
    before + bytes <= CAUSE_MAX_BYTES
}

#[cfg(test)]
mod tests;
