//! Values: what a key can hold. One file per type, one per encoding.
//!
//! Knows nothing of keys, clients, replies, locks or the clock.

pub mod bitmap;
pub mod btree;
pub mod collection;
pub mod element;
pub mod geohash;
pub mod hash;
pub mod hyperloglog;
pub mod intset;
pub mod lcs;
pub mod list;
pub mod list_layout;
pub mod listpack;
#[allow(unsafe_code)]
pub mod object;
pub mod parted;
pub mod patched;
pub mod quicklist;
pub mod row;
pub mod run;
pub mod set;
pub mod stream;
pub mod stream_block;
pub mod stream_group;
pub mod stream_id;
pub mod string;
pub mod table;
pub mod zset;

/// The type of a value, as TYPE names it. The numbers are stored in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// Strings and bitmaps.
    String = 0,
    /// Lists.
    List = 1,
    /// Sets.
    Set = 2,
    /// Sorted sets.
    ZSet = 3,
    /// Hashes.
    Hash = 4,
    /// Streams.
    Stream = 5,
}

impl Type {
    /// Every type, by its number.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::List,
        Self::Set,
        Self::ZSet,
        Self::Hash,
        Self::Stream,
    ];

    /// The name that TYPE answers and SCAN's TYPE option takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::ZSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }
}

/// How a value is represented, as OBJECT ENCODING names it. Those of strings are stored in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// A string of any length that was built or changed in place.
    Raw = 0,
    /// A string that is the decimal text of a 64-bit integer, kept as the integer.
    Int = 1,
    /// A string of at most 44 bytes, as it was set.
    EmbStr = 2,
    /// A collection in one listpack.
    Listpack,
    /// A hash in one listpack of fields, values and expiry times.
    ListpackEx,
    /// A list.
    Quicklist,
    /// A set of integers in one sorted array.
    Intset,
    /// A set or hash in a hash table.
    Hashtable,
    /// A sorted set in a tree.
    Skiplist,
    /// A stream.
    Stream,
}

impl Encoding {
    /// The name that OBJECT ENCODING answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Int => "int",
            Self::EmbStr => "embstr",
            Self::Listpack => "listpack",
            Self::ListpackEx => "listpackex",
            Self::Quicklist => "quicklist",
            Self::Intset => "intset",
            Self::Hashtable => "hashtable",
            Self::Skiplist => "skiplist",
            Self::Stream => "stream",
        }
    }
}
