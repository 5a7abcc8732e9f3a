//! Prints the tree of an event for people, a line per node, indented below its cause.
//!
//! Ids and keys are of unknown origin, so control characters are printed as escapes: a terminal
//! would execute them.

use serde_json::Value;

use crate::process_exit::ProcessExit;
use crate::terminal;

/// The whole answer.
pub(super) fn tree(answer: &Value) -> Result<(), ProcessExit> {
    for line in lines(answer) {
        terminal::print_line(&line)?;
    }
    let unreadable = answer["index"]["unreadable"].as_u64().unwrap_or_default();
    if unreadable > 0 {
        terminal::print_notice(&format!(
            "{unreadable} records of out.audit can't be read by this build; run the command of \
             the build that wrote them"
        ));
    }
    Ok(())
}

fn lines(answer: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for cause in list(&answer["causes"]) {
        lines.push(format!("caused by {}", cause_line(cause)));
    }
    for event in list(&answer["events"]) {
        add(event, 0, &mut lines);
    }
    if answer["truncated"] == true {
        lines.push("more followed, which is not shown; explain one of the events above".into());
    }
    lines
}

fn add(node: &Value, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    lines.push(format!("{indent}{}", line(node)));
    if let Some(letter) = text(node, "dead_letter") {
        lines.push(format!("{indent}  dead letter {letter}"));
        lines.push(format!("{indent}  requeue it: tidewire dead-letters requeue '{letter}'"));
    }
    for effect in list(&node["effects"]) {
        add(effect, depth + 1, lines);
    }
}

fn cause_line(cause: &Value) -> String {
    let of = |name| text(cause, name).unwrap_or_default();
    let with = match text(cause, "id") {
        Some(id) => format!("{} {id} of key {}", of("type"), of("key")),
        None => format!("its {}", of("called_with")),
    };
    format!("{} in task {}, called with {with}", of("operator"), cause["task"])
}

/// The line of a node.
fn line(node: &Value) -> String {
    let of = |name| text(node, name).unwrap_or_default();
    match node["kind"].as_str().unwrap_or_default() {
        "record" | "copy" | "requeued" => record(node),
        "timer" => format!("timer of {} fired{}", of("operator"), place(node)),
        "update" => format!("update of {} sent{}", of("operator"), place(node)),
        "end_of_life" => format!("the life of an entry ended{}", place(node)),
        "call" => format!("operator {}", of("operator")),
        "emitted" => {
            format!("emitted {} {} of {}/{}", of("type"), of("id"), of("account"), of("key"))
        }
        "to_operators" => "to operators of its key, in the same step".to_owned(),
        "to_key" => format!("to the task of its key by lane {}{}", of("lane"), waiting(node)),
        "copied" => {
            let (key, operators) = (of("key"), names(&node["operators"]));
            format!("copied to key {key} for {operators} by lane {}{}", of("lane"), waiting(node))
        }
        "further_copies" => {
            let operators = names(&node["operators"]);
            format!("further copies for {operators} in another transaction{}", waiting(node))
        }
        "channel" => format!("to channel {} in {}", of("channel"), of("topic")),
        "state" => format!("to state {} {} in {}", of("channel"), of("state_key"), of("topic")),
        "state_removed" => {
            format!("removed from state {} {} in {}", of("channel"), of("state_key"), of("topic"))
        }
        "timer_set" => format!("timer set for {}{}", of("due"), waiting(node)),
        "update_marked" => format!("change marked, to be sent as an update{}", waiting(node)),
        "amended" => format!("field {} set before delivery", of("field")),
        "dropped" => format!("dropped by rule: {}", of("reason")),
        "failed" => format!("operator {} failed: {}", of("operator"), of("why")),
        "dead_letter" => format!("not processed, {}: {}", of("reason"), of("why")),
        "omitted" => format!("{} more effects, which the audit does not list", node["items"]),
        other => other.to_owned(),
    }
}

fn record(node: &Value) -> String {
    let of = |name| text(node, name).unwrap_or_default();
    let mut line = match text(node, "id") {
        Some(id) => format!("{} {id} of {}/{}", of("type"), of("account"), of("key")),
        None => "a record".to_owned(),
    };
    let operators = names(&node["for_operators"]);
    match node["kind"].as_str() {
        Some("copy") => line += &format!(", copy for key {} and {operators}", of("for_key")),
        Some("requeued") => line += &format!(", requeued for {operators}"),
        _ => line += &format!(", {}", of("outcome").replace('_', " ")),
    }
    if let Some(rules) = node["rules"].as_array() {
        let rules: Vec<String> = rules.iter().map(Value::to_string).collect();
        line += &format!(", rules {}", rules.join(" "));
    }
    line += &place(node);
    line + &text(node, "input").map(|input| format!(", from {input}")).unwrap_or_default()
}

/// Where and when it was processed.
fn place(node: &Value) -> String {
    let of = |name| text(node, name).unwrap_or_default();
    let position = text(node, "position").map(|at| format!(" at {at}")).unwrap_or_default();
    format!(" [task {}{position}, {}, processed {}]", node["task"], of("time"), of("written"))
}

/// What nothing is known of yet.
fn waiting(node: &Value) -> &'static str {
    match list(&node["effects"]) {
        [] => {
            " (what followed is not in the audit: it is still to come, no longer kept, or shown \
               elsewhere)"
        }
        _ => "",
    }
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn names(of: &Value) -> String {
    list(of).iter().filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join(", ")
}

fn text(node: &Value, name: &str) -> Option<String> {
    node[name].as_str().map(plain)
}

fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_indented_and_a_failure_has_its_command() {
        let answer = json!({
            "causes": [{
                "operator": "posts", "called_with": "event", "id": "e-0", "type": "post.created",
                "key": "p", "task": 3,
            }],
            "events": [{
                "kind": "record", "id": "e-1\n", "type": "post.liked", "account": "acc",
                "key": "p1", "task": 2, "position": "tw.lane.normal/2/7", "outcome": "accepted",
                "time": "T1", "written": "T2", "input": "tw.in/0/5",
                "effects": [
                    { "kind": "call", "operator": "notify", "effects": [
                        { "kind": "emitted", "id": "op/notify/00", "type": "n", "account": "acc",
                          "key": "bob", "effects": [{ "kind": "to_key", "lane": "facts" }] },
                    ] },
                    { "kind": "failed", "operator": "unread", "why": "broken",
                      "dead_letter": "tw.lane.normal/2/7/unread" },
                ],
            }],
        });
        let missing = "(what followed is not in the audit: it is still to come, no longer kept, \
                       or shown elsewhere)";
        let expected = [
            "caused by posts in task 3, called with post.created e-0 of key p",
            "post.liked e-1\\n of acc/p1, accepted [task 2 at tw.lane.normal/2/7, T1, processed \
             T2], from tw.in/0/5",
            "  operator notify",
            "    emitted n op/notify/00 of acc/bob",
            &format!("      to the task of its key by lane facts {missing}"),
            "  operator unread failed: broken",
            "    dead letter tw.lane.normal/2/7/unread",
            "    requeue it: tidewire dead-letters requeue 'tw.lane.normal/2/7/unread'",
        ];
        assert_eq!(lines(&answer), expected);
    }
}
