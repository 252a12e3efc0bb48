//! Wildcards in the path of an `include`, by the rules of the C library's `glob`.
//!
//! `*`, `?` and classes never match a slash, nor a dot at the start of a name. Directories that
//! cannot be read count as empty.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// True when `path` is a pattern rather than the name of one file.
pub(super) fn has_wildcard(path: &[u8]) -> bool {
    path.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// The files that match, in the order of their bytes.
pub(super) fn expand(pattern: &[u8]) -> Vec<PathBuf> {
    let absolute = pattern.starts_with(b"/");
    let mut found = vec![if absolute {
        PathBuf::from("/")
    } else {
        PathBuf::new()
    }];
    for part in pattern
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty())
    {
        let step = |base: &PathBuf| match has_wildcard(part) {
            true => matching_names(base, part),
            false => {
                let path = base.join(OsStr::from_bytes(part));
                if path.exists() {
                    vec![path]
                } else {
                    Vec::new()
                }
            }
        };
        found = found.iter().flat_map(step).collect();
    }
    found.sort_unstable();
    found
}

fn matching_names(base: &Path, part: &[u8]) -> Vec<PathBuf> {
    let directory = if base.as_os_str().is_empty() {
        Path::new(".")
    } else {
        base
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().into_vec());
    names
        .filter(|name| !name.starts_with(b".") || part.starts_with(b"."))
        .filter(|name| matches(part, name))
        .map(|name| base.join(OsStr::from_bytes(&name)))
        .collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, name));
            pattern = rest;
            continue;
        }
        if let Some((&byte, tail)) = name.split_first() {
            if let Some(rest) = match_one(pattern, byte) {
                (pattern, name) = (rest, tail);
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }
        match retry {
            Some((rest, [_, tail @ ..])) => {
                retry = Some((rest, tail));
                (pattern, name) = (rest, tail);
            }
            _ => return false,
        }
    }
}

fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => match match_class(class, byte) {
            Some((hit, rest)) => hit.then_some(rest),
            None => (byte == b'[').then_some(class),
        },
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Whether a class holds `byte`, and what follows it; `None` when it is not closed. A `]` that
/// stands first is a member.
fn match_class(class: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (mut hit, mut first) = (false, true);
    loop {
        match rest {
            [] => return None,
            [b']', tail @ ..] if !first => return Some((hit != negated, tail)),
            [from, b'-', to, tail @ ..] if *to != b']' => {
                hit |= (*from..=*to).contains(&byte);
                rest = tail;
            }
            [b'\\', literal, tail @ ..] | [literal, tail @ ..] => {
                hit |= *literal == byte;
                rest = tail;
            }
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt", "sub/d.conf"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let check = |pattern: &str, expected: &[&str]| {
            let pattern = format!("{}/{pattern}", dir.path().display());
            let expected: Vec<_> = expected.iter().map(|name| dir.path().join(name)).collect();
            assert_eq!(expand(pattern.as_bytes()), expected, "{pattern}");
        };
        check("*.conf", &["a.conf", "b.conf"]);
        check("[!a].*", &["b.conf", "c.txt"]);
        check("*/d.conf", &["sub/d.conf"]);
        check(".*.conf", &[".hidden.conf"]);
        check("?.conf", &["a.conf", "b.conf"]);
        check("x*", &[]);
        check("*/none", &[]);
    }
}
