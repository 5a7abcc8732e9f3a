//! How the process ends: one value with a sentence and an exit code, and nothing ends it otherwise.
//!
//! Scripts and service managers act on the code, people on the sentence. Each sentence says what
//! went wrong and what to do next; the chain of causes is printed below it.

use std::error::Error;
use std::time::Duration;

use tidewire_engine::port::LogError;

/// Everything went as asked.
const CODE_DONE: u8 = 0;
/// The work was understood but failed.
const CODE_FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was started.
const CODE_USAGE: u8 = 2;
/// The log is lost to this process: its disk, its files or its broker.
const CODE_LOST_LOG: u8 = 3;

/// Why a verb stopped before its work was done.
#[derive(Debug, thiserror::Error)]
pub enum ProcessExit {
    /// The work failed (exit code 1).
    #[error("{message}")]
    Failed {
        /// What failed and what to do about it.
        message: String,
        /// Underneath.
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
        /// Underneath.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Whoever read our output has gone away, as `head` does; that ends the work well.
    #[error("the reader of the output went away")]
    OutputClosed,
}

impl ProcessExit {
    /// The work failed for a reason that is a sentence of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    /// The work failed because of what lies underneath.
    pub fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { message: message.into(), source: Some(source.into()) }
    }

    /// What a failure of the log means for the process: a lost log is a kind of its own, and a
    /// wrong set-up is the operator's to mend.
    pub fn of_log(message: String, error: LogError) -> Self {
        match error {
            LogError::Invalid(text) => Self::Usage(format!("{message}: {text}")),
            LogError::Fatal(..) => Self::LostLog { message, source: Some(Box::new(error)) },
            other => Self::because(message, other),
        }
    }

    /// The same ending, with how often it was tried to avoid it.
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

/// A cause that only repeats what stands before it is left out.
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
    fn causes_are_printed_once_below_the_sentence() {
        let inner = std::io::Error::other("the disk is full");
        let exit = ProcessExit::because("could not write", inner);
        assert_eq!(with_causes(&exit), "could not write\n  because: the disk is full");
    }
}
