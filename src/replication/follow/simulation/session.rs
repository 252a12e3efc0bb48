//! A connection as the primary of the simulation sees it: requests in, replies, dump and stream out. It is
//! decided by [`Lineage`] who goes on where he was, as in the server.

use super::super::tests::{Fault, is_broken};
use super::server::Server;
use crate::base::number;
use crate::propagation::Lineage;
use crate::resp::parse::{Limits, Parser, Progress, Request};

/// How the primary makes dumps.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// With a mark at the end, not by length.
    pub(super) marks: bool,
    /// Milliseconds until a dump begins.
    pub(super) delay: i64,
    /// What it thinks of REPLCONF.
    pub(super) errs: bool,
}

#[derive(Default)]
pub(super) struct Session {
    parser: Parser,
    input: Vec<u8>,
    position: usize,
    may: bool,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Greeting,
    /// A dump is due.
    Preparing {
        due: i64,
        newline: i64,
        tells: bool,
    },
    /// The stream goes on from this byte of the data once the replica confirms.
    Awaiting(usize),
    Online(usize),
}

impl Session {
    /// Requests arrive. False when the connection is to be closed.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        server: &Server,
        style: Style,
        now: i64,
        out: &mut Vec<u8>,
    ) -> bool {
        self.input.extend_from_slice(bytes);
        let mut request = Request::default();
        loop {
            let (input, position) = (&self.input, &mut self.position);
            match self
                .parser
                .parse(input, position, &Limits::default(), &mut request)
            {
                Ok(Progress::Complete) => {}
                Ok(Progress::Empty) => continue,
                Ok(Progress::Incomplete) => return true,
                Err(_) => return false,
            }
            let words: Vec<Vec<u8>> = (0..request.len())
                .map(|i| request.arg(&self.input, i).to_vec())
                .collect();
            request.clear();
            self.request(&words, server, style, now, out);
        }
    }

    fn request(
        &mut self,
        words: &[Vec<u8>],
        server: &Server,
        style: Style,
        now: i64,
        out: &mut Vec<u8>,
    ) {
        let mut reply = |text: &str| out.extend_from_slice(text.as_bytes());
        match &words[0][..] {
            _ if server.is_loading() => reply("-LOADING the dataset\r\n"),
            b"AUTH" => {
                self.may = words[1] == b"pw";
                reply("+OK\r\n");
            }
            _ if !self.may => reply("-NOAUTH Authentication required.\r\n"),
            b"PING" => reply("+PONG\r\n"),
            b"REPLCONF" if words[1] == b"ACK" => {
                if let State::Awaiting(at) = self.state {
                    self.state = State::Online(at);
                }
            }
            b"REPLCONF" if style.errs => reply("-ERR what?\r\n"),
            b"REPLCONF" => reply("+OK\r\n"),
            b"PSYNC" if server.is_old => reply("-ERR unknown command\r\n"),
            b"PSYNC" | b"SYNC" if server.follows.is_some() && !server.follower.view(0).is_up => {
                reply("-NOMASTERLINK Can't SYNC while not connected with my master\r\n");
            }
            b"PSYNC" => self.psync(&words[1], &words[2], server, style, now, out),
            b"SYNC" => self.prepare(style, false, now),
            other => unreachable!("{other:?}"),
        }
    }

    fn prepare(&mut self, style: Style, tells: bool, now: i64) {
        self.state = State::Preparing {
            due: now + style.delay,
            newline: now,
            tells,
        };
    }

    fn psync(
        &mut self,
        id: &[u8],
        offset: &[u8],
        server: &Server,
        style: Style,
        now: i64,
        out: &mut Vec<u8>,
    ) {
        let place = &server.place;
        let second = place.second.as_ref().map(|(id, limit)| {
            let limit = match is_broken(Fault::NoLimit) {
                true => i64::MAX,
                false => *limit,
            };
            (&id[..], limit)
        });
        let first = place.offset - server.kept as i64 + 1;
        let lineage = Lineage {
            id: &place.id,
            second,
            kept: server
                .is_known
                .then_some((first.unsigned_abs(), server.kept as u64)),
        };
        let offset = number::parse_i64(offset).expect("a number");
        match lineage.resume(id, offset) {
            Ok(has) => {
                out.extend_from_slice(lineage.answer(true).as_bytes());
                let behind = place.offset - has.cast_signed();
                self.state = State::Online(server.data.len() - behind.unsigned_abs() as usize);
            }
            Err(_) => self.prepare(style, true, now),
        }
    }

    /// Sends what is due.
    pub(super) fn send(&mut self, server: &Server, style: Style, now: i64, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Preparing {
                due,
                newline,
                tells,
            } => {
                if *due > now {
                    if *newline + 1000 <= now {
                        *newline = now;
                        out.push(b'\n');
                    }
                    return;
                }
                if *tells {
                    let (id, offset) = (&server.place.id, server.place.offset);
                    out.extend_from_slice(format!("+FULLRESYNC {id} {offset}\r\n").as_bytes());
                }
                let end = server.data.len();
                if style.marks {
                    // Repeats itself, as no random one does.
                    let mark = *b"\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01a\x01b";
                    out.extend_from_slice(b"$EOF:");
                    out.extend_from_slice(&mark);
                    out.extend_from_slice(b"\r\n");
                    out.extend_from_slice(&server.data);
                    out.extend_from_slice(&mark);
                    self.state = State::Awaiting(end);
                } else {
                    out.extend_from_slice(format!("${end}\r\n").as_bytes());
                    out.extend_from_slice(&server.data);
                    self.state = State::Online(end);
                }
            }
            State::Online(sent) => {
                out.extend_from_slice(&server.data[*sent..]);
                *sent = server.data.len();
            }
            State::Greeting | State::Awaiting(_) => {}
        }
    }

    /// When it has something to send next, if it will.
    pub(super) fn due(&self) -> Option<i64> {
        match &self.state {
            State::Preparing { due, newline, .. } => Some((*due).min(newline + 1000)),
            _ => None,
        }
    }
}
