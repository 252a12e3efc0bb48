//! The longest common subsequence of two strings, and where its runs lie in both.

/// Why a comparison is not made.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A string is too long for 32-bit positions.
    TooLong,
    /// The table would be bigger than allowed.
    TooMuchMemory,
    /// The allocator refused the table.
    NoMemory,
}

/// The table of the classic dynamic program: at (i, j) the length of the longest subsequence
/// common to the first i bytes of one string and the first j of the other.
pub struct Lcs<'a> {
    a: &'a [u8],
    b: &'a [u8],
    table: Vec<u32>,
}

impl<'a> Lcs<'a> {
    /// Compares two strings with a table of at most `max_bytes`.
    pub fn new(a: &'a [u8], b: &'a [u8], max_bytes: u64) -> Result<Self, Refusal> {
        const LONGEST: usize = u32::MAX as usize - 1;
        if a.len() >= LONGEST || b.len() >= LONGEST {
            return Err(Refusal::TooLong);
        }
        let width = b.len() + 1;
        let cells = (a.len() as u64 + 1) * width as u64;
        if cells.saturating_mul(4) > max_bytes {
            return Err(Refusal::TooMuchMemory);
        }
        let mut table = Vec::new();
        let reserved = table.try_reserve_exact(cells as usize);
        reserved.map_err(|_| Refusal::NoMemory)?;
        table.resize(width, 0);
        for (i, x) in a.iter().enumerate() {
            table.push(0);
            let above = i * width;
            let mut left = 0;
            for (j, y) in b.iter().enumerate() {
                left = if x == y {
                    table[above + j] + 1
                } else {
                    left.max(table[above + j + 1])
                };
                table.push(left);
            }
        }
        Ok(Self { a, b, table })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.table[i * (self.b.len() + 1) + j]
    }

    /// Length of the subsequence.
    pub fn len(&self) -> u32 {
        self.at(self.a.len(), self.b.len())
    }

    /// True when the strings have no byte in common.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `matched` with the positions (i, j) of the subsequence's bytes, last first.
    fn each_byte(&self, mut matched: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            if self.a[i - 1] == self.b[j - 1] {
                i -= 1;
                j -= 1;
                matched(i, j);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }

    /// The subsequence.
    pub fn subsequence(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len() as usize);
        self.each_byte(|i, _| bytes.push(self.a[i]));
        bytes.reverse();
        bytes
    }

    /// Calls `found` with each run that lies in one piece in both strings, last first: where it
    /// begins in the first, in the second, and its length.
    pub fn each_match(&self, mut found: impl FnMut(u32, u32, u32)) {
        let mut run: Option<(u32, u32, u32)> = None;
        self.each_byte(|i, j| {
            let (i, j) = (i as u32, j as u32);
            run = match run {
                Some((a, b, len)) if (a, b) == (i + 1, j + 1) => Some((i, j, len + 1)),
                other => {
                    if let Some((a, b, len)) = other {
                        found(a, b, len);
                    }
                    Some((i, j, 1))
                }
            };
        });
        if let Some((a, b, len)) = run {
            found(a, b, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_subsequence_and_its_runs() {
        let lcs = Lcs::new(b"ohmytext", b"mynewtext", 1 << 20).expect("small");
        assert_eq!((lcs.len(), lcs.subsequence()), (6, b"mytext".to_vec()));
        let mut runs = Vec::new();
        lcs.each_match(|a, b, len| runs.push((a, b, len)));
        assert_eq!(runs, [(4, 5, 4), (2, 0, 2)]);
        assert!(Lcs::new(b"", b"x", 8).expect("tiny").is_empty());
        let refused = Lcs::new(b"abc", b"abc", 63);
        assert_eq!(refused.err(), Some(Refusal::TooMuchMemory));
    }
}
