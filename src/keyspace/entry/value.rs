//! Values on their way into an entry and out of it, and how they are laid out there.

use std::sync::Arc;

use super::{INLINE_MAX, OBJECT, PATCHED, POINTER};
use crate::types::object::{Object, ObjectRef};
use crate::types::patched::Patched;
use crate::types::string::{self, SharedBytes, StringRef};
use crate::types::{Encoding, Type};

/// A value to be stored.
#[derive(Debug)]
pub enum NewValue<'a> {
    /// A string, encoded by its content (int, embstr or raw).
    Bytes(&'a [u8]),
    /// A string that reports `raw` whatever its content, as one that was changed in place.
    RawBytes(&'a [u8]),
    /// A string encoded by its length alone (embstr or raw), even if it is an integer's text.
    Text(&'a [u8]),
    /// An integer.
    Int(i64),
    /// A string in an allocation of its own.
    Shared(SharedBytes),
    /// A collection.
    Object(Object),
}

/// What is freed after the locks: values too big to be freed under them.
#[derive(Debug)]
pub enum Garbage {
    /// A string.
    Bytes(SharedBytes),
    /// A string that changed while somebody else had what it was.
    Patched(Box<Patched>),
    /// A collection.
    Object(Object),
}

/// A value, borrowed.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    /// A string.
    String(StringRef<'a>),
    /// A collection.
    Object(ObjectRef<'a>),
}

/// A big value as it was at a moment, whatever becomes of the entry.
#[derive(Debug)]
pub enum Kept {
    /// A string.
    Bytes(SharedBytes),
    /// A string that had changed before while somebody else had what it was.
    Patched(Box<Patched>),
    /// A collection, to be read in order ([`crate::types::collection::Collection::share`]).
    Object(Object),
}

impl Kept {
    /// About the number of parts that it shares with the entry.
    pub fn parts(&self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Patched(string) => string.effort() / 16 + 1,
            Self::Object(object) => object.effort() / 16 + 1,
        }
    }

    /// The value.
    pub fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Bytes(bytes) => ValueRef::String(StringRef::Shared(bytes)),
            Self::Patched(string) => ValueRef::String(StringRef::Patched(string)),
            Self::Object(object) => ValueRef::Object(object.as_ref()),
        }
    }
}

impl Garbage {
    /// How much work freeing it is: about the number of allocations.
    pub fn effort(&self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Patched(string) => string.effort(),
            Self::Object(object) => object.effort(),
        }
    }
}

/// How a value is laid out in an entry.
pub(super) struct Plan<'a> {
    /// Of a string; a collection knows its own.
    pub(super) encoding: Encoding,
    pub(super) body: Body<'a>,
}

pub(super) enum Body<'a> {
    Inline(&'a [u8]),
    Int(i64, usize),
    Pointer(SharedBytes),
    Patched(Box<Patched>),
    Object(Object),
}

pub(super) fn int_width(n: i64) -> usize {
    if i64::from(n as i8) == n {
        1
    } else if i64::from(n as i16) == n {
        2
    } else if i64::from(n as i32) == n {
        4
    } else {
        8
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(value: NewValue<'a>) -> Self {
        match value {
            NewValue::Int(n) => Self::int(n),
            NewValue::RawBytes(bytes) => Self::bytes(bytes, Encoding::Raw),
            NewValue::Text(bytes) => Self::bytes(bytes, string::encode_text(bytes)),
            NewValue::Bytes(bytes) => match string::encode(bytes) {
                (_, Some(n)) => Self::int(n),
                (encoding, None) => Self::bytes(bytes, encoding),
            },
            NewValue::Shared(bytes) => Self {
                encoding: Encoding::Raw,
                body: Body::Pointer(bytes),
            },
            NewValue::Object(object) => Self {
                encoding: Encoding::Raw,
                body: Body::Object(object),
            },
        }
    }

    pub(super) fn int(n: i64) -> Self {
        Self {
            encoding: Encoding::Int,
            body: Body::Int(n, int_width(n)),
        }
    }

    pub(super) fn bytes(bytes: &'a [u8], encoding: Encoding) -> Self {
        let body = if bytes.len() <= INLINE_MAX {
            Body::Inline(bytes)
        } else {
            Body::Pointer(Arc::new(bytes.to_vec()))
        };
        Self { encoding, body }
    }

    pub(super) fn flags(&self) -> u8 {
        match self.body {
            Body::Pointer(_) => POINTER,
            Body::Patched(_) => POINTER | PATCHED,
            Body::Object(_) => OBJECT,
            _ => 0,
        }
    }

    pub(super) fn inline_len(&self) -> usize {
        match &self.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Int(_, width) => *width,
            Body::Pointer(_) | Body::Patched(_) | Body::Object(_) => 0,
        }
    }

    pub(super) fn kind(&self) -> Type {
        match &self.body {
            Body::Object(object) => object.kind(),
            _ => Type::String,
        }
    }
}
