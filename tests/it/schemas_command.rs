//! `tidewire schemas` and `doctor` against a fake schema registry.

use std::fs;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::typed;
use tidewire_tests::fake_registry::{FakeRegistry, RegistryBehaviour};
use tidewire_tests::server;

/// Runs the binary in a temporary folder; returns the exit code and all output.
fn run(args: &[&str], variables: &[(&str, &str)], dir: &TempDir) -> (Option<i32>, String) {
    let mut command = server::command();
    command.args(args).envs(variables.iter().copied()).current_dir(dir.path());
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().expect("the binary starts");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("it prints text"))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("the temporary folder can be written")
}

fn check(args: &[&str], code: i32, says: &[&str]) {
    let (ended, output) = run(args, &[], &folder());
    assert_eq!(ended, Some(code), "{args:?}: {output}");
    for part in says {
        assert!(output.contains(part), "{args:?} says {part:?}: {output}");
    }
}

#[test]
fn export_writes_the_files_of_the_repository() {
    let dir = folder();
    let (code, output) = run(&["schemas", "export", "--dir", "a/b"], &[], &dir);
    assert_eq!(code, Some(0), "{output}");
    let types: Vec<_> = typed::types(Catalogue::builtin()).collect();
    assert!(output.contains(&format!("{} schemas written to a/b", types.len())), "{output}");
    for event_type in types {
        let name = format!("{}.avsc", event_type.name);
        let written = fs::read_to_string(dir.path().join("a/b").join(&name)).expect(&name);
        let path = format!("{}/../schemas/avro/{name}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(written, fs::read_to_string(path).expect(&name));
    }
    let (code, output) = run(&["schemas", "export", "post.created", "health_alert"], &[], &dir);
    assert_eq!(code, Some(0), "{output}");
    let mut names: Vec<_> = fs::read_dir(dir.path().join("tidewire-schemas"))
        .expect("the default folder")
        .map(|entry| entry.expect("listed").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["account.health_alert.avsc", "post.created.avsc"]);
}

#[test]
fn usage_errors_name_the_fix() {
    check(&["schemas", "export", "post.creatd"], 2, &["did you mean post.created?"]);
    check(&["schemas", "export", "custom.mine"], 2, &["send custom.mine as JSON"]);
    check(&["schemas", "export", "incident.opened"], 2, &["no producer sends it"]);
    check(&["schemas", "check"], 2, &["give --registry http://HOST:PORT, or the setting"]);
    let secret = ["schemas", "check", "--registry", "http://ann:s3cret@h:1"];
    check(&secret, 2, &["--registry", "credentials are not accepted in a URL"]);
    let (_, output) = run(&secret, &[], &folder());
    assert!(!output.contains("s3cret"), "{output}");
    let nowhere = ["schemas", "register", "--registry", "http://127.0.0.1:1"];
    check(&nowhere, 1, &["stopped at tidewire.", "check that the schema registry runs"]);
}

#[test]
fn registering_is_idempotent_and_check_reports_what_the_registry_has() {
    let registry = FakeRegistry::start();
    let url = registry.url();
    let at = ["--registry", &url];
    let all = typed::types(Catalogue::builtin()).count();
    let missing = format!("0 same, 0 compatible, {all} missing, 0 incompatible");
    let says = [&missing, "register them with `tidewire schemas register`"];
    check(&["schemas", "check", at[0], at[1]], 1, &says);
    for _ in 0..2 {
        let (code, output) = run(&["schemas", "register", at[0], at[1]], &[], &folder());
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains(&format!("{all} registered, 0 refused")), "{output}");
        let line = output.lines().find(|line| line.starts_with("tidewire.post.Created "));
        assert!(line.expect("named").ends_with("version 1"), "{output}");
    }
    let same = format!("{all} same, 0 compatible, 0 missing, 0 incompatible");
    check(&["schemas", "check", at[0], at[1]], 0, &[&same]);
}

#[test]
fn only_an_incompatible_version_fails() {
    let registry = FakeRegistry::start();
    let url = registry.url();
    let one = |verb| ["schemas", verb, "--registry", &url, "post.deleted"];
    let subject = "tidewire.post.Deleted";
    let record = |fields: &str| {
        format!(
            r#"{{"type": "record", "name": "Deleted", "namespace": "tidewire.post",
                "fields": [{{"name": "account_id", "type": "string"}}, {fields}]}}"#
        )
    };
    registry.put(subject, &record(r#"{"name": "post_id", "type": "string"}"#));
    check(&one("check"), 0, &["compatible with another", "0 same, 1 compatible"]);
    check(&one("register"), 0, &["version 2", "1 registered"]);
    check(&one("check"), 0, &["same, id 2 version 2"]);
    let other = FakeRegistry::start();
    let url = other.url();
    let one = |verb| ["schemas", verb, "--registry", &url, "post.deleted"];
    other.put(subject, &record(r#"{"name": "post_id", "type": "long"}"#));
    check(&one("check"), 1, &["incompatible: ", "post_id", "1 incompatible", "who registered"]);
    check(&one("register"), 1, &["refused: ", "incompatible with an earlier", "1 refused"]);
}

#[test]
fn the_login_of_the_settings_is_used_and_never_printed() {
    let registry = FakeRegistry::start();
    registry.require_user("ann", "s3cret");
    let url = registry.url();
    let verb = ["schemas", "register", "post.created"];
    let login = [
        ("TIDEWIRE_REGISTRY_URL", url.as_str()),
        ("TIDEWIRE_REGISTRY_USERNAME", "ann"),
        ("TIDEWIRE_REGISTRY_PASSWORD", "s3cret"),
    ];
    let (code, output) = run(&verb, &login, &folder());
    assert_eq!(code, Some(0), "{output}");
    let wrong = [login[0], login[1], ("TIDEWIRE_REGISTRY_PASSWORD", "s3cret-too")];
    let (code, output) = run(&verb, &wrong, &folder());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("the login was rejected"), "{output}");
    assert!(!output.contains("s3cret"), "{output}");
    let (_, output) = run(&["settings"], &login, &folder());
    assert!(output.contains("registry.password") && !output.contains("s3cret"), "{output}");
}

#[test]
fn the_doctor_checks_a_configured_registry() {
    let registry = FakeRegistry::start();
    registry.put("s", r#""int""#);
    let url = registry.url();
    let at = [("TIDEWIRE_REGISTRY_URL", url.as_str())];
    let args = ["doctor", "--listen", "127.0.0.1:0", "--data-dir", "data"];
    let doctor = |variables: &[(&str, &str)]| run(&args, variables, &folder()).1;
    let fine = format!("ok    the schema registry at {url} answers, 1 subjects");
    assert!(doctor(&at).contains(&fine), "{}", doctor(&at));
    assert!(!doctor(&[]).contains("registry"), "none is configured");
    registry.require_token("t");
    let output = doctor(&at);
    assert!(output.contains("fix:  the schema registry: http://"), "{output}");
    assert!(output.contains("or registry.token"), "{output}");
    registry.set_behaviour(RegistryBehaviour::Down);
    assert!(doctor(&at).contains("check that the schema registry runs"));
}
