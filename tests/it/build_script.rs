//! `scripts/build.sh` with a `cargo` that only pretends: its exit code, and its end by a signal.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A build that starts a compiler, writes its process id, and waits for it.
const CARGO: &str = r#"#!/bin/sh
case $1 in
  tree) echo tidewire-app v0 ;;
  build) sleep "$COMPILE_SECONDS" & echo $! >"$CARGO_TARGET_DIR/compiler"; wait $!; exit "$RESULT" ;;
esac
"#;

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder in it")
}

/// The build script with that `cargo` in front of the real one.
fn build(folder: &Path, compile_seconds: u32, result: u32) -> Command {
    let cargo = folder.join("cargo");
    fs::write(&cargo, CARGO).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(root().join("scripts/build.sh"));
    command.current_dir(root()).stdin(Stdio::null()).stderr(Stdio::piped());
    command.env("PATH", format!("{}:{path}", folder.display())).env("CARGO_TARGET_DIR", folder);
    command.env("COMPILE_SECONDS", compile_seconds.to_string()).env("RESULT", result.to_string());
    command
}

#[test]
fn a_failed_build_fails_the_script_and_a_good_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for (result, code) in [(0, 0), (101, 1)] {
        let output = build(folder.path(), 0, result).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("first build"), "{text}");
    }
}

#[test]
fn a_signal_ends_the_compilers_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut script = build(folder.path(), 600, 0).spawn().unwrap();
    let started = Instant::now();
    let compiler: i32 = loop {
        let text = fs::read_to_string(folder.path().join("compiler")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            break pid;
        }
        assert!(started.elapsed() < TIMEOUT, "no compiler was started");
        thread::sleep(Duration::from_millis(20));
    };
    let pid = rustix::process::Pid::from_raw(script.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    script.wait().unwrap();
    let running = || Path::new(&format!("/proc/{compiler}")).exists();
    while running() {
        assert!(started.elapsed() < TIMEOUT, "the compiler is still running");
        thread::sleep(Duration::from_millis(20));
    }
}
