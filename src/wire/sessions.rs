//! Sessions that clients may resume: as many, and for as long, as the parameters say.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

/// Biggest session that is kept, in bytes: it holds the certificates that the client showed.
const BIGGEST: usize = 4096;

/// A cache of sessions.
#[derive(Debug)]
pub struct Sessions {
    /// Most sessions; 0 is no limit.
    size: usize,
    lifetime: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<Vec<u8>, Session>,
    /// Numbers and keys by age, also of some that were taken or replaced.
    order: VecDeque<(u64, Instant, Vec<u8>)>,
    /// Sessions put so far.
    count: u64,
}

#[derive(Debug)]
struct Session {
    number: u64,
    since: Instant,
    value: Vec<u8>,
}

impl Kept {
    /// Forgets the oldest.
    fn pop(&mut self) {
        if let Some((number, _, key)) = self.order.pop_front()
            && self.sessions.get(&key).is_some_and(|s| s.number == number)
        {
            self.sessions.remove(&key);
        }
    }

    /// Forgets keys without a session, when they are many.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.sessions.len() + 64 {
            let sessions = &self.sessions;
            self.order
                .retain(|(number, _, key)| sessions.get(key).is_some_and(|s| s.number == *number));
        }
    }
}

impl Sessions {
    /// An empty one.
    pub fn new(size: usize, lifetime: Duration) -> Self {
        Self {
            size,
            lifetime,
            kept: Mutex::default(),
        }
    }

    fn put_at(&self, key: Vec<u8>, value: Vec<u8>, now: Instant) {
        let mut kept = self.kept.lock();
        let is_over =
            |(_, since, _): &(u64, Instant, Vec<u8>)| now.duration_since(*since) > self.lifetime;
        while kept.order.front().is_some_and(is_over)
            || (self.size > 0 && kept.sessions.len() >= self.size && !kept.order.is_empty())
        {
            kept.pop();
        }
        kept.count += 1;
        let number = kept.count;
        kept.order.push_back((number, now, key.clone()));
        let session = Session {
            number,
            since: now,
            value,
        };
        kept.sessions.insert(key, session);
        kept.tidy();
    }

    fn is_valid(&self, session: &Session, now: Instant) -> bool {
        now.duration_since(session.since) <= self.lifetime
    }

    fn get_at(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        let session = kept.sessions.get(key)?;
        self.is_valid(session, now).then(|| session.value.clone())
    }

    fn take_at(&self, key: &[u8], now: Instant) -> Option<Vec<u8>> {
        let session = self.kept.lock().sessions.remove(key)?;
        self.is_valid(&session, now).then_some(session.value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, mut value: Vec<u8>) -> bool {
        if value.len() > BIGGEST {
            return false;
        }
        value.shrink_to_fit();
        self.put_at(key, value, Instant::now());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_at(key, Instant::now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.take_at(key, Instant::now())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_it_is_full_and_all_when_they_are_old() {
        let sessions = Sessions::new(2, Duration::from_secs(10));
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        for (key, seconds) in [(1, 0), (2, 1), (3, 2)] {
            sessions.put_at(vec![key], vec![key], at(seconds));
        }
        assert_eq!(sessions.get_at(&[1], at(2)), None);
        assert_eq!(sessions.get_at(&[2], at(11)), Some(vec![2]));
        assert_eq!(sessions.get_at(&[2], at(12)), None);
        assert_eq!(sessions.take_at(&[3], at(3)), Some(vec![3]));
        assert_eq!(sessions.take_at(&[3], at(3)), None);
    }

    #[test]
    fn no_session_is_bigger_than_it_may_be() {
        let sessions = Sessions::new(2, Duration::from_secs(10));
        assert!(!sessions.put(vec![1], vec![0; BIGGEST + 1]));
        assert_eq!(sessions.get(&[1]), None);
        let mut roomy = Vec::with_capacity(2 * BIGGEST);
        roomy.push(7);
        assert!(sessions.put(vec![2], roomy));
        let kept = sessions.kept.lock();
        assert!(kept.sessions[&vec![2]].value.capacity() < BIGGEST);
    }

    #[test]
    fn it_stays_small_whatever_is_taken_and_put() {
        let sessions = Sessions::new(4, Duration::from_secs(1000));
        let now = Instant::now();
        for n in 0..10_000u32 {
            sessions.put_at(n.to_be_bytes().to_vec(), vec![0], now);
            sessions.take_at(&n.to_be_bytes(), now);
            sessions.put_at(b"same".to_vec(), vec![0], now);
        }
        let kept = sessions.kept.lock();
        assert!(kept.order.len() <= 2 * kept.sessions.len() + 64);
        assert!(kept.sessions.len() <= 4);
    }
}
