//! Decodes whatever it is given: `cargo +nightly fuzz run --fuzz-dir tests/fuzz identity`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (syncnet_fuzz::decoders::named("identity").run)(bytes);
});
