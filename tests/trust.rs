//! Who is trusted: what OpenSSL says of the same certificates, for each set of trusted ones.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tessera::wire::authorities::{Authorities, Usage};
use tessera::wire::files;
use tessera::wire::verify::Verifier;

/// Kinds of certificates.
const KINDS: &str = "
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[shallow]
basicConstraints = critical,CA:TRUE,pathlen:0
[leaf]
basicConstraints = CA:FALSE
[plain]
subjectAltName = DNS:localhost
[signs]
keyUsage = keyCertSign
[mute]
basicConstraints = critical,CA:TRUE
keyUsage = digitalSignature
[servers]
basicConstraints = critical,CA:TRUE
extendedKeyUsage = serverAuth
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
[encrypts]
basicConstraints = CA:FALSE
keyUsage = keyEncipherment
";

struct Certificates {
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Certificates {
    fn openssl(&self, line: &str) -> Output {
        Command::new("openssl")
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .output()
            .expect("openssl: scripts/install-test-deps")
    }

    fn make(&self, line: &str) {
        let done = self.openssl(line);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {said}");
    }

    fn key(&self, name: &str) {
        self.make(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out {name}.key"
        ));
        self.make(&format!(
            "req -new -config kinds -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
    }

    /// One that is its own issuer.
    fn root(&mut self, name: &str, kind: &str, days: u32) {
        self.key(name);
        self.sign(name, &format!("-signkey {name}.key"), kind, days);
    }

    fn issued(&mut self, name: &str, by: &str, kind: &str) {
        self.key(name);
        let by = format!("-CA {by}.crt -CAkey {by}.key -CAcreateserial");
        self.sign(name, &by, kind, 20);
    }

    /// Without a kind it is of version 1.
    fn sign(&mut self, name: &str, by: &str, kind: &str, days: u32) {
        let kind = match kind {
            "" => String::new(),
            kind => format!("-extfile kinds -extensions {kind}"),
        };
        self.make(&format!(
            "x509 -req -in {name}.csr {by} -days {days} -out {name}.crt {kind}"
        ));
        self.names.push(name.to_owned());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.crt"))
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("kinds"), KINDS).expect("a file");
        let mut this = Self {
            dir,
            names: Vec::new(),
        };
        this.root("aged", "ca", 10);
        for kind in ["ca", "shallow", "leaf", "plain", "signs", "mute", "servers"] {
            this.root(kind, kind, 20);
        }
        this.root("first", "", 20);
        this.issued("inner", "ca", "ca");
        this.issued("deep", "shallow", "ca");
        this.issued("old", "ca", "");
        this.issued("client", "ca", "client");
        this.issued("encrypts", "ca", "encrypts");
        let issuers = this.names.clone();
        for issuer in issuers {
            this.issued(&format!("of-{issuer}"), &issuer, "leaf");
        }
        // One that is an authority, or of version 1, by one that another issued.
        this.issued("ca-of-inner", "inner", "ca");
        this.issued("old-of-inner", "inner", "");
        this
    }

    /// Those that OpenSSL accepts.
    fn accepted(&self, usage: Usage, time: u64) -> Vec<&str> {
        let purpose = match usage {
            Usage::Client => "sslclient",
            Usage::Server => "sslserver",
        };
        let files: Vec<String> = self
            .names
            .iter()
            .map(|name| format!("{name}.crt"))
            .collect();
        let said = self.openssl(&format!(
            "verify -no-CApath -no-CAstore -CAfile trusted -purpose {purpose} -attime {time} {}",
            files.join(" ")
        ));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let is_ok = |name: &&str| said.lines().any(|line| line == format!("{name}.crt: OK"));
        self.names
            .iter()
            .map(String::as_str)
            .filter(is_ok)
            .collect()
    }

    /// Those that we accept.
    fn accepted_here(&self, trusted: &[&str], usage: Usage, time: u64) -> Vec<&str> {
        let read = |name: &str| files::certificates(&self.path(name)).expect("a certificate");
        let mut authorities = Authorities::default();
        for name in trusted {
            authorities
                .add(read(name).remove(0))
                .expect("a certificate");
        }
        let provider = ring::default_provider();
        let verifier = Verifier::new(Arc::new(authorities), true, &provider);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
        let accepts = |name: &&str| {
            let der = &read(name)[0];
            let server = ServerName::try_from("localhost").expect("a name");
            match usage {
                Usage::Client => verifier.verify_client_cert(der, &[], time).is_ok(),
                Usage::Server => verifier
                    .verify_server_cert(der, &[], &server, &[], time)
                    .is_ok(),
            }
        };
        self.names
            .iter()
            .map(String::as_str)
            .filter(accepts)
            .collect()
    }
}

#[test]
fn those_are_trusted_that_openssl_would_trust() {
    let certificates = Certificates::new();
    let names: Vec<&str> = certificates.names.iter().map(String::as_str).collect();
    let mut sets: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
    sets.push(vec!["ca", "inner"]);
    sets.push(vec!["shallow", "deep", "aged"]);
    sets.push(vec!["ca", "of-ca"]);
    sets.push(names);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_secs();
    let day = 24 * 3600;
    let mut count = 0;
    for trusted in &sets {
        let pem = trusted
            .iter()
            .map(|name| std::fs::read_to_string(certificates.path(name)).expect("a certificate"));
        let pem: String = pem.collect();
        std::fs::write(certificates.dir.path().join("trusted"), pem).expect("a file");
        for usage in [Usage::Client, Usage::Server] {
            for time in [now, now + 15 * day, now - day] {
                let theirs = certificates.accepted(usage, time);
                let ours = certificates.accepted_here(trusted, usage, time);
                let later = time.cast_signed() - now.cast_signed();
                assert_eq!(ours, theirs, "{trusted:?} {usage:?} {later}");
                count += theirs.len();
            }
        }
    }
    // It is no agreement about nothing.
    assert!(count > 100, "{count}");
}
