//! Who has to act, and what to expect of another attempt.

use super::{Blame, Error, ErrorKind};
use crate::obstacle::Cause;
use crate::prospect::Prospect;
use crate::store::StoreErrorKind;

impl Error {
    /// Who has to act.
    pub fn blame(&self) -> Blame {
        match &self.kind {
            ErrorKind::Topic(..)
            | ErrorKind::Filter(..)
            | ErrorKind::Property(_)
            | ErrorKind::Misuse(_)
            | ErrorKind::Conflict(_)
            | ErrorKind::NotOffered(_)
            | ErrorKind::NoCredential(_)
            | ErrorKind::Closed => Blame::You,
            ErrorKind::QueueFull
            | ErrorKind::Dropped(_)
            | ErrorKind::TooLarge { .. }
            | ErrorKind::TimedOut(_)
            | ErrorKind::Expired
            | ErrorKind::Overflow
            | ErrorKind::Unacknowledged(_) => Blame::Limit,
            ErrorKind::Refused { .. }
            | ErrorKind::Disconnected { .. }
            | ErrorKind::Protocol(_)
            | ErrorKind::Unproven(_)
            | ErrorKind::SessionLost { .. } => Blame::Broker,
            ErrorKind::Io(_) | ErrorKind::LinkLost | ErrorKind::Silent(_) => Blame::Network,
            ErrorKind::Unreachable(obstacle) => blame_for(obstacle.cause()),
            ErrorKind::Store(error) => match error.kind() {
                StoreErrorKind::InUse => Blame::You,
                StoreErrorKind::Full
                | StoreErrorKind::ReadOnly
                | StoreErrorKind::Damaged
                | StoreErrorKind::Other => Blame::Device,
            },
        }
    }

    /// What to expect of another attempt after this.
    pub fn prospect(&self) -> Prospect {
        let hopeless = match (&self.kind, self.reason()) {
            (_, Some(reason)) => return Prospect::of(reason),
            (ErrorKind::Unreachable(obstacle), None) => obstacle.is_permanent(),
            (ErrorKind::Unproven(_) | ErrorKind::Store(_), None) => true,
            // Where it comes from may be out of reach for a while.
            (ErrorKind::NoCredential(_), None) => false,
            (_, None) => self.blame() == Blame::You,
        };
        if hopeless {
            Prospect::CannotHeal
        } else {
            Prospect::Reconnect
        }
    }

    /// Whether trying again cannot help until someone acts: bad credentials, a client id that is not
    /// accepted or was taken over, a broker that has moved, a certificate that is not trusted, a broker that
    /// does not prove who it is, a mistake of the program. The same as [`Prospect::CannotHeal`].
    pub fn is_permanent(&self) -> bool {
        self.prospect() == Prospect::CannotHeal
    }
}

fn blame_for(cause: &Cause) -> Blame {
    match cause {
        Cause::Settings(_)
        | Cause::ClientCertificateMissing
        | Cause::ClientCertificateRefused(_)
        | Cause::ProxyLogin => Blame::You,
        Cause::TimedOut(_) => Blame::Limit,
        Cause::System(..) | Cause::Ended | Cause::HungUp | Cause::ProxyRefused(_) => Blame::Network,
        Cause::UnknownIssuer
        | Cause::CertificateExpired
        | Cause::CertificateNotYetValid
        | Cause::WrongName(_)
        | Cause::BadCertificate(_)
        | Cause::NoCommonAlpn
        | Cause::NoCommonTls(_)
        | Cause::UpgradeRefused(_)
        | Cause::OtherProtocol(_)
        | Cause::Rules(_) => Blame::Broker,
    }
}
