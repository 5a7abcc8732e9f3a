//! Asserts that every mutant fails some history, and that the engine without one fails none.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::list::MUTANTS;
use super::package::build;
use super::schema::SWITCH;

/// Most histories each mutant runs: as many as every change has to pass.
const HISTORIES: u64 = 10_000;

/// Histories of the program without a mutant, which is the engine that all mutants share.
const CLEAN: u64 = 2_000;

/// Mutants run in parallel; each runs its histories on every core.
const SIDE_BY_SIDE: usize = 2;

fn run_histories(program: &Path, mutant: Option<&str>, histories: u64) -> Output {
    let mut run = Command::new(program);
    run.arg(histories.to_string()).env_remove(SWITCH);
    run.envs(mutant.map(|name| (SWITCH, name)));
    run.output().expect("a program that was just built can be run")
}

#[test]
fn every_mutant_is_caught() {
    let program = build().unwrap_or_else(|why| panic!("the mutants are not built: {why}"));
    let clean = run_histories(&program, None, CLEAN);
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));
    let next = AtomicUsize::new(0);
    let escaped = Mutex::new(Vec::new());
    let work = || {
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = run_histories(&program, Some(mutant.name), HISTORIES);
            let words = String::from_utf8_lossy(&run.stderr);
            let found = words.lines().find(|line| line.starts_with("history "));
            match found {
                Some(found) => {
                    assert!(words.contains("repeat it with: TIDEWIRE_SIM_SEED="), "{words}");
                    eprintln!("{}: {found}", mutant.name);
                }
                None => {
                    let mut escaped = escaped.lock().expect("nobody panics with it");
                    escaped.push(format!("{}: {} {words}", mutant.name, mutant.breaks));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(work);
        }
    });
    let escaped = escaped.into_inner().expect("nobody panicked with it");
    assert!(escaped.is_empty(), "not caught:\n{}", escaped.join("\n"));
}
