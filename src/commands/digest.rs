//! DEBUG DIGEST: a number that is the same for two servers with the same data.
//!
//! Keys are combined by exclusive or, so their order does not matter. Without keys it is zero.

use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};

use crate::keyspace::entry::Entry;
use crate::types::listpack::Element;
use crate::types::object::{Collection, ObjectRef};
use crate::types::stream_id::StreamId;

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
        match entry.object() {
            None => hash.update(entry.string().text().bytes()),
            Some(object) => mix_object(&mut hash, object),
        }
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

/// Adds parts so that where one ends is part of the sum.
fn mix_parts<'a>(hash: &mut Sha256, parts: impl IntoIterator<Item = Element<'a>>) {
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.text(&mut itoa::Buffer::new()));
    }
}

/// Adds parts of which each is a sum of its own, in any order.
fn mix_unordered<'a, P: IntoIterator<Item = Element<'a>>>(
    hash: &mut Sha256,
    members: impl Iterator<Item = P>,
) {
    let mut sum = [0u8; 32];
    for member in members {
        let mut own = Sha256::new();
        mix_parts(&mut own, member);
        sum.iter_mut()
            .zip(own.finalize())
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    hash.update(sum);
}

fn mix_object(hash: &mut Sha256, object: ObjectRef<'_>) {
    match object {
        ObjectRef::List(list) => list.range(0, usize::MAX, |element| mix_parts(hash, [element])),
        ObjectRef::Set(set) => mix_unordered(hash, set.iter().map(|member| [member])),
        ObjectRef::Hash(pairs) => {
            mix_unordered(hash, pairs.iter().map(|(field, value)| [field, value]));
        }
        ObjectRef::ZSet(zset) => {
            for (member, score) in zset.iter(0..zset.len(), false) {
                mix_parts(hash, [member]);
                hash.update(score.to_le_bytes());
            }
        }
        ObjectRef::Stream(stream) => {
            stream
                .log
                .walk((StreamId::MIN, StreamId::MAX), false, |entry| {
                    hash.update(entry.id.to_be_bytes());
                    entry
                        .iter()
                        .for_each(|(name, value)| mix_parts(hash, [name, value]));
                    ControlFlow::Continue(())
                });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::NewValue;
    use crate::types::list::{End, Limits, List};

    fn digest(texts: &[&[u8]], limits: &Limits) -> String {
        let mut list = List::new();
        texts
            .iter()
            .for_each(|text| list.push(End::Tail, text, limits));
        let mut digest = Digest::default();
        let value = NewValue::Object(list.into());
        digest.add_key(0, &Entry::new(b"key", value, None, 0));
        digest.hex()
    }

    #[test]
    fn the_same_elements_in_any_layout() {
        let (one, many) = (Limits::new(-2, 0), Limits::new(1, 0));
        let same = digest(&[b"a", b"bc"], &one);
        assert_eq!(digest(&[b"a", b"bc"], &many), same);
        for other in [[&b"bc"[..], b"a"], [b"ab", b"c"]] {
            assert_ne!(digest(&other, &one), same);
        }
    }
}
