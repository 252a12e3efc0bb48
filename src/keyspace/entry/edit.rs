//! Changes of an entry: in place as long as its allocation holds them, else by a new one.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::value::{Body, Garbage, NewValue, Plan, int_width};
use super::{
    EPOCH, EXPIRY, Entry, HEADER, HOLLOW, INLINE_MAX, NO_EXPIRY, OBJECT, PATCHED, POINTER,
    key_offset,
};
use crate::base::alloc::size_class;
use crate::types::object::Object;
use crate::types::patched::{self, Patched, Settled};
use crate::types::string::{self, INT_TEXT_MAX, StringMut, StringRef};
use crate::types::{Encoding, Type};

impl Entry {
    /// Makes a string's bytes changeable in place, as an allocation of their own, encoding raw.
    /// Replies that still hold the old bytes keep them.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        if let Some(string) = self.patched() {
            let bytes = Arc::clone(string.whole());
            self.set_value(NewValue::Shared(bytes));
        } else if self.flags() & POINTER == 0 {
            let bytes = self.string().to_vec();
            self.set_value(NewValue::Shared(Arc::new(bytes)));
        }
        self.put(0, (Type::String as u8) << 4 | Encoding::Raw as u8);
        // SAFETY: POINTER is set, and `&mut self` makes this the only access.
        let slot = unsafe { &mut *self.address_slot() };
        Arc::make_mut(
            slot.as_mut()
                .expect("only taken by what replaces the value"),
        )
    }

    /// Bytes of an inline string that are to be changed without changing their number; the
    /// encoding becomes raw. `None` when the value is elsewhere or an integer.
    pub fn inline_mut(&mut self) -> Option<&mut [u8]> {
        if self.flags() & POINTER != 0 || self.get(0) & 15 == Encoding::Int as u8 {
            return None;
        }
        self.put(0, (Type::String as u8) << 4 | Encoding::Raw as u8);
        // SAFETY: the value's bytes, exclusively borrowed through self.
        Some(unsafe { std::slice::from_raw_parts_mut(self.inline_address(), self.inline_len()) })
    }

    /// The string as one of which somebody else has what it was, if that is so and it is too long to
    /// be copied as a whole before it is changed. One that was so, and is no longer, takes some of
    /// its changes back.
    fn make_patched(&mut self) -> Option<&mut Patched> {
        if self.flags() & POINTER == 0 {
            return None;
        }
        if self.flags() & PATCHED != 0 {
            self.settle();
        } else if let StringRef::Shared(bytes) = self.string()
            && bytes.len() >= patched::FROM
            && Arc::strong_count(bytes) > 1
        {
            let string = Box::new(Patched::new(Arc::clone(bytes)));
            self.set_body(Body::Patched(string));
        }
        self.patched_mut()
    }

    fn patched_mut(&mut self) -> Option<&mut Patched> {
        if self.flags() & PATCHED == 0 {
            return None;
        }
        // SAFETY: PATCHED is set, so an initialised slot stands there; `&mut self` is exclusive.
        unsafe { &mut *self.patched_slot() }.as_deref_mut()
    }

    /// Where a long string changed while somebody else had what it was, writes some of the changes
    /// to their places, if nobody has it any more; true while more is to be done. Takes some hundred
    /// microseconds at most, and does not move the entry.
    pub fn settle(&mut self) -> bool {
        match self.patched_mut().map(Patched::settle) {
            Some(Settled::More) => true,
            Some(Settled::Plain(bytes)) => {
                self.set_body(Body::Pointer(bytes));
                false
            }
            Some(Settled::Shared) | None => false,
        }
    }

    /// Puts one body behind an address in the place of another: the entry stays where it is.
    fn set_body(&mut self, body: Body<'static>) {
        let encoding = Encoding::Raw;
        let plan = Plan { encoding, body };
        drop(self.take_big());
        self.put(1, self.flags() & !PATCHED | plan.flags());
        // SAFETY: both bodies are an address, so the layout is the same; the old one was taken.
        unsafe { self.write_value(plan) };
    }

    /// A string, changeable in place, with zeros added up to `len` bytes if it is shorter; the
    /// encoding becomes raw.
    pub fn padded_mut(&mut self, len: usize) -> StringMut<'_> {
        self.make_patched();
        if self.flags() & PATCHED == 0 {
            return StringMut::Bytes(self.padded_bytes_mut(len));
        }
        let string = self.patched_mut().expect("there, as the flag says");
        string.pad(len);
        StringMut::Patched(string)
    }

    fn padded_bytes_mut(&mut self, len: usize) -> &mut [u8] {
        let old_len = self.string().len();
        let len = len.max(old_len);
        if self.flags() & POINTER == 0 && len <= INLINE_MAX {
            if len > old_len || self.encoding() == Encoding::Int {
                let mut padded = [0; INLINE_MAX];
                padded[..old_len].copy_from_slice(self.string().text().bytes());
                self.set_value(NewValue::RawBytes(&padded[..len]));
            }
            return self.inline_mut().expect("short strings are inline");
        }
        let bytes = self.bytes_mut();
        bytes.resize(len, 0);
        bytes
    }

    /// Adds bytes at the end of a string; the encoding becomes raw.
    pub fn append(&mut self, tail: &[u8]) {
        if let Some(string) = self.make_patched() {
            return string.append(tail);
        }
        let old_len = self.string().len();
        let len = old_len + tail.len();
        if self.flags() & POINTER == 0 && len <= INLINE_MAX {
            let mut whole = [0; INLINE_MAX];
            whole[..old_len].copy_from_slice(self.string().text().bytes());
            whole[old_len..len].copy_from_slice(tail);
            self.set_value(NewValue::RawBytes(&whole[..len]));
        } else {
            self.bytes_mut().extend_from_slice(tail);
        }
    }

    /// The same value, expiry and clock under another key.
    pub fn renamed(mut self, key: &[u8]) -> Self {
        let (expiry, clock) = (self.expiry(), self.clock());
        let plan = self.take_plan();
        Self::build(key, plan, expiry, clock)
    }

    /// The same value and expiry under another key; what is big is shared until one changes.
    pub fn copied(&self, key: &[u8], clock: u32) -> Self {
        let body = match self.object() {
            Some(object) => Body::Object(object.to_owned()),
            None => match self.string() {
                StringRef::Int(n) => Body::Int(n, int_width(n)),
                StringRef::Inline(bytes) => Body::Inline(bytes),
                StringRef::Shared(bytes) => Body::Pointer(Arc::clone(bytes)),
                StringRef::Patched(string) => Body::Pointer(Arc::clone(string.whole())),
            },
        };
        let encoding = self.string_encoding();
        Self::build(key, Plan { encoding, body }, self.expiry(), clock)
    }

    /// Replaces the value, keeping key, expiry and clock; returns what to free later.
    pub fn set_value(&mut self, value: NewValue<'_>) -> Option<Garbage> {
        if let NewValue::Int(n) = value
            && self.put_integer(n)
        {
            return None;
        }
        if let NewValue::Bytes(bytes) = value
            && self.put_same_length(bytes)
        {
            return None;
        }
        let plan = Plan::new(value);
        let garbage = self.take_big();
        let flags = self.flags();
        let new_flags = flags & !(POINTER | PATCHED | OBJECT) | plan.flags();
        let base = key_offset(flags) + self.key_len();
        let new_size = key_offset(new_flags) + self.key_len() + plan.inline_len();
        // Without its address the entry counts as laid out by `flags` all the same.
        let old_size = base + self.inline_len();
        if new_flags & !EPOCH == flags & !EPOCH && size_class(new_size) == size_class(old_size) {
            // SAFETY: same flags and same allocation class: there is room.
            unsafe { self.write_value(plan) };
        } else {
            let new = Self::build(self.key(), plan, self.expiry(), self.clock());
            self.become_other(new);
        }
        garbage
    }

    /// Adds to an integer in place, in the width it has; `None`, with nothing changed, when it is
    /// none, or the sum does not fit.
    #[inline]
    pub fn add_in_place(&mut self, by: i64) -> Option<i64> {
        if self.get(0) != Encoding::Int as u8 || self.flags() & (POINTER | OBJECT) != 0 {
            return None;
        }
        let sum = self.string().integer()?.checked_add(by)?;
        self.put_integer(sum).then_some(sum)
    }

    /// Writes a string over an inline one of the same length, as clients that update a field do;
    /// false when there is none, or the new one may be an integer.
    #[inline]
    fn put_same_length(&mut self, bytes: &[u8]) -> bool {
        let inline = self.flags() & (POINTER | OBJECT) == 0 && self.inline_len() == bytes.len();
        if !inline || bytes.len() <= INT_TEXT_MAX {
            return false;
        }
        self.put(
            0,
            (Type::String as u8) << 4 | string::encode_text(bytes) as u8,
        );
        // SAFETY: as many bytes of the value lie there, `&mut self` makes this the only access, so
        // `bytes` is not among them.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.inline_address(), bytes.len());
        }
        true
    }

    /// Changes an integer in place, in the width it has; false when it is none, or the new one does
    /// not fit.
    #[inline]
    fn put_integer(&mut self, n: i64) -> bool {
        if self.get(0) != Encoding::Int as u8 || self.flags() & (POINTER | OBJECT) != 0 {
            return false;
        }
        let at = self.inline_address();
        // SAFETY: an integer of that width lies there, at no particular alignment.
        unsafe {
            match self.inline_len() {
                8 => at.cast::<i64>().write_unaligned(n),
                4 if i64::from(n as i32) == n => at.cast::<i32>().write_unaligned(n as i32),
                2 if i64::from(n as i16) == n => at.cast::<i16>().write_unaligned(n as i16),
                1 if i64::from(n as i8) == n => at.cast::<i8>().write(n as i8),
                _ => return false,
            }
        }
        true
    }

    /// Sets or removes the expiry (Unix time in milliseconds).
    pub fn set_expiry(&mut self, expiry: Option<i64>) {
        if self.flags() & EXPIRY != 0 {
            // SAFETY: EXPIRY means the field is there; aligned.
            unsafe {
                self.raw
                    .add(HEADER)
                    .cast::<i64>()
                    .write(expiry.unwrap_or(NO_EXPIRY))
            };
        } else if expiry.is_some() {
            let moved = self.take_plan();
            let new = Self::build(self.key(), moved, expiry, self.clock());
            self.become_other(new);
        }
    }

    /// The value as a plan that owns what was behind the address (no longer in the entry).
    fn take_plan(&mut self) -> Plan<'static> {
        let encoding = self.string_encoding();
        let body = match self.take_big() {
            Some(Garbage::Bytes(shared)) => Body::Pointer(shared),
            Some(Garbage::Patched(string)) => Body::Patched(string),
            Some(Garbage::Object(object)) => Body::Object(object),
            None => match self.string() {
                StringRef::Int(n) => Body::Int(n, self.inline_len()),
                StringRef::Inline(bytes) => {
                    // SAFETY: the bytes live until `become_other`, which follows the copy.
                    Body::Inline(unsafe { &*std::ptr::from_ref(bytes) })
                }
                StringRef::Shared(_) | StringRef::Patched(_) => {
                    unreachable!("the address was taken")
                }
            },
        };
        Plan { encoding, body }
    }

    /// Takes what is not inline; the caller fills or frees the entry next.
    pub(super) fn take_big(&mut self) -> Option<Garbage> {
        let flags = self.flags();
        if flags & PATCHED != 0 {
            // SAFETY: PATCHED is set, so an initialised slot stands there; `&mut self` is exclusive.
            let slot = unsafe { &mut *self.patched_slot() };
            return slot.take().map(Garbage::Patched);
        }
        if flags & POINTER != 0 {
            // SAFETY: POINTER is set, so an initialised slot stands there; `&mut self` is exclusive.
            let slot = unsafe { &mut *self.address_slot() };
            return slot.take().map(Garbage::Bytes);
        }
        if flags & OBJECT == 0 || self.get(0) == HOLLOW {
            return None;
        }
        // SAFETY: OBJECT is set and the entry not hollow, so a collection of the header's type
        // lies there; it is hollow from now on.
        let object = unsafe { Object::read_from(self.kind(), self.object_slot()) };
        self.put(0, HOLLOW);
        Some(Garbage::Object(object))
    }

    fn become_other(&mut self, new: Entry) {
        new.set_epoch(self.epoch());
        let old = std::mem::replace(&mut self.raw, ManuallyDrop::new(new).raw);
        drop(Entry { raw: old });
    }
}
