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
    b"\x00\x05hello\x0a\0\0\0\0\0\0\0\0\0",
    b"\x12\x01\x02\x0f\x0f\x00\x00\x00\x03\x00\x81a\x02\x01\x01\xc1,\x02\xff\x0a\0\0\0\0\0\0\0\0\0",
    b"\x0b\x14\x04\0\0\0\x03\0\0\0\x01\0\0\0\x02\0\0\0p\x11\x01\0\x0a\0\0\0\0\0\0\0\0\0",
    b"\x02\x02\x01a\x01b\x0a\0\0\0\0\0\0\0\0\0",
    b"\x10\x12\x12\0\0\0\x04\0\x81f\x02\x81v\x02\x81n\x02\x05\x01\xff\x0a\0\0\0\0\0\0\0\0\0",
    b"\x11\x14\x14\0\0\0\x04\0\x81a\x02\x01\x01\x81b\x02\x832.5\x04\xff\x0a\0\0\0\0\0\0\0\0\0",
    b"\x13\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x1d\x1d\0\0\0\x0a\0\x01\x01\0\x01\x01\x01\x81f\x02\0\x01\x02\x01\0\x01\0\x01\x81v\x02\x04\x01\xff\x01\x01\x01\x01\x01\0\0\x01\x01\x01g\x01\x01\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01+\xd2.\x05\xa2\x01\0\0\x01\x01\x01c+\xd2.\x05\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x0a\0\0\0\0\0\0\0\0\0",
    b"\xfa\x09redis-ver\x057.0.0\xfe\0\xfb\x02\x01\xfc\x01\x02\x03\x04\x05\x06\x07\x08\0\x01k\xc0\x05\xf9\x03\x05\x01z\x01\x01m\0\0\0\0\0\0\xf0?\xff\0\0\0\0\0\0\0\0",
    b"#TS:1700000000\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nEXEC\r\n",
    b"\x04\n+FULLRESYNC aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb 7\r\n\n$5\r\nabcde*1\r\n$4\r\nPING\r\n",
    b"\x0d+FULLRESYNC aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb 7\r\n$EOF:aabaabaabaabaabaabaabaabaabaabaabaabaabb\r\ndump aabaabaabaabaabaabaabaabaabaabaabaabaabaabaabaabbs",
    b"\x05+CONTINUE aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb\r\n*1\r\n$4\r\nPING\r\n",
    b"\x06-ERR unknown command\r\n$3\r\nabc",
    b"&user alice on >p ~a* %R~b +@all -config +config|get db=1,2 (+get %W~x)\nuser bob reset +select|0\n",
    b"file a.aof.1.base.rdb seq 1 type b\nfile \"b c\" seq 2 type i\n# x\nfile d seq 1 type h\n",
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
    let targets: [(&str, Target); 19] = [
        ("parse_request", entries::parse_request),
        ("read_reply", entries::read_reply),
        ("glob", entries::glob),
        ("split_args", entries::split_args),
        ("listpack", entries::listpack),
        ("lzf", entries::lzf),
        ("stream_block", entries::stream_block),
        ("hyperloglog", entries::hyperloglog),
        ("intset", entries::intset),
        ("functions", entries::functions),
        ("restore", entries::restore),
        ("rdb_file", entries::rdb_file),
        ("aof_reader", entries::aof_reader),
        ("manifest", entries::manifest),
        ("users", entries::users),
        ("primary", entries::primary),
        ("bus", entries::bus),
        ("nodes_conf", entries::nodes_conf),
        ("tls_records", entries::tls_records),
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
