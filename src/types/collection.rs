//! What all collections offer beside what each is for: what keyspace, snapshots and OBJECT need.

use super::{Encoding, Type};

/// What every collection offers, beside what it is for.
pub trait Collection: Sized + Clone {
    /// Its type. Each type has one collection: the entry tells them apart by this.
    const KIND: Type;

    /// The representation, as OBJECT ENCODING names it.
    fn encoding(&self) -> Encoding;

    /// Bytes it owns beyond itself, as the allocator counts them; an estimate when it is big.
    fn memory(&self) -> usize;

    /// How much work freeing it is: about the number of allocations. Constant time.
    fn effort(&self) -> usize;

    /// The same collection as it is now, to be read in order and by nobody's name: what it is made
    /// of is copied when it changes, not before. Takes time only for each some thousand elements.
    fn share(&mut self) -> Self;

    /// Number of elements.
    fn len(&self) -> usize;

    /// True without elements.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads ahead what lookups of these elements are going to read, where that pays.
    fn warm(&self, _elements: &[&[u8]]) {}
}
