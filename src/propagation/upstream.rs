//! Whom this server follows, as all threads see it.
//!
//! Commands say what is wanted ([`Upstream::want`]); the thread that follows the primary does it, as the
//! only one that changes what is so, and says when it is done. Nothing here touches a socket.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::client::mailbox::Bell;

/// Host and port of a primary.
pub type Address = (String, u16);

/// What is wanted: whom to follow, or nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The primary.
    pub primary: Option<Address>,
    /// FAILOVER: the other side is told to take over.
    pub failover: bool,
    /// From the configuration, when the server starts.
    pub at_start: bool,
}

/// What is so, for INFO and ROLE.
#[derive(Clone, Debug)]
pub struct View {
    /// Host and port of the primary, if one is followed.
    pub primary: Option<Address>,
    /// As ROLE has it: `none`, `connect`, `connecting`, `handshake`, `sync`, `connected`.
    pub state: &'static str,
    /// `master_link_status` is `up`.
    pub is_up: bool,
    /// It was up with this primary: this server has its data.
    pub was_up: bool,
    /// `master_last_io_seconds_ago`: -1 while the link is down.
    pub last_io_seconds: i64,
    /// `master_link_down_since_seconds`: -1 if it was never up.
    pub down_seconds: i64,
    /// The full sync under way.
    pub sync: Option<FullSync>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            primary: None,
            state: "none",
            is_up: false,
            was_up: false,
            last_io_seconds: -1,
            down_seconds: -1,
            sync: None,
        }
    }
}

/// A full sync for INFO: `master_sync_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullSync {
    /// Bytes of the dump: -1 before they are known, 0 if they will not be.
    pub total: i64,
    /// Bytes received.
    pub read: i64,
    /// Seconds since the last of them.
    pub last_io_seconds: i64,
}

impl FullSync {
    /// `master_sync_left_bytes`, which is negative where the total is not known.
    pub fn left(&self) -> i64 {
        self.total - self.read
    }

    /// `master_sync_perc`.
    pub fn percent(&self) -> f64 {
        match self.total {
            0 => 0.0,
            total => self.read as f64 / total as f64 * 100.0,
        }
    }
}

/// A database and a key.
pub type OwnKey = (usize, Box<[u8]>);

/// Whom this server follows.
#[derive(Default)]
pub struct Upstream {
    /// It follows a primary: what its own clients write goes to no replica.
    follows: AtomicBool,
    /// The link is up.
    is_up: AtomicBool,
    /// Bytes of the primary that were read and are not applied.
    pub unapplied: AtomicU64,
    view: Mutex<View>,
    orders: Mutex<Orders>,
    /// An order was carried out.
    done: Condvar,
    /// [`Orders::given`], to be read without the lock.
    given: AtomicU64,
    /// Keys that clients of this writable replica gave an expiry: nobody else removes them.
    own_volatile: Mutex<OwnVolatile>,
    /// The thread that follows runs.
    served: AtomicBool,
    /// Rung when something is ordered.
    bell: Mutex<Option<Arc<Bell>>>,
}

#[derive(Default)]
struct OwnVolatile {
    keys: BTreeSet<OwnKey>,
    /// The last that was looked at.
    last: Option<OwnKey>,
}

#[derive(Default)]
struct Orders {
    wanted: Wanted,
    /// Orders so far.
    given: u64,
    /// Of which so many are carried out.
    done: u64,
}

impl Upstream {
    /// True while a primary is followed. It changes at any time; who acts on it in turns that the
    /// changing thread waits for never acts on what it was before.
    #[inline]
    pub fn follows(&self) -> bool {
        self.follows.load(Relaxed)
    }

    /// True while the link to the primary is up.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// What is so.
    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    /// What is so, or is about to be: for who asks within the transaction that ordered it.
    pub fn outlook(&self) -> Option<View> {
        let view = self.view();
        if self.follows() && view.primary.is_some() {
            return Some(view);
        }
        let primary = self.wanted().primary?;
        Some(View {
            primary: Some(primary),
            state: "connect",
            ..View::default()
        })
    }

    /// What was ordered last.
    pub fn wanted(&self) -> Wanted {
        self.orders.lock().wanted.clone()
    }

    /// Orders something; the number to wait for with [`Upstream::await_done`].
    pub fn want(&self, wanted: Wanted) -> u64 {
        let mut orders = self.orders.lock();
        orders.wanted = wanted;
        orders.given += 1;
        self.given.store(orders.given, SeqCst);
        let given = orders.given;
        drop(orders);
        self.ring_thread();
        given
    }

    /// As [`Upstream::want`], unless something was ordered already; whether it was not.
    pub fn want_first(&self, wanted: Wanted) -> bool {
        let mut orders = self.orders.lock();
        if orders.given != 0 {
            return false;
        }
        orders.wanted = wanted;
        orders.given = 1;
        self.given.store(orders.given, SeqCst);
        drop(orders);
        self.ring_thread();
        true
    }

    /// Has the thread that follows look at what there is to do.
    pub fn ring_thread(&self) {
        if let Some(bell) = &*self.bell.lock() {
            bell.ring();
        }
    }

    /// How many orders were given.
    #[inline]
    pub fn given(&self) -> u64 {
        self.given.load(SeqCst)
    }

    /// Waits until so many orders are carried out; false when that took longer than `limit`.
    pub fn await_done(&self, order: u64, limit: Duration) -> bool {
        let mut orders = self.orders.lock();
        while orders.done < order {
            if self.done.wait_for(&mut orders, limit).timed_out() {
                return false;
            }
        }
        true
    }
}

/// What clients of a writable replica leave in its data set.
impl Upstream {
    /// A client of this replica gave a key an expiry.
    pub fn note_volatile(&self, db: usize, key: &[u8]) {
        self.own_volatile.lock().keys.insert((db, key.into()));
    }

    /// How many such keys there are, as far as is known.
    pub fn own_volatile(&self) -> usize {
        self.own_volatile.lock().keys.len()
    }

    /// Some of them, at most `count`, each in its turn.
    pub fn next_volatile(&self, count: usize) -> Vec<OwnKey> {
        let mut noted = self.own_volatile.lock();
        let OwnVolatile { keys, last } = &*noted;
        let from = last.as_ref().map_or(Unbounded, Excluded);
        let some: Vec<_> = keys.range((from, Unbounded)).take(count).cloned().collect();
        // Behind the last one, the first.
        noted.last = some.last().filter(|_| some.len() == count).cloned();
        some
    }

    /// A key has no expiry any more; called under its lock, so that who gives it one is not missed.
    pub fn forget_volatile_key(&self, own: &OwnKey) {
        self.own_volatile.lock().keys.remove(own);
    }

    /// The data set is another one, or this server no replica.
    pub fn forget_volatile(&self) {
        *self.own_volatile.lock() = OwnVolatile::default();
    }
}

/// What the thread that follows the primary tells.
impl Upstream {
    /// True for whoever asks first: it starts the thread that follows.
    pub fn claim_service(&self) -> bool {
        !self.served.swap(true, SeqCst)
    }

    /// That thread could not be started.
    pub fn give_up_service(&self) {
        self.served.store(false, SeqCst);
    }

    /// Has `bell` rung whenever something is ordered.
    pub fn ring(&self, bell: Arc<Bell>) {
        *self.bell.lock() = Some(bell);
    }

    /// The last order, and how many there were, if there are more than `seen`.
    pub fn order_after(&self, seen: u64) -> Option<(Wanted, u64)> {
        let orders = self.orders.lock();
        (orders.given > seen).then(|| (orders.wanted.clone(), orders.given))
    }

    /// So many orders are carried out.
    pub fn has_done(&self, order: u64) {
        let mut orders = self.orders.lock();
        debug_assert!(orders.done <= order && order <= orders.given);
        orders.done = order;
        self.done.notify_all();
    }

    /// Nobody is wanted any more, unless more was ordered than `seen`; false then.
    pub fn withdraw(&self, seen: u64) -> bool {
        let mut orders = self.orders.lock();
        let withdraws = orders.given == seen;
        if withdraws {
            orders.wanted = Wanted::default();
        }
        withdraws
    }

    /// A primary is followed from now on, or none.
    pub fn set_follows(&self, follows: bool) {
        self.follows.store(follows, SeqCst);
    }

    /// Shows how things are.
    pub fn show(&self, view: View) {
        self.is_up.store(view.is_up, Relaxed);
        *self.view.lock() = view;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(db: usize, key: &str) -> OwnKey {
        (db, key.as_bytes().into())
    }

    #[test]
    fn the_last_order_counts_and_who_waits_hears_of_its_end() {
        let upstream = Upstream::default();
        assert_eq!(upstream.order_after(0), None);
        let to = |port| Wanted {
            primary: Some(("h".into(), port)),
            ..Wanted::default()
        };
        let first = upstream.want(to(1));
        let second = upstream.want(to(2));
        assert_eq!(upstream.order_after(0), Some((to(2), second)));
        assert_eq!(upstream.order_after(second), None);
        assert!(!upstream.await_done(first, Duration::from_millis(1)));
        upstream.has_done(second);
        assert!(upstream.await_done(first, Duration::ZERO));
    }

    #[test]
    fn keys_of_own_clients_are_noted_until_they_are_gone() {
        let upstream = Upstream::default();
        for key in ["a", "b", "a"] {
            upstream.note_volatile(1, key.as_bytes());
        }
        assert_eq!(upstream.own_volatile(), 2);
        upstream.forget_volatile_key(&own(1, "b"));
        assert_eq!(upstream.own_volatile(), 1);
        assert_eq!(upstream.next_volatile(10), [own(1, "a")]);
        upstream.forget_volatile();
        assert_eq!(upstream.next_volatile(10), []);
    }

    #[test]
    fn each_of_these_keys_is_looked_at_in_its_turn() {
        let upstream = Upstream::default();
        for key in ["a", "b", "c", "d", "e"] {
            upstream.note_volatile(0, key.as_bytes());
        }
        let next = || {
            let some = upstream.next_volatile(2);
            let keys = some.iter().map(|(_, key)| char::from(key[0]));
            keys.collect::<String>()
        };
        assert_eq!([next(), next(), next()], ["ab", "cd", "e"]);
        assert_eq!(next(), "ab");
        // The one that was looked at last is gone, and so is the next.
        for key in ["b", "c"] {
            upstream.forget_volatile_key(&own(0, key));
        }
        assert_eq!(next(), "de");
        assert_eq!(next(), "");
        assert_eq!(next(), "ad");
    }

    #[test]
    fn shares_of_a_full_sync() {
        let sync = |total, read| FullSync {
            total,
            read,
            last_io_seconds: 0,
        };
        assert_eq!((sync(200, 50).left(), sync(200, 50).percent()), (150, 25.0));
        assert_eq!((sync(0, 50).left(), sync(0, 50).percent()), (-50, 0.0));
    }
}
