//! Tests of routing plans: how they are compiled, what follows from emissions, and evaluation.
//!
//! `check_load` lists the errors of a small catalogue. The property test compares evaluation with a
//! naive one that reads the notation and the JSON again for every event.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::Value;

use super::super::*;
use super::event;
use crate::fields::Fields;

/// A catalogue with these operators, and a type for each entry.
fn load(operators: &str, types: &[(&str, &str)]) -> Result<Catalogue, CatalogueErrors> {
    let channels = "[kinds.account]\nid = \"account\"\nclasses = [\"stream\"]\n\
                    who = [\"anyone\"]\ncarries = \"all\"\n";
    let mut text = "title = \"Types\"\n[defaults]\nkey = [\"account_id\"]\n".to_owned();
    text.push_str("[types.\"any.event\"]\ndata = \"\"\nchannels = [\"account\"]\n");
    for (name, entry) in types {
        let _ = writeln!(text, "[types.\"{name}\"]\n{entry}");
    }
    let operators = format!("[operators]\n{operators}");
    Catalogue::load(&[("channels", channels), ("operators", &operators), ("types", &text)])
}

/// The errors of a type with these fields and moves; `o1` to `o3` run in DERIVE.
fn check_moves(data: &str, moves: &str, expected: &str) {
    let operators = "o1 = { stage = \"derive\" }\no2 = { stage = \"gateway\" }\n\
                     o3 = { stage = \"derive\", all = true }\n";
    let entry = format!("data = \"{data}\"\nmoves = [{moves}]");
    match load(operators, &[("a.type", &entry)]) {
        Ok(_) => assert_eq!(expected, "", "{moves} was expected to fail"),
        Err(CatalogueErrors(errors)) => {
            assert!(!expected.is_empty(), "{moves}: {errors:?}");
            let wanted = format!("types.toml, a.type: {expected}");
            assert!(errors.contains(&wanted), "{wanted:?} is not in {errors:#?}");
        }
    }
}

#[test]
fn an_invalid_move_is_an_error_that_says_what_is_valid() {
    check_moves("x_id, l:s[]", r#""o1 by x_id", "o1 by l[] if x_id", "o1 by l[]|account_id""#, "");
    check_moves("x_id", r#""o1 by y_id""#, "`o1 by y_id`: `y_id` is not a field of this type");
    check_moves(
        "n:i",
        r#""o1 by n""#,
        "`o1 by n`: `n` is no id, string or list, so it can't be a key",
    );
    check_moves(
        "x_id",
        r#""o1 by x_id[]""#,
        "`o1 by x_id[]`: `x_id` is not a list; write it without `[]`",
    );
    check_moves("l:s[]", r#""o1 by l""#, "`o1 by l`: `l` is a list; write `l[]`");
    check_moves("l:o[]", r#""o1 by l[]""#, "`o1 by l[]`: `l` is a list of objects, not of ids");
    check_moves("", r#""o1 by account_id[]""#, "`o1 by account_id[]`: `[]` is for lists only");
    check_moves("p:o", r#""o1 by p.id""#, "`o1 by p.id`: a key can't be `p.id`; use a field");
    check_moves("", r#""o9""#, "unknown operator `o9`");
    check_moves("", r#""o2""#, "operator `o2` runs in gateway, `moves` is for derive");
    check_moves("", r#""o3""#, "operator `o3` processes every event; remove it from `moves`");
    check_moves("x_id", r#""o1 by""#, "`o1 by` names no field after `by`");
    check_moves(
        "x_id",
        r#""o1 by x_id of y""#,
        "`of y` is neither `if` nor `unless` and a condition",
    );
    check_moves("x_id", r#""o1 if y_id""#, "the condition's `y_id` is not a field");
    let twice = "is listed twice with the same key and condition";
    check_moves("x_id", r#""o1 by x_id", "o1 by x_id""#, &format!("`o1 by x_id`: `o1` {twice}"));
    // The key of the type is the account.
    check_moves("", r#""o1", "o1 by account_id""#, &format!("`o1 by account_id`: `o1` {twice}"));
}

/// Operators `o1`, `o2`, … of which each emits the type `t.<n>`, which moves what `moves` says.
fn chain(moves: &[&str]) -> Result<Catalogue, String> {
    let mut operators = String::new();
    let mut types =
        vec![("t.start".to_owned(), "data = \"x_id\"\nmoves = [\"o1 by x_id\"]".to_owned())];
    for (at, line) in moves.iter().enumerate() {
        let n = at + 1;
        let _ = writeln!(operators, "o{n} = {{ stage = \"derive\", emits = [\"t.e{n}\"] }}");
        let channel = "channels = [\"account\"]";
        types.push((format!("t.e{n}"), format!("data = \"x_id\"\n{channel}\nmoves = [{line}]")));
    }
    let types: Vec<(&str, &str)> =
        types.iter().map(|(name, entry)| (&name[..], &entry[..])).collect();
    load(&operators, &types).map_err(|errors| errors.0.join("\n"))
}

#[test]
fn chains_of_at_most_four_steps_are_legal() {
    // A copy for another key, then three emissions: four steps.
    assert!(chain(&["\"o2\"", "\"o3\"", ""]).is_ok());
    // Emissions for other keys cost no step more.
    assert!(chain(&["\"o2 by x_id\"", "\"o3 by x_id\"", ""]).is_ok());
    let errors = chain(&["\"o2\"", "\"o3\"", "\"o4\"", ""]).expect_err("five steps");
    let text = "types.toml, t.start: more than 4 copies and emissions follow from it: t.start → o1 → \
                t.e1 → o2 → t.e2 → o3 → t.e3 → o4 → t.e4";
    assert_eq!(errors, text);
}

#[test]
fn operators_that_follow_from_each_other_are_an_error_found_once() {
    let errors = chain(&["\"o2\"", "\"o3 by x_id\"", "\"o1 if x_id\""]).expect_err("a cycle");
    let text = "these operators follow from each other without end: o1 → o2 → o3 → o1";
    assert_eq!(errors, format!("operators.toml: {text}"));
    // An operator does not run for what it emitted.
    assert!(chain(&["\"o1\""]).is_ok());
}

#[test]
fn emissions_that_lead_nowhere_are_errors() {
    let check = |operators: &str, entry: &str, expected: &str| {
        let errors = load(operators, &[("a.type", entry)]).expect_err("wrong").0;
        assert_eq!(errors, [expected]);
    };
    let emits = "o1 = { stage = \"derive\", emits = [\"a.type\"] }";
    check(
        emits,
        "data = \"\"",
        "operators.toml, o1: it emits `a.type`, which goes to no channel and moves no operator",
    );
    check(
        "o1 = { stage = \"derive\", emits = [\"a.tipe\"] }",
        "data = \"\"",
        "operators.toml, o1: `emits` names `a.tipe`, which is not a type",
    );
    check(
        "o1 = { stage = \"derive\", emits = [\"a.type\", \"a.type\"] }",
        "data = \"\"\nchannels = [\"account\"]",
        "operators.toml, o1: `a.type` is listed twice in `emits`",
    );
    check(
        "",
        "data = \"\"\nproducers = false",
        "types.toml, a.type: nobody writes it: producers may not, and no operator emits it",
    );
    check(
        "",
        "data = \"\"\ndeliver = \"emitted\"",
        "types.toml, a.type: only emitted events are delivered, but no operator emits it",
    );
}

/// The routes of an event of a type, as `operator` or `operator:key`, and how many were skipped.
fn routes(catalogue: &Catalogue, sent: &crate::event::Event) -> (Vec<String>, usize) {
    let event_type = catalogue.resolve(&sent.event_type).expect("a type");
    let view = sent.view();
    let fields = Fields::of(view.data).expect("an object");
    let mut routes = Routes::default();
    event_type.routes(&view, &fields, &mut routes);
    let text = |route: OperatorRun<'_>| match route.other_key {
        Some(key) => format!("{}:{key}", route.operator),
        None => route.operator.to_owned(),
    };
    (routes.iter(event_type).map(text).collect(), routes.skipped())
}

fn check_routes(event_type: &str, key: &str, data: &str, expected: &[&str]) {
    let sent = crate::event::Event { key: key.into(), ..event(event_type, data) };
    assert_eq!(routes(Catalogue::builtin(), &sent).0, expected, "{event_type} {data}");
}

#[test]
fn the_built_in_plans_name_who_is_concerned() {
    let post = r#"{"post_id":7,"author_id":"ali","text":"","mentions":["bob","ali","bob"]}"#;
    check_routes(
        "post.created",
        "ali",
        post,
        &["trends", "posts:7", "notify.resolve:7", "notify:bob", "notify"],
    );
    check_routes(
        "post.created",
        "ali",
        r#"{"post_id":7}"#,
        &["trends", "posts:7", "notify.resolve:7"],
    );
    let like = r#"{"post_id":7,"user_id":"eve"}"#;
    check_routes("post.liked", "7", like, &["engagement", "notify.resolve"]);
    let like = r#"{"post_id":7,"user_id":"eve","author_id":"ali"}"#;
    check_routes("post.liked", "7", like, &["engagement", "notify:ali"]);
    check_routes(
        "user.blocked",
        "a",
        r#"{"user_id":"a","target_id":"b"}"#,
        &["follows", "follows:b"],
    );
    let message = r#"{"conversation_id":"c","assignee_id":null}"#;
    let expected = ["inbox", "sla", "notify:acc", "crisis", "dashboard"];
    check_routes("message.received", "c", message, &expected);
    check_routes("approval.requested", "p", r#"{"approver_ids":[]}"#, &["notify:acc"]);
    check_routes(
        "approval.requested",
        "p",
        r#"{"approver_ids":["x","y"]}"#,
        &["notify:x", "notify:y"],
    );
    check_routes("engagement.reported", "acc", "{}", &[]);
}

#[test]
fn an_operator_does_not_run_for_what_it_emitted() {
    let mut sent = event("conversation.updated", r#"{"conversation_id":"k"}"#);
    assert_eq!(routes(Catalogue::builtin(), &sent).0, ["inbox", "sla", "threads"]);
    sent.source = Some("op/inbox".into());
    assert_eq!(routes(Catalogue::builtin(), &sent).0, ["sla", "threads"]);
}

#[test]
fn a_list_gives_at_most_a_hundred_keys_and_the_rest_is_counted() {
    let names: Vec<String> = (0..LIST_KEYS_MAX + 3).map(|n| format!("\"u{n}\"")).collect();
    let data = format!("{{\"post_id\":1,\"mentions\":[{}]}}", names.join(","));
    let (found, skipped) = routes(Catalogue::builtin(), &event("post.created", &data));
    assert_eq!((found.len(), skipped), (3 + LIST_KEYS_MAX, 3));
    let long = "é".repeat(129);
    let data = format!("{{\"mentions\":[\"\",\"a\\u0000\",\"{long}\",\"ok\"]}}");
    let (found, skipped) = routes(Catalogue::builtin(), &event("post.created", &data));
    assert_eq!((found, skipped), (vec!["trends".to_owned(), "notify:ok".to_owned()], 3));
}

#[test]
fn only_types_with_other_keys_need_copies() {
    let own_only =
        |name: &str| Catalogue::builtin().resolve(name).expect("a type").moves_own_key_only();
    assert!(own_only("notification.created"));
    assert!(own_only("post.unliked"));
    assert!(own_only("system.notification"));
    assert!(!own_only("post.created"));
}

const KEYS: [&str; 7] =
    ["", "by a_id", "by b_id", "by l[]", "by l[]|a_id", "by b_id|account_id", "by a_id|l[]"];
const CONDITIONS: [&str; 5] = ["", "if a_id", "unless b_id", "if kind=x", "unless kind=x*"];

/// One line of `moves`: operator, key, condition.
type MoveText = (usize, &'static str, &'static str);

fn move_texts() -> impl Strategy<Value = Vec<MoveText>> {
    let one = (0usize..3, prop::sample::select(&KEYS[..]), prop::sample::select(&CONDITIONS[..]));
    prop::collection::vec(one, 0..7)
}

fn data_of() -> impl Strategy<Value = Value> {
    let id = || prop::option::of(prop::sample::select(vec!["k", "p", "q", "acc"]));
    let list = prop::option::of(prop::collection::vec(
        prop::sample::select(vec!["k", "p", "", "r"]),
        0..5,
    ));
    (id(), id(), list, prop::option::of(prop::sample::select(vec!["x", "xy", "z"]))).prop_map(
        |(a, b, list, kind)| serde_json::json!({ "a_id": a, "b_id": b, "l": list, "kind": kind }),
    )
}

/// What the plan says, by reading the lines again.
fn naive(lines: &[MoveText], data: &Value, emitter: Option<usize>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let holds = |condition: &str| match condition.split_once(' ') {
        None => true,
        Some((word, test)) => {
            let passes = match test.split_once('=') {
                None => !data[test].is_null(),
                Some((name, value)) => data[name].as_str().is_some_and(|text| {
                    value.strip_suffix('*').map_or(text == value, |start| text.starts_with(start))
                }),
            };
            passes == (word == "if")
        }
    };
    for (operator, key, condition) in lines {
        if emitter == Some(*operator) || !holds(condition) {
            continue;
        }
        let parts = key.strip_prefix("by ").map_or(vec!["$own"], |keys| keys.split('|').collect());
        let keys = parts.into_iter().map(|part| match (part, part.strip_suffix("[]")) {
            ("$own", _) => vec!["k"],
            ("account_id", _) => vec!["acc"],
            (_, Some(list)) => {
                let elements = data[list].as_array().into_iter().flatten();
                elements.filter_map(Value::as_str).filter(|text| !text.is_empty()).collect()
            }
            (name, None) => data[name].as_str().into_iter().collect(),
        });
        for key in keys.into_iter().find(|keys| !keys.is_empty()).unwrap_or_default() {
            let text =
                if key == "k" { format!("o{operator}") } else { format!("o{operator}:{key}") };
            if !out.contains(&text) {
                out.push(text);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn evaluation_gives_what_a_naive_one_gives(
        mut lines in move_texts(),
        data in data_of(),
        emitter in prop::option::of(0usize..3),
    ) {
        let mut seen = Vec::new();
        lines.retain(|line| !seen.contains(line) && { seen.push(*line); true });
        let text = |(operator, key, when): &MoveText| format!("\"o{operator} {key} {when}\"");
        let texts: Vec<String> = lines.iter().map(text).collect();
        let entry = format!("data = \"/ a_id, b_id, l:s[], kind\"\nmoves = [{}]", texts.join(", "));
        let operators: String =
            (0..3).map(|n| format!("o{n} = {{ stage = \"derive\" }}\n")).collect();
        let catalogue = load(&operators, &[("a.type", &entry)]).expect("valid");
        let mut sent = event("a.type", &data.to_string());
        sent.source = emitter.map(|operator| format!("op/o{operator}"));
        prop_assert_eq!(routes(&catalogue, &sent).0, naive(&lines, &data, emitter));
    }
}
