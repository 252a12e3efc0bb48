//! Files of many values: what stands before, between and behind them.
//!
//! ```text
//! REDIS0010  aux fields  ( SELECTDB n  ( expiry? idle? type key value )* )*  EOF  checksum
//! ```
//!
//! It is REDIS0012 when fields of hashes expire, which needs type codes that older readers lack.
//!
//! A file is read through a window that holds the present record as a whole. The reader finds
//! the record's end without building the value, so that others can build values meanwhile.

use std::io::{self, Read};

use super::read::{Corrupt, Reader};
use super::write::Writer;
use super::{NEWEST, opcode};
use super::{decode, module};
use crate::base::crc::crc64;

/// Bytes read at once, at least.
const WINDOW: usize = 1 << 20;

/// The first bytes of a file of some version.
pub fn magic(version: u16) -> [u8; 9] {
    let mut magic = *b"REDIS0000";
    magic[5..].copy_from_slice(format!("{version:04}").as_bytes());
    magic
}

/// Appends a field about the file.
pub fn aux(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(opcode::AUX);
    let mut writer = Writer::new(out, false);
    writer.string(name.as_bytes());
    writer.string(value);
}

/// Appends the choice of a database.
pub fn select(out: &mut Vec<u8>, db: usize) {
    out.push(opcode::SELECTDB);
    Writer::new(out, false).len(db as u64);
}

/// What is known of a value beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The database.
    pub db: usize,
    /// Expiry in Unix milliseconds.
    pub expiry: Option<i64>,
    /// Seconds since it was used.
    pub idle_seconds: Option<u64>,
    /// LFU counter.
    pub frequency: Option<u8>,
}

/// A part of a file.
#[derive(Debug)]
pub enum Item {
    /// A value, from its type code on: [`Record::parse`] reads it from the window.
    Record(Meta),
    /// What follows is of this database.
    Select(usize),
    /// A field about the file: name and value.
    Aux(Vec<u8>, Vec<u8>),
    /// The source of a library of functions.
    Function(Vec<u8>),
    /// What this type of a module wrote beside the keys, passed over.
    ModuleAux(String),
    /// The end.
    End,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The content.
    #[error("{0}")]
    Corrupt(#[from] Corrupt),
    /// The first bytes are not those of the format.
    #[error("Wrong signature trying to load DB from file")]
    Signature,
    /// A version from the future, or none.
    #[error("Can't handle RDB format version {0}")]
    Version(i32),
    /// The checksum is not that of the content: expected, found.
    #[error("Wrong RDB checksum expected: ({0:x}) but got ({1:x}). Aborting now.")]
    Checksum(u64, u64),
}

/// What a reader is at: of a file that cannot be read on, what it was that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The first bytes.
    #[default]
    Start,
    /// The code of the next part.
    Code,
    /// The expiry of a value.
    Expiry,
    /// A length: number of a database, sizes of it, time since a value was used.
    Length,
    /// A field about the file.
    Aux,
    /// Data of a module.
    Module,
    /// A library of functions.
    Function,
    /// The key of a value of this type code.
    Key(u8),
    /// A value of this type code.
    Value(u8),
    /// The checksum.
    Sum,
}

/// What became of the checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sum {
    /// It was not looked at: there is none in old versions, or nobody wanted it.
    #[default]
    Ignored,
    /// The file was written without one.
    Absent,
    /// It is that of the content.
    Right,
}

/// Reads a file part by part.
pub struct FileReader<R> {
    input: R,
    window: Vec<u8>,
    /// Where in the window the next part begins.
    at: usize,
    /// Where the last record lies in the window.
    record: std::ops::Range<usize>,
    sum: u64,
    offset: u64,
    db: usize,
    version: i32,
    verify: bool,
    stage: Stage,
    result: Sum,
}

impl<R: Read> FileReader<R> {
    /// Reads the first bytes. `verify`: the checksum is compared.
    pub fn new(input: R, verify: bool) -> Result<Self, Failure> {
        let mut reader = Self {
            input,
            window: Vec::new(),
            at: 0,
            record: 0..0,
            sum: 0,
            offset: 0,
            db: 0,
            version: 0,
            verify,
            stage: Stage::Start,
            result: Sum::Ignored,
        };
        while reader.window.len() < 9 {
            if reader.fill()? == 0 {
                return Err(Corrupt::Short.into());
            }
        }
        if &reader.window[..5] != b"REDIS" {
            return Err(Failure::Signature);
        }
        let digits = std::str::from_utf8(&reader.window[5..9]).unwrap_or("");
        let version = digits.parse().unwrap_or(0);
        if !(1..=i32::from(NEWEST)).contains(&version) {
            return Err(Failure::Version(version));
        }
        reader.version = version;
        reader.pass(9);
        Ok(reader)
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was read last.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// After the end: what became of the checksum.
    pub fn sum(&self) -> Sum {
        self.result
    }

    /// The key of a value that could not be read, as far as it lies in the file.
    pub fn failed_key(&self) -> Option<Vec<u8>> {
        let bytes = self.window.get(self.record.start..)?;
        let record = Record::parse(bytes).ok()?;
        Some(record.key.into_owned())
    }

    /// The record that [`Item::Record`] told of: type code, key, value.
    pub fn record(&self) -> &[u8] {
        &self.window[self.record.clone()]
    }

    /// The next part.
    pub fn next_item(&mut self) -> Result<Item, Failure> {
        loop {
            let start = Reader::new(&self.window[self.at..]);
            let (mut reader, mut record) = (start, 0);
            let result = parse_part(start, &mut reader, self.db, &mut record, &mut self.stage);
            let used = start.rest().len() - reader.rest().len();
            self.record = self.at + record..self.at + used;
            match result {
                Ok(item) => {
                    self.pass(used);
                    if let Item::Select(db) = item {
                        self.db = db;
                    }
                    if matches!(item, Item::End) {
                        self.check_sum()?;
                    }
                    return Ok(item);
                }
                Err(Corrupt::Short) => {
                    if self.fill()? == 0 {
                        return Err(Corrupt::Short.into());
                    }
                }
                Err(error) => {
                    self.offset += used as u64;
                    return Err(error.into());
                }
            }
        }
    }

    /// The part is done with: its bytes count for the checksum.
    fn pass(&mut self, bytes: usize) {
        if self.verify {
            self.sum = crc64(self.sum, &self.window[self.at..self.at + bytes]);
        }
        self.at += bytes;
        self.offset += bytes as u64;
    }

    fn check_sum(&mut self) -> Result<(), Failure> {
        if self.version < 5 {
            return Ok(());
        }
        self.stage = Stage::Sum;
        while self.window.len() < self.at + 8 {
            if self.fill()? == 0 {
                return Err(Corrupt::Short.into());
            }
        }
        let bytes = self.window[self.at..self.at + 8].try_into().expect("eight");
        let found = u64::from_le_bytes(bytes);
        self.at += 8;
        self.offset += 8;
        self.result = match found {
            _ if !self.verify => Sum::Ignored,
            0 => Sum::Absent,
            found if found == self.sum => Sum::Right,
            found => return Err(Failure::Checksum(self.sum, found)),
        };
        Ok(())
    }

    /// Reads on; the number of bytes, 0 at the end. What was passed leaves the window.
    fn fill(&mut self) -> io::Result<usize> {
        self.window.drain(..self.at);
        self.at = 0;
        // Grows with what was read, so that a record bigger than the window is looked at only as
        // often as it doubles, and a length that lies costs no more than the file has.
        let wanted = WINDOW.max(self.window.len());
        let mut limited = (&mut self.input).take(wanted as u64);
        limited.read_to_end(&mut self.window)
    }

    /// What follows the end, for files that go on as commands: bytes that were read already, and
    /// the rest of the input.
    pub fn into_rest(self) -> (Vec<u8>, R) {
        (self.window[self.at..].to_vec(), self.input)
    }
}

/// Reads one part, of database `db`: where its record begins goes to `record`, and what is being
/// read to `stage`.
fn parse_part(
    start: Reader<'_>,
    reader: &mut Reader<'_>,
    db: usize,
    record: &mut usize,
    stage: &mut Stage,
) -> Result<Item, Corrupt> {
    let mut meta = Meta {
        db,
        ..Meta::default()
    };
    loop {
        *stage = Stage::Code;
        let before = start.rest().len() - reader.rest().len();
        let code = reader.byte()?;
        *stage = stage_of(code);
        match code {
            opcode::EXPIRETIME_MS => meta.expiry = Some(reader.millis()?),
            opcode::EXPIRETIME => meta.expiry = Some(reader.seconds()?.saturating_mul(1000)),
            opcode::IDLE => meta.idle_seconds = Some(reader.length()?),
            opcode::FREQ => meta.frequency = Some(reader.byte()?),
            opcode::SELECTDB => {
                let db = usize::try_from(reader.length()?).unwrap_or(usize::MAX);
                return Ok(Item::Select(db));
            }
            opcode::RESIZEDB => {
                reader.length()?;
                reader.length()?;
            }
            opcode::SLOT_INFO => {
                for _ in 0..3 {
                    reader.length()?;
                }
            }
            opcode::AUX => {
                let (name, value) = (reader.string()?, reader.string()?);
                return Ok(Item::Aux(name.into_owned(), value.into_owned()));
            }
            opcode::FUNCTION => return Ok(Item::Function(reader.string()?.into_owned())),
            opcode::FUNCTION_PRE_GA => {
                return Err(Corrupt::Invalid(
                    "Pre-release function format not supported.",
                ));
            }
            opcode::MODULE_AUX => {
                return Ok(Item::ModuleAux(module::skip_aux(reader)?));
            }
            opcode::EOF => return Ok(Item::End),
            code => {
                *record = before;
                reader.skip_string()?;
                *stage = Stage::Value(code);
                decode::skip(code, reader)?;
                return Ok(Item::Record(meta));
            }
        }
    }
}

/// What is read behind a code.
fn stage_of(code: u8) -> Stage {
    match code {
        opcode::EXPIRETIME_MS | opcode::EXPIRETIME => Stage::Expiry,
        opcode::SELECTDB | opcode::RESIZEDB | opcode::SLOT_INFO | opcode::IDLE | opcode::FREQ => {
            Stage::Length
        }
        opcode::AUX => Stage::Aux,
        opcode::FUNCTION | opcode::FUNCTION_PRE_GA => Stage::Function,
        opcode::MODULE_AUX => Stage::Module,
        opcode::EOF => Stage::Code,
        code => Stage::Key(code),
    }
}

/// A record: type code, key, and the bytes of the value.
#[derive(Debug)]
pub struct Record<'a> {
    /// The type code.
    pub code: u8,
    /// The key.
    pub key: std::borrow::Cow<'a, [u8]>,
    /// The value, to be read by [`decode::value`].
    pub value: Reader<'a>,
}

impl<'a> Record<'a> {
    /// The record of these bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let code = reader.byte()?;
        let key = reader.string()?;
        Ok(Self {
            code,
            key,
            value: reader,
        })
    }
}
