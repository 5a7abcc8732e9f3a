//! Compares the topics of a deployment with those at a process's start, and says what to do.
//!
//! An offset in a topic that was created again means another record. In an input the group's
//! offsets have to be reset: without an offset of the group, DERIVE uses the one in `order`. A
//! changelog has no offsets, but the state that was made of it is lost. All changed topics are
//! named at once, because a start after the repair of one passes over records of the others.

use std::collections::BTreeMap;
use std::fmt::Display;

use tidewire_engine::port::TopicInfo;
use tidewire_engine::record::Topic;
use tidewire_engine::topology::{Topology, misfit_sentence};

/// What a topic is for ADMIT and DERIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopicUse {
    /// ADMIT reads it.
    Input,
    /// DERIVE reads it.
    Lane,
    /// The state of DERIVE's tasks is restored from it.
    Changelog,
    /// ADMIT or DERIVE writes it and neither reads it.
    Output,
}

/// The topics to watch.
fn watched(topology: &Topology) -> Vec<(&Topic, TopicUse)> {
    let of = |topics: Vec<_>, what| topics.into_iter().map(move |topic| (topic, what));
    let changelogs = vec![topology.order(), topology.state(), topology.windows()];
    let inputs = topology.inputs().to_vec();
    let lanes = topology.lanes().iter().collect();
    let outputs = vec![
        topology.out_urgent(),
        topology.out_stream(),
        topology.out_state(),
        topology.dead_letters(),
        topology.ephemeral(),
    ];
    of(inputs, TopicUse::Input)
        .chain(of(changelogs, TopicUse::Changelog))
        .chain(of(lanes, TopicUse::Lane))
        .chain(of(outputs, TopicUse::Output))
        .collect()
}

/// The ids of the watched topics, by name.
pub(crate) fn topic_ids(topology: &Topology, infos: &[TopicInfo]) -> BTreeMap<Topic, u128> {
    let names = watched(topology);
    let is_watched = |info: &&TopicInfo| names.iter().any(|(name, _)| **name == info.spec.topic);
    let ours = infos.iter().filter(is_watched);
    ours.map(|info| (info.spec.topic.clone(), info.id)).collect()
}

/// How the topics differ from those at the start. Not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicsDifference {
    missing: Vec<Topic>,
    recreated: Vec<Topic>,
    /// With their number of partitions.
    extended: Vec<(Topic, u32)>,
}

impl TopicsDifference {
    /// Compares the topics with the ids at the start; `None` if nothing differs.
    pub(crate) fn find(
        topology: &Topology,
        started: &BTreeMap<Topic, u128>,
        infos: &[TopicInfo],
    ) -> Option<Self> {
        let mut found = Self::default();
        for (topic, what) in watched(topology) {
            let info = infos.iter().find(|info| info.spec.topic == *topic);
            // Who only writes to a topic has no position in it.
            let is_new = |info: &TopicInfo| {
                what != TopicUse::Output && started.get(topic).is_some_and(|id| *id != info.id)
            };
            match info.filter(|info| info.spec.partitions > 0) {
                None => found.missing.push(topic.clone()),
                Some(info) if is_new(info) => found.recreated.push(topic.clone()),
                Some(info) if info.spec.partitions != topology.partitions() => {
                    found.extended.push((topic.clone(), info.spec.partitions));
                }
                Some(_) => {}
            }
        }
        (found != Self::default()).then_some(found)
    }

    /// Whether topics are missing, which may pass.
    pub(crate) fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether topics were created again.
    pub(crate) fn has_recreated(&self) -> bool {
        !self.recreated.is_empty()
    }

    /// Whether topics changed in a way that does not pass.
    pub(crate) fn has_lasting(&self) -> bool {
        self.has_recreated() || !self.extended.is_empty()
    }

    /// What happened to each topic, and what to do.
    pub(crate) fn sentence(&self, topology: &Topology) -> String {
        let uses = watched(topology);
        let is_changelog = |topic: &&Topic| uses.contains(&(*topic, TopicUse::Changelog));
        let (changelogs, inputs): (Vec<_>, Vec<_>) = self.recreated.iter().partition(is_changelog);
        let parts = [
            missing_sentence(&self.missing),
            inputs_sentence(topology, &inputs),
            changelogs_sentence(topology, &changelogs),
            extended_sentence(topology, &self.extended),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(". ")
    }
}

fn missing_sentence(topics: &[Topic]) -> Option<String> {
    let (named, were) = name_all(topics)?;
    Some(format!(
        "{named} {were} deleted while this process ran: run `tidewire topics create`, then start \
         every process of this prefix again"
    ))
}

fn inputs_sentence(topology: &Topology, topics: &[&Topic]) -> Option<String> {
    let (named, were) = name_all(topics)?;
    let of_admit = topology.inputs();
    let (admit, derive): (Vec<&Topic>, Vec<_>) =
        topics.iter().copied().partition(|topic| of_admit.contains(topic));
    let groups = [(topology.admit_group(), admit), (topology.derive_group(), derive)];
    let commands: Vec<String> = groups
        .iter()
        .filter(|(_, topics)| !topics.is_empty())
        .map(|(group, topics)| {
            let topics: String = topics.iter().map(|topic| format!(" --topic {topic}")).collect();
            format!(
                "`kafka-consumer-groups.sh --bootstrap-server HOST:PORT --reset-offsets \
                 --to-earliest --execute --group {group}{topics}`"
            )
        })
        .collect();
    let (new, they, their) = match topics.len() {
        1 => ("topic", "it", "is read from its beginning"),
        _ => ("topics", "they", "are read from their beginnings"),
    };
    Some(format!(
        "{named} {were} deleted and created again while this process ran, and records of the new \
         {new} may have been passed over. Stop every process of this prefix, run {}, so that \
         {they} {their}, and start the processes again",
        commands.join(" and ")
    ))
}

fn changelogs_sentence(topology: &Topology, topics: &[&Topic]) -> Option<String> {
    let (named, were) = name_all(topics)?;
    let order = topics.contains(&topology.order());
    let tables = topics.iter().any(|topic| *topic != topology.order());
    let copies = "copies of events of the last 24 h may be delivered again";
    let begin = "entries of operators' tables from before are gone";
    let lost = match (order, tables) {
        (true, true) => format!("{copies}, and {begin}"),
        (true, false) => copies.to_owned(),
        _ => begin.to_owned(),
    };
    Some(format!(
        "{named} {were} deleted and created again while this process ran, and DERIVE restores its \
         state from there. The local state is removed at the next start and rebuilt from what is \
         in the changelogs then: {lost}. Stop every process of this prefix and start them again; \
         no offsets have to be reset for this"
    ))
}

fn extended_sentence(topology: &Topology, topics: &[(Topic, u32)]) -> Option<String> {
    let ((first, count), further) = topics.split_first()?;
    let mut sentence = misfit_sentence(first, *count, topology.partitions());
    if !further.is_empty() {
        let listed = further.iter().map(|(topic, count)| format!("{topic} ({count})"));
        let listed = listed.collect::<Vec<_>>().join(", ");
        sentence.push_str(&format!(". Further topics with other partitions: {listed}"));
    }
    Some(sentence)
}

/// All names, and the verb for so many; `None` if there are none.
fn name_all(topics: &[impl Display]) -> Option<(String, &'static str)> {
    let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
    match &names[..] {
        [] => None,
        [one] => Some((format!("topic {one}"), "was")),
        [most @ .., last] => Some((format!("topics {} and {last}", most.join(", ")), "were")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    const PREFIX: &str = "t.";

    /// The sentence after these topics were created again and these are missing.
    fn sentence(recreated: &[&str], missing: &[&str]) -> String {
        let topology = Topology::new(PREFIX, 2);
        let specs = topology.specs().into_iter();
        let mut infos: Vec<_> = specs.map(|spec| TopicInfo { spec, id: 7 }).collect();
        let started = topic_ids(&topology, &infos);
        assert_eq!(TopicsDifference::find(&topology, &started, &infos), None);
        let is_in = |info: &TopicInfo, names: &[&str]| {
            let name = info.spec.topic.as_str().strip_prefix(PREFIX).expect("ours");
            names.contains(&name)
        };
        infos.retain(|info| !is_in(info, missing));
        for info in infos.iter_mut().filter(|info| is_in(info, recreated)) {
            info.id = 8;
        }
        let found = TopicsDifference::find(&topology, &started, &infos).expect("a difference");
        assert_eq!(found.has_missing(), !missing.is_empty());
        assert_eq!(found.has_recreated(), !recreated.is_empty());
        found.sentence(&topology)
    }

    #[test]
    fn all_inputs_that_were_created_again_are_named_with_a_command_for_each_group() {
        let text = sentence(&["in", "in.urgent", "in.internal", "lane.high", "lane.facts"], &[]);
        let named = "topics t.in, t.in.urgent, t.in.internal, t.lane.high and t.lane.facts were";
        assert!(text.starts_with(named), "{text}");
        for command in [
            "--execute --group t.admit --topic t.in --topic t.in.urgent --topic t.in.internal`",
            "--execute --group t.derive --topic t.lane.high --topic t.lane.facts`",
        ] {
            assert!(text.contains(command), "{text}");
        }
    }

    #[test]
    fn changelogs_have_a_sentence_of_their_own_that_says_what_is_lost() {
        let text = sentence(&["order"], &[]);
        assert!(text.starts_with("topic t.order was deleted and created again"), "{text}");
        assert!(text.contains("copies of events of the last 24 h"), "{text}");
        assert!(!text.contains("-offsets --") && !text.contains("tables"), "{text}");
        let text = sentence(&["state.windows"], &[]);
        assert!(text.contains("tables") && !text.contains("24 h"), "{text}");
        let text = sentence(&["order", "state", "in"], &[]);
        assert!(text.contains("topics t.order and t.state were deleted and created"), "{text}");
        assert!(text.contains("topic t.in was deleted and created"), "{text}");
        assert!(text.contains("--group t.admit --topic t.in`"), "{text}");
    }

    #[test]
    fn topics_that_are_only_written_to_may_be_created_again_but_not_be_missing() {
        let outputs = ["out.urgent", "out.stream", "out.state", "dead-letters", "ephemeral"];
        let text = sentence(&[], &outputs);
        let named = "topics t.out.urgent, t.out.stream, t.out.state, t.dead-letters and";
        assert!(text.starts_with(&format!("{named} t.ephemeral were deleted while")), "{text}");
        let text = sentence(&["in", "out.stream", "dead-letters"], &[]);
        assert!(text.starts_with("topic t.in was") && !text.contains("t.out"), "{text}");
    }

    #[test]
    fn missing_topics_and_topics_with_more_partitions_are_all_named() {
        let text = sentence(&["in"], &["order", "lane.low"]);
        assert!(text.contains("topics t.order and t.lane.low were deleted while"), "{text}");
        assert!(text.contains("topic t.in was deleted and created again"), "{text}");
        let topology = Topology::new(PREFIX, 2);
        let specs = topology.specs().into_iter();
        let mut infos: Vec<_> = specs.map(|spec| TopicInfo { spec, id: 7 }).collect();
        let started = topic_ids(&topology, &infos);
        infos.iter_mut().for_each(|info| info.spec.partitions = 3);
        let found = TopicsDifference::find(&topology, &started, &infos).expect("a difference");
        assert!(found.has_lasting());
        let text = found.sentence(&topology);
        assert!(text.starts_with("topic t.in has 3 partitions"), "{text}");
        assert!(text.contains("t.in.urgent (3)") && text.contains("t.order (3)"), "{text}");
        let one = slice::from_ref(topology.input());
        assert_eq!(name_all(one), Some(("topic t.in".to_owned(), "was")));
    }
}
