//! The wall clock of a process is set back and ahead under load.
//!
//! It goes back by an hour, then ahead by two. Timestamps come from the broker's appends, and
//! elapsed time uses the monotonic clock, so nothing may stall or be lost.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tidewire_tests::broker;
use tidewire_tests::server::Server;
use tidewire_tests::websocket::WebSocketClient;

use super::fixture::{EventWriter, OutputReader, TopicNamespace, check};
use super::stalls::watch;

/// How long the outputs are watched after each step.
const LOOK: Duration = Duration::from_secs(4);

/// A WebSocket is pinged and sent its position every 30 s.
const KEEPALIVE: Duration = Duration::from_secs(35);

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

/// Two minutes ahead every WebSocket would seem silent, and after an hour back no keepalive would
/// be due for an hour.
#[test]
fn clock_changes_close_no_web_socket_and_stop_no_keepalive() {
    let folder = tempfile::tempdir().expect("a folder");
    let step = folder.path().join("step");
    fs::write(&step, 0i64.to_ne_bytes()).expect("it can be written");
    let set = |seconds: i64| {
        let file = File::options().write(true).open(&step).expect("it is there");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("it can be written");
    };
    let (library, step_path) = (clock(folder.path()), step.to_string_lossy().into_owned());
    let library = library.to_string_lossy().into_owned();
    let variables = [("LD_PRELOAD", &*library), ("STEPPED_CLOCK", &*step_path)];
    let server = Server::start_as("dev", &[], &variables);
    let mut client = WebSocketClient::connect(server.addr(), "ann", None).expect("it connects");
    client.subscribe("posts:clock", "latest").expect("it subscribes");
    set(120);
    let early = client.next_control(Duration::from_secs(3)).expect("it stays open");
    assert_eq!(early, None, "nothing is due yet");
    set(-3_600);
    let begun = Instant::now();
    let mut position = None;
    while position.is_none() && begun.elapsed() < KEEPALIVE {
        let frame = client.next_control(KEEPALIVE).expect("it stays open");
        position = frame.filter(|frame| frame["op"] == "position");
    }
    assert!(position.is_some(), "no keepalive within {KEEPALIVE:?}");
}
