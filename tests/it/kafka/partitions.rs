//! The number of partitions a transaction writes to, which determines its cost at the broker. Of
//! each task they are those of its outputs, `state`, `order` and `out.audit`.

use std::thread;
use std::time::Duration;

use tidewire_tests::broker;

use super::fixture::{EventWriter, TopicNamespace, check, serve};

/// Events per second: a transaction holds several.
const RATE: u32 = 150;

#[test]
fn a_typical_transaction_writes_to_at_most_24_partitions() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "narrow.");
    let server = serve("dev", at, "only");
    let writer = EventWriter::start(at, RATE);
    thread::sleep(Duration::from_secs(5));
    let written = writer.finish();
    check(at, written);
    let count =
        |name: &str| server.metric(&format!("tidewire_derive_transaction_partitions_{name}"));
    let all = count("count").expect("transactions are counted");
    let narrow = count("bucket{le=\"24\"}").expect("it is a bound");
    eprintln!("{narrow} of {all} transactions for {written} events");
    assert!(all > 10.0, "{all} transactions are too few");
    assert!(narrow > all / 2.0, "{narrow} of {all} transactions wrote to at most 24 partitions");
}
