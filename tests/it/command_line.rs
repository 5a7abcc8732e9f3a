//! The command line as a script uses it: output, standard error and exit codes.
//!
//! Each usage error must name the fix and start nothing.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidewire_tests::server::{self, Server};

/// The result of a verb.
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(args: &[&str], variables: &[(&str, &str)], dir: &TempDir) -> CommandOutput {
    let mut command: Command = server::command();
    command.args(args).envs(variables.iter().copied()).current_dir(dir.path());
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    CommandOutput { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("the temporary folder can be written")
}

fn check_refused(args: &[&str], says: &[&str]) {
    let done = run(args, &[], &folder());
    assert_eq!(done.code, Some(2), "{args:?}: {}", done.err);
    for part in says {
        assert!(done.err.contains(part), "{args:?} says {part:?}: {}", done.err);
    }
    assert_eq!(done.out, "", "standard output is for data only");
}

#[test]
fn all_settings_errors_are_reported_at_once_and_nothing_starts() {
    let dir = folder();
    fs::write(dir.path().join("t.toml"), "listn = 1\n[topics]\npartitions = 'many'\n").unwrap();
    let args = ["dev", "--config", "t.toml", "--data-dir", "data", "--listen", "here"];
    let done = run(&args, &[("TIDEWIRE_DURABILITY", "perhaps")], &dir);
    assert_eq!(done.code, Some(2), "{}", done.err);
    for part in [
        "4 settings are wrong",
        "t.toml: listn: there is no such setting; did you mean listen?",
        "t.toml: topics.partitions: \"many\": give a whole number from 1 to 64",
        "TIDEWIRE_DURABILITY: \"perhaps\": give process",
        "--listen: \"here\": give an IP address and a port",
    ] {
        assert!(done.err.contains(part), "{part:?} is said: {}", done.err);
    }
    assert!(!dir.path().join("data").exists(), "nothing was opened");
}

#[test]
fn variables_of_kubernetes_services_are_ignored_and_misspelt_settings_are_not() {
    let links = [
        ("TIDEWIRE_SERVICE_HOST", "10.96.0.12"),
        ("TIDEWIRE_SERVICE_PORT", "8080"),
        ("TIDEWIRE_PORT", "tcp://10.96.0.12:8080"),
        ("TIDEWIRE_PORT_8080_TCP_PROTO", "tcp"),
        ("TIDEWIRE_GATEWAY_SERVICE_PORT_HTTP", "8080"),
        ("TIDEWIRE_WEB_NAME", "/app/tidewire_web"),
        ("TIDEWIRE_WEB_ENV_PATH", "/bin"),
    ];
    let server = Server::start_as("dev", &[], &links);
    assert_eq!(server.http().get("/readyz").expect("it serves").status, 200);
    let dir = folder();
    for (name, value) in [
        ("TIDEWIRE_PORT", "8080"),
        ("TIDEWIRE_SERVICE_HOST", "tidewire"),
        ("TIDEWIRE_LISTEN_PORT", "8080"),
        ("TIDEWIRE_SHARDS", "2"),
    ] {
        let done = run(&["dev", "--data-dir", "data"], &[links[0], (name, value)], &dir);
        assert_eq!(done.code, Some(2), "{name}: {}", done.err);
        assert!(done.err.contains(&format!("{name}: there is no such setting")), "{}", done.err);
        assert!(done.err.contains("1 setting is wrong"), "{}", done.err);
    }
}

#[test]
fn the_settings_of_a_process_are_shown_with_their_place_and_without_secrets() {
    let dir = folder();
    let file = "listen = '127.0.0.1:7777'\n[registry]\nurl = 'http://h:1'\ntoken = 's3cret'\n";
    fs::write(dir.path().join("t.toml"), file).unwrap();
    let variables = [("TIDEWIRE_TOPICS_PARTITIONS", "16")];
    let args = ["settings", "--config", "t.toml", "--data-dir", "elsewhere"];
    let shown = run(&args, &variables, &dir);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for part in [
        "given: \"127.0.0.1:7777\" (t.toml: listen)",
        "given: \"16\" (TIDEWIRE_TOPICS_PARTITIONS)",
        "given: \"elsewhere\" (--data-dir)",
        "given: (not printed) (t.toml: registry.token)",
    ] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    assert!(!shown.out.contains("s3cret"), "{}", shown.out);
    assert_eq!(shown.out.matches("given: ").count(), 5, "{}", shown.out);
    // The table is what corrects a mistake, so it is printed beside every error.
    fs::write(dir.path().join("wrong.toml"), "listn = 1\n").unwrap();
    for (file, error) in [("wrong.toml", "did you mean listen?"), ("absent.toml", "could not read")]
    {
        let wrong = run(&["settings", "--config", file], &[], &dir);
        assert_eq!(wrong.code, Some(2), "{}", wrong.err);
        assert!(wrong.err.contains(error), "{}", wrong.err);
        assert!(wrong.out.contains("TIDEWIRE_LISTEN"), "{}", wrong.out);
    }
    let plain = run(&["settings"], &[], &dir);
    assert_eq!((plain.code, plain.out.contains("given: ")), (Some(0), false), "{}", plain.out);
}

#[test]
fn usage_errors_exit_with_code_2_and_name_the_fix() {
    check_refused(&["dev", "--listen", "0.0.0.0:0"], &["listen on 127.0.0.1:0"]);
    check_refused(&["dev", "--log", "kafka://localhost"], &["kafka://HOST:PORT"]);
    check_refused(&["dev", "--config", "absent.toml"], &["could not read", "absent.toml"]);
    check_refused(&["dev", "--nonsense"], &["--nonsense"]);
    check_refused(&["tail"], &["<CHANNEL>"]);
    check_refused(&["tail", "a:b", "--url", "localhost"], &["give a URL such as"]);
    check_refused(&["generate", "--seed", "1", "--rate", "0"], &["give events per second"]);
}

#[test]
fn a_separate_role_is_refused_with_the_reason() {
    let dir = folder();
    fs::write(dir.path().join("t.toml"), "").unwrap();
    for role in ["admit", "derive", "gateway"] {
        let done = run(&[role, "--config", "t.toml"], &[], &dir);
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(done.err.contains("run `tidewire dev`"), "{}", done.err);
    }
}

#[test]
fn synthetic_traffic_is_the_same_bytes_for_the_same_seed() {
    let dir = folder();
    let once = run(&["generate", "--seed", "7", "--count", "300"], &[], &dir);
    let paced = ["generate", "--seed", "7", "--count", "300", "--rate", "100000"];
    assert_eq!(once.code, Some(0), "{}", once.err);
    assert_eq!(once.out.lines().count(), 300);
    assert_eq!(run(&paced, &[], &dir).out, once.out);
}

#[test]
fn topics_are_listed_by_a_running_process_and_from_the_folder_of_a_stopped_one() {
    let mut server = Server::start(&[]);
    let (status, listed) = server.run_verb(&["topics", "list"], None);
    assert!(status.success(), "{listed}");
    assert!(listed.contains("tw.lane.critical"), "{listed}");
    let (status, output) = server.run_verb(&["topics", "describe", "tw.absent"], None);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("there is no topic tw.absent; there are: tw.catalogues"), "{output}");
    server.stop();
    let data = server.data_dir();
    let data = data.to_str().expect("a path of text");
    let args = ["topics", "list", "--data-dir", data, "--listen", "127.0.0.1:1"];
    let stopped = run(&args, &[], &folder());
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    assert_eq!(stopped.out, listed);
}

#[test]
fn a_folder_in_use_is_named_with_the_fix() {
    let server = Server::start(&[]);
    let data = server.data_dir();
    let data = data.to_str().expect("a path of text");
    let second = run(&["dev", "--listen", "127.0.0.1:0", "--data-dir", data], &[], &folder());
    assert_eq!(second.code, Some(3), "the log is not ours: {}", second.err);
    assert!(second.err.contains("in use by another process"), "{}", second.err);
}

/// Another deployment may run at `listen`. A command for a folder must not act on it.
#[test]
fn a_process_of_another_folder_is_never_asked_in_place_of_a_given_one() {
    let server = Server::start(&[]);
    let listen = server.addr().to_string();
    let data = server.data_dir();
    let own = data.to_str().expect("a path of text");
    let dir = folder();
    let with = |args: &[&str], data: &str| {
        run(&[args, &["--data-dir", data, "--listen", &listen]].concat(), &[], &dir)
    };
    for args in [&["topics", "list"][..], &["dead-letters", "drop", "--all-open"]] {
        assert_eq!(with(args, own).code, Some(0), "{args:?}: {}", with(args, own).err);
        let refused = with(args, "typo");
        assert_eq!((refused.code, &*refused.out), (Some(1), ""), "{args:?}");
        assert!(refused.err.contains("there is no data in typo"), "{}", refused.err);
        assert!(refused.err.contains(&format!("the tidewire at http://{listen} uses the data in")));
    }
    let doctor = with(&["doctor"], own);
    assert!(doctor.out.contains("is in use by the tidewire at http://"), "{}", doctor.out);
    let created = with(&["topics", "create"], "other");
    assert!(created.out.contains("topics created, 0 existed"), "{}{}", created.out, created.err);
    assert!(with(&["topics", "list"], "other").out.contains("tw.in"));
    // Without a folder, the process that runs is meant, but only to read.
    let listed = run(&["topics", "list", "--listen", &listen], &[], &folder());
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let args = ["dead-letters", "drop", "--all-open", "--listen", &listen];
    let refused = run(&args, &[], &folder());
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(refused.err.contains("--url http://"), "{}", refused.err);
}

#[test]
fn lines_are_sent_when_they_come() {
    let server = Server::start(&[]);
    let mut command = server::command();
    command.args(["produce", "--listen", &server.addr().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut input = child.stdin.take().expect("it is piped");
    let line = concat!(
        r#"{"event_id":null,"event_type":"post.created","account_id":"a","#,
        r#""data":{"post_id":"p","author_id":"ann","text":"x"}}"#,
    );
    writeln!(input, "{line}").expect("it reads");
    let args = ["tail", "posts:ann", "--from", "earliest", "--count", "1"];
    let (status, shown) = server.run_verb(&args, None);
    assert!(status.success() && shown.contains("post.created"), "{shown}");
    drop(input);
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "1 accepted, 0 refused\n");
}

#[test]
fn wrong_settings_of_roles_are_found_before_a_role_starts() {
    let wrong = [
        ("TIDEWIRE_DERIVE_STANDBY", "true"),
        ("TIDEWIRE_DERIVE_THREADS", "2"),
        ("TIDEWIRE_DEMO_RATE", "abc"),
    ];
    for verb in ["settings", "dev"] {
        let done = run(&[verb], &wrong, &folder());
        assert_eq!(done.code, Some(2), "{verb}: {}", done.err);
        for name in ["TIDEWIRE_DERIVE_STANDBY", "TIDEWIRE_DEMO_RATE"] {
            assert!(done.err.contains(name), "{verb}: {}", done.err);
        }
    }
}

#[test]
fn the_history_a_tail_shows_is_the_same_after_a_kill() {
    let mut server = Server::start(&[]);
    let (status, output) = server.run_verb(&["generate", "--seed", "1", "--count", "100"], None);
    assert!(status.success(), "{output}");
    let args = ["tail", "timeline:demo", "--from", "earliest", "--json", "--count", "10"];
    let (status, first) = server.run_verb(&args, None);
    assert!(status.success(), "{first}");
    server.kill9();
    server.restart();
    let (_, again) = server.run_verb(&args, None);
    assert_eq!(ids(&first), ids(&again), "the history is still there, in the same order");
}

fn ids(lines: &str) -> Vec<String> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.map(|event| event["event_id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn the_doctor_accepts_a_fresh_folder_and_rejects_a_file() {
    let dir = folder();
    let args = ["doctor", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    let fine = run(&args, &[], &dir);
    assert!(fine.out.contains("ok    127.0.0.1:0 is free"), "{}", fine.out);
    assert!(
        fine.out.contains("ok    the folder data does not exist yet and can be created"),
        "{}",
        fine.out
    );
    assert!(!dir.path().join("data").exists(), "it changes nothing");
    fs::write(dir.path().join("data"), "").unwrap();
    let wrong = run(&args, &[], &dir);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    assert!(wrong.err.contains("this is a file"), "{}", wrong.err);
}
