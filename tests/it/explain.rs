//! `tidewire explain` with the real binary on the embedded log.
//!
//! The same tree is printed beside a running process and on the folder of a stopped one.

use std::path::Path;

use serde_json::Value;
use tidewire_tests::server::{Server, command};

use crate::dead_letters::fixture::wait_until;

const POST: &str = r#"{"event_id":"x-1","event_type":"post.created","account_id":"acme",
    "data":{"post_id":"p1","author_id":"ann","text":"hello","mentions":["bob"]}}"#;

/// The code and the output of the command on a data folder.
pub(crate) fn explain(args: &[&str]) -> (Option<i32>, String) {
    let mut command = command();
    let output = command.arg("explain").args(args).output().expect("the binary starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

/// Whether each of these lines is followed by the next one further below.
pub(crate) fn has_in_order(printed: &str, parts: &[&str]) -> bool {
    let mut rest = printed;
    parts.iter().all(|part| {
        let found = rest.split_once(part);
        found.map(|(_, after)| rest = after).is_some()
    })
}

/// From the post over the notification to the unread count.
const WAY: &[&str] = &[
    "post.created x-1 of acme/ann, accepted [task ",
    "operator delivery",
    "to channel posts:ann in tw.out.stream",
    "copied to key bob for notify by lane facts",
    "copy for key bob and notify",
    "operator notify",
    "emitted notification.created op/notify/",
    "operator unread",
    "change marked, to be sent as an update",
    "update of unread sent",
    "to channel notifications:bob in tw.out.stream",
];

#[test]
fn a_post_is_explained_up_to_the_unread_count_of_the_mentioned_user() {
    let mut server = Server::start(&[]);
    let data = server.data_dir();
    let data = data.to_str().expect("UTF-8").to_owned();
    let url = format!("http://{}", server.addr());
    let (code, printed) = explain(&["x-1", "--url", &url]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("nothing is known of the event x-1"), "{printed}");
    let posted = server.http().post("/v1/events", "application/json", POST.as_bytes());
    assert!((200..300).contains(&posted.expect("an answer").status));
    wait_until("the update is sent", || {
        explain(&["x-1", "--url", &url]).1.contains("update of unread sent")
    });
    let (code, running) = explain(&["x-1", "--url", &url, "--account", "acme"]);
    assert_eq!(code, Some(0), "{running}");
    check_parts(&running);
    let (code, other) = explain(&["x-1", "--url", &url, "--account", "other"]);
    assert_eq!(code, Some(1), "{other}");
    server.stop();

    let (code, stopped) = explain(&["x-1", "--data-dir", &data]);
    assert_eq!((code, &stopped), (Some(0), &running));
    let (code, json) = explain(&["x-1", "--data-dir", &data, "--json"]);
    assert_eq!(code, Some(0), "{json}");
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["events"][0]["input"].as_str().map(|at| &at[..6]), Some("tw.in/"));
    let id = running.split_once("emitted notification.created ").expect("checked").1;
    let id = id.split(' ').next().expect("an id");
    let (code, notification) = explain(&[id, "--data-dir", &data]);
    assert_eq!(code, Some(0), "{notification}");
    assert!(notification.starts_with("caused by notify in task "), "{notification}");
    assert!(notification.contains("called with post.created x-1 of key ann"), "{notification}");
    check_new_index(&data, &stopped);
}

fn check_parts(printed: &str) {
    for part in WAY {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    let way = [WAY[0], WAY[3], WAY[4], WAY[5], WAY[6], WAY[7], WAY[9]];
    assert!(has_in_order(printed, &way), "{printed}");
}

/// An index in another folder, one that begins later, and one that was removed.
fn check_new_index(data: &str, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let index = folder.path().join("index");
    let index = index.to_str().expect("UTF-8");
    let at = ["x-1", "--data-dir", data, "--index", index];
    let late = explain(&[&at[..], &["--since", "2100-01-01T00:00:00Z"]].concat());
    assert_eq!(late.0, Some(1), "{}", late.1);
    assert!(late.1.contains("The index begins at 2100-01-01T00:00:00"), "{}", late.1);
    let kept = explain(&at);
    assert_eq!(kept.0, Some(1), "a later call goes on with it: {}", kept.1);
    let early = explain(&[&at[..], &["--since", "2020-01-01T00:00:00Z"]].concat());
    assert_eq!((early.0, &early.1[..]), (Some(0), expected));
    std::fs::remove_dir_all(Path::new(data).join("explain")).expect("it can be removed");
    let again = explain(&["x-1", "--data-dir", data]);
    assert_eq!((again.0, &again.1[..]), (Some(0), expected));
}

#[test]
fn nothing_is_known_of_events_while_the_audit_is_off() {
    let variables = [("TIDEWIRE_DERIVE_AUDIT", "off")];
    let mut server = Server::start_as("dev", &[], &variables);
    let posted = server.http().post("/v1/events", "application/json", POST.as_bytes());
    assert!((200..300).contains(&posted.expect("an answer").status));
    let outputs = || server.metric("tidewire_derive_outputs_total").unwrap_or_default();
    wait_until("it is processed", || outputs() >= 3.0);
    let (code, printed) = explain(&["x-1", "--url", &format!("http://{}", server.addr())]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("derive.audit = off"), "{printed}");
    server.stop();
}
