//! Admin endpoints: dead letters and resuming ADMIT, for clients on this machine only.
//!
//! They show the content of events and change what happens to them, and this version can't
//! authenticate an administrator. So only loopback clients are answered, whatever address the
//! server listens on. Handlers come from the wiring and may block: they run on blocking threads, at
//! most [`ADMIN_AT_ONCE`] of them.

use std::sync::Arc;

use axum::extract::{Extension, RawQuery};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde_json::Value;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::sync::Semaphore;

use super::extensions::ClientAddress;
use super::query::{QueryError, QueryPairs};
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
    /// The names of its parameters; others are refused.
    pub parameters: &'static [&'static str],
    /// Its handler.
    pub run: Arc<AdminHandler>,
}

/// The route of an endpoint.
pub(super) fn route<S: Clone + Send + Sync + 'static>(
    endpoint: &AdminEndpoint,
    permits: &Arc<Semaphore>,
) -> MethodRouter<S> {
    let (run, permits) = (Arc::clone(&endpoint.run), Arc::clone(permits));
    let known = endpoint.parameters;
    let handler = async move |Extension(from): Extension<ClientAddress>, query: RawQuery| {
        check_local(from)?;
        let pairs = parameters(query, known)?;
        respond(pairs, run, permits).await
    };
    match endpoint.effect {
        Effect::ReadOnly => get(handler),
        Effect::Mutating => post(handler),
    }
}

fn check_local(from: ClientAddress) -> Result<(), ErrorResponse> {
    if is_local(from) {
        return Ok(());
    }
    telemetry::connection_refused("not_local");
    let client = from.0.map_or("an unknown address".to_owned(), |address| address.to_string());
    let message = format!(
        "admin endpoints answer only clients on this machine, not {client}; run the command on the \
         host of this process, or with --log kafka://… from any machine"
    );
    Err(ErrorResponse::new(ErrorCode::Forbidden, message))
}

/// The decoded parameters, all of which the endpoint knows.
fn parameters(RawQuery(query): RawQuery, known: &[&str]) -> Result<QueryPairs, ErrorResponse> {
    let invalid = |QueryError(text)| ErrorResponse::new(HttpErrorCode::InvalidQuery, text);
    let pairs = QueryPairs::parse(query.as_deref()).map_err(invalid)?;
    pairs.check_names(known).map_err(invalid)?;
    Ok(pairs)
}

async fn respond(
    pairs: QueryPairs,
    run: Arc<AdminHandler>,
    permits: Arc<Semaphore>,
) -> Result<Response, ErrorResponse> {
    let Ok(permit) = permits.try_acquire_owned() else {
        let message = format!(
            "{ADMIN_AT_ONCE} admin requests are in progress, which is the limit; repeat it after \
             Retry-After"
        );
        return Err(ErrorResponse::overloaded(message));
    };
    // The handler goes on if the client leaves, and keeps its permit until it ends.
    let handle = move || {
        let result = run(pairs.as_slice());
        drop(permit);
        result
    };
    let handled = tokio::task::spawn_blocking(handle).await;
    let answer = handled.map_err(|_| ErrorResponse::stopping())??;
    Ok(json_response(StatusCode::OK, &answer))
}

fn is_local(from: ClientAddress) -> bool {
    from.0.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
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
    fn a_parameter_of_another_endpoint_is_refused() {
        let query = |text: &str| RawQuery(Some(text.to_owned()));
        let known = ["id", "limit"];
        assert!(parameters(query("id=tw.in%2F1%2F2&id=b&limit=1&_=9"), &known).is_ok());
        for (text, part) in [
            ("id=1&all_open=true", "give id, limit"),
            ("limits=1", "did you mean `limit`?"),
            ("id=%ff", "not UTF-8"),
        ] {
            let refused = parameters(query(text), &known).expect_err(text);
            assert_eq!(refused.code, HttpErrorCode::InvalidQuery, "{text}");
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        let refused = parameters(query("anything=1"), &[]).expect_err("it has none");
        assert!(refused.message.contains("has none"), "{}", refused.message);
    }
}
