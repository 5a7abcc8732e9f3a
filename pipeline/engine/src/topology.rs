//! The topics of a deployment: names, retention, and the partition of a key.
//!
//! Every topic of a deployment has the same prefix. Those that tasks and clients divide among
//! themselves have the same partition count, so a partition number means the same set of keys in
//! each; another count therefore needs another prefix. What concerns every process alike has one
//! partition, in which its records have one order. Topics are described here, never created or
//! read.

use tidewire_schemas::Priority;
use tidewire_schemas::partition::{entity_partition, partition_for};

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

/// The topic of runtime rules and switches, without the prefix.
const CONTROL: &str = "control";

/// The topic of the layout record, without the prefix.
const CATALOGUES: &str = "catalogues";

/// The topics with one partition, without the prefix.
const WITH_ONE_PARTITION: [&str; 2] = [CONTROL, CATALOGUES];

/// The transactional id for storing the catalogue in force, without the prefix.
const CATALOGUE_ID: &str = "derive-catalogue";

/// The transactional id for writing the layout record, without the prefix.
const LAYOUT_ID: &str = "layout";

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Milliseconds `in`, `in.urgent` and `in.internal` keep a record: a week to notice that ADMIT is
/// stopped.
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

/// Milliseconds `out.audit` keeps a record: as far back as the outputs that it explains.
pub const AUDIT_RETENTION_MS: u64 = 7 * DAY_MS;

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
    /// Facts that follow from critical events; they wait for no other lane but the critical one.
    FactsUrgent = 5,
}

impl Lane {
    /// How many lanes there are.
    pub const COUNT: usize = 6;

    /// All lanes, by number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Facts, Self::FactsUrgent];

    /// The lanes that overtake the others: critical events, then their facts.
    pub const URGENT: [Self; 2] = [Self::Critical, Self::FactsUrgent];

    /// Whether its records are packs of facts.
    pub fn has_facts(self) -> bool {
        matches!(self, Self::Facts | Self::FactsUrgent)
    }

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
            Self::FactsUrgent => "facts.urgent",
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
    input_internal: Topic,
    /// By [`Lane::index`].
    lanes: [Topic; Lane::COUNT],
    order: Topic,
    state: Topic,
    windows: Topic,
    out_urgent: Topic,
    out_stream: Topic,
    out_state: Topic,
    out_audit: Topic,
    ephemeral: Topic,
    dead_letters: Topic,
    control: Topic,
    catalogues: Topic,
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
            input_internal: topic("in.internal"),
            lanes: Lane::ALL.map(|lane| topic(&format!("lane.{}", lane.name()))),
            order: topic("order"),
            state: topic("state"),
            windows: topic("state.windows"),
            out_urgent: topic("out.urgent"),
            out_stream: topic("out.stream"),
            out_state: topic("out.state"),
            out_audit: topic("out.audit"),
            ephemeral: topic("ephemeral"),
            dead_letters: topic("dead-letters"),
            control: topic(CONTROL),
            catalogues: topic(CATALOGUES),
        }
    }

    /// The prefix of every topic's name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The partition count of every topic but those of [`has_one_partition`].
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a record key: in the inputs what a producer chose, in the outputs the
    /// channel, in `dead-letters` the id. Lanes are partitioned by [`Topology::entity_partition`].
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        Partition(partition_for(key, self.partitions))
    }

    /// The partition of an entity, the key of an account: in every lane, and so its task.
    pub fn entity_partition(&self, account: &str, key: &str) -> Partition {
        Partition(entity_partition(account, key, self.partitions))
    }

    /// The input that producers write to.
    pub fn input(&self) -> &Topic {
        &self.input
    }

    /// The input for critical events, which has a thread of its own.
    pub fn input_urgent(&self) -> &Topic {
        &self.input_urgent
    }

    /// The input for internal types, which only Tidewire's own processes write to.
    pub fn input_internal(&self) -> &Topic {
        &self.input_internal
    }

    /// All inputs.
    pub fn inputs(&self) -> [&Topic; 3] {
        [&self.input, &self.input_urgent, &self.input_internal]
    }

    /// The input of a stable number, which lane records contain; `None` if there is none.
    pub fn input_of(&self, number: u8) -> Option<&Topic> {
        match number {
            0 => Some(&self.input),
            1 => Some(&self.input_urgent),
            2 => Some(&self.input_internal),
            _ => None,
        }
    }

    /// A lane's topic.
    pub fn lane(&self, lane: Lane) -> &Topic {
        &self.lanes[lane.index()]
    }

    /// All lanes' topics, by [`Lane::index`].
    pub fn lanes(&self) -> &[Topic; Lane::COUNT] {
        &self.lanes
    }

    /// The lane of facts that follow from other than critical events.
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

    /// What tasks did with each record ([`crate::derive::audit`]), by task.
    pub fn out_audit(&self) -> &Topic {
        &self.out_audit
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

    /// What must be known before anything else is read: the number of the layout
    /// ([`crate::topics_layout`]).
    pub fn catalogues(&self) -> &Topic {
        &self.catalogues
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

    /// The transactional id for storing the catalogue in force: one for all processes, so that they
    /// store one after the other. It begins like those of DERIVE, which has the permission.
    pub fn catalogue_transactional_id(&self) -> String {
        format!("{}{CATALOGUE_ID}", self.prefix)
    }

    /// The transactional id for writing the layout record and the value level: one for all
    /// processes, so that they write one after the other.
    pub fn layout_transactional_id(&self) -> String {
        format!("{}{LAYOUT_ID}", self.prefix)
    }

    /// The spec of every topic.
    pub fn specs(&self) -> Vec<TopicSpec> {
        let delete = |ms| Cleanup::Delete { retention_ms: Some(ms), retention_bytes: None };
        let compact = Cleanup::Compact { delete_retention_ms: TOMBSTONE_RETENTION_MS };
        let windows = Cleanup::CompactDelete {
            delete_retention_ms: TOMBSTONE_RETENTION_MS,
            retention_ms: WINDOWS_RETENTION_MS,
        };
        let mut specs =
            self.inputs().map(|input| self.spec(input, delete(INPUT_RETENTION_MS))).to_vec();
        specs.extend(self.lanes.iter().map(|lane| self.spec(lane, delete(LANE_RETENTION_MS))));
        specs.extend([
            self.spec(&self.order, delete(ORDER_RETENTION_MS)),
            self.spec(&self.state, compact),
            self.spec(&self.windows, windows),
            self.spec(&self.out_urgent, delete(OUT_RETENTION_MS)),
            self.spec(&self.out_stream, delete(OUT_RETENTION_MS)),
            self.spec(&self.out_state, compact),
            self.spec(&self.out_audit, delete(AUDIT_RETENTION_MS)),
            self.spec(&self.ephemeral, delete(EPHEMERAL_RETENTION_MS)),
            self.spec(&self.dead_letters, delete(DEAD_LETTER_RETENTION_MS)),
            self.spec(&self.control, compact),
            self.spec(&self.catalogues, compact),
        ]);
        specs
    }

    fn spec(&self, topic: &Topic, cleanup: Cleanup) -> TopicSpec {
        let partitions = if has_one_partition(topic) { 1 } else { self.partitions };
        TopicSpec { topic: topic.clone(), partitions, cleanup }
    }
}

/// Whether this topic of ours has one partition in every deployment. Known by the end of its name,
/// since no other topic's name ends alike.
pub fn has_one_partition(topic: &Topic) -> bool {
    WITH_ONE_PARTITION.iter().any(|name| topic.as_str().ends_with(name))
}

/// What to do about a topic that does not have `wanted` partitions.
pub fn misfit_sentence(topic: &Topic, count: u32, wanted: u32) -> String {
    if has_one_partition(topic) {
        return format!(
            "topic {topic} has {count} partitions and must have one. Give all processes of this \
             deployment another topics.prefix, or delete all topics of this prefix and run \
             `tidewire topics create`"
        );
    }
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
    fn every_topic_has_the_same_partition_count_but_two_which_have_one() {
        let topology = Topology::new("t.", 3);
        let specs = topology.specs();
        assert!(specs.iter().all(|spec| spec.topic.as_str().starts_with("t.")));
        assert_eq!(specs.len(), 20);
        let (one, shared): (Vec<_>, Vec<_>) =
            specs.iter().partition(|spec| has_one_partition(&spec.topic));
        assert!(shared.iter().all(|spec| spec.partitions == 3));
        let one: Vec<_> = one.iter().map(|spec| (&spec.topic, spec.partitions)).collect();
        assert_eq!(one, [(topology.control(), 1), (topology.catalogues(), 1)]);
        let text = misfit_sentence(topology.control(), 3, 1);
        assert!(text.starts_with("topic t.control has 3 partitions and must have one"), "{text}");
        assert!(!text.contains("topics.partitions"), "{text}");
        assert_eq!(topology.lane(Lane::Critical).as_str(), "t.lane.critical");
    }

    #[test]
    fn lanes_read_back_from_their_numbers() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }
        assert_eq!(Lane::from_number(6), None);
    }
}
