#![no_main]
//! See `entries::stream_block`.

#[allow(dead_code)]
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::stream_block(data));
