//! Cursor and options of SCAN and of the walks through a collection.

use crate::base::glob;
use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;

/// What is asked of a walk.
pub(super) struct ScanOptions<'a> {
    /// About how many elements to look at; at least 1.
    pub count: usize,
    /// The pattern of what is to be shown; all if `None`.
    pub pattern: Option<&'a [u8]>,
    /// The type of keys that are to be shown (SCAN).
    pub kind: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// The options from argument `from` on; TYPE is one of them only `with_type`.
    pub fn parse(args: Args<'a>, from: usize, with_type: bool) -> Result<Self, Error> {
        let mut options = Self {
            count: 10,
            pattern: None,
            kind: None,
        };
        let mut words = Cursor::new(args, from);
        while words.step() {
            match () {
                () if words.is("count") => {
                    options.count = match usize::try_from(words.int()?) {
                        Ok(count @ 1..) => count,
                        _ => return Err(words.refuse()),
                    };
                }
                () if words.is("match") => {
                    options.pattern = Some(words.value()?).filter(|p| *p != b"*");
                }
                () if with_type && words.is("type") => options.kind = Some(words.value()?),
                () => return Err(words.refuse()),
            }
        }
        Ok(options)
    }

    /// True when an element's name matches the pattern.
    pub fn wants(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|p| glob::matches(p, name, false))
    }
}

/// A cursor as `strtoul` reads it: a sign is taken, a number that does not fit 64 bits is not.
pub(super) fn parse_cursor(text: &[u8]) -> Result<u64, Error> {
    let invalid = Error::line("ERR invalid cursor");
    let text = before_nul(text);
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if digits.is_empty() {
        // Nothing to convert is 0 when nothing is left over either.
        return if text.is_empty() { Ok(0) } else { Err(invalid) };
    }
    let mut value = 0u64;
    for &digit in digits {
        let next = digit
            .is_ascii_digit()
            .then(|| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
            .flatten();
        value = next.ok_or(invalid.clone())?;
    }
    Ok(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}
