//! What modules of a Redis wrote: recognized and passed over.
//!
//! No module is ever loaded here, so a value of one cannot be built; but where it ends is known,
//! and what a module wrote beside the keys is not missed by a server without it.

use super::read::{Corrupt, Reader};

/// Letters of the names of module types, six bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Reads which module's type follows: nine letters, and below them a version.
pub fn name(reader: &mut Reader<'_>) -> Result<String, Corrupt> {
    let id = reader.length()?;
    let letter = |place: u64| char::from(LETTERS[(id >> (10 + 6 * place) & 63) as usize]);
    Ok((0..9).rev().map(letter).collect())
}

/// Passes over a value, which is behind its name.
pub fn skip_value(reader: &mut Reader<'_>) -> Result<(), Corrupt> {
    loop {
        match reader.length()? {
            0 => return Ok(()),
            1 | 2 => drop(reader.length()?),
            3 => drop(reader.raw(4)?),
            4 => drop(reader.raw(8)?),
            5 => reader.skip_string()?,
            _ => return Err(Corrupt::Invalid("Unknown opcode in the data of a module")),
        }
    }
}

/// Passes over what a module wrote beside the keys; returns its name.
pub fn skip_aux(reader: &mut Reader<'_>) -> Result<String, Corrupt> {
    let name = name(reader)?;
    // When it is to be loaded: an integer's opcode, and the integer.
    reader.length()?;
    reader.length()?;
    skip_value(reader)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_modules_is_passed_over() {
        // The name in six bits a letter, then ten bits of version.
        let id = b"test_type".iter().fold(0, |id, letter| {
            id << 6 | LETTERS.iter().position(|l| l == letter).expect("a letter") as u64
        });
        let mut bytes = vec![0x81];
        bytes.extend((id << 10 | 3).to_be_bytes());
        bytes.extend([2, 1]);
        bytes.extend([1, 5, 2, 6, 3, 0, 0, 0, 0, 4]);
        bytes.extend([0; 8]);
        bytes.extend([5, 2, b'a', b'b', 0, 99]);
        let mut reader = Reader::new(&bytes);
        assert_eq!(skip_aux(&mut reader).expect("sound"), "test_type");
        assert_eq!(reader.rest(), [99]);
        for len in 0..bytes.len() - 1 {
            assert!(skip_aux(&mut Reader::new(&bytes[..len])).is_err());
        }
        assert!(skip_value(&mut Reader::new(&[6])).is_err());
    }
}
