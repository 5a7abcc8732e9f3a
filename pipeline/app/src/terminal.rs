//! Writes to standard output and standard error; the only file of the binary that does.
//!
//! Data goes to standard output and messages to standard error, so that every command works in a
//! pipe. A reader that closes the pipe (`| head`) ends the command with exit code 0.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use crate::process_exit::{ProcessExit, with_causes};

/// Writes one line of output.
pub fn print_line(line: &str) -> Result<(), ProcessExit> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    written.map_err(output_failed)
}

/// Writes bytes of output, many lines at a time.
pub fn print_bytes(bytes: &[u8]) -> Result<(), ProcessExit> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(output_failed)
}

/// Writes one message. A failure is ignored: there is no other place to report it.
pub fn print_notice(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints why a command failed, with the causes below, and returns the exit code.
pub fn report(result: Result<(), ProcessExit>) -> ExitCode {
    let Err(exit) = result else { return ExitCode::SUCCESS };
    if !matches!(exit, ProcessExit::OutputClosed) {
        print_notice(&format!("tidewire: {}", with_causes(&exit)));
    }
    ExitCode::from(exit.code())
}

/// Whether a person reads our output.
pub fn is_interactive() -> bool {
    io::stdout().is_terminal()
}

fn output_failed(error: io::Error) -> ProcessExit {
    match error.kind() {
        ErrorKind::BrokenPipe => ProcessExit::OutputClosed,
        _ => ProcessExit::because("could not write to standard output", error),
    }
}
