//! A Kafka error, sorted by what the caller has to do next.
//!
//! The one idea: the engine acts on the variant alone, and a person reads the text. So every text
//! says what was being done and what the broker or the connection said last; where a setting or a
//! permission is the cause, it says which.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaError};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::LogError;

use super::context::Context;

/// What was being done, to what, and what came of it.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {what}")]
struct Fault {
    doing: String,
    what: String,
}

/// Sorts a code outside transactions.
pub(super) fn of_code(doing: impl fmt::Display, code: Code, context: &Context) -> LogError {
    let doing = doing.to_string();
    if let Some(refused) = refusal(&doing, code) {
        return refused;
    }
    if is_fenced(code) {
        return LogError::Fenced(format!("{doing}: {code}"));
    }
    if let Some(denied) = denied(&doing, context) {
        return denied;
    }
    LogError::Retry(fault(doing, code, context))
}

/// Sorts an error outside transactions.
pub(super) fn of_error(
    doing: impl fmt::Display,
    error: &KafkaError,
    context: &Context,
) -> LogError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    match code {
        Code::Unknown => {
            let doing = doing.to_string();
            LogError::Retry(Box::new(Fault { doing, what: error.to_string() }))
        }
        code => of_code(doing, code, context),
    }
}

/// Sorts what a call inside a transaction came to.
pub(super) fn of_transaction(doing: &str, error: &KafkaError, context: &Context) -> LogError {
    match error {
        KafkaError::Transaction(error) => of_flags(doing, error, context),
        // The records are still on their way: the same call goes on waiting for them.
        KafkaError::Flush(code) => LogError::Retry(fault(doing.to_owned(), *code, context)),
        error => {
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            in_transaction(doing, code, context)
        }
    }
}

/// Sorts a code inside a transaction: nothing is committed yet, so what can't be told is undone.
pub(super) fn in_transaction(doing: &str, code: Code, context: &Context) -> LogError {
    match refusal(doing, code) {
        Some(refused) => refused,
        None if is_fenced(code) => LogError::Fenced(format!("{doing}: {code}")),
        None if code == Code::Fatal => LogError::Unknown(fault(doing.to_owned(), code, context)),
        None => LogError::Abort(fault(doing.to_owned(), code, context)),
    }
}

/// librdkafka says what may be done about an error of a transaction: KIP-360, KIP-447.
fn of_flags(doing: &str, error: &RDKafkaError, context: &Context) -> LogError {
    let code = error.code();
    let cause = || {
        let said = fault(doing.to_owned(), code, context);
        Box::new(Fault { doing: said.to_string(), what: error.string() })
    };
    if is_fenced(code) {
        return LogError::Fenced(format!("{doing}: {}", error.string()));
    }
    if let Some(refused) = refusal(doing, code) {
        return refused;
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

fn fault(doing: String, code: Code, context: &Context) -> Box<Fault> {
    let what = match context.last_error() {
        Some((_, last)) if waited_in_vain(code) => format!("{code}; the newest error was: {last}"),
        _ => code.to_string(),
    };
    Box::new(Fault { doing, what })
}

/// No answer came; why not is what the connection said.
fn waited_in_vain(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::WaitingForCoordinator
    )
}

/// Another instance has the transactional id, the member's name or its partitions now.
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

/// What no repetition mends. An unknown topic is not among it: a broker that has just started says
/// so of any topic, and whoever really asks for one that is not there is refused by `Core::check`.
fn refusal(doing: &str, code: Code) -> Option<LogError> {
    let invalid = |mend: &str| Some(LogError::Invalid(format!("{doing}: {code}; {mend}")));
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            invalid("raise max.message.bytes of the topic, or send less")
        }
        Code::InvalidRecord => invalid("a record of a compacted topic needs a key"),
        Code::InvalidConfig | Code::InvalidReplicationFactor | Code::PolicyViolation => {
            invalid("the broker does not allow these settings")
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            let mend = "the user of kafka.properties lacks a permission; `tidewire doctor` lists \
                        what is needed";
            Some(LogError::Fatal(format!("{doing}: {code}; {mend}"), None))
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            let mend = "Tidewire needs Apache Kafka 2.8 or newer";
            Some(LogError::Fatal(format!("{doing}: {code}; {mend}"), None))
        }
        _ => None,
    }
}

/// A connection that is refused by its credentials fails in silence for the caller: the call only
/// times out. The newest error tells.
fn denied(doing: &str, context: &Context) -> Option<LogError> {
    let (code, reason) = context.last_error()?;
    matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL).then(|| {
        LogError::Fatal(
            format!("{doing}: the broker refuses us: {reason}; see kafka.properties"),
            None,
        )
    })
}
