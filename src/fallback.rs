//! Which version of MQTT the next attempt speaks, if the broker decides.
//!
//! ```text
//!     Trying(5.0) ── refused, silent, or hung up on twice ──► Trying(3.1.1) ──► Trying(3.1) ──► Trying(5.0)
//!          │                                                        │               │
//!          └─────────────────────── CONNACK ────────────────────────┴───────────────┘
//!                                      ▼
//!                               Settled(version)
//! ```
//!
//! 3.1 is left out for a client whose identifier it cannot say: such a CONNECT is never sent, so that nothing would
//! ever lead on from there.
//!
//! Real brokers do each of the three: some refuse, some hang up, some never answer a version that they do
//! not know. A link that is lost by chance looks like a broker that hangs up, hence twice.

use crate::error::{Error, ErrorKind};
use crate::obstacle::Cause;
use crate::reason::Reason;
use crate::version::{Version, Versions};

/// The machine.
#[derive(Debug)]
pub(crate) enum Fallback {
    /// The user said so, or a broker has let us in.
    Settled(Version),
    Trying {
        version: Version,
        /// The last one before 5.0 comes again.
        oldest: Version,
        /// How often in a row the connection ended instead of a CONNACK.
        ended: u32,
    },
}

/// How often in a row the broker has to hang up before it is taken for an answer.
const ENDED: u32 = 2;

/// What the end of an attempt before CONNACK says of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The broker does not speak it.
    Refused,
    /// It did not answer.
    Silent,
    /// It hung up.
    Ended,
    /// Nothing.
    None,
}

impl Fallback {
    /// Which of these versions a broker speaks; `oldest` is the oldest one that can express our CONNECT.
    pub(crate) fn new(versions: Versions, oldest: Version) -> Self {
        match versions {
            Versions::One(version) => Self::Settled(version),
            Versions::Auto => Self::Trying {
                version: versions.newest(),
                oldest,
                ended: 0,
            },
        }
    }

    /// Whether this version may be spoken.
    pub(crate) fn admits(&self, version: Version) -> bool {
        match self {
            Self::Settled(settled) => *settled == version,
            Self::Trying { .. } => true,
        }
    }

    /// A broker has let us in to a session that an earlier process began in this version.
    pub(crate) fn remember(&mut self, version: Version) {
        *self = Self::Settled(version);
    }

    /// The version of the next attempt.
    pub(crate) fn version(&self) -> Version {
        match self {
            Self::Settled(version) | Self::Trying { version, .. } => *version,
        }
    }

    /// A broker has let us in.
    pub(crate) fn worked(&mut self) {
        *self = Self::Settled(self.version());
    }

    /// An attempt whose CONNECT was sent has failed. Returns whether another version is tried.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        let Self::Trying {
            version,
            oldest,
            ended,
        } = self
        else {
            return false;
        };
        match sign(error) {
            Sign::Refused | Sign::Silent => {}
            Sign::Ended if *ended + 1 >= ENDED => {}
            Sign::Ended => {
                *ended += 1;
                return false;
            }
            Sign::None => {
                *ended = 0;
                return false;
            }
        }
        *ended = 0;
        // From the oldest one up again: perhaps the broker was only down.
        *version = match *version {
            Version::V5_0 => Version::V3_1_1,
            Version::V3_1_1 if *oldest == Version::V3_1 => Version::V3_1,
            Version::V3_1_1 | Version::V3_1 => Version::V5_0,
        };
        // Then nothing is new, and the usual delay is due.
        *version != Version::V5_0
    }
}

fn sign(error: &Error) -> Sign {
    if error.reason() == Some(Reason::UNSUPPORTED_PROTOCOL_VERSION) {
        return Sign::Refused;
    }
    match error.kind() {
        ErrorKind::TimedOut(_) => Sign::Silent,
        ErrorKind::LinkLost => Sign::Ended,
        ErrorKind::Unreachable(obstacle) if *obstacle.cause() == Cause::Ended => Sign::Ended,
        ErrorKind::Io(error) => match error.kind() {
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::BrokenPipe => Sign::Ended,
            // Not ours, so it may grow.
            _ => Sign::None,
        },
        ErrorKind::Topic(..)
        | ErrorKind::Filter(..)
        | ErrorKind::Property(_)
        | ErrorKind::Misuse(_)
        | ErrorKind::Conflict(_)
        | ErrorKind::Store(_)
        | ErrorKind::NotOffered(_)
        | ErrorKind::Closed
        | ErrorKind::QueueFull
        | ErrorKind::Dropped(_)
        | ErrorKind::TooLarge { .. }
        | ErrorKind::Expired
        | ErrorKind::Overflow
        | ErrorKind::Unacknowledged(_)
        | ErrorKind::Refused { .. }
        | ErrorKind::Disconnected { .. }
        | ErrorKind::Protocol(_)
        | ErrorKind::Unproven(_)
        | ErrorKind::NoCredential(_)
        | ErrorKind::SessionLost { .. }
        | ErrorKind::Unreachable(_)
        | ErrorKind::Silent(_) => Sign::None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::error::Doing;

    fn refused(reason: Reason) -> Error {
        let kind = ErrorKind::Refused {
            reason,
            filter: None,
            text: None,
        };
        Error::new(kind, Doing::Connecting)
    }

    fn unsupported() -> Error {
        refused(Reason::UNSUPPORTED_PROTOCOL_VERSION)
    }

    fn silent() -> Error {
        Error::new(
            ErrorKind::TimedOut(Duration::from_secs(10)),
            Doing::Connecting,
        )
    }

    fn ended() -> Error {
        Error::new(ErrorKind::LinkLost, Doing::Connecting)
    }

    fn reset() -> Error {
        Error::io(io::ErrorKind::ConnectionReset.into(), Doing::Connecting)
    }

    #[test]
    fn a_refusal_and_silence_go_one_version_down_at_once() {
        let mut fallback = Fallback::new(Versions::Auto, Version::V3_1);
        assert_eq!(fallback.version(), Version::V5_0);
        assert!(fallback.failed(&unsupported()));
        assert_eq!(fallback.version(), Version::V3_1_1);
        assert!(fallback.failed(&silent()));
        assert_eq!(fallback.version(), Version::V3_1);
        // Everything was tried: from the top again, after a delay.
        assert!(!fallback.failed(&unsupported()));
        assert_eq!(fallback.version(), Version::V5_0);
    }

    #[test]
    fn what_cannot_express_our_connect_is_left_out() {
        let mut fallback = Fallback::new(Versions::Auto, Version::V3_1_1);
        assert!(fallback.failed(&unsupported()));
        assert!(!fallback.failed(&unsupported()));
        assert_eq!(fallback.version(), Version::V5_0);
    }

    #[test]
    fn a_broker_that_hangs_up_has_to_do_so_twice_in_a_row() {
        let mut fallback = Fallback::new(Versions::Auto, Version::V3_1);
        assert!(!fallback.failed(&ended()));
        // Something else came between.
        assert!(!fallback.failed(&refused(Reason::SERVER_BUSY)));
        assert!(!fallback.failed(&reset()));
        assert_eq!(fallback.version(), Version::V5_0);
        assert!(fallback.failed(&ended()));
        assert_eq!(fallback.version(), Version::V3_1_1);
        assert!(!fallback.failed(&ended()));
    }

    #[test]
    fn what_has_worked_is_remembered() {
        let mut fallback = Fallback::new(Versions::Auto, Version::V3_1);
        fallback.failed(&unsupported());
        fallback.worked();
        for error in [unsupported(), silent(), ended(), reset(), ended()] {
            assert!(!fallback.failed(&error));
            assert_eq!(fallback.version(), Version::V3_1_1);
        }
    }

    #[test]
    fn a_version_that_was_named_is_kept() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
            let mut fallback = Fallback::new(version.into(), Version::V3_1);
            assert!(!fallback.failed(&unsupported()));
            assert_eq!(fallback.version(), version);
        }
    }

    #[test]
    fn other_failures_say_nothing_of_the_version() {
        let mut fallback = Fallback::new(Versions::Auto, Version::V3_1);
        for reason in [
            Reason::BAD_USER_NAME_OR_PASSWORD,
            Reason::NOT_AUTHORIZED,
            Reason::SERVER_UNAVAILABLE,
        ] {
            assert!(!fallback.failed(&refused(reason)));
            assert!(!fallback.failed(&refused(reason)));
        }
        assert_eq!(fallback.version(), Version::V5_0);
    }
}
