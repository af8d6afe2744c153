//! Any bytes as a build: good seeds are small executables with debug information.
#![no_main]

#[path = "../bodies/builds.rs"]
mod builds;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| builds::compare(bytes, bytes));
