//! Which stream this is and what of it is kept, and the decision that follows: may a replica go on where
//! it was, or does it need everything?
//!
//! A pure function, so that the simulation of replication decides as the server does.

/// The names of a stream and what of it is kept. Offsets are counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Lineage<'a> {
    /// What it is called.
    pub id: &'a str,
    /// What it was called before, and the first offset that was not part of it.
    pub second: Option<(&'a str, i64)>,
    /// The first offset that is kept, and for how many bytes; `None` without a backlog.
    pub kept: Option<(u64, u64)>,
}

/// Why a replica cannot go on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It did not ask for that.
    Unasked,
    /// It follows another stream.
    OtherStream,
    /// The stream was called so only up to here.
    BeyondSecond(i64),
    /// What it needs next is not kept, or not written yet.
    NotKept,
}

impl Lineage<'_> {
    /// Where a replica that asks for `offset` of the stream `id` goes on: so many bytes of the stream it
    /// has.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn resume(&self, id: &[u8], offset: i64) -> Result<u64, Refusal> {
        if !id.eq_ignore_ascii_case(self.id.as_bytes()) {
            match self.second {
                Some((second, limit)) if id.eq_ignore_ascii_case(second.as_bytes()) => {
                    if offset > limit {
                        return Err(Refusal::BeyondSecond(limit));
                    }
                }
                _ if id.first() == Some(&b'?') => return Err(Refusal::Unasked),
                _ => return Err(Refusal::OtherStream),
            }
        }
        let Some((first, len)) = self.kept else {
            return Err(Refusal::NotKept);
        };
        match u64::try_from(offset) {
            Ok(offset) if first <= offset && offset - first <= len => Ok(offset - 1),
            _ => Err(Refusal::NotKept),
        }
    }

    /// What a replica is answered that goes on.
    pub fn answer(&self, knows_names: bool) -> String {
        match knows_names {
            true => format!("+CONTINUE {}\r\n", self.id),
            false => "+CONTINUE\r\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_goes_on_within_what_is_kept() {
        let lineage = Lineage {
            id: "aa",
            second: None,
            kept: Some((11, 20)),
        };
        let resume = |id: &str, offset| lineage.resume(id.as_bytes(), offset);
        assert_eq!(resume("AA", 11), Ok(10));
        assert_eq!(resume("aa", 31), Ok(30));
        for offset in [i64::MIN, -1, 0, 10, 32, i64::MAX] {
            assert_eq!(resume("aa", offset), Err(Refusal::NotKept), "{offset}");
        }
        assert_eq!(resume("bb", 11), Err(Refusal::OtherStream));
        assert_eq!(resume("", 11), Err(Refusal::OtherStream));
        assert_eq!(resume("?", -1), Err(Refusal::Unasked));
        let nothing = Lineage {
            kept: None,
            ..lineage
        };
        assert_eq!(nothing.resume(b"aa", 11), Err(Refusal::NotKept));
    }

    #[test]
    fn a_former_name_counts_up_to_its_limit() {
        let lineage = Lineage {
            id: "aa",
            second: Some(("bb", 21)),
            kept: Some((11, 20)),
        };
        assert_eq!(lineage.resume(b"bb", 21), Ok(20));
        assert_eq!(lineage.resume(b"bb", 22), Err(Refusal::BeyondSecond(21)));
        assert_eq!(lineage.resume(b"aa", 22), Ok(21));
        assert_eq!(lineage.answer(true), "+CONTINUE aa\r\n");
        assert_eq!(lineage.answer(false), "+CONTINUE\r\n");
    }
}
