//! What an error says: what was being done, what happened, and whether the message was sent.

use std::fmt;

use super::{Doing, Error, ErrorKind, Sent, Violation};
use crate::when_full::WhenFull;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.doing)?;
        if let Some(way) = &self.way {
            write!(f, "{way}: ")?;
        }
        match &self.kind {
            ErrorKind::Topic(topic, error) => write!(f, "the topic {topic:?} {error}"),
            ErrorKind::Filter(filter, error) => write!(f, "the filter {filter:?} {error}"),
            ErrorKind::Property(fault) => write!(f, "{fault}"),
            ErrorKind::Misuse(text) => f.write_str(text),
            ErrorKind::Conflict(filter) => {
                write!(
                    f,
                    "the filter {filter:?} is already subscribed to with other options"
                )
            }
            ErrorKind::NotOffered(reason) => write!(f, "the broker does not offer this: {reason}"),
            ErrorKind::Closed => f.write_str("the client is closed"),
            ErrorKind::QueueFull => f.write_str("the queue is full"),
            ErrorKind::Dropped(WhenFull::DropOldest) => {
                f.write_str("the queue was full and newer messages go first")
            }
            ErrorKind::Dropped(WhenFull::DropNewest | WhenFull::Fail) => {
                f.write_str("the queue was full and older messages go first")
            }
            ErrorKind::TooLarge { size, limit } => {
                write!(f, "a packet of {size} bytes is above the limit of {limit}")
            }
            ErrorKind::TimedOut(after) => write!(f, "no answer within {after:?}"),
            ErrorKind::Expired => f.write_str("the message expired before it could be sent"),
            ErrorKind::Overflow => f.write_str("the queue of untaken messages overflowed"),
            ErrorKind::Unacknowledged(count) => write!(f, "{count} messages stay unacknowledged"),
            ErrorKind::Refused {
                reason,
                filter,
                text,
            } => {
                f.write_str("the broker refused")?;
                if let Some(filter) = filter {
                    write!(f, " the filter {filter:?}")?;
                }
                write!(f, ": {reason}")?;
                if let Some(text) = text {
                    write!(f, ", {text:?}")?;
                }
                Ok(())
            }
            ErrorKind::Disconnected { reason, text } => {
                write!(f, "the broker disconnected: {reason}")?;
                text.as_ref().map_or(Ok(()), |text| write!(f, ", {text:?}"))
            }
            ErrorKind::Protocol(violation) => write!(f, "the broker broke the rules: {violation}"),
            ErrorKind::Unproven(text) => {
                write!(f, "the broker did not prove who it is: {text}")
            }
            ErrorKind::NoCredential(text) => write!(f, "there is no credential: {text}"),
            ErrorKind::SessionLost { received: true } => {
                f.write_str("the broker lost the session after it had received the message")
            }
            ErrorKind::SessionLost { received: false } => {
                f.write_str("the broker lost the session")
            }
            ErrorKind::Unreachable(obstacle) => write!(f, "{obstacle}"),
            ErrorKind::Io(error) => write!(f, "{error}"),
            ErrorKind::LinkLost => f.write_str("the link was lost"),
            ErrorKind::Silent(after) => write!(f, "the link was silent for {after:?}"),
            ErrorKind::Store(error) => write!(f, "{error}"),
        }?;
        match (self.doing, self.sent) {
            (Doing::Publishing | Doing::Requesting, Sent::No) => f.write_str(" (not sent)"),
            (Doing::Publishing | Doing::Requesting, Sent::Maybe) => f.write_str(" (perhaps sent)"),
            (Doing::Publishing | Doing::Requesting, Sent::Yes) => f.write_str(" (sent)"),
            (_, Sent::No | Sent::Maybe | Sent::Yes) => Ok(()),
        }?;
        self.cause
            .as_ref()
            .map_or(Ok(()), |cause| write!(f, "; before that, {cause}"))
    }
}

impl fmt::Debug for Error {
    /// The same sentence as `Display`, because this is what a failing `main` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuring => "options",
            Self::Connecting => "connect",
            Self::Connected => "connection",
            Self::Publishing => "publish",
            Self::Requesting => "request",
            Self::Receiving => "receive",
            Self::Subscribing => "subscribe",
            Self::Unsubscribing => "unsubscribe",
            Self::Pinging => "ping",
            Self::Authenticating => "authenticate",
            Self::Disconnecting => "disconnect",
            Self::Storing => "store",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.what, self.clause)
    }
}
