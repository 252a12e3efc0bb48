//! A value outside of a file: what DUMP gives and RESTORE takes.
//!
//! Type code, value, version (2 bytes), CRC-64 of all of it (8 bytes), both little endian.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::decode::{self, Layouts, Value};
use super::read::{Corrupt, Reader};
use super::write::Writer;
use super::{NEWEST, encode, opcode, version_for};
use crate::base::crc::crc64;
use crate::keyspace::entry::Entry;

/// The version of payloads of functions: that of Redis 7.0.
const FUNCTIONS_VERSION: u16 = 10;

/// Bytes of version and checksum.
const FOOTER: usize = 10;

/// DEBUG SET-SKIP-CHECKSUM-VALIDATION, for the whole process.
static SKIP_CHECKSUMS: AtomicBool = AtomicBool::new(false);

/// Switches the comparison of checksums off or on again.
pub fn skip_checksums(skip: bool) {
    SKIP_CHECKSUMS.store(skip, Relaxed);
}

/// True while checksums are not compared.
pub fn skips_checksums() -> bool {
    SKIP_CHECKSUMS.load(Relaxed)
}

/// An entry's value as a payload.
pub fn of(entry: &Entry, compress: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    encode::coded_value(entry, &mut payload, compress);
    payload.extend(version_for(payload[0]).to_le_bytes());
    payload.extend(crc64(0, &payload).to_le_bytes());
    payload
}

/// The sources of function libraries as a payload.
pub fn of_functions(sources: &[Vec<u8>], compress: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    for source in sources {
        payload.push(opcode::FUNCTION);
        Writer::new(&mut payload, compress).string(source);
    }
    payload.extend(FUNCTIONS_VERSION.to_le_bytes());
    payload.extend(crc64(0, &payload).to_le_bytes());
    payload
}

/// The sources of function libraries of a payload that [`is_sound`]; or what is wrong with it.
pub fn functions(payload: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    const FAILED: &str = "failed loading the given functions payload";
    let end = payload.len().checked_sub(FOOTER).ok_or(FAILED)?;
    let mut reader = Reader::new(&payload[..end]);
    let mut sources = Vec::new();
    while !reader.rest().is_empty() {
        match reader.byte().map_err(|_| "can not read data type")? {
            opcode::FUNCTION => {
                let source = reader.string().map_err(|_| FAILED)?;
                sources.push(source.into_owned());
            }
            opcode::FUNCTION_PRE_GA => {
                return Err("Pre-release function format not supported.");
            }
            _ => return Err("given type is not a function"),
        }
    }
    Ok(sources)
}

/// True when version and checksum are right.
pub fn is_sound(payload: &[u8]) -> bool {
    let Some((checked, sum)) = payload.split_last_chunk::<8>() else {
        return false;
    };
    let Some((_, version)) = checked.split_last_chunk::<2>() else {
        return false;
    };
    u16::from_le_bytes(*version) <= NEWEST
        && (skips_checksums() || crc64(0, checked) == u64::from_le_bytes(*sum))
}

/// The value of a payload that [`is_sound`].
pub fn value(payload: &[u8], layouts: &Layouts) -> Result<Value, Corrupt> {
    let end = payload.len().checked_sub(FOOTER).ok_or(Corrupt::Short)?;
    let mut reader = Reader::new(&payload[..end]);
    let code = reader.byte()?;
    decode::value(code, &mut reader, layouts)
}
