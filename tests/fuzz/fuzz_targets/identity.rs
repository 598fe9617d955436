//! Decodes whatever it is given: `cargo +nightly fuzz run --fuzz-dir tests/fuzz identity`.
#![no_main]

#[path = "../../decoders/mod.rs"]
#[allow(dead_code)]
mod decoders;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (decoders::named("identity").run)(bytes);
});
