//! What went wrong with TLS, in the words of a user.

use std::io;

use futures_rustls::rustls::{AlertDescription, CertificateError, Error};

use super::identity::Shown;
use crate::obstacle::{Cause, Obstacle, Step};

/// What an operation on a stream of TLS failed with.
pub(super) fn obstacle(error: &io::Error, with: &str, shown: Shown) -> Obstacle {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => Obstacle::new(Step::Tls, with, cause(error, shown)),
        None => Obstacle::io(Step::Tls, with, error),
    }
}

/// Why TLS failed, in our words.
pub(super) fn cause(error: &Error, shown: Shown) -> Cause {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alerted(*alert, shown),
        Error::NoApplicationProtocol => Cause::NoCommonAlpn,
        Error::PeerIncompatible(_) => Cause::NoCommonTls(error.to_string().into()),
        Error::InvalidMessage(_) => Cause::OtherProtocol(
            "what it sent is not TLS, so perhaps this is a port without TLS".into(),
        ),
        // Not ours, so it may grow; the rest is rare, and its text says it.
        _ => Cause::Rules(error.to_string().into()),
    }
}

fn certificate(error: &CertificateError) -> Cause {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Cause::CertificateExpired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Cause::CertificateNotYetValid
        }
        CertificateError::UnknownIssuer => Cause::UnknownIssuer,
        CertificateError::NotValidForName => Cause::WrongName("it does not say for which".into()),
        CertificateError::NotValidForNameContext { presented, .. } => Cause::WrongName(
            match presented.as_slice() {
                [] => "it is for none".to_owned(),
                names => format!("it is for {}", names.join(", ")),
            }
            .into(),
        ),
        other => Cause::BadCertificate(other.to_string().into()),
    }
}

/// The broker ended it, and this is all that it says.
fn alerted(alert: AlertDescription, shown: Shown) -> Cause {
    match (alert, shown) {
        (AlertDescription::NoApplicationProtocol, _) => Cause::NoCommonAlpn,
        (AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity, _) => {
            Cause::NoCommonTls(said(alert))
        }
        (AlertDescription::UnrecognisedName, _) => Cause::WrongName(said(alert)),
        (AlertDescription::CertificateRequired, Shown::NotAsked | Shown::Nothing) => {
            Cause::ClientCertificateMissing
        }
        // Before TLS 1.3 there is no alert for a missing certificate. With one of these it may end only
        // after it asked, when version and cipher are agreed on.
        (
            AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA,
            Shown::Nothing,
        ) => Cause::ClientCertificateMissing,
        (
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
            Shown::Certificate,
        ) => Cause::ClientCertificateRefused(said(alert)),
        (AlertDescription::HandshakeFailure, Shown::NotAsked) => Cause::NoCommonTls(said(alert)),
        _ => Cause::Rules(said(alert)),
    }
}

fn said(alert: AlertDescription) -> std::sync::Arc<str> {
    format!("it sent the alert {alert:?}").into()
}
