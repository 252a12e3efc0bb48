//! Redis' dump format (RDB): values as DUMP gives them, and files of many.
//!
//! We write the oldest version that can hold the data and read every version up to
//! [`NEWEST`]. The format has no official text; its sources are Redis' own reader and writer up
//! to 7.2, and for later type codes the descriptions of RESTORE's payloads.
//!
//! [`mod@write`] and [`read`] hold the primitives: lengths, strings, numbers. [`encode`] and
//! [`decode`] put values on them, [`legacy`] the compact encodings of old versions, [`mod@file`] what
//! stands around the values in a file. All reading is from slices and checks every length.

pub mod decode;
pub mod encode;
pub mod file;
pub mod legacy;
pub mod module;
pub mod payload;
pub mod read;
pub mod stream;
pub mod write;

/// The version of what Redis 7.0 can hold.
pub const VERSION: u16 = 10;
/// The version that hashes need whose fields expire.
pub const TIMED_VERSION: u16 = 12;
/// The newest version that is read.
pub const NEWEST: u16 = 12;

/// The version that a value with this type code needs.
pub fn version_for(code: u8) -> u16 {
    match code {
        code::HASH_METADATA | code::HASH_LISTPACK_EX => TIMED_VERSION,
        _ => VERSION,
    }
}

/// Type codes: how a value in a file is represented.
pub mod code {
    /// A string.
    pub const STRING: u8 = 0;
    /// Number of elements, elements.
    pub const LIST: u8 = 1;
    /// Number of members, members.
    pub const SET: u8 = 2;
    /// Number of members, each with its score as text.
    pub const ZSET: u8 = 3;
    /// Number of fields, fields and values.
    pub const HASH: u8 = 4;
    /// As `ZSET`, scores as 8 bytes.
    pub const ZSET_2: u8 = 5;
    /// A module's value, format of a version that was never released.
    pub const MODULE_PRE_GA: u8 = 6;
    /// A module's value.
    pub const MODULE: u8 = 7;
    /// A hash in the packed form of Redis 2.4.
    pub const HASH_ZIPMAP: u8 = 9;
    /// A list in one ziplist.
    pub const LIST_ZIPLIST: u8 = 10;
    /// A set of integers in one array.
    pub const SET_INTSET: u8 = 11;
    /// A sorted set in one ziplist.
    pub const ZSET_ZIPLIST: u8 = 12;
    /// A hash in one ziplist.
    pub const HASH_ZIPLIST: u8 = 13;
    /// Number of ziplists, ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    /// A stream, as Redis 5 knew it.
    pub const STREAM_LISTPACKS: u8 = 15;
    /// A hash in one listpack.
    pub const HASH_LISTPACK: u8 = 16;
    /// A sorted set in one listpack.
    pub const ZSET_LISTPACK: u8 = 17;
    /// Number of nodes, each a kind and a listpack or an element.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// A stream with its first ID, what was deleted and added, and how far groups have read.
    pub const STREAM_LISTPACKS_2: u8 = 19;
    /// A set in one listpack (7.2).
    pub const SET_LISTPACK: u8 = 20;
    /// A stream with the times at which consumers were active (7.2).
    pub const STREAM_LISTPACKS_3: u8 = 21;
    /// A hash with expiry times of fields (7.4).
    pub const HASH_METADATA: u8 = 24;
    /// The same in one listpack.
    pub const HASH_LISTPACK_EX: u8 = 25;
}

/// Codes of what stands between the values of a file.
pub mod opcode {
    /// Slot with its number of keys (7.4, cluster mode).
    pub const SLOT_INFO: u8 = 244;
    /// A library of functions.
    pub const FUNCTION: u8 = 245;
    /// The same, of a version before release.
    pub const FUNCTION_PRE_GA: u8 = 246;
    /// Data of a module beside the keys.
    pub const MODULE_AUX: u8 = 247;
    /// Seconds since the next value was used.
    pub const IDLE: u8 = 248;
    /// LFU counter of the next value.
    pub const FREQ: u8 = 249;
    /// A field about the file: name, value.
    pub const AUX: u8 = 250;
    /// Number of keys and of keys with expiry of the database.
    pub const RESIZEDB: u8 = 251;
    /// Expiry of the next value in Unix milliseconds.
    pub const EXPIRETIME_MS: u8 = 252;
    /// Expiry of the next value in Unix seconds.
    pub const EXPIRETIME: u8 = 253;
    /// The database of what follows.
    pub const SELECTDB: u8 = 254;
    /// The end; a checksum follows from version 5 on.
    pub const EOF: u8 = 255;
}
