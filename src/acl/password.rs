//! Passwords: kept as digests, compared in a time that does not tell how much of them was right.

/// SHA-256 of a password.
pub type Digest = [u8; 32];

/// The digest of a password.
pub fn digest(password: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(password).into()
}

/// True when `given` is the password of one of `digests`. Takes the same time wherever they differ.
pub fn matches_any(given: &[u8], digests: &[Digest]) -> bool {
    let given = digest(given);
    digests.iter().fold(false, |found, known| {
        let pairs = known.iter().zip(&given);
        let difference = pairs.fold(0, |d, (a, b)| d | (a ^ b));
        found | (std::hint::black_box(difference) == 0)
    })
}

/// A digest in hexadecimal, as rules and GETUSER show it.
pub fn hex(digest: &Digest) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// The digest that 64 hexadecimal digits in lower case tell.
pub fn from_hex(text: &[u8]) -> Option<Digest> {
    let text: &[u8; 64] = text.try_into().ok()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_content() {
        let digests = [digest(b"a"), digest(b"b")];
        assert!(matches_any(b"b", &digests));
        assert!(!matches_any(b"", &digests) && !matches_any(b"a", &[]));
        assert!(hex(&digest(b"")).starts_with("e3b0c44298fc1c14"));
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        let text = hex(&digest(b"a"));
        assert_eq!(from_hex(text.as_bytes()), Some(digest(b"a")));
        assert_eq!(from_hex(text.to_uppercase().as_bytes()), None);
        assert_eq!(from_hex(&text.as_bytes()[1..]), None);
    }
}
