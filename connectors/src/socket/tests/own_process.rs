//! Runs a test in a process of its own, for tests that measure the memory of their process.
//!
//! The other tests of this program allocate and free at the same time, so what a test finds in its
//! own process would be theirs too.

use std::process::Command;

/// Set in the process that is started.
const MARK: &str = "TEST_IN_ITS_OWN_PROCESS";

/// Runs `test` in a new process of this program that runs nothing else. `name` is the path of the
/// function that calls this, as `concat!(module_path!(), "::NAME")` gives it.
#[expect(clippy::print_stdout, reason = "the figures of the process are worth reading")]
#[expect(clippy::disallowed_methods, reason = "the mark is no setting of the product")]
pub(super) fn run(name: &str, test: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let (_, path) = name.split_once("::").expect("a crate and a path");
    let output = Command::new(std::env::current_exe().expect("Linux knows the path"))
        .args([path, "--exact", "--nocapture", "--test-threads", "1"])
        .env(MARK, "1")
        .output()
        .expect("this program can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "it failed in its own process");
}

/// The resident memory of this process.
pub(super) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4_096
}
