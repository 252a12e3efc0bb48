//! How lists are laid out: what the parameters say of nodes, and which end is which.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::listpack::MAX_BYTES;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Left, where index 0 is.
    Head,
    /// Right, where index -1 is.
    Tail,
}

/// How lists are laid out, as parameters say it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `list-max-listpack-size`: elements of a node, or below zero the class of its size in bytes.
    pub fill: i32,
    /// `list-compress-depth`: nodes at each end that are not compressed; 0 compresses none.
    pub depth: usize,
    /// Bytes from which on an element gets a node of its own.
    pub plain_from: usize,
}

impl Limits {
    /// The limits by these parameters and DEBUG QUICKLIST-PACKED-THRESHOLD.
    pub fn new(fill: i32, depth: i32) -> Self {
        Self {
            fill: fill.clamp(-5, i16::MAX.into()),
            depth: usize::try_from(depth).unwrap_or(0),
            plain_from: plain_from(),
        }
    }
}

/// Elements of at least so many bytes get a node of their own; see [`set_plain_from`].
static PLAIN_FROM: AtomicUsize = AtomicUsize::new(MAX_BYTES);

/// Bytes from which on elements get a node of their own.
pub fn plain_from() -> usize {
    PLAIN_FROM.load(Ordering::Relaxed)
}

/// Changes [`plain_from`] for the whole process: DEBUG QUICKLIST-PACKED-THRESHOLD, where 0 is the
/// default. False, and no change, for more than 4 GiB.
pub fn set_plain_from(bytes: usize) -> bool {
    let accepted = u32::try_from(bytes).is_ok();
    if accepted {
        let bytes = if bytes == 0 { MAX_BYTES } else { bytes };
        PLAIN_FROM.store(bytes, Ordering::Relaxed);
    }
    accepted
}
