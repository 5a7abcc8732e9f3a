//! Patience: what may pass by itself is tried again at the start, with growing waits and a limit.
//!
//! A broker that starts together with us is no reason to fail, and one that never answers is one.
//! Each attempt leaves a line, so that whoever watches knows what is waited for. Once the loops
//! run, the supervisor has a patience of its own, without end.

use std::time::Duration;

use tidewire_engine::port::LogError;
use tidewire_engine::turn::EngineError;

use crate::clock::Stopwatch;
use crate::ending::{Ending, in_one_line};
use crate::supervisor::{self, Stop};

/// The wait after the first attempt; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const WAIT_LONGEST: Duration = Duration::from_secs(5);

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// It may pass; how the process ends if it does not.
    Passing(Ending),
    /// Trying again is of no use.
    Lasting(Ending),
}

impl Failure {
    /// Sorts a failure of the log. `unanswered` says what is wrong when it just did not answer.
    pub fn of_log(doing: String, unanswered: &str, error: LogError) -> Self {
        match error {
            LogError::Retry(cause) => Self::unanswered(unanswered, cause),
            lasting => Self::Lasting(Ending::of_log(doing, lasting)),
        }
    }

    /// The same for what the engine opens.
    pub fn of_engine(name: &str, unanswered: &str, error: EngineError) -> Self {
        match error {
            EngineError::Retry { source, .. } => Self::unanswered(unanswered, source),
            fatal @ EngineError::Fatal { .. } => Self::Lasting(supervisor::of_engine(name, fatal)),
        }
    }

    fn unanswered(message: &str, cause: tidewire_engine::port::Cause) -> Self {
        Self::Passing(Ending::LostLog { message: message.to_owned(), source: Some(cause) })
    }
}

/// Tries until it is done, until the failure is one that lasts, until `limit` is over or until
/// asked to stop. Without a limit to speak of it tries once.
pub fn patiently<T>(
    limit: Duration,
    stop: &Stop,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Ending> {
    let since = Stopwatch::start();
    let mut wait = WAIT_FIRST;
    let mut attempts = 0;
    loop {
        let ending = match attempt() {
            Ok(done) => return Ok(done),
            Err(Failure::Lasting(ending)) => return Err(ending),
            Err(Failure::Passing(ending)) => ending,
        };
        attempts += 1;
        if stop.is_asked() || since.elapsed() + wait > limit {
            return Err(ending.after(attempts, since.elapsed()));
        }
        tracing::warn!(attempts, "{}; trying again in {wait:?}", in_one_line(&ending));
        stop.pause(wait);
        wait = (wait * 2).min(WAIT_LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(600);

    fn unanswered() -> Failure {
        let error = LogError::Retry("connection refused".into());
        Failure::of_log("could not ask".into(), "nobody answers", error)
    }

    #[test]
    fn what_passes_is_tried_again_until_it_is_done() {
        let mut attempts = 0;
        let done = patiently(LIMIT, &Stop::default(), || {
            attempts += 1;
            if attempts == 2 { Ok(attempts) } else { Err(unanswered()) }
        });
        assert_eq!(done.expect("the second attempt"), 2);
    }

    #[test]
    fn what_does_not_pass_in_time_is_a_lost_log_with_what_was_tried() {
        let done = patiently(LIMIT, &Stop::default(), || Err::<(), _>(unanswered()));
        let ending = done.expect_err("nobody answers");
        assert!(matches!(ending, Ending::LostLog { .. }), "{ending:?}");
        let text = in_one_line(&ending);
        assert!(text.starts_with("nobody answers (tried 2 times in "), "{text}");
        assert!(text.ends_with("connection refused"), "{text}");
    }

    #[test]
    fn what_lasts_is_said_at_once() {
        let wrong = || LogError::Invalid("tw.in has 4 partitions".into());
        let mut attempts = 0;
        let done = patiently(LIMIT, &Stop::default(), || {
            attempts += 1;
            Err::<(), _>(Failure::of_log("could not open".into(), "nobody answers", wrong()))
        });
        assert!(matches!(done, Err(Ending::Usage(_))), "{done:?}");
        assert_eq!(attempts, 1);
    }
}
