//! The model of ADMIT: every record admitted once, in order and complete, and its offsets.

use std::collections::{BTreeSet, HashMap};

use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::record::{Body, Offset, Partition, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::Verdict;
use tidewire_schemas::event::EventView;

use super::ensure::ensure;

/// What a producer wrote.
#[derive(Clone, Debug)]
pub(crate) enum ProducedInput {
    /// An event, in parts that are easy to recognise.
    Event { account: String, key: String, lane: Lane, id: Option<String>, text: String },
    /// An event that every task gets, in the critical lane.
    Broadcast { account: String, key: String, id: String },
    /// A record that can't become an event.
    Poison(Vec<u8>),
}

struct InputRecord {
    produced: ProducedInput,
    /// The record that ADMIT wrote first for it.
    admitted: Option<Body>,
    /// Partitions of the lane that have it.
    copies: BTreeSet<Partition>,
}

impl InputRecord {
    /// Whether ADMIT has written everything that it must write for it.
    fn is_admitted(&self, partitions: u32) -> bool {
        match self.produced {
            ProducedInput::Broadcast { .. } => self.copies.len() == partitions as usize,
            _ => self.admitted.is_some(),
        }
    }

    /// Whether a lane record is what the producer's became.
    fn is_whole(&self, to: AdmittedRecord<'_>, event: &EventView<'_>, topology: &Topology) -> bool {
        match &self.produced {
            ProducedInput::Event { account, key, lane, id, text } => {
                event.key == key
                    && event.account_id == account
                    && to.body.key() == Some(key.as_bytes())
                    && to.lane == *lane
                    && to.at.partition == topology.entity_partition(account, key)
                    && id.as_deref().is_none_or(|id| id == event.event_id)
                    && event.data.contains(&format!("\"text\":\"{text}\""))
            }
            ProducedInput::Broadcast { account, key, id } => {
                event.key == key
                    && event.account_id == account
                    && to.body.key() == Some(key.as_bytes())
                    && to.lane == Lane::Critical
                    && id == event.event_id
                    && event.data.contains(&format!("\"gateway_id\":\"{key}\""))
            }
            ProducedInput::Poison(_) => false,
        }
    }
}

/// A record that ADMIT wrote to a lane.
#[derive(Clone, Copy)]
pub(super) struct AdmittedRecord<'a> {
    pub(super) at: &'a TopicPartition,
    pub(super) lane: Lane,
    pub(super) body: &'a Body,
}

/// One partition of an input.
#[derive(Default)]
struct InputPartition {
    records: Vec<InputRecord>,
    committed: u64,
}

/// The model of what ADMIT does.
#[derive(Default)]
pub(super) struct Admission {
    /// By topic and partition, written as in positions.
    inputs: HashMap<String, InputPartition>,
    /// The newest input offset admitted first, by the lane's partition and the input's partition.
    newest: HashMap<(TopicPartition, String), u64>,
    /// Whether the log has refused a record and accepted later ones, so that a first copy can
    /// follow a record that was behind it.
    pub(super) is_reordered: bool,
    /// The events that pass, by account and id.
    pub(super) events: Vec<(String, String)>,
    /// The same of those that every task gets.
    pub(super) broadcasts: Vec<(String, String)>,
}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

impl Admission {
    /// Records what a producer wrote at the next offset.
    pub(super) fn produced(&mut self, at: &TopicPartition, produced: ProducedInput) {
        let records = &mut self.inputs.entry(at.to_string()).or_default().records;
        records.push(InputRecord { produced, admitted: None, copies: BTreeSet::new() });
    }

    /// The topic of an input was created again and is empty.
    pub(super) fn created_again(&mut self, topic: &Topic) {
        let is_of = |at: &String| at.rsplit_once('/').is_some_and(|(of, _)| of == topic.as_str());
        self.inputs.retain(|at, _| !is_of(at));
        self.newest.retain(|(_, at), _| !is_of(at));
    }

    fn record(&mut self, position: &str) -> Result<(&mut InputRecord, String, u64), String> {
        let unknown = || format!("{position} is named as a source, and no producer wrote it");
        let (input, offset) = position.rsplit_once('/').ok_or_else(unknown)?;
        let offset: u64 = offset.parse().map_err(|_| unknown())?;
        let records = &mut self.inputs.get_mut(input).ok_or_else(unknown)?.records;
        let record = records.get_mut(offset as usize).ok_or_else(unknown)?;
        Ok((record, input.to_owned(), offset))
    }

    /// A lane record that ADMIT wrote.
    pub(super) fn lane(
        &mut self,
        to: AdmittedRecord<'_>,
        topology: &Topology,
    ) -> Result<(), String> {
        let AdmittedRecord { at, body, .. } = to;
        let verdict = Verdict::decode(body.header(VERDICT).unwrap_or_default());
        let verdict = verdict.map_err(|error| format!("{at}: {error}"))?;
        let topic = topology.input_of(verdict.source.input).ok_or("a verdict of no input")?;
        let from = TopicPartition::new(topic, verdict.source.partition);
        let position = format!("{from}/{}", verdict.source.offset.0);
        let delivered = self.inputs.get(&from.to_string()).map_or(0, |input| input.committed);
        ensure(verdict.source.delivered_to.0 <= delivered, || {
            format!("{position}: {verdict:?}, and only {delivered} is committed")
        })?;
        let (record, input, offset) = self.record(&position)?;
        if let Some(first) = &record.admitted {
            // Its verdict says what was delivered meanwhile; the event is the same.
            let same = (first.key(), first.value()) == (body.key(), body.value());
            ensure(same, || format!("{position} was admitted again with another record"))?;
        }
        if record.copies.contains(&at.partition) {
            return Ok(());
        }
        let event = EventView::decode(body.value().unwrap_or_default());
        let event = event.map_err(|error| format!("{position}: {error}"))?;
        let whole = record.is_whole(to, &event, topology);
        ensure(whole, || format!("{position} became {event:?} in {at}"))?;
        let id = (event.account_id.to_owned(), event.event_id.to_owned());
        let is_broadcast = matches!(record.produced, ProducedInput::Broadcast { .. });
        let is_first = record.admitted.replace(body.clone()).is_none();
        record.copies.insert(at.partition);
        // Until every task has a copy, its input may be created again, and then none follows.
        let is_everywhere = record.copies.len() == topology.partitions() as usize;
        let newest = self.newest.insert((at.clone(), input), offset);
        ensure(self.is_reordered || newest.is_none_or(|before| before < offset), || {
            format!("{position} is admitted first after {newest:?}")
        })?;
        if is_broadcast && is_everywhere {
            self.broadcasts.push(id);
        } else if !is_broadcast && is_first {
            self.events.push(id);
        }
        Ok(())
    }

    /// A dead letter that ADMIT wrote.
    pub(super) fn dead_letter(&mut self, body: &Body) -> Result<(), String> {
        let position = text(body.key()).to_owned();
        let (record, _, _) = self.record(&position)?;
        let whole = match &record.produced {
            ProducedInput::Poison(value) => body.value() == Some(value),
            ProducedInput::Event { .. } | ProducedInput::Broadcast { .. } => false,
        };
        ensure(whole, || format!("{position} has a dead letter that it should not have"))?;
        record.admitted.get_or_insert_with(|| body.clone());
        Ok(())
    }

    /// An offset that ADMIT commits.
    pub(super) fn offset_committed(
        &mut self,
        at: &TopicPartition,
        to: Offset,
        partitions: u32,
    ) -> Result<(), String> {
        let input = self.inputs.entry(at.to_string()).or_default();
        let from = std::mem::replace(&mut input.committed, to.0);
        ensure(from <= to.0, || format!("{at}: the committed offset goes back to {to:?}"))?;
        let records = input.records.get(from as usize..to.0 as usize);
        let hole = records.ok_or("an offset beyond the end is committed")?;
        match hole.iter().position(|record| !record.is_admitted(partitions)) {
            None => Ok(()),
            Some(n) => Err(format!("{at}/{} is committed and was not admitted", from + n as u64)),
        }
    }

    /// At the end: everything that was written was admitted.
    pub(super) fn check_end(&self) -> Result<(), String> {
        for (at, input) in &self.inputs {
            let (done, all) = (input.committed, input.records.len());
            ensure(done == all as u64, || format!("{at}: {done} of {all} were admitted"))?;
        }
        Ok(())
    }
}
