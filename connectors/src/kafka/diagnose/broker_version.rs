//! Checks that a broker supports the operations Tidewire uses, and names the required Kafka
//! release.
//!
//! Brokers don't report their release, only which versions of which operations they support. So the
//! check also works for brokers of other vendors.

use super::wire::{Apis, api};
use crate::kafka::config::{Config, GroupProtocol};

/// A feature that is used, the version of an operation that implies it, and the first release of
/// Apache Kafka with it, as (major, minor).
struct RequiredApi {
    feature: &'static str,
    operation: i16,
    version: i16,
    since: (u32, u32),
}

/// Features that are always used, oldest first.
const ALWAYS_REQUIRED: [RequiredApi; 3] = [
    RequiredApi {
        feature: "static group members",
        operation: api::JOIN_GROUP,
        version: 5,
        since: (2, 3),
    },
    RequiredApi {
        feature: "transactions with group metadata",
        operation: api::TXN_OFFSET_COMMIT,
        version: 3,
        since: (2, 5),
    },
    RequiredApi { feature: "topic ids", operation: api::METADATA, version: 10, since: (2, 8) },
];

/// The feature that `kafka.group_protocol = "consumer"` uses.
const CONSUMER_PROTOCOL: RequiredApi = RequiredApi {
    feature: "the group protocol of KIP-848",
    operation: api::CONSUMER_GROUP_HEARTBEAT,
    version: 0,
    since: (4, 0),
};

/// The problem of a broker with these operations, if it is too old.
pub(super) fn too_old(broker: &str, apis: &Apis, config: &Config) -> Option<String> {
    let lacks = |required: &&RequiredApi| {
        apis.get(&required.operation).is_none_or(|most| *most < required.version)
    };
    let optional = [CONSUMER_PROTOCOL];
    let optional = if config.protocol == GroupProtocol::Consumer { &optional[..] } else { &[] };
    let missing: Vec<&RequiredApi> = ALWAYS_REQUIRED.iter().chain(optional).filter(lacks).collect();
    let newest = missing.last()?;
    let name = |required: &&RequiredApi| {
        format!("{} (Kafka {}.{})", required.feature, required.since.0, required.since.1)
    };
    let names: Vec<String> = missing.iter().map(name).collect();
    let classic = if missing.len() == 1 && newest.since == CONSUMER_PROTOCOL.since {
        ", or set kafka.group_protocol = \"classic\""
    } else {
        ""
    };
    Some(format!(
        "the broker at {broker} is too old: it lacks {}; run Apache Kafka {}.{} or newer \
         there{classic}",
        names.join(", "),
        newest.since.0,
        newest.since.1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KAFKA_3: [(i16, i16); 3] =
        [(api::METADATA, 12), (api::JOIN_GROUP, 9), (api::TXN_OFFSET_COMMIT, 3)];

    fn check(apis: &[(i16, i16)], protocol: GroupProtocol, says: &[&str]) {
        let config = Config { protocol, ..Config::new("a:1", "t.") };
        let apis = apis.iter().copied().collect();
        let text = too_old("a:1", &apis, &config).unwrap_or_default();
        assert_eq!(text.is_empty(), says.is_empty(), "{text}");
        for part in says {
            assert!(text.contains(part), "{part:?} is missing: {text}");
        }
    }

    #[test]
    fn a_broker_is_checked_for_the_apis_in_use() {
        check(&KAFKA_3, GroupProtocol::Classic, &[]);
        check(&KAFKA_3, GroupProtocol::Consumer, &["KIP-848", "Kafka 4.0 or newer", "classic"]);
        let with_heartbeat = [&KAFKA_3[..], &[(api::CONSUMER_GROUP_HEARTBEAT, 1)]].concat();
        check(&with_heartbeat, GroupProtocol::Consumer, &[]);
        let of_2_4 = [(api::METADATA, 9), (api::JOIN_GROUP, 6), (api::TXN_OFFSET_COMMIT, 2)];
        let says =
            ["lacks transactions with group metadata (Kafka 2.5), topic ids", "2.8 or newer"];
        check(&of_2_4, GroupProtocol::Classic, &says);
        check(&[], GroupProtocol::Classic, &["static group members (Kafka 2.3)"]);
    }
}
