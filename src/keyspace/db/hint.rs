//! What is known of a key ahead of its command.

use crate::keyspace::shards::Keyspace;
use crate::keyspace::table::{Ahead, AheadBucket};

/// What is known of a key before its command runs, because the key was prefetched.
#[derive(Clone, Copy, Debug)]
pub struct Hint {
    address: usize,
    len: usize,
    pub(super) hash: u64,
    ahead: Ahead,
    bucket: AheadBucket,
}

impl Hint {
    /// Hashes a key, which must stay where it is, and asks the processor for the first step to it.
    #[inline]
    pub fn new(keyspace: &Keyspace, db: usize, key: &[u8]) -> Self {
        let hash = keyspace.hash(key);
        Self {
            address: key.as_ptr() as usize,
            len: key.len(),
            hash,
            ahead: keyspace.prefetch(db, hash),
            bucket: AheadBucket::default(),
        }
    }

    /// The key's hash.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Asks the processor for the key's bucket, once the first step should have arrived.
    #[inline]
    pub fn prefetch_bucket(&mut self) {
        self.bucket = self.ahead.prefetch_bucket(self.hash);
    }

    /// Asks the processor for the key's entry, once its bucket should have arrived.
    #[inline]
    pub fn prefetch_entry(&self) {
        if !self.bucket.prefetch_entry(self.hash) {
            self.ahead.prefetch_displaced(self.hash);
        }
    }

    #[inline]
    pub(super) fn is(&self, key: &[u8]) -> bool {
        self.address == key.as_ptr() as usize && self.len == key.len()
    }
}
