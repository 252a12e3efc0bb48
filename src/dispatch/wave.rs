//! A wave: the requests that a worker prefetches and runs together, and what their arguments are.
//!
//! Planned requests stand in places that are kept from wave to wave, so that a request is parsed to
//! where it is run from and its vectors are reused. Arguments are ranges of the input buffers of
//! their connections; nothing here outlives the turn.

use std::ops::Range;

use smallvec::SmallVec;

use super::command::Flags;
use super::context::Shared;
use super::execute;
use crate::keyspace::db::Hint;
use crate::resp::parse::{Arg, Request};
use crate::types::string::SharedBytes;

/// Requests of one connection in one wave.
pub const SHARE: usize = 64;
/// Requests in one wave, beyond which no other connection is asked for more.
pub const SIZE: usize = 64;
/// Requests for elements of one key in a row for which it pays to read ahead.
pub const RUN: usize = 4;
/// Arguments of a request with few: they are listed without an allocation.
pub const FEW: usize = 6;
/// Commands that may run a script.
const SCRIPTS: Flags = Flags::SCRIPT.or(Flags::EXEC);
/// Keys whose entries are asked for in one go.
const GROUP: usize = 16;
/// Keys behind the present one that are on their way when the next group is asked for.
const NEAR: usize = 6;
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
    hints: Vec<Hint>,
    /// How many of the hints have had their entries asked for.
    asked: usize,
    /// A request names an element of a collection.
    pub names_elements: bool,
    /// A request may run a script.
    pub runs_scripts: bool,
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
    #[inline(always)]
    pub fn plan(&mut self, shared: &Shared, db: usize, place: usize, input: &[u8]) {
        let planned = &mut self.places[self.len];
        let (request, first) = (&planned.request, self.hints.len());
        let arg = |i| request.arg(input, i);
        let known = execute::prepare(shared, db, request.len(), arg, &mut self.hints);
        if let Some(known) = known {
            self.names_elements |= known.row.element != 0;
            self.runs_scripts |= known.flags.has(SCRIPTS);
        }
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

    /// Asks for the buckets of all keys. That is done in one go, as asking for entries is done in
    /// groups, because the processor waits for address translations more than for memory, and so
    /// for many at once.
    #[inline]
    pub fn ask_buckets(&mut self) {
        // A single key is met as soon as it could be asked for.
        if self.hints.len() > 1 {
            self.hints.iter_mut().for_each(Hint::prefetch_bucket);
        } else {
            self.asked = self.hints.len();
        }
    }

    /// A request to be run, and what is known of its keys; the entries of those behind it are on
    /// their way.
    #[inline]
    pub fn take(&mut self, index: usize) -> (&mut Planned, &[Hint]) {
        let planned = &mut self.places[index];
        let hints = planned.hints.clone();
        if self.asked < (hints.end + NEAR).min(self.hints.len()) {
            let until = (hints.end + NEAR + GROUP).min(self.hints.len());
            let group = &self.hints[self.asked..until];
            group.iter().for_each(Hint::prefetch_entry);
            self.asked = until;
        }
        (planned, &self.hints[hints])
    }

    /// Number of requests.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without requests.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is known of a request's first key.
    #[inline]
    pub fn hint(&self, planned: &Planned) -> Option<&Hint> {
        self.hints[planned.hints.clone()].first()
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
        self.len = 0;
        self.hints.clear();
        self.asked = 0;
        self.names_elements = false;
        self.runs_scripts = false;
    }

    /// Takes a request to be run while the wave may be given up: the place of its connection, its command, and
    /// its arguments.
    pub fn take_out(&mut self, index: usize) -> (usize, Option<usize>, Request) {
        let planned = &mut self.places[index];
        let request = std::mem::take(&mut planned.request);
        (planned.connection, planned.known, request)
    }

    /// Gives the vectors of a request back that was taken out.
    pub fn give_back(&mut self, index: usize, request: Request) {
        self.places[index].request = request;
    }

    /// Shows the requests from `from` on, and forgets them.
    pub fn give_up(&mut self, from: usize, mut show: impl FnMut(usize, &Request)) {
        for planned in &mut self.places[from.min(self.len)..self.len] {
            show(planned.connection, &planned.request);
            planned.request.clear();
        }
        self.len = self.len.min(from);
    }
}

/// The arguments of a request that has few and none in a buffer of its own, which nearly all are,
/// listed in `few`.
#[inline(always)]
pub fn few<'f, 'a>(
    request: &Request,
    input: &'a [u8],
    few: &'f mut [&'a [u8]; FEW],
) -> Option<&'f [&'a [u8]]> {
    if !request.big.is_empty() {
        return None;
    }
    let list = few.get_mut(..request.len())?;
    for (to, arg) in list.iter_mut().zip(&request.args) {
        if let Arg::Range { start, end } = *arg {
            *to = &input[start..end];
        }
    }
    Some(list)
}

/// All arguments of a request, those that `big` took from it included.
pub fn list<'a>(
    request: &'a Request,
    input: &'a [u8],
    big: &'a [(usize, SharedBytes)],
) -> SmallVec<[&'a [u8]; 24]> {
    let bytes = |i| match big.iter().find(|(index, _)| *index == i) {
        Some((_, bytes)) => &bytes[..],
        None => request.arg(input, i),
    };
    (0..request.len()).map(bytes).collect()
}

/// Takes the arguments that have buffers of their own, to be shared with the keyspace.
pub fn take_big(request: &mut Request) -> SmallVec<[(usize, SharedBytes); 1]> {
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
