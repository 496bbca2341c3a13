//! What went wrong with TLS, in the words of a user.

use std::io;

use futures_rustls::rustls::{AlertDescription, CertificateError, Error};

use super::identity::Shown;
use crate::obstacle::{Cause, Obstacle, Step};

/// What an operation on a stream of TLS failed with.
pub(super) fn obstacle(error: &io::Error, with: &str, shown: Shown) -> Obstacle {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let obstacle = match inner {
        Some(error) => Obstacle::new(Step::Tls, with, cause(error, shown)),
        None => Obstacle::io(Step::Tls, with, error),
    };
    match (shown, obstacle.cause()) {
        // Some brokers only hang up. A link that is lost in this moment looks the same, but a broker that
        // asked and got nothing is by far the likelier reason, and the only one that the user can mend.
        // What the system says of the network is no such thing: that may pass.
        (Shown::Nothing, Cause::Ended) => {
            Obstacle::new(Step::Tls, with, Cause::ClientCertificateMissing)
        }
        (Shown::Nothing | Shown::NotAsked | Shown::Certificate, _) => obstacle,
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
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => Cause::WrongName(names(&expected.to_str(), presented).into()),
        // What webpki says, for which rustls has no name.
        CertificateError::Other(error) => Cause::BadCertificate(unnamed(&error.to_string()).into()),
        other => Cause::BadCertificate(other.to_string().into()),
    }
}

/// For whom a certificate is, and for whom it should be.
fn names(expected: &str, presented: &[String]) -> String {
    // webpki shows its own names: `DnsName("broker.example")`, `IpAddress(192.0.2.7)`.
    let plain = |name: &String| {
        let inner = name
            .split_once('(')
            .map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    let presented: Vec<_> = presented.iter().map(plain).collect();
    match presented.as_slice() {
        [] => format!("it has no subjectAltName, where {expected} would have to stand"),
        names => format!("it is for {} and not for {expected}", names.join(", ")),
    }
}

/// The two mistakes that are made with a certificate of one's own, in our words.
fn unnamed(error: &str) -> String {
    match error {
        "CaUsedAsEndEntity" => {
            "it is the one of an authority; the broker needs one of its own, signed by it (CA:FALSE)"
        }
        "UnsupportedCertVersion" => {
            "it is of version 1; version 3 is needed, with a subjectAltName for a broker"
        }
        other => other,
    }
    .to_owned()
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
