//! A collection for the tests of entries.

use super::object::Collection;
use super::{Encoding, Type};

/// A boxed list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe(pub Box<Vec<u64>>);

impl Collection for Probe {
    const KIND: Type = Type::List;

    fn encoding(&self) -> Encoding {
        Encoding::Quicklist
    }

    fn memory(&self) -> usize {
        self.0.capacity() * 8
    }

    fn effort(&self) -> usize {
        self.0.len()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
