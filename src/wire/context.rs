//! What the `tls-*` parameters say, as both sides of a handshake need it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion};

use super::authorities::Authorities;
use super::sessions::Sessions;
use super::verify::{self, Verifier};
use super::{ciphers, files};
use crate::config::choices::TlsAuthClients;
use crate::config::{Settings, Text};

/// Both sides' parameters.
pub struct Context {
    /// For clients, who connect to us.
    pub server: Arc<ServerConfig>,
    /// For other nodes of the cluster that connect to us. They show a certificate, whatever clients have to.
    pub bus: Arc<ServerConfig>,
    /// For whom we connect to.
    pub client: Arc<ClientConfig>,
}

/// The context of the moment; handshakes under way keep theirs.
#[derive(Default)]
pub struct Contexts(ArcSwapOption<Context>);

impl Contexts {
    /// The context, once there was one.
    pub fn load(&self) -> Option<Arc<Context>> {
        self.0.load_full()
    }

    /// Follows the parameters, if they use TLS anywhere; if they do not work, what was there stays.
    ///
    /// # Errors
    /// Why they do not work.
    pub fn follow(&self, settings: &Settings) -> Result<(), String> {
        if is_used(settings) {
            self.0.store(Some(Arc::new(Context::new(settings)?)));
        }
        Ok(())
    }
}

/// Whether TLS is used anywhere.
pub fn is_used(settings: &Settings) -> bool {
    settings.tls_port != 0 || settings.tls_replication || settings.tls_cluster
}

impl Context {
    /// What the parameters say.
    ///
    /// # Errors
    /// Why they do not work, as a line for the log.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        if settings.tls_cert_file.is_empty() {
            return Err("No tls-cert-file configured!".to_owned());
        }
        if settings.tls_key_file.is_empty() {
            return Err("No tls-key-file configured!".to_owned());
        }
        let has_authority =
            !settings.tls_ca_cert_file.is_empty() || !settings.tls_ca_cert_dir.is_empty();
        let verifies = settings.tls_auth_clients != TlsAuthClients::No
            || settings.tls_cluster
            || settings.tls_replication;
        if verifies && !has_authority {
            return Err(
                "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, \
                 tls-replication or tls-auth-clients are enabled!"
                    .to_owned(),
            );
        }
        let (versions, has_old) = ciphers::protocols(&settings.tls_protocols.to_str())?;
        if has_old {
            tracing::warn!("tls-protocols: TLSv1 and TLSv1.1 are not supported, and stay off.");
        }
        let provider = Arc::new(provider(settings)?);
        let own = Identity::load(
            (&settings.tls_cert_file, &settings.tls_key_file),
            &settings.tls_key_file_pass,
            &provider,
        )?;
        let own = Arc::new(own);
        let of_client = match settings.tls_client_cert_file.is_empty()
            || settings.tls_client_key_file.is_empty()
        {
            true => Arc::clone(&own),
            false => Arc::new(Identity::load(
                (
                    &settings.tls_client_cert_file,
                    &settings.tls_client_key_file,
                ),
                &settings.tls_client_key_file_pass,
                &provider,
            )?),
        };
        if !settings.tls_dh_params_file.is_empty() {
            files::dh_parameters(settings.tls_dh_params_file.as_path())?;
            tracing::warn!(
                "tls-dh-params-file has no use here: keys are exchanged by elliptic curves (ECDHE) only."
            );
        }
        let authorities = Arc::new(authorities(settings)?);
        let verifier = |demands| {
            let authorities = Arc::clone(&authorities);
            Arc::new(Verifier::new(authorities, demands, &provider))
        };
        let of_clients = match settings.tls_auth_clients {
            TlsAuthClients::No => None,
            TlsAuthClients::Optional => Some(verifier(false)),
            TlsAuthClients::Yes => Some(verifier(true)),
        };
        let accepts = |verifier| accepting(settings, &provider, &versions, &own, verifier);
        let mut server = accepts(of_clients)?;
        keep_sessions(settings, &mut server);
        Ok(Self {
            server: Arc::new(server),
            bus: Arc::new(accepts(Some(verifier(true)))?),
            client: Arc::new(client(&provider, &versions, of_client, verifier(true))?),
        })
    }
}

/// The suites that may be used.
fn provider(settings: &Settings) -> Result<CryptoProvider, String> {
    let (old, new) = (
        settings.tls_ciphers.to_str(),
        settings.tls_ciphersuites.to_str(),
    );
    let mut suites = Vec::new();
    for (what, list, chosen) in [
        ("ciphersuites", &new, ciphers::parse_13(&new)),
        ("ciphers", &old, ciphers::parse(&old)),
    ] {
        let failed = |why: &str| format!("Failed to configure {what}: {list}: {why}");
        let chosen = chosen.map_err(|error| failed(&error))?;
        if chosen.suites.is_empty() {
            return Err(failed("there is none that is supported"));
        }
        if !chosen.absent.is_empty() {
            tracing::warn!(
                "tls-{what}: not supported, and not used: {}",
                chosen.absent.join(" ")
            );
        }
        suites.extend(chosen.suites);
    }
    Ok(CryptoProvider {
        cipher_suites: suites,
        ..ring::default_provider()
    })
}

/// The certificates that are trusted.
fn authorities(settings: &Settings) -> Result<Authorities, String> {
    let mut authorities = Authorities::default();
    let (file, folder) = (&settings.tls_ca_cert_file, &settings.tls_ca_cert_dir);
    let failed = |path: &Path, why: String| {
        format!(
            "Failed to configure CA certificate(s) file/directory: {}: {why}",
            path.display()
        )
    };
    let mut add = |path: &Path| {
        let found = files::certificates(path)?;
        let mut each = found.into_iter();
        each.try_for_each(|certificate| authorities.add(certificate))
    };
    if !file.is_empty() {
        let path = file.as_path();
        add(path).map_err(|why| failed(path, why))?;
    }
    if !folder.is_empty() {
        let path = folder.as_path();
        for path in files::directory(path).map_err(|why| failed(path, why))? {
            // OpenSSL passes over what it cannot read there, too.
            if let Err(why) = add(&path) {
                tracing::warn!("tls-ca-cert-dir: not used: {}: {why}", path.display());
            }
        }
    }
    if (!file.is_empty() || !folder.is_empty()) && authorities.are_without_root() {
        tracing::warn!(
            "None of the CA certificates is its own issuer: no peer's certificate will be accepted."
        );
    }
    Ok(authorities)
}

/// For who connects to us, without sessions to be resumed.
fn accepting(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    own: &Arc<Identity>,
    verifier: Option<Arc<Verifier>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("Failed to configure TLS: {error}"))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(own) as _);
    config.ignore_client_order = settings.tls_prefer_server_ciphers;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Lets clients resume sessions, if they may.
fn keep_sessions(settings: &Settings, config: &mut ServerConfig) {
    if settings.tls_session_caching {
        let size = settings.tls_session_cache_size.max(0).unsigned_abs() as usize;
        let seconds = settings.tls_session_cache_timeout.max(0).unsigned_abs();
        let lifetime = Duration::from_secs(seconds.into());
        config.session_storage = Arc::new(Sessions::new(size, lifetime));
        // Each of them is one that is kept.
        config.send_tls13_tickets = 1;
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    own: Arc<Identity>,
    verifier: Arc<Verifier>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("Failed to configure TLS: {error}"))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.enable_sni = false;
    Ok(config)
}

/// A certificate with its key, for every peer.
#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl Identity {
    fn load(
        (certificate, key): (&Text, &Text),
        passphrase: &Text,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let (certificate, path) = (certificate.as_path(), key.as_path());
        let failed = |why: String| {
            format!(
                "Failed to load certificate: {}: {why}",
                certificate.display()
            )
        };
        let chain = files::certificates(certificate).map_err(failed)?;
        let public = verify::public_key(&chain[0]).map_err(failed)?;
        let failed = |why: String| format!("Failed to load private key: {}: {why}", path.display());
        let key = files::key(path, passphrase).map_err(failed)?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| failed(error.to_string()))?;
        let of_key = key.public_key().map(|public| verify::key_of(&public));
        if let Some(Ok(of_key)) = of_key
            && of_key != public
        {
            return Err(failed("key values mismatch".to_owned()));
        }
        Ok(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
