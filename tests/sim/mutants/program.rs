//! The simulation as a program, on an engine with a mutant switch: `program HISTORIES`.
//!
//! The package of the mutants builds it. It fails at the first history that fails.

#[path = "../fake/mod.rs"]
mod fake;
#[path = "../histories.rs"]
mod histories;
#[path = "../model/mod.rs"]
mod model;
#[path = "../operators.rs"]
mod operators;
#[path = "../replay.rs"]
mod replay;
#[path = "../../src/test_rng.rs"]
mod test_rng;
#[path = "../world/mod.rs"]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    match histories::run(0..count.expect("how many histories")) {
        Ok(counts) => {
            println!("{counts:?}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
