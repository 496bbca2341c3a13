//! What stood in the way of a connection, below MQTT: a name, a socket, a proxy, TLS, a WebSocket.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What stood in the way to the broker, below MQTT: at which step, with whom, and why.
///
/// As text it is one sentence, for example `TLS with broker.example: the certificate has expired`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    step: Step,
    with: Arc<str>,
    cause: Cause,
}

/// The steps on the way to the broker, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Looking up the addresses of a name.
    Name,
    /// Connecting by TCP.
    Tcp,
    /// Connecting to a Unix socket.
    Unix,
    /// Asking a proxy to connect on.
    Proxy,
    /// Agreeing on TLS, and TLS itself afterwards.
    Tls,
    /// Turning HTTP into a WebSocket, and the WebSocket itself afterwards.
    WebSocket,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name look-up of",
            Self::Tcp => "TCP to",
            Self::Unix => "Unix socket",
            Self::Proxy => "proxy",
            Self::Tls => "TLS with",
            Self::WebSocket => "WebSocket with",
        })
    }
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// You: what was set cannot be used, a file that cannot be read for example.
    Settings(Arc<str>),
    /// You: the broker wants a client certificate and none is set.
    ClientCertificateMissing,
    /// You: the broker does not accept the client certificate, and says this of it.
    ClientCertificateRefused(Arc<str>),
    /// You: the proxy wants a user name and a password, or others than these.
    ProxyLogin,
    /// The network: an operation of the system failed.
    System(io::ErrorKind, Arc<str>),
    /// A limit: no answer within this time.
    TimedOut(Duration),
    /// The network: the other side ended the connection in the middle.
    Ended,
    /// The network: the other side ended the connection before this step was done, perhaps because it expects
    /// another protocol.
    HungUp,
    /// The network: the proxy does not connect there, and says this.
    ProxyRefused(Arc<str>),
    /// The broker: nobody whom we trust has signed its certificate.
    UnknownIssuer,
    /// The broker: its certificate has expired, or the clock of this device is wrong.
    CertificateExpired,
    /// The broker: its certificate is not valid yet, or the clock of this device is wrong.
    CertificateNotYetValid,
    /// The broker: its certificate is for other names than this one.
    WrongName(Arc<str>),
    /// The broker: its certificate is wrong in another way.
    BadCertificate(Arc<str>),
    /// The broker: it knows none of the application protocols (ALPN) that were offered.
    NoCommonAlpn,
    /// The broker: it speaks no version of TLS, or no cipher, that is allowed here.
    NoCommonTls(Arc<str>),
    /// The broker: it answered the upgrade to a WebSocket with this HTTP status.
    UpgradeRefused(u16),
    /// The other side speaks something else, with what was seen of it.
    OtherProtocol(Arc<str>),
    /// The other side broke the rules of this step.
    Rules(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(text) | Self::System(_, text) | Self::Rules(text) => f.write_str(text),
            Self::ClientCertificateMissing => {
                f.write_str("the broker wants a client certificate and none is set")
            }
            Self::ClientCertificateRefused(text) => {
                write!(f, "the broker refused the client certificate: {text}")
            }
            Self::ProxyLogin => {
                f.write_str("it wants a user name and a password, or others than these")
            }
            Self::TimedOut(after) => write!(f, "no answer within {after:?}"),
            Self::Ended => f.write_str("the other side ended the connection"),
            Self::HungUp => f.write_str(
                "the other side ended the connection; perhaps it expects another protocol there",
            ),
            Self::ProxyRefused(text) => write!(f, "it does not connect there: {text}"),
            Self::UnknownIssuer => {
                f.write_str("the certificate is not signed by an authority that is trusted here")
            }
            Self::CertificateExpired => {
                f.write_str("the certificate has expired, or the clock of this device is wrong")
            }
            Self::CertificateNotYetValid => f.write_str(
                "the certificate is not valid yet, or the clock of this device is wrong",
            ),
            Self::WrongName(text) => write!(f, "the certificate is not for this name: {text}"),
            Self::BadCertificate(text) => write!(f, "the certificate is not accepted: {text}"),
            Self::NoCommonAlpn => {
                f.write_str("it knows none of the application protocols (ALPN) offered")
            }
            Self::NoCommonTls(text) => {
                write!(f, "no version of TLS or cipher in common: {text}")
            }
            Self::UpgradeRefused(status) => {
                write!(f, "it answered the upgrade with HTTP status {status}")
            }
            Self::OtherProtocol(text) => write!(f, "it speaks something else: {text}"),
        }
    }
}

impl Obstacle {
    /// An obstacle at this step, `with` this name, address or path.
    pub(crate) fn new(step: Step, with: impl Into<Arc<str>>, cause: Cause) -> Self {
        Self {
            step,
            with: with.into(),
            cause,
        }
    }

    /// An operation of the system failed. What is an obstacle already stays as it is.
    pub(crate) fn io(step: Step, with: &str, error: &io::Error) -> Self {
        if let Some(known) = Self::of(error) {
            return known.clone();
        }
        let cause = match error.kind() {
            // Who hangs up with bytes unread sends a reset. Which of these is seen is chance.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Cause::Ended,
            kind => Cause::System(kind, error.to_string().into()),
        };
        Self::new(step, with, cause)
    }

    /// The same, met while a step was taken. Whoever hangs up then is often somebody who waits for something
    /// else: a broker on its plain port says nothing to TLS.
    pub(crate) fn while_agreeing(mut self) -> Self {
        self.cause = match (self.step, self.cause) {
            (Step::Proxy | Step::Tls | Step::WebSocket, Cause::Ended) => Cause::HungUp,
            (_, cause) => cause,
        };
        self
    }

    /// The obstacle inside of an error that went through the door of the transports.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// At which step it stood.
    pub fn step(&self) -> Step {
        self.step
    }

    /// With whom: a name, an address, the path of a socket.
    pub fn with(&self) -> &str {
        &self.with
    }

    /// Why.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Whether trying again cannot help until someone acts: here, at the proxy or at the broker.
    pub fn is_permanent(&self) -> bool {
        match self.cause {
            Cause::Settings(_)
            | Cause::ClientCertificateMissing
            | Cause::ClientCertificateRefused(_)
            | Cause::ProxyLogin
            | Cause::UnknownIssuer
            | Cause::CertificateExpired
            | Cause::CertificateNotYetValid
            | Cause::WrongName(_)
            | Cause::BadCertificate(_)
            | Cause::NoCommonAlpn
            | Cause::NoCommonTls(_) => true,
            Cause::System(..)
            | Cause::TimedOut(_)
            | Cause::Ended
            | Cause::HungUp
            | Cause::ProxyRefused(_)
            | Cause::UpgradeRefused(_)
            | Cause::OtherProtocol(_)
            | Cause::Rules(_) => false,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.step, self.with, self.cause)
    }
}

impl std::error::Error for Obstacle {}

impl From<Obstacle> for io::Error {
    fn from(obstacle: Obstacle) -> Self {
        let kind = match obstacle.cause {
            Cause::System(kind, _) => kind,
            Cause::TimedOut(_) => io::ErrorKind::TimedOut,
            Cause::Ended | Cause::HungUp => io::ErrorKind::UnexpectedEof,
            Cause::Settings(_) => io::ErrorKind::InvalidInput,
            Cause::ClientCertificateMissing
            | Cause::ClientCertificateRefused(_)
            | Cause::ProxyLogin => io::ErrorKind::PermissionDenied,
            Cause::ProxyRefused(_) | Cause::UpgradeRefused(_) => io::ErrorKind::ConnectionRefused,
            Cause::UnknownIssuer
            | Cause::CertificateExpired
            | Cause::CertificateNotYetValid
            | Cause::WrongName(_)
            | Cause::BadCertificate(_)
            | Cause::NoCommonAlpn
            | Cause::NoCommonTls(_)
            | Cause::OtherProtocol(_)
            | Cause::Rules(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, obstacle)
    }
}
