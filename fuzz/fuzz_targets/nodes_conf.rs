#![no_main]
//! See `entries::nodes_conf`.

#[allow(dead_code)]
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::nodes_conf(data));
