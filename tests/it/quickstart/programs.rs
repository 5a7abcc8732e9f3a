//! Runs the programs of the quickstart in one folder, with the packages that
//! `tests/clients/install.sh quickstart` installs.
//!
//! A program runs as it is printed. Only the document's address is replaced by that of the server
//! under test. A program that hangs is ended by `timeout`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tidewire_tests::child_process;
use tidewire_tests::client_program::{self, PrintingProgram};

/// Seconds a sending program may take; it retries failed requests.
const SEND_LIMIT_S: &str = "120";

/// The snippets as files, and how each is run.
pub(super) struct Programs {
    folder: TempDir,
}

/// What the install script lists, by name.
fn installed() -> &'static BTreeMap<String, Vec<String>> {
    static INSTALLED: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    INSTALLED.get_or_init(|| client_program::install("quickstart"))
}

impl Programs {
    /// Writes the snippets with another address in place of the document's.
    pub(super) fn write(snippets: &BTreeMap<String, String>, address: (&str, &str)) -> Self {
        let folder = tempfile::Builder::new().prefix("tidewire-quickstart-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        for (name, text) in snippets {
            let text = text.replace(address.0, address.1);
            fs::write(folder.path().join(name), text).expect("the temporary folder can be written");
        }
        let modules = &installed()["node_modules"][0];
        symlink(modules, folder.path().join("node_modules")).expect("the folder is new");
        for name in ["go.mod", "go.sum"] {
            let from = Path::new(&installed()["go_module"][0]).join(name);
            fs::copy(&from, folder.path().join(name)).expect("the script has put it there");
        }
        Self { folder }
    }

    /// The text of a snippet with the address replaced.
    pub(super) fn text(&self, file: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(file));
        text.unwrap_or_else(|error| panic!("no snippet {file}: {error}"))
    }

    /// Runs a program to its end and returns what it printed.
    pub(super) fn run(&self, file: &str) -> String {
        let limit = ["timeout", "--kill-after=5", SEND_LIMIT_S].map(str::to_owned);
        let mut command = self.prepare([limit.to_vec(), self.words(file)].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child =
            child_process::spawn(command).expect("setpriv starts a program that is installed");
        let output = child.wait_with_output().expect("it is our child");
        let printed =
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{file} ended with {}:\n{printed}", output.status);
        printed
    }

    /// Starts a program that does not end by itself.
    pub(super) fn start(&self, file: &str) -> PrintingProgram {
        PrintingProgram::start(self.prepare(self.words(file)))
    }

    /// How the document says that a file is run.
    fn words(&self, file: &str) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let (_, kind) = file.rsplit_once('.').expect("a snippet's name has an ending");
        match kind {
            "sh" => words(&["bash", file]),
            "py" => [installed()["python"].clone(), words(&[file])].concat(),
            "mjs" => words(&["node", file]),
            "go" => vec![self.compile(file).to_string_lossy().into_owned()],
            "java" => words(&["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", file]),
            _ => panic!("{file}: no way to run it is known"),
        }
    }

    /// `go run` would leave the program running when it is killed itself.
    fn compile(&self, file: &str) -> PathBuf {
        let program = self.folder.path().join(file.replace('.', "-"));
        if !program.exists() {
            let output = program.to_string_lossy().into_owned();
            let build = ["build", "-o", output.as_str(), file].map(str::to_owned);
            let mut command = self.prepare([installed()["go"].clone(), build.to_vec()].concat());
            let compiled = command.output().expect("setpriv starts a program that is installed");
            let printed = String::from_utf8_lossy(&compiled.stderr);
            assert!(compiled.status.success(), "{file} does not compile:\n{printed}");
        }
        program
    }

    fn prepare(&self, words: Vec<String>) -> Command {
        let mut command = client_program::command(&words);
        command.current_dir(self.folder.path());
        command
    }
}
