//! The disk of the state folder gets full under load.
//!
//! The state is only a copy of the changelogs: the process reports the error and ends, and once
//! there is space again a start continues.

use std::thread;
use std::time::Duration;

use tidewire_tests::broker;
use tidewire_tests::small_disk::SmallDisk;

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve};

/// Exit code of failed work; 3 is for a lost log, and the log is intact.
const FAILED: i32 = 1;

#[test]
fn a_full_state_disk_ends_the_process_and_a_restart_with_space_recovers() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "disk.");
    let mut server = serve("dev", at, "disk");
    server.stop();
    let small = match SmallDisk::over(&server.data_dir().join("state")) {
        Ok(small) => small,
        Err(why) => {
            eprintln!("skipped, since nothing can be mounted: {why}");
            return;
        }
    };
    server.restart();
    let writer = EventWriter::start(at, 300);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(900, Duration::from_secs(60)), "it works");
    let ballast = small.fill();
    let (code, printed) = server.ended(TIMEOUT);
    assert_eq!(code, Some(FAILED), "{printed}");
    assert!(printed.contains("No space left on device"), "it says why:\n{printed}");
    std::fs::remove_file(ballast).expect("it is ours");
    server.restart();
    thread::sleep(Duration::from_secs(1));
    check(at, writer.finish());
    drop(server);
}
