//! Detects that acknowledged records may have been lost, so that positions change with them.
//!
//! With `durability = "process"` a host that stops without warning may lose acknowledged records,
//! and their offsets are given out again. So each run writes a note, and the next run compares it
//! with the host's boot id:
//!
//! ```text
//! note found            same boot          another boot
//! none (a new log)      incarnation 0      incarnation 0
//! closed cleanly        unchanged          unchanged
//! not closed            unchanged          plus one, unless every write was synced
//! ```
//!
//! A killed process changes nothing: its write-ahead log is in the host's memory. Note, version 1:
//! incarnation u32 · closed u8 · synced u8 · boot id as text. Both notes are synced.

use rocksdb::WriteBatch;
use tidewire_engine::port::LogError;

use super::config::{Config, Durability};
use super::database::LogDatabase;

const KEY: &[u8] = b"boot";

/// The note of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BootNote {
    /// Counts the times that acknowledged records may have been lost.
    pub(super) incarnation: u32,
    closed: bool,
    synced: bool,
    boot: String,
}

impl BootNote {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.incarnation.to_be_bytes().to_vec();
        out.extend([u8::from(self.closed), u8::from(self.synced)]);
        out.extend_from_slice(self.boot.as_bytes());
        out
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (incarnation, rest) = value.split_first_chunk::<4>()?;
        let ([closed, synced], boot) = rest.split_first_chunk::<2>()?;
        Some(Self {
            incarnation: u32::from_be_bytes(*incarnation),
            closed: *closed == 1,
            synced: *synced == 1,
            boot: std::str::from_utf8(boot).ok()?.to_owned(),
        })
    }

    /// The note of a run that starts now, given the note of the run before.
    fn following(before: Option<&Self>, boot: &str, durability: Durability) -> Self {
        let incarnation = match before {
            None => 0,
            Some(note) => {
                // An unreadable boot id could be any boot.
                let same = note.boot == boot && !boot.is_empty();
                let lost = !note.closed && !note.synced && !same;
                note.incarnation.wrapping_add(u32::from(lost))
            }
        };
        let synced = durability == Durability::Host;
        Self { incarnation, closed: false, synced, boot: boot.to_owned() }
    }
}

/// Reads the note of the run before and writes the note of this run.
pub(super) fn start_run(database: &LogDatabase, config: &Config) -> Result<BootNote, LogError> {
    let boot = std::fs::read_to_string(&config.boot_id_file).unwrap_or_default();
    let before = match database.meta_row(KEY)? {
        None => None,
        Some(row) => Some(
            BootNote::decode(&row)
                .ok_or_else(|| database.corruption("the boot note is unreadable"))?,
        ),
    };
    let note = BootNote::following(before.as_ref(), boot.trim(), config.durability);
    write_note(database, &note)?;
    Ok(note)
}

/// Records that the log was closed and everything is written.
pub(super) fn end_run(database: &LogDatabase, note: &BootNote) -> Result<(), LogError> {
    write_note(database, &BootNote { closed: true, ..note.clone() })
}

fn write_note(database: &LogDatabase, note: &BootNote) -> Result<(), LogError> {
    let mut batch = WriteBatch::default();
    batch.put_cf(&database.meta()?, KEY, note.encode());
    database.write_as(batch, Durability::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: Option<(&str, bool, bool)>, boot: &str, expected: u32) {
        let before = left.map(|(boot, closed, synced)| BootNote {
            incarnation: 7,
            closed,
            synced,
            boot: boot.to_owned(),
        });
        let note = BootNote::following(before.as_ref(), boot, Durability::Process);
        assert_eq!(note.incarnation, expected);
        assert_eq!(BootNote::decode(&note.encode()), Some(note));
    }

    #[test]
    fn the_incarnation_changes_only_when_records_may_be_lost() {
        check(None, "b1", 0);
        check(Some(("b1", false, false)), "b1", 7);
        check(Some(("b1", true, false)), "b2", 7);
        check(Some(("b1", false, true)), "b2", 7);
        check(Some(("b1", false, false)), "b2", 8);
        check(Some(("", false, false)), "", 8);
    }
}
