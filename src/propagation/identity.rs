//! The identity of the stream, and who follows it: its id, its backlog, its replicas.
//!
//! The stream's offset is the replication offset. The backlog is the part of it that stays readable
//! behind the slowest reader: it begins with the first replica and ends when there has been none for
//! `repl-backlog-ttl` seconds. Each beginning and end gives the stream a new id, because nobody can go
//! on where an old one was left.
//!
//! Nothing here touches a socket or takes a snapshot; who does reports through [`Replica`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use super::failover::Failover;
use super::lineage::{Lineage, Refusal};
use super::place::Place;
use super::replica::{Replica, State};
use super::stream::{Reader, Stream};
use super::upstream::Upstream;
use crate::base::{clock, random};

/// Replicas and the identity of the stream.
pub struct Replication {
    names: RwLock<Names>,
    /// Whom this server follows.
    pub upstream: Upstream,
    /// Who is to take over.
    pub failover: Failover,
    replicas: RwLock<Vec<Arc<Replica>>>,
    backlog: Mutex<Option<Backlog>>,
    /// There is a backlog.
    fed: AtomicBool,
    /// The data set is what the stream's name and offset say.
    known: AtomicBool,
    /// Unix seconds at which the last replica left.
    alone_since: AtomicI64,
    /// Full synchronizations begun.
    pub full: AtomicU64,
    /// Partial ones that were possible.
    pub partial_ok: AtomicU64,
    /// Partial ones that were asked for and not possible.
    pub partial_err: AtomicU64,
    /// Bytes written to replicas.
    pub output_bytes: AtomicU64,
    /// Offset behind the last `REPLCONF GETACK` that the stream contains.
    asked: AtomicU64,
    /// A `REPLCONF GETACK` is to be appended when clients are not paused any more.
    pub owes_question: AtomicBool,
}

/// What the stream is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// 40 letters and digits.
    pub id: String,
    /// What it was called before, and the first offset (counted from 1) that was not called so.
    pub second: Option<(String, u64)>,
}

impl Names {
    /// Whose stream it is, without what is kept of it.
    pub fn lineage(&self) -> Lineage<'_> {
        let second = self.second.as_ref();
        Lineage {
            id: &self.id,
            second: second.map(|(id, limit)| (&**id, limit.cast_signed())),
            kept: None,
        }
    }

    /// A stream that nobody knows yet.
    fn anew() -> Self {
        Self {
            id: random::run_id(),
            second: None,
        }
    }
}

/// The part of the stream that is kept for replicas that come back.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// Where it began.
    start: u64,
    /// `repl-backlog-size`.
    size: u64,
}

impl Backlog {
    /// The first offset that is kept of a stream that ends at `offset`, counted from 1, and for how many
    /// bytes: more than was asked for while a replica is further behind. `first` is where what is there
    /// begins.
    fn kept(self, first: u64, offset: u64) -> (u64, u64) {
        let there = offset.saturating_sub(first.max(self.start));
        let len = match there {
            there if there > self.size.saturating_add(SLACK) => there,
            there => there.min(self.size),
        };
        (offset - len + 1, len)
    }
}

/// What is kept beyond the size of the backlog only because it comes in pieces, at most.
const SLACK: u64 = 256 * 1024;

/// What became of a replica's wish to go on where it was.
pub struct Resumed {
    /// What the stream was called then.
    pub names: Names,
    /// Where it ended.
    pub end: u64,
    /// From where on the replica gets it, or why not.
    pub reader: Result<Reader, Refusal>,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            names: RwLock::new(Names::anew()),
            upstream: Upstream::default(),
            failover: Failover::default(),
            replicas: RwLock::default(),
            backlog: Mutex::default(),
            fed: AtomicBool::new(false),
            known: AtomicBool::new(true),
            alone_since: AtomicI64::new(0),
            full: AtomicU64::new(0),
            partial_ok: AtomicU64::new(0),
            partial_err: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            owes_question: AtomicBool::new(false),
        }
    }
}

impl Replication {
    /// What the stream is called: 40 letters and digits.
    pub fn id(&self) -> String {
        self.names.read().id.clone()
    }

    /// That, and what it was called before.
    pub fn names(&self) -> Names {
        self.names.read().clone()
    }

    /// The stream is called `id` from here on, and what it was called until here is its second name:
    /// replicas of it go on here.
    pub fn rename(&self, stream: &Stream, id: String) {
        let end = stream.offset();
        let mut names = self.names.write();
        self.asked.store(0, Relaxed);
        let former = std::mem::replace(&mut names.id, id);
        names.second = Some((former, end + 1));
        self.tell(stream, &names);
    }

    /// As [`Replication::rename`], with a new name: a replica becomes a primary.
    pub fn promote(&self, stream: &Stream) {
        self.rename(stream, random::run_id());
    }

    /// Counts the time without replicas from `now` on, in Unix seconds: a replica that becomes a primary
    /// did not count it.
    pub fn begin_to_wait(&self, now: i64) {
        self.alone_since.store(now, Relaxed);
    }

    /// Tells files what the stream is called, while that cannot change: what they are told last is so.
    fn tell(&self, stream: &Stream, names: &RwLockWriteGuard<'_, Names>) {
        let goes_on = self.is_fed() && self.is_known();
        stream.set_name(goes_on.then_some(&names.id));
    }

    /// The data set is what the stream's name and offset say, or is not.
    pub fn set_known(&self, stream: &Stream, known: bool) {
        let names = self.names.write();
        if self.known.swap(known, Relaxed) != known {
            self.tell(stream, &names);
        }
    }

    /// True while the data set is what the stream's name and offset say.
    pub fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }

    /// The data set that was loaded is at a place of a stream: a replica goes on in it; a primary calls
    /// it something else from there on, as what it had written behind may be lost.
    pub fn go_on(&self, stream: &Stream, place: &Place, size: u64) -> Names {
        let follows = self.upstream.follows();
        let names = match follows {
            true => Names {
                id: place.id.clone(),
                second: None,
            },
            false => Names {
                id: random::run_id(),
                second: Some((place.id.clone(), place.offset + 1)),
            },
        };
        self.begin_to_wait(clock::unix_ms() / 1000);
        self.known.store(true, Relaxed);
        let copied = (names.clone(), place.offset, place.selected);
        self.adopt(stream, copied, size);
        if !follows {
            stream.disown();
        }
        names
    }

    /// The stream becomes the copy of another one, of which this server has `end` bytes, and which has
    /// database `selected` there: the names are its, and so is what is kept from here on.
    pub fn adopt(&self, stream: &Stream, copied: (Names, u64, usize), size: u64) {
        let (names, end, selected) = copied;
        let mut backlog = self.backlog.lock();
        let mut present = self.names.write();
        // Nobody goes on in the old stream under the new name, or the other way round.
        stream.adopt(end, selected);
        self.asked.store(0, Relaxed);
        *present = names;
        stream.set_backlog(size);
        *backlog = Some(Backlog { start: end, size });
        self.fed.store(true, Relaxed);
        self.tell(stream, &present);
    }

    /// Begins the backlog of a server that becomes a replica, if there is none: under the name that
    /// the stream has.
    pub fn keep_backlog(&self, stream: &Stream, size: u64) {
        let mut backlog = self.backlog.lock();
        if backlog.is_none() {
            stream.set_backlog(size);
            let start = stream.offset();
            *backlog = Some(Backlog { start, size });
            let names = self.names.write();
            self.fed.store(true, Relaxed);
            self.tell(stream, &names);
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        for count in [
            &self.full,
            &self.partial_ok,
            &self.partial_err,
            &self.output_bytes,
        ] {
            count.store(0, Relaxed);
        }
    }

    /// All replicas, in the order in which they came.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().clone()
    }

    /// Number of replicas, those included that are not in step yet.
    pub fn len(&self) -> usize {
        self.replicas.read().len()
    }

    /// True without replicas.
    pub fn is_empty(&self) -> bool {
        self.replicas.read().is_empty()
    }

    /// A replica came.
    pub fn add(&self, replica: &Arc<Replica>) {
        self.replicas.write().push(Arc::clone(replica));
    }

    /// The replica of a client is gone; `now` in Unix seconds.
    pub fn remove(&self, client: u64, now: i64) {
        let mut replicas = self.replicas.write();
        replicas.retain(|r| r.client != client);
        if replicas.is_empty() {
            self.alone_since.store(now, Relaxed);
        }
    }

    /// Begins the backlog, if there is none; true when it did. The stream has a new id then.
    pub fn begin_backlog(&self, stream: &Stream, size: u64) -> bool {
        let mut backlog = self.backlog.lock();
        if backlog.is_some() {
            return false;
        }
        let mut names = self.names.write();
        *names = Names::anew();
        stream.set_backlog(size);
        let start = stream.offset();
        *backlog = Some(Backlog { start, size });
        self.fed.store(true, Relaxed);
        self.tell(stream, &names);
        true
    }

    /// Gives the stream a new id, so that nobody goes on where he was.
    pub fn change_id(&self, stream: &Stream) {
        let mut names = self.names.write();
        *names = Names::anew();
        self.tell(stream, &names);
    }

    /// Follows `repl-backlog-size`.
    pub fn resize_backlog(&self, stream: &Stream, size: u64) {
        if let Some(backlog) = &mut *self.backlog.lock() {
            backlog.size = size;
            stream.set_backlog(size);
        }
    }

    /// Ends the backlog when no replica was there for `ttl` seconds; true when it did. Unix
    /// seconds.
    pub fn end_backlog_if_idle(&self, stream: &Stream, ttl: i64, now: i64) -> bool {
        let idle = now - self.alone_since.load(Relaxed);
        // A replica may be promoted, and its siblings come then.
        if ttl == 0 || idle <= ttl || !self.is_empty() || self.upstream.follows() {
            return false;
        }
        let mut backlog = self.backlog.lock();
        if backlog.take().is_none() {
            return false;
        }
        let mut names = self.names.write();
        *names = Names::anew();
        self.fed.store(false, Relaxed);
        stream.set_backlog(0);
        self.tell(stream, &names);
        true
    }

    /// True while what is done is kept for replicas.
    pub fn is_fed(&self) -> bool {
        self.fed.load(Relaxed)
    }

    /// First offset of the backlog, counted from 1, and its length; `None` without one.
    pub fn backlog(&self, stream: &Stream) -> Option<(u64, u64)> {
        let backlog = (*self.backlog.lock())?;
        Some(backlog.kept(stream.first_offset(), stream.offset()))
    }

    /// How much of a stream that ends at `offset` is kept as it was asked for.
    pub fn backlog_len(&self, offset: u64) -> u64 {
        let backlog = *self.backlog.lock();
        backlog.map_or(0, |b| offset.saturating_sub(b.start).min(b.size))
    }

    /// Has a replica go on at `offset`, counted from 1, of the stream `id`, if it can. What the stream is
    /// called does not change meanwhile: if it does afterwards, the replica has to be told.
    pub fn resume(&self, stream: &Arc<Stream>, id: &[u8], offset: i64) -> Resumed {
        let backlog = self.backlog.lock();
        let names = self.names.read();
        let end = stream.offset();
        let lineage = Lineage {
            kept: backlog.map(|backlog| backlog.kept(stream.first_offset(), end)),
            ..names.lineage()
        };
        let resumed = lineage.resume(id, offset);
        let reader = resumed.and_then(|has| stream.reader_at(has).ok_or(Refusal::NotKept));
        Resumed {
            names: names.clone(),
            end,
            reader,
        }
    }

    /// Asks all replicas in the stream what they have of it.
    pub fn ask(&self, stream: &Stream) {
        let end = stream.append(|block| block.for_replicas(&["REPLCONF", "GETACK", "*"]));
        self.asked.fetch_max(end, Relaxed);
    }

    /// True when the answers to a question in the stream will tell who has it up to `offset`.
    pub fn has_asked(&self, offset: u64) -> bool {
        self.asked.load(Relaxed) > offset
    }

    /// Replicas in step that were heard of within `max_lag` seconds; `now` in Unix seconds.
    pub fn good(&self, max_lag: i64, now: i64) -> usize {
        let replicas = self.replicas.read();
        let good = |r: &&Arc<Replica>| r.state() == State::Online && r.lag(now) <= max_lag;
        replicas.iter().filter(good).count()
    }

    /// Replicas that have confirmed that the stream up to `offset` is on their disks.
    pub fn durable(&self, offset: u64) -> usize {
        let replicas = self.replicas.read();
        let has = |r: &&Arc<Replica>| {
            r.state() == State::Online && r.durable().is_some_and(|durable| durable >= offset)
        };
        replicas.iter().filter(has).count()
    }

    /// Replicas that have confirmed the stream up to `offset`.
    pub fn acknowledged(&self, offset: u64) -> usize {
        let replicas = self.replicas.read();
        let has = |r: &&Arc<Replica>| r.state() == State::Online && r.acknowledged() >= offset;
        replicas.iter().filter(has).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(client: u64) -> Arc<Replica> {
        Arc::new(Replica::new(client, "10.0.0.1".into(), 6379, 100))
    }

    #[test]
    fn the_backlog_begins_once_and_ends_when_nobody_came_back() {
        let (replication, stream) = (Replication::default(), Stream::default());
        let first = replication.id();
        assert!(replication.begin_backlog(&stream, 1000) && stream.is_active());
        assert!(!replication.begin_backlog(&stream, 1000));
        assert_ne!(replication.id(), first);
        let one = replica(1);
        replication.add(&one);
        assert!(!replication.end_backlog_if_idle(&stream, 10, 500));
        replication.remove(1, 500);
        assert!(!replication.end_backlog_if_idle(&stream, 10, 510));
        assert!(!replication.end_backlog_if_idle(&stream, 0, 999));
        assert!(replication.end_backlog_if_idle(&stream, 10, 511));
        assert!(!stream.is_active() && !replication.is_fed());
    }

    #[test]
    fn a_promoted_replica_keeps_its_backlog_for_its_siblings() {
        let (replication, stream) = (Replication::default(), Arc::new(Stream::default()));
        replication.upstream.set_follows(true);
        replication.keep_backlog(&stream, 1000);
        assert!(!replication.end_backlog_if_idle(&stream, 10, 500));
        replication.begin_to_wait(500);
        replication.upstream.set_follows(false);
        assert!(!replication.end_backlog_if_idle(&stream, 10, 510));
        assert!(replication.end_backlog_if_idle(&stream, 10, 511));
    }

    #[test]
    fn the_backlog_is_counted_from_one() {
        let (replication, stream) = (Replication::default(), Arc::new(Stream::default()));
        assert_eq!(replication.backlog(&stream), None);
        replication.begin_backlog(&stream, 100);
        assert_eq!(replication.backlog(&stream), Some((1, 0)));
        let append = |len| _ = stream.append(|block| block.bare(&[vec![b'a'; len]]));
        append(50);
        let end = stream.offset();
        assert_eq!(replication.backlog(&stream), Some((1, end)));
        append(200);
        let end = stream.offset();
        assert_eq!(replication.backlog(&stream), Some((end - 99, 100)));
        assert_eq!(replication.backlog_len(end), 100);
    }

    #[test]
    fn what_a_slow_replica_has_kept_is_there_for_others() {
        let (replication, stream) = (Replication::default(), Arc::new(Stream::default()));
        replication.begin_backlog(&stream, 100);
        let slow = stream.reader();
        stream.append(|block| block.bare(&[vec![b'a'; SLACK as usize + 1000]]));
        stream.append(|block| block.bare(&["b"]));
        let end = stream.offset();
        assert_eq!(replication.backlog(&stream), Some((1, end)));
        let resumed = replication.resume(&stream, replication.id().as_bytes(), 1);
        assert_eq!(resumed.reader.map(|reader| reader.offset()), Ok(0));
        stream.append(|block| block.bare(&[[b'c'; 200]]));
        drop(slow);
        assert!(
            replication
                .backlog(&stream)
                .is_some_and(|(first, _)| first > 1)
        );
        let resumed = replication.resume(&stream, replication.id().as_bytes(), 1);
        assert_eq!(resumed.reader.err(), Some(Refusal::NotKept));
    }

    #[test]
    fn only_replicas_in_step_count() {
        let replication = Replication::default();
        let (one, two) = (replica(1), replica(2));
        replication.add(&one);
        replication.add(&two);
        assert_eq!(
            (replication.good(10, 100), replication.acknowledged(0)),
            (0, 0)
        );
        one.enter(State::Online);
        one.acknowledge(70, None, 100);
        assert_eq!(
            (replication.good(10, 110), replication.good(10, 111)),
            (1, 0)
        );
        assert_eq!(
            (replication.acknowledged(70), replication.acknowledged(71)),
            (1, 0)
        );
        // An older confirmation takes nothing back.
        one.acknowledge(60, Some(0), 105);
        assert_eq!((one.acknowledged(), one.lag(106)), (70, 1));
    }
}
