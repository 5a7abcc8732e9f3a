//! Wall clocks of brokers that tests set forward.
//!
//! Kafka's server takes its clock as an argument; `ClockedBroker.java` passes one that is set over
//! standard input. Session time-outs use the monotonic clock and are not affected; retention,
//! compaction and transaction time-outs use the wall clock.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

/// The clock of one broker, across its restarts.
#[derive(Debug)]
pub(super) struct BrokerClock {
    state: Mutex<BrokerClockState>,
}

#[derive(Debug)]
struct BrokerClockState {
    ahead_ms: i64,
    process: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl BrokerClock {
    /// A clock that is ahead, or behind if negative.
    pub(super) fn new(ahead_ms: i64) -> Self {
        Self { state: Mutex::new(BrokerClockState { ahead_ms, process: None }) }
    }

    /// Adds what the process needs to its command.
    pub(super) fn configure(&self, command: &mut Command) {
        command.arg(self.state().ahead_ms.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    }

    /// Takes the pipes of a process that was started with this clock.
    pub(super) fn attach(&self, child: &mut Child) {
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        self.state().process = Some((input, BufReader::new(output)));
    }

    /// Sets the clock forward; false if the process did not confirm.
    pub(super) fn advance_time(&self, ms: u64) -> bool {
        let mut state = self.state();
        state.ahead_ms += i64::try_from(ms).expect("less than an age");
        let (input, output) = state.process.as_mut().expect("a running broker");
        let mut answer = String::new();
        let asked = writeln!(input, "pass {ms}").and_then(|()| input.flush());
        asked.and_then(|()| output.read_line(&mut answer)).is_ok() && answer == "passed\n"
    }

    fn state(&self) -> MutexGuard<'_, BrokerClockState> {
        self.state.lock().expect("no thread panics while it holds this")
    }
}
