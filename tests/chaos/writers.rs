//! Clients that write to whoever is the primary, and what they know to be on all servers.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

use crate::REPLICAS;
use crate::sockets::Client;

/// Longest wait of a writer for a reply; then it begins anew.
const LIMIT: Duration = Duration::from_secs(2);
/// How many elements one request adds to the number it is about.
const KINDS: u64 = 5;

/// Who is written to. The number changes before a role does.
#[derive(Default)]
pub struct Target {
    epoch: AtomicU64,
    socket: Mutex<PathBuf>,
    pub stop: AtomicBool,
}

impl Target {
    /// From now on nothing counts that was written to the primary until now.
    pub fn begin_change(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    pub fn set(&self, socket: PathBuf) {
        *self.socket.lock() = socket;
        self.begin_change();
    }
}

/// One client, and the numbers that it was told all replicas have.
pub struct Writer {
    own: usize,
    next: u64,
    kept: Vec<u64>,
}

impl Writer {
    pub fn new(own: usize) -> Self {
        Self {
            own,
            next: 0,
            kept: Vec::new(),
        }
    }

    /// How many numbers must be there.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Writes until told to stop.
    pub fn run(&mut self, target: &Target) {
        while !target.stop.load(SeqCst) {
            let epoch = target.epoch.load(SeqCst);
            let socket = target.socket.lock().clone();
            // The server may be gone, or no primary any more.
            let _ = self.write_to(socket, target, epoch);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes numbers until something else happens than that they are taken.
    fn write_to(&mut self, socket: PathBuf, target: &Target, epoch: u64) -> io::Result<()> {
        let mut client = Client::connect(&socket, LIMIT)?;
        while target.epoch.load(SeqCst) == epoch && !target.stop.load(SeqCst) {
            let n = self.next;
            self.next += 1;
            if !self.write(&mut client, n)? {
                return Ok(());
            }
            let wait = format!("WAIT {REPLICAS} 20");
            let have = client.try_ask(&wait)?;
            // Who was demoted and promoted in between knows no better than to count.
            if have == format!(":{REPLICAS}") && target.epoch.load(SeqCst) == epoch {
                self.kept.push(n);
            }
        }
        Ok(())
    }

    /// True when the primary took it.
    fn write(&self, client: &mut Client, n: u64) -> io::Result<bool> {
        let own = self.own;
        let mut ask = |line: String| client.try_ask(&line);
        match n % 40 {
            7 => drop(ask(format!(
                "SET w{own}:large:{} {}",
                n % 3,
                "x".repeat(50_000)
            ))?),
            17 => drop(ask(format!("PUBLISH w{own} {n}"))?),
            27 => drop(ask(format!("SET w{own}:volatile v PX 5"))?),
            37 => drop(ask(format!("SELECT {}", n % 3))?),
            38 => drop(ask("SELECT 0".to_owned())?),
            _ => {}
        }
        if n % 40 == 37 {
            ask(format!("INCR w{own}:elsewhere"))?;
            ask("SELECT 0".to_owned())?;
        }
        let reply = match n % KINDS {
            0 => ask(format!("SET w{own}:{n} {n}"))?,
            1 => ask(format!("HSET w{own}:hash {n} {n}"))?,
            2 => ask(format!("SADD w{own}:set {n}"))?,
            3 => ask(format!("ZADD w{own}:zset {n} {n}"))?,
            _ => {
                ask("MULTI".to_owned())?;
                ask(format!("SADD w{own}:one {n}"))?;
                ask(format!("SADD w{own}:other {n}"))?;
                ask("EXEC".to_owned())?
            }
        };
        Ok(!reply.starts_with('-'))
    }

    /// Everything that must be there is.
    pub fn check(&self, client: &mut Client) {
        let own = self.own;
        let mut all = |line: String| -> HashSet<u64> {
            let reply = client.ask(&line);
            let numbers = reply.split(' ').filter(|word| !word.is_empty());
            numbers.map(|n| n.parse().expect("a number")).collect()
        };
        let hash = all(format!("HKEYS w{own}:hash"));
        let set = all(format!("SMEMBERS w{own}:set"));
        let zset = all(format!("ZRANGE w{own}:zset 0 -1"));
        let one = all(format!("SMEMBERS w{own}:one"));
        let other = all(format!("SMEMBERS w{own}:other"));
        assert_eq!(one, other, "a transaction is there in part");
        for n in &self.kept {
            let is_there = match n % KINDS {
                0 => client.ask(&format!("EXISTS w{own}:{n}")) == ":1",
                1 => hash.contains(n),
                2 => set.contains(n),
                3 => zset.contains(n),
                _ => one.contains(n),
            };
            assert!(
                is_there,
                "writer {own}: {n} is lost, which all replicas had"
            );
        }
    }
}
