//! TLS: streams whatever the pieces in which bytes come, and the server for clients that speak it, by OpenSSL's own
//! program and by our own streams.

mod sockets;

#[allow(dead_code, reason = "shared with the fuzzers")]
#[path = "../fuzz/wires.rs"]
mod wires;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use sockets::{Server, eventually};
use tessera::config::Settings;
use tessera::wire::{Context, Duplex, Stream};
use wires::Wires;

#[test]
fn bytes_come_as_they_went_whatever_the_pieces() {
    let mut wires = Wires::new();
    for carried in [1, 7, 5000, 1 << 20] {
        for read in [1, 100, 1 << 15] {
            for written in [1, 16_384, 16_385, 40_000] {
                wires.write(written);
                while wires.carry(carried) > 0 || wires.from.has_unsent() {
                    wires.from.flush().expect("a stream");
                    while wires.read(read) > 0 {}
                }
                wires.finish();
            }
        }
    }
}

#[test]
fn what_is_decrypted_is_served_without_the_socket() {
    let mut wires = Wires::new();
    for _ in 0..5 {
        wires.write(3000);
    }
    while wires.carry(1 << 20) > 0 {}
    assert_eq!(wires.read(10), 10);
    // The socket has nothing more.
    while wires.under_way() > 0 {
        assert!(wires.to.has_unread());
        assert!(wires.read(4096) > 0);
    }
    assert_eq!(wires.read(10), 0);
}

#[test]
fn a_slow_reader_is_not_written_for_without_end() {
    let mut wires = Wires::new();
    // Until neither the socket nor the stream takes more.
    let held = loop {
        let before = wires.under_way();
        wires.write(100_000);
        if wires.under_way() == before {
            break before;
        }
    };
    assert!(wires.from.has_unsent());
    assert!(held < 4 << 20, "{held} bytes are held");
    wires.finish();
}

/// Two streams over a pair of sockets.
fn streams() -> (Stream, Stream) {
    let (one, other) = wires::pair();
    wires::shaken(one.into(), other.into())
}

#[test]
fn the_end_is_an_end_with_a_goodbye_or_without() {
    let (mut one, mut other) = streams();
    let mut read = Vec::with_capacity(100);
    one.write(&[IoSlice::new(b"last")]).expect("room");
    // It says goodbye.
    drop(one);
    assert_eq!(other.read(&mut read).expect("bytes"), 4);
    assert!(other.has_unread());
    assert_eq!(other.read(&mut read).expect("the end"), 0);
    let (one, mut other) = streams();
    rustix::net::shutdown(one.fd(), rustix::net::Shutdown::Both).expect("a socket");
    assert_eq!(other.read(&mut read).expect("the end"), 0);
}

#[test]
fn what_is_no_record_is_an_error() {
    let (one, mut other) = streams();
    let no_record = b"PING\r\nPING\r\n";
    rustix::net::send(one.fd(), no_record, rustix::net::SendFlags::NOSIGNAL).expect("room");
    let mut read = Vec::with_capacity(10);
    let error = other.read(&mut read).expect_err("no record");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn two_threads_read_and_write_at_once() {
    const MUCH: usize = 3_000_000;
    let (one, other) = streams();
    let one = Duplex::new(one, sockets::PATIENCE).expect("files");
    let other = Duplex::new(other, sockets::PATIENCE).expect("files");
    let fill = |mut to: &Duplex| {
        to.write_all(&vec![7; MUCH]).expect("a reader");
        to.flush().expect("a reader");
    };
    let drain = |mut from: &Duplex| {
        let mut bytes = vec![0; MUCH];
        from.read_exact(&mut bytes).expect("a writer");
        assert!(bytes.iter().all(|byte| *byte == 7));
    };
    std::thread::scope(|scope| {
        for duplex in [&one, &other] {
            scope.spawn(move || fill(duplex));
            scope.spawn(move || drain(duplex));
        }
    });
    one.set_limit(Duration::from_millis(1));
    let error = (&one).read(&mut [0]).expect_err("nothing came");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Certificates by OpenSSL, in a directory.
struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Authorities `ca`, `foreign` and `alone`, and what they issue: `server` and `client`, and `old` of version 1,
    /// by `ca`; `stranger` by `foreign`.
    fn new() -> Self {
        let this = Self(tempfile::tempdir().expect("a directory"));
        for name in ["ca", "foreign", "alone"] {
            this.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 10 -subj \
                 /CN={name} -keyout {name}.key -out {name}.crt"
            ));
        }
        std::fs::write(this.path("v3"), "basicConstraints=CA:FALSE\n").expect("a file");
        for (name, by, more) in [
            ("server", "ca", "-extfile v3"),
            ("client", "ca", "-extfile v3"),
            ("old", "ca", ""),
            ("stranger", "foreign", "-extfile v3"),
        ] {
            this.openssl(&format!("genrsa -out {name}.key 2048"));
            this.openssl(&format!(
                "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
            ));
            this.openssl(&format!(
                "x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -days 10 \
                 -out {name}.crt {more}"
            ));
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        let path = self.path(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn openssl(&self, line: &str) {
        self.run(&format!("openssl {line}"));
    }

    /// Runs a program among them.
    fn run(&self, line: &str) {
        let mut words = line.split_whitespace();
        let done = Command::new(words.next().expect("a program"))
            .args(words)
            .current_dir(self.0.path())
            .output()
            .expect("openssl: scripts/install-test-deps");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {said}");
    }

    /// A server that listens on `port`.
    fn server(&self, port: u16, more: &[&str]) -> Server {
        let port = port.to_string();
        let [cert, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|name| self.text(name));
        let secured = ["--tls-port", &port, "--tls-cert-file", &cert];
        let trusts = ["--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        Server::start(&[&secured[..], &trusts, &["--logfile", "log"], more].concat())
    }

    /// What OpenSSL's client is answered to PING and QUIT when it shows the certificate `name`; nothing when it
    /// is refused.
    fn ping(&self, port: u16, name: &str, more: &str) -> String {
        let ca = if more.contains("-CAfile") {
            ""
        } else {
            "-CAfile ca.crt"
        };
        let mut line = format!("s_client -quiet -connect 127.0.0.1:{port} {ca} {more}");
        if !name.is_empty() {
            line += &format!(" -cert {name}.crt -key {name}.key");
        }
        self.client_says(&line)
    }

    /// What OpenSSL's client says when it sends PING and QUIT.
    fn client_says(&self, line: &str) -> String {
        let mut child = Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may have ended by now, when it is refused.
        let _ = stdin.write_all(b"PING\r\nQUIT\r\n");
        let mut said = Vec::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_to_end(&mut said).expect("a pipe");
        drop(stdin);
        child.wait().expect("a child");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Whether OpenSSL's client and the server agree, by TLS 1.2, when it shows the certificate `name`.
    fn agrees(&self, port: u16, name: &str, more: &str) -> bool {
        let mut line = format!("s_client -tls1_2 -connect 127.0.0.1:{port} -CAfile ca.crt {more}");
        if !name.is_empty() {
            line += &format!(" -cert {name}.crt -key {name}.key");
        }
        let done = Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output();
        done.expect("openssl").status.success()
    }

    /// Our own client.
    fn client(&self, port: u16) -> Duplex {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
        self.client_on(socket)
    }

    fn client_on(&self, socket: TcpStream) -> Duplex {
        let settings = Settings {
            tls_cert_file: (*self.text("client.crt")).into(),
            tls_key_file: (*self.text("client.key")).into(),
            tls_ca_cert_file: (*self.text("ca.crt")).into(),
            ..Settings::default()
        };
        let context = Context::new(&settings).expect("a context");
        socket.set_nonblocking(true).expect("a socket");
        let deadline = Instant::now() + sockets::PATIENCE;
        let stream = Stream::connect(socket.into(), &context, deadline).expect("a handshake");
        Duplex::new(stream, sockets::PATIENCE).expect("files")
    }
}

/// A port that was free a moment ago, of those that no connection is given by itself.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn log(server: &Server) -> String {
    std::fs::read_to_string(server.path("log")).unwrap_or_default()
}

/// The replies to what [`Certificates::ping`] sends.
const SERVED: &str = "+PONG\r\n+OK\r\n";

#[test]
fn clients_are_served_by_what_they_show() {
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &[]);
    let ping = |name: &str, more: &str| certificates.ping(port, name, more);
    for protocol in ["-tls1_2", "-tls1_3"] {
        assert_eq!(ping("client", protocol), SERVED, "{protocol}");
        // Without extensions OpenSSL makes certificates of version 1.
        assert_eq!(ping("old", protocol), SERVED, "{protocol}");
        for refused in ["", "stranger", "alone"] {
            assert_eq!(ping(refused, protocol), "", "{protocol} {refused}");
        }
    }
    assert_eq!(ping("client", "-tls1_1 -cipher ALL@SECLEVEL=0"), "");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    plain.write_all(b"PING\r\nPING\r\n").expect("room");
    let mut said = Vec::new();
    // It is closed, some way or other.
    let _ = plain.read_to_end(&mut said);
    assert!(said.is_empty());
    let refused = "Error accepting a client connection: peer sent no certificates";
    assert!(log(&server).contains(refused));
    // One that says half a word and then nothing is in nobody's way.
    let mut silent = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    silent.write_all(&[22, 3, 1, 2]).expect("room");
    assert_eq!(ping("client", ""), SERVED);
    let mut control = server.client();
    assert_eq!(control.ask("CONFIG SET tls-auth-clients optional"), "+OK");
    assert_eq!(ping("", ""), SERVED);
    assert_eq!(ping("stranger", ""), "");
    assert_eq!(control.ask("CONFIG SET tls-auth-clients no"), "+OK");
    assert_eq!(ping("stranger", ""), SERVED);
}

#[test]
fn parameters_change_as_a_whole_or_not_at_all() {
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &["--tls-auth-clients", "no"]);
    let mut control = server.client();
    let old = certificates.client(port);
    let ping = |more: &str| certificates.ping(port, "", more);
    let file = |name: &str| certificates.text(name);
    let mut set = |pairs: &str| control.ask(&format!("CONFIG SET {pairs}"));
    let failed = |name: &str| {
        format!(
            "-ERR CONFIG SET failed (possibly related to argument '{name}') - Unable to update TLS \
             configuration. Check server logs."
        )
    };
    let logs = |text: &str| assert!(log(&server).contains(text), "{text}: {}", log(&server));
    assert_eq!(set("tls-ciphers HIGH:NONSENSE"), failed("tls-ciphers"));
    logs("Unknown cipher: NONSENSE");
    let none = "tls-ciphersuites TLS_NONE";
    assert_eq!(set(none), failed("tls-ciphersuites"));
    assert_eq!(set("tls-protocols TLSv1.1"), failed("tls-protocols"));
    assert_eq!(set("tls-cert-file /nowhere"), failed("tls-cert-file"));
    logs("Failed to load certificate: /nowhere: No such file or directory");
    let (key, certificate) = (file("alone.key"), file("alone.crt"));
    let other_key = format!("tls-key-file {key}");
    assert_eq!(set(&other_key), failed("tls-key-file"));
    logs("key values mismatch");
    assert_eq!(ping("-verify_return_error"), SERVED);
    // What is one change works as one, and who is connected stays.
    let both = format!("{other_key} tls-cert-file {certificate}");
    assert_eq!(set(&both), "+OK");
    assert_eq!(ping("-verify_return_error"), "");
    assert_eq!(ping("-verify_return_error -CAfile alone.crt"), SERVED);
    let mut reply = [0; 7];
    (&old).write_all(b"PING\r\n").expect("a connection");
    (&old).read_exact(&mut reply).expect("a connection");
    assert_eq!(&reply, b"+PONG\r\n");
    certificates.openssl("rsa -in server.key -aes256 -passout pass:word -out secret.key");
    let (key, certificate) = (file("secret.key"), file("server.crt"));
    let secret = format!("tls-key-file {key} tls-cert-file {certificate}");
    assert_eq!(set(&secret), failed("tls-key-file"));
    logs("the key is encrypted, and no passphrase is configured");
    assert_eq!(set("tls-key-file-pass wrong"), "+OK");
    assert_eq!(set(&secret), failed("tls-key-file"));
    assert_eq!(set("tls-key-file-pass word"), "+OK");
    assert_eq!(set(&secret), "+OK");
    assert_eq!(ping("-verify_return_error"), SERVED);
    assert_eq!(set("tls-protocols TLSv1.2"), "+OK");
    assert_eq!(ping("-tls1_3"), "");
    assert_eq!(set("tls-ciphers ECDHE-RSA-AES128-GCM-SHA256"), "+OK");
    assert_eq!(ping("-cipher ECDHE-RSA-AES256-GCM-SHA384"), "");
    assert_eq!(ping("-cipher ECDHE-RSA-AES128-GCM-SHA256"), SERVED);
    // The port goes from one kind of clients to the other, and back.
    assert_eq!(set(&format!("tls-port 0 port {port}")), "+OK");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    plain.write_all(b"PING\r\n").expect("room");
    plain.read_exact(&mut reply).expect("a reply");
    assert_eq!(set(&format!("port 0 tls-port {port}")), "+OK");
    assert_eq!(ping(""), SERVED);
}

#[test]
fn sessions_are_resumed_where_they_may_be() {
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &["--tls-auth-clients", "no"]);
    let resumes = |protocol: &str| {
        let file = certificates.path("session");
        let _ = std::fs::remove_file(&file);
        certificates.ping(port, "", &format!("{protocol} -sess_out session"));
        if !file.exists() {
            return false;
        }
        let again = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
            .args([protocol, "-sess_in", "session"])
            .current_dir(certificates.0.path())
            .stdin(Stdio::null())
            .output();
        let said = again.expect("openssl").stdout;
        String::from_utf8_lossy(&said).contains("Reused, ")
    };
    assert!(resumes("-tls1_2"));
    assert!(resumes("-tls1_3"));
    let mut control = server.client();
    assert_eq!(control.ask("CONFIG SET tls-session-caching no"), "+OK");
    assert!(!resumes("-tls1_2"));
    assert!(!resumes("-tls1_3"));
}

#[test]
fn one_session_is_kept_of_each_handshake() {
    let (certificates, port) = (Certificates::new(), free_port());
    let _server = certificates.server(port, &["--tls-auth-clients", "no"]);
    let line = format!("s_client -tls1_3 -ign_eof -connect 127.0.0.1:{port}");
    let said = certificates.client_says(&line);
    let tickets = said.matches("Post-Handshake New Session Ticket arrived");
    assert_eq!(tickets.count(), 1, "{said}");
}

#[test]
fn nodes_of_a_cluster_show_certificates_whatever_clients_do() {
    let certificates = Certificates::new();
    for auth in ["no", "optional"] {
        let (port, bus) = (free_port(), free_port());
        let bus_port = bus.to_string();
        let of_cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
        let ports = ["--cluster-port", &bus_port, "--tls-auth-clients", auth];
        let _server = certificates.server(port, &[&of_cluster[..], &ports].concat());
        eventually(|| certificates.agrees(bus, "client", ""));
        for refused in ["", "stranger"] {
            assert!(!certificates.agrees(bus, refused, ""), "{auth} {refused}");
        }
        // Nor does a client's session open that door.
        assert!(certificates.agrees(port, "", "-sess_out session"));
        assert!(certificates.agrees(port, "", "-sess_in session"));
        assert!(!certificates.agrees(bus, "", "-sess_in session"));
    }
}

/// Four ways to be none of the files that parameters name.
#[test]
fn files_that_are_none_are_passed_over_or_refused() {
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &[]);
    let mut control = server.client();
    let pipe = certificates.path("pipe");
    certificates.run("mkfifo pipe");
    let pipe = pipe.to_str().expect("a path in UTF-8");
    for name in [
        "tls-cert-file",
        "tls-key-file",
        "tls-ca-cert-file",
        "tls-dh-params-file",
    ] {
        let reply = control.ask(&format!("CONFIG SET {name} {pipe}"));
        assert!(reply.contains("Unable to update TLS"), "{name}: {reply}");
        assert!(log(&server).contains(&format!("{pipe}: not a regular file")));
    }
    // In a directory they are none of the certificates; others are.
    certificates.run("mkdir cas");
    certificates.run("ln -s nothing cas/01234567.0");
    certificates.run("ln -s ../pipe cas/01234567.1");
    certificates.run("ln -s ../server.key cas/01234567.2");
    certificates.run("ln -s ../ca.crt cas/89abcdef.0");
    let folder = certificates.text("cas");
    let change = format!("CONFIG SET tls-ca-cert-file \"\" tls-ca-cert-dir {folder}");
    assert_eq!(control.ask(&change), "+OK");
    for (number, why) in ["No such file", "not a regular file", "no certificate found"]
        .iter()
        .enumerate()
    {
        let line = format!("not used: {folder}/01234567.{number}: {why}");
        assert!(log(&server).contains(&line), "{line}");
    }
    assert_eq!(certificates.ping(port, "client", ""), SERVED);
    assert_eq!(certificates.ping(port, "stranger", ""), "");
}

#[test]
fn as_many_clients_as_there_may_be_are_served_at_several_addresses() {
    let (certificates, port) = (Certificates::new(), free_port());
    let several = ["--bind", "127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let server = certificates.server(port, &[&several[..], &["--maxclients", "3"]].concat());
    // The client that saw it start is gone.
    eventually(|| {
        server
            .client()
            .ask("INFO clients")
            .contains("connected_clients:1\r")
    });
    let mut reply = [0; 7];
    let clients = [(); 3].map(|()| {
        let client = certificates.client(port);
        (&client).write_all(b"PING\r\n").expect("a connection");
        (&client).read_exact(&mut reply).expect("it is served");
        client
    });
    assert_eq!(certificates.ping(port, "client", ""), "");
    drop(clients);
    eventually(|| certificates.ping(port, "client", "") == SERVED);
}

#[test]
fn who_connects_and_says_nothing_keeps_nobody_out() {
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &["--maxclients", "40"]);
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    let silent: Vec<_> = (0..100).map(connect).collect();
    assert_eq!(certificates.ping(port, "client", ""), SERVED);
    assert!(log(&server).contains("it was silent, and others wait"));
    drop(silent);
}

#[test]
fn a_dump_comes_whole_whoever_reads_it_slowly() {
    let (certificates, port) = (Certificates::new(), free_port());
    let how = ["--repl-diskless-sync-delay", "0", "--rdbcompression", "no"];
    let server = certificates.server(port, &how);
    let mut control = server.client();
    let done = || {
        log(&server)
            .matches("Close the connection with replica")
            .count()
    };
    let rounds = (2..7).flat_map(|pieces| [("no", pieces), ("yes", pieces)]);
    for (round, (diskless, pieces)) in rounds.enumerate() {
        let set = format!("CONFIG SET repl-diskless-sync {diskless}");
        assert_eq!(control.ask(&set), "+OK");
        // It is written in pieces of 64 kilobytes, and of the last one most finds no room in the socket.
        let value = "v".repeat((pieces << 16) - 1500);
        control.send_args(&["SET", "key", &value]);
        assert_eq!(control.read(), "+OK");
        // With small segments and a small window there is little of it.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_tcp_mss(536).expect("a size");
        socket.set_recv_buffer_size(4096).expect("a size");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        socket.connect(&address.into()).expect("a listener");
        let client = certificates.client_on(socket.into());
        let ask = |line: &[u8]| (&client).write_all(line).expect("a connection");
        ask(b"REPLCONF rdb-only 1 capa eof\r\n");
        let mut reply = [0; 5];
        (&client).read_exact(&mut reply).expect("a connection");
        assert_eq!(&reply, b"+OK\r\n");
        ask(b"SYNC\r\n");
        let (mut dump, mut piece) = (Vec::new(), [0; 4096]);
        while done() <= round {
            let count = (&client).read(&mut piece).expect("a connection");
            dump.extend_from_slice(&piece[..count]);
        }
        (&client).read_to_end(&mut dump).expect("a connection");
        let begin = dump.iter().position(|byte| *byte == b'$').expect("a dump");
        let dump = &dump[begin + 1..];
        let line = dump.iter().position(|byte| *byte == b'\r').expect("a line");
        let (head, dump) = (&dump[..line], &dump[line + 2..]);
        match head.strip_prefix(b"EOF:") {
            Some(mark) => assert!(dump.ends_with(mark), "{} bytes", dump.len()),
            None => assert_eq!(String::from_utf8_lossy(head), dump.len().to_string()),
        }
        assert!(dump.len() > value.len());
    }
}

#[test]
fn much_is_asked_and_answered_at_once() {
    const ECHOES: usize = 1000;
    let (certificates, port) = (Certificates::new(), free_port());
    let server = certificates.server(port, &[]);
    let value = "v".repeat(3_000_000);
    let client = certificates.client(port);
    let ask = |what: &str| {
        (&client).write_all(what.as_bytes()).expect("a server");
        (&client).flush().expect("a server");
    };
    let read = |expected: &str| {
        let mut reply = vec![0; expected.len()];
        (&client).read_exact(&mut reply).expect("a reply");
        assert!(reply == expected.as_bytes(), "{} bytes", expected.len());
    };
    let bulk = format!("${}\r\n{value}\r\n", value.len());
    ask(&format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n{bulk}"));
    read("+OK\r\n");
    ask("GET big\r\n");
    read(&bulk);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                ask(&"ECHO 0123456789\r\n".repeat(ECHOES));
            }
        });
        for _ in 0..20 {
            read(&"$10\r\n0123456789\r\n".repeat(ECHOES));
        }
    });
    // Who does not read what it asks for is closed at its limit, as any client.
    let mut control = server.client();
    let limit = "CONFIG SET client-output-buffer-limit \"normal 4mb 0 0\"";
    assert_eq!(control.ask(limit), "+OK");
    ask(&"GET big\r\n".repeat(40));
    eventually(|| log(&server).contains("for overcoming of output buffer limits"));
}

#[test]
fn a_replica_follows_over_tls() {
    let (certificates, port) = (Certificates::new(), free_port());
    let secured = [
        "--tls-replication",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
    ];
    let primary = certificates.server(port, &secured);
    let mut at_primary = primary.client();
    for key in 0..2000 {
        let set = format!("SET key{key} {}", "v".repeat(500));
        assert_eq!(at_primary.ask(&set), "+OK");
    }
    for (diskless, load) in [("yes", "disabled"), ("no", "disabled"), ("yes", "swapdb")] {
        let how = format!("CONFIG SET repl-diskless-sync {diskless}");
        assert_eq!(at_primary.ask(&how), "+OK");
        let more = [&secured[..], &["--repl-diskless-load", load]].concat();
        let replica = certificates.server(free_port(), &more);
        let mut at_replica = replica.client();
        let follow = format!("REPLICAOF 127.0.0.1 {port}");
        assert_eq!(at_replica.ask(&follow), "+OK");
        eventually(|| {
            at_replica
                .ask("INFO replication")
                .contains("master_link_status:up")
        });
        assert_eq!(at_replica.ask("DBSIZE"), at_primary.ask("DBSIZE"));
        assert_eq!(at_primary.ask(&format!("SET more {diskless}{load}")), "+OK");
        assert_eq!(at_primary.ask("WAIT 1 30000"), ":1");
        assert_eq!(at_replica.ask("GET more"), format!("{diskless}{load}"));
        drop(replica);
        eventually(|| {
            at_primary
                .ask("INFO replication")
                .contains("connected_slaves:0")
        });
    }
}

#[test]
fn a_server_without_what_tls_needs_does_not_start() {
    let certificates = Certificates::new();
    let port = free_port().to_string();
    let (cert, key) = (
        certificates.text("server.crt"),
        certificates.text("server.key"),
    );
    let starts = |options: &[&str]| {
        let options = [&["--tls-port", &*port], options].concat();
        Server::try_start(&sockets::under_test(), &[], &options).is_some()
    };
    let no = ["--tls-auth-clients", "no", "--tls-cert-file", &cert];
    assert!(!starts(&[]));
    assert!(!starts(&no));
    assert!(!starts(&["--tls-cert-file", &cert, "--tls-key-file", &key]));
    assert!(!starts(&[&no[..], &["--tls-key-file", &cert]].concat()));
    assert!(starts(&[&no[..], &["--tls-key-file", &key]].concat()));
}
