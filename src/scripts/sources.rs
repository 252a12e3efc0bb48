//! Sources of scripts, by their SHA1.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;
use sha1::{Digest as _, Sha1};

use super::ScriptFlags;
use crate::base::text::split_args;

/// The SHA1 of a source.
pub type Digest = [u8; 20];

/// The SHA1 of some bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Sha1::digest(bytes).into()
}

/// A digest as clients know it.
pub fn hex(digest: &Digest) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 40];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The digest that 40 digits are, in either case.
pub fn parse_digest(text: &[u8]) -> Option<Digest> {
    if text.len() != 40 {
        return None;
    }
    let mut digest = [0; 20];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(digest)
}

/// A script.
#[derive(Debug)]
pub struct Script {
    /// Its SHA1.
    pub digest: Digest,
    /// As it was sent.
    pub source: Vec<u8>,
    /// Where Lua's code begins, behind a shebang line.
    pub code: usize,
    /// What it says of itself.
    pub flags: ScriptFlags,
    /// It has reached for keys that it did not declare: it holds all shards from its start.
    pub reaches: AtomicBool,
}

impl Script {
    /// The script of a source; an error when its first line makes no sense.
    pub fn new(source: &[u8]) -> Result<Self, Vec<u8>> {
        let (flags, code) = shebang(source)?;
        Ok(Self {
            digest: digest_of(source),
            source: source.to_vec(),
            code,
            flags,
            reaches: AtomicBool::new(false),
        })
    }
}

/// What the first line of a script says, and its length without the line's end.
pub fn shebang(source: &[u8]) -> Result<(ScriptFlags, usize), Vec<u8>> {
    if !source.starts_with(b"#!") {
        return Ok((ScriptFlags::SAYS_NOTHING, 0));
    }
    let Some(end) = memchr::memchr(b'\n', crate::base::text::before_nul(source)) else {
        return Err(b"ERR Invalid script shebang".to_vec());
    };
    let parts = split_args(&source[..end]).unwrap_or_default();
    let Some((engine, options)) = parts.split_first() else {
        return Err(b"ERR Invalid engine in script shebang".to_vec());
    };
    if engine != b"#!lua" {
        return Err([b"ERR Unexpected engine in script shebang: ", &engine[..]].concat());
    }
    let mut flags = ScriptFlags::default();
    for option in options {
        let Some(names) = option.strip_prefix(b"flags=") else {
            return Err([b"ERR Unknown lua shebang option: ", &option[..]].concat());
        };
        let names = names.split(|&b| b == b',');
        for name in names.filter(|_| option.len() > b"flags=".len()) {
            let known = ScriptFlags::NAMES.iter();
            let Some((_, flag)) = known.clone().find(|(text, _)| text.as_bytes() == name) else {
                return Err([b"ERR Unexpected flag in script shebang: ", name].concat());
            };
            flags = flags.or(*flag);
        }
    }
    Ok((flags, end))
}

/// All scripts that clients may name.
#[derive(Default)]
pub struct Sources {
    all: RwLock<HashMap<Digest, Arc<Script>>>,
    /// Counts how often all of them were forgotten.
    flushes: AtomicU64,
    // Read without the lock.
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// What an entry costs beside its source, as Redis counts it: table, node and digest.
const ENTRY: usize = 96;

impl Sources {
    /// A script.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Script>> {
        self.all.read().get(digest).cloned()
    }

    /// Keeps a script; gives the one that was there already, if so.
    pub fn add(&self, script: Arc<Script>) -> Arc<Script> {
        let mut all = self.all.write();
        let bytes = script.source.len() + ENTRY;
        let kept = all.entry(script.digest).or_insert_with(|| {
            self.bytes.fetch_add(bytes, Relaxed);
            self.count.fetch_add(1, Relaxed);
            script
        });
        Arc::clone(kept)
    }

    /// Forgets all of them; gives what is to be freed.
    pub fn flush(&self) -> impl Send + use<> {
        let mut all = self.all.write();
        self.flushes.fetch_add(1, Relaxed);
        self.bytes.store(0, Relaxed);
        self.count.store(0, Relaxed);
        std::mem::take(&mut *all)
    }

    /// How often all of them were forgotten: whoever keeps something of them keeps this with it.
    #[inline]
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Relaxed)
    }

    /// Number of scripts.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all sources.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        let digest = digest_of(b"return 1");
        assert_eq!(&hex(&digest), b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(
            parse_digest(&hex(&digest).to_ascii_uppercase()),
            Some(digest)
        );
        assert_eq!(parse_digest(b"e0"), None);
        assert_eq!(parse_digest(&[b'g'; 40]), None);
    }

    #[test]
    fn first_lines_say_what_scripts_may_do() {
        let check = |source: &str, expected: Result<(u8, usize), &str>| {
            let found = shebang(source.as_bytes()).map(|(flags, code)| (flags.0, code));
            let expected = expected.map_err(|text| text.as_bytes().to_vec());
            assert_eq!(found, expected, "{source}");
        };
        check("return 1", Ok((16, 0)));
        check("#!lua\nreturn 1", Ok((0, 5)));
        check("#!lua flags=no-writes,allow-oom\nx", Ok((3, 31)));
        check("#!lua flags=\nx", Ok((0, 12)));
        check("#!lua", Err("ERR Invalid script shebang"));
        check(
            "#!js\nx",
            Err("ERR Unexpected engine in script shebang: #!js"),
        );
        check(
            "#!lua name=x\nx",
            Err("ERR Unknown lua shebang option: name=x"),
        );
        check(
            "#!lua flags=mad\nx",
            Err("ERR Unexpected flag in script shebang: mad"),
        );
    }
}
