//! TLS by rustls, with ring.
//!
//! Certificates and keys are read again at each attempt, so that they can be replaced without a restart.
//! As long as they stay the same, sessions of TLS are resumed.

mod config;
mod identity;
mod obstacle;
mod secured;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::rustls::ClientConfig;

pub(super) use config::TlsConnector;

/// How TLS is spoken: whom to trust, who we are, and what is offered.
///
/// ```
/// use coracle::{Options, Tls};
///
/// # fn main() -> coracle::Result<()> {
/// let tls = Tls::new()
///     .roots_file("/etc/pump/ca.pem")
///     .client_certificate_files("/etc/pump/cert.pem", "/etc/pump/key.pem")
///     .alpn(["x-amzn-mqtt-ca"]);
/// let options = Options::new("mqtts://broker.example:443", "pump-1")?.tls(tls);
/// # let _ = options; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "settings have an effect only when they are given to the options"]
pub struct Tls {
    roots: Roots,
    identity: Option<(Pem, Pem)>,
    server_name: Option<Rc<str>>,
    alpn: Rc<[Rc<str>]>,
    minimum: TlsVersion,
    verification: Verification,
    own: Option<Arc<ClientConfig>>,
}

/// The versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Whose certificates are trusted.
#[derive(Debug, Clone)]
enum Roots {
    /// The authorities that Mozilla trusts, as they were when this crate was built.
    Bundled,
    /// Those of the system.
    #[cfg(feature = "system-roots")]
    System,
    Pem(Pem),
}

/// Where PEM stands.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Bytes(Rc<[u8]>),
}

impl fmt::Debug for Pem {
    /// Never what stands in it: it may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Whether the broker has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verification {
    Full,
    /// It may be anyone.
    None,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// TLS 1.2 or 1.3, the roots of Mozilla, no client certificate, no ALPN.
    pub fn new() -> Self {
        Self {
            roots: Roots::Bundled,
            identity: None,
            server_name: None,
            alpn: Rc::default(),
            minimum: TlsVersion::V1_2,
            verification: Verification::Full,
            own: None,
        }
    }

    /// Trusts the authorities in this PEM file, and no others. The file is read at each attempt.
    ///
    /// Defaults to the authorities that Mozilla trusts, which are built in.
    pub fn roots_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots = Roots::Pem(Pem::File(path.into()));
        self
    }

    /// Trusts these authorities in PEM, and no others.
    pub fn roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Roots::Pem(Pem::Bytes(pem.into().into()));
        self
    }

    /// Trusts the authorities that the system trusts. They are read at each attempt, which takes a few
    /// milliseconds.
    #[cfg(feature = "system-roots")]
    pub fn system_roots(mut self) -> Self {
        self.roots = Roots::System;
        self
    }

    /// Shows the broker a client certificate: PEM files with the certificate (and those between it and the
    /// authority) and with its key (PKCS#8, PKCS#1 or SEC1). They are read at each attempt.
    ///
    /// Defaults to none.
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// The same with the PEM itself.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((
            Pem::Bytes(certificate.into().into()),
            Pem::Bytes(key.into().into()),
        ));
        self
    }

    /// Asks for this name and expects a certificate for it: for brokers that are reached by an address, or
    /// through a tunnel. Defaults to the host of the endpoint.
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Offers these application protocols (ALPN), the first one preferred. Several brokers share port 443
    /// by it: `x-amzn-mqtt-ca` with a client certificate or `mqtt` with a password at AWS IoT.
    ///
    /// Defaults to none. A broker that knows nothing of ALPN is not refused.
    pub fn alpn<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.alpn = names.into_iter().map(Rc::from).collect();
        self
    }

    /// Refuses older versions of TLS. Defaults to TLS 1.2.
    pub fn minimum_version(mut self, version: TlsVersion) -> Self {
        self.minimum = version;
        self
    }

    /// **Dangerous**: takes any certificate, so that anyone between this device and the broker can read and
    /// change everything, passwords included. For tests only; each connection logs a warning.
    ///
    /// Better trust a private authority with [`Tls::roots_file`].
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.verification = Verification::None;
        self
    }

    /// Uses a configuration of rustls as it is; see [`rustls`](crate::rustls). Of the other settings only
    /// [`Tls::server_name`] counts beside it, and ALPN where a [`Rung`](crate::Rung) has its own.
    pub fn client_config(mut self, config: Arc<ClientConfig>) -> Self {
        self.own = Some(config);
        self
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("alpn", &self.alpn)
            .field("minimum", &self.minimum)
            .field("verification", &self.verification)
            .field("own", &self.own.is_some())
            .finish()
    }
}

impl Pem {
    /// The bytes as they are now, of `what`.
    fn read(&self, what: &str) -> Result<Rc<[u8]>, String> {
        match self {
            Self::Bytes(bytes) => Ok(Rc::clone(bytes)),
            // Blocking, a few hundred microseconds at each attempt: a thread for it would cost more.
            Self::File(path) => std::fs::read(path)
                .map(Rc::from)
                .map_err(|error: io::Error| format!("{}: {error}", self.named(what))),
        }
    }

    /// What errors call it: `what` it is, and the file if there is one.
    fn named(&self, what: &str) -> String {
        match self {
            Self::Bytes(_) => what.to_owned(),
            Self::File(path) => format!("{what} in {}", path.display()),
        }
    }
}
