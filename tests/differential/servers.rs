//! The two servers and the connections to them: start, play a step, read what came of it.
//!
//! Both listen on a unix socket in a directory of their own, so no port can be taken by somebody
//! else. A step is over when every connection that can answer has answered a marked PING: what
//! arrived before the mark belongs to the step. A connection inside MULTI cannot be asked (the
//! PING would be queued), so there exactly one reply per command is read.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::log::{Log, Propagated};
use crate::resp::{Args, Conn, Ended, Reply};

/// How long a reply may take before the server counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer a push may take than the reply that announced it: a server with several
/// threads may answer the publisher before it has written to the subscriber.
const PUSH_GRACE: Duration = Duration::from_millis(200);
/// Longer than any time to live that a step gives to a key that shall expire.
const EXPIRY: Duration = Duration::from_millis(4);
/// Connections that a sequence plays on.
pub const CONNECTIONS: usize = 3;

/// One thing a sequence does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commands sent in one write over connection `conn`.
    Commands {
        /// Index of the connection.
        conn: usize,
        /// The requests, usually one.
        commands: Vec<Args>,
    },
    /// A full SCAN with these options; the keys are compared as one sorted list.
    Scan {
        /// Index of the connection.
        conn: usize,
        /// What follows the cursor.
        options: Args,
    },
    /// A command that makes a key expire, and the few milliseconds it takes, never apart.
    Expire {
        /// Index of the connection.
        conn: usize,
        /// The request.
        args: Args,
    },
}

impl Step {
    /// The connection the step plays on.
    pub fn conn(&self) -> usize {
        match self {
            Step::Commands { conn, .. } | Step::Scan { conn, .. } | Step::Expire { conn, .. } => {
                *conn
            }
        }
    }

    /// The requests of the step, where each has replies of its own.
    pub fn commands(&self) -> &[Args] {
        match self {
            Step::Commands { commands, .. } => commands,
            Step::Expire { args, .. } => std::slice::from_ref(args),
            Step::Scan { .. } => &[],
        }
    }
}

/// What one step made a server say.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Replies on the connection of the step.
    pub replies: Vec<Reply>,
    /// Published messages and invalidations, by connection.
    pub pushes: Vec<Vec<Reply>>,
}

/// A connection with what the harness must know about its state.
struct Link {
    conn: Conn,
    resp3: bool,
    in_multi: bool,
    subscriber: bool,
}

/// One server process and the connections of the present sequence.
pub struct Server {
    /// Name for reports.
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
    child: Option<Child>,
    links: Vec<Link>,
    resp3: [bool; CONNECTIONS],
    marks: u64,
    log: Log,
}

impl Server {
    /// Starts `program` with `arguments` beside those of the harness, and waits until it answers.
    pub fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
    ) -> Result<Server, String> {
        let mut server = Server {
            name,
            program: program.to_path_buf(),
            arguments: arguments.to_vec(),
            dir: tempfile::tempdir().map_err(|e| e.to_string())?,
            child: None,
            links: Vec::new(),
            resp3: [false; CONNECTIONS],
            marks: 0,
            log: Log::default(),
        };
        server.launch()?;
        Ok(server)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn launch(&mut self) -> Result<(), String> {
        self.stop();
        let dir = self.dir.path();
        let _ = std::fs::remove_file(dir.join("s"));
        let _ = std::fs::remove_dir_all(dir.join("appendonlydir"));
        self.log = Log::of(dir);
        let child = Command::new(&self.program)
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--auto-aof-rewrite-percentage", "0"])
            .args(["--enable-debug-command", "yes", "--loglevel", "warning"])
            .arg("--dir")
            .arg(dir)
            .arg("--logfile")
            .arg(dir.join("log"))
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.program.display()))?;
        self.child = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(mut conn) = Conn::open(&self.socket())
                && conn.ask(&["PING"]) == Ok(Reply::Simple(b"PONG".to_vec()))
            {
                // Keys then go only when somebody looks at them, which both servers do alike.
                let _ = conn.ask(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!(
            "{} does not answer; log: {}",
            self.program.display(),
            self.log_tail()
        ))
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let from = bytes.len().saturating_sub(2000);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    fn stop(&mut self) {
        self.links.clear();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// True while the process runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.as_mut().map(|c| c.try_wait()), Some(Ok(None)))
    }

    /// Brings the server back to the state every sequence starts from, restarting it if it died
    /// or hangs, or with `anew`, which begins a new log. `settings` are parameters with their start
    /// values.
    pub fn reset(
        &mut self,
        resp3: [bool; CONNECTIONS],
        settings: &[(&str, &str)],
        anew: bool,
    ) -> Result<(), String> {
        self.links.clear();
        self.resp3 = resp3;
        let healthy = !anew && self.alive() && self.clean(settings).is_ok();
        if !healthy {
            self.launch()?;
            self.clean(settings)
                .map_err(|e| format!("{} cannot be reset: {e:?}", self.name))?;
        }
        for resp3 in resp3 {
            let link = self.connect(resp3)?;
            self.links.push(link);
        }
        Ok(())
    }

    fn clean(&mut self, settings: &[(&str, &str)]) -> Result<(), Ended> {
        let mut admin = Conn::open(&self.socket()).map_err(|_| Ended::Closed)?;
        admin.ask(&["FLUSHALL"])?;
        for (name, value) in settings {
            admin.ask(&["CONFIG", "SET", name, value])?;
        }
        admin.ask(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"])?;
        Ok(())
    }

    fn connect(&self, resp3: bool) -> Result<Link, String> {
        let mut conn = Conn::open(&self.socket())
            .map_err(|e| format!("{}: cannot connect: {e}", self.name))?;
        if resp3 {
            conn.ask(&["HELLO", "3"])
                .map_err(|e| format!("{}: HELLO: {e:?}", self.name))?;
        }
        Ok(Link {
            conn,
            resp3,
            in_multi: false,
            subscriber: false,
        })
    }

    /// A fresh RESP2 connection for the harness' own questions.
    pub fn admin(&self) -> Option<Conn> {
        Conn::open(&self.socket()).ok()
    }

    /// What was propagated since this was last asked.
    pub fn propagated(&mut self) -> Result<Vec<Propagated>, String> {
        let mut admin = self.admin().ok_or("no connection")?;
        self.log.read(&mut admin)
    }

    /// Has the server forget its keys and run its log again.
    pub fn replay(&self) -> Result<(), String> {
        let mut admin = self.admin().ok_or("no connection")?;
        match admin.ask(&["DEBUG", "LOADAOF"]) {
            Ok(Reply::Simple(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Plays one step. `expected` holds the number of pushes per connection that the other
    /// server sent: that many are waited for a little longer.
    pub fn play(&mut self, step: &Step, expected: Option<&Outcome>) -> Outcome {
        let mut outcome = Outcome {
            pushes: vec![Vec::new(); CONNECTIONS],
            ..Outcome::default()
        };
        match step {
            Step::Expire { conn, args } => {
                outcome.replies = self.run(*conn, std::slice::from_ref(args));
                // Both keys must be gone before the next step: the second server to play rests.
                if expected.is_some() {
                    std::thread::sleep(EXPIRY);
                }
            }
            Step::Commands { conn, commands } => {
                outcome.replies = self.run(*conn, commands);
            }
            Step::Scan { conn, options } => outcome.replies = self.scan(*conn, options),
        }
        self.collect_pushes(&mut outcome, expected);
        outcome
    }

    fn run(&mut self, index: usize, commands: &[Args]) -> Vec<Reply> {
        self.marks += 1;
        let mark = format!("mark:{}", self.marks).into_bytes();
        let link = &mut self.links[index];
        let (mut opens, mut closes) = (false, false);
        for args in commands {
            let name = args.first().map(|n| n.to_ascii_uppercase());
            match (name.as_deref(), args.len()) {
                // Whether it was accepted is known from the reply.
                (Some(b"MULTI"), 1) if commands.len() == 1 => opens = true,
                (Some(b"EXEC" | b"DISCARD" | b"RESET"), 1) => link.in_multi = false,
                (Some(b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE"), _) => link.subscriber = true,
                (Some(b"QUIT"), _) => closes = true,
                _ => {}
            }
        }
        let mut requests: Vec<&Args> = commands.iter().collect();
        let barrier: Args = vec![b"PING".to_vec(), mark.clone()];
        let counted = link.in_multi || opens;
        if !counted && !closes {
            requests.push(&barrier);
        }
        link.conn.send(&requests);
        let mut replies = Vec::new();
        let end = if counted {
            commands.iter().try_for_each(|_| {
                read_reply(&mut link.conn).map(|reply| {
                    link.in_multi |= opens && reply == Reply::Simple(b"OK".to_vec());
                    replies.push(reply);
                })
            })
        } else {
            read_to_mark(&mut link.conn, &mark, &mut replies)
        };
        if let Err(ended) = end {
            replies.push(Reply::Missing(match ended {
                Ended::Closed => "connection closed",
                Ended::Late => "no reply in time",
                Ended::Garbage => "not RESP",
            }));
            // Go on with a new connection of the same kind, as a client would.
            if let Ok(link) = self.connect(self.resp3[index]) {
                self.links[index] = link;
            }
        }
        replies
    }

    fn scan(&mut self, index: usize, options: &Args) -> Vec<Reply> {
        let mut cursor = b"0".to_vec();
        let mut found = Vec::new();
        for _ in 0..10_000 {
            let mut args: Args = vec![b"SCAN".to_vec(), cursor];
            args.extend(options.iter().cloned());
            let mut replies = self.run(index, &[args]);
            match replies.pop() {
                Some(Reply::Array(mut parts)) if replies.is_empty() && parts.len() == 2 => {
                    match (parts.pop(), parts.pop()) {
                        (Some(Reply::Array(keys)), Some(Reply::Bulk(next))) => {
                            found.extend(keys);
                            cursor = next;
                        }
                        other => return vec![Reply::Missing("odd SCAN reply"), flat(other)],
                    }
                }
                other => return other.into_iter().collect(),
            }
            if cursor == b"0" {
                found.sort();
                found.dedup();
                return vec![Reply::Array(found)];
            }
        }
        vec![Reply::Missing("SCAN does not end")]
    }

    /// Asks every subscriber for a mark and gathers what was pushed before it.
    fn collect_pushes(&mut self, outcome: &mut Outcome, expected: Option<&Outcome>) {
        for (index, link) in self.links.iter_mut().enumerate() {
            let pushes = &mut outcome.pushes[index];
            if link.subscriber && !link.in_multi {
                self.marks += 1;
                let mark = format!("mark:{}", self.marks).into_bytes();
                let barrier: Args = vec![b"PING".to_vec(), mark.clone()];
                link.conn.send(&[&barrier]);
                let mut stray = Vec::new();
                if read_to_mark(&mut link.conn, &mark, &mut stray).is_err() {
                    pushes.push(Reply::Missing("subscriber lost"));
                }
                pushes.extend(stray);
            }
            pushes.append(&mut link.conn.pushes);
            let wanted = expected.map_or(0, |e| e.pushes[index].len());
            while pushes.len() < wanted {
                match link.conn.read_any(PUSH_GRACE) {
                    Ok(push) => pushes.push(push),
                    Err(_) => break,
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads replies until the answer to `PING mark`.
fn read_to_mark(conn: &mut Conn, mark: &[u8], replies: &mut Vec<Reply>) -> Result<(), Ended> {
    loop {
        let reply = read_reply(conn)?;
        let answered = match &reply {
            Reply::Bulk(text) => text == mark,
            Reply::Array(items) => matches!(items.as_slice(),
                [Reply::Bulk(pong), Reply::Bulk(text)] if pong == b"pong" && text == mark),
            _ => false,
        };
        if answered {
            return Ok(());
        }
        replies.push(reply);
    }
}

/// Reads one reply. RESP2 messages, which look like replies, are sorted out as pushes.
fn read_reply(conn: &mut Conn) -> Result<Reply, Ended> {
    const MESSAGES: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];
    loop {
        let reply = conn.read(PATIENCE)?;
        match &reply {
            Reply::Array(items) if matches!(items.first(), Some(Reply::Bulk(kind)) if MESSAGES.contains(&kind.as_slice())) =>
            {
                conn.pushes.push(reply);
            }
            _ => return Ok(reply),
        }
    }
}

fn flat(parts: (Option<Reply>, Option<Reply>)) -> Reply {
    Reply::Array(parts.0.into_iter().chain(parts.1).collect())
}

impl Link {
    /// True while only subscription commands are accepted.
    fn confined(&self) -> bool {
        self.subscriber && !self.resp3
    }
}

impl Server {
    /// True when connection `index` can answer any command at once: not in MULTI, not a RESP2
    /// subscriber.
    pub fn free(&self, index: usize) -> bool {
        let link = &self.links[index];
        !link.in_multi && !link.confined()
    }
}
