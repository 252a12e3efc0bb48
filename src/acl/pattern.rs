//! Patterns of keys and channels, looked at once: most are a name, or all that begins with something.

use crate::base::glob;

/// A name that is about to be matched against several patterns.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    bytes: &'a [u8],
    /// Its first bytes, zeros behind them.
    head: u64,
}

impl<'a> Name<'a> {
    /// Prepares a name.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let head = match bytes.first_chunk() {
            Some(head) => u64::from_le_bytes(*head),
            None => bytes
                .iter()
                .rev()
                .fold(0, |head, b| head << 8 | u64::from(*b)),
        };
        Self { bytes, head }
    }
}

/// A glob pattern, prepared for being matched often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<[u8]>,
    kind: Kind,
    /// The first bytes of what is compared, and which of them count.
    head: u64,
    mask: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything.
    All,
    /// Itself.
    Literal,
    /// Whatever begins with all but its last byte, which is a star.
    Prefix,
    /// Only a matcher knows.
    General,
}

impl Pattern {
    /// Prepares a pattern.
    pub fn new(text: &[u8]) -> Self {
        let special = |part: &[u8]| part.iter().any(|b| b"*?[\\".contains(b));
        let (kind, compared) = match text {
            b"*" => (Kind::All, &text[..0]),
            [rest @ .., b'*'] if !special(rest) => (Kind::Prefix, rest),
            _ if !special(text) => (Kind::Literal, text),
            _ => (Kind::General, &text[..0]),
        };
        let mask = match compared.len() {
            len @ 0..8 => (1 << (len * 8)) - 1,
            _ => u64::MAX,
        };
        Self {
            text: text.into(),
            kind,
            head: Name::new(compared).head & mask,
            mask,
        }
    }

    /// As it was written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// True when `name` matches. No pattern with anything in it matches the empty name.
    #[inline]
    pub fn matches(&self, name: Name<'_>) -> bool {
        // Most names differ in their first bytes.
        name.head & self.mask == self.head && self.matches_all_of(name.bytes)
    }

    fn matches_all_of(&self, name: &[u8]) -> bool {
        match self.kind {
            Kind::All => !name.is_empty(),
            Kind::Literal => *self.text == *name,
            Kind::Prefix => name.starts_with(&self.text[..self.text.len() - 1]),
            Kind::General => glob::matches(&self.text, name, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_patterns_match_as_the_matcher_does() {
        let patterns = [
            "",
            "*",
            "a",
            "a*",
            "a*b",
            "?",
            "[ab]*",
            "\\*",
            "a\\*",
            "**",
            "a**",
            "eight-by*",
            "eight-by",
            "more-than-eight",
            "more-than-eight*",
            "a\0*",
        ];
        let names = [
            "",
            "*",
            "a",
            "ab",
            "b",
            "a*",
            "axb",
            "\\*",
            "aa",
            "eight-by",
            "eight-b",
            "a\0b",
            "eight-bytes",
            "more-than-eight",
            "more-than-eighty",
            "more-than",
        ];
        for pattern in patterns {
            for name in names {
                assert_eq!(
                    Pattern::new(pattern.as_bytes()).matches(Name::new(name.as_bytes())),
                    glob::matches(pattern.as_bytes(), name.as_bytes(), false),
                    "{pattern:?} {name:?}"
                );
            }
        }
    }
}
