//! Starts, repeats and ends the threads of the process; no other file of the binary starts one.
//!
//! A thread creates its loop and calls `turn()` until the process stops. Errors are handled here,
//! by kind only: `Retry` drops the loop and creates it again after a growing wait, and is counted;
//! `Fatal` and a panic end the process with a message. A shutdown wakes all loops; they finish
//! their turn and close what they hold, within one time limit for all.

use std::any::Any;
use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tidewire_engine::port::{LogError, Wake};
use tidewire_engine::turn::EngineError;

use crate::process_exit::{ProcessExit, in_one_line};
use crate::runtime::clock::Stopwatch;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::telemetry;

/// How long a turn waits for work; a shutdown wakes it earlier.
const TURN_WAIT: Duration = Duration::from_secs(1);
/// The wait before the first rebuild of a loop; each further one is twice as long.
const REBUILD_WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a rebuild.
const REBUILD_WAIT_LONGEST: Duration = Duration::from_secs(5);
/// A loop that fails sooner than this has not recovered, and its waits go on growing: two processes
/// that fence each other work for a moment after each rebuild.
const STABLE_AFTER: Duration = Duration::from_secs(15);
/// How often readiness is checked.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often failures outside the supervised threads are checked.
const FAILURE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A value whose `turn()` a thread repeats until the process stops.
pub trait EngineLoop {
    /// Does the work there is, or waits for some for at most `wait`.
    fn turn(&mut self, wait: Duration) -> Result<(), EngineError>;

    /// Ends the wait of a turn from another thread, if the loop has such a waker.
    fn waker(&self) -> Option<Arc<dyn Wake>>;

    /// Releases what it holds.
    fn close(self: Box<Self>, end: LoopEnd) -> Result<(), EngineError>;
}

/// Why a loop is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopEnd {
    /// The process was asked to end.
    Stopped,
    /// Something else in the process failed. What the log has may not be what the loop believes:
    /// topics may have been created again.
    Failed,
}

/// Creates a loop, and creates it again after an error that may pass.
pub type LoopFactory = Box<dyn FnMut() -> Result<Box<dyn EngineLoop>, EngineError> + Send>;

/// What ends a running process.
enum ShutdownCause {
    Signal(&'static str),
    Failure(ProcessExit),
}

/// The waker of a thread's loop; replaced when the loop is rebuilt.
type WakerSlot = Arc<Mutex<Option<Arc<dyn Wake>>>>;

struct Thread {
    name: &'static str,
    waker: WakerSlot,
    done: Receiver<()>,
}

/// The threads of the process.
pub struct Supervisor {
    stop: StopSignal,
    shutdown_tx: Sender<ShutdownCause>,
    shutdown_rx: Receiver<ShutdownCause>,
    threads: Vec<Thread>,
}

impl Supervisor {
    /// Listens for SIGINT, SIGTERM and SIGHUP; the second signal ends the process at once.
    pub fn start() -> Result<Self, ProcessExit> {
        let (shutdown_tx, shutdown_rx) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| ProcessExit::because("could not listen for signals", error))?;
        let on_signal = shutdown_tx.clone();
        start_thread("signals", move || {
            for (count, signal) in signals.forever().enumerate() {
                if count > 0 {
                    // Nothing is drained: the second signal means "at once", and the log survives
                    // a kill -9.
                    std::process::exit(128 + signal);
                }
                let name = match signal {
                    SIGINT => "SIGINT (Ctrl-C)",
                    SIGTERM => "SIGTERM",
                    _ => "SIGHUP",
                };
                let _ = on_signal.send(ShutdownCause::Signal(name));
            }
        })?;
        Ok(Self { stop: StopSignal::default(), shutdown_tx, shutdown_rx, threads: Vec::new() })
    }

    /// The flag that asks threads to stop.
    pub fn stop(&self) -> StopSignal {
        self.stop.clone()
    }

    /// Starts a thread that creates a loop and repeats it until the end.
    pub fn spawn_loop(&mut self, name: &'static str, make: LoopFactory) -> Result<(), ProcessExit> {
        let waker = WakerSlot::default();
        let stop = self.stop.clone();
        let slot = waker.clone();
        self.spawn(name, waker, move || run_loop(name, make, &stop, &slot))
    }

    /// Starts a thread that runs `work` once; `work` checks [`StopSignal`] by itself.
    pub fn spawn_task(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), ProcessExit> + Send + 'static,
    ) -> Result<(), ProcessExit> {
        self.spawn(name, WakerSlot::default(), work)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        waker: WakerSlot,
        work: impl FnOnce() -> Result<(), ProcessExit> + Send + 'static,
    ) -> Result<(), ProcessExit> {
        let (finished, done) = mpsc::channel();
        let (shutdown_tx, stop) = (self.shutdown_tx.clone(), self.stop.clone());
        start_thread(name, move || {
            run_and_report(name, work, &shutdown_tx, &stop);
            drop(finished);
        })?;
        self.threads.push(Thread { name, waker, done });
        Ok(())
    }

    /// Starts a thread that the shutdown does not wait for: `work` holds nothing, and a call in it
    /// may take longer than the shutdown.
    pub fn spawn_observer(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), ProcessExit> + Send + 'static,
    ) -> Result<(), ProcessExit> {
        let (shutdown_tx, stop) = (self.shutdown_tx.clone(), self.stop.clone());
        start_thread(name, move || run_and_report(name, work, &shutdown_tx, &stop))
    }

    /// Runs `work` on a thread of its own and waits for the result. `Ok(None)`: a signal ended the
    /// process first. The thread is then abandoned, however long a call in it takes, so `work` must
    /// hold nothing that the shutdown has to wait for.
    pub fn attempt<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, ProcessExit> {
        let (result_tx, result_rx) = mpsc::channel();
        let work = move || panic::catch_unwind(AssertUnwindSafe(work));
        start_thread(name, move || {
            // Nobody receives it if the process is ending.
            let _ = result_tx.send(work());
        })?;
        loop {
            match result_rx.recv_timeout(READY_POLL_INTERVAL) {
                Ok(Ok(done)) => return Ok(Some(done)),
                Ok(Err(panic)) => return Err(of_panic(name, &*panic)),
                Err(_) => match self.shutdown_rx.try_recv() {
                    Ok(ShutdownCause::Signal(_)) => return Ok(None),
                    Ok(ShutdownCause::Failure(exit)) => return Err(exit),
                    Err(_) => {}
                },
            }
        }
    }

    /// Waits until the process has to end: `Ok` names the signal. `failed` is polled for failures
    /// outside the supervised threads.
    pub fn wait(
        &self,
        failed: impl Fn() -> Option<ProcessExit>,
    ) -> Result<&'static str, ProcessExit> {
        loop {
            match self.shutdown_rx.recv_timeout(FAILURE_POLL_INTERVAL) {
                Ok(ShutdownCause::Signal(name)) => return Ok(name),
                Ok(ShutdownCause::Failure(exit)) => return Err(exit),
                Err(_) => {
                    if let Some(exit) = failed() {
                        self.stop.request_after_failure();
                        return Err(exit);
                    }
                }
            }
        }
    }

    /// Waits until `ready` is true: `Ok(true)`. `Ok(false)`: a signal ended the process first.
    pub fn wait_until(&self, ready: impl Fn() -> bool) -> Result<bool, ProcessExit> {
        while !ready() {
            match self.shutdown_rx.recv_timeout(READY_POLL_INTERVAL) {
                Ok(ShutdownCause::Signal(_)) => return Ok(false),
                Ok(ShutdownCause::Failure(exit)) => return Err(exit),
                Err(_) => {}
            }
        }
        Ok(true)
    }

    /// Asks every thread to stop and returns at once.
    pub fn request_stop(&self) {
        self.stop.request();
        for thread in &self.threads {
            wake(&thread.waker);
        }
    }

    /// Asks every thread to stop and waits for all of them, `within` in total. The error names the
    /// threads that did not finish, or is the first failure.
    pub fn drain(self, within: Duration) -> Result<(), ProcessExit> {
        let since = Stopwatch::start();
        self.request_stop();
        let mut late = Vec::new();
        for thread in &self.threads {
            let left = within.saturating_sub(since.elapsed());
            if let Err(RecvTimeoutError::Timeout) = thread.done.recv_timeout(left) {
                late.push(thread.name);
            }
        }
        if !late.is_empty() {
            return Err(ProcessExit::failed(format!(
                "{} did not finish within {within:?} and was abandoned; nothing acknowledged is \
                 lost, the next start continues from the log",
                late.join(", ")
            )));
        }
        match self.shutdown_rx.try_iter().find_map(|cause| match cause {
            ShutdownCause::Failure(exit) => Some(exit),
            ShutdownCause::Signal(_) => None,
        }) {
            Some(exit) => Err(exit),
            None => Ok(()),
        }
    }
}

/// Runs the work of a thread; its failure ends the process.
fn run_and_report(
    name: &str,
    work: impl FnOnce() -> Result<(), ProcessExit>,
    shutdown_tx: &Sender<ShutdownCause>,
    stop: &StopSignal,
) {
    let failure = match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => None,
        Ok(Err(exit)) => Some(exit),
        Err(panic) => Some(of_panic(name, &*panic)),
    };
    if let Some(exit) = failure {
        // At once: until the process learns of it, other loops would go on.
        stop.request_after_failure();
        // Nobody receives it if the process is ending.
        let _ = shutdown_tx.send(ShutdownCause::Failure(exit));
    }
}

#[expect(clippy::disallowed_methods, reason = "this file owns the threads")]
fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ProcessExit> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| {
        ProcessExit::because(
            format!("could not start the thread {name}; raise the limit of threads (`ulimit -u`)"),
            error,
        )
    })
}

fn wake(slot: &WakerSlot) {
    // A panic cannot leave the slot half written: it is only ever replaced.
    if let Some(waker) = &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
        waker.wake();
    }
}

fn run_loop(
    name: &'static str,
    mut make: LoopFactory,
    stop: &StopSignal,
    slot: &WakerSlot,
) -> Result<(), ProcessExit> {
    let mut wait = REBUILD_WAIT_FIRST;
    while !stop.is_requested() {
        let since = Stopwatch::start();
        let failed = match make() {
            Ok(looped) => {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = looped.waker();
                turn_until_stopped(looped, stop)
            }
            Err(error) => Err(error),
        };
        if since.elapsed() > STABLE_AFTER {
            wait = REBUILD_WAIT_FIRST;
        }
        match failed {
            Ok(()) => return Ok(()),
            Err(EngineError::Retry { doing, source }) => {
                telemetry::loop_rebuilt(name);
                let because = in_one_line(&*source);
                let hint = if is_fenced(&*source) { FENCED_HINT } else { "" };
                tracing::warn!(thread = name, doing, because, ?wait, "starting again{hint}");
                stop.pause(wait);
                wait = (wait * 2).min(REBUILD_WAIT_LONGEST);
            }
            Err(fatal @ EngineError::Fatal { .. }) => return Err(of_engine(name, fatal)),
        }
    }
    Ok(())
}

/// Another process took over from this loop. Once, that is a normal rebalance.
const FENCED_HINT: &str =
    "; if this repeats, two processes have the same `instance`: give each its own";

fn is_fenced(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(LogError::Fenced(_)))
}

fn turn_until_stopped(
    mut looped: Box<dyn EngineLoop>,
    stop: &StopSignal,
) -> Result<(), EngineError> {
    while !stop.is_requested() {
        looped.turn(TURN_WAIT)?;
    }
    looped.close(if stop.is_failure() { LoopEnd::Failed } else { LoopEnd::Stopped })
}

/// The exit for an error of something that is not a running loop.
pub fn of_engine(name: &str, error: EngineError) -> ProcessExit {
    match error {
        EngineError::Retry { doing, source } | EngineError::Fatal { doing, source } => {
            of_fatal(name, doing, source)
        }
    }
}

/// The exit code follows from the cause.
fn of_fatal(name: &str, doing: &str, source: Box<dyn Error + Send + Sync>) -> ProcessExit {
    let message = format!("{name} stopped while {doing}");
    match source.downcast::<LogError>() {
        Ok(error) => ProcessExit::of_log(message, *error),
        Err(source) => ProcessExit::because(message, source),
    }
}

fn of_panic(name: &str, panic: &(dyn Any + Send)) -> ProcessExit {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    ProcessExit::failed(format!(
        "{name} panicked, which is a bug: {text}\n  nothing acknowledged is lost; please report it \
         with the lines above"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The results of its turns, and where it says how it was closed.
    struct ScriptedLoop(Vec<Result<(), EngineError>>, Option<Sender<LoopEnd>>);

    impl EngineLoop for ScriptedLoop {
        fn turn(&mut self, _wait: Duration) -> Result<(), EngineError> {
            self.0.pop().unwrap_or_else(|| {
                clock::pause(Duration::from_millis(1));
                Ok(())
            })
        }

        fn waker(&self) -> Option<Arc<dyn Wake>> {
            None
        }

        fn close(self: Box<Self>, end: LoopEnd) -> Result<(), EngineError> {
            match self.1 {
                Some(closed) => closed.send(end).map_err(|_| retry()),
                None => Ok(()),
            }
        }
    }

    fn retry() -> EngineError {
        EngineError::Retry { doing: "testing", source: "it passes".into() }
    }

    fn fatal(source: LogError) -> EngineError {
        EngineError::Fatal { doing: "testing", source: Box::new(source) }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_loop_that_fails_with_retry_is_rebuilt() {
        let mut supervisor = Supervisor::start().expect("starts");
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let make: LoopFactory = Box::new(move || {
            let turns = match count.fetch_add(1, Ordering::SeqCst) {
                0 => return Err(retry()),
                1 => vec![Err(retry()), Ok(())],
                _ => Vec::new(),
            };
            Ok(Box::new(ScriptedLoop(turns, None)))
        });
        supervisor.spawn_loop("test", make).expect("starts");
        while made.load(Ordering::SeqCst) < 3 {
            clock::pause(Duration::from_millis(5));
        }
        supervisor.drain(SOON).expect("an orderly end");
    }

    #[test]
    fn a_loop_that_recovers_only_briefly_is_rebuilt_with_growing_waits() {
        let mut supervisor = Supervisor::start().expect("starts");
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let make: LoopFactory = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(ScriptedLoop(vec![Err(retry()), Ok(())], None)))
        });
        let since = Stopwatch::start();
        supervisor.spawn_loop("test", make).expect("starts");
        while made.load(Ordering::SeqCst) < 4 {
            clock::pause(Duration::from_millis(5));
        }
        assert!(since.elapsed() >= REBUILD_WAIT_FIRST * (1 + 2 + 4), "{:?}", since.elapsed());
        supervisor.drain(SOON).expect("an orderly end");
    }

    #[test]
    fn a_fatal_log_error_ends_the_process_as_a_lost_log() {
        let mut supervisor = Supervisor::start().expect("starts");
        let lost = || Err(fatal(LogError::Fatal("the disk is full".into(), None)));
        supervisor.spawn_loop("test", Box::new(lost)).expect("starts");
        let exit = supervisor.wait(|| None).expect_err("fatal");
        assert!(matches!(exit, ProcessExit::LostLog { .. }), "{exit}");
        let invalid = fatal(LogError::Invalid("another partition count".into()));
        assert!(matches!(of_engine("x", invalid), ProcessExit::Usage(_)));
    }

    #[test]
    fn loops_learn_whether_the_process_was_asked_to_end_or_failed() {
        for (fails, expected) in [(false, LoopEnd::Stopped), (true, LoopEnd::Failed)] {
            let mut supervisor = Supervisor::start().expect("starts");
            let (closed_tx, closed) = mpsc::channel();
            let (made_tx, made) = mpsc::channel();
            let make: LoopFactory = Box::new(move || {
                made_tx.send(()).expect("the test waits for it");
                Ok(Box::new(ScriptedLoop(Vec::new(), Some(closed_tx.clone()))))
            });
            supervisor.spawn_loop("test", make).expect("starts");
            made.recv_timeout(SOON).expect("it is made");
            if fails {
                let fail = || Err(ProcessExit::failed("the topics were created again"));
                supervisor.spawn_observer("fails", fail).expect("starts");
                supervisor.wait(|| None).expect_err("it failed");
            }
            supervisor.drain(SOON).expect("an orderly end");
            assert_eq!(closed.try_recv(), Ok(expected));
        }
    }

    #[test]
    fn a_panic_ends_the_process_with_its_message() {
        let mut supervisor = Supervisor::start().expect("starts");
        supervisor.spawn_task("test", || panic!("two and two is five")).expect("starts");
        let exit = supervisor.wait(|| None).expect_err("a bug").to_string();
        assert!(exit.contains("two and two is five"), "{exit}");
    }

    #[test]
    fn an_attempt_returns_its_result_and_a_panic_in_it_is_an_error() {
        let supervisor = Supervisor::start().expect("starts");
        assert_eq!(supervisor.attempt("test", || 7).expect("no bug"), Some(7));
        let exit = supervisor.attempt("test", || -> u8 { panic!("no such number") });
        let text = exit.expect_err("a bug").to_string();
        assert!(text.contains("no such number"), "{text}");
    }

    #[test]
    fn a_slow_attempt_does_not_delay_the_end() {
        let mut supervisor = Supervisor::start().expect("starts");
        supervisor.spawn_task("test", || Err(ProcessExit::failed("the end"))).expect("starts");
        let since = Stopwatch::start();
        let ended = supervisor.attempt("slow", || clock::pause(SOON));
        assert_eq!(ended.expect_err("the end").to_string(), "the end");
        supervisor.drain(SOON).expect("nobody waits for the attempt");
        assert!(since.elapsed() < SOON / 4, "{:?}", since.elapsed());
    }

    #[test]
    fn a_failure_outside_the_threads_ends_the_process() {
        let supervisor = Supervisor::start().expect("starts");
        let exit = supervisor.wait(|| Some(ProcessExit::failed("elsewhere"))).expect_err("failed");
        assert_eq!(exit.to_string(), "elsewhere");
    }

    #[test]
    fn a_fenced_loop_gets_the_hint_about_instance_names() {
        assert!(is_fenced(&LogError::Fenced("taken".into())));
        assert!(!is_fenced(&LogError::Fatal("gone".into(), None)));
    }

    #[test]
    fn a_thread_that_does_not_finish_is_named() {
        let mut supervisor = Supervisor::start().expect("starts");
        supervisor
            .spawn_task("stubborn", || {
                clock::pause(Duration::from_secs(3));
                Ok(())
            })
            .expect("starts");
        let error = supervisor.drain(Duration::from_millis(10)).expect_err("late").to_string();
        assert!(error.starts_with("stubborn did not finish"), "{error}");
    }
}
