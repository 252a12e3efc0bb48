//! Data sets: what a server is filled with before something is measured, or so that its memory is.

use std::time::Instant;

use crate::{Options, Stream, lines, refuse_errors, render};

/// A data set: the same commands, in the same order, for every server.
struct Set {
    pub name: &'static str,
    /// The keys that are deleted first, when they are few.
    clears: &'static [&'static str],
    /// Commands, and elements of each: a key, or a field, member or item of a collection.
    count: fn(&Options) -> u64,
    elements: u64,
    /// Lines of a command's reply.
    lines: usize,
    /// Renders command `n`.
    render: fn(&Options, u64, &mut Vec<u8>),
}

const fn set(
    name: &'static str,
    clears: &'static [&'static str],
    count: fn(&Options) -> u64,
    render: fn(&Options, u64, &mut Vec<u8>),
) -> Set {
    Set {
        name,
        clears,
        count,
        elements: 1,
        lines: 1,
        render,
    }
}

/// Members of each of the two sets that `sinter` meets.
const MEET: u64 = 1000;

/// All data sets. `--keys` is the number of elements of the first ones and of those with one key.
const ALL: &[Set] = &[
    // What the operations work on.
    set("keys", &[], keys, |o, n, out| {
        render(out, &[b"SET", &key(o, n), &value(o, n)]);
    }),
    set("counters", &[], keys, |_, n, out| {
        render(out, &[b"SET", &counter(n), b"1"])
    }),
    set("items", &["mylist"], keys, |o, n, out| {
        render(out, &[b"RPUSH", b"mylist", &value(o, n)]);
    }),
    set(
        "nothing",
        &["mylist", "myset", "myhash", "myzset", "mystream"],
        |_| 0,
        |_, _, _| {},
    ),
    set(
        "list_100",
        &["mylist100"],
        |_| 100,
        |o, n, out| {
            render(out, &[b"RPUSH", b"mylist100", &value(o, n)]);
        },
    ),
    set(
        "zset_100",
        &["myzset100"],
        |_| 100,
        |_, n, out| {
            render(out, &[b"ZADD", b"myzset100", &number(n), &element(n)]);
        },
    ),
    set("zset_all", &["myzset"], keys, |o, n, out| {
        render(
            out,
            &[b"ZADD", b"myzset", &number(n), &element(scatter(o, n))],
        );
    }),
    set(
        "two_sets",
        &["set1", "set2"],
        |_| 2 * MEET,
        |_, n, out| {
            render(out, &[b"SADD", half(n), &element(overlapping(n))]);
        },
    ),
    set(
        "two_int_sets",
        &["ints1", "ints2"],
        |_| 2 * MEET,
        |_, n, out| {
            let name: &[u8] = if n < MEET { b"ints1" } else { b"ints2" };
            render(out, &[b"SADD", name, &number(overlapping(n) * 1009)]);
        },
    ),
    // What is weighed.
    set("str16", &[], keys, |_, n, out| {
        render(out, &[b"SET", &long_key(n), text(n, 16)])
    }),
    set("ttl16", &[], keys, |_, n, out| {
        let seconds = number(100_000 + n % 800_000);
        render(out, &[b"SET", &long_key(n), text(n, 16), b"EX", &seconds]);
    }),
    Set {
        elements: 10,
        ..set("hash_small", &[], |_| 200_000, hash_small)
    },
    Set {
        elements: 50,
        ..set("list_small", &[], |_| 50_000, list_small)
    },
    set("hash_big", &["hash"], keys, |_, n, out| {
        let field = format!("field:{n:08}");
        render(out, &[b"HSET", b"hash", field.as_bytes(), text(n, 16)]);
    }),
    set("zset_big", &["zset"], keys, |_, n, out| {
        render(out, &[b"ZADD", b"zset", &number(spread(n)), &member(n)]);
    }),
    set("set_int", &["set"], keys, |_, n, out| {
        render(out, &[b"SADD", b"set", &number(spread(n))])
    }),
    set("set_str", &["set"], keys, |_, n, out| {
        render(out, &[b"SADD", b"set", &member(n)])
    }),
    Set {
        lines: 2,
        ..set("stream", &["stream"], keys, |_, n, out| {
            render(out, &[b"XADD", b"stream", b"*", b"field", text(n, 16)]);
        })
    },
];

fn keys(o: &Options) -> u64 {
    o.keys
}

fn hash_small(_: &Options, n: u64, out: &mut Vec<u8>) {
    let name = format!("hash:{n:08}");
    let fields: Vec<String> = (0..10).map(|field| format!("field{field}")).collect();
    let mut args: Vec<&[u8]> = vec![b"HSET", name.as_bytes()];
    for (at, field) in (n * 10..).zip(&fields) {
        args.extend([field.as_bytes(), text(at, 8)]);
    }
    render(out, &args);
}

fn list_small(_: &Options, n: u64, out: &mut Vec<u8>) {
    let name = format!("list:{n:08}");
    let mut args: Vec<&[u8]> = vec![b"RPUSH", name.as_bytes()];
    args.extend((n * 50..n * 50 + 50).map(|at| text(at, 8)));
    render(out, &args);
}

/// `key:0000000042`, or as many bytes as asked for.
pub(crate) fn key(o: &Options, number: u64) -> Vec<u8> {
    match o.key_bytes {
        0 => format!("key:{number:010}").into_bytes(),
        bytes => format!("k{number:0width$}", width = bytes - 1).into_bytes(),
    }
}

fn long_key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

pub(crate) fn counter(number: u64) -> Vec<u8> {
    format!("counter:{number:010}").into_bytes()
}

pub(crate) fn element(number: u64) -> Vec<u8> {
    format!("element:{number:012}").into_bytes()
}

fn member(number: u64) -> Vec<u8> {
    format!("member:{number:08}").into_bytes()
}

pub(crate) fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The value of a key, item or field, as `--value` says.
pub(crate) fn value(o: &Options, number: u64) -> Vec<u8> {
    match o.value.parse::<usize>() {
        Ok(bytes) => vec![b'v'; bytes],
        Err(_) => (number % 100_000).to_string().into_bytes(),
    }
}

/// `size` bytes that do not compress and are no number, fixed by `number`.
fn text(number: u64, size: usize) -> &'static [u8] {
    static POOL: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        use rand::{Rng, SeedableRng, distr::Alphanumeric, rngs::SmallRng};
        SmallRng::seed_from_u64(1)
            .sample_iter(Alphanumeric)
            .take(1 << 16)
            .collect()
    });
    let at = (number * 7919) as usize % (POOL.len() - size);
    &POOL[at..at + size]
}

/// A one-to-one scatter over 32 bits.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(2_654_435_761) & 0xffff_ffff
}

/// A one-to-one scatter over the numbers below `--keys`, unless that has this prime as a factor.
pub(crate) fn scatter(o: &Options, number: u64) -> u64 {
    number.wrapping_mul(7_368_787) % o.keys.max(1)
}

fn half(n: u64) -> &'static [u8] {
    if n < MEET { b"set1" } else { b"set2" }
}

/// The second set's members begin in the middle of the first one's.
fn overlapping(n: u64) -> u64 {
    if n < MEET { n } else { n - MEET / 2 }
}

/// Writes a data set, some hundred kilobytes at a time.
pub(crate) fn fill(o: &Options) -> std::io::Result<()> {
    let Some(set) = ALL.iter().find(|set| set.name == o.of) else {
        return Err(std::io::Error::other(format!("unknown data set {}", o.of)));
    };
    let mut stream = Stream::open(o)?;
    let begun = Instant::now();
    let (mut batch, mut awaited) = (Vec::new(), 0);
    for name in set.clears {
        render(&mut batch, &[b"DEL", name.as_bytes()]);
        awaited += 1;
    }
    let count = (set.count)(o);
    for n in 0..count {
        (set.render)(o, n, &mut batch);
        awaited += set.lines;
        if batch.len() > 100_000 {
            exchange(&mut stream, &mut batch, &mut awaited)?;
        }
    }
    exchange(&mut stream, &mut batch, &mut awaited)?;
    println!(
        "ops={count} elements={} seconds={:.3}",
        count * set.elements,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn exchange(stream: &mut Stream, batch: &mut Vec<u8>, awaited: &mut usize) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    stream.write_all(batch)?;
    batch.clear();
    while *awaited > 0 {
        let n = stream.read(&mut buffer)?;
        refuse_errors(&buffer[..n])?;
        *awaited = awaited.saturating_sub(lines(&buffer[..n]));
    }
    Ok(())
}
