//! Totals over all tasks, computed independently: what is kept of them, and what is sent.

use bytes::Bytes;
use tidewire_engine::derive::{EARLY_FLUSH_PARTS, FLUSH_PARTS_MAX};
use tidewire_engine::port::Table;
use tidewire_engine::record::{Millis, Partition};
use tidewire_schemas::Priority;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::{hash128, hex};

use super::operators::{EmittedFact, due_before};
use super::tables::ModelTables;
use crate::operators::{COUNTER, PART_MS, PART_TYPE, PARTS};

/// The engine's own table of flushes.
pub(super) const FLUSHES: Table = Table(6);

/// The operator number of partials there.
const PARTIALS: u8 = 253;

const HEAD: &[u8] = &[0];

/// Round, first round of which parts are left, parts.
fn head(tables: &ModelTables) -> [u64; 3] {
    let stored = tables.get(PARTS, HEAD);
    let number = |at: usize| stored.map_or(0, |stored| short(&stored[at..]));
    let first = 1 + width(number(1));
    [number(1), number(first), number(first + width(number(first)))]
}

fn set_head(tables: &mut ModelTables, numbers: [u64; 3]) {
    let mut bytes = vec![1];
    for number in numbers {
        put_number(&mut bytes, number);
    }
    tables.set(PARTS, HEAD, Some(&bytes));
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A number of at most nine bytes.
fn short(bytes: &[u8]) -> u64 {
    let len = 1 + bytes.iter().take_while(|byte| **byte >= 0x80).count();
    bytes[..len].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

fn width(number: u64) -> usize {
    let mut bytes = Vec::new();
    put_number(&mut bytes, number);
    bytes.len()
}

fn set_timer(tables: &mut ModelTables, at: Millis) {
    let timer = [&(at.0 ^ i64::MIN).to_be_bytes()[..], &[PARTIALS], &[0; 16], &[PARTS.0]].concat();
    tables.set(FLUSHES, &timer, Some(b""));
}

/// A text as in keys of stores; those of the simulation have no zeros.
fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0, 0]].concat()
}

/// The times of an addition.
#[derive(Clone, Copy)]
pub(super) struct AddTimes {
    pub(super) appended: Millis,
    /// The latest time of the task.
    pub(super) latest: Millis,
}

/// Adds one to a total of an account, by an event of a producer.
pub(super) fn add(tables: &mut ModelTables, (account, total): (&str, &str), times: AddTimes) {
    let [round, first, parts] = head(tables);
    let row = [&round.to_be_bytes()[..], &text(account), &text(total)].concat();
    let before = tables.get(PARTS, &row).map(|part| read_part(part));
    let (count, time) = before.unwrap_or((0, Millis(0)));
    if before.is_none() {
        if parts == 0 {
            set_timer(tables, Millis(times.latest.0 + PART_MS));
        }
        set_head(tables, [round, first, parts + 1]);
    }
    // No hops; then the version of the value.
    let mut part = vec![1, 0];
    put_number(&mut part, 2 * time.max(times.appended).0.cast_unsigned());
    part.push(1);
    put_number(&mut part, 2 * (count + 1));
    tables.set(PARTS, &row, Some(&part));
}

/// Count and time of a part; neither is negative.
fn read_part(part: &[u8]) -> (u64, Millis) {
    let time = short(&part[2..]);
    (short(&part[2 + width(time) + 1..]) / 2, Millis((time / 2).cast_signed()))
}

/// The timers due up to the latest time, in order.
pub(super) fn due(tables: &ModelTables, latest: Millis) -> Vec<Bytes> {
    due_before(tables, FLUSHES, latest)
}

/// A timer fires; returns the parts that are sent.
pub(super) fn end_partial(
    tables: &mut ModelTables,
    timer: &[u8],
    (task, latest): (Partition, Millis),
) -> Vec<EmittedFact> {
    tables.set(FLUSHES, timer, None);
    let due = i64::from_be_bytes(*timer.first_chunk().expect("a time")) ^ i64::MIN;
    let sent = flush(tables, task);
    let [round, first, parts] = head(tables);
    if parts > 0 {
        let next = if first < round { due } else { latest.0 + PART_MS };
        set_timer(tables, Millis(next));
    }
    sent
}

/// The parts that are sent because there are too many.
pub(super) fn flush_early(tables: &mut ModelTables, task: Partition) -> Vec<EmittedFact> {
    let mut sent = Vec::new();
    while head(tables)[2] >= EARLY_FLUSH_PARTS {
        sent.extend(flush(tables, task));
    }
    sent
}

fn flush(tables: &mut ModelTables, task: Partition) -> Vec<EmittedFact> {
    let [mut round, mut first, parts] = head(tables);
    if first == round {
        round += 1;
    }
    let rows = tables.keys(PARTS, &first.to_be_bytes(), &round.to_be_bytes());
    if rows.len() <= FLUSH_PARTS_MAX {
        first = round;
    }
    let rows = &rows[..rows.len().min(FLUSH_PARTS_MAX)];
    set_head(tables, [round, first, parts - rows.len() as u64]);
    let mut sent = Vec::new();
    for row in rows {
        let part = tables.get(PARTS, row).expect("it was found").clone();
        tables.set(PARTS, row, None);
        sent.push(fact(task, row, read_part(&part)));
    }
    sent
}

fn fact(task: Partition, row: &[u8], (count, time): (u64, Millis)) -> EmittedFact {
    let mut texts = row[8..].split(|byte| *byte == 0).filter(|text| !text.is_empty());
    let mut next = || std::str::from_utf8(texts.next().expect("two texts")).expect("a text");
    let (account, key) = (next(), next());
    let stored = hex(&[&[PARTS.0], row].concat());
    let part = hex(&hash128("", &format!("part/{}/{COUNTER}/{stored}", task.0)));
    let cause = format!("timer {part}");
    let hash = hash128(account, &format!("{}:{cause}/0:/0/{key}", cause.len()));
    let event = EventView {
        event_id: &format!("op/counter/{}", hex(&hash)),
        event_type: PART_TYPE,
        account_id: account,
        timestamp_ms: time.0,
        correlation_id: &part,
        priority: Priority::Normal,
        key,
        source: Some("op/counter"),
        alias: None,
        data: &format!(r#"{{"user_id":"{key}","count":{count}}}"#),
    };
    EmittedFact {
        account: account.to_owned(),
        key: key.to_owned(),
        urgent: false,
        hops: 1,
        time,
        value: event.encode(),
    }
}

/// Parts that are kept.
pub(super) fn kept(tables: &ModelTables) -> usize {
    tables.keys(PARTS, &[0; 8], &[0xff; 8]).len()
}
