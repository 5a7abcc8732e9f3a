//! Says why topics in another layout are refused, and which command to run instead.

use std::fmt::{Display, Formatter, Result};

use crate::topics_layout::find::FoundLayout;
use crate::topics_layout::record::LayoutNumber;
use crate::topology::Topology;

/// Where the topics are, for the command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// On Kafka, with these bootstrap addresses.
    Kafka(String),
    /// In the embedded log of this data folder.
    Folder(String),
}

/// Topics whose layout is not that of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRefusal {
    prefix: String,
    /// The layout found, and what shows it.
    found: String,
    /// Whether a later build created them.
    is_later: bool,
    needed: LayoutNumber,
}

impl LayoutRefusal {
    /// Compares what was found with what a build needs; `None` if they fit.
    pub fn of(topology: &Topology, found: &FoundLayout, needed: LayoutNumber) -> Option<Self> {
        let catalogues = topology.catalogues();
        let (found, is_later) = match found {
            FoundLayout::Empty => return None,
            FoundLayout::Marked(number) if *number == needed => return None,
            FoundLayout::Marked(number) => (format!("layout {}", number.0), *number > needed),
            FoundLayout::Unmarked(shown_by) => {
                let number = LayoutNumber::WITHOUT_RECORD.0;
                let why = format!("{shown_by}, and {catalogues} has no layout record");
                (format!("layout {number} ({why})"), false)
            }
            FoundLayout::Unreadable(value) => (
                format!("an unknown layout ({value:?} in the layout record of {catalogues})"),
                true,
            ),
        };
        Some(Self { prefix: topology.prefix().to_owned(), found, is_later, needed })
    }

    /// The refusal with the command to run.
    pub fn sentence(&self, place: &LogPlace) -> String {
        let number = self.needed.0;
        let (instead, other) = match place {
            LogPlace::Kafka(bootstrap) => {
                let prefix = self.other_prefix();
                let command = format!(
                    "TIDEWIRE_TOPICS_PREFIX={prefix} tidewire topics create --log \
                     kafka://{bootstrap}"
                );
                let other = format!("start every process with topics.prefix = \"{prefix}\"");
                (command, format!("with the other settings as they are, and {other}"))
            }
            LogPlace::Folder(dir) => {
                let command =
                    format!("tidewire dev --data-dir {}-{number}", dir.trim_end_matches('/'));
                (command, "and give the same folder to every command".to_owned())
            }
        };
        let or_later = if self.is_later {
            "Start the build that created them, or "
        } else {
            "To begin with empty topics, "
        };
        format!("{self}. Nothing was changed. {or_later}run `{instead}` {other}")
    }

    /// A prefix that is not this one, with its last separator kept: `tw.` becomes `tw4.`.
    fn other_prefix(&self) -> String {
        let name = self.prefix.trim_end_matches(['.', '-', '_']);
        format!("{name}{}{}", self.needed.0, &self.prefix[name.len()..])
    }
}

impl Display for LayoutRefusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { prefix, found, needed, .. } = self;
        write!(
            f,
            "the topics with the prefix {prefix} are in {found}, and this build needs layout {}: \
             in mixed layouts, copies of an event meet in different tasks",
            needed.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentence for topics of this prefix; empty if they are accepted.
    fn sentence(prefix: &str, found: &FoundLayout, place: &LogPlace) -> String {
        let refusal = LayoutRefusal::of(&Topology::new(prefix, 1), found, LayoutNumber::CURRENT);
        refusal.map(|refusal| refusal.sentence(place)).unwrap_or_default()
    }

    #[test]
    fn a_refusal_names_both_numbers_and_the_command_to_run() {
        let kafka = LogPlace::Kafka("a:1,b:2".to_owned());
        let folder = LogPlace::Folder("data/".to_owned());
        let in_use = FoundLayout::Unmarked("tw.order is in use".to_owned());
        for (found, parts) in [
            (&FoundLayout::Marked(LayoutNumber(7)), ["in layout 7,", "Start the build"]),
            (&FoundLayout::Marked(LayoutNumber(1)), ["in layout 1,", "To begin with empty topics"]),
            (&in_use, ["in layout 1 (tw.order is in use", "tw.catalogues has no layout record"]),
            (&FoundLayout::Unreadable("?".to_owned()), ["an unknown layout (\"?\"", "Start"]),
        ] {
            let on_kafka = sentence("tw.", found, &kafka);
            let command = "`TIDEWIRE_TOPICS_PREFIX=tw4. tidewire topics create --log \
                           kafka://a:1,b:2` with the other settings as they are, and start every \
                           process with topics.prefix = \"tw4.\"";
            let embedded = sentence("tw.", found, &folder);
            for part in parts.into_iter().chain(["needs layout 4"]) {
                assert!(on_kafka.contains(part) && embedded.contains(part), "{part}: {embedded}");
            }
            assert!(on_kafka.contains(command), "{on_kafka}");
            assert!(embedded.contains("run `tidewire dev --data-dir data-4`"), "{embedded}");
        }
        let other = sentence("shop_", &in_use, &kafka);
        assert!(other.contains("TIDEWIRE_TOPICS_PREFIX=shop4_ "), "{other}");
    }

    #[test]
    fn the_needed_layout_and_topics_without_records_are_accepted() {
        let place = LogPlace::Folder("data".to_owned());
        for accepted in [FoundLayout::Empty, FoundLayout::Marked(LayoutNumber::CURRENT)] {
            assert_eq!(sentence("tw.", &accepted, &place), "");
        }
    }
}
