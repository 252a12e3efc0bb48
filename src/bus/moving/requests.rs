//! Requests out of a stream of bytes that comes in pieces.

use crate::replication::frame::{Corrupt, Frame};
use crate::resp::parse::{Limits, Parser, Progress, Request};

/// What an owner of keys took is taken.
const LIMITS: Limits = Limits {
    max_bulk_len: u64::MAX,
    max_multibulk: i32::MAX as i64,
    max_inline: usize::MAX,
    authenticated: true,
};
/// Room that an emptied buffer keeps, in bytes.
const KEPT: usize = 1 << 20;

/// The arguments of a request, and all its bytes.
pub type Found<'a> = (Vec<&'a [u8]>, &'a [u8]);

/// Bytes that are no whole request yet.
#[derive(Default)]
pub struct Requests {
    buffer: Vec<u8>,
    found: usize,
    frame: Frame,
    request: Request,
}

impl Requests {
    /// Takes the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.found);
        self.found = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next request that is whole, with its bytes. Empty ones are passed over.
    ///
    /// # Errors
    /// The bytes are no requests.
    pub fn next(&mut self) -> Result<Option<Found<'_>>, Corrupt> {
        loop {
            let start = self.found;
            let Some(len) = self.frame.end(&self.buffer[start..])? else {
                return Ok(None);
            };
            let (end, mut at) = (start + len, start);
            self.found = end;
            self.request.clear();
            let parsed =
                Parser::new().parse(&self.buffer[..end], &mut at, &LIMITS, &mut self.request);
            match parsed.map_err(|_| Corrupt)? {
                Progress::Complete => {
                    let request = &self.request;
                    let args = (0..request.len()).map(|i| request.arg(&self.buffer, i));
                    return Ok(Some((args.collect(), &self.buffer[start..end])));
                }
                Progress::Empty => {}
                Progress::Incomplete => return Err(Corrupt),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_pieces() {
        let (mut requests, input) = (
            Requests::default(),
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\nPING\r\n",
        );
        let mut found = Vec::new();
        for piece in input.chunks(3) {
            requests.add(piece);
            while let Some((args, whole)) = requests.next().unwrap() {
                found.push((args.concat(), whole.len()));
            }
        }
        assert_eq!(found, [(b"GETk".to_vec(), 20), (b"PING".to_vec(), 6)]);
        requests.add(b"*x\r\n");
        assert!(requests.next().is_err());
    }
}
