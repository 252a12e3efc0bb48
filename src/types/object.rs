//! The sum of the collections: any of them, as the value of a key.
//!
//! A collection is at most [`OBJECT_SIZE`] bytes and lies inside its key's entry. Small ones own
//! one allocation from there; big ones a structure behind a box. The entry knows the type from its
//! header, so the sum type [`Object`] exists only while a value moves.

use super::collection::Collection;
use super::{Encoding, Type};

/// Most bytes of a collection that lie in the entry.
pub const OBJECT_SIZE: usize = 16;

/// Makes the sum types of the collections from one list of them.
macro_rules! objects {
    ($($name:ident($collection:ty)),* $(,)?) => {
        /// A collection that is nobody's value at the moment.
        #[derive(Clone, Debug)]
        pub enum Object {
            $(#[allow(missing_docs)] $name($collection),)*
        }

        /// A collection borrowed from its entry.
        #[derive(Clone, Copy, Debug)]
        pub enum ObjectRef<'a> {
            $(#[allow(missing_docs)] $name(&'a $collection),)*
        }

        $(
            const _: () = assert!(
                size_of::<$collection>() <= OBJECT_SIZE && align_of::<$collection>() <= 8
            );

            impl From<$collection> for Object {
                fn from(collection: $collection) -> Self {
                    Self::$name(collection)
                }
            }
        )*

        impl ObjectRef<'_> {
            /// The type.
            pub fn kind(self) -> Type {
                match self { $(Self::$name(_) => <$collection>::KIND,)* }
            }

            /// See [`Collection::encoding`].
            pub fn encoding(self) -> Encoding {
                match self { $(Self::$name(c) => Collection::encoding(c),)* }
            }

            /// See [`Collection::effort`].
            pub fn effort(self) -> usize {
                match self { $(Self::$name(c) => Collection::effort(c),)* }
            }

            /// See [`Collection::memory`].
            pub fn memory(self) -> usize {
                match self { $(Self::$name(c) => Collection::memory(c),)* }
            }

            /// Number of elements.
            pub fn elements(self) -> usize {
                match self { $(Self::$name(c) => Collection::len(c),)* }
            }

            /// See [`Collection::warm`].
            pub fn warm(self, elements: &[&[u8]]) {
                match self { $(Self::$name(c) => Collection::warm(c, elements),)* }
            }

            /// A deep copy.
            pub fn to_owned(self) -> Object {
                match self { $(Self::$name(c) => Object::$name(c.clone()),)* }
            }
        }

        impl Object {
            /// The collection, borrowed.
            pub fn as_ref(&self) -> ObjectRef<'_> {
                match self { $(Self::$name(c) => ObjectRef::$name(c),)* }
            }

            /// See [`Collection::share`], of the collection of a type that lies in raw memory.
            ///
            /// # Safety
            /// [`Object::write_to`] put a collection of this type there, and nobody else looks at it.
            pub(crate) unsafe fn share_at(kind: Type, place: *mut u8) -> Self {
                match kind {
                    $(<$collection>::KIND => {
                        // SAFETY: by contract it holds the type's collection, for this call alone.
                        Self::$name(unsafe { &mut *place.cast::<$collection>() }.share())
                    })*
                    other => unreachable!("{} is no collection", other.name()),
                }
            }

            /// The type.
            pub fn kind(&self) -> Type {
                match self { $(Self::$name(_) => <$collection>::KIND,)* }
            }

            /// See [`Collection::effort`].
            pub fn effort(&self) -> usize {
                match self { $(Self::$name(c) => Collection::effort(c),)* }
            }

            /// Moves the collection to raw memory of [`OBJECT_SIZE`] bytes.
            ///
            /// # Safety
            /// `place` can be written and is aligned to 8. What was there is not dropped.
            pub(crate) unsafe fn write_to(self, place: *mut u8) {
                match self {
                    // SAFETY: size and alignment are asserted above for each type.
                    $(Self::$name(c) => unsafe { place.cast::<$collection>().write(c) },)*
                }
            }

            /// Moves the collection of a type out of raw memory.
            ///
            /// # Safety
            /// [`Object::write_to`] put a collection of this type there, and nothing takes it again.
            pub(crate) unsafe fn read_from(kind: Type, place: *mut u8) -> Self {
                match kind {
                    $(<$collection>::KIND => {
                        // SAFETY: by contract it holds the type's collection.
                        Self::$name(unsafe { place.cast::<$collection>().read() })
                    })*
                    other => unreachable!("{} is no collection", other.name()),
                }
            }
        }

        impl<'a> ObjectRef<'a> {
            /// Borrows the collection of a type that lies in raw memory.
            ///
            /// # Safety
            /// [`Object::write_to`] put a collection of this type there; nothing changes it for 'a.
            pub(crate) unsafe fn borrow_from(kind: Type, place: *const u8) -> Self {
                match kind {
                    $(<$collection>::KIND => {
                        // SAFETY: by contract it holds the type's collection.
                        Self::$name(unsafe { &*place.cast::<$collection>() })
                    })*
                    other => unreachable!("{} is no collection", other.name()),
                }
            }
        }
    };
}

objects! {
    List(super::list::List),
    Set(super::set::Set),
    ZSet(super::zset::ZSet),
    Hash(super::hash::Hash),
    Stream(Box<super::stream::Stream>),
}
