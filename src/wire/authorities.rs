//! The certificates that are trusted, and what for: the same as by OpenSSL.
//!
//! A chain ends in a trusted certificate that is its own issuer, a root; trusted ones that others issued help to get
//! there, as if the peer had sent them. Whoever issues is an authority, and valid at the moment, which webpki would
//! take for granted of what it is told to trust. A root that is no authority is trusted for itself alone.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{Error, VerifiedPath};
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5280::{
    ANY_EXTENDED_KEY_USAGE, ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH,
};
use x509_cert::der::{self, Decode, Encode};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints,
    SubjectKeyIdentifier,
};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Most authorities between a certificate and its root.
const DEEPEST: usize = 6;

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By who connects.
    Client,
    /// By who is connected to.
    Server,
}

impl Usage {
    /// Whether a certificate's key may shake hands on this side: its extension allows it, or it has none.
    ///
    /// # Errors
    /// The extension is malformed.
    pub fn may_shake(self, tbs: &TbsCertificate) -> der::Result<bool> {
        let usage = tbs.get::<KeyUsage>()?;
        Ok(usage.is_none_or(|(_, usage)| {
            usage.digital_signature()
                || usage.key_agreement()
                || (self == Self::Server && usage.key_encipherment())
        }))
    }

    /// Whether a certificate, or those that it issues, may be shown for this: its extension allows it, or it has none.
    ///
    /// # Errors
    /// The extension is malformed.
    pub fn is_of(self, tbs: &TbsCertificate) -> der::Result<bool> {
        let wanted: ObjectIdentifier = match self {
            Self::Client => ID_KP_CLIENT_AUTH,
            Self::Server => ID_KP_SERVER_AUTH,
        };
        let usages = tbs.get::<ExtendedKeyUsage>()?;
        Ok(usages.is_none_or(|(_, usages)| {
            usages.0.contains(&wanted) || usages.0.contains(&ANY_EXTENDED_KEY_USAGE)
        }))
    }
}

/// Whether a certificate is valid at this time.
///
/// # Errors
/// Why not.
pub fn is_valid(tbs: &TbsCertificate, time: UnixTime) -> Result<(), Error> {
    let at = |time: &x509_cert::time::Time| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            time.to_unix_duration().as_secs(),
        ))
    };
    let (not_before, not_after) = (at(&tbs.validity.not_before), at(&tbs.validity.not_after));
    if time < not_before {
        return Err(Error::CertNotValidYet { time, not_before });
    }
    if time > not_after {
        return Err(Error::CertExpired { time, not_after });
    }
    Ok(())
}

/// A certificate that is trusted.
#[derive(Debug)]
struct Trusted {
    der: CertificateDer<'static>,
    parsed: Certificate,
    /// It is its own issuer.
    is_root: bool,
    /// It is an authority.
    issues: bool,
    /// It issues for some names only.
    constrains: bool,
    /// Most authorities between it and a certificate.
    depth: Option<u8>,
    /// Usages for which it may issue certificates: a client's, a server's.
    usages: [bool; 2],
}

impl Trusted {
    fn new(der: CertificateDer<'static>) -> der::Result<Self> {
        let parsed = Certificate::from_der(&der)?;
        let tbs = &parsed.tbs_certificate;
        let is_root = is_root(tbs);
        let constraints = tbs.get::<BasicConstraints>()?;
        let key_usage = tbs.get::<KeyUsage>()?;
        let issues = match (&constraints, key_usage) {
            (_, Some((_, usage))) if !usage.key_cert_sign() => false,
            (Some((_, constraints)), _) => constraints.ca,
            (None, Some(_)) => true,
            // Roots from before there were extensions.
            (None, None) => is_root && tbs.version == Version::V1,
        };
        Ok(Self {
            is_root,
            issues,
            constrains: has_extension(tbs, NameConstraints::OID),
            depth: constraints.and_then(|(_, constraints)| constraints.path_len_constraint),
            usages: [Usage::Client.is_of(tbs)?, Usage::Server.is_of(tbs)?],
            der,
            parsed,
        })
    }

    /// Whether it may issue now, with so many authorities between it and the certificate.
    fn may_issue(&self, time: UnixTime, usage: Usage, between: usize) -> Result<(), Error> {
        let [of_client, of_server] = self.usages;
        let is_of = match usage {
            Usage::Client => of_client,
            Usage::Server => of_server,
        };
        if !self.issues || !is_of {
            return Err(Error::UnknownIssuer);
        }
        if self.depth.is_some_and(|depth| between > depth.into()) {
            return Err(Error::PathLenConstraintViolated);
        }
        is_valid(&self.parsed.tbs_certificate, time)
    }
}

/// True if the certificate says that it was issued by itself.
fn is_root(tbs: &TbsCertificate) -> bool {
    if tbs.issuer != tbs.subject {
        return false;
    }
    let Ok(Some((_, issuer))) = tbs.get::<AuthorityKeyIdentifier>() else {
        return true;
    };
    let own = tbs.get::<SubjectKeyIdentifier>().ok().flatten();
    let is_own_key = match (issuer.key_identifier, own) {
        (Some(issuer), Some((_, own))) => issuer == own.0,
        _ => true,
    };
    let serial = issuer.authority_cert_serial_number;
    is_own_key && serial.is_none_or(|serial| serial == tbs.serial_number)
}

fn has_extension(tbs: &TbsCertificate, id: ObjectIdentifier) -> bool {
    tbs.extensions
        .iter()
        .flatten()
        .any(|extension| extension.extn_id == id)
}

/// All certificates that are trusted.
#[derive(Debug, Default)]
pub struct Authorities {
    trusted: Vec<Trusted>,
    /// What chains may end in.
    anchors: Vec<TrustAnchor<'static>>,
}

impl Authorities {
    /// Trusts one more.
    ///
    /// # Errors
    /// It is malformed.
    pub fn add(&mut self, der: CertificateDer<'static>) -> Result<(), String> {
        let malformed = |error: &dyn std::fmt::Display| format!("malformed certificate: {error}");
        let trusted = Trusted::new(der).map_err(|error| malformed(&error))?;
        if trusted.is_root && trusted.issues {
            let anchor = webpki::anchor_from_trusted_cert(&trusted.der);
            self.anchors
                .push(anchor.map_err(|error| malformed(&error))?.to_owned());
        }
        self.trusted.push(trusted);
        Ok(())
    }

    /// True if there is no root, so that nobody is trusted.
    pub fn are_without_root(&self) -> bool {
        !self.trusted.iter().any(|trusted| trusted.is_root)
    }

    /// What chains may end in.
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Authorities that others issued, added to what a peer sent.
    pub fn between<'a>(&'a self, sent: &'a [CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
        let own = self.trusted.iter();
        let own = own.filter(|trusted| trusted.issues && !trusted.is_root);
        let all = sent.iter().chain(own.map(|trusted| &trusted.der));
        all.map(|der| CertificateDer::from(der.as_ref())).collect()
    }

    /// True for a certificate that is trusted for itself, whoever else it may be issued by.
    pub fn has(&self, der: &CertificateDer<'_>) -> bool {
        let mut trusted = self.trusted.iter();
        trusted.any(|trusted| trusted.is_root && trusted.der == *der)
    }

    /// Whether a chain that is good otherwise may end where it does.
    ///
    /// # Errors
    /// Why not.
    pub fn may_end(
        &self,
        path: &VerifiedPath<'_>,
        time: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        let is_other = |authority: &&webpki::Cert<'_>| authority.subject() != authority.issuer();
        let between = path.intermediate_certificates().filter(is_other).count();
        let (subject, key) = (
            &path.anchor().subject,
            &path.anchor().subject_public_key_info,
        );
        let roots = self.trusted.iter().filter(|trusted| trusted.is_root);
        // One that was renewed is there twice.
        let same = roots.filter(|root| {
            let anchor = webpki::anchor_from_trusted_cert(&root.der);
            anchor.is_ok_and(|anchor| {
                anchor.subject == *subject && anchor.subject_public_key_info == *key
            })
        });
        any(same, |root| root.may_issue(time, usage, between))
    }

    /// Whether a certificate was issued by an authority that is trusted, or that such a one issued.
    ///
    /// # Errors
    /// Why not.
    pub fn have_issued(
        &self,
        certificate: &Certificate,
        (time, usage): (UnixTime, Usage),
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        self.lead(certificate, (time, usage), algorithms, 0)
    }

    fn lead(
        &self,
        certificate: &Certificate,
        (time, usage): (UnixTime, Usage),
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        between: usize,
    ) -> Result<(), Error> {
        if between > DEEPEST {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let issuer = &certificate.tbs_certificate.issuer;
        let issuers = self.trusted.iter().filter(|trusted| {
            let tbs = &trusted.parsed.tbs_certificate;
            // Names are webpki's.
            !trusted.constrains
                && tbs.subject == *issuer
                && is_signed(certificate, &tbs.subject_public_key_info, algorithms)
        });
        any(issuers, |trusted| {
            trusted.may_issue(time, usage, between)?;
            match trusted.is_root {
                true => Ok(()),
                false => self.lead(&trusted.parsed, (time, usage), algorithms, between + 1),
            }
        })
    }
}

/// Whether one of these will do; why the last would not.
fn any<'a>(
    trusted: impl Iterator<Item = &'a Trusted>,
    mut will_do: impl FnMut(&Trusted) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Err(Error::UnknownIssuer);
    for one in trusted {
        result = will_do(one);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Whether a certificate is signed by a key.
fn is_signed(
    certificate: &Certificate,
    key: &SubjectPublicKeyInfoOwned,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    let (Ok(algorithm), Ok(of_key), Ok(signed)) = (
        certificate.signature_algorithm.to_der(),
        key.algorithm.to_der(),
        certificate.tbs_certificate.to_der(),
    ) else {
        return false;
    };
    let (key, signature) = (
        key.subject_public_key.raw_bytes(),
        certificate.signature.raw_bytes(),
    );
    algorithms.iter().any(|known| {
        known.signature_alg_id().as_ref() == content(&algorithm)
            && known.public_key_alg_id().as_ref() == content(&of_key)
            && known.verify_signature(key, &signed, signature).is_ok()
    })
}

/// The content of a DER value.
pub fn content(der: &[u8]) -> &[u8] {
    let header = match der.get(1) {
        Some(&long @ 0x81..) => 2 + usize::from(long & 0x7f),
        _ => 2,
    };
    der.get(header..).unwrap_or_default()
}
