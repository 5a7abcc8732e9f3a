//! Patience: what may pass by itself is tried again at the start, with growing waits and a limit.
//!
//! A broker that starts together with us is no reason to fail, and one that never answers is one.
//! Each attempt leaves a line, so that whoever watches knows what is waited for. Once the loops
//! run, the supervisor has a patience of its own, without end.

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
    /// It may pass; how the process ends if it does not.
    Transient(ProcessExit),
    /// Trying again is of no use.
    Permanent(ProcessExit),
}

impl AttemptError {
    /// Sorts a failure of the log. `unanswered` says what is wrong when it just did not answer.
    pub fn of_log(doing: String, unanswered: &str, error: LogError) -> Self {
        match error {
            LogError::Retry(cause) => Self::unanswered(unanswered, cause),
            permanent => Self::Permanent(ProcessExit::of_log(doing, permanent)),
        }
    }

    /// The same for what the engine opens.
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

/// Tries until it is done, until the failure is one that lasts, until `limit` is over or until
/// asked to stop. Without a limit to speak of it tries once.
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
