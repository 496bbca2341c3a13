//! The configuration of rustls, made of what the files hold now.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{ClientConfig, Error, RootCertStore};

use super::identity::{AnyCertificate, Identity, Shown};
use super::obstacle::cause;
use super::secured::Secured;
use super::{Roots, Tls, TlsVersion, Verification};
use crate::obstacle::{Cause, Obstacle, Step};
use crate::transport::{BoxedTransport, Endpoint};

/// Sessions of TLS that are kept to be resumed: one of several endpoints may be in use, each with a few
/// tickets. rustls would keep 256.
const SESSIONS: usize = 32;

/// What errors call the things that are read.
const ROOTS: &str = "the authorities to trust";
const CERTIFICATE: &str = "the client certificate";
const KEY: &str = "the client key";

/// A certificate and its key, in PEM.
type KeyPair = (Rc<[u8]>, Rc<[u8]>);

/// Puts TLS on connections, as one client has set it.
pub(in crate::transport) struct TlsConnector {
    settings: Tls,
    last: RefCell<Option<Made>>,
}

/// A configuration, and what it was made of.
#[derive(Clone)]
struct Made {
    /// Of the roots, the certificate and the key. A hash, so that no copy of the key is kept; the files
    /// are the user's own, so nobody seeks for two with the same one.
    fingerprint: u64,
    config: Arc<ClientConfig>,
    identity: Arc<Identity>,
}

impl TlsConnector {
    pub(in crate::transport) fn new(settings: Tls) -> Self {
        Self {
            settings,
            last: RefCell::new(None),
        }
    }

    /// Agrees on TLS with the broker at the other end of `stream`.
    pub(in crate::transport) async fn secure(
        &self,
        stream: BoxedTransport,
        endpoint: &Endpoint,
    ) -> io::Result<BoxedTransport> {
        let host = endpoint.host();
        let Made {
            config, identity, ..
        } = self
            .configure()
            .map_err(|text| Obstacle::new(Step::Tls, host, Cause::Settings(text.into())))?;
        let config = match endpoint.alpn() {
            Some(names) => offering(&config, names),
            None => config,
        };
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let text = format!("{name:?} is neither a name nor an address");
            Obstacle::new(Step::Tls, host, Cause::Settings(text.into()))
        })?;
        if self.settings.verification == Verification::None {
            log::warn!("TLS with {host}: whoever answers is taken for the broker");
        }
        Secured::shake_hands(stream, host, config, name, identity).await
    }

    /// What the files hold now. As long as that is what they held before, it is the same configuration,
    /// with the sessions that can be resumed.
    fn configure(&self) -> Result<Made, String> {
        if let Some(own) = &self.settings.own {
            return Ok(Made {
                fingerprint: 0,
                config: Arc::clone(own),
                identity: Arc::new(Identity::new(None)),
            });
        }
        let roots = read_roots(&self.settings.roots)?;
        let pem = match &self.settings.identity {
            Some((certificate, key)) => Some((certificate.read(CERTIFICATE)?, key.read(KEY)?)),
            None => None,
        };
        let mut hasher = DefaultHasher::new();
        (&roots, &pem).hash(&mut hasher);
        let fingerprint = hasher.finish();
        if let Some(last) = &*self.last.borrow()
            && last.fingerprint == fingerprint
        {
            return Ok(last.clone());
        }
        let made = self.make(fingerprint, &roots, pem.as_ref())?;
        *self.last.borrow_mut() = Some(made.clone());
        Ok(made)
    }

    fn make(
        &self,
        fingerprint: u64,
        roots: &[CertificateDer<'_>],
        pem: Option<&KeyPair>,
    ) -> Result<Made, String> {
        // Named, because a default for the process may be missing, or someone else's.
        let provider = Arc::new(ring::default_provider());
        let certificate = match pem {
            Some(pair) => Some(self.certified(pair, &provider)?),
            None => None,
        };
        let identity = Arc::new(Identity::new(certificate));
        let versions = match self.settings.minimum {
            TlsVersion::V1_2 => &[&TLS13, &TLS12][..],
            TlsVersion::V1_3 => &[&TLS13][..],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match self.settings.verification {
            Verification::Full => builder.with_root_certificates(self.store(roots)?),
            Verification::None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let resolver = Arc::clone(&identity);
        let mut config = builder.with_client_cert_resolver(resolver);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let alpn = self.settings.alpn.iter();
        config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).collect();
        Ok(Made {
            fingerprint,
            config: Arc::new(config),
            identity,
        })
    }

    fn certified(
        &self,
        (certificate, key): &KeyPair,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, String> {
        let (certificate_name, key_name) = match &self.settings.identity {
            Some((certificate, key)) => (certificate.named(CERTIFICATE), key.named(KEY)),
            None => (CERTIFICATE.to_owned(), KEY.to_owned()),
        };
        let chain = certificates(certificate, &certificate_name)?;
        // The error of a parser might repeat what it read, and this is the key.
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            if is_encrypted(key) {
                format!("{key_name}: it is encrypted; one without a passphrase is needed")
            } else {
                format!("{key_name}: no PEM with a PKCS#8, PKCS#1 or SEC1 key")
            }
        })?;
        match CertifiedKey::from_der(chain, key, provider) {
            Ok(certified) => Ok(Arc::new(certified)),
            Err(Error::InconsistentKeys(_)) => Err(format!(
                "{key_name}: it does not belong to {certificate_name}"
            )),
            Err(error) => Err(format!(
                "{certificate_name}: {}",
                cause(&error, Shown::NotAsked)
            )),
        }
    }

    fn store(&self, roots: &[CertificateDer<'_>]) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        match &self.settings.roots {
            Roots::Bundled => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            // Systems keep some that webpki cannot parse; the rest has to do.
            #[cfg(feature = "system-roots")]
            Roots::System => {
                store.add_parsable_certificates(roots.iter().map(|root| root.clone().into_owned()));
            }
            Roots::Pem(_) => {
                for root in roots {
                    store
                        .add(root.clone().into_owned())
                        .map_err(|error| format!("an authority to trust: {error}"))?;
                }
            }
        }
        // Nobody would be trusted, and a user would look for the fault at the broker.
        if store.is_empty() {
            return Err("there is no authority to trust".to_owned());
        }
        Ok(store)
    }
}

/// The certificates of the authorities; none for those that are built in.
fn read_roots(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, String> {
    match roots {
        Roots::Bundled => Ok(Vec::new()),
        #[cfg(feature = "system-roots")]
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            match found.errors.first() {
                Some(error) if found.certs.is_empty() => {
                    Err(format!("the authorities of the system: {error}"))
                }
                Some(_) | None => Ok(found.certs),
            }
        }
        Roots::Pem(pem) => certificates(&pem.read(ROOTS)?, &pem.named(ROOTS)),
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{what}: not PEM: {error}"))?;
    // An empty file is a mistake and never means that nobody, or anybody, is trusted.
    if found.is_empty() {
        return Err(format!("{what}: the PEM holds no certificate"));
    }
    Ok(found)
}

/// Whether a passphrase protects it: PKCS#8 (RFC 7468, section 11), or as OpenSSL did before (RFC 1421).
fn is_encrypted(pem: &[u8]) -> bool {
    let holds = |words: &[u8]| pem.windows(words.len()).any(|part| part == words);
    holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED")
}

/// The same with other application protocols. Sessions are shared with the original.
fn offering(config: &ClientConfig, names: &[Rc<str>]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
