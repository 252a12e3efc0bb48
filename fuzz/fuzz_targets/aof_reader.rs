#![no_main]
//! See `entries::aof_reader`.

#[allow(dead_code)]
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::aof_reader(data));
