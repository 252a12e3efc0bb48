//! Parts of a value that a snapshot may share with it for a while.
//!
//! A big value is made of parts. To keep it as it is at a moment, somebody who may change it calls
//! [`Share::share`] for each part, which copies nothing; from then on whoever changes a part first
//! copies that part, if the other one still has it. A part that nobody shares costs what it cost
//! without all this: it lies where it lay, and a change looks at a word that it reads anyway.

use std::ops::Deref;
use std::sync::Arc;

/// A part; see the module.
#[derive(Debug)]
pub enum Share<T> {
    /// Nobody else has it.
    Own(T),
    /// Somebody else has it, or had it.
    Shared(Arc<T>),
}

impl<T> Deref for Share<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Own(part) => part,
            Self::Shared(part) => part,
        }
    }
}

impl<T: Clone> Clone for Share<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Own(part) => Self::Own(part.clone()),
            Self::Shared(part) => Self::Shared(Arc::clone(part)),
        }
    }
}

impl<T: Default> Default for Share<T> {
    fn default() -> Self {
        Self::Own(T::default())
    }
}

impl<T: Clone + Default> Share<T> {
    /// The part, to be changed; copied first if somebody else has it.
    #[inline]
    pub fn to_mut(&mut self) -> &mut T {
        if let Self::Shared(_) = self {
            self.unshare();
        }
        match self {
            Self::Own(part) => part,
            Self::Shared(_) => unreachable!("just made its own"),
        }
    }

    #[cold]
    fn unshare(&mut self) {
        if let Self::Shared(part) = std::mem::take(self) {
            *self = Self::Own(Arc::unwrap_or_clone(part));
        }
    }

    /// The same part for somebody else, as it is now.
    pub fn share(&mut self) -> Self {
        *self = match std::mem::take(self) {
            Self::Own(part) => Self::Shared(Arc::new(part)),
            shared => shared,
        };
        self.clone()
    }

    /// The part itself, copied if somebody else has it.
    pub fn into_inner(self) -> T {
        match self {
            Self::Own(part) => part,
            Self::Shared(part) => Arc::unwrap_or_clone(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_stays_as_it_was() {
        let mut part = Share::Own(vec![1, 2]);
        let copy = part.share();
        let again = part.share();
        part.to_mut().push(3);
        assert_eq!(
            (&part[..], &copy[..], &again[..]),
            (&[1, 2, 3][..], &[1, 2][..], &[1, 2][..])
        );
        assert!(matches!(part, Share::Own(_)));
    }

    #[test]
    fn what_nobody_shares_any_more_is_not_copied() {
        let mut part = Share::Own(vec![1, 2]);
        let address = part.as_ptr();
        drop(part.share());
        part.to_mut()[0] = 7;
        assert_eq!((part.as_ptr(), &part[..]), (address, &[7, 2][..]));
        assert_eq!(size_of::<Share<Vec<u8>>>(), size_of::<Vec<u8>>());
    }
}
