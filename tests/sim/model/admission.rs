//! What ADMIT says of the inputs: every record once at first, in order, whole; and its offsets.

use std::collections::HashMap;

use tidewire_engine::admit::SOURCE;
use tidewire_engine::record::{Body, Offset, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::event::EventView;

use super::ensure::ensure;

/// What a producer wrote.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// An event, in parts that are easy to find again.
    Event { key: String, lane: Lane, id: Option<String>, text: String },
    /// What can't become one.
    Poison(Vec<u8>),
}

struct Line {
    sent: Sent,
    /// The first saying: where, and the record.
    said: Option<Body>,
}

/// One partition of an input.
#[derive(Default)]
struct Input {
    lines: Vec<Line>,
    committed: u64,
}

/// The model of what ADMIT does.
#[derive(Default)]
pub(super) struct Admission {
    /// By topic and partition, as positions spell them.
    inputs: HashMap<String, Input>,
    /// The newest first saying, by lane's partition and input's partition.
    newest: HashMap<(TopicPartition, String), u64>,
    /// The events that pass, by account and id.
    pub(super) events: Vec<(String, String)>,
}

fn text(bytes: Option<&[u8]>) -> &str {
    std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

impl Admission {
    /// Notes what a producer wrote at the next offset.
    pub(super) fn sent(&mut self, at: &TopicPartition, sent: Sent) {
        let lines = &mut self.inputs.entry(at.to_string()).or_default().lines;
        lines.push(Line { sent, said: None });
    }

    fn line(&mut self, position: &str) -> Result<(&mut Line, String, u64), String> {
        let unknown = || format!("{position} is said, and nobody wrote it");
        let (input, offset) = position.rsplit_once('/').ok_or_else(unknown)?;
        let offset: u64 = offset.parse().map_err(|_| unknown())?;
        let lines = &mut self.inputs.get_mut(input).ok_or_else(unknown)?.lines;
        let line = lines.get_mut(offset as usize).ok_or_else(unknown)?;
        Ok((line, input.to_owned(), offset))
    }

    /// A lane record that ADMIT wrote.
    pub(super) fn lane(
        &mut self,
        (at, lane): (&TopicPartition, Lane),
        body: &Body,
        topology: &Topology,
    ) -> Result<(), String> {
        let position = text(body.header(SOURCE)).to_owned();
        let (line, input, offset) = self.line(&position)?;
        if let Some(first) = &line.said {
            return ensure(first == body, || format!("{position} is said again and differs"));
        }
        let Sent::Event { key, lane: wanted, id, text: said } = &line.sent else {
            return Err(format!("{position} is no event and stands in {at}"));
        };
        let event = EventView::decode(body.value().unwrap_or_default());
        let event = event.map_err(|error| format!("{position}: {error}"))?;
        let whole = event.key == key
            && body.key() == Some(key.as_bytes())
            && lane == *wanted
            && at.partition == topology.partition_of(key.as_bytes())
            && id.as_deref().is_none_or(|id| id == event.event_id)
            && event.data.contains(&format!("\"text\":\"{said}\""));
        ensure(whole, || format!("{position} became {event:?} in {at}"))?;
        let event_id = event.event_id.to_owned();
        line.said = Some(body.clone());
        let newest = self.newest.insert((at.clone(), input), offset);
        ensure(newest.is_none_or(|before| before < offset), || {
            format!("{position} is said first behind {newest:?}")
        })?;
        self.events.push(("acc".to_owned(), event_id));
        Ok(())
    }

    /// A dead letter that ADMIT wrote.
    pub(super) fn letter(&mut self, body: &Body) -> Result<(), String> {
        let position = text(body.key()).to_owned();
        let (line, _, _) = self.line(&position)?;
        let whole = match &line.sent {
            Sent::Poison(value) => body.value() == Some(value),
            Sent::Event { .. } => false,
        };
        ensure(whole, || format!("{position} has a dead letter that it should not have"))?;
        line.said.get_or_insert_with(|| body.clone());
        Ok(())
    }

    /// An offset it commits.
    pub(super) fn moved(&mut self, at: &TopicPartition, to: Offset) -> Result<(), String> {
        let input = self.inputs.entry(at.to_string()).or_default();
        let from = std::mem::replace(&mut input.committed, to.0);
        ensure(from <= to.0, || format!("{at}: the committed offset goes back to {to:?}"))?;
        let lines = input.lines.get(from as usize..to.0 as usize);
        let hole = lines.ok_or("an offset beyond the end is committed")?;
        match hole.iter().position(|line| line.said.is_none()) {
            None => Ok(()),
            Some(n) => Err(format!("{at}/{} is committed and lost", from + n as u64)),
        }
    }

    /// At the end: everything that was written was admitted.
    pub(super) fn ends(&self) -> Result<(), String> {
        for (at, input) in &self.inputs {
            let (done, all) = (input.committed, input.lines.len());
            ensure(done == all as u64, || format!("{at}: {done} of {all} were admitted"))?;
        }
        Ok(())
    }
}
