//! The tree of an event: each entry of the audit that is about it, and what followed from it.
//!
//! Facts, copies, timers and updates are looked up where they were processed. A tree has a bounded
//! number of nodes, each entry is shown once, and what is missing says why.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};
use tidewire_schemas::time::format_rfc3339;

use super::ExplainError;
use super::audit_reader::AuditReader;
use super::effect_list::{EFFECTS, EffectList};
use super::index::{AuditIndex, IndexKey};
use crate::derive::audit::layout::{
    AuditCause, AuditEntry, AuditItem, AuditPart, AuditedCopy, AuditedEvent,
};
use crate::derive::{Operators, audit::layout::CalledFor};
use crate::port::Stores;
use crate::record::{Millis, Offset, Partition};
use crate::replay::ReadOnlyLog;
use crate::topology::Topology;

/// Entries in one answer.
pub const NODES_MAX: usize = 500;

/// Entries that may follow from each other: a timer may set itself again without end.
const DEPTH_MAX: usize = 24;

/// The event to explain.
#[derive(Clone, Copy)]
pub struct ExplainQuery<'a> {
    /// The log.
    pub log: &'a ReadOnlyLog,
    /// The topics.
    pub topology: &'a Topology,
    /// Its id.
    pub id: &'a str,
    /// Its account; `None`: any.
    pub account: Option<&'a str>,
}

/// An entry of the audit: task, offset of the record, number in it.
type EntryAt = (Partition, Offset, usize);

/// What an answer is read from.
pub(super) struct Explainer<'a> {
    pub(super) reader: AuditReader<'a>,
    pub(super) index: AuditIndex,
    pub(super) operators: Operators,
    topology: &'a Topology,
    shown: BTreeSet<EntryAt>,
    depth: usize,
}

/// Explains an event. The answer has a node per entry about it in `events`; without one the id is
/// unknown.
pub fn explain(
    stores: &dyn Stores,
    operators: Operators,
    query: ExplainQuery<'_>,
) -> Result<Value, ExplainError> {
    let ExplainQuery { log, topology, .. } = query;
    let reader = AuditReader::new(log, topology)?;
    let index = AuditIndex::open(stores)?;
    let shown = BTreeSet::new();
    let mut explainer = Explainer { reader, index, operators, topology, shown, depth: 0 };
    let answer = explainer.answer(query)?;
    explainer.index.close()?;
    Ok(answer)
}

impl Explainer<'_> {
    fn answer(&mut self, query: ExplainQuery<'_>) -> Result<Value, ExplainError> {
        let of = |account: &str| query.account.is_none_or(|wanted| wanted == account);
        let main = |entry: &AuditEntry<'_>| {
            event_of(entry).is_some_and(|event| event.id == query.id && of(event.account))
                && purpose(entry) == Purpose::Whole
        };
        let mut events = self.nodes(IndexKey::Event(query.id), &main)?;
        if events.is_empty() {
            let any = |entry: &AuditEntry<'_>| {
                let mut named = entry.items.iter().filter_map(named_event);
                named.any(|event| event.id == query.id && of(event.account))
            };
            events = self.nodes(IndexKey::Event(query.id), &any)?;
        }
        let account = events.iter().find_map(|node| node["account"].as_str());
        let account = account.or(query.account).unwrap_or_default().to_owned();
        let causes = self.causes(query.id, &account)?;
        let truncated = self.shown.len() >= NODES_MAX;
        Ok(json!({ "id": query.id, "causes": causes, "events": events, "truncated": truncated }))
    }

    /// The nodes of the entries under a key that `is_meant` accepts, each shown once.
    fn nodes(
        &mut self,
        key: IndexKey<'_>,
        is_meant: &dyn Fn(&AuditEntry<'_>) -> bool,
    ) -> Result<Vec<Value>, ExplainError> {
        let mut nodes = Vec::new();
        if self.depth >= DEPTH_MAX {
            return Ok(nodes);
        }
        for (partition, offset) in self.index.find(key)? {
            let Some(record) = self.reader.record(partition, offset)? else { continue };
            let value = record.body.value_bytes().unwrap_or_else(Bytes::new);
            let Ok(part) = AuditPart::decode(&value) else { continue };
            for (n, entry) in part.entries.iter().enumerate().filter(|(_, e)| is_meant(e)) {
                let at = (partition, offset, n);
                if self.shown.len() >= NODES_MAX || !self.shown.insert(at) {
                    continue;
                }
                self.depth += 1;
                let node = self.node(at, record.timestamp, entry);
                self.depth -= 1;
                nodes.push(node?);
            }
        }
        Ok(nodes)
    }

    fn node(
        &mut self,
        at: EntryAt,
        written: Millis,
        entry: &AuditEntry<'_>,
    ) -> Result<Value, ExplainError> {
        let (partition, offset, _) = at;
        let mut node = json!({
            "task": partition.0,
            "time": time_text(entry.time),
            "written": time_text(written),
            "audit": format!("{}/{}/{}", self.topology.out_audit(), partition.0, offset.0),
        });
        match entry.cause {
            AuditCause::Record { lane, offset, entry } => {
                node["kind"] = json!("record");
                node["lane"] = json!(lane.name());
                let lane = self.topology.lane(lane);
                let position = format!("{lane}/{}/{}", partition.0, offset.0);
                node["position"] = match entry {
                    Some(index) => json!(format!("{position}/{index}")),
                    None => json!(position),
                };
                node["outcome"] = json!("accepted");
            }
            AuditCause::Timer(of) => self.name_call(&mut node, "timer", of),
            AuditCause::Update(of) => self.name_call(&mut node, "update", of),
            AuditCause::EndOfLife => node["kind"] = json!("end_of_life"),
        }
        entry.items.iter().for_each(|item| self.describe(&mut node, item));
        node[EFFECTS] = json!(self.effects(at, entry)?);
        Ok(node)
    }

    fn name_call(&self, node: &mut Value, kind: &str, of: CalledFor<'_>) {
        node["kind"] = json!(kind);
        node["operator"] = json!(operator_name(self.operators, of.operator));
        node["account"] = json!(of.account);
        node["key"] = json!(of.entity);
    }

    /// Adds what an item says about the cause itself.
    fn describe(&self, node: &mut Value, item: &AuditItem<'_>) {
        match item {
            AuditItem::Source(input, partition, offset) => {
                let input = self.topology.input_of(*input).map_or("?", |topic| topic.as_str());
                node["input"] = json!(format!("{input}/{partition}/{}", offset.0));
            }
            AuditItem::Rejected => node["outcome"] = json!("rejected"),
            AuditItem::Rules(rules) => node["rules"] = json!(rules),
            AuditItem::Hops(hops) => node["hops"] = json!(hops),
            AuditItem::Event(event) => {
                node["id"] = json!(event.id);
                node["type"] = json!(event.event_type);
                node["account"] = json!(event.account);
                node["key"] = json!(event.key);
            }
            AuditItem::ForOtherKey(key, operators) => {
                node["kind"] = json!("copy");
                node["for_key"] = json!(key);
                node["for_operators"] = self.operator_names(operators);
            }
            AuditItem::Requeued(operator) => {
                node["kind"] = json!("requeued");
                node["for_operators"] = json!([operator]);
            }
            AuditItem::SecondCopy => node["outcome"] = json!("second_copy"),
            AuditItem::Duplicate => node["outcome"] = json!("duplicate"),
            AuditItem::DeadLetter(..) => node["outcome"] = json!("dead_letter"),
            _ => {}
        }
    }

    /// The effects of an entry, with what followed from them.
    fn effects(&mut self, at: EntryAt, entry: &AuditEntry<'_>) -> Result<Vec<Value>, ExplainError> {
        let mut segments = EntrySegments::of(entry);
        let mut done = vec![Vec::new(); segments.0.len()];
        // An emission is processed after the call that emitted it, so the last come first.
        while let Some(segment) = segments.0.pop() {
            let mut list = EffectList::default();
            let mut emitted = None;
            let mut next = segment.first_emission;
            for item in segment.items {
                if let AuditItem::Emitted(event) = item {
                    emitted = Some(event);
                }
                let effects = match item {
                    AuditItem::ToOperators => {
                        next += 1;
                        done.get_mut(next).map(std::mem::take).unwrap_or_default()
                    }
                    _ => self.followed(at, item, emitted.or(segment.subject))?,
                };
                self.add(&mut list, item, effects);
            }
            done[segments.0.len()] = list.end();
        }
        Ok(done.swap_remove(0))
    }

    /// The nodes that followed from an item elsewhere.
    fn followed(
        &mut self,
        at: EntryAt,
        item: &AuditItem<'_>,
        event: Option<&AuditedEvent<'_>>,
    ) -> Result<Vec<Value>, ExplainError> {
        let is_of = |entry: &AuditEntry<'_>, purpose_of: Purpose<'_>| {
            let same = event_of(entry).zip(event);
            same.is_some_and(|(one, other)| (&one.id, one.account) == (&other.id, other.account))
                && purpose(entry) == purpose_of
        };
        let key = event.map(|event| IndexKey::Event(&event.id));
        match (item, key) {
            (AuditItem::ToKey(_), Some(key)) => {
                self.nodes(key, &|entry| is_of(entry, Purpose::Whole))
            }
            (AuditItem::Copied(copy) | AuditItem::Forwarded(copy), Some(key)) => {
                self.nodes(key, &|entry| is_of(entry, Purpose::ForKey(copy.key)))
            }
            (AuditItem::Failed(operator, ..) | AuditItem::FurtherCopies(operator), Some(key)) => {
                self.nodes(key, &|entry| is_of(entry, Purpose::Requeued(operator)))
            }
            (AuditItem::TimerSet(due, link), _) => self.nodes(IndexKey::Link(*link), &|entry| {
                matches!(entry.cause, AuditCause::Timer(of) if of.link == *link)
                    && entry.time == *due
            }),
            (AuditItem::Marked(link), _) => self.update_after(at, *link),
            _ => Ok(Vec::new()),
        }
    }

    /// The first update of a key at or after an entry.
    fn update_after(
        &mut self,
        (partition, offset, n): EntryAt,
        link: u64,
    ) -> Result<Vec<Value>, ExplainError> {
        for (of, at) in self.index.find(IndexKey::Link(link))? {
            if of != partition || at < offset {
                continue;
            }
            let Some(record) = self.reader.record(of, at)? else { continue };
            let value = record.body.value_bytes().unwrap_or_else(Bytes::new);
            let Ok(part) = AuditPart::decode(&value) else { continue };
            let mut entries = part.entries.iter().enumerate();
            let is_it = |m: usize, entry: &AuditEntry<'_>| {
                matches!(entry.cause, AuditCause::Update(of) if of.link == link)
                    && (at > offset || m > n)
            };
            let Some((m, entry)) = entries.find(|(m, entry)| is_it(*m, entry)) else { continue };
            if self.shown.len() >= NODES_MAX || !self.shown.insert((of, at, m)) {
                return Ok(Vec::new());
            }
            self.depth += 1;
            let node = self.node((of, at, m), record.timestamp, entry);
            self.depth -= 1;
            return Ok(vec![node?]);
        }
        Ok(Vec::new())
    }

    /// Adds an item to the list it belongs to.
    fn add(&self, list: &mut EffectList, item: &AuditItem<'_>, effects: Vec<Value>) {
        let with = |mut node: Value| {
            if !effects.is_empty() {
                node[EFFECTS] = json!(effects);
            }
            node
        };
        match item {
            AuditItem::Called(number) => list.begin_call(&operator_name(self.operators, *number)),
            AuditItem::Emitted(event) => list.begin_emission(json!({
                "kind": "emitted", "id": event.id, "type": event.event_type,
                "account": event.account, "key": event.key,
            })),
            AuditItem::ToOperators => list.add_way(with(json!({ "kind": "to_operators" }))),
            AuditItem::ToKey(lane) => {
                list.add_way(with(json!({ "kind": "to_key", "lane": lane.name() })));
            }
            AuditItem::Copied(copy) => list.add_way(with(self.copy(copy))),
            AuditItem::Forwarded(copy) => list.add_after_calls(with(self.copy(copy))),
            AuditItem::ToChannel(channel) => {
                let topic = self.topology.out_stream().as_str();
                list.add_way(json!({ "kind": "channel", "channel": channel, "topic": topic }));
            }
            AuditItem::ToUrgentChannel(channel) => {
                let topic = self.topology.out_urgent().as_str();
                list.add_way(json!({ "kind": "channel", "channel": channel, "topic": topic }));
            }
            AuditItem::ToState(channel, state_key) => {
                list.add_way(self.state("state", channel, state_key));
            }
            AuditItem::StatePut(channel, state_key) => {
                list.add(self.state("state", channel, state_key));
            }
            AuditItem::StateRemoved(channel, state_key) => {
                list.add(self.state("state_removed", channel, state_key));
            }
            AuditItem::TimerSet(at, _) => {
                list.add(with(json!({ "kind": "timer_set", "due": time_text(*at) })));
            }
            AuditItem::Marked(_) => list.add(with(json!({ "kind": "update_marked" }))),
            AuditItem::Amended(field) => list.add(json!({ "kind": "amended", "field": field })),
            AuditItem::Dropped(reason) => list.add(json!({ "kind": "dropped", "reason": reason })),
            AuditItem::Failed(operator, letter, why) => list.add_after_calls(with(json!({
                "kind": "failed", "operator": operator, "dead_letter": letter, "why": why,
            }))),
            AuditItem::DeadLetter(reason, letter, detail) => list.add_after_calls(json!({
                "kind": "dead_letter", "reason": reason, "dead_letter": letter, "why": detail,
            })),
            AuditItem::FurtherCopies(operators) => list.add_after_calls(with(json!({
                "kind": "further_copies",
                "operators": operators.split(',').collect::<Vec<_>>(),
            }))),
            AuditItem::Omitted(items) => {
                list.add_after_calls(json!({ "kind": "omitted", "items": items }));
            }
            _ => {}
        }
    }

    fn copy(&self, copy: &AuditedCopy<'_>) -> Value {
        let operators = self.operator_names(copy.operators);
        json!({
            "kind": "copied", "key": copy.key, "lane": copy.lane.name(), "operators": operators,
        })
    }

    fn state(&self, kind: &str, channel: &str, state_key: &str) -> Value {
        let topic = self.topology.out_state().as_str();
        json!({ "kind": kind, "channel": channel, "state_key": state_key, "topic": topic })
    }

    fn operator_names(&self, numbers: &[u8]) -> Value {
        let name = |number: &u8| operator_name(self.operators, *number);
        json!(numbers.iter().map(name).collect::<Vec<_>>())
    }
}

/// What a record was processed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose<'a> {
    Whole,
    ForKey(&'a str),
    Requeued(&'a str),
}

fn purpose<'a>(entry: &AuditEntry<'a>) -> Purpose<'a> {
    let found = entry.items.iter().find_map(|item| match item {
        AuditItem::ForOtherKey(key, _) => Some(Purpose::ForKey(key)),
        AuditItem::Requeued(operator) => Some(Purpose::Requeued(operator)),
        _ => None,
    });
    found.unwrap_or(Purpose::Whole)
}

/// The event that an entry is about.
fn event_of<'a, 'b>(entry: &'b AuditEntry<'a>) -> Option<&'b AuditedEvent<'a>> {
    entry.items.iter().find_map(|item| match item {
        AuditItem::Event(event) => Some(event),
        _ => None,
    })
}

fn named_event<'a, 'b>(item: &'b AuditItem<'a>) -> Option<&'b AuditedEvent<'a>> {
    match item {
        AuditItem::Event(event) | AuditItem::Emitted(event) => Some(event),
        _ => None,
    }
}

/// The items of an entry, divided where its emissions are processed.
struct EntrySegments<'a>(Vec<EntrySegment<'a>>);

struct EntrySegment<'a> {
    items: &'a [AuditItem<'a>],
    /// The event that operators are called with.
    subject: Option<&'a AuditedEvent<'a>>,
    /// How many emissions for operators of this key came before.
    first_emission: usize,
}

impl<'a> EntrySegments<'a> {
    fn of(entry: &'a AuditEntry<'a>) -> Self {
        let (mut segments, mut waiting, mut emitted) = (Vec::new(), Vec::new(), None);
        let items = entry.items.split(|item| *item == AuditItem::NextEmission);
        for (n, items) in items.enumerate() {
            let subject = match n {
                0 => event_of(entry),
                n => waiting.get(n - 1).copied(),
            };
            segments.push(EntrySegment { items, subject, first_emission: waiting.len() });
            for item in items {
                match item {
                    AuditItem::Emitted(event) => emitted = Some(event),
                    AuditItem::ToOperators => waiting.extend(emitted),
                    _ => {}
                }
            }
        }
        Self(segments)
    }
}

/// The name of an operator, or its number if this build does not have it.
pub(super) fn operator_name(operators: Operators, number: u8) -> String {
    let found = operators.iter().find(|operator| operator.number() == number);
    found.map_or_else(|| format!("number-{number}"), |operator| operator.name().to_owned())
}

fn time_text(time: Millis) -> String {
    let mut text = String::new();
    format_rfc3339(time.0, &mut text);
    text
}
