//! Rules about the protocol's reference page: its tables are those of the code.
//!
//! A table is between `<!-- table: NAME -->` and `<!-- end -->`. With `TIDEWIRE_UPDATE` set, the
//! page's tables are written instead of compared.

use serde_json::Value;
use tidewire_app::api::endpoints::{self, Audience};
use tidewire_app::api::limits::{self, ClientLimit};
use tidewire_app::api::property::{Presence, Property, kind_in_words};
use tidewire_app::api::{events, frames, parameters};
use tidewire_connectors::socket::http::response::HttpErrorCode;
use tidewire_engine::fanout::protocol::names::{FrameName, GapReason, OpName};
use tidewire_engine::fanout::protocol::native::{CloseReason, ErrorCode};

use crate::check;
use crate::source::{read, root};

const PAGE: &str = "docs/protocol.md";
const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";

/// A table in Markdown.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let names: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let mut out = line(&names).replace("|  |", "| |");
    out += &format!("|{}\n", "---|".repeat(head.len()));
    out.extend(rows.into_iter().map(|cells| line(&cells)));
    out
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn properties(first: &str, all: &[Property]) -> String {
    let mut rows = Vec::new();
    for property in all {
        rows.push(property_row("", property));
        // A nested object's fields are shown with their paths.
        if let Some(inner) = property.schema["properties"].as_object() {
            let required = property.schema["required"].as_array();
            for (name, schema) in inner {
                let always = required.is_some_and(|all| all.iter().any(|one| one == name));
                rows.push(vec![
                    code(&format!("{}.{name}", property.name)),
                    presence(if always { Presence::Always } else { Presence::Sometimes }),
                    kind_in_words(schema),
                    schema["description"].as_str().unwrap_or_default().to_owned(),
                ]);
            }
        }
    }
    table(&[first, "", "type", "meaning"], rows)
}

fn property_row(path: &str, property: &Property) -> Vec<String> {
    let name = code(&format!("{path}{}", property.name));
    let kind = kind_in_words(&property.schema);
    vec![name, presence(property.presence), kind, property.meaning.to_owned()]
}

fn presence(presence: Presence) -> String {
    frames::presence_in_words(presence).to_owned()
}

fn endpoints_table() -> String {
    let clients = endpoints::all().into_iter().filter(|e| e.audience == Audience::Clients);
    let rows = clients.map(|endpoint| {
        vec![endpoint.method.to_uppercase(), code(endpoint.path), endpoint.summary.to_owned()]
    });
    table(&["method", "path", "what it does"], rows)
}

fn operations_table() -> String {
    let rows = OpName::ALL.into_iter().map(|op| {
        let answers: Vec<String> = op.answers().iter().map(|name| code(name.as_str())).collect();
        vec![code(op.as_str()), op.meaning().to_owned(), answers.join(", ")]
    });
    table(&["`op`", "what it does", "answer"], rows)
}

fn errors_table(codes: impl IntoIterator<Item = HttpErrorCode>) -> String {
    let rows = codes.into_iter().map(|one| {
        let status = one.status().as_u16().to_string();
        vec![code(one.as_str()), status, one.meaning().to_owned(), one.advice().to_owned()]
    });
    table(&["`code`", "HTTP", "meaning", "what to do"], rows)
}

fn closes_table() -> String {
    let rows = CloseReason::ALL.into_iter().map(|reason| {
        let (code, reconnect) = (reason.code().to_string(), reason.reconnect().as_str());
        vec![code, reason.text().to_owned(), reason.meaning().to_owned(), reconnect.to_owned()]
    });
    table(&["code", "reason", "meaning", "reconnect"], rows)
}

fn limits_table(all: Vec<ClientLimit>) -> String {
    let rows = all
        .into_iter()
        .map(|limit| vec![limit.what.to_owned(), limit.amount(), limit.beyond.to_owned()]);
    table(&["limit", "value", "beyond it"], rows)
}

/// The table of this name, generated from the code.
fn of_code(name: &str) -> Option<String> {
    if let Some(name) = name.strip_prefix("fields of ") {
        let request = OpName::parse(name).and_then(frames::client_frame);
        let frame = FrameName::ALL.into_iter().find(|frame| frame.as_str() == name);
        let fields = request.or_else(|| frame.map(frames::server_frame));
        let fields = fields.or_else(|| (name == "a stream's event").then(events::stream_event));
        return fields.map(|fields| properties("field", &fields));
    }
    let two = |name: String, meaning: &str| vec![code(&name), meaning.to_owned()];
    Some(match name {
        "endpoints" => endpoints_table(),
        "parameters of /v1/ws" => properties("parameter", &parameters::of_websocket()),
        "parameters of /v1/sse" => properties("parameter", &parameters::of_stream()),
        "parameters of /v1/channels/{channel}" => properties("parameter", &parameters::of_state()),
        "operations" => operations_table(),
        "frames" => {
            let rows = FrameName::ALL.map(|name| two(name.as_str().to_owned(), name.meaning()));
            table(&["`op`", "what it says"], rows)
        }
        "gaps" => {
            let rows = GapReason::ALL.map(|why| two(why.as_str().to_owned(), why.meaning()));
            table(&["`reason`", "what happened"], rows)
        }
        "errors" => errors_table(ErrorCode::ALL.map(HttpErrorCode::from)),
        "errors of http" => errors_table(HttpErrorCode::HTTP_ONLY),
        "closes" => closes_table(),
        "limits of websockets" => limits_table(limits::of_websockets()),
        "limits of streams" => limits_table(limits::of_streams()),
        "limits of requests" => limits_table(limits::of_requests()),
        _ => return None,
    })
}

/// The page's tables by name and text, and the page with the generated tables in their place.
fn tables(page: &str) -> (Vec<(String, String)>, String) {
    let (mut found, mut out) = (Vec::new(), String::new());
    let mut rest = page;
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let (name, behind) = behind.split_once(" -->\n").expect("a table's name is a line");
        let (text, behind) = behind.split_once(END).expect("a table has its end");
        let right = of_code(name).unwrap_or_else(|| panic!("{PAGE}: no table {name} in the code"));
        out += &format!("{before}{BEGIN}{name} -->\n{right}{END}");
        found.push((name.to_owned(), text.to_owned()));
        rest = behind;
    }
    (found, out + rest)
}

#[test]
fn the_tables_of_the_protocol_page_are_those_of_the_code() {
    let page = read(PAGE).expect("the page is text");
    let (found, right) = tables(&page);
    if std::env::var_os("TIDEWIRE_UPDATE").is_some() {
        std::fs::write(root().join(PAGE), &right).expect("the page can be written");
        return;
    }
    let differ = found.iter().filter(|(name, text)| of_code(name).as_deref() != Some(text));
    check(
        differ
            .map(|(name, _)| {
                format!("{PAGE}: the table {name:?}; run once with TIDEWIRE_UPDATE=1 and read it")
            })
            .collect(),
    );
}

#[test]
fn the_protocol_page_shows_every_table_of_the_code() {
    let page = read(PAGE).expect("the page is text");
    let shown = |name: &str| page.contains(&format!("{BEGIN}{name} -->"));
    let fields = OpName::ALL
        .into_iter()
        .filter(|op| frames::client_frame(*op).is_some())
        .map(OpName::as_str)
        .chain(FrameName::ALL.map(FrameName::as_str))
        .chain(["a stream's event"])
        .map(|name| format!("fields of {name}"));
    let others = [
        "endpoints",
        "parameters of /v1/ws",
        "parameters of /v1/sse",
        "parameters of /v1/channels/{channel}",
        "operations",
        "frames",
        "gaps",
        "errors",
        "errors of http",
        "closes",
        "limits of websockets",
        "limits of streams",
        "limits of requests",
    ];
    let all = others.map(str::to_owned).into_iter().chain(fields);
    check(all.filter(|name| !shown(name)).map(|name| format!("{PAGE}: no table {name}")).collect());
}

#[test]
fn the_example_of_a_welcome_has_the_limits_of_the_code() {
    let page = read(PAGE).expect("the page is text");
    let right = frames::example_of_welcome();
    let line = page.lines().find_map(|line| line.strip_prefix("< {\"op\":\"welcome\""));
    let shown: Value = serde_json::from_str(&format!("{{\"op\":\"welcome\"{}", line.expect("one")))
        .expect("the example is JSON");
    for name in ["limits", "heartbeat_ms"] {
        assert_eq!(shown[name], right[name], "{name}");
    }
}
