//! Checksums: CRC-16 gives a key its cluster slot, CRC-64 guards RDB files.

/// Number of cluster slots.
pub const SLOTS: u16 = 16384;

/// CRC-16/XMODEM.
pub fn crc16(bytes: &[u8]) -> u16 {
    crc16_and_braces(bytes).0
}

/// The cluster slot of a key: of what stands between its first `{` and the next `}` when that is
/// not empty, else of the whole key.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    let (crc, has_braces) = crc16_and_braces(key);
    let crc = match has_braces {
        false => crc,
        true => crc16(hash_tag(key)),
    };
    crc & (SLOTS - 1)
}

/// CRC-16/XMODEM, eight bytes at a time, since every key of a cluster pays for it; and whether there may
/// be a `{` among the bytes (there is none if not).
#[inline]
fn crc16_and_braces(bytes: &[u8]) -> (u16, bool) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let braces = |word: u64| {
        let others = word ^ (ONES * u64::from(b'{'));
        others.wrapping_sub(ONES) & !others & (ONES << 7)
    };
    // Zeros in front change nothing: a word that is not full comes first.
    let (head, mut rest) = bytes.split_at(bytes.len() % 8);
    let first = match (head.len(), bytes.first_chunk()) {
        (0, _) => 0,
        (len, Some(word)) => u64::from_be_bytes(*word) >> (64 - 8 * len),
        (_, None) => head
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    let (mut crc, mut found) = (crc16_step(0, first), braces(first));
    while let Some((word, more)) = rest.split_first_chunk() {
        let word = u64::from_be_bytes(*word);
        found |= braces(word);
        crc = crc16_step(crc, word);
        rest = more;
    }
    (crc, found != 0)
}

/// The checksum `crc` carried on over eight bytes, the first of which is the highest of `word`.
#[inline]
fn crc16_step(crc: u16, word: u64) -> u16 {
    let word = word ^ u64::from(crc) << 48;
    let bytes = word.to_le_bytes();
    // Byte i from the end has i bytes after it: its table already has those steps in it.
    let tables = TABLES_16.iter().zip(bytes);
    tables.fold(0, |crc, (table, byte)| crc ^ table[usize::from(byte)])
}

/// `TABLES_16[n][b]`: CRC-16 of the byte `b` followed by `n` zero bytes.
static TABLES_16: [[u16; 256]; 8] = tables_16();

const fn tables_16() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc >> 15 == 1 { 0x1021 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = tables[0][(before >> 8) as usize] ^ (before << 8);
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// The part of a key that decides its slot.
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC-64 with the Jones polynomial, reflected, without inversion; `crc` is 0 or the result for the
/// bytes before.
pub fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight")) ^ crc;
        crc = 0;
        // Byte i of the word has 7 - i bytes after it: its table already has those steps in it.
        for (i, table) in TABLES.iter().rev().enumerate() {
            crc ^= table[(word >> (8 * i)) as usize & 0xff];
        }
    }
    for &byte in chunks.remainder() {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    crc
}

/// The Jones polynomial, bits reversed.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][b]`: the checksum of the byte `b` followed by `n` zero bytes.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(0, b""), 0);
    }

    #[test]
    fn crc16_is_what_others_compute() {
        let bytes: Vec<u8> = (0..100u8).map(|b| b.wrapping_mul(151) ^ 0x5a).collect();
        for from in 0..8 {
            for to in from..bytes.len() {
                let part = &bytes[from..to];
                let theirs = crc16::State::<crc16::XMODEM>::calculate(part);
                assert_eq!(crc16(part), theirs, "{from}..{to}");
                assert!(crc16_and_braces(part).1 || !part.contains(&b'{'));
            }
        }
    }

    #[test]
    fn crc64_continues_at_any_split() {
        let bytes: Vec<u8> = (0..100u8).map(|b| b.wrapping_mul(37)).collect();
        let whole = crc64(0, &bytes);
        for at in 0..bytes.len() {
            assert_eq!(crc64(crc64(0, &bytes[..at]), &bytes[at..]), whole);
        }
    }

    #[test]
    fn slots_follow_hash_tags() {
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b"{foo}.bar"), 12182);
        assert_eq!(key_slot(b"a{foo}{bar}"), 12182);
        assert_eq!(hash_tag(b"a{}b{c}"), b"a{}b{c}");
        assert_eq!(hash_tag(b"a{b"), b"a{b");
        assert_eq!(hash_tag(b"{{x}}"), b"{x");
        for before in 0..20 {
            let key = format!("{}{{foo}}{}", ".".repeat(before), "!".repeat(before / 2));
            assert_eq!(key_slot(key.as_bytes()), 12182, "{key}");
            let brace = format!("{}{{", "k".repeat(before));
            assert_eq!(key_slot(brace.as_bytes()), crc16(brace.as_bytes()) & 16383);
        }
    }
}
