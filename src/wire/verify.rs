//! Whether a peer's certificate comes from an authority that is trusted. Names are not looked at, as in Redis.
//!
//! webpki, which rustls uses, does most of it. It refuses certificates that OpenSSL accepts and that people make for
//! their servers: ones of version 1 (what `openssl x509 -req` makes without extensions), ones that are authorities
//! (what `openssl req -x509` makes), and ones that are trusted themselves. These are judged here. They are accepted
//! when they are trusted themselves, or when trusted authorities issued them: not by way of one that the peer sent.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME,
};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::authorities::{Authorities, Usage, content, is_valid};

/// Judges both clients and servers.
#[derive(Debug)]
pub struct Verifier {
    authorities: Arc<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
    /// A client may not do without a certificate.
    demands: bool,
}

/// The public key of a certificate.
///
/// # Errors
/// It is malformed.
pub fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let parsed = Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let key = parsed.tbs_certificate.subject_public_key_info;
    Ok(key.subject_public_key.raw_bytes().to_vec())
}

/// The key itself, of one with its algorithm.
///
/// # Errors
/// It is malformed.
pub fn key_of(public: &SubjectPublicKeyInfoDer<'_>) -> Result<Vec<u8>, String> {
    let key = SubjectPublicKeyInfoOwned::from_der(public).map_err(|error| error.to_string())?;
    Ok(key.subject_public_key.raw_bytes().to_vec())
}

fn bad(reason: CertificateError) -> Error {
    Error::InvalidCertificate(reason)
}

/// webpki's reason as rustls tells it to the peer and to the log.
fn refused(reason: webpki::Error) -> Error {
    use webpki::Error::{
        BadDer, BadDerTime, CertExpired, CertNotValidYet, InvalidSignatureForPublicKey,
        RequiredEkuNotFoundContext, TrailingData, UnknownIssuer,
    };
    bad(match reason {
        BadDer | BadDerTime | TrailingData(_) => CertificateError::BadEncoding,
        CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        InvalidSignatureForPublicKey => CertificateError::BadSignature,
        RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

impl Verifier {
    /// One that trusts `authorities`, and demands a certificate of clients or takes none as well.
    pub fn new(authorities: Arc<Authorities>, demands: bool, provider: &CryptoProvider) -> Self {
        Self {
            authorities,
            algorithms: provider.signature_verification_algorithms,
            demands,
        }
    }

    fn verify(
        &self,
        der: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        if let Some(judged) = self.unusual(der, now, usage) {
            return judged;
        }
        let between = self.authorities.between(sent);
        let key_usage = match usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let certificate = EndEntityCert::try_from(der).map_err(refused)?;
        let verified = certificate.verify_for_usage(
            self.algorithms.all,
            self.authorities.anchors(),
            &between,
            now,
            key_usage,
            None,
            Some(&|path| self.authorities.may_end(path, now, usage)),
        );
        verified.map(|_| ()).map_err(refused)
    }

    /// Judges a certificate that webpki would not accept whoever issued it, or that is not for this; `None` for all
    /// others.
    fn unusual(
        &self,
        der: &CertificateDer<'_>,
        now: UnixTime,
        usage: Usage,
    ) -> Option<Result<(), Error>> {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = &certificate.tbs_certificate;
        match usage.may_shake(tbs) {
            Ok(true) => {}
            Ok(false) => return Some(Err(bad(CertificateError::InvalidPurpose))),
            Err(_) => return Some(Err(bad(CertificateError::BadEncoding))),
        }
        let is_authority = match tbs.get::<BasicConstraints>() {
            Ok(constraints) => constraints.is_some_and(|(_, constraints)| constraints.ca),
            Err(_) => return Some(Err(bad(CertificateError::BadEncoding))),
        };
        let is_trusted = self.authorities.has(der);
        if !is_trusted && !is_authority && tbs.version == Version::V3 {
            return None;
        }
        let judged = self.judge(&certificate, now, usage);
        if is_trusted || judged.is_err() {
            return Some(judged);
        }
        let algorithms = self.algorithms.all;
        let issued = self
            .authorities
            .have_issued(&certificate, (now, usage), algorithms);
        Some(issued.map_err(refused))
    }

    /// Judges a certificate whoever issued it.
    fn judge(&self, certificate: &Certificate, now: UnixTime, usage: Usage) -> Result<(), Error> {
        let tbs = &certificate.tbs_certificate;
        is_valid(tbs, now).map_err(refused)?;
        match usage.is_of(tbs) {
            Ok(true) => {}
            Ok(false) => return Err(bad(CertificateError::InvalidPurpose)),
            Err(_) => return Err(bad(CertificateError::BadEncoding)),
        }
        let is_strange = tbs
            .extensions
            .iter()
            .flatten()
            .any(|extension| extension.critical && !UNDERSTOOD.contains(&extension.extn_id));
        match is_strange {
            true => Err(bad(CertificateError::UnhandledCriticalExtension)),
            false => Ok(()),
        }
    }

    /// Whether the peer has the key to its certificate, for those that rustls cannot read.
    fn shaken(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let malformed = |_| bad(CertificateError::BadEncoding);
        let parsed = Certificate::from_der(certificate).map_err(malformed)?;
        if parsed.tbs_certificate.version == Version::V3 {
            return match is_13 {
                true => verify_tls13_signature(message, certificate, signed, &self.algorithms),
                false => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            };
        }
        let key = parsed.tbs_certificate.subject_public_key_info;
        if is_13 {
            let key = SubjectPublicKeyInfoDer::from(key.to_der().map_err(malformed)?);
            return verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms);
        }
        let (algorithm, key) = (
            key.algorithm.to_der().map_err(malformed)?,
            key.subject_public_key.raw_bytes(),
        );
        let mapped = self.algorithms.mapping.iter();
        let of_scheme = mapped.filter(|(scheme, _)| *scheme == signed.scheme);
        let mut known = of_scheme
            .flat_map(|(_, known)| known.iter())
            .filter(|known| known.public_key_alg_id().as_ref() == content(&algorithm));
        match known.any(|known| {
            known
                .verify_signature(key, message, signed.signature())
                .is_ok()
        }) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(bad(CertificateError::BadSignature)),
        }
    }
}

/// Extensions that may be critical: names of the subject are not looked at, and what the key is for is.
const UNDERSTOOD: [ObjectIdentifier; 4] = [
    ID_CE_BASIC_CONSTRAINTS,
    ID_CE_KEY_USAGE,
    ID_CE_EXT_KEY_USAGE,
    ID_CE_SUBJECT_ALT_NAME,
];

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.demands
    }

    /// None, as in Redis: a client shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shaken(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shaken(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, intermediates, now, Usage::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shaken(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shaken(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
