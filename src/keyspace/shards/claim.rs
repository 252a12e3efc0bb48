//! Claims: shards that are held while another server is waited for.
//!
//! MIGRATE has to hold its keys until the other side has them. It does so on a thread of its own, which *claims*
//! the shards that it locks. Who serves clients does not wait for a claimed shard, but gives up
//! ([`super::GaveUp::Claimed`]) and tries the request again when a claim has ended; who walks all shards for other
//! reasons passes it over, where that can be done later. Whoever does wait for one (a save, a replica's
//! side) holds no other shard meanwhile, so that nobody waits for him in turn.
//!
//! A new claim lets those pass first who were put off by an older one: who asked for the same shard, and who
//! needs all of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst, fence};
use std::time::Duration;

use super::{Keyspace, LockSet, SHARDS, ShardGuard};
use crate::keyspace::held;

/// How long a new claim lets others pass, and how often one looks who waits.
const LOOK: Duration = Duration::from_millis(1);
/// After so many looks without any claim, whoever needed all shards has had them, or has gone.
const LOOKS: u32 = 5;

/// What is known of all claims.
#[derive(Default)]
pub(super) struct Claims {
    active: AtomicUsize,
    /// Somebody was put off since a claim last ended.
    awaited: AtomicBool,
    /// One of them needs all shards, and has not had them yet.
    whole: AtomicBool,
    /// How many [`ClosedClaims`] there are.
    closed: AtomicUsize,
}

/// What is known of a shard's claim.
#[derive(Default)]
pub(super) struct Mark {
    /// Written by the shard's holder.
    claimed: AtomicBool,
    /// Somebody was put off since the last claim began.
    awaited: AtomicBool,
}

/// A claim on shards that are locked. To be ended by [`Claim::leave`] before they are let go, and by its drop
/// afterwards.
pub struct Claim<'k> {
    keyspace: &'k Keyspace,
    shards: Vec<usize>,
}

impl Keyspace {
    /// True while the shard is claimed.
    pub(super) fn is_claimed(&self, shard: usize) -> bool {
        self.shards[shard].mark.claimed.load(SeqCst)
    }

    /// Locks the shards of all `hashes` and claims them; `None` while no claims are made. For a thread that serves
    /// nobody: it waits for other claims.
    pub fn claim(
        &self,
        hashes: impl Iterator<Item = u64> + Clone,
    ) -> Option<(Claim<'_>, LockSet<'_>)> {
        self.let_others_pass(hashes.clone());
        let mut locks = self.lock_many(hashes);
        let claims = &self.claims;
        // Before the look, as `close_claims` looks afterwards: one of both sees the other.
        claims.active.fetch_add(1, SeqCst);
        let mut claim = Claim {
            keyspace: self,
            shards: Vec::new(),
        };
        if self.is_closed_to_claims() {
            return None;
        }
        claim.shards = match &mut locks {
            LockSet::None => Vec::new(),
            LockSet::One(guard) => vec![guard.index],
            LockSet::Many(guards) => guards.iter().map(|guard| guard.index).collect(),
        };
        claim.mark(true);
        Some((claim, locks))
    }

    fn let_others_pass(&self, hashes: impl Iterator<Item = u64>) {
        let mut passes = false;
        for shard in hashes.map(Self::shard_of) {
            passes |= self.shards[shard].mark.awaited.swap(false, SeqCst);
        }
        if passes {
            std::thread::sleep(LOOK);
        }
        let mut looks = LOOKS;
        while self.claims.whole.load(SeqCst) && looks > 0 {
            looks -= u32::from(self.claims.active.load(SeqCst) == 0);
            std::thread::sleep(LOOK);
        }
        if looks == 0 {
            self.claims.whole.store(false, SeqCst);
        }
    }

    /// Makes no more claims until the result is dropped, and waits for the end of those that there are: their
    /// holders look at [`Keyspace::is_closed_to_claims`] while they wait.
    pub fn close_claims(&self) -> ClosedClaims<'_> {
        self.claims.closed.fetch_add(1, SeqCst);
        while self.claims.active.load(SeqCst) > 0 {
            std::thread::sleep(LOOK);
        }
        ClosedClaims(self)
    }

    /// True while claims are closed: who holds one gives it up as if its time were over.
    pub fn is_closed_to_claims(&self) -> bool {
        self.claims.closed.load(SeqCst) > 0
    }

    /// Locks a shard that is not claimed, however long that takes. `None` says that it is: the work is for later,
    /// and a request is tried again when the claim ends.
    #[track_caller]
    pub fn lock_unclaimed(&self, shard: usize) -> Option<ShardGuard<'_>> {
        held::assert_none(self);
        loop {
            if self.is_claimed(shard) {
                return self.lock_unless_claimed(shard);
            }
            if let Some(state) = self.shards[shard].state.try_lock_for(LOOK) {
                return Some(self.guard(shard, state));
            }
        }
    }

    /// Notes that a claimed shard is asked for, and locks it if it has just come free.
    #[cold]
    pub(super) fn lock_unless_claimed(&self, shard: usize) -> Option<ShardGuard<'_>> {
        self.shards[shard].mark.awaited.store(true, SeqCst);
        self.claims.awaited.store(true, SeqCst);
        // Either it is found free here, or who lets it go later sees that it is awaited: see `Claim::end`.
        fence(SeqCst);
        let state = self.shards[shard].state.try_lock()?;
        Some(self.guard(shard, state))
    }

    /// Who locks so many shards was put off by a claim.
    pub(super) fn wants_whole(&self, shards: usize) {
        if shards == SHARDS {
            self.claims.whole.store(true, SeqCst);
        }
    }

    /// Who locks so many shards has them.
    #[inline]
    pub(super) fn has_whole(&self, shards: usize) {
        if shards == SHARDS && self.claims.whole.load(SeqCst) {
            self.claims.whole.store(false, SeqCst);
        }
    }
}

/// No claims are made until this is dropped.
pub struct ClosedClaims<'k>(&'k Keyspace);

impl Drop for ClosedClaims<'_> {
    fn drop(&mut self) {
        self.0.claims.closed.fetch_sub(1, SeqCst);
    }
}

impl Claim<'_> {
    fn mark(&self, claimed: bool) {
        for &shard in &self.shards {
            let mark = &self.keyspace.shards[shard].mark;
            mark.claimed.store(claimed, SeqCst);
        }
    }

    /// From here on the shards are held as by anybody: what is left to do waits for nobody.
    pub fn leave(&mut self) {
        self.mark(false);
        self.shards.clear();
    }

    /// Ends a claim whose shards are let go; true when requests were put off, which are to be tried again.
    pub fn end(self) -> bool {
        fence(SeqCst);
        self.keyspace.claims.awaited.swap(false, SeqCst)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.mark(false);
        self.keyspace.claims.active.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::shards::GaveUp;

    fn hash_in(shard: usize) -> u64 {
        (shard as u64) << 54
    }

    #[test]
    fn clients_are_put_off_by_a_claim_and_told_of_its_end() {
        let keyspace = Keyspace::new(1, false);
        let (mut claim, locks) = keyspace
            .claim([hash_in(3), hash_in(7)].into_iter())
            .expect("claims are made");
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| {
                assert!(keyspace.lock_one_in_time(hash_in(4)).is_ok());
                assert!(matches!(
                    keyspace.lock_one_in_time(hash_in(3)),
                    Err(GaveUp::Claimed)
                ));
                assert!(matches!(keyspace.lock_in_time(7), Err(GaveUp::Claimed)));
                assert!(matches!(keyspace.lock_all_in_time(), Err(GaveUp::Claimed)));
                assert!(keyspace.lock_unclaimed(7).is_none());
            });
            asks.join().expect("nobody waits");
        });
        claim.leave();
        drop(locks);
        assert!(claim.end(), "somebody was put off");
        assert!(keyspace.lock_all_in_time().is_ok());
        let (claim, locks) = keyspace.claim([hash_in(3)].into_iter()).expect("again");
        drop(locks);
        assert!(!claim.end(), "nobody asked");
    }

    #[test]
    fn who_waits_for_a_claim_holds_nothing() {
        let keyspace = Keyspace::new(1, false);
        let (claim, locks) = keyspace.claim([hash_in(9)].into_iter()).expect("made");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(keyspace.lock_all()));
            // It has come to the claimed shard, and let go of those before it.
            while !keyspace.claims.whole.load(SeqCst) {
                std::thread::yield_now();
            }
            let asks = scope.spawn(|| drop(keyspace.lock(2)));
            asks.join().expect("nobody holds it for long");
            drop(locks);
            drop(claim);
            waits.join().expect("it has had them");
        });
        assert!(!keyspace.claims.whole.load(SeqCst));
    }

    #[test]
    fn no_claim_is_made_once_they_are_closed() {
        let keyspace = Keyspace::new(1, false);
        let (claim, locks) = keyspace.claim([hash_in(1)].into_iter()).expect("made");
        std::thread::scope(|scope| {
            let closes = scope.spawn(|| std::mem::forget(keyspace.close_claims()));
            while !keyspace.is_closed_to_claims() {
                std::thread::yield_now();
            }
            assert!(!closes.is_finished());
            drop(locks);
            drop(claim);
            closes.join().expect("it waited for the claim only");
        });
        assert!(keyspace.claim([hash_in(1)].into_iter()).is_none());
        assert!(keyspace.lock_all_in_time().is_ok());
        drop(ClosedClaims(&keyspace));
        assert!(keyspace.claim([hash_in(1)].into_iter()).is_some());
    }
}
