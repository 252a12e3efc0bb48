//! Which thread holds shards: debug builds refuse to lock further ones.
//!
//! A thread takes all the shards of one step at once ([`super::shards::LockSet`]), lowest first. Who
//! locks another one on top waits for itself, or for somebody who waits for it. Tests would hang there
//! only if the shards happened to collide; with this record they stop at the first attempt. Release
//! builds keep no record.

#[cfg(debug_assertions)]
use std::cell::RefCell;

#[cfg(debug_assertions)]
thread_local! {
    /// The keyspaces (by address) of which this thread holds shards, how many, and the highest.
    static HOLDS: RefCell<Vec<(usize, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// One held shard of a keyspace, while it lives.
pub struct Held {
    #[cfg(debug_assertions)]
    keyspace: usize,
}

/// To be called before shards of a keyspace are locked.
///
/// # Panics
/// In debug builds, when this thread holds some already.
#[inline(always)]
#[track_caller]
pub fn assert_none<K>(keyspace: &K) {
    #[cfg(debug_assertions)]
    {
        let address = std::ptr::from_ref(keyspace) as usize;
        let holds = HOLDS.with_borrow(|all| all.iter().any(|(of, ..)| *of == address));
        assert!(!holds, "a thread that holds shards locks further ones");
    }
    let _ = keyspace;
}

/// To be called before one more shard of a step is locked.
///
/// # Panics
/// In debug builds, when this thread holds that one or a higher one: a lock set is entered lowest
/// first, each shard once.
#[inline(always)]
#[track_caller]
pub fn assert_above<K>(keyspace: &K, shard: usize) {
    #[cfg(debug_assertions)]
    {
        let address = std::ptr::from_ref(keyspace) as usize;
        let highest = HOLDS.with_borrow(|all| {
            let held = all.iter().find(|(of, ..)| *of == address);
            held.map(|(.., highest)| *highest)
        });
        let is_above = highest.is_none_or(|highest| highest < shard);
        assert!(is_above, "shards are locked lowest first, each once");
    }
    let _ = (keyspace, shard);
}

/// Runs `work` as if this thread held no shard: for a worker that serves others in the middle of a script
/// of its own, and waits for none that the script holds.
pub fn aside<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(debug_assertions)]
    {
        let holds = HOLDS.take();
        let result = work();
        HOLDS.set(holds);
        result
    }
    #[cfg(not(debug_assertions))]
    work()
}

impl Held {
    /// Notes that this thread holds one more shard of a keyspace.
    #[inline(always)]
    pub fn note<K>(keyspace: &K, shard: usize) -> Self {
        #[cfg(debug_assertions)]
        {
            let keyspace = std::ptr::from_ref(keyspace) as usize;
            HOLDS.with_borrow_mut(
                |all| match all.iter_mut().find(|(of, ..)| *of == keyspace) {
                    Some((_, count, highest)) => {
                        (*count, *highest) = (*count + 1, (*highest).max(shard));
                    }
                    None => all.push((keyspace, 1, shard)),
                },
            );
            Self { keyspace }
        }
        #[cfg(not(debug_assertions))]
        {
            let _ = (keyspace, shard);
            Self {}
        }
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HOLDS.with_borrow_mut(|all| {
            let at = all.iter().position(|(of, ..)| *of == self.keyspace);
            let at = at.expect("noted when it was locked");
            all[at].1 -= 1;
            if all[at].1 == 0 {
                all.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::shards::Keyspace;

    #[test]
    fn shards_of_one_step_are_locked_at_once() {
        let (one, other) = (Keyspace::new(1, false), Keyspace::new(1, false));
        drop((one.lock(1), other.lock(0)));
        drop(one.lock_all());
        let again = || drop((one.lock(1), one.lock(2)));
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(again));
        assert_eq!(refused.is_err(), cfg!(debug_assertions));
        drop(one.lock_all());
    }
}
