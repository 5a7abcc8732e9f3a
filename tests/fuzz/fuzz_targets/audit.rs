//! `audit` of `tests/src/fuzz.rs` for cargo-fuzz.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (tidewire_tests::fuzz::target("audit").run)(input);
});
