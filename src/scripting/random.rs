//! `math.random`: a sequence of numbers that is the same on every machine, from an interpreter's start on.

/// Where the sequence is: the 48 bits of `drand48`.
#[derive(Debug)]
pub struct Random(u64);

/// One beyond the greatest number.
const LIMIT: u32 = 1 << 31;

impl Default for Random {
    /// Where the sequence is before anybody chose a seed.
    fn default() -> Self {
        Self(0x1234_abcd_330e)
    }
}

impl Random {
    /// The sequence of a seed.
    pub fn seeded(seed: i32) -> Self {
        Self(u64::from(seed as u32) << 16 | 0x330e)
    }

    /// The next number, at least 0 and less than 1.
    pub fn next(&mut self) -> f64 {
        const MULTIPLIER: u64 = 0x5_deec_e66d;
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & 0xffff_ffff_ffff;
        let number = (self.0 >> 17) as u32;
        // As Redis divides: by the greatest number, after a remainder that spares the quotient 1.
        f64::from(number % (LIMIT - 1)) / f64::from(LIMIT - 1)
    }
}
