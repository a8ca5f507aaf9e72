//! Safetensors files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| subspan_io_fuzz::read("t.safetensors", bytes));
