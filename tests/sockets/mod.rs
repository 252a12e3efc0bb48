//! The real binary on a Unix socket, and clients of it, for tests.
//!
//! `SERVER_UNDER_TEST` names another binary: what a test expects can be shown to a real Redis.

#![allow(dead_code, reason = "no test needs all of it")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program that tests start.
pub fn under_test() -> OsString {
    let program = std::env::var_os("SERVER_UNDER_TEST");
    program.unwrap_or_else(|| env!("CARGO_BIN_EXE_redis-server").into())
}

/// A server with a directory of its own.
pub struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts it with further arguments and awaits that it serves.
    pub fn start(options: &[&str]) -> Self {
        Self::start_with(&[], options)
    }

    /// As [`Server::start`], with arguments that come first: a configuration file.
    pub fn start_with(first: &[&str], options: &[&str]) -> Self {
        Self::try_start(&under_test(), first, options).expect("the server starts")
    }

    /// Starts `program` and awaits that it serves; nothing if it ends instead.
    pub fn try_start(program: &OsStr, first: &[&str], options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new(program)
            .args(first)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(dir.path().join("s"))
            .args(options)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is there");
        let mut server = Self { child, dir };
        let mut ended = false;
        // It listens before it has loaded its data, and may end instead.
        eventually(|| {
            ended = server.has_ended();
            ended || server.serves()
        });
        (!ended).then_some(server)
    }

    /// True when a new client is served, if only by being asked for a password.
    fn serves(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.dir.path().join("s")) else {
            return false;
        };
        let mut reply = String::new();
        let asked = stream.write_all(b"PING\r\n");
        let read = asked.and_then(|()| BufReader::new(stream).read_line(&mut reply));
        read.is_ok() && (reply == "+PONG\r\n" || reply.starts_with("-NOAUTH"))
    }

    /// True once the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        let stream = UnixStream::connect(self.dir.path().join("s")).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Client(BufReader::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as clients send it.
pub fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Awaits a condition that is to be met soon; false when it is not.
pub fn soon(mut condition: impl FnMut() -> bool) -> bool {
    const SOON: Duration = Duration::from_secs(2);
    let begin = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Awaits a condition.
pub fn eventually(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A connection.
pub struct Client(pub BufReader<UnixStream>);

impl Client {
    /// Sends a line; several when it holds line ends.
    pub fn send(&mut self, line: &str) {
        let stream = self.0.get_mut();
        stream.write_all(line.as_bytes()).expect("room");
        stream.write_all(b"\r\n").expect("room");
    }

    /// Sends a request in its binary form.
    pub fn send_args<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let stream = self.0.get_mut();
        stream.write_all(&request(args)).expect("room");
    }

    /// A line or bulk string; an array as its elements, joined by spaces.
    pub fn read(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        assert!(!line.is_empty(), "the connection was closed");
        let line = line.trim_end().to_owned();
        let count = || line[1..].parse::<i64>().expect("a length");
        match line.as_bytes()[0] {
            b'$' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.0.read_exact(&mut bulk).expect("a bulk string");
                String::from_utf8_lossy(&bulk[..bulk.len() - 2]).into_owned()
            }
            b'*' | b'>' if count() >= 0 => {
                let parts: Vec<_> = (0..count()).map(|_| self.read()).collect();
                parts.join(" ")
            }
            _ => line,
        }
    }

    /// Sends a line and reads its reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.read()
    }

    /// True once the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Enough clients that both workers of a server have some.
pub fn on_both_workers(server: &Server) -> Vec<Client> {
    (0..80).map(|_| server.client()).collect()
}
