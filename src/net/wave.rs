//! A wave: the requests that a worker prefetches and runs together, and what their arguments are.
//!
//! Planned requests stand in places that are kept from wave to wave, so that a request is parsed to
//! where it is run from and its vectors are reused. Arguments are ranges of the input buffers of
//! their connections; nothing here outlives the turn.

use std::ops::Range;

use smallvec::SmallVec;

use super::connection::Connection;
use crate::dispatch::context::Shared;
use crate::dispatch::execute;
use crate::keyspace::db::Hint;
use crate::resp::parse::{Arg, Request};
use crate::types::string::SharedBytes;

/// Requests of one connection in one wave.
pub const SHARE: usize = 64;
/// Requests in one wave, beyond which no other connection is asked for more.
pub const SIZE: usize = 64;
/// Requests for elements of one key in a row for which it pays to read ahead.
pub const RUN: usize = 4;
/// Room for arguments that an emptied request keeps.
const KEPT_ARGS: usize = 1024;

/// A request in a wave.
#[derive(Default)]
pub struct Planned {
    /// The place of its connection.
    pub connection: usize,
    /// Id of its command, if the name is known.
    pub known: Option<usize>,
    /// Its arguments.
    pub request: Request,
    /// Its keys: a range of the wave's hints.
    pub hints: Range<usize>,
}

/// Requests that are prefetched and run together.
#[derive(Default)]
pub struct Wave {
    /// The requests, and behind them empty ones.
    places: Vec<Planned>,
    /// How many requests there are.
    len: usize,
    /// What is known of their keys.
    pub hints: Vec<Hint>,
    /// A request names an element of a collection.
    pub names_elements: bool,
}

impl Wave {
    /// An empty request, to be filled for [`Wave::plan`].
    #[inline]
    pub fn spare(&mut self) -> &mut Request {
        if self.len == self.places.len() {
            self.places.push(Planned::default());
        }
        &mut self.places[self.len].request
    }

    /// Takes the filled request of [`Wave::spare`], which came from `input` of the connection at
    /// `place`, into the wave, and asks the processor for its keys.
    #[inline]
    pub fn plan(&mut self, shared: &Shared, db: usize, place: usize, input: &[u8]) {
        let planned = &mut self.places[self.len];
        let (request, first) = (&planned.request, self.hints.len());
        let arg = |i| request.arg(input, i);
        let known = execute::prepare(shared, db, request.len(), arg, &mut self.hints);
        self.names_elements |= known.is_some_and(|known| known.row.element != 0);
        planned.connection = place;
        planned.known = known.map(|known| known.id);
        planned.hints = first..self.hints.len();
        self.len += 1;
    }

    /// The requests.
    #[inline]
    pub fn planned(&self) -> &[Planned] {
        &self.places[..self.len]
    }

    /// The requests, to be run, and what is known of their keys.
    #[inline]
    pub fn parts(&mut self) -> (&mut [Planned], &[Hint]) {
        (&mut self.places[..self.len], &self.hints)
    }

    /// True when there is a request of the connection at `place`.
    pub fn holds(&self, place: usize) -> bool {
        self.planned().iter().any(|p| p.connection == place)
    }

    /// True when it has as many requests as it should.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len >= SIZE
    }

    /// Forgets the requests, keeping their vectors, but for those of big ones.
    #[inline]
    pub fn clear(&mut self) {
        for planned in &mut self.places[..self.len] {
            planned.request.clear();
            if planned.request.args.capacity() > KEPT_ARGS {
                planned.request = Request::default();
            }
        }
        self.places.truncate(SIZE);
        self.len = 0;
        self.hints.clear();
        self.names_elements = false;
    }
}

/// The database and the hash of the key of a request that names an element.
pub fn subject(
    connections: &[Option<Box<Connection>>],
    shared: &Shared,
    wave: &Wave,
    planned: &Planned,
) -> Option<(usize, u64)> {
    let row = shared.commands.get(planned.known?).row;
    if row.element == 0 {
        return None;
    }
    let connection = connections[planned.connection].as_ref()?;
    let hint = wave.hints[planned.hints.clone()].first()?;
    Some((connection.session.db, hint.hash()))
}

/// An argument of a request, if there is one.
pub fn argument<'a>(
    connections: &'a [Option<Box<Connection>>],
    planned: &'a Planned,
    index: usize,
) -> Option<&'a [u8]> {
    let connection = connections[planned.connection].as_ref()?;
    let request = &planned.request;
    (index < request.len()).then(|| request.arg(&connection.input, index))
}

/// All arguments of a request, those that `big` took from it included.
#[inline]
pub fn list<'a>(
    request: &'a Request,
    input: &'a [u8],
    big: &'a [(usize, SharedBytes)],
) -> SmallVec<[&'a [u8]; 8]> {
    if big.is_empty() && request.big.is_empty() {
        return ranges(request, input);
    }
    let bytes = |i| match big.iter().find(|(index, _)| *index == i) {
        Some((_, bytes)) => &bytes[..],
        None => request.arg(input, i),
    };
    (0..request.len()).map(bytes).collect()
}

/// [`list`] of a request without arguments in buffers of their own.
#[inline]
fn ranges<'a>(request: &'a Request, input: &'a [u8]) -> SmallVec<[&'a [u8]; 8]> {
    let range = |arg: &Arg| match *arg {
        Arg::Range { start, end } => &input[start..end],
        Arg::Big(_) => &[],
    };
    let mut few: [&[u8]; 8] = [&[]; 8];
    let len = request.len();
    if len > few.len() {
        return request.args.iter().map(range).collect();
    }
    for (to, arg) in few.iter_mut().zip(&request.args) {
        *to = range(arg);
    }
    SmallVec::from_buf_and_len(few, len)
}

/// Takes the arguments that have buffers of their own, to be shared with the keyspace.
#[inline]
pub fn take_big(request: &mut Request) -> SmallVec<[(usize, SharedBytes); 1]> {
    if request.big.is_empty() {
        return SmallVec::new();
    }
    (0..request.len())
        .filter(|&i| matches!(request.args[i], Arg::Big(_)))
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|i| Some((i, SharedBytes::new(request.take_big(i)?))))
        .collect()
}

/// A copy of all arguments.
pub fn owned(request: &Request, input: &[u8]) -> Vec<Vec<u8>> {
    (0..request.len())
        .map(|i| request.arg(input, i).to_vec())
        .collect()
}
