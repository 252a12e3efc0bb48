//! A server process in a directory of its own, and connections to it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits a condition; `what` is told when it does not come true.
pub fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !met() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub struct Server(Child);

impl Server {
    pub fn start(dir: &Path, options: &[&str]) -> Self {
        Self::start_preloaded(dir, options, None)
    }

    /// As [`Server::start`], with a library that stands before the system's.
    pub fn start_preloaded(dir: &Path, options: &[&str], library: Option<&Path>) -> Self {
        let mut log = std::fs::File::options();
        let log = log.append(true).create(true).open(dir.join("log"));
        let log = log.expect("a log");
        // A configuration file comes first.
        let files = options
            .iter()
            .take_while(|option| !option.starts_with("--"));
        let (file, options) = options.split_at(files.count());
        // Whoever limits the size of files wants an error, not a signal.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_redis-server"))
            .args(file)
            .args(["--port", "0", "--unixsocket", "s"])
            .args(options)
            .envs(library.map(|path| ("LD_PRELOAD", path)))
            .current_dir(dir)
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut server = Self(child);
        let begin = Instant::now();
        while !answers(dir) {
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            let ended = server.0.try_wait().expect("its state");
            assert!(
                ended.is_none() && begin.elapsed() < PATIENCE,
                "no answer ({ended:?}); log:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ran");
    }

    /// Has it end in order.
    pub fn terminate(mut self) {
        rustix::process::kill_process(self.pid(), Signal::TERM).expect("it runs");
        assert!(self.wait().success(), "it ends in order");
    }

    /// Tells it to end in order, or kills it.
    pub fn signal(&self, kill: bool) {
        let signal = if kill { Signal::KILL } else { Signal::TERM };
        rustix::process::kill_process(self.pid(), signal).expect("it runs");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the server's end", || {
            status = self.0.try_wait().expect("its state");
            status.is_some()
        });
        status.expect("awaited")
    }

    /// True when it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }

    /// Limits how many bytes its files may have from now on.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        rustix::process::prlimit(Some(self.pid()), Resource::Fsize, limit).expect("a limit");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already where a test has come to its end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(dir: &Path) -> bool {
    let Ok(mut client) = Client::connect(dir) else {
        return false;
    };
    matches!(client.try_ask("PING"), Ok(Ok(reply)) if reply == "PONG")
}

/// A reply, or the text of an error.
pub type Reply = Result<String, String>;

pub struct Client(BufReader<UnixStream>);

impl Client {
    pub fn connect(dir: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(dir.join("s"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn send(&mut self, lines: &str) -> io::Result<()> {
        self.0.get_mut().write_all(lines.as_bytes())
    }

    /// Sends `lines` so many times, or as often as there is room for them at once; how many bytes that
    /// were.
    pub fn send_what_fits(&mut self, lines: &str, times: usize) -> usize {
        let stream = self.0.get_mut();
        stream.set_nonblocking(true).expect("a mode");
        let bytes = lines.repeat(times).into_bytes();
        let mut rest = &bytes[..];
        while let Ok(sent) = stream.write(rest)
            && sent > 0
        {
            rest = &rest[sent..];
        }
        stream.set_nonblocking(false).expect("a mode");
        bytes.len() - rest.len()
    }

    /// True when a reply is there, or a part of one.
    pub fn has_reply(&mut self) -> bool {
        self.0.get_ref().set_nonblocking(true).expect("a mode");
        let has = matches!(self.0.fill_buf(), Ok(bytes) if !bytes.is_empty());
        self.0.get_ref().set_nonblocking(false).expect("a mode");
        has
    }

    pub fn try_ask(&mut self, line: &str) -> io::Result<Reply> {
        self.send(&format!("{line}\r\n"))?;
        self.read()
    }

    /// As [`Client::try_ask`], where nothing can go wrong.
    pub fn ask(&mut self, line: &str) -> String {
        let reply = self.try_ask(line).expect("a reply");
        reply.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The value of a field of INFO.
    pub fn info(&mut self, field: &str) -> String {
        let text = self.ask("INFO everything");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("the field").to_owned()
    }

    /// True when no rewrite of the append-only file is under way or to come.
    pub fn has_base(&mut self) -> bool {
        // Both as of one moment.
        let text = self.ask("INFO persistence");
        ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"]
            .iter()
            .all(|line| text.lines().any(|l| l == *line))
    }

    /// A reply; of an array the elements, with spaces between.
    pub fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let count = || line[1..].parse::<i64>().expect("a length");
        Ok(Ok(match line.as_bytes()[0] {
            b'$' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.0.read_exact(&mut bulk)?;
                String::from_utf8_lossy(&bulk[..bulk.len() - 2]).into_owned()
            }
            b'*' if count() >= 0 => {
                let mut parts = Vec::new();
                for _ in 0..count() {
                    parts.push(self.read()?.expect("no errors within arrays"));
                }
                parts.join(" ")
            }
            b'$' | b'*' => "nil".to_owned(),
            b'-' => return Ok(Err(line[1..].to_owned())),
            _ => line[1..].to_owned(),
        }))
    }
}
