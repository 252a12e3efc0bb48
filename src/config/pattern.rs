//! Glob patterns for names of parameters, by the rules of Redis' other patterns: `*`, `?`,
//! `[a-z]`, `[^a-z]`, `\` before a literal byte.

/// True when all of `text` matches `pattern`, letters in any case.
///
/// Only the last `*` is ever tried again, so the time is bounded by the product of the lengths.
pub(super) fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        if let Some((&byte, tail)) = text.split_first() {
            if let Some(rest) = match_one(pattern, byte) {
                (pattern, text) = (rest, tail);
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }
        match retry {
            Some((rest, [_, tail @ ..])) => {
                retry = Some((rest, tail));
                (pattern, text) = (rest, tail);
            }
            _ => return false,
        }
    }
}

/// The pattern behind its first element if that matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => match_class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            literal.eq_ignore_ascii_case(&byte).then_some(rest)
        }
    }
}

/// A class without its opening bracket; one that is never closed ends with the pattern.
fn match_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let byte = byte.to_ascii_lowercase();
    let mut hit = false;
    let rest = loop {
        match class {
            [] => break class,
            [b']', rest @ ..] => break rest,
            [b'\\', literal, rest @ ..] => {
                hit |= literal.to_ascii_lowercase() == byte;
                class = rest;
            }
            [from, b'-', to, rest @ ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                hit |= (from.min(to)..=from.max(to)).contains(&byte);
                class = rest;
            }
            [literal, rest @ ..] => {
                hit |= literal.to_ascii_lowercase() == byte;
                class = rest;
            }
        }
    };
    (hit != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        let got = matches_ignoring_case(pattern.as_bytes(), text.as_bytes());
        assert_eq!(got, expected, "{pattern:?} {text:?}");
    }

    #[test]
    fn patterns() {
        check("*", "save", true);
        check("*", "", true);
        check("MAX*", "maxmemory", true);
        check("*max*policy", "maxmemory-policy", true);
        check("*max*policy", "maxmemory-polic", false);
        check("s?ve", "save", true);
        check("s[a-c]ve", "SAVE", true);
        check("s[^a-c]ve", "save", false);
        check("s[a", "sa", true);
        check("\\*", "*", true);
        check("sav", "save", false);
        check("save?", "save", false);
    }
}
