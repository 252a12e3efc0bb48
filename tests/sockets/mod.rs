//! The real binary on a Unix socket, and clients of it, for tests.
//!
//! `SERVER_UNDER_TEST` names another binary: what a test expects can be shown to a real Redis.

#![allow(dead_code, reason = "no test needs all of it")]

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
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
    /// What it was started with.
    program: OsString,
    args: Vec<OsString>,
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
        let mut args: Vec<OsString> = first.iter().map(Into::into).collect();
        args.extend(["--port", "0", "--save", "", "--unixsocket"].map(Into::into));
        args.push(dir.path().join("s").into());
        args.extend(options.iter().map(OsString::from));
        let mut server = Self {
            child: launch(program, &args, dir.path()),
            dir,
            program: program.to_owned(),
            args,
        };
        server.begins().then_some(server)
    }

    /// Awaits that it serves; false if it ends instead.
    fn begins(&mut self) -> bool {
        let mut ended = false;
        // It listens before it has loaded its data, and may end instead.
        eventually(|| {
            ended = self.has_ended();
            ended || self.serves()
        });
        !ended
    }

    /// Kills it, and starts it again on what it left, with options that count more than its own.
    pub fn restart(&mut self, options: &[&str]) {
        self.launch_again(options);
        assert!(self.begins(), "it starts again");
    }

    /// As [`Server::restart`], without waiting until it serves.
    pub fn launch_again(&mut self, options: &[&str]) {
        self.kill();
        let mut args = self.args.clone();
        args.extend(options.iter().map(OsString::from));
        self.child = launch(&self.program, &args, self.dir.path());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// True when a new client is served, if only by being asked for a password or told that the
    /// primary is away.
    fn serves(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.dir.path().join("s")) else {
            return false;
        };
        let mut reply = String::new();
        let asked = stream.write_all(b"PING\r\n");
        let read = asked.and_then(|()| BufReader::new(stream).read_line(&mut reply));
        read.is_ok()
            && (reply == "+PONG\r\n"
                || ["-NOAUTH", "-MASTERDOWN"]
                    .iter()
                    .any(|e| reply.starts_with(e)))
    }

    /// True once the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.path("s"), PATIENCE).expect("a connection")
    }
}

impl Drop for Server {
    /// Ends it; what it printed is shown with a test that fails.
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let last = last_lines(&self.path(PRINTED));
            eprintln!("{:?} printed at last:\n{last}", self.args);
        }
    }
}

/// The end of what a server printed or logged, to be shown with a test that fails.
pub fn last_lines(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The file in a server's directory that has what it prints.
const PRINTED: &str = "printed";

fn launch(program: &OsStr, args: &[OsString], dir: &Path) -> Child {
    let printed = std::fs::File::options();
    let printed = printed
        .clone()
        .create(true)
        .append(true)
        .open(dir.join(PRINTED));
    Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdout(printed.expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the program is there")
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
#[track_caller]
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
    /// A connection to a socket in the file system, on which everything takes up to `limit`.
    pub fn connect(path: &Path, limit: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a line; several when it holds line ends.
    pub fn send(&mut self, line: &str) {
        self.try_send(line).expect("room");
    }

    fn try_send(&mut self, line: &str) -> io::Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(line.as_bytes())?;
        stream.write_all(b"\r\n")
    }

    /// Sends a request in its binary form.
    pub fn send_args<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let stream = self.0.get_mut();
        stream.write_all(&request(args)).expect("room");
    }

    /// A line or bulk string; an array as its elements, joined by spaces.
    pub fn read(&mut self) -> String {
        self.try_read().expect("a reply")
    }

    /// As [`Client::read`], of a server that may be gone.
    pub fn try_read(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let count = || line[1..].parse::<i64>().expect("a length");
        match line.as_bytes()[0] {
            b'$' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.0.read_exact(&mut bulk)?;
                Ok(String::from_utf8_lossy(&bulk[..bulk.len() - 2]).into_owned())
            }
            b'*' | b'>' if count() >= 0 => {
                let parts: io::Result<Vec<_>> = (0..count()).map(|_| self.try_read()).collect();
                Ok(parts?.join(" "))
            }
            _ => Ok(line.to_owned()),
        }
    }

    /// Sends a line and reads its reply, of a server that may be gone.
    pub fn try_ask(&mut self, line: &str) -> io::Result<String> {
        self.try_send(line)?;
        self.try_read()
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
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Enough clients that both workers of a server have some.
pub fn on_both_workers(server: &Server) -> Vec<Client> {
    (0..80).map(|_| server.client()).collect()
}
