//! CPU time and resident memory of a process, read from `/proc`.
//!
//! Read from outside, so that a server and the load generator are never added together. Linux only,
//! as the product's benchmarks are.

use std::fs;
use std::io;
use std::time::Duration;

/// `/proc/PID/stat` counts CPU time in `USER_HZ`, which Linux fixes at 100 for every ABI we build
/// for.
const USER_TICKS_PER_SECOND: u64 = 100;

/// The index of `utime` among the fields after the command's closing parenthesis.
const UTIME_FIELD: usize = 11;

/// What one process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all threads, ended ones included.
    pub cpu: Duration,
    /// Memory resident now, in bytes.
    pub resident_bytes: u64,
    /// The peak of resident memory, in bytes.
    pub peak_bytes: u64,
}

/// Reads what the process has used. Fails if it is gone or its `/proc` files have another form.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| unexpected("stat", pid))?;
    let kib = |name| kib(&status, name).ok_or_else(|| unexpected("status", pid));
    Ok(Usage {
        cpu: Duration::from_millis(ticks * 1_000 / USER_TICKS_PER_SECOND),
        resident_bytes: kib("VmRSS:")? * 1_024,
        peak_bytes: kib("VmHWM:")? * 1_024,
    })
}

fn unexpected(file: &str, pid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/{file} has another form"))
}

/// The command may contain spaces and parentheses, so fields are counted from the last `)`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(UTIME_FIELD);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(usage.peak_bytes >= usage.resident_bytes, "{usage:?}");
    }
}
