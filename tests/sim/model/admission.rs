//! The model of ADMIT: every record admitted once, in order and complete, and its offsets.

use std::collections::HashMap;

use tidewire_engine::lane_record::SOURCE;
use tidewire_engine::record::{Body, Offset, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::event::EventView;

use super::ensure::ensure;

/// What a producer wrote.
#[derive(Clone, Debug)]
pub(crate) enum ProducedInput {
    /// An event, in parts that are easy to recognise.
    Event { account: String, key: String, lane: Lane, id: Option<String>, text: String },
    /// A record that can't become an event.
    Poison(Vec<u8>),
}

struct InputRecord {
    produced: ProducedInput,
    /// The record that ADMIT wrote first for it.
    admitted: Option<Body>,
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
    /// The events that pass, by account and id.
    pub(super) events: Vec<(String, String)>,
}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

impl Admission {
    /// Records what a producer wrote at the next offset.
    pub(super) fn produced(&mut self, at: &TopicPartition, produced: ProducedInput) {
        let records = &mut self.inputs.entry(at.to_string()).or_default().records;
        records.push(InputRecord { produced, admitted: None });
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
        at: &TopicPartition,
        lane: Lane,
        body: &Body,
        topology: &Topology,
    ) -> Result<(), String> {
        let position = text(body.header(SOURCE)).to_owned();
        let (record, input, offset) = self.record(&position)?;
        if let Some(first) = &record.admitted {
            return ensure(first == body, || {
                format!("{position} was admitted again with another record")
            });
        }
        let ProducedInput::Event { account, key, lane: wanted, id, text: admitted } =
            &record.produced
        else {
            return Err(format!("{position} is not an event and was written to {at}"));
        };
        let event = EventView::decode(body.value().unwrap_or_default());
        let event = event.map_err(|error| format!("{position}: {error}"))?;
        let whole = event.key == key
            && event.account_id == account
            && body.key() == Some(key.as_bytes())
            && lane == *wanted
            && at.partition == topology.entity_partition(account, key)
            && id.as_deref().is_none_or(|id| id == event.event_id)
            && event.data.contains(&format!("\"text\":\"{admitted}\""));
        ensure(whole, || format!("{position} became {event:?} in {at}"))?;
        let event_id = (account.clone(), event.event_id.to_owned());
        record.admitted = Some(body.clone());
        let newest = self.newest.insert((at.clone(), input), offset);
        ensure(newest.is_none_or(|before| before < offset), || {
            format!("{position} is admitted first after {newest:?}")
        })?;
        self.events.push(event_id);
        Ok(())
    }

    /// A dead letter that ADMIT wrote.
    pub(super) fn dead_letter(&mut self, body: &Body) -> Result<(), String> {
        let position = text(body.key()).to_owned();
        let (record, _, _) = self.record(&position)?;
        let whole = match &record.produced {
            ProducedInput::Poison(value) => body.value() == Some(value),
            ProducedInput::Event { .. } => false,
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
    ) -> Result<(), String> {
        let input = self.inputs.entry(at.to_string()).or_default();
        let from = std::mem::replace(&mut input.committed, to.0);
        ensure(from <= to.0, || format!("{at}: the committed offset goes back to {to:?}"))?;
        let records = input.records.get(from as usize..to.0 as usize);
        let hole = records.ok_or("an offset beyond the end is committed")?;
        match hole.iter().position(|record| record.admitted.is_none()) {
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
