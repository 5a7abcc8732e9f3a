//! Starts processes that can't outlive this one, not even when it is killed.
//!
//! The kernel can be asked to kill a process when its parent dies, but it takes the *thread* that
//! forked for the parent. Tests run in threads that end with them, so one thread that lives as long
//! as the process starts everything.

use std::io;
use std::process::{Child, Command};
use std::sync::{LazyLock, mpsc};
use std::thread;

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<SpawnRequest>();
    thread::spawn(move || {
        for (mut command, reply) in jobs {
            // Whoever asked may have panicked meanwhile.
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

/// Starts it. The child's id is that of the program itself.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    SPAWNER.send((command, reply)).expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers every job")
}
