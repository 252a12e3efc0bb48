//! Glob patterns as KEYS, SCAN, PSUBSCRIBE, ACL rules and CONFIG GET match them.
//!
//! `*` any bytes, `?` one byte, `[a-z]` and `[^a-z]` one of a set, `\` takes the next byte literally.
//! The corner cases are part of the behaviour: an unclosed `[` ends with the pattern, a range may be
//! given backwards and compares bytes as signed, an escaped byte in a set ignores `nocase`, and no
//! pattern but the empty one matches the empty string.
//!
//! A mismatch goes back to the last `*` only: what stood before it has matched already, and trying
//! it further right cannot help. So the cost is at most the product of both lengths. A pattern with
//! more than [`MAX_STARS`] stars in play matches nothing.

/// Stars (runs of `*`) after which a pattern is taken for an attack.
const MAX_STARS: usize = 1000;

/// True when the whole of `text` matches `pattern`; `nocase` folds ASCII letters.
pub fn matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last star, with it taking one byte more.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    if text.is_empty() {
        return pattern.is_empty();
    }
    loop {
        if pattern.get(p) == Some(&b'*') {
            p = skip_stars(pattern, p);
            if p == pattern.len() {
                return true;
            }
            stars += 1;
            if stars > MAX_STARS {
                return false;
            }
            retry = Some((p, t));
            continue;
        }
        let step = if p < pattern.len() {
            match_one(&pattern[p..], text[t], nocase)
        } else {
            None
        };
        if let Some(used) = step {
            p += used;
            t += 1;
            if t < text.len() {
                continue;
            }
            if skip_stars(pattern, p) == pattern.len() {
                return true;
            }
        }
        match &mut retry {
            Some((after_star, from)) if *from + 1 < text.len() => {
                *from += 1;
                (p, t) = (*after_star, *from);
            }
            _ => return false,
        }
    }
}

fn skip_stars(pattern: &[u8], mut p: usize) -> usize {
    while pattern.get(p) == Some(&b'*') {
        p += 1;
    }
    p
}

/// Matches one byte against the head of the pattern, which is not a star: the length of that head.
fn match_one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', ..] => {
            let (matched, used) = match_set(pattern, byte, nocase);
            matched.then_some(used)
        }
        [b'\\', escaped, ..] => same(*escaped, byte, nocase).then_some(2),
        [literal, ..] => same(*literal, byte, nocase).then_some(1),
        [] => None,
    }
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || (nocase && a.eq_ignore_ascii_case(&b))
}

/// Matches one byte against the set at the head of the pattern; gives the set's length too.
fn match_set(pattern: &[u8], byte: u8, nocase: bool) -> (bool, usize) {
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut matched = false;
    loop {
        match &pattern[at..] {
            [] => break,
            [b'\\', escaped, ..] => {
                matched |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [start, b'-', end, ..] => {
                matched |= in_range(*start, *end, byte, nocase);
                at += 3;
            }
            [literal, ..] => {
                matched |= same(*literal, byte, nocase);
                at += 1;
            }
        }
    }
    (matched != negated, at)
}

fn in_range(start: u8, end: u8, byte: u8, nocase: bool) -> bool {
    let (mut start, mut end) = (start as i8, end as i8);
    if start > end {
        (start, end) = (end, start);
    }
    // The bounds are put in order before their case is folded, so [Z-a] folds to an empty range.
    let fold = |b: i8| {
        if nocase {
            (b as u8).to_ascii_lowercase() as i8
        } else {
            b
        }
    };
    (fold(start)..=fold(end)).contains(&fold(byte as i8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        let got = matches(pattern.as_bytes(), text.as_bytes(), false);
        assert_eq!(got, expected, "{pattern:?} {text:?}");
    }

    #[test]
    fn matches_as_redis_does() {
        check("*", "", false);
        check("", "", true);
        check("", "a", false);
        check("*", "abc", true);
        check("a*", "a", true);
        check("a**c*", "abcd", true);
        check("*b*d", "abcd", true);
        check("*b*e", "abcd", false);
        check("h?llo", "hello", true);
        check("h[^e]llo", "hello", false);
        check("h[^e]llo", "hallo", true);
        check("h[c-a]llo", "hbllo", true);
        check("h[a-c", "hb", true);
        check("a[", "ab", false);
        check("a[^", "ab", true);
        check("a\\", "a\\", true);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        check("[\\]]", "]", true);
        check("a]", "a]", true);
        check("[]a", "a", false);
        check("abc", "ab", false);
        check("ab", "abc", false);
        check("ab?", "ab", false);
    }

    #[test]
    fn folds_case_where_redis_does() {
        assert!(matches(b"HeLLo*", b"hello world", true));
        assert!(matches(b"[A-C]x", b"bX", true));
        assert!(!matches(b"[\\A]", b"a", true));
        assert!(!matches(b"[Z-a]", b"z", true));
        assert!(matches(b"[\x7f-\x80]", b"a", false));
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let text = vec![b'a'; 20_000];
        let mut pattern = b"a*".repeat(500);
        pattern.push(b'b');
        assert!(!matches(&pattern, &text, false));
        assert!(matches(&b"a*".repeat(900), &text, false));
        assert!(matches(&b"a*".repeat(1001), &text, false));
        assert!(!matches(&b"a*".repeat(1002), &text, false));
    }
}
