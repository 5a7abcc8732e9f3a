//! What an operator's command line asks of a running process: letters listed and resolved, a line
//! that stands still taken on.
//!
//! They show what events say and change what becomes of them, and this server can't tell an
//! operator from anybody else yet. So only this very machine is answered, whatever else may reach
//! the door. What a verb does is the wiring's; here is who may, and that the threads of HTTP don't
//! wait for it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Query};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::answer::{Failure, json_answer};
use super::routes::Site;
use crate::telemetry;

/// Verbs at work at once: each asks the log, which may take its time.
pub(super) const VERBS_AT_ONCE: usize = 4;

/// What a verb does with what was asked: the pairs of the query, a name possibly more than once. It
/// may block.
pub type Run = dyn Fn(&[(String, String)]) -> Result<Value, Failure> + Send + Sync;

/// Whether a verb changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only looks: `GET`.
    Looks,
    /// It changes something: `POST`.
    Changes,
}

/// A verb of an operator.
#[derive(Clone)]
pub struct Verb {
    /// Where.
    pub path: &'static str,
    /// By which method.
    pub effect: Effect,
    /// What it does.
    pub run: Arc<Run>,
}

/// Who sent a request, in every request's extensions; unknown if the socket is gone.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

/// The route of a verb.
pub(super) fn route(verb: &Verb, turns: &Arc<Semaphore>) -> MethodRouter<Site> {
    let (run, turns) = (Arc::clone(&verb.run), Arc::clone(turns));
    let handler = async move |Extension(from): Extension<Peer>, query: Pairs| {
        answer(from, query, (run, turns)).await
    };
    match verb.effect {
        Effect::Looks => get(handler),
        Effect::Changes => post(handler),
    }
}

type Pairs = Query<Vec<(String, String)>>;

async fn answer(
    from: Peer,
    Query(pairs): Pairs,
    (run, turns): (Arc<Run>, Arc<Semaphore>),
) -> Result<Response, Failure> {
    if !is_here(from) {
        telemetry::connection_refused("not_local");
        let message = "verbs of an operator are answered to this machine only; run them on the \
                       host of this process, or on Kafka from anywhere with --log kafka://…";
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let Ok(turn) = turns.try_acquire_owned() else {
        return Err(Failure::overloaded("other verbs are at work; ask again in a moment"));
    };
    // It goes on even if the client has left, and keeps its turn.
    let work = move || {
        let done = run(&pairs);
        drop(turn);
        done
    };
    let done = tokio::task::spawn_blocking(work).await;
    let answer = done.map_err(|_| Failure::overloaded("the process is ending"))??;
    Ok(json_answer(StatusCode::OK, &answer))
}

fn is_here(from: Peer) -> bool {
    from.0.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_answered() {
        let here = |text: &str| is_here(Peer(Some(text.parse().expect("an address"))));
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(here(address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.0.9", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"] {
            assert!(!here(address), "{address}");
        }
        assert!(!is_here(Peer(None)));
    }
}
