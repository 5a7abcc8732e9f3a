//! Builds the OpenAPI 3.1 document: every HTTP endpoint, its parameters, bodies and errors.
//!
//! Endpoints and errors come from `endpoints.rs`; the streams themselves are in the AsyncAPI
//! document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidewire_connectors::socket::http::response::HttpErrorCode;
use tidewire_connectors::socket::http::routes::Route;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::envelope::Reason;

use super::bodies;
use super::document_info::{ASYNCAPI_PATH, info};
use super::endpoints::{Audience, COMMON_ERRORS, Endpoint, EndpointKind, all};
use super::parameters;
use super::property::{Presence, Property, constant, count, one_of, reference, text};
use super::values;
use crate::verbs::dead_letters::{Action, LIST_MAX};

/// The document.
pub(super) fn document(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for endpoint in all() {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        item[endpoint.method] = operation(&endpoint);
    }
    let mut schemas = bodies::schemas();
    schemas.extend(values::schemas(catalogue));
    json!({
        "openapi": "3.1.0",
        "info": info(
            "HTTP interface of Tidewire",
            &format!(
                "Publishing, subscribing and operating over HTTP. What a WebSocket or an SSE \
                 stream carries once it is open is described by the AsyncAPI document at \
                 `{ASYNCAPI_PATH}`."
            ),
        ),
        "servers": [{ "url": "/", "description": "The server that sent this document" }],
        "tags": [
            { "name": Audience::Clients.as_str(), "description": "For producers and subscribers" },
            { "name": Audience::Administrators.as_str(), "description": "For monitoring" },
            {
                "name": Audience::LocalAdministrators.as_str(),
                "description": "Answered to connections from the server's own machine only",
            },
        ],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "tags": [endpoint.audience.as_str()],
        "responses": responses(endpoint),
    });
    let parameters = parameters_of(endpoint.kind);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if endpoint.kind == EndpointKind::Server(Route::Events) {
        operation["requestBody"] = request_body();
    }
    operation
}

fn responses(endpoint: &Endpoint) -> Map<String, Value> {
    let mut responses: Map<String, Value> =
        successes(endpoint.kind).into_iter().map(|(s, r)| (s.to_owned(), r)).collect();
    let mut by_status: BTreeMap<u16, Vec<HttpErrorCode>> = BTreeMap::new();
    for code in endpoint.errors.iter().copied().chain(COMMON_ERRORS) {
        let codes = by_status.entry(code.status().as_u16()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    for (status, codes) in by_status {
        responses.insert(status.to_string(), error(&codes));
    }
    responses
}

/// An answer with one of these codes, which share a status.
fn error(codes: &[HttpErrorCode]) -> Value {
    let lines: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
    let mut response = answer(&lines.join("; "), "application/json", bodies::error_body(codes));
    if codes.iter().any(|code| code.sends_retry_after()) {
        let header = json!({ "description": "Seconds to wait", "schema": count() });
        response["headers"] = json!({ "Retry-After": header });
    }
    response
}

fn answer(description: &str, media: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media: { "schema": schema } } })
}

fn successes(kind: EndpointKind) -> Vec<(&'static str, Value)> {
    let json = |description, name| answer(description, "application/json", reference(name));
    let ok = match kind {
        EndpointKind::Server(route) => return successes_of_server(route),
        EndpointKind::DeadLetters(Action::List) => json("The newest that match", "DeadLetterList"),
        EndpointKind::DeadLetters(Action::Show) => json("The dead letter", "DeadLetterDetails"),
        EndpointKind::DeadLetters(_) => json("What was done, or would be", "Resolved"),
        EndpointKind::Explain => json("What it has caused, or how far the index is", "Explanation"),
        EndpointKind::Resume => json("What was resumed", "Resumed"),
        EndpointKind::OpenApi | EndpointKind::AsyncApi => {
            answer("The document", "application/json", json!({ "type": "object" }))
        }
    };
    vec![("200", ok)]
}

fn successes_of_server(route: Route) -> Vec<(&'static str, Value)> {
    let json = |description, name| answer(description, "application/json", reference(name));
    match route {
        Route::Events => vec![
            ("202", json("Accepted, at least one of them; or an empty array", "PublishAnswer")),
            ("422", json("None was accepted; all are dead letters now", "PublishAnswer")),
        ],
        Route::WebSocket => {
            let refused = "The request is no WebSocket handshake of version 13";
            let body = bodies::error_body(&[ErrorCode::InvalidMessage.into()]);
            vec![
                ("101", json!({ "description": "The WebSocket is open" })),
                ("426", answer(refused, "application/json", body)),
            ]
        }
        Route::Sse => vec![("200", answer("The stream", "text/event-stream", text()))],
        Route::ChannelState => vec![("200", json("The state of the channel", "ChannelState"))],
        Route::Stats => vec![("200", json("What the process does now", "Stats"))],
        Route::Healthz => vec![("200", answer("It runs", "text/plain", constant("ok\n")))],
        Route::Readyz => vec![("200", answer("It can", "text/plain", constant("ready\n")))],
        Route::Metrics => vec![("200", answer("The metrics", "text/plain", text()))],
    }
}

fn parameters_of(kind: EndpointKind) -> Vec<Value> {
    match kind {
        EndpointKind::Server(Route::WebSocket) => in_query(&parameters::of_websocket()),
        EndpointKind::Server(Route::Sse) => of_stream(),
        EndpointKind::Server(Route::ChannelState) => {
            let mut all = in_query(&parameters::of_state());
            all.push(json!({
                "name": "channel",
                "in": "path",
                "required": true,
                "schema": reference("ChannelName"),
                "description": "the channel; `%` of its name is escaped as `%25`",
            }));
            all
        }
        EndpointKind::DeadLetters(Action::Show) => {
            let mut id = parameter("id", text(), "the id, such as `tw.in/3/7`");
            id["required"] = json!(true);
            vec![id]
        }
        EndpointKind::DeadLetters(action) => of_dead_letters(action),
        EndpointKind::Explain => {
            let mut id = parameter("id", text(), "the event's id");
            id["required"] = json!(true);
            let time = json!({ "type": ["string", "integer"] });
            let since = "where a new index begins: RFC 3339 or milliseconds since 1970";
            vec![
                id,
                parameter("account", text(), "only the event of this account"),
                parameter("since", time, since),
            ]
        }
        _ => Vec::new(),
    }
}

fn of_dead_letters(action: Action) -> Vec<Value> {
    let many = |schema: Value| json!({ "type": "array", "items": schema });
    let time = || json!({ "type": ["string", "integer"] });
    let switch = || json!({ "type": "boolean" });
    let reasons = one_of(Reason::ALL.map(Reason::as_str));
    let mut all = vec![
        parameter("id", many(text()), "only these; may be given more than once"),
        parameter("reason", many(reasons), "only these reasons"),
        parameter("source", many(text()), "only from these topics, or `http`"),
        parameter("operator", many(text()), "only what these operators failed on"),
        parameter("since", time(), "only from this time on: RFC 3339 or milliseconds since 1970"),
        parameter("until", time(), "only before this time"),
    ];
    let mut limit = json!({ "type": "integer", "minimum": 1 });
    if action == Action::List {
        limit["maximum"] = json!(LIST_MAX);
        all.push(parameter("limit", limit, "at most so many, the newest"));
        all.push(parameter("all", switch(), "resolved ones too"));
    } else {
        all.push(parameter(
            "limit",
            limit,
            "at most so many, the oldest; one call does at most 5000",
        ));
        all.push(parameter("all_open", switch(), "every open one, in place of a filter"));
        all.push(parameter("dry_run", switch(), "only say what would be done"));
        all.push(parameter("because", text(), "a note that is kept with each"));
    }
    all
}

fn of_stream() -> Vec<Value> {
    let mut all = in_query(&parameters::of_stream());
    for parameter in all.iter_mut().filter(|parameter| parameter["schema"]["type"] == "array") {
        parameter["style"] = json!("form");
        parameter["explode"] = json!(false);
    }
    all.push(json!({
        "name": "Last-Event-ID",
        "in": "header",
        "schema": reference("StartAt"),
        "description": "the last `id:` of a former stream; takes precedence over the query",
    }));
    all
}

fn in_query(properties: &[Property]) -> Vec<Value> {
    let one = |property: &Property| {
        let mut one = parameter(property.name, property.schema.clone(), property.meaning);
        one["required"] = json!(property.presence == Presence::Always);
        one
    };
    properties.iter().map(one).collect()
}

/// A query parameter.
fn parameter(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": description })
}

fn request_body() -> Value {
    let event = reference("EventEnvelope");
    let events =
        json!({ "oneOf": [event, { "type": "array", "items": reference("EventEnvelope") }] });
    let cloud_event = json!({
        "type": "object",
        "description": "CloudEvents 1.0; other attributes and `data` are read too",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": text(),
            "source": text(),
            "type": text(),
        },
    });
    json!({
        "required": true,
        "description": "Any of the forms; `Content-Encoding` may be `gzip`, `deflate` or `zstd`. A \
                        CloudEvent in binary mode has its attributes in `ce-` headers; beside the \
                        other content types of CloudEvents such headers have no effect. An array \
                        may be empty. A header that cannot be read, or that has two different \
                        values, is refused with 400; an empty one is absent.",
        "content": {
            "application/json": { "schema": events },
            "application/x-ndjson": { "schema": text() },
            "application/cloudevents+json": { "schema": cloud_event },
            "application/cloudevents-batch+json": {
                "schema": { "type": "array", "items": cloud_event },
            },
            "application/avro": { "schema": {} },
        },
    })
}
