//! The wall clock of a process is set back and ahead under load.
//!
//! It goes back by an hour, then ahead by two. Timestamps come from the broker's appends, and
//! elapsed time uses the monotonic clock, so nothing may stall or be lost.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidewire_tests::broker;
use tidewire_tests::server::Server;

use super::fixture::{EventWriter, OutputReader, TopicNamespace, check};
use super::stalls::watch;

/// How long the outputs are watched after each step.
const LOOK: Duration = Duration::from_secs(4);

/// Compiles the library that replaces the clock.
fn clock(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/clock/stepped.c");
    let library = folder.join("stepped.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("a compiler").success(), "the clock does not compile");
    library
}

#[test]
fn clock_changes_stall_lose_and_duplicate_nothing() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "clock.");
    let folder = tempfile::tempdir().expect("a folder");
    let step = folder.path().join("step");
    fs::write(&step, 0i64.to_ne_bytes()).expect("it can be written");
    let set = |seconds: i64| {
        let file = File::options().write(true).open(&step).expect("it is there");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("it can be written");
    };
    let log = format!("kafka://{bootstrap}");
    let (library, step) = (clock(folder.path()), step.to_string_lossy().into_owned());
    let variables = [
        ("TIDEWIRE_TOPICS_PREFIX", at.prefix),
        ("TIDEWIRE_INSTANCE", "clock"),
        ("LD_PRELOAD", &library.to_string_lossy()),
        ("STEPPED_CLOCK", &step),
    ];
    let server = Server::start_as("dev", &["--log", &log], &variables);
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid())).expect("it runs");
    assert!(maps.contains("stepped.so"), "its clock is replaced");
    let writer = EventWriter::start(at, 300);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(900, Duration::from_secs(60)), "it works");
    for seconds in [-3_600, 3_600, 0] {
        set(seconds);
        let stalls = watch(&mut outputs, LOOK);
        eprintln!("with the clock at {seconds} s: {stalls:?}");
        assert!(stalls.all < LOOK, "nothing came out with the clock at {seconds} s");
    }
    check(at, writer.finish());
    drop(server);
}
