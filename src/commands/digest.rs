//! DEBUG DIGEST: a number that is the same for two servers with the same data, Redis among them.
//!
//! Two operations on 20 bytes: *fold* combines them by exclusive or with the SHA-1 of a text, so the
//! order of what is folded in does not matter; *mix* does that and hashes the result, so it does.
//! Without keys all is zero.

use sha1::{Digest as _, Sha1};

use crate::base::number;
use crate::keyspace::entry::Entry;
use crate::types::Type;
use crate::types::listpack::Element;
use crate::types::object::ObjectRef;
use crate::types::stream_id::StreamId;

/// A digest so far.
#[derive(Clone, Copy, Default)]
pub struct Digest([u8; 20]);

impl Digest {
    fn fold(&mut self, text: &[u8]) {
        let hash = Sha1::digest(text);
        self.0
            .iter_mut()
            .zip(hash)
            .for_each(|(sum, byte)| *sum ^= byte);
    }

    fn mix(&mut self, text: &[u8]) {
        self.fold(text);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_element(&mut self, element: Element<'_>) {
        self.mix(element.text(&mut itoa::Buffer::new()));
    }

    /// Begins a database that has keys.
    pub fn add_database(&mut self, db: usize) {
        self.mix(&(db as u32).to_be_bytes());
    }

    /// Adds a key with all that belongs to it.
    pub fn add_key(&mut self, entry: &Entry) {
        let mut key = Self::default();
        key.mix(entry.key());
        key.add_value(entry);
        self.fold(&key.0);
    }

    /// Adds a value without its key. When it expires may differ by the time that replication
    /// takes; whether does not.
    pub fn add_value(&mut self, entry: &Entry) {
        self.mix(&type_number(entry.kind()).to_be_bytes());
        match entry.object() {
            None => self.mix(entry.string().text().bytes()),
            Some(object) => self.add_object(object),
        }
        if entry.expiry().is_some() {
            self.fold(b"!!expire!!");
        }
    }

    fn add_object(&mut self, object: ObjectRef<'_>) {
        match object {
            ObjectRef::List(list) => {
                list.range(0, usize::MAX, |element| self.mix_element(element));
            }
            ObjectRef::Set(set) => {
                let mut digits = itoa::Buffer::new();
                set.iter().for_each(|m| self.fold(m.text(&mut digits)));
            }
            ObjectRef::Hash(hash) => {
                for (field, value) in hash.iter() {
                    let mut pair = Self::default();
                    pair.mix_element(field);
                    pair.mix_element(value);
                    self.fold(&pair.0);
                }
            }
            ObjectRef::ZSet(zset) => {
                for (member, score) in zset.all() {
                    let mut text = Vec::new();
                    number::format_g17(&mut text, score);
                    let mut pair = Self::default();
                    pair.mix_element(member);
                    pair.mix(&text);
                    self.fold(&pair.0);
                }
            }
            ObjectRef::Stream(stream) => {
                let all = (StreamId::MIN, StreamId::MAX);
                stream.log.walk(all, false, |entry| {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    for (field, value) in entry.iter() {
                        self.mix_element(field);
                        self.mix_element(value);
                    }
                    std::ops::ControlFlow::Continue(())
                });
            }
        }
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The number that Redis has for a type; modules, which have none here, are 5.
fn type_number(kind: Type) -> u32 {
    match kind {
        Type::Stream => 6,
        other => other as u32,
    }
}
