//! Runs `tests/clients/api-validators/validate.js`: AsyncAPI's parser, an OpenAPI linter, and Ajv.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::Serialize;
use serde_json::Value;

/// A JSON value and the schema it is checked against.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// A description, for messages.
    pub(super) what: String,
    /// Where in the document the schema is, as a JSON pointer.
    pub(super) schema: String,
    pub(super) value: Value,
    /// Whether it has to conform.
    pub(super) valid: bool,
}

/// The two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AsyncApi,
    OpenApi,
}

impl Kind {
    /// Its path on a server.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::AsyncApi => "/asyncapi.json",
            Self::OpenApi => "/openapi.json",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::AsyncApi => "asyncapi",
            Self::OpenApi => "openapi",
        }
    }
}

/// The errors that the validator finds in a document.
pub(super) fn check_document(kind: Kind, document: &Value) -> Result<(), String> {
    run(kind.command(), document, None)
}

/// The errors that the samples have by the document's schemas.
pub(super) fn check_samples(document: &Value, samples: &[Sample]) -> Result<(), String> {
    let lines: Vec<String> =
        samples.iter().map(|s| serde_json::to_string(s).expect("samples are JSON")).collect();
    run("values", document, Some(&lines.join("\n")))
}

fn run(command: &str, document: &Value, samples: Option<&str>) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("the temporary folder can be written");
        path
    };
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/api-validators/validate.js"));
    node.arg(command).arg(write("document.json", &document.to_string()));
    if let Some(samples) = samples {
        node.arg(write("samples.ndjson", samples));
    }
    let output = node.env("NODE_PATH", modules()).output().expect("node is installed");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(found),
        other => panic!("{other:?}: {found}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The folder of the validators' packages, which are installed if needed.
fn modules() -> &'static PathBuf {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    MODULES.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/api-validators/install.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output();
        let output = output.expect("the script of this repository runs");
        assert!(output.status.success(), "{script} failed; see its output above");
        let folder = String::from_utf8(output.stdout).expect("a path in UTF-8");
        PathBuf::from(folder.trim_end()).join("node_modules")
    })
}
