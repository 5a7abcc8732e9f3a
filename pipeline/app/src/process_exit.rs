//! How a command ends: a message for people and an exit code for scripts and service managers.
//!
//! Every failure of the binary is one of these values; nothing else ends the process but a second
//! signal. A message says what happened and what to do next. Its causes are printed below it.

use std::error::Error;
use std::time::Duration;

use tidewire_engine::port::LogError;

/// Success.
const CODE_DONE: u8 = 0;
/// The work failed.
const CODE_FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was started.
const CODE_USAGE: u8 = 2;
/// The process lost the log, or never reached it: its disk, its files or its brokers.
const CODE_LOST_LOG: u8 = 3;

/// What a position beyond the end of the log means.
const LOG_SHORTER: &str = "the topic was deleted and created again, or an older copy of its data \
                           was restored. Stop every process of this prefix and reset the offsets \
                           of its group for this topic (`kafka-consumer-groups.sh \
                           --reset-offsets --to-earliest --execute`), so that it is read from its \
                           beginning";

/// Why a command stopped before its work was done.
#[derive(Debug, thiserror::Error)]
pub enum ProcessExit {
    /// The work failed (exit code 1).
    #[error("{message}")]
    Failed {
        /// What failed and what to do about it.
        message: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The command line or the configuration is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// The log is lost (exit code 3).
    #[error("{message}")]
    LostLog {
        /// What happened to it and what to do about it.
        message: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The reader of the output closed it, as `head` does. Not a failure (exit code 0).
    #[error("the reader of the output closed it")]
    OutputClosed,
}

impl ProcessExit {
    /// The work failed; the message says all there is to know.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    /// The work failed because of `source`.
    pub fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { message: message.into(), source: Some(source.into()) }
    }

    /// What an error of the log means for the process: topics or settings that are wrong are usage
    /// errors, a fatal error is a lost log.
    pub fn of_log(message: String, error: LogError) -> Self {
        match error {
            LogError::Invalid(text) => Self::Usage(format!("{message}: {text}")),
            LogError::Fatal(..) => Self::LostLog { message, source: Some(Box::new(error)) },
            LogError::OutOfRange { asked, end, .. } if asked > end => Self::LostLog {
                message: format!("{message}; {LOG_SHORTER}"),
                source: Some(Box::new(error)),
            },
            other => Self::because(message, other),
        }
    }

    /// The same exit, with the number of attempts that were made.
    pub fn after(self, attempts: u32, time: Duration) -> Self {
        let times = if attempts == 1 { "once" } else { &format!("{attempts} times") };
        let tried = |message: String| format!("{message} (tried {times} in {time:.1?})");
        match self {
            Self::Failed { message, source } => Self::Failed { message: tried(message), source },
            Self::Usage(message) => Self::Usage(tried(message)),
            Self::LostLog { message, source } => Self::LostLog { message: tried(message), source },
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// Whether a position beyond the end of the log was the cause.
    pub fn is_lost_position(&self) -> bool {
        let Self::LostLog { source: Some(source), .. } = self else { return false };
        let error = source.downcast_ref();
        matches!(error, Some(LogError::OutOfRange { asked, end, .. }) if asked > end)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } => CODE_FAILED,
            Self::Usage(_) => CODE_USAGE,
            Self::LostLog { .. } => CODE_LOST_LOG,
            Self::OutputClosed => CODE_DONE,
        }
    }
}

/// The message and, one per line below it, its causes.
pub fn with_causes(error: &dyn Error) -> String {
    chain(error, "\n  because: ")
}

/// The same for a log line.
pub fn in_one_line(error: &dyn Error) -> String {
    chain(error, ": ")
}

/// A cause whose text is already part of the message is left out.
fn chain(error: &dyn Error, joint: &str) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        if !text.contains(&line) {
            text.push_str(joint);
            text.push_str(&line);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_exit_has_its_documented_code() {
        assert_eq!(ProcessExit::failed("x").code(), 1);
        assert_eq!(ProcessExit::Usage("x".into()).code(), 2);
        assert_eq!(ProcessExit::LostLog { message: "x".into(), source: None }.code(), 3);
        assert_eq!(ProcessExit::OutputClosed.code(), 0);
    }

    #[test]
    fn causes_are_printed_once_below_the_message() {
        let inner = std::io::Error::other("the disk is full");
        let exit = ProcessExit::because("could not write", inner);
        assert_eq!(with_causes(&exit), "could not write\n  because: the disk is full");
    }
}
