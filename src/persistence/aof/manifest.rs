//! The manifest: which files make up the append-only file, in which order.
//!
//! One line a file, `file <name> seq <number> type <b|i|h>`: the base, the increments after it by
//! ascending number, and history that is to be deleted. It is replaced as a whole, by renaming.

use std::io;
use std::path::PathBuf;

use crate::base::text::{needs_quoting, quote, split_args};
use crate::persistence::replacement::sync_directory_of;

/// Longest line of a manifest, in bytes.
const MAX_LINE: usize = 1024;

/// A file of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name, without directory.
    pub name: String,
    /// Number; names are made of it.
    pub seq: i64,
}

/// The files. Ours begin with the `appendfilename`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The data set at some time.
    pub base: Option<Part>,
    /// Commands since, oldest first.
    pub incr: Vec<Part>,
    /// Replaced and not deleted yet.
    pub history: Vec<Part>,
    base_seq: i64,
    incr_seq: i64,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is wrong, with the number and text of the line if it is one line's fault.
    #[error("{reason}")]
    Content {
        /// What is wrong.
        reason: &'static str,
        /// The line.
        line: Option<(usize, String)>,
    },
}

/// Names and places of the files of one server.
#[derive(Clone, Debug)]
pub struct Place {
    /// `appenddirname`.
    pub directory: PathBuf,
    /// `appendfilename`.
    pub name: String,
}

impl Place {
    /// A file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.path(&format!("{}.manifest", self.name))
    }

    /// Commands of a data set that has no base yet.
    pub fn temporary_incr(&self) -> String {
        format!("temp-{}.incr", self.name)
    }

    /// Reads the manifest; an empty one when there is none.
    pub fn load(&self) -> Result<Manifest, Invalid> {
        match std::fs::read(self.manifest()) {
            Ok(bytes) => Manifest::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a manifest in the place of the old one, for good.
    pub fn store(&self, manifest: &Manifest) -> io::Result<()> {
        let target = self.manifest();
        let temporary = self.path(&format!("temp-{}.manifest", self.name));
        let file = std::fs::File::create(&temporary)?;
        io::Write::write_all(&mut &file, manifest.text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)?;
        sync_directory_of(&target)
    }

    /// Bytes of all files in use.
    pub fn size(&self, manifest: &Manifest) -> u64 {
        let parts = manifest.base.iter().chain(&manifest.incr);
        parts.map(|part| self.size_of(&part.name)).sum()
    }

    /// Bytes of a file; 0 when it is not there.
    pub fn size_of(&self, name: &str) -> u64 {
        std::fs::metadata(self.path(name)).map_or(0, |m| m.len())
    }

    /// Deletes what is history. What cannot be deleted now is tried again the next time.
    pub fn delete_history(&self, manifest: &mut Manifest) -> io::Result<()> {
        if manifest.history.is_empty() {
            return Ok(());
        }
        for part in &manifest.history {
            tracing::info!("Removing the history file {} in the background", part.name);
            match std::fs::remove_file(self.path(&part.name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut cleaned = manifest.clone();
        cleaned.history.clear();
        self.store(&cleaned)?;
        *manifest = cleaned;
        Ok(())
    }
}

impl Manifest {
    /// Reads the text of a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let fail = |reason, line| Err(Invalid::Content { reason, line });
        let mut manifest = Self::default();
        if bytes.is_empty() {
            return fail("Found an empty AOF manifest", None);
        }
        for (number, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let shown = String::from_utf8_lossy(line)
                .trim_matches([' ', '\t', '\r', '\n'])
                .to_owned();
            let place = Some((number + 1, shown.clone()));
            if line.len() > MAX_LINE || !line.ends_with(b"\n") {
                return fail("The AOF manifest file contains too long line", None);
            }
            if let Err(reason) = manifest.add_line(shown.as_bytes()) {
                return fail(reason, place);
            }
        }
        Ok(manifest)
    }

    fn add_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        const FORMAT: &str = "Invalid AOF manifest file format";
        let words = split_args(line).ok_or(FORMAT)?;
        if words.len() < 6 || !words.len().is_multiple_of(2) {
            return Err(FORMAT);
        }
        let (mut name, mut seq, mut kind) = (None, 0, None);
        for pair in words.chunks_exact(2) {
            let (key, value) = (&pair[0], &pair[1]);
            if key.eq_ignore_ascii_case(b"file") {
                if value.contains(&b'/') || value.contains(&b'\\') {
                    return Err("File can't be a path, just a filename");
                }
                name = String::from_utf8(value.clone()).ok();
            } else if key.eq_ignore_ascii_case(b"seq") {
                seq = std::str::from_utf8(value)
                    .ok()
                    .and_then(|v| v.parse().ok())
                    .unwrap_or(0);
            } else if key.eq_ignore_ascii_case(b"type") {
                kind = value.first().copied();
            }
        }
        let (Some(name), Some(kind), 1..) = (name, kind, seq) else {
            return Err(FORMAT);
        };
        let part = Part { name, seq };
        match kind {
            b'b' if self.base.is_some() => return Err("Found duplicate base file information"),
            b'b' => {
                self.base_seq = seq;
                self.base = Some(part);
            }
            b'h' => self.history.push(part),
            b'i' if seq <= self.incr_seq => return Err("Found a non-monotonic sequence number"),
            b'i' => {
                self.incr_seq = seq;
                self.incr.push(part);
            }
            _ => return Err("Unknown AOF file type"),
        }
        Ok(())
    }

    /// The text of the manifest.
    pub fn text(&self) -> String {
        let kinds = [(&self.history, 'h'), (&self.incr, 'i')];
        let base = self.base.iter().map(|part| (part, 'b'));
        let others = kinds
            .iter()
            .flat_map(|(parts, kind)| parts.iter().map(move |part| (part, *kind)));
        base.chain(others)
            .map(|(part, kind)| {
                let name = part.name.as_bytes();
                let quoted =
                    needs_quoting(name).then(|| String::from_utf8_lossy(&quote(name)).into_owned());
                let name = quoted.as_ref().unwrap_or(&part.name);
                format!("file {name} seq {} type {kind}\n", part.seq)
            })
            .collect()
    }

    /// True when there is no data.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.incr.is_empty()
    }

    /// Makes a single file of an old server the base.
    pub fn adopt(&mut self, name: &str) {
        self.base_seq = 1;
        self.base = Some(Part {
            name: name.into(),
            seq: 1,
        });
    }

    /// A new base; the old one is history. Returns its name.
    pub fn new_base(&mut self, file: &str, as_dump: bool) -> String {
        self.history.extend(self.base.take());
        self.base_seq += 1;
        let suffix = if as_dump { "rdb" } else { "aof" };
        let name = format!("{file}.{}.base.{suffix}", self.base_seq);
        self.base = Some(Part {
            name: name.clone(),
            seq: self.base_seq,
        });
        name
    }

    /// A new increment; its name.
    pub fn new_incr(&mut self, file: &str) -> String {
        self.incr_seq += 1;
        let name = format!("{file}.{}.incr.aof", self.incr_seq);
        self.incr.push(Part {
            name: name.clone(),
            seq: self.incr_seq,
        });
        name
    }

    /// All increments but the last `kept` are history: the base holds them.
    pub fn retire_incr(&mut self, kept: usize) {
        let retired = self.incr.len().saturating_sub(kept);
        self.history.extend(self.incr.drain(..retired));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_what_it_wrote() {
        let mut manifest = Manifest::default();
        assert_eq!(manifest.new_base("a.aof", true), "a.aof.1.base.rdb");
        assert_eq!(manifest.new_incr("a.aof"), "a.aof.1.incr.aof");
        assert_eq!(manifest.new_incr("a.aof"), "a.aof.2.incr.aof");
        assert_eq!(manifest.new_base("a.aof", false), "a.aof.2.base.aof");
        manifest.retire_incr(1);
        let text = manifest.text();
        assert_eq!(
            text,
            "file a.aof.2.base.aof seq 2 type b\nfile a.aof.1.base.rdb seq 1 type h\n\
             file a.aof.1.incr.aof seq 1 type h\nfile a.aof.2.incr.aof seq 2 type i\n"
        );
        assert_eq!(Manifest::parse(text.as_bytes()).expect("sound"), manifest);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let reason = |text: &str| {
            Manifest::parse(text.as_bytes())
                .expect_err("wrong")
                .to_string()
        };
        assert_eq!(reason(""), "Found an empty AOF manifest");
        assert_eq!(reason("\n"), "Invalid AOF manifest file format");
        assert_eq!(
            reason("file a seq 1 type b"),
            "The AOF manifest file contains too long line"
        );
        assert_eq!(
            reason("file a seq 1 type\n"),
            "Invalid AOF manifest file format"
        );
        assert_eq!(
            reason("file a seq 0 type b\n"),
            "Invalid AOF manifest file format"
        );
        assert_eq!(
            reason("file a/b seq 1 type b\n"),
            "File can't be a path, just a filename"
        );
        assert_eq!(reason("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(
            reason("file a seq 1 type b\nfile b seq 2 type b\n"),
            "Found duplicate base file information"
        );
        assert_eq!(
            reason("file a seq 2 type i\nfile b seq 1 type i\n"),
            "Found a non-monotonic sequence number"
        );
    }
}
