//! Starts child processes that end with this one, even when this one is killed.
//!
//! The kernel can kill a process when its parent dies, but "parent" means the *thread* that forked
//! it. Test threads end early, so one thread that lives as long as the process starts everything.

use std::io;
use std::process::{Child, Command};
use std::sync::{LazyLock, mpsc};
use std::thread;

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<SpawnRequest>();
    thread::spawn(move || {
        for (mut command, reply) in jobs {
            // The caller may have panicked in the meantime.
            reply.send(command.spawn()).ok();
        }
    });
    sender
});

/// A command whose process, once started by [`spawn`], is killed when this process ends.
pub fn command(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Starts the command. The child's id is that of the program itself.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    SPAWNER.send((command, reply)).expect("the spawner thread lives as long as the process");
    answer.recv().expect("the spawner thread replies to every request")
}
