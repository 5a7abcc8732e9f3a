//! The changelog record: one change of one key of a task's tables.
//!
//! ```text
//! key    table number, 1 byte · the key
//! value  the new value; none (a tombstone) removes the key
//! ```
//!
//! The topics `state` and `state.windows` are compacted, so the latest record of each key is the
//! table. A transaction writes one record per key it changed, however often it changed it. Tables
//! whose changelog is `order` have no records here.

use bytes::Bytes;

use crate::port::Table;
use crate::record::Body;

/// The record of a change.
pub(super) fn encode(table: Table, key: &[u8], value: Option<&[u8]>) -> Body {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table.0);
    full.extend_from_slice(key);
    Body::new(Some(&full), value, &[])
}

/// The change of a record; `None` if it is not a changelog record.
pub(super) fn decode(body: &Body) -> Option<(Table, Bytes, Option<Bytes>)> {
    let (table, key) = body.key()?.split_first()?;
    Some((Table(*table), Bytes::copy_from_slice(key), body.value().map(Bytes::copy_from_slice)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_back() {
        for (key, value) in [(&b"k"[..], Some(&b"v"[..])), (b"", None), (b"k", Some(b""))] {
            let (table, k, v) = decode(&encode(Table(9), key, value)).expect("own record");
            assert_eq!((table, &k[..], v.as_deref()), (Table(9), key, value));
        }
        assert_eq!(decode(&Body::new(None, None, &[])), None);
    }
}
