//! Certificates and keys from PEM files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::SecretDocument;
use rustix::fs::{Mode, OFlags};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::strerror;

/// Biggest file that is read, in bytes: bundles of authorities are a quarter of that.
const BIGGEST: u64 = 1 << 20;

const ENCRYPTED: (&str, &str) = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "-----END ENCRYPTED PRIVATE KEY-----",
);

/// The content of a file.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(BIGGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > BIGGEST => {
            Err(strerror(&std::io::ErrorKind::FileTooLarge.into()))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(strerror(&error)),
    }
}

/// Opens a regular file: what else there is may have no end, or never begin.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("not a regular file")),
    }
}

/// All certificates of a file; there is one at least.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate found".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

/// The files of a directory in which OpenSSL would look for certificates: those named by a hash and a number.
///
/// # Errors
/// The directory cannot be read.
pub fn directory(path: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(path).map_err(|error| strerror(&error))?;
    for entry in entries {
        let entry = entry.map_err(|error| strerror(&error))?;
        let name = entry.file_name();
        let Some((hash, number)) = name.to_str().and_then(|name| name.split_once('.')) else {
            continue;
        };
        let is_hash = hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if is_hash && is_number {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The private key of a file, decrypted by `passphrase` if it has to be.
///
/// # Errors
/// The file cannot be read, has no key that is understood, or the passphrase is wrong.
pub fn key(path: &Path, passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    let text = String::from_utf8_lossy(&text);
    if let Some(begin) = text.find(ENCRYPTED.0) {
        let rest = &text[begin..];
        let end = rest.find(ENCRYPTED.1).ok_or("the key has no end")?;
        return decrypt(&rest[..end + ENCRYPTED.1.len()], passphrase);
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(
            "the key is encrypted in OpenSSL's traditional format, which is not supported: \
             `openssl pkcs8 -topk8` converts it"
                .to_owned(),
        );
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())
}

fn decrypt(pem: &str, passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if passphrase.is_empty() {
        return Err("the key is encrypted, and no passphrase is configured".to_owned());
    }
    let malformed = |_| "the encrypted key is malformed".to_owned();
    let (_, document) = SecretDocument::from_pem(pem).map_err(malformed)?;
    let encrypted = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .map_err(|error| error.to_string())?;
    let key = encrypted.decrypt(passphrase).map_err(|error| {
        format!("the key cannot be decrypted, the passphrase may be wrong: {error}")
    })?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// Checks a file of Diffie-Hellman parameters, which have no use here.
///
/// # Errors
/// It cannot be read, or has none.
pub fn dh_parameters(path: &Path) -> Result<(), String> {
    let text = read(path).map_err(|error| format!("Failed to load {}: {error}", path.display()))?;
    match memchr::memmem::find(&text, b"-----BEGIN DH PARAMETERS-----") {
        Some(_) => Ok(()),
        None => Err(format!("{}: failed to read DH params.", path.display())),
    }
}
