//! The beginning of a cut and its walk to the end; what it is, see [`super::cut`].

use std::sync::Arc;

use super::cut::{Cut, Visitor};
use super::entry::InPlace;
use super::shards::{Keyspace, LockSet, SHARDS};
use super::table::{Position, position_of_shard};

/// What sees all the other entries, shown by the walk.
pub trait Walker {
    /// An entry, with the database it was in at the cut, under its shard's lock: to be quick with,
    /// and to lock nothing, because who walks may have to give way to all others at any moment.
    /// About how much work that was: one for each hundred nanoseconds or so.
    fn visit(&mut self, db: usize, entry: &mut InPlace<'_>) -> usize;

    /// Called between two slices, without locks: may take long, and wait.
    fn pause(&mut self);
}

/// Buckets shown under one lock at most.
const SLICE: usize = 16;
/// Work under one lock after which no other bucket is shown.
const SLICE_WORK: usize = 300;

impl Cut {
    /// Begins a cut of a keyspace whose shards are all in `locks`. Only one at a time: the one
    /// before must have been walked to its end.
    pub fn begin(
        keyspace: &Keyspace,
        locks: &mut LockSet<'_>,
        visitor: Arc<dyn Visitor>,
    ) -> Arc<Self> {
        let cut = Arc::new(Self::new(keyspace.databases(), visitor));
        for shard in 0..SHARDS {
            locks.shard(shard).begin_cut(Arc::clone(&cut));
        }
        cut
    }

    /// Shows everything that was not shown yet, and ends the cut.
    pub fn walk(&self, keyspace: &Keyspace, walker: &mut dyn Walker) {
        for shard in 0..SHARDS {
            // Databases exchanged in the middle of a shard may hide a part of it: look again.
            loop {
                let swaps = self.swaps();
                for db in 0..keyspace.databases() {
                    self.walk_table(keyspace, shard, db, walker);
                }
                let mut guard = keyspace.lock(shard);
                if self.swaps() == swaps {
                    guard.end_cut();
                    break;
                }
            }
        }
        let epoch = keyspace.lock(0).epoch();
        for (number, mut keys) in self.take_emptied() {
            let mut work = 0;
            keys.each(|mut entry| {
                if entry.epoch() != epoch && !self.is_cancelled() {
                    work += walker.visit(number, &mut entry);
                    if work >= SLICE_WORK {
                        work = 0;
                        walker.pause();
                    }
                }
            });
        }
        walker.pause();
    }

    fn walk_table(&self, keyspace: &Keyspace, shard: usize, db: usize, walker: &mut dyn Walker) {
        if keyspace.shard_len(db, shard).0 == 0 {
            return;
        }
        let mut at = Some(position_of_shard(shard));
        while let Some(position) = at {
            at = self.walk_slice(keyspace, shard, (db, position), walker);
            walker.pause();
        }
    }

    /// Shows some buckets under one lock; where the next one begins.
    fn walk_slice(
        &self,
        keyspace: &Keyspace,
        shard: usize,
        (db, position): (usize, Position),
        walker: &mut dyn Walker,
    ) -> Option<Position> {
        let mut guard = keyspace.lock(shard);
        let (epoch, number) = (guard.epoch(), self.number(db));
        let mut table = guard.table(db);
        // Nearly every entry has to come from memory: all are asked for before the first is read.
        let mut ahead = Some(position);
        for _ in 0..SLICE {
            let Some(here) = ahead else { break };
            ahead = table.view().prefetch_bucket(here);
        }
        let (mut at, mut work) = (Some(position), 0);
        for _ in 0..SLICE {
            at = table.visit_mut(at?, |mut entry| {
                if self.is_due(&entry, epoch) {
                    work += walker.visit(number, &mut entry);
                }
            });
            if work >= SLICE_WORK {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot::Mutex;

    use super::*;
    use crate::keyspace::db::{Db, Effects, Env, Ttl};
    use crate::keyspace::entry::NewValue;

    /// Database and key.
    type Place = (usize, Vec<u8>);

    #[derive(Default)]
    struct Seen(Mutex<HashMap<Place, Vec<u8>>>);

    impl Visitor for Seen {
        fn visit(&self, db: usize, entry: &mut InPlace<'_>) {
            let place = (db, entry.key().to_vec());
            let before = self.0.lock().insert(place, entry.string().to_vec());
            assert!(before.is_none(), "shown twice");
        }
    }

    /// Walks, and does something between the slices.
    struct Walks<P>(Arc<Seen>, P);

    impl<P: FnMut()> Walker for Walks<P> {
        fn visit(&mut self, db: usize, entry: &mut InPlace<'_>) -> usize {
            Visitor::visit(&*self.0, db, entry);
            1
        }

        fn pause(&mut self) {
            (self.1)();
        }
    }

    fn walk(keyspace: &Keyspace, cut: &Cut, seen: &Arc<Seen>, pause: impl FnMut()) {
        cut.walk(keyspace, &mut Walks(Arc::clone(seen), pause));
    }

    fn with<R>(
        keyspace: &Keyspace,
        db: usize,
        keys: &[&[u8]],
        work: impl FnOnce(&mut Db<'_, '_>) -> R,
    ) -> R {
        let mut locks = match keys {
            [] => keyspace.lock_all(),
            keys => keyspace.lock_many(keys.iter().map(|key| keyspace.hash(key))),
        };
        let mut effects = Effects::default();
        work(&mut Db::new(
            keyspace,
            &mut locks,
            &Env::at(1000),
            &mut effects,
            db,
            &[],
        ))
    }

    fn put(keyspace: &Keyspace, db: usize, key: &[u8], n: i64) {
        with(keyspace, db, &[key], |db| {
            db.put(key, NewValue::Int(n), Ttl::Clear)
        });
    }

    fn begin(keyspace: &Keyspace) -> (Arc<Cut>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let mut locks = keyspace.lock_all();
        let visitor = Arc::clone(&seen) as Arc<dyn Visitor>;
        (Cut::begin(keyspace, &mut locks, visitor), seen)
    }

    #[test]
    fn transfers_between_accounts_never_show_half() {
        const ACCOUNTS: usize = 3000;
        let keyspace = Keyspace::new(2, false);
        let key = |n: usize| format!("account:{n}").into_bytes();
        for n in 0..ACCOUNTS {
            put(&keyspace, n % 2, &key(n), 100);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..3u64 {
                let (keyspace, stop) = (&keyspace, &stop);
                scope.spawn(move || {
                    let mut random = seed * 7919 + 1;
                    while !stop.load(Ordering::Relaxed) {
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(99);
                        let (a, b) = (
                            (random >> 33) as usize % ACCOUNTS,
                            (random >> 13) as usize % ACCOUNTS,
                        );
                        if a == b || a % 2 != b % 2 {
                            continue;
                        }
                        let (a_key, b_key) = (key(a), key(b));
                        with(keyspace, a % 2, &[&a_key, &b_key], |db| {
                            let get = |db: &mut Db<'_, '_>, key: &[u8]| {
                                db.peek(key).and_then(|e| e.string().integer()).unwrap_or(0)
                            };
                            let (x, y) = (get(db, &a_key), get(db, &b_key));
                            // Empty accounts go, and come back.
                            if x == 1 {
                                db.remove(&a_key);
                            } else if x > 1 {
                                db.put(&a_key, NewValue::Int(x - 1), Ttl::Clear);
                            }
                            if x > 0 {
                                db.put(&b_key, NewValue::Int(y + 1), Ttl::Clear);
                            }
                        });
                    }
                });
            }
            for _ in 0..20 {
                let (cut, seen) = begin(&keyspace);
                walk(&keyspace, &cut, &seen, || {});
                let sum: i64 = seen
                    .0
                    .lock()
                    .values()
                    .map(|text| {
                        String::from_utf8_lossy(text)
                            .parse::<i64>()
                            .expect("a number")
                    })
                    .sum();
                assert_eq!(sum, ACCOUNTS as i64 * 100);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn emptied_and_exchanged_databases_show_as_they_were() {
        let keyspace = Keyspace::new(3, false);
        for n in 0..2000 {
            put(&keyspace, 0, format!("a{n}").as_bytes(), n);
            put(&keyspace, 1, format!("b{n}").as_bytes(), n);
        }
        let (cut, seen) = begin(&keyspace);
        with(&keyspace, 0, &[], |db| db.swap(0, 1));
        with(&keyspace, 0, &[], |db| db.flush(0, true));
        put(&keyspace, 0, b"new", 1);
        put(&keyspace, 1, b"a5", -1);
        let mut steps = 0;
        walk(&keyspace, &cut, &seen, || {
            steps += 1;
            if steps == 700 {
                with(&keyspace, 0, &[], |db| db.swap(1, 2));
            }
        });
        let seen = seen.0.lock();
        assert_eq!(seen.len(), 4000);
        for n in 0..2000 {
            let text = n.to_string().into_bytes();
            assert_eq!(seen.get(&(0, format!("a{n}").into_bytes())), Some(&text));
            assert_eq!(seen.get(&(1, format!("b{n}").into_bytes())), Some(&text));
        }
        // A cancelled cut leaves all in order for the next one.
        let (cut, none) = begin(&keyspace);
        cut.cancel();
        walk(&keyspace, &cut, &none, || {});
        assert!(none.0.lock().is_empty());
        let (cut, all) = begin(&keyspace);
        walk(&keyspace, &cut, &all, || {});
        assert_eq!(all.0.lock().len(), 2001);
    }
}
