//! Every HTTP endpoint with its method, who it is for, and the errors it answers with.
//!
//! The list is made by matches over the enums that the server's routes come from, so an endpoint
//! can't be added without an entry here. The files of the web page are no interface and are left
//! out.

use tidewire_connectors::socket::http::admin::Effect;
use tidewire_connectors::socket::http::response::HttpErrorCode;
use tidewire_connectors::socket::http::routes::Route;
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::document_info::{ASYNCAPI_PATH, OPENAPI_PATH};
use crate::verbs::dead_letters::{Action, effect_of, path_of};
use crate::verbs::explain::EXPLAIN_PATH;
use crate::verbs::resume::RESUME_PATH;

/// Which part of the server handles an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointKind {
    Server(Route),
    DeadLetters(Action),
    Explain,
    Resume,
    OpenApi,
    AsyncApi,
}

/// Who an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Applications: producers and subscribers.
    Clients,
    /// People and machines that run the server.
    Administrators,
    /// The same, and only from the machine the server runs on.
    LocalAdministrators,
}

impl Audience {
    /// Its name in the documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Administrators => "administrators",
            Self::LocalAdministrators => "local administrators",
        }
    }
}

/// An HTTP endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) kind: EndpointKind,
    /// Its path.
    pub path: &'static str,
    /// `get` or `post`.
    pub method: &'static str,
    /// Its name for generators of clients.
    pub operation_id: &'static str,
    /// Who it is for.
    pub audience: Audience,
    /// What it does, in one clause.
    pub summary: &'static str,
    /// The errors that are its own; [`COMMON_ERRORS`] come on top.
    pub errors: Vec<HttpErrorCode>,
}

/// Errors that any request may get: a foreign `Host` or `Origin`, and a server that has
/// reached a limit of connections.
pub const COMMON_ERRORS: [HttpErrorCode; 4] = [
    HttpErrorCode::Shared(ErrorCode::InvalidMessage),
    HttpErrorCode::Shared(ErrorCode::Forbidden),
    HttpErrorCode::Shared(ErrorCode::RateLimited),
    HttpErrorCode::Shared(ErrorCode::Overloaded),
];

/// Every endpoint, those of clients first.
pub fn all() -> Vec<Endpoint> {
    let server = Route::ALL.into_iter().map(EndpointKind::Server);
    let documents = [EndpointKind::OpenApi, EndpointKind::AsyncApi];
    let admin = Action::ALL.into_iter().map(EndpointKind::DeadLetters);
    let admin = admin.chain([EndpointKind::Explain, EndpointKind::Resume]);
    let mut all: Vec<Endpoint> = server.chain(documents).chain(admin).map(endpoint).collect();
    all.sort_by_key(|endpoint| endpoint.audience as u8);
    all
}

fn endpoint(kind: EndpointKind) -> Endpoint {
    match kind {
        EndpointKind::Server(route) => of_server(route),
        EndpointKind::DeadLetters(action) => of_dead_letters(action),
        EndpointKind::Explain => Endpoint {
            kind,
            path: EXPLAIN_PATH,
            method: method(Effect::ReadOnly),
            operation_id: "explain",
            audience: Audience::LocalAdministrators,
            summary: "What an event has caused, on the embedded log",
            errors: vec![
                HttpErrorCode::InvalidQuery,
                HttpErrorCode::Conflict,
                ErrorCode::Internal.into(),
            ],
        },
        EndpointKind::Resume => Endpoint {
            kind,
            path: RESUME_PATH,
            method: method(Effect::Mutating),
            operation_id: "resume",
            audience: Audience::LocalAdministrators,
            summary: "Resume ADMIT after it stopped at the poison limit",
            errors: Vec::new(),
        },
        EndpointKind::OpenApi => document(kind, OPENAPI_PATH),
        EndpointKind::AsyncApi => document(kind, ASYNCAPI_PATH),
    }
}

fn document(kind: EndpointKind, path: &'static str) -> Endpoint {
    let (operation_id, summary) = match kind {
        EndpointKind::OpenApi => {
            ("openApiDocument", "The HTTP interface as an OpenAPI 3.1 document")
        }
        _ => ("asyncApiDocument", "The WebSocket and SSE protocol as an AsyncAPI 3 document"),
    };
    let (audience, errors) = (Audience::Clients, Vec::new());
    Endpoint { kind, path, method: "get", operation_id, audience, summary, errors }
}

fn of_server(route: Route) -> Endpoint {
    let (operation_id, audience, summary) = match route {
        Route::WebSocket => {
            ("openWebSocket", Audience::Clients, "Subscribe to channels over a WebSocket")
        }
        Route::Sse => {
            ("openEventStream", Audience::Clients, "Subscribe to channels over server-sent events")
        }
        Route::ChannelState => {
            ("channelState", Audience::Clients, "The state of a channel: the newest value per key")
        }
        Route::Events => ("publishEvents", Audience::Clients, "Publish one event or many"),
        Route::Stats => {
            ("stats", Audience::Administrators, "Connections, deliveries, topics, restores")
        }
        Route::Healthz => ("liveness", Audience::Administrators, "Whether the process runs"),
        Route::Readyz => {
            ("readiness", Audience::Administrators, "Whether the process can do its work")
        }
        Route::Metrics => {
            ("metrics", Audience::Administrators, "Metrics in the text format of Prometheus")
        }
    };
    Endpoint {
        kind: EndpointKind::Server(route),
        path: route.path(),
        method: if route == Route::Events { "post" } else { "get" },
        operation_id,
        audience,
        summary,
        errors: errors_of(route),
    }
}

fn errors_of(route: Route) -> Vec<HttpErrorCode> {
    let shared = |codes: &[ErrorCode]| codes.iter().map(|code| (*code).into()).collect();
    match route {
        Route::WebSocket => shared(&[ErrorCode::InvalidMessage]),
        Route::Sse => shared(&[
            ErrorCode::InvalidMessage,
            ErrorCode::InvalidChannel,
            ErrorCode::InvalidPosition,
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
        ]),
        Route::ChannelState => shared(&[
            ErrorCode::InvalidMessage,
            ErrorCode::InvalidChannel,
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
            ErrorCode::Overloaded,
        ]),
        Route::Events => vec![
            ErrorCode::InvalidMessage.into(),
            ErrorCode::InvalidJson.into(),
            HttpErrorCode::Timeout,
            HttpErrorCode::TooLarge,
            HttpErrorCode::Unsupported,
            ErrorCode::Overloaded.into(),
            ErrorCode::Internal.into(),
            HttpErrorCode::NotReady,
        ],
        Route::Stats => shared(&[ErrorCode::Overloaded]),
        Route::Readyz => vec![HttpErrorCode::NotReady],
        Route::Healthz | Route::Metrics => Vec::new(),
    }
}

fn of_dead_letters(action: Action) -> Endpoint {
    let (operation_id, summary) = match action {
        Action::List => ("listDeadLetters", "List dead letters"),
        Action::Show => ("showDeadLetter", "Show one dead letter with its bytes"),
        Action::Requeue => ("requeueDeadLetters", "Write dead letters back to the input"),
        Action::Drop => ("dropDeadLetters", "Mark dead letters as given up"),
    };
    let mut errors = vec![HttpErrorCode::InvalidQuery, ErrorCode::Internal.into()];
    if effect_of(action) == Effect::Mutating {
        errors.push(HttpErrorCode::Conflict);
    }
    Endpoint {
        kind: EndpointKind::DeadLetters(action),
        path: path_of(action),
        method: method(effect_of(action)),
        operation_id,
        audience: Audience::LocalAdministrators,
        summary,
        errors,
    }
}

fn method(effect: Effect) -> &'static str {
    match effect {
        Effect::ReadOnly => "get",
        Effect::Mutating => "post",
    }
}
