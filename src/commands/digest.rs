//! DEBUG DIGEST: a number that is the same for two servers with the same data.
//!
//! Keys are combined by exclusive or, so their order does not matter. Without keys it is zero.

use sha2::{Digest as _, Sha256};

use crate::keyspace::entry::Entry;

/// The digest so far.
#[derive(Default)]
pub struct Digest([u8; 20]);

impl Digest {
    /// Adds a key of a database with all that belongs to it.
    pub fn add_key(&mut self, db: usize, entry: &Entry) {
        let mut hash = Sha256::new();
        hash.update((db as u64).to_le_bytes());
        hash.update((entry.key().len() as u64).to_le_bytes());
        hash.update(entry.key());
        self.mix(hash, entry);
    }

    /// Adds a value without its key.
    pub fn add_value(&mut self, entry: &Entry) {
        self.mix(Sha256::new(), entry);
    }

    fn mix(&mut self, mut hash: Sha256, entry: &Entry) {
        hash.update(entry.kind().name());
        hash.update(entry.string().text().bytes());
        // When a key expires may differ by the time that replication takes; whether does not.
        if entry.expiry().is_some() {
            hash.update(b"volatile");
        }
        self.0
            .iter_mut()
            .zip(hash.finalize())
            .for_each(|(sum, byte)| *sum ^= byte);
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
