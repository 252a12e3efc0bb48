//! LZF: the fast, weak compression of list nodes and of strings in RDB files.
//!
//! ```text
//!  000LLLLL                    literal run: the next L + 1 bytes as they are
//!  LLLooooo oooooooo           L + 2 bytes again, from o + 1 bytes back (L from 1 to 6)
//!  111ooooo LLLLLLLL oooooooo  L + 9 bytes again, from o + 1 bytes back
//! ```
//!
//! What is compressed here need not be the very bytes that another compressor gives, any
//! decompressor reads it. Decompressing trusts nothing: neither panics nor allocates beyond what
//! so many bytes of input can stand for.

use std::cell::RefCell;

/// Most bits of the number of a slot.
const MOST_BITS: u32 = 15;
/// Farthest that a repetition reaches back, in bytes.
const REACH: usize = 1 << 13;
/// Longest repetition in bytes.
const LONGEST: usize = 264;
/// Most bytes for which room is made before they have come.
const AHEAD: usize = 1 << 20;
/// Longest run of literal bytes.
const RUN: usize = 32;
/// Shortest repetition in bytes.
const SHORTEST: usize = 3;

/// What compressing needs and the next input can use again. Positions in `last_seen` count on from
/// one input to the next, so what is there of former ones is known by its number.
#[derive(Default)]
struct Scratch {
    last_seen: Vec<u32>,
    /// What was given to former inputs; positions are stored above it.
    base: u32,
    out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Compresses `input` to at most `max_len` bytes, or gives nothing.
pub fn compress(input: &[u8], max_len: usize) -> Option<Vec<u8>> {
    compressed(input, max_len, <[u8]>::to_vec)
}

/// As [`compress`], but only shows the result.
pub fn compressed<R>(input: &[u8], max_len: usize, show: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let len = u32::try_from(input.len()).ok()?;
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.last_seen.is_empty() || scratch.base.checked_add(len).is_none() {
            scratch.last_seen.clear();
            scratch.last_seen.resize(1 << MOST_BITS, 0);
            scratch.base = 0;
        }
        scratch.out.clear();
        let fits = scratch.compress(input, max_len);
        scratch.base += len;
        (fits && !input.is_empty()).then(|| show(&scratch.out))
    })
}

impl Scratch {
    /// Compresses to `out`; false, and nothing whole, when that is longer than `max_len`.
    fn compress(&mut self, input: &[u8], max_len: usize) -> bool {
        // One slot per byte of input finds nearly all there is; small inputs need no big table.
        let bits = (usize::BITS - input.len().leading_zeros()).clamp(8, MOST_BITS);
        let seen = &mut self.last_seen[..1 << bits];
        let (base, out) = (self.base, &mut self.out);
        let (mut at, mut literals) = (0, 0);
        while let Some(&three) = input[at..].first_chunk::<SHORTEST>() {
            // Positions are stored one higher, so that none is at or below `base`.
            let candidate = std::mem::replace(&mut seen[slot(three, bits)], base + at as u32 + 1);
            let length = match candidate.checked_sub(base + 1) {
                Some(earlier) if at - earlier as usize <= REACH => {
                    common(input, earlier as usize, at)
                }
                _ => 0,
            };
            if length < SHORTEST {
                at += 1;
                continue;
            }
            push_literals(out, &input[literals..at]);
            // What is stored one higher is one byte nearer: that is how the format counts.
            push_repetition(out, at - (candidate - base) as usize, length);
            if out.len() > max_len {
                return false;
            }
            at += length;
            literals = at;
            // The next repetition often begins where this one ends, or a byte before.
            for before in [at - 2, at - 1] {
                if let Some(&three) = input[before..].first_chunk::<SHORTEST>() {
                    seen[slot(three, bits)] = base + before as u32 + 1;
                }
            }
        }
        if out.len() + input.len() - literals > max_len {
            return false;
        }
        push_literals(out, &input[literals..]);
        out.len() <= max_len
    }
}

#[inline]
fn slot(three: [u8; SHORTEST], bits: u32) -> usize {
    let key = u32::from_le_bytes([three[0], three[1], three[2], 0]);
    (key.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
}

/// How many bytes at `earlier` and at `at` are alike, at most [`LONGEST`].
fn common(input: &[u8], earlier: usize, at: usize) -> usize {
    let most = LONGEST.min(input.len() - at);
    let (one, other) = (&input[earlier..earlier + most], &input[at..at + most]);
    let mut same = 0;
    while let (Some(a), Some(b)) = (
        one[same..].first_chunk::<8>(),
        other[same..].first_chunk::<8>(),
    ) {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return same + difference.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = one[same..].iter().zip(&other[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

fn push_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(RUN) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

/// A repetition of `length` bytes from `offset + 1` bytes back, where `offset` is below [`REACH`].
fn push_repetition(out: &mut Vec<u8>, offset: usize, length: usize) {
    let (high, length) = ((offset >> 8) as u8, length - 2);
    if length < 7 {
        out.push((length as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (length - 7) as u8]);
    }
    out.push(offset as u8);
}

/// Decompresses `input`, which must give exactly `len` bytes.
pub fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > input.len().saturating_mul(LONGEST) {
        return None;
    }
    // Room for more is made when it has come: the length may be a lie.
    let mut out = Vec::with_capacity(len.min(AHEAD));
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if usize::from(control) < RUN {
            let (run, after) = rest.split_at_checked(usize::from(control) + 1)?;
            rest = after;
            out.extend_from_slice(run);
        } else {
            let mut length = usize::from(control >> 5);
            if length == 7 {
                let (&more, after) = rest.split_first()?;
                (length, rest) = (length + usize::from(more), after);
            }
            let (&low, after) = rest.split_first()?;
            rest = after;
            let back = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
            repeat(&mut out, back, length + 2, len)?;
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

/// Appends `length` bytes from `back` bytes before the end; these may reach into themselves.
fn repeat(out: &mut Vec<u8>, back: usize, length: usize, limit: usize) -> Option<()> {
    let from = out.len().checked_sub(back)?;
    if out.len() + length > limit {
        return None;
    }
    // What reaches into itself has a period, of which each step makes more available.
    let mut left = length;
    while left > 0 {
        let available = left.min(out.len() - from);
        out.extend_from_within(from..from + available);
        left -= available;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(input: &[u8], compressed: Option<&[u8]>) {
        let found = compress(input, input.len());
        assert_eq!(found.as_deref(), compressed);
        if let Some(found) = found {
            assert_eq!(decompress(&found, input.len()).as_deref(), Some(input));
        }
    }

    #[test]
    fn repetitions_are_told_once() {
        check(b"", None);
        check(b"abcdefgh", None);
        check(b"abcabcabc", Some(b"\x02abc\x80\x02"));
        check(&[b'a'; 12], Some(b"\x00a\xe0\x02\x00"));
        check(&[b'a'; 300], Some(b"\x00a\xe0\xff\x00\xe0\x1a\x00"));
    }

    #[test]
    fn repetitions_reach_8192_bytes_back() {
        let far = |gap: usize| {
            let noise = (0..gap).map(|i| (i as u32).wrapping_mul(0x9e37_79b1) >> 7);
            let noise: Vec<u8> = noise.map(|n| n as u8).collect();
            [b"same bytes again", &noise[..], b"same bytes again"].concat()
        };
        for gap in [8192 - 16, 8192 - 15, 9000] {
            let input = far(gap);
            let packed = compress(&input, input.len() * 2).expect("room");
            assert_eq!(decompress(&packed, input.len()), Some(input));
        }
    }

    #[test]
    fn what_is_no_lzf_is_refused() {
        let check = |input: &[u8], len| assert_eq!(decompress(input, len), None, "{input:?}");
        check(b"\x02ab", 3);
        check(b"\x00a\xe0", 12);
        check(b"\x00a\xe0\x02", 12);
        check(b"\x00a\xe0\x02\x01", 12);
        check(b"\x00a\xe0\x02\x00", 11);
        check(b"\x00a\xe0\x02\x00", 13);
        check(b"\x00a", usize::MAX);
        check(b"", 1);
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(
            parts in prop::collection::vec((prop::collection::vec(0u8..4, 1..40), 1usize..30), 0..20)
        ) {
            let input: Vec<u8> = parts.iter().flat_map(|(part, n)| part.repeat(*n)).collect();
            if let Some(packed) = compress(&input, input.len()) {
                prop_assert!(packed.len() <= input.len());
                prop_assert_eq!(decompress(&packed, input.len()), Some(input));
            }
        }

        #[test]
        fn any_bytes_give_the_asked_length_or_nothing(
            input in prop::collection::vec(any::<u8>(), 0..60), len in 0usize..400
        ) {
            if let Some(out) = decompress(&input, len) {
                prop_assert_eq!(out.len(), len);
            }
        }
    }
}
