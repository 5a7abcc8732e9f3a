//! Retries at the start of a process: growing waits, a time limit, a log line per attempt.
//!
//! A broker may start together with the process, so an error that may pass is retried; a broker
//! that never answers ends the start. Once the loops run, the supervisor retries without a limit.

use std::time::Duration;

use tidewire_engine::port::LogError;
use tidewire_engine::turn::EngineError;

use crate::process_exit::{ProcessExit, in_one_line};
use crate::runtime::clock::Stopwatch;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::supervisor;

/// The wait after the first attempt; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const WAIT_LONGEST: Duration = Duration::from_secs(5);

/// Why an attempt failed.
#[derive(Debug)]
pub enum AttemptError {
    /// It may pass; the exit is for when it does not.
    Transient(ProcessExit),
    /// A retry cannot help.
    Permanent(ProcessExit),
}

impl AttemptError {
    /// Classifies an error of the log. `unanswered` is the message if the log did not answer.
    pub fn of_log(doing: String, unanswered: &str, error: LogError) -> Self {
        match error {
            LogError::Retry(cause) => Self::unanswered(unanswered, cause),
            permanent => Self::Permanent(ProcessExit::of_log(doing, permanent)),
        }
    }

    /// The same for an error of the engine.
    pub fn of_engine(name: &str, unanswered: &str, error: EngineError) -> Self {
        match error {
            EngineError::Retry { source, .. } => Self::unanswered(unanswered, source),
            fatal @ EngineError::Fatal { .. } => {
                Self::Permanent(supervisor::of_engine(name, fatal))
            }
        }
    }

    fn unanswered(message: &str, cause: tidewire_engine::port::Cause) -> Self {
        Self::Transient(ProcessExit::LostLog { message: message.to_owned(), source: Some(cause) })
    }
}

/// Tries until it succeeds, fails permanently, `limit` is over, or the process is asked to stop. A
/// limit of zero is one attempt.
pub fn with_retries<T>(
    limit: Duration,
    stop: &StopSignal,
    mut attempt: impl FnMut() -> Result<T, AttemptError>,
) -> Result<T, ProcessExit> {
    let since = Stopwatch::start();
    let mut wait = WAIT_FIRST;
    let mut attempts = 0;
    loop {
        let exit = match attempt() {
            Ok(done) => return Ok(done),
            Err(AttemptError::Permanent(exit)) => return Err(exit),
            Err(AttemptError::Transient(exit)) => exit,
        };
        attempts += 1;
        if stop.is_requested() || since.elapsed() + wait > limit {
            return Err(exit.after(attempts, since.elapsed()));
        }
        tracing::warn!(attempts, "{}; trying again in {wait:?}", in_one_line(&exit));
        stop.pause(wait);
        wait = (wait * 2).min(WAIT_LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(600);

    fn unanswered() -> AttemptError {
        let error = LogError::Retry("connection refused".into());
        AttemptError::of_log("could not ask".into(), "nobody answers", error)
    }

    #[test]
    fn a_transient_error_is_retried_until_it_passes() {
        let mut attempts = 0;
        let done = with_retries(LIMIT, &StopSignal::default(), || {
            attempts += 1;
            if attempts == 2 { Ok(attempts) } else { Err(unanswered()) }
        });
        assert_eq!(done.expect("the second attempt"), 2);
    }

    #[test]
    fn a_transient_error_beyond_the_limit_is_a_lost_log() {
        let done = with_retries(LIMIT, &StopSignal::default(), || Err::<(), _>(unanswered()));
        let exit = done.expect_err("nobody answers");
        assert!(matches!(exit, ProcessExit::LostLog { .. }), "{exit:?}");
        let text = in_one_line(&exit);
        assert!(text.starts_with("nobody answers (tried 2 times in "), "{text}");
        assert!(text.ends_with("connection refused"), "{text}");
    }

    #[test]
    fn a_permanent_error_is_returned_at_once() {
        let wrong = || LogError::Invalid("tw.in has 4 partitions".into());
        let mut attempts = 0;
        let done = with_retries(LIMIT, &StopSignal::default(), || {
            attempts += 1;
            Err::<(), _>(AttemptError::of_log("could not open".into(), "nobody answers", wrong()))
        });
        assert!(matches!(done, Err(ProcessExit::Usage(_))), "{done:?}");
        assert_eq!(attempts, 1);
    }
}
