//! Rules of the repository that a machine can check, over every tracked file.
//!
//! One test per rule, named after it. A failure names the place and what would be right. Rules only
//! become stricter; an exception is a line of data with its reason, here and not in the code it
//! excuses.

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/protocol.rs"]
mod protocol;
#[path = "tidy/runbook.rs"]
mod runbook;
#[path = "tidy/settings.rs"]
mod settings;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/types.rs"]
mod types;
#[path = "tidy/words.rs"]
mod words;

/// Fails with every violation, one per line.
fn check(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}
