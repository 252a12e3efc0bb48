//! Clients that wait for keys while others write: who is served, when, and with what.
//!
//! Four clients (three that wait, and one that never does) play one act after the other on both servers. After each act a server is at rest:
//! the real one because it has one thread and has answered a PING since, ours when it has sent as
//! many replies and as many clients wait. Then the replies that came on every connection are
//! compared. Waits are for ever or much longer than a sequence; those that are to end by
//! themselves are acts of their own, so that time decides nothing between two servers.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::compare;
use crate::resp::{Args, Conn, Ended, Reply, line, show};
use crate::servers::Server;

/// Connections; the last one never waits, except within EXEC, where nobody does.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any time to live that shall end.
const EXPIRY: Duration = Duration::from_millis(4);
/// What stands for the identifier of a connection, with its number behind it.
const ID: &[u8] = b"$id";

/// One thing a sequence does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Requests in one write; also while the client waits, if so said.
    Send {
        conn: usize,
        commands: Vec<Args>,
        while_waiting: bool,
    },
    /// A wait that ends by itself.
    Timed { conn: usize, args: Args },
    /// A key expires; nobody looks.
    Expire { conn: usize, args: Args },
    /// The connection is closed, and another one opened.
    Close { conn: usize },
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Commands that wait; `T` is the time, `K` a key, `N` a small number, `W` a word, `I` an ID.
const WAITS: &[&str] = &[
    "BLPOP K T",
    "BLPOP K K T",
    "BLPOP K K K T",
    "BRPOP K T",
    "BRPOP K K T",
    "BLMOVE K K LEFT RIGHT T",
    "BLMOVE K K RIGHT LEFT T",
    "BLMOVE K K LEFT LEFT T",
    "BRPOPLPUSH K K T",
    "BLMPOP T 1 K LEFT",
    "BLMPOP T 2 K K RIGHT COUNT N",
    "BZPOPMIN K T",
    "BZPOPMIN K K T",
    "BZPOPMAX K T",
    "BZPOPMAX K K K T",
    "BZMPOP T 1 K MIN",
    "BZMPOP T 2 K K MAX COUNT N",
    "XREAD BLOCK M STREAMS K $",
    "XREAD BLOCK M STREAMS K I",
    "XREAD COUNT N BLOCK M STREAMS K K $ I",
    "XREADGROUP GROUP g u BLOCK M STREAMS K >",
    "XREADGROUP GROUP g v COUNT N BLOCK M STREAMS K K > >",
    "XREADGROUP GROUP g u NOACK BLOCK M STREAMS K >",
    "XREADGROUP GROUP g u BLOCK M STREAMS K 0",
    "XREADGROUP GROUP h u BLOCK M STREAMS K >",
];

/// What others do meanwhile.
const WRITES: &[&str] = &[
    "LPUSH K W",
    "LPUSH K W W W",
    "RPUSH K W",
    "RPUSH K W W",
    "RPUSHX K W",
    "LINSERT K BEFORE W W",
    "LMOVE K K LEFT RIGHT",
    "RPOPLPUSH K K",
    "LPOP K",
    "RPOP K N",
    "LMPOP 2 K K LEFT COUNT N",
    "LREM K 0 W",
    "LTRIM K 1 -1",
    "ZADD K N W",
    "ZADD K N W N W",
    "ZINCRBY K N W",
    "ZPOPMIN K",
    "ZUNIONSTORE K 2 K K",
    "ZRANGESTORE K K 0 -1",
    "ZREM K W",
    "GEOADD K 1 2 W",
    "XADD K * f W",
    "XADD K * f W",
    "XADD K * f W",
    "XADD K NOMKSTREAM * f W",
    "XADD K MAXLEN 2 * f W",
    "XADD K 0-N f W",
    "XGROUP CREATE K g $ MKSTREAM",
    "XGROUP CREATE K g $ MKSTREAM",
    "XGROUP CREATE K g 0",
    "XGROUP CREATE K h $ MKSTREAM",
    "XGROUP DESTROY K g",
    "XGROUP SETID K g 0",
    "XGROUP DELCONSUMER K g u",
    "XACK K g I",
    "XDEL K I",
    "XTRIM K MAXLEN 0",
    "XSETID K 99999-N",
    "SORT K ALPHA STORE K",
    "DEL K",
    "DEL K K",
    "UNLINK K",
    "RENAME K K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K REPLACE",
    "MOVE K 1",
    "SET K W",
    "SADD K W",
    "HSET K f W",
    "GETDEL K",
    "EXPIRE K 1000",
    "PERSIST K",
    "EXPIRE K -1",
    "SWAPDB 0 1",
    "SELECT 1",
    "SELECT 0",
    "FLUSHDB",
    "FLUSHALL",
    "CLIENT UNBLOCK C",
    "CLIENT UNBLOCK C TIMEOUT",
    "CLIENT UNBLOCK C ERROR",
    "EXISTS K",
    "TYPE K",
    "LRANGE K 0 -1",
    "ZRANGE K 0 -1",
    "XLEN K",
    "XINFO GROUPS K",
    "WATCH K",
    "UNWATCH",
    "PING",
];

/// The acts of a sequence, from its seed.
pub fn sequence(seed: u64, length: usize) -> Vec<Act> {
    let mut maker = Maker {
        rng: StdRng::seed_from_u64(seed),
        entries: 0,
    };
    (0..length).map(|_| maker.act()).collect()
}

struct Maker {
    rng: StdRng,
    entries: u64,
}

impl Maker {
    fn act(&mut self) -> Act {
        let conn = self.rng.random_range(0..CLIENTS);
        let last = conn == CLIENTS - 1;
        match self.rng.random_range(0..100) {
            0..4 => Act::Expire {
                conn: CLIENTS - 1,
                args: self.command("PEXPIRE K 1", true),
            },
            4..9 if !last => Act::Timed {
                conn,
                args: self.timed(),
            },
            9..12 if !last => Act::Close { conn },
            12..22 => self.transaction(conn),
            22..30 => self.pipeline(conn, last),
            30..75 if !last => self.send(conn, WAITS),
            _ => self.send(conn, WRITES),
        }
    }

    fn send(&mut self, conn: usize, from: &[&str]) -> Act {
        let template = from.choose(&mut self.rng).expect("there are some");
        Act::Send {
            conn,
            commands: vec![self.command(template, false)],
            while_waiting: self.rng.random_bool(0.1),
        }
    }

    /// All in one write: what waits first holds up what follows.
    fn pipeline(&mut self, conn: usize, last: bool) -> Act {
        let mut commands = Vec::new();
        for _ in 0..self.rng.random_range(2..5) {
            let waits = !last && self.rng.random_bool(0.4);
            let from = if waits { WAITS } else { WRITES };
            let template = from.choose(&mut self.rng).expect("there are some");
            commands.push(self.command(template, false));
        }
        Act::Send {
            conn,
            commands,
            while_waiting: false,
        }
    }

    fn transaction(&mut self, conn: usize) -> Act {
        let word = |w: &str| vec![w.as_bytes().to_vec()];
        let mut commands = vec![word("MULTI")];
        for _ in 0..self.rng.random_range(1..5) {
            let from = if self.rng.random_bool(0.2) {
                WAITS
            } else {
                WRITES
            };
            let template = from.choose(&mut self.rng).expect("there are some");
            if !template.starts_with("WATCH") {
                commands.push(self.command(template, false));
            }
        }
        commands.push(word(if self.rng.random_bool(0.95) {
            "EXEC"
        } else {
            "DISCARD"
        }));
        Act::Send {
            conn,
            commands,
            while_waiting: false,
        }
    }

    fn timed(&mut self) -> Args {
        let template = WAITS.choose(&mut self.rng).expect("there are some");
        self.command(template, true)
    }

    fn command(&mut self, template: &str, short: bool) -> Args {
        let words = template.split(' ');
        words.map(|word| self.word(word, short)).collect()
    }

    fn word(&mut self, word: &str, short: bool) -> Vec<u8> {
        let rng = &mut self.rng;
        match word {
            // One key is asked for more than the others, so that clients meet there.
            "K" if rng.random_bool(0.4) => b"a".to_vec(),
            "K" => KEYS.choose(rng).expect("four").as_bytes().to_vec(),
            "W" => ["x", "y", "z", ""]
                .choose(rng)
                .expect("four")
                .as_bytes()
                .to_vec(),
            "N" => rng.random_range(1..4).to_string().into_bytes(),
            "I" => format!("{}-0", rng.random_range(0..=self.entries)).into_bytes(),
            "T" if short => ["0.01", "0.001", ".004"]
                .choose(rng)
                .expect("three")
                .as_bytes()
                .to_vec(),
            "T" if rng.random_bool(0.03) => ["-1", "x", "inf", "1e20"]
                .choose(rng)
                .expect("four")
                .as_bytes()
                .to_vec(),
            "T" => ["0", "1000", "500.5"]
                .choose(rng)
                .expect("three")
                .as_bytes()
                .to_vec(),
            "M" if short => b"5".to_vec(),
            "M" if rng.random_bool(0.03) => ["-1", "x", "1.5"]
                .choose(rng)
                .expect("three")
                .as_bytes()
                .to_vec(),
            "M" => ["0", "1000000"]
                .choose(rng)
                .expect("two")
                .as_bytes()
                .to_vec(),
            "C" => {
                let conn = rng.random_range(0..CLIENTS - 1);
                [ID, conn.to_string().as_bytes()].concat()
            }
            // Entries have the same identifiers on both servers.
            "*" => {
                self.entries += 1;
                format!("{}-0", self.entries).into_bytes()
            }
            other => other.as_bytes().to_vec(),
        }
    }
}

/// A server and the connections of a sequence.
struct Side {
    clients: Vec<Conn>,
    ids: Vec<i64>,
    admin: Conn,
}

/// What came on each connection.
type Replies = Vec<Vec<Reply>>;

impl Side {
    fn open(server: &mut Server) -> Result<Self, String> {
        server.reset([false; crate::CONNECTIONS], &[], false)?;
        let admin = server.admin().ok_or("no connection")?;
        let mut side = Self {
            clients: Vec::new(),
            ids: Vec::new(),
            admin,
        };
        for conn in 0..CLIENTS {
            let (client, id) = connect(server, conn)?;
            side.clients.push(client);
            side.ids.push(id);
        }
        Ok(side)
    }

    fn begin(&mut self, server: &Server, act: &Act) -> Result<(), String> {
        match act {
            Act::Send { conn, commands, .. } => {
                let commands: Vec<Args> = commands.iter().map(|c| self.resolve(c)).collect();
                self.clients[*conn].send(&commands.iter().collect::<Vec<_>>());
            }
            Act::Timed { conn, args } => self.clients[*conn].send(&[args]),
            Act::Expire { conn, args } => self.clients[*conn].send(&[args]),
            Act::Close { conn } => {
                let (client, id) = connect(server, *conn)?;
                self.clients[*conn] = client;
                self.ids[*conn] = id;
            }
        }
        Ok(())
    }

    fn resolve(&self, args: &Args) -> Args {
        let id = |arg: &Vec<u8>| {
            let conn = arg.strip_prefix(ID)?;
            let conn: usize = std::str::from_utf8(conn).ok()?.parse().ok()?;
            Some(self.ids.get(conn)?.to_string().into_bytes())
        };
        let resolved = args
            .iter()
            .map(|arg| id(arg).unwrap_or_else(|| arg.clone()));
        resolved.collect()
    }

    fn waiting(&mut self) -> Option<String> {
        let Ok(Reply::Bulk(text)) = self.admin.ask(&["INFO", "clients"]) else {
            return None;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        lines.find_map(|l| Some(l.strip_prefix("blocked_clients:")?.to_owned()))
    }

    /// What the real server said: all that it will say, as it was sent before the PING's reply.
    fn hear_all(&mut self, act: &Act, pending: &[usize]) -> Result<(Replies, String), String> {
        let mut heard = vec![Vec::new(); CLIENTS];
        if let Act::Timed { conn, .. } = act {
            let reply = self.clients[*conn].read(PATIENCE);
            heard[*conn].push(reply.map_err(|e| format!("the oracle does not answer: {e:?}"))?);
        }
        for _ in 0..2 {
            self.admin
                .ask(&["PING"])
                .map_err(|e| format!("the oracle: {e:?}"))?;
        }
        for (conn, client) in self.clients.iter_mut().enumerate() {
            while heard[conn].len() < pending[conn] {
                match client.read_now() {
                    Ok(reply) => heard[conn].push(reply),
                    Err(Ended::Late) => break,
                    Err(ended) => return Err(format!("the oracle: {ended:?}")),
                }
            }
        }
        let waiting = self.waiting().ok_or("the oracle has no INFO")?;
        Ok((heard, waiting))
    }

    /// What ours says: as much as the other did; and as many clients wait afterwards.
    fn hear(&mut self, expected: &Replies, waiting: &str) -> (Replies, Option<String>) {
        let mut heard = vec![Vec::new(); CLIENTS];
        for (conn, client) in self.clients.iter_mut().enumerate() {
            for _ in 0..expected[conn].len() {
                match client.read(PATIENCE) {
                    Ok(reply) => heard[conn].push(reply),
                    Err(_) => {
                        heard[conn].push(Reply::Missing("no reply"));
                        return (heard, None);
                    }
                }
            }
        }
        let begun = Instant::now();
        let mut mine = self.waiting();
        while mine.as_deref() != Some(waiting) && begun.elapsed() < PATIENCE / 5 {
            mine = self.waiting();
        }
        (heard, mine)
    }

    /// What was said beyond what was expected, now that nobody waits.
    fn rest(&mut self) -> Replies {
        let mark: Args = vec![b"ECHO".to_vec(), b"the end".to_vec()];
        let mut rest = Vec::new();
        for client in &mut self.clients {
            client.send(&[&mark]);
            let mut replies = Vec::new();
            loop {
                match client.read(PATIENCE) {
                    Ok(Reply::Bulk(text)) if text == mark[1] => break,
                    Ok(reply) => replies.push(reply),
                    Err(_) => {
                        replies.push(Reply::Missing("no reply"));
                        break;
                    }
                }
            }
            rest.push(replies);
        }
        rest
    }
}

/// A connection with a protocol of its own, and its identifier.
fn connect(server: &Server, conn: usize) -> Result<(Conn, i64), String> {
    let mut client = server.admin().ok_or("no connection")?;
    if conn % 2 == 1 {
        client.ask(&["HELLO", "3"]).map_err(|e| format!("{e:?}"))?;
    }
    match client.ask(&["CLIENT", "ID"]) {
        Ok(Reply::Int(id)) => Ok((client, id)),
        other => Err(format!("CLIENT ID: {other:?}")),
    }
}

/// Two servers that play the same.
struct Game {
    theirs: Side,
    mine: Side,
    /// Replies that each connection still has to get.
    pending: [usize; CLIENTS],
}

impl Game {
    /// Plays one act; the first difference. Acts of clients that wait are left out, but for those
    /// meant for them.
    fn play(
        &mut self,
        oracle: &Server,
        ours: &Server,
        act: &Act,
    ) -> Result<Option<String>, String> {
        let conn = act.conn();
        let anyway = match act {
            Act::Send { while_waiting, .. } => *while_waiting,
            Act::Close { .. } => true,
            _ => false,
        };
        if self.pending[conn] > 0 && !anyway || self.races(act) {
            return Ok(None);
        }
        match act {
            Act::Close { .. } => self.pending[conn] = 0,
            _ => self.pending[conn] += act.commands().len(),
        }
        self.theirs.begin(oracle, act)?;
        let (heard, waiting) = self.theirs.hear_all(act, &self.pending)?;
        if self.mine.begin(ours, act).is_err() {
            return Ok(Some("ours takes no connections".into()));
        }
        let (answered, still) = self.mine.hear(&heard, &waiting);
        for (pending, heard) in self.pending.iter_mut().zip(&heard) {
            *pending -= heard.len();
        }
        if let Some(text) = difference(&heard, &answered) {
            return Ok(Some(text));
        }
        if let Act::Expire { .. } = act {
            // It is over on both before anybody looks.
            std::thread::sleep(EXPIRY);
        }
        Ok((still.as_ref() != Some(&waiting))
            .then(|| format!("  clients that wait: oracle {waiting}, ours {still:?}")))
    }

    /// While something was sent behind a client's wait, it runs when that ends: beside the rest of
    /// what ended it, and what others sent behind theirs. A server with several threads does that
    /// in no order, so then only one command (or transaction) is sent at a time.
    fn races(&self, act: &Act) -> bool {
        let others = self.pending.iter().enumerate();
        let behind = others.filter(|(conn, n)| **n > 1 && *conn != act.conn());
        let commands = act.commands();
        let whole = commands.first().is_some_and(|first| first[0] == b"MULTI");
        behind.count() > 0
            && (self.pending[act.conn()] > 0 || (commands.len() > 1 && !whole))
            && !matches!(act, Act::Close { .. })
    }

    /// Ends all waits, one after the other, and those that follow them.
    fn finish(&mut self, oracle: &Server, ours: &Server) -> Result<Option<String>, String> {
        while let Some(conn) = self.pending.iter().position(|n| *n > 0) {
            let id = [ID, conn.to_string().as_bytes()].concat();
            let act = Act::Send {
                conn: CLIENTS - 1,
                commands: vec![vec![b"CLIENT".to_vec(), b"UNBLOCK".to_vec(), id]],
                while_waiting: false,
            };
            if let Some(text) = self.play(oracle, ours, &act)? {
                return Ok(Some(format!("  ending the wait of {conn}:\n{text}")));
            }
        }
        let (left, right) = (self.theirs.rest(), self.mine.rest());
        let mut text = difference(&left, &right);
        if text.is_none() {
            let state = |conn: &mut Conn| {
                compare::state(conn).map_err(|ended| format!("the state cannot be read: {ended:?}"))
            };
            let (a, b) = (state(&mut self.theirs.admin)?, state(&mut self.mine.admin)?);
            text = compare::state_difference(&a, &b);
        }
        if text.is_none() {
            let a = groups(&mut self.theirs.admin);
            text = difference(&[a], &[groups(&mut self.mine.admin)]);
        }
        Ok(text)
    }
}

/// Plays a sequence on both servers up to the first difference: after which act, and what.
pub fn play(
    oracle: &mut Server,
    ours: &mut Server,
    acts: &[Act],
) -> Result<Option<(usize, String)>, String> {
    let mut game = Game {
        theirs: Side::open(oracle)?,
        mine: Side::open(ours)?,
        pending: [0; CLIENTS],
    };
    for (at, act) in acts.iter().enumerate() {
        if let Some(text) = game.play(oracle, ours, act)? {
            return Ok(Some((at, text)));
        }
    }
    let text = game.finish(oracle, ours)?;
    Ok(text.map(|text| (acts.len(), text)))
}

/// The groups of all streams, with what is pending.
fn groups(conn: &mut Conn) -> Vec<Reply> {
    let mut all = Vec::new();
    for db in ["0", "1"] {
        let _ = conn.ask(&["SELECT", db]);
        for key in KEYS {
            all.extend(conn.ask(&["XINFO", "GROUPS", key]).ok());
            for group in ["g", "h"] {
                all.extend(conn.ask(&["XPENDING", key, group]).ok());
            }
        }
    }
    all
}

fn difference(oracle: &[Vec<Reply>], ours: &[Vec<Reply>]) -> Option<String> {
    for (conn, (a, b)) in oracle.iter().zip(ours).enumerate() {
        if a != b {
            let list = |replies: &[Reply]| {
                let texts: Vec<String> = replies.iter().map(show).collect();
                texts.join(" | ")
            };
            let (a, b) = (list(a), list(b));
            return Some(format!("  connection {conn}\n  oracle: {a}\n  ours:   {b}"));
        }
    }
    None
}

impl Act {
    fn conn(&self) -> usize {
        match self {
            Act::Send { conn, .. }
            | Act::Timed { conn, .. }
            | Act::Expire { conn, .. }
            | Act::Close { conn } => *conn,
        }
    }

    fn commands(&self) -> &[Args] {
        match self {
            Act::Send { commands, .. } => commands,
            Act::Timed { args, .. } | Act::Expire { args, .. } => std::slice::from_ref(args),
            Act::Close { .. } => &[],
        }
    }
}

/// The acts for people.
pub fn print(acts: &[Act]) -> String {
    let mut text = String::from("  # connections 1 and 3: HELLO 3\n");
    for act in acts {
        let (conn, commands) = (act.conn(), act.commands());
        let lines: Vec<String> = commands.iter().map(line).collect();
        let note = match act {
            Act::Close { .. } => "(closes, another one comes)",
            Act::Timed { .. } => "  # and wait for it",
            Act::Expire { .. } => "  # and wait 4 ms",
            Act::Send {
                while_waiting: true,
                ..
            } => "  # even while it waits",
            Act::Send { .. } => "",
        };
        text.push_str(&format!("  {conn}> {}{note}\n", lines.join(" ; ")));
    }
    text
}
