//! Classifies Kafka errors by what the caller has to do next.
//!
//! The engine acts on the variant alone; the text is for people. It says what was being done and
//! what the broker or the connection reported last, and, where a setting or a permission is the
//! cause, which one.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::LogError;

use super::context::{KafkaContext, NewestError};
use super::reachability::{accepts_connections, address_in};

/// What was being done, and the error.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {what}")]
struct FailedCall {
    doing: String,
    what: String,
}

/// Classifies a code outside transactions.
pub(super) fn from_code(doing: impl fmt::Display, code: Code, context: &KafkaContext) -> LogError {
    let doing = doing.to_string();
    lasting_error(&doing, code, context)
        .unwrap_or_else(|| LogError::Retry(failed_call(doing, code, context)))
}

/// The same without asking whether the broker accepts connections, for callers that must not wait.
pub(super) fn from_code_now(
    doing: impl fmt::Display,
    code: Code,
    context: &KafkaContext,
) -> LogError {
    let doing = doing.to_string();
    lasting_error(&doing, code, context).unwrap_or_else(|| {
        let newest = context.newest_error().filter(|_| is_unanswered(code));
        let newest = newest.map(|newest| format!("; the newest error was: {}", newest.text));
        let what = format!("{code}{}", newest.unwrap_or_default());
        LogError::Retry(Box::new(FailedCall { doing, what }))
    })
}

/// The error for a code outside transactions, unless a retry may help.
fn lasting_error(doing: &str, code: Code, context: &KafkaContext) -> Option<LogError> {
    permanent_error(doing, code)
        .or_else(|| is_fenced(code).then(|| LogError::Fenced(format!("{doing}: {code}"))))
        .or_else(|| authentication_error(doing, context))
}

/// Classifies an error outside transactions.
pub(super) fn from_error(
    doing: impl fmt::Display,
    error: &KafkaError,
    context: &KafkaContext,
) -> LogError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    match code {
        Code::Unknown => {
            let doing = doing.to_string();
            LogError::Retry(Box::new(FailedCall { doing, what: error.to_string() }))
        }
        code => from_code(doing, code, context),
    }
}

/// Classifies an error inside a transaction.
pub(super) fn from_transaction_error(
    doing: &str,
    error: &KafkaError,
    context: &KafkaContext,
) -> LogError {
    match error {
        KafkaError::Transaction(error) => from_transaction_flags(doing, error, context),
        // The records are still in flight: repeating the call continues to wait for them.
        KafkaError::Flush(code) => LogError::Retry(failed_call(doing.to_owned(), *code, context)),
        error => {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            from_transaction_code(doing, code, context)
        }
    }
}

/// Classifies a code inside a transaction. Nothing is committed yet, so the default is to abort.
pub(super) fn from_transaction_code(doing: &str, code: Code, context: &KafkaContext) -> LogError {
    match permanent_error(doing, code) {
        Some(error) => error,
        None if is_fenced(code) => LogError::Fenced(format!("{doing}: {code}")),
        None if code == Code::Fatal => {
            LogError::Unknown(failed_call(doing.to_owned(), code, context))
        }
        None => LogError::Abort(failed_call(doing.to_owned(), code, context)),
    }
}

/// Classifies by the flags librdkafka sets on an error of a transaction (KIP-360, KIP-447).
fn from_transaction_flags(doing: &str, error: &RDKafkaError, context: &KafkaContext) -> LogError {
    let code = error.code();
    let cause = || {
        let call = failed_call(doing.to_owned(), code, context);
        Box::new(FailedCall { doing: call.to_string(), what: error.string() })
    };
    if is_fenced(code) {
        return LogError::Fenced(format!("{doing}: {}", error.string()));
    }
    if let Some(error) = permanent_error(doing, code) {
        return error;
    }
    if error.is_fatal() {
        LogError::Unknown(cause())
    } else if error.txn_requires_abort() {
        LogError::Abort(cause())
    } else if error.is_retriable() {
        LogError::Retry(cause())
    } else {
        LogError::Unknown(cause())
    }
}

fn failed_call(doing: String, code: Code, context: &KafkaContext) -> Box<FailedCall> {
    let newest = context.newest_error().filter(|_| is_unanswered(code));
    let what = match newest {
        None => code.to_string(),
        Some(newest) => {
            let text = &newest.text;
            // An error of a connection is out of date if that broker accepts connections now.
            let address = address_in(text).filter(|_| is_unanswered(newest.code));
            let again = match address.filter(|address| accepts_connections(address)) {
                None => String::new(),
                Some(address) => format!(
                    "; {address} accepts connections now: if this repeats, that broker is \
                     overloaded or frozen, or another service listens there; run `tidewire doctor`"
                ),
            };
            format!("{code}; the newest error was: {text}{again}")
        }
    };
    Box::new(FailedCall { doing, what })
}

/// Whether no answer came. The newest error of the connection is the cause.
fn is_unanswered(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::WaitingForCoordinator
    )
}

/// Whether another instance now has the transactional id, the member's name or its partitions.
fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::AssignmentLost
    )
}

/// Errors that a retry can't correct. An unknown topic is not among them: a broker that has just
/// started reports it for any topic, and `KafkaCore::check` refuses topics that do not exist.
fn permanent_error(doing: &str, code: Code) -> Option<LogError> {
    let invalid = |fix: &str| Some(LogError::Invalid(format!("{doing}: {code}; {fix}")));
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            invalid("raise max.message.bytes of the topic, or send less")
        }
        Code::InvalidRecord => invalid("records of a compacted topic need a key"),
        Code::InvalidConfig | Code::InvalidReplicationFactor | Code::PolicyViolation => {
            invalid("the broker does not allow these settings; see its log")
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            let fix = "the user of kafka.properties lacks a permission; `tidewire doctor` prints \
                        the grant";
            Some(LogError::Fatal(format!("{doing}: {code}; {fix}"), None))
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            let fix = "run Apache Kafka 2.8 or newer";
            Some(LogError::Fatal(format!("{doing}: {code}; {fix}"), None))
        }
        _ => None,
    }
}

/// The error of a rejected login or certificate, if the newest error is one: for the caller it
/// only times out.
fn authentication_error(doing: &str, context: &KafkaContext) -> Option<LogError> {
    let rejected = context.newest_error().filter(NewestError::is_rejected_login)?;
    let reason = rejected.text;
    Some(LogError::Fatal(
        format!("{doing}: authentication or TLS failed: {reason}; check kafka.properties"),
        None,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::client::ClientContext;
    use std::net::TcpListener;

    fn timed_out(newest: &str) -> String {
        let context = KafkaContext::default();
        context.error(KafkaError::Global(Code::BrokerTransportFailure), newest);
        let error = from_code("reading the bounds", Code::OperationTimedOut, &context);
        let LogError::Retry(cause) = error else { panic!("{error}") };
        cause.to_string()
    }

    #[test]
    fn a_timeout_reports_the_newest_error_of_a_broker_that_is_down_alone() {
        let gone = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = gone.local_addr().expect("bound").to_string();
        drop(gone);
        let newest = format!("{at}/2: Connect to ipv4#{at} failed: Connection refused");
        let text = timed_out(&newest);
        assert!(text.ends_with(&newest), "{text}");
    }

    #[test]
    fn a_broker_that_refused_and_now_accepts_is_reported_as_both() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = silent.local_addr().expect("bound").to_string();
        let newest = format!("{at}/bootstrap: Connect to ipv4#{at} failed: Connection refused");
        let text = timed_out(&newest);
        assert!(text.contains(&newest), "{text}");
        assert!(text.contains(&format!("{at} accepts connections now")), "{text}");
    }
}
