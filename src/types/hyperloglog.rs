//! HyperLogLogs: how many different elements were seen, within about 0.8 %, in at most 12 KiB.
//!
//! They are strings that begin with a header of 16 bytes:
//!
//! ```text
//! | H Y L L | encoding, 1 | unused, 3 | last count, 8, LE; its top bit: out of date |
//! ```
//!
//! Behind it stand 16,384 registers, each the longest run of zeros (plus one) that the hashes of
//! its elements ended in. *Dense*: 6 bits each, least significant first. *Sparse*: runs of registers
//! with one value, by these opcodes:
//!
//! ```text
//! 00llllll            l + 1 registers of 0
//! 01llllll llllllll   l + 1 registers of 0
//! 1vvvvvll            l + 1 registers of v + 1
//! ```
//!
//! The bytes are Redis' own to the last, as they travel in dumps and between servers. Any client can
//! write what looks like one: nothing here trusts the bytes, and [`Corrupt`] says what they are.

/// Bits of a hash that choose the register.
const CHOOSING: u32 = 14;
/// Registers of each.
pub const REGISTERS: usize = 1 << CHOOSING;
/// Bits of a hash in which zeros are counted.
const COUNTED: usize = 64 - CHOOSING as usize;
const HEADER: usize = 16;
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// Greatest value and longest run of a sparse opcode for values.
const VALUE_MAX: u8 = 32;
const VALUE_RUN: usize = 4;
/// Longest run of the short opcode for zeros.
const ZERO_RUN: usize = 64;

/// The registers are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// An empty one.
pub fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(b"HYLL");
    bytes[4] = SPARSE;
    push_zeros(&mut bytes, REGISTERS);
    bytes
}

/// True for a string that has the header of one, and the length that this asks for.
pub fn is_one(bytes: &[u8]) -> bool {
    match bytes.get(4) {
        _ if bytes.len() < HEADER || !bytes.starts_with(b"HYLL") => false,
        Some(&DENSE) => bytes.len() == DENSE_LEN,
        encoding => encoding == Some(&SPARSE),
    }
}

/// True for the dense encoding.
pub fn is_dense(bytes: &[u8]) -> bool {
    bytes[4] == DENSE
}

/// Marks the last count as out of date.
pub fn forget_count(bytes: &mut [u8]) {
    bytes[15] |= 0x80;
}

/// The last count, unless it is out of date.
pub fn last_count(bytes: &[u8]) -> Option<u64> {
    let count = bytes[8..HEADER].try_into().expect("eight bytes");
    (bytes[15] & 0x80 == 0).then_some(u64::from_le_bytes(count))
}

/// Keeps a count.
pub fn keep_count(bytes: &mut [u8], count: u64) {
    bytes[8..HEADER].copy_from_slice(&count.to_le_bytes());
}

/// One opcode of the sparse encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    /// What the registers hold.
    value: u8,
    /// How many registers.
    len: usize,
    /// Bytes of the opcode.
    size: usize,
}

/// The opcode at the front of `bytes`, which are not empty. A long one that is cut off reads as if
/// a zero followed, and ends behind the end.
fn run(bytes: &[u8]) -> Run {
    let first = bytes[0];
    let (value, len, size) = match first >> 6 {
        0 => (0, usize::from(first & 63), 1),
        1 => {
            let low = bytes.get(1).copied().unwrap_or(0);
            (0, usize::from(first & 63) << 8 | usize::from(low), 2)
        }
        _ => ((first >> 2 & 31) + 1, usize::from(first & 3), 1),
    };
    Run {
        value,
        len: len + 1,
        size,
    }
}

/// The opcodes of a sparse one.
fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut rest = &bytes[HEADER..];
    std::iter::from_fn(move || {
        let run = (!rest.is_empty()).then(|| run(rest))?;
        rest = rest.get(run.size..).unwrap_or_default();
        Some(run)
    })
}

fn push_zeros(to: &mut Vec<u8>, len: usize) {
    match len {
        0 => {}
        1..=ZERO_RUN => to.push(len as u8 - 1),
        _ => to.extend_from_slice(&[0x40 | ((len - 1) >> 8) as u8, (len - 1) as u8]),
    }
}

fn value_run(value: u8, len: usize) -> u8 {
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

/// Shows each run of registers with its place; all registers are covered, or it is corrupt.
fn each_run(bytes: &[u8], mut show: impl FnMut(usize, Run)) -> Result<(), Corrupt> {
    let mut index = 0;
    for run in runs(bytes) {
        if index + run.len > REGISTERS {
            return Err(Corrupt);
        }
        show(index, run);
        index += run.len;
    }
    if index == REGISTERS {
        Ok(())
    } else {
        Err(Corrupt)
    }
}

fn dense_get(registers: &[u8], index: usize) -> u8 {
    let (at, shift) = (index * 6 / 8, index * 6 % 8);
    let high = registers.get(at + 1).copied().unwrap_or(0);
    let word = u16::from(registers[at]) | u16::from(high) << 8;
    (word >> shift) as u8 & 63
}

fn dense_put(registers: &mut [u8], index: usize, value: u8) {
    let (at, shift) = (index * 6 / 8, index * 6 % 8);
    let (mask, value) = (63u16 << shift, u16::from(value) << shift);
    registers[at] = registers[at] & !(mask as u8) | value as u8;
    if mask > 0xff {
        registers[at + 1] = registers[at + 1] & !((mask >> 8) as u8) | (value >> 8) as u8;
    }
}

/// The register of an element, and the value that it asks for.
fn place_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let zeros = (hash >> CHOOSING | 1 << COUNTED).trailing_zeros();
    (hash as usize % REGISTERS, zeros as u8 + 1)
}

/// MurmurHash64A with the seed that all HyperLogLogs share.
fn murmur(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xadc8_3b19;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut k = u64::from_le_bytes(word.try_into().expect("eight bytes")).wrapping_mul(M);
        k = (k ^ k >> 47).wrapping_mul(M);
        hash = (hash ^ k).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

/// Adds an element; true when that changed a register. Beyond `sparse_max` bytes (with the header)
/// it becomes dense.
pub fn add(bytes: &mut Vec<u8>, element: &[u8], sparse_max: usize) -> Result<bool, Corrupt> {
    let (index, value) = place_of(element);
    raise(bytes, index, value, sparse_max)
}

/// Raises a register to `value`, if it is lower; true when it was.
fn raise(bytes: &mut Vec<u8>, index: usize, value: u8, sparse_max: usize) -> Result<bool, Corrupt> {
    if !is_dense(bytes) {
        if value <= VALUE_MAX
            && let Some(raised) = raise_sparse(bytes, index, value, sparse_max)?
        {
            return Ok(raised);
        }
        make_dense(bytes)?;
    }
    let registers = &mut bytes[HEADER..];
    let raised = dense_get(registers, index) < value;
    if raised {
        dense_put(registers, index, value);
    }
    Ok(raised)
}

/// As [`raise`] for the sparse encoding; `None` when that would get too long.
fn raise_sparse(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max: usize,
) -> Result<Option<bool>, Corrupt> {
    let (mut at, mut before, mut first) = (HEADER, HEADER, 0);
    let found = loop {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty());
        let run = run(rest.ok_or(Corrupt)?);
        if index < first + run.len {
            break run;
        }
        before = at;
        at += run.size;
        first += run.len;
    };
    if at + found.size > bytes.len() {
        return Err(Corrupt);
    }
    if found.value >= value {
        return Ok(Some(false));
    }
    let (left, right) = (index - first, first + found.len - 1 - index);
    let mut parts = Vec::with_capacity(5);
    let push = |parts: &mut Vec<u8>, len: usize| match found.value {
        0 => push_zeros(parts, len),
        _ if len > 0 => parts.push(value_run(found.value, len)),
        _ => {}
    };
    push(&mut parts, left);
    parts.push(value_run(value, 1));
    push(&mut parts, right);
    let grows = parts.len() > found.size;
    if grows && bytes.len() + parts.len() - found.size > sparse_max {
        return Ok(None);
    }
    bytes.splice(at..at + found.size, parts);
    join_values(bytes, before);
    forget_count(bytes);
    Ok(Some(true))
}

/// Joins neighbouring runs of one value, among the next five opcodes or joints from `at` on.
fn join_values(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
            return;
        };
        let one = run(rest);
        if one.value > 0 && rest.len() > 1 {
            let other = run(&rest[1..]);
            if other.value == one.value && one.len + other.len <= VALUE_RUN {
                bytes[at] = value_run(one.value, one.len + other.len);
                bytes.remove(at + 1);
                continue;
            }
        }
        at += one.size;
    }
}

/// Makes it dense; true when it was not.
pub fn make_dense(bytes: &mut Vec<u8>) -> Result<bool, Corrupt> {
    if is_dense(bytes) {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER].copy_from_slice(&bytes[..HEADER]);
    dense[4] = DENSE;
    each_run(bytes, |index, run| {
        if run.value > 0 {
            let registers = &mut dense[HEADER..];
            (index..index + run.len).for_each(|i| dense_put(registers, i, run.value));
        }
    })?;
    *bytes = dense;
    Ok(true)
}

/// The registers of a dense one, in order.
pub fn dense_registers(bytes: &[u8]) -> impl Iterator<Item = u8> {
    (0..REGISTERS).map(|index| dense_get(&bytes[HEADER..], index))
}

/// The opcodes of a sparse one as text: `z` and `Z` with the length of a run of zeros, `v` with value
/// and length.
pub fn opcodes(bytes: &[u8]) -> String {
    let text = runs(bytes).map(|run| match run {
        Run {
            value: 0,
            size: 1,
            len,
        } => format!("z:{len}"),
        Run { value: 0, len, .. } => format!("Z:{len}"),
        Run { value, len, .. } => format!("v:{value},{len}"),
    });
    text.collect::<Vec<_>>().join(" ")
}

/// How many elements it has seen, by its registers.
pub fn count(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0; 64];
    if is_dense(bytes) {
        dense_registers(bytes).for_each(|value| histogram[usize::from(value)] += 1);
    } else {
        each_run(bytes, |_, run| histogram[usize::from(run.value)] += run.len)?;
    }
    Ok(estimate(&histogram))
}

/// The registers of a union.
pub struct Union {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Union {
    fn default() -> Self {
        Self {
            registers: Box::new([0; REGISTERS]),
        }
    }
}

impl Union {
    /// Takes the elements of another one in.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        if is_dense(bytes) {
            for (own, other) in self.registers.iter_mut().zip(dense_registers(bytes)) {
                *own = (*own).max(other);
            }
            return Ok(());
        }
        each_run(bytes, |index, run| {
            for own in &mut self.registers[index..index + run.len] {
                *own = (*own).max(run.value);
            }
        })
    }

    /// How many elements it has.
    pub fn count(&self) -> u64 {
        let mut histogram = [0; 64];
        for value in self.registers.iter() {
            histogram[usize::from(*value)] += 1;
        }
        estimate(&histogram)
    }

    /// Raises the registers of `bytes` to these.
    pub fn write_to(&self, bytes: &mut Vec<u8>, sparse_max: usize) -> Result<(), Corrupt> {
        let used = self
            .registers
            .iter()
            .enumerate()
            .filter(|(_, value)| **value > 0);
        for (index, value) in used {
            raise(bytes, index, *value, sparse_max)?;
        }
        forget_count(bytes);
        Ok(())
    }
}

/// Otmar Ertl's estimator (arXiv:1702.01284) over the number of registers of each value.
fn estimate(histogram: &[usize; 64]) -> u64 {
    const HALF_BY_LN_2: f64 = 0.721_347_520_444_481_7;
    let m = REGISTERS as f64;
    let share = |count: usize| count as f64 / m;
    let mut z = m * tau((m - histogram[COUNTED + 1] as f64) / m);
    for value in (1..=COUNTED).rev() {
        z += histogram[value] as f64;
        z *= 0.5;
    }
    z += m * sigma(share(histogram[0]));
    let estimate = (HALF_BY_LN_2 * m * m / z).round();
    if estimate < (1u64 << 63) as f64 {
        estimate as u64
    } else {
        // Registers that no elements lead to: what a conversion in hardware gives.
        1 << 63
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// Holds the registers against plain numbers, and the estimates against the truth; what is wrong, if
/// anything is.
pub fn self_test(sparse_max: usize) -> Result<(), String> {
    let mut dense = empty();
    make_dense(&mut dense).map_err(|_| "an empty one is corrupt")?;
    let mut expected = [0; REGISTERS];
    for _ in 0..1000 {
        crate::base::random::fill(&mut expected);
        expected.iter_mut().for_each(|value| *value &= 63);
        for (index, value) in expected.iter().enumerate() {
            dense_put(&mut dense[HEADER..], index, *value);
        }
        for (i, (is, should)) in dense_registers(&dense).zip(expected).enumerate() {
            if is != should {
                return Err(format!("Register {i} should be {should} but is {is}"));
            }
        }
    }
    dense[HEADER..].fill(0);
    let (mut sparse, seed) = (empty(), crate::base::random::bits());
    let mut checkpoint = 1u64;
    for n in 1..=10_000_000u64 {
        let element = (n ^ seed).to_le_bytes();
        let added =
            add(&mut dense, &element, sparse_max).and(add(&mut sparse, &element, sparse_max));
        added.map_err(|_| "registers are corrupt")?;
        if n != checkpoint {
            continue;
        }
        if n < sparse_max as u64 / 2 && is_dense(&sparse) {
            return Err("sparse encoding not used".into());
        }
        let estimate = count(&dense).map_err(|_| "registers are corrupt")?;
        if count(&sparse) != Ok(estimate) {
            return Err("dense/sparse disagree".into());
        }
        let relative = 1.04 / (REGISTERS as f64).sqrt();
        let most = match n {
            10 => 1,
            _ => (relative * 6.0 * n as f64).ceil() as u64,
        };
        let error = n.abs_diff(estimate);
        if error > most {
            return Err(format!("Too big error. card:{n} abserr:{error}"));
        }
        checkpoint *= 10;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_and_dense_agree() {
        let (mut sparse, mut dense) = (empty(), empty());
        make_dense(&mut dense).expect("well formed");
        assert_eq!(opcodes(&sparse), "Z:16384");
        for n in 0..3000u32 {
            let element = format!("{n}");
            let one = add(&mut sparse, element.as_bytes(), 1 << 20);
            assert_eq!(one, add(&mut dense, element.as_bytes(), 0));
            if n % 100 == 0 {
                assert_eq!(count(&sparse), count(&dense));
            }
        }
        assert!(!is_dense(&sparse) && is_one(&sparse));
        let mut made = sparse.clone();
        assert_eq!(make_dense(&mut made), Ok(true));
        assert_eq!(made[HEADER..], dense[HEADER..]);
        let estimate = count(&sparse).expect("well formed");
        assert!(estimate.abs_diff(3000) < 100, "{estimate}");
    }

    #[test]
    fn grows_dense_at_the_limit() {
        let mut bytes = empty();
        for n in 0..5000u32 {
            add(&mut bytes, &n.to_le_bytes(), 3000).expect("well formed");
            assert!(is_dense(&bytes) || bytes.len() <= 3000);
        }
        assert!(is_dense(&bytes));
    }

    #[test]
    fn unions() {
        let (mut a, mut b) = (empty(), empty());
        for n in 0..2000u32 {
            add(&mut a, &n.to_le_bytes(), 3000).expect("well formed");
            add(&mut b, &(n + 1000).to_le_bytes(), 300).expect("well formed");
        }
        let mut union = Union::default();
        union.add(&a).expect("well formed");
        union.add(&b).expect("well formed");
        assert!(union.count().abs_diff(3000) < 100);
        let mut merged = empty();
        union.write_to(&mut merged, 3000).expect("well formed");
        assert_eq!(count(&merged), Ok(union.count()));
    }

    #[test]
    fn corrupt_ones_are_told() {
        let mut long = empty();
        long.push(0);
        assert_eq!(count(&long), Err(Corrupt));
        assert_eq!(make_dense(&mut long), Err(Corrupt));
        let mut short = empty();
        short.truncate(HEADER);
        assert_eq!(count(&short), Err(Corrupt));
        assert_eq!(add(&mut short, b"x", 3000), Err(Corrupt));
        let mut cut = empty();
        cut.pop();
        assert_eq!(add(&mut cut, b"x", 3000), Err(Corrupt));
        assert!(!is_one(b"HYLL") && !is_one(b"HYLL\x02___________________"));
    }
}
