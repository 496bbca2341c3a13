//! What can go wrong, said so that the reader knows who has to act.
//!
//! Here are the kinds of failure. Who has to act on which is in `blame`, the sentence that says it in
//! `display`.

mod blame;
mod display;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::obstacle::Obstacle;
use crate::properties::{PropertyFault, PropertyList, Remarks, short_text};
use crate::reason::Reason;
use crate::store::StoreError;
use crate::topic::TopicError;
use crate::when_full::WhenFull;

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something failed: who is to blame, what was being done, and whether a message left.
///
/// `Clone`, `Send` and `Sync` although the client is not: it may be boxed and carried anywhere.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    doing: Doing,
    sent: Sent,
    /// Where the attempt led that failed.
    way: Option<Arc<str>>,
    /// What the broker said with it.
    remarks: Remarks,
    /// What went wrong before, if that explains it.
    cause: Option<Arc<Self>>,
}

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doing {
    /// Setting options.
    Configuring,
    /// Opening the transport or waiting for CONNACK.
    Connecting,
    /// Holding the connection: reading, writing, keep-alive.
    Connected,
    /// Publishing a message.
    Publishing,
    /// Sending a request, or waiting for its answer.
    Requesting,
    /// Receiving or acknowledging a message.
    Receiving,
    /// Subscribing.
    Subscribing,
    /// Unsubscribing.
    Unsubscribing,
    /// Waiting for PINGRESP.
    Pinging,
    /// Enhanced authentication: at CONNECT, or again later.
    Authenticating,
    /// Leaving: draining and DISCONNECT.
    Disconnecting,
    /// Keeping the session on disk.
    Storing,
}

/// Whether what the failed call wanted to send reached the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth answer")]
pub enum Sent {
    /// No byte of it left. With a store that still has it, as it has one that was dropped or has expired
    /// until its next batch is on disk, this holds for this process: after a crash the next one may send it.
    No,
    /// It may have arrived, or may still be sent: a wait that times out does not stop what was
    /// accepted.
    Maybe,
    /// It arrived: the broker answered it.
    Yes,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// The program that uses this crate.
    You,
    /// The broker: it refused, or broke the rules.
    Broker,
    /// The network between.
    Network,
    /// A bound: of a queue, a size or a time.
    Limit,
    /// The device on which this runs: its disk.
    Device,
}

/// The kinds of failure.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ErrorKind {
    /// You: not a topic name.
    Topic(Arc<str>, TopicError),
    /// You: not a topic filter.
    Filter(Arc<str>, TopicError),
    /// You: a property that MQTT cannot carry.
    Property(PropertyFault),
    /// You: a call or an option that makes no sense, with the reason.
    Misuse(Arc<str>),
    /// You: the filter is already subscribed to with other options.
    Conflict(Arc<str>),
    /// You: the broker said at connect that it does not offer this.
    NotOffered(Reason),
    /// You: the client was disconnected or its driver has ended.
    Closed,
    /// A limit: the queue is full, or others wait for room before you.
    QueueFull,
    /// A limit: the queue was full, and the policy of the options is to drop this message.
    Dropped(WhenFull),
    /// A limit: the packet is larger than the broker or MQTT allows.
    TooLarge {
        /// Bytes of the packet.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A limit: nothing happened for this long.
    TimedOut(Duration),
    /// A limit: the message's expiry interval passed before it was sent.
    Expired,
    /// A limit: a subscriber did not take its messages and its queue overflowed.
    Overflow,
    /// A limit: the drain of a disconnect ended with this many messages unacknowledged, or at QoS 0
    /// unsent.
    Unacknowledged(usize),
    /// The broker said no.
    Refused {
        /// Its reason.
        reason: Reason,
        /// The filter it refused, if it was one of a SUBSCRIBE or UNSUBSCRIBE.
        filter: Option<Arc<str>>,
        /// Its explanation, if it gave one.
        text: Option<Arc<str>>,
    },
    /// The broker ended the connection with a DISCONNECT; MQTT 5 only.
    Disconnected {
        /// Its reason.
        reason: Reason,
        /// Its explanation, if it gave one.
        text: Option<Arc<str>>,
    },
    /// The broker broke the rules of MQTT.
    Protocol(Violation),
    /// The broker: in an enhanced authentication it did not prove who it is, or what it said makes no
    /// sense there. See [`Error::unproven`].
    Unproven(Arc<str>),
    /// You: there is no credential to authenticate with. See [`Error::no_credential`].
    NoCredential(Arc<str>),
    /// The broker no longer had the session.
    SessionLost {
        /// Whether the broker had confirmed with PUBREC that it received the message.
        received: bool,
    },
    /// Something stood in the way to the broker, below MQTT; who has to act depends on its cause.
    Unreachable(Obstacle),
    /// The network: an operation of the system failed.
    Io(Arc<io::Error>),
    /// The network: the link ended before this was done.
    LinkLost,
    /// The network: the link has been silent, or took no byte, for this long.
    Silent(Duration),
    /// The store of the session failed; who has to act depends on its kind.
    Store(StoreError),
}

/// How the other side broke the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The statement or section of the standard.
    pub clause: &'static str,
    /// What is wrong, as part of a sentence.
    pub what: &'static str,
    /// The reason code with which MQTT 5 wants the connection closed.
    pub reason: Reason,
}

impl Violation {
    /// Bytes that cannot be parsed: 0x81.
    pub(crate) const fn malformed(clause: &'static str, what: &'static str) -> Self {
        Self {
            clause,
            what,
            reason: Reason::MALFORMED_PACKET,
        }
    }

    /// A packet that may not stand here: 0x82.
    pub(crate) const fn protocol(clause: &'static str, what: &'static str) -> Self {
        Self {
            clause,
            what,
            reason: Reason::PROTOCOL_ERROR,
        }
    }

    /// The same with another reason.
    pub(crate) const fn with_reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }
}

impl From<PropertyFault> for Violation {
    fn from(fault: PropertyFault) -> Self {
        Self::malformed(fault.clause, fault.what).with_reason(fault.reason)
    }
}

impl std::error::Error for Violation {}

impl Error {
    /// An error of this kind; nothing was sent.
    pub(crate) fn new(kind: ErrorKind, doing: Doing) -> Self {
        Self {
            kind,
            doing,
            sent: Sent::No,
            way: None,
            remarks: Remarks::NONE,
            cause: None,
        }
    }

    pub(crate) fn sent_as(mut self, sent: Sent) -> Self {
        self.sent = sent;
        self
    }

    pub(crate) fn while_doing(mut self, doing: Doing) -> Self {
        self.doing = doing;
        self
    }

    /// The same with what the broker said.
    pub(crate) fn with_properties(mut self, properties: PropertyList<'_>) -> Self {
        self.remarks = Remarks::kept(properties);
        self
    }

    /// The same, explained by what went wrong before.
    pub(crate) fn because(mut self, cause: Option<&Self>) -> Self {
        self.cause = cause.map(|cause| Arc::new(cause.clone()));
        self
    }

    /// The broker got it and said no, to this filter if it was one of several.
    pub(crate) fn refused(
        reason: Reason,
        filter: Option<&str>,
        remarks: Remarks,
        doing: Doing,
    ) -> Self {
        let kind = ErrorKind::Refused {
            reason,
            filter: filter.map(Into::into),
            text: short_text(remarks.list()).map(Into::into),
        };
        Self::new(kind, doing)
            .sent_as(Sent::Yes)
            .with_properties(remarks.list())
    }

    /// A call that makes no sense, in words.
    pub(crate) fn misuse(text: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorKind::Misuse(text.into()), Doing::Configuring)
    }

    /// For an [`Authenticator`](crate::Authenticator): what the server said is wrong or proves nothing.
    /// The text must not hold a secret, because errors are logged.
    pub fn unproven(text: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorKind::Unproven(text.into()), Doing::Authenticating)
    }

    /// For an [`Authenticator`](crate::Authenticator): there is no credential, perhaps for now. The text
    /// must not hold a secret, because errors are logged.
    pub fn no_credential(text: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorKind::NoCredential(text.into()), Doing::Authenticating)
    }

    pub(crate) fn property(fault: PropertyFault) -> Self {
        Self::new(ErrorKind::Property(fault), Doing::Publishing)
    }

    /// What a transport failed with. The transports of this crate say what stood in the way; a callback
    /// of the user that one of them asked may have failed with an error of this crate, which it stays.
    pub(crate) fn io(error: io::Error, doing: Doing) -> Self {
        let known = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>());
        if let Some(known) = known {
            return known.clone().while_doing(doing);
        }
        let kind = match Obstacle::of(&error) {
            Some(obstacle) => ErrorKind::Unreachable(obstacle.clone()),
            None => ErrorKind::Io(Arc::new(error)),
        };
        Self::new(kind, doing)
    }

    /// The same, of an attempt that led there.
    pub(crate) fn on_the_way(mut self, to: &impl fmt::Display) -> Self {
        self.way = Some(to.to_string().into());
        self
    }

    pub(crate) fn store(error: StoreError) -> Self {
        Self::new(ErrorKind::Store(error), Doing::Storing)
    }

    pub(crate) fn closed(doing: Doing) -> Self {
        Self::new(ErrorKind::Closed, doing)
    }

    /// What happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What was being done.
    pub fn doing(&self) -> Doing {
        self.doing
    }

    /// Whether the message, or the request, of the failed call reached the broker.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Where the attempt to connect led that failed with this: the endpoint, and whether through the proxy of
    /// the options.
    pub fn way(&self) -> Option<&str> {
        self.way.as_deref()
    }

    /// The properties with which the broker refused or disconnected: its reason string, user properties, a
    /// Server Reference; MQTT 5 only. Of more than 4 KiB at most the first and the last are kept.
    pub fn properties(&self) -> PropertyList<'_> {
        self.remarks.list()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.kind, ErrorKind::Closed)
    }

    /// The reason that the broker gave, if this is a refusal or a disconnect.
    pub fn reason(&self) -> Option<Reason> {
        if let ErrorKind::Refused { reason, .. } | ErrorKind::Disconnected { reason, .. } =
            self.kind
        {
            return Some(reason);
        }
        None
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let ErrorKind::Io(error) = &self.kind {
            return Some(error);
        }
        if let ErrorKind::Unreachable(obstacle) = &self.kind {
            return Some(obstacle);
        }
        if let ErrorKind::Store(error) = &self.kind {
            return Some(error);
        }
        self.cause.as_deref().map(|cause| cause as _)
    }
}
