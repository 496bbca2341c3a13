//! Who we are to the broker, and whether it asked; and whom we take for the broker without proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_rustls::rustls::client::ResolvesClientCert;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::sign::CertifiedKey;
use futures_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// The client certificate, if there is one, and whether the broker asked for it.
///
/// A broker that wants one ends a handshake without it by an alert that often does not say so. That it
/// asked before is what tells the case from others.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: Option<Arc<CertifiedKey>>,
    /// An atomic because rustls wants it to be `Sync`; it never leaves the thread.
    asked: AtomicBool,
}

/// What the broker has been told of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It did not ask, or resumed a session.
    NotAsked,
    /// It asked, and there was none.
    Nothing,
    /// It asked, and was shown the certificate.
    Certificate,
}

impl Identity {
    pub(super) fn new(certificate: Option<Arc<CertifiedKey>>) -> Self {
        Self {
            certificate,
            asked: AtomicBool::new(false),
        }
    }

    /// Whether the broker has asked since this was looked at last.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// What a broker that asked, or did not, has been told.
    pub(super) fn shown(&self, asked: bool) -> Shown {
        match (asked, &self.certificate) {
            (false, _) => Shown::NotAsked,
            (true, None) => Shown::Nothing,
            (true, Some(_)) => Shown::Certificate,
        }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

/// Takes any certificate. That the broker holds its key is still proven.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
