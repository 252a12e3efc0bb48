//! Drives the fuzz targets' functions with seeded bytes on stable Rust, for about two seconds.
//!
//! A failure names its seed and round, so it can be run again. `cargo +nightly fuzz run TARGET` in
//! `fuzz/` looks further.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[path = "../fuzz/entries.rs"]
mod entries;

/// Well-formed inputs to mutate, and pieces to insert.
const SEEDS: &[&[u8]] = &[
    b"\x03*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\nPING\r\n*0\r\n",
    b"\x01set a \"b\\x41\" 'c\\'d'\r\n",
    b"\x02*1\r\n$40000\r\nxxxxxxxxxxxxxxxxxxxxxxxxx",
    b"*2\r\n$3\r\nabc\r\n:5\r\n%1\r\n+k\r\n,1.5\r\n|1\r\n+a\r\n#t\r\n_\r\n>1\r\n=6\r\ntxt:hi\r\n",
    b"a*[^a-c]?\\**[x\0abcdefgh*",
    b"x\0-0x1.fffffffffffff8p-1022",
    b"\x00\x001234567890.12345678901234567890e-4950",
    b"-9223372036854775808",
    b"\x02\0\0\0\x03\0\0\0\xff\xff\x05\0\x2c\x01",
    b"\x08\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x80",
    b"\x1c\0\0\0\x05\0\x05\x01\xc1\x00\x02\xf1\x00\x10\x03\x83abc\x04\xe0\x05hello\x07\xff",
    b"2 1 1 f 0 2 0 0 v 4 0 1 0 1 g w 6 3 1 1 x 4",
    b"\x0c\x02abc\xe0\x00\x02",
];

const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"*",
    b"$",
    b"$1\r\na\r\n",
    b"\"",
    b"'",
    b"\\",
    b"\\x",
    b"\0",
    b"[",
    b"]",
    b"^",
    b"-",
    b"inf",
    b"nan",
    b"0x",
    b"e308",
    b"9999999999",
    b"*2147483648\r\n",
    b"$32768\r\n",
    b" 2 0 7 v 4",
    b" 0 1 0 1 f v 6",
    b"\x02abc\xe0\x02\x00",
    b"\x81a\x02",
    b"\xf4\x80\x80\x80\x80\x80\x80\x80\x80\x09",
    b"\xf0\x02\x00\x00\x00ab\x07",
];

/// One or two edits to a seed, or bytes from nowhere.
fn input(rng: &mut SmallRng) -> Vec<u8> {
    if rng.random_ratio(1, 8) {
        let len = rng.random_range(0..200);
        return (0..len).map(|_| rng.random()).collect();
    }
    let mut bytes = SEEDS.choose(rng).expect("there are seeds").to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let copy = bytes[at..].to_vec();
                bytes.extend_from_slice(&copy);
            }
            _ => {
                let piece = PIECES.choose(rng).expect("there are pieces");
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

type Target = fn(&[u8]);

#[test]
fn seeded_bytes_break_no_parser() {
    let targets: [(&str, Target); 9] = [
        ("parse_request", entries::parse_request),
        ("read_reply", entries::read_reply),
        ("glob", entries::glob),
        ("split_args", entries::split_args),
        ("listpack", entries::listpack),
        ("lzf", entries::lzf),
        ("stream_block", entries::stream_block),
        ("hyperloglog", entries::hyperloglog),
        ("intset", entries::intset),
    ];
    let end = Instant::now() + Duration::from_secs(2);
    let mut seed = 0;
    while Instant::now() < end {
        let mut rng = SmallRng::seed_from_u64(seed);
        for round in 0..500 {
            let bytes = input(&mut rng);
            for (name, target) in targets {
                let result = std::panic::catch_unwind(|| target(&bytes));
                assert!(
                    result.is_ok(),
                    "{name}, seed {seed}, round {round}: {bytes:?}"
                );
            }
        }
        seed += 1;
    }
}
