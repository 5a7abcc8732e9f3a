//! The topics of a deployment: names, retention, and the partition of a key.
//!
//! Every topic of a deployment has the same prefix and partition count, so a partition number means
//! the same set of keys in each. Another count therefore needs another prefix. Topics are described
//! here, never created or read.

use tidewire_schemas::Priority;
use tidewire_schemas::partition::partition_for;

use crate::port::{Cause, Cleanup, TopicSpec};
use crate::record::{Partition, Topic};

/// The default topic prefix.
pub const DEFAULT_PREFIX: &str = "tw.";

/// The default partition count: enough for eight threads, few enough for one transaction to write
/// to all partitions of the outputs.
pub const DEFAULT_PARTITIONS: u32 = 8;

/// The consumer group of ADMIT, without the prefix.
const ADMIT_GROUP: &str = "admit";

/// The consumer group of DERIVE, without the prefix.
const DERIVE_GROUP: &str = "derive";

/// The transactional id for requeuing and dropping dead letters, without the prefix.
const DEAD_LETTERS_ID: &str = "dead-letters";

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Milliseconds `in` and `in.urgent` keep a record: a week to notice that ADMIT is stopped.
pub const INPUT_RETENTION_MS: u64 = 7 * DAY_MS;

/// Milliseconds a lane keeps a record: as long as the input, for the same reason.
pub const LANE_RETENTION_MS: u64 = 7 * DAY_MS;

/// Milliseconds `order` keeps a record. It is the changelog of de-duplication, so it must keep that
/// window (24 h) and the time that the slowest lane lags.
pub const ORDER_RETENTION_MS: u64 = 3 * DAY_MS;

/// Milliseconds `state.windows` keeps a record: a store that is rebuilt needs every open window, so
/// a window may stay open for a day less than this.
pub const WINDOWS_RETENTION_MS: u64 = 8 * DAY_MS;

/// Milliseconds `out.stream` and `out.urgent` keep a record: how far back a client can resume.
pub const OUT_RETENTION_MS: u64 = 7 * DAY_MS;

/// Milliseconds `ephemeral` keeps a record: typing and cursors are worthless after a minute.
pub const EPHEMERAL_RETENTION_MS: u64 = 60_000;

/// Milliseconds `dead-letters` keeps a record: a month to inspect and requeue it.
pub const DEAD_LETTER_RETENTION_MS: u64 = 30 * DAY_MS;

/// Milliseconds a tombstone of a compacted topic stays readable; a reader that is away for longer
/// must start again.
pub const TOMBSTONE_RETENTION_MS: u64 = DAY_MS;

/// The lanes that DERIVE reads, most urgent first. Numbers are stable: `order` contains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Overtakes all other lanes.
    Critical = 0,
    /// Overtakes normal and low.
    High = 1,
    /// The default.
    Normal = 2,
    /// Served last, never starved.
    Low = 3,
    /// Facts for the tasks of other entities, written by DERIVE.
    Facts = 4,
}

impl Lane {
    /// All lanes, by number.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Facts];

    /// The lane of a priority, one to one.
    pub fn of(priority: Priority) -> Self {
        match priority {
            Priority::Critical => Self::Critical,
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }

    /// The stable number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The lane of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The index in an array of [`Lane::ALL`]'s length.
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }

    /// The name in metrics and tools.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Facts => "facts",
        }
    }
}

/// The topics of one deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    partitions: u32,
    input: Topic,
    input_urgent: Topic,
    /// By [`Lane::index`].
    lanes: [Topic; 5],
    order: Topic,
    state: Topic,
    windows: Topic,
    out_urgent: Topic,
    out_stream: Topic,
    out_state: Topic,
    ephemeral: Topic,
    dead_letters: Topic,
    control: Topic,
}

impl Default for Topology {
    fn default() -> Self {
        Self::new(DEFAULT_PREFIX, DEFAULT_PARTITIONS)
    }
}

impl Topology {
    /// The topics whose names begin with `prefix`, each of `partitions` partitions.
    pub fn new(prefix: &str, partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        let topic = |name: &str| Topic::new(format!("{prefix}{name}"));
        Self {
            prefix: prefix.to_owned(),
            partitions,
            input: topic("in"),
            input_urgent: topic("in.urgent"),
            lanes: Lane::ALL.map(|lane| topic(&format!("lane.{}", lane.name()))),
            order: topic("order"),
            state: topic("state"),
            windows: topic("state.windows"),
            out_urgent: topic("out.urgent"),
            out_stream: topic("out.stream"),
            out_state: topic("out.state"),
            ephemeral: topic("ephemeral"),
            dead_letters: topic("dead-letters"),
            control: topic("control"),
        }
    }

    /// The prefix of every topic's name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The partition count of every topic.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition a key belongs to, in every topic.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        Partition(partition_for(key, self.partitions))
    }

    /// The input that producers write to.
    pub fn input(&self) -> &Topic {
        &self.input
    }

    /// The input for critical events, which has a thread of its own.
    pub fn input_urgent(&self) -> &Topic {
        &self.input_urgent
    }

    /// The input of a stable number, which lane records contain; `None` if there is none.
    pub fn input_of(&self, number: u8) -> Option<&Topic> {
        match number {
            0 => Some(&self.input),
            1 => Some(&self.input_urgent),
            _ => None,
        }
    }

    /// A lane's topic.
    pub fn lane(&self, lane: Lane) -> &Topic {
        &self.lanes[lane.index()]
    }

    /// All lanes' topics, by [`Lane::index`].
    pub fn lanes(&self) -> &[Topic; 5] {
        &self.lanes
    }

    /// The lane of facts.
    pub fn facts(&self) -> &Topic {
        self.lane(Lane::Facts)
    }

    /// The order records of DERIVE's transactions.
    pub fn order(&self) -> &Topic {
        &self.order
    }

    /// The changelog of the tasks' stores.
    pub fn state(&self) -> &Topic {
        &self.state
    }

    /// The changelog of their windows, which expire by age.
    pub fn windows(&self) -> &Topic {
        &self.windows
    }

    /// Outputs of critical events, by channel.
    pub fn out_urgent(&self) -> &Topic {
        &self.out_urgent
    }

    /// Outputs of all other events, by channel.
    pub fn out_stream(&self) -> &Topic {
        &self.out_stream
    }

    /// The latest value per channel and state key.
    pub fn out_state(&self) -> &Topic {
        &self.out_state
    }

    /// Outputs of ephemeral channels.
    pub fn ephemeral(&self) -> &Topic {
        &self.ephemeral
    }

    /// Records that could not be processed, with the reason.
    pub fn dead_letters(&self) -> &Topic {
        &self.dead_letters
    }

    /// Runtime rules and switches.
    pub fn control(&self) -> &Topic {
        &self.control
    }

    /// The group name of ADMIT.
    pub fn admit_group(&self) -> String {
        format!("{}{ADMIT_GROUP}", self.prefix)
    }

    /// The group name of DERIVE.
    pub fn derive_group(&self) -> String {
        format!("{}{DERIVE_GROUP}", self.prefix)
    }

    /// The transactional id for requeuing and dropping dead letters: one for all processes, so that
    /// the last to start fences the others.
    pub fn dead_letters_transactional_id(&self) -> String {
        format!("{}{DEAD_LETTERS_ID}", self.prefix)
    }

    /// The spec of every topic.
    pub fn specs(&self) -> Vec<TopicSpec> {
        let delete = |ms| Cleanup::Delete { retention_ms: Some(ms), retention_bytes: None };
        let compact = Cleanup::Compact { delete_retention_ms: TOMBSTONE_RETENTION_MS };
        let windows = Cleanup::CompactDelete {
            delete_retention_ms: TOMBSTONE_RETENTION_MS,
            retention_ms: WINDOWS_RETENTION_MS,
        };
        let mut specs = vec![
            self.spec(&self.input, delete(INPUT_RETENTION_MS)),
            self.spec(&self.input_urgent, delete(INPUT_RETENTION_MS)),
        ];
        specs.extend(self.lanes.iter().map(|lane| self.spec(lane, delete(LANE_RETENTION_MS))));
        specs.extend([
            self.spec(&self.order, delete(ORDER_RETENTION_MS)),
            self.spec(&self.state, compact),
            self.spec(&self.windows, windows),
            self.spec(&self.out_urgent, delete(OUT_RETENTION_MS)),
            self.spec(&self.out_stream, delete(OUT_RETENTION_MS)),
            self.spec(&self.out_state, compact),
            self.spec(&self.ephemeral, delete(EPHEMERAL_RETENTION_MS)),
            self.spec(&self.dead_letters, delete(DEAD_LETTER_RETENTION_MS)),
            self.spec(&self.control, compact),
        ]);
        specs
    }

    fn spec(&self, topic: &Topic, cleanup: Cleanup) -> TopicSpec {
        TopicSpec { topic: topic.clone(), partitions: self.partitions, cleanup }
    }
}

/// What to do about a topic that does not have `wanted` partitions.
pub fn misfit_sentence(topic: &Topic, count: u32, wanted: u32) -> String {
    format!(
        "topic {topic} has {count} partitions and topics.partitions is {wanted}. If all topics of \
         this prefix have {count}, set topics.partitions to {count}. If partitions were added to a \
         deployment in use, give all its processes another topics.prefix, or delete all topics of \
         this prefix and run `tidewire topics create`"
    )
}

/// What to do while the topics of a log can't be listed.
pub fn unlisted_sentence(cause: &Cause) -> String {
    format!(
        "the topics can't be listed, so nobody notices if they are deleted or created again: \
         {cause}. A topic of this prefix that is being deleted is one reason; `tidewire doctor` \
         looks for others"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_spec_of_the_same_partition_count() {
        let topology = Topology::new("t.", 3);
        let specs = topology.specs();
        assert!(specs.iter().all(|s| s.partitions == 3 && s.topic.as_str().starts_with("t.")));
        assert_eq!(specs.len(), 16);
        assert_eq!(topology.lane(Lane::Critical).as_str(), "t.lane.critical");
    }

    #[test]
    fn lanes_read_back_from_their_numbers() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }
        assert_eq!(Lane::from_number(5), None);
    }
}
