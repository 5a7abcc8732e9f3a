//! Waits until a server has processed what was posted, and its upkeep has nothing to do.

use std::io;
use std::thread;
use std::time::Duration;

use tidewire_tests::process::usage;
use tidewire_tests::server::Server;

/// How long a server must be idle, at less than a twentieth of a processor, before it is measured.
const IDLE_ROUND: Duration = Duration::from_secs(3);

/// Ten minutes.
const IDLE_ROUNDS_MAX: u32 = 200;

pub(crate) fn wait_until_idle(server: &Server) -> io::Result<()> {
    for _ in 0..IDLE_ROUNDS_MAX {
        let before = usage(server.pid())?.cpu;
        thread::sleep(IDLE_ROUND);
        if usage(server.pid())?.cpu.saturating_sub(before) < IDLE_ROUND / 20 {
            return Ok(());
        }
    }
    Err(io::Error::other("the server is still busy ten minutes after the last post"))
}
