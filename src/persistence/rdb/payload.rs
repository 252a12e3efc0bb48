//! A value outside of a file: what DUMP gives and RESTORE takes.
//!
//! Type code, value, version (2 bytes), CRC-64 of all of it (8 bytes), both little endian.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::decode::{self, Layouts, Value};
use super::read::{Corrupt, Reader};
use super::{NEWEST, encode, version_for};
use crate::base::crc::crc64;
use crate::keyspace::entry::Entry;

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
