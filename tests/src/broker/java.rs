//! Runs Java commands with the Apache Kafka of the cache.
//!
//! Only `scripts/kafka.sh` downloads; this file calls it once per process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Little compilation and a small heap: starts fast and stays small.
const SMALL: &[&str] = &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// The folder of Kafka's jars; the first call on a machine downloads them.
pub fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
        let output = Command::new(script).arg("fetch").stderr(Stdio::inherit()).output();
        let output = output.expect("the script can be run");
        assert!(output.status.success(), "scripts/kafka.sh fetch failed; see its output above");
        String::from_utf8(output.stdout).expect("a path of text").trim_end().into()
    })
}

/// `java` with Kafka's class path, to be followed by options and a class.
pub fn arguments() -> Vec<String> {
    vec![format!("@{}", jars().join("java.args").display())]
}

/// The same with this much heap, for processes of which many run at once.
pub fn small_arguments(heap_mb: u32) -> Vec<String> {
    let mut all = arguments();
    all.push(format!("-Xmx{heap_mb}m"));
    all.extend(SMALL.iter().map(|&option| option.to_owned()));
    all
}

/// Runs one of Kafka's tools and returns its standard output. Panics with its whole output if it
/// fails.
pub fn run(class: &str, arguments: &[&str]) -> String {
    try_run(class, arguments).unwrap_or_else(|output| panic!("{class} {arguments:?}: {output}"))
}

/// The same; the error is its whole output.
pub fn try_run(class: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("java");
    command.args(small_arguments(128)).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command.arg(class).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("Java is there: scripts/install.sh test installs it");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{printed}{errors}", output.status))
}
