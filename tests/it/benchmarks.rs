//! Runs every benchmark with small sizes, so that none stops working.
//!
//! Each must deliver what it expects; its speed is not checked.

use std::process::Command;

fn run(binary: &str, arguments: &[&str]) {
    let output = Command::new(binary).args(arguments).output().expect("cargo built it");
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{printed}\n{complaint}", output.status);
}

#[test]
fn fan_out_delivers_everything_it_should_from_both_servers() {
    let arguments = ["--connections", "60", "--seconds", "1"];
    run(env!("CARGO_BIN_EXE_bench-fanout"), &arguments);
}

#[test]
fn every_form_of_an_event_is_read() {
    run(env!("CARGO_BIN_EXE_bench-formats"), &["2000"]);
}

#[test]
fn new_ids_are_accepted_and_copies_dropped_from_a_store_on_disk() {
    run(env!("CARGO_BIN_EXE_bench-dedup"), &["2000", "6000"]);
}

#[test]
fn operators_are_measured_in_one_task_and_packs_in_several() {
    run(env!("CARGO_BIN_EXE_bench-operators"), &["500"]);
    run(env!("CARGO_BIN_EXE_bench-operators"), &["500", "--tasks", "3"]);
}

#[test]
fn others_get_every_event_beside_a_busy_account_and_a_popular_post() {
    let arguments = ["--rate", "50", "--seconds", "1", "--likes", "2000"];
    run(env!("CARGO_BIN_EXE_bench-skew"), &arguments);
}

#[test]
fn the_state_of_many_users_is_made_whole_and_others_get_every_event_beside_them() {
    let arguments = ["--rate", "50", "--seconds", "1", "--users", "2000"];
    run(env!("CARGO_BIN_EXE_bench-skew"), &arguments);
}

#[test]
fn the_pipeline_on_kafka_delivers_everything_and_reports_its_hops() {
    let arguments = ["--log", "kafka", "--seconds", "1", "--rate", "200", "--subscribers", "10"];
    run(env!("CARGO_BIN_EXE_bench-pipeline"), &[&arguments[..], &["--events", "5000"]].concat());
}

#[test]
fn the_pipeline_delivers_everything_at_a_steady_rate_and_at_once() {
    let arguments = ["--seconds", "1", "--rate", "200", "--subscribers", "10", "--events", "5000"];
    run(env!("CARGO_BIN_EXE_bench-pipeline"), &arguments);
}

#[test]
fn derive_and_kafka_streams_count_every_record_and_output_each_once() {
    let arguments = ["--runs", "1", "--records", "100000", "--keys", "2000", "--rate", "200"];
    let arguments = [&arguments[..], &["--warm-up", "1", "--seconds", "2"]].concat();
    run(env!("CARGO_BIN_EXE_bench-derive"), &arguments);
}

#[test]
fn kills_on_each_log_lose_duplicate_and_reorder_nothing() {
    // A seed whose round has passed before.
    let arguments = ["--round", "0", "--kills", "5", "--seed", "3"];
    run(env!("CARGO_BIN_EXE_soak"), &arguments);
}
