//! Numbered steps, and a model of what they leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::server::Client;

/// Accounts between which all connections transfer.
pub const ACCOUNTS: u64 = 5;

/// The requests of a step, and how many replies they get.
pub fn step(own: usize, i: u64) -> (String, usize) {
    let (a, b) = (i % ACCOUNTS, (i / 7 + 1) % ACCOUNTS);
    let line = match i % 9 {
        0 => format!("INCR {own}:n"),
        1 => format!("RPUSH {own}:l {i} {i}"),
        2 => format!("HSET {own}:h f{} {i}", i % 50),
        3 => format!("SADD {own}:s {}", i % 400),
        4 => format!("ZADD {own}:z {i} m{}", i % 300),
        5 => format!("XADD {own}:x MAXLEN = 20 {}-1 f v", i + 1),
        6 => format!("SETEX {own}:t 100000 {i}"),
        7 => format!("LTRIM {own}:l -20 -1"),
        _ => {
            let lines = format!(
                "MULTI\r\nINCR {own}:p\r\nDECRBY account:{a} {i}\r\nINCRBY account:{b} {i}\r\n\
                 SREM {own}:s {}\r\nINCR {own}:q\r\nEXEC\r\n",
                i % 200
            );
            return (lines, 7);
        }
    };
    (line + "\r\n", 1)
}

/// What a connection's keys hold after a number of steps.
#[derive(Default)]
pub struct Model {
    pub steps: u64,
    number: u64,
    list: Vec<u64>,
    hash: BTreeMap<String, u64>,
    set: BTreeSet<u64>,
    zset: BTreeMap<String, u64>,
    stream: Vec<u64>,
    text: Option<u64>,
    pair: u64,
}

impl Model {
    pub fn advance(&mut self) {
        let i = self.steps;
        self.steps += 1;
        match i % 9 {
            0 => self.number += 1,
            1 => self.list.extend([i, i]),
            2 => drop(self.hash.insert(format!("f{}", i % 50), i)),
            3 => drop(self.set.insert(i % 400)),
            4 => drop(self.zset.insert(format!("m{}", i % 300), i)),
            5 => {
                self.stream.push(i + 1);
                let extra = self.stream.len().saturating_sub(20);
                self.stream.drain(..extra);
            }
            6 => self.text = Some(i),
            7 => drop(self.list.drain(..self.list.len().saturating_sub(20))),
            _ => {
                self.pair += 1;
                self.set.remove(&(i % 200));
            }
        }
    }

    pub fn number_line(&self) -> String {
        match self.number {
            0 => "n nil\n".to_owned(),
            number => format!("n {number}\n"),
        }
    }

    /// As [`found`] gives it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let number = |n: u64| {
            if n == 0 {
                "nil".to_owned()
            } else {
                n.to_string()
            }
        };
        let joined = |words: Vec<String>| words.join(" ");
        out += &self.number_line();
        let list = self.list.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "l {}", joined(list));
        let hash = self.hash.iter().map(|(f, v)| format!("{f} {v}")).collect();
        let _ = writeln!(out, "h {}", sorted_pairs(&joined(hash)));
        let set = self.set.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "s {}", sorted(&joined(set)));
        let zset = self.zset.iter().map(|(m, s)| format!("{m} {s}")).collect();
        let _ = writeln!(out, "z {}", sorted_pairs(&joined(zset)));
        let stream = self.stream.iter().map(|id| format!("{id}-1 f v")).collect();
        let _ = writeln!(out, "x {}", joined(stream));
        let text = self.text.map_or("nil".to_owned(), |n| n.to_string());
        let _ = writeln!(out, "t {text}");
        let pair = number(self.pair);
        let _ = writeln!(out, "pq {pair} {pair}");
        out
    }
}

fn sorted(words: &str) -> String {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

fn sorted_pairs(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let mut pairs: Vec<String> = words.chunks(2).map(|pair| pair.join(" ")).collect();
    pairs.sort_unstable();
    pairs.join(" ")
}

/// What the server holds of a connection's keys.
pub fn found(client: &mut Client, own: usize) -> String {
    let mut ask = |line: String| client.ask(&line);
    let mut out = String::new();
    let _ = writeln!(out, "n {}", ask(format!("GET {own}:n")));
    let _ = writeln!(out, "l {}", ask(format!("LRANGE {own}:l 0 -1")));
    let _ = writeln!(out, "h {}", sorted_pairs(&ask(format!("HGETALL {own}:h"))));
    let _ = writeln!(out, "s {}", sorted(&ask(format!("SMEMBERS {own}:s"))));
    let zset = ask(format!("ZRANGE {own}:z 0 -1 WITHSCORES"));
    let _ = writeln!(out, "z {}", sorted_pairs(&zset));
    let _ = writeln!(out, "x {}", ask(format!("XRANGE {own}:x - +")));
    let _ = writeln!(out, "t {}", ask(format!("GET {own}:t")));
    let _ = writeln!(out, "pq {}", ask(format!("MGET {own}:p {own}:q")));
    out
}
