//! Decodes whatever it is given: `cargo +nightly fuzz run --fuzz-dir tests/fuzz command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (syncnet_fuzz::decoders::named("command").run)(bytes);
});
