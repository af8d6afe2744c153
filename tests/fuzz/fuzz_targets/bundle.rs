//! Any bytes as a bundle.
#![no_main]

#[path = "../bodies/bundle.rs"]
mod bundle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bundle::read(bytes));
