//! A server as sentinels see it: a role, and INFO.

use std::collections::BTreeSet;

use super::{Node, ip};
use crate::sentinel::state::ConnId;

/// A server.
pub struct Server {
    pub up: bool,
    /// Whom it follows.
    pub follows: Option<Node>,
    /// Since when.
    pub since: i64,
    /// How often it started.
    pub starts: u64,
    /// Who hears what is published: a sentinel, and its connection.
    pub subscribers: Vec<(usize, ConnId)>,
}

impl Server {
    pub fn new(follows: Option<Node>) -> Self {
        Self {
            up: true,
            follows,
            since: 0,
            starts: 0,
            subscribers: Vec::new(),
        }
    }

    pub fn follow(&mut self, master: Option<Node>, now: i64) {
        if self.follows != master {
            self.follows = master;
            self.since = now;
        }
    }

    pub fn restart(&mut self, now: i64) {
        self.up = true;
        self.starts += 1;
        self.since = now;
    }
}

/// What INFO of a server tells.
pub fn info(servers: &[Server], node: Node, now: i64, cut: &BTreeSet<(Node, Node)>) -> String {
    let server = &servers[node];
    let mut text = format!(
        "run_id:{:040x}\r\n",
        (node as u64 + 1) * 1000 + server.starts
    );
    let is_cut = |a: Node, b: Node| cut.contains(&(a.min(b), a.max(b)));
    let Some(master) = server.follows else {
        text += "role:master\r\n";
        for (other, replica) in servers.iter().enumerate() {
            if replica.up && replica.follows == Some(node) && !is_cut(other, node) {
                text += &format!("slave{other}:ip={},port=6379,state=online\r\n", ip(other));
            }
        }
        return text;
    };
    let is_up = servers[master].up && servers[master].follows.is_none() && !is_cut(master, node);
    text += &format!(
        "role:slave\r\nmaster_host:{}\r\nmaster_port:6379\r\n",
        ip(master)
    );
    match is_up {
        true => text += "master_link_status:up\r\n",
        false => {
            let seconds = (now - server.since).min(5000) / 1000;
            text += "master_link_status:down\r\n";
            text += &format!("master_link_down_since_seconds:{seconds}\r\n");
        }
    }
    text += "slave_priority:100\r\nslave_repl_offset:1\r\n";
    text
}
