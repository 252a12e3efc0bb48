//! Passwords, compared in a time that does not tell how much of them was right.

/// True when `given` equals one of `passwords`. Takes the same time wherever they differ.
pub fn matches_any<'a>(given: &[u8], passwords: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let given = sha256(given);
    passwords.into_iter().fold(false, |found, password| {
        let difference = sha256(password)
            .iter()
            .zip(&given)
            .fold(0, |d, (a, b)| d | (a ^ b));
        found | (difference == 0)
    })
}

/// SHA-256 of a password in hexadecimal, as ACL rules and GETUSER show it.
pub fn sha256_hex(password: &[u8]) -> String {
    sha256(password)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_content() {
        assert!(matches_any(b"b", [&b"a"[..], b"b"]));
        assert!(!matches_any(b"", [&b"a"[..]]) && !matches_any(b"a", []));
        assert!(sha256_hex(b"").starts_with("e3b0c44298fc1c14"));
    }
}
