//! Admin endpoints: dead letters and resuming ADMIT, for clients on this machine only.
//!
//! They show the content of events and change what happens to them, and this version can't
//! authenticate an administrator. So only loopback clients are answered, whatever address the
//! server listens on. Handlers come from the wiring and may block: they run on blocking threads, at
//! most [`ADMIN_AT_ONCE`] of them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde_json::Value;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::sync::Semaphore;

use super::extensions::ClientAddress;
use super::response::{ErrorResponse, HttpErrorCode, json_response};
use crate::telemetry;

/// Admin requests handled at once: each queries the log, which may be slow.
pub(super) const ADMIN_AT_ONCE: usize = 4;

/// Handles the parameters of a query, where a name may occur more than once. May block.
pub type AdminHandler = dyn Fn(&[(String, String)]) -> Result<Value, ErrorResponse> + Send + Sync;

/// Whether an endpoint changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only reads: `GET`.
    ReadOnly,
    /// It changes something: `POST`.
    Mutating,
}

/// An admin endpoint.
#[derive(Clone)]
pub struct AdminEndpoint {
    /// Its path.
    pub path: &'static str,
    /// Decides its method.
    pub effect: Effect,
    /// Its handler.
    pub run: Arc<AdminHandler>,
}

/// The route of an endpoint.
pub(super) fn route<S: Clone + Send + Sync + 'static>(
    endpoint: &AdminEndpoint,
    permits: &Arc<Semaphore>,
) -> MethodRouter<S> {
    let (run, permits) = (Arc::clone(&endpoint.run), Arc::clone(permits));
    let handler = async move |Extension(from): Extension<ClientAddress>, query: QueryPairs| {
        respond(from, query, run, permits).await
    };
    match endpoint.effect {
        Effect::ReadOnly => get(handler),
        Effect::Mutating => post(handler),
    }
}

/// A result, so that a rejected query gets the JSON error body and not axum's plain text.
type QueryPairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn respond(
    from: ClientAddress,
    query: QueryPairs,
    run: Arc<AdminHandler>,
    permits: Arc<Semaphore>,
) -> Result<Response, ErrorResponse> {
    if !is_local(from) {
        telemetry::connection_refused("not_local");
        let client = from.0.map_or("an unknown address".to_owned(), |address| address.to_string());
        let message = format!(
            "admin endpoints answer only clients on this machine, not {client}; run the command on \
             the host of this process, or with --log kafka://… from any machine"
        );
        return Err(ErrorResponse::new(ErrorCode::Forbidden, message));
    }
    let Query(pairs) = query.map_err(invalid_query)?;
    let Ok(permit) = permits.try_acquire_owned() else {
        let message = format!(
            "{ADMIN_AT_ONCE} admin requests are in progress, which is the limit; repeat it after \
             Retry-After"
        );
        return Err(ErrorResponse::overloaded(message));
    };
    // The handler goes on if the client leaves, and keeps its permit until it ends.
    let handle = move || {
        let result = run(&pairs);
        drop(permit);
        result
    };
    let handled = tokio::task::spawn_blocking(handle).await;
    let answer = handled.map_err(|_| ErrorResponse::stopping())??;
    Ok(json_response(StatusCode::OK, &answer))
}

fn invalid_query(rejection: QueryRejection) -> ErrorResponse {
    ErrorResponse::new(HttpErrorCode::InvalidQuery, rejection.body_text())
}

fn is_local(from: ClientAddress) -> bool {
    from.0.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn only_loopback_clients_are_answered() {
        let local = |text: &str| is_local(ClientAddress(Some(text.parse().expect("an address"))));
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(local(address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.0.9", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"] {
            assert!(!local(address), "{address}");
        }
        assert!(!is_local(ClientAddress(None)));
    }

    #[test]
    fn a_rejected_query_is_answered_with_the_json_of_every_error() {
        let uri = "/v1/dead-letters?limit=many".parse().expect("a URI");
        let rejection = Query::<Vec<(String, u64)>>::try_from_uri(&uri).expect_err("no number");
        let text = rejection.body_text();
        let error = invalid_query(rejection);
        assert_eq!((error.code, &error.message), (HttpErrorCode::InvalidQuery, &text));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
