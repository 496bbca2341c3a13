//! A stream of messages, and what dropping it does.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::Stream;

use crate::codec::Place;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::message::{Duty, Message, Qos};
use crate::options::{Acknowledge, Overflow};
use crate::properties::{Properties, PropertyList, Remarks};
use crate::protocol::{Asked, Grant, Kept, Receipt};
use crate::reason::Reason;
use crate::router::Sink;
use crate::shared::{Shared, WeakShared};
use crate::version::Version;

/// Whether retained messages come with a subscription (MQTT 5, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "the standard forbids a fourth")]
pub enum RetainHandling {
    /// With every SUBSCRIBE.
    #[default]
    Send,
    /// Only if the broker did not have the subscription yet.
    SendIfNew,
    /// Never.
    DoNotSend,
}

impl RetainHandling {
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::Send => 0,
            Self::SendIfNew => 1,
            Self::DoNotSend => 2,
        }
    }
}

/// What a subscription is to be, for [`Client::subscribe_many`](crate::Client::subscribe_many).
///
/// ```
/// use coracle::{Acknowledge, Filters, Qos};
///
/// let filters = Filters::new("house/+/set", Qos::AtLeastOnce)
///     .and("house/+/get", Qos::AtMostOnce)
///     .acknowledge(Acknowledge::ByHand);
/// # let _ = filters;
/// ```
#[derive(Debug, Clone)]
#[must_use = "filters have an effect only when they are subscribed to"]
pub struct Filters {
    pub(crate) filters: Vec<(Rc<str>, Qos)>,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
    pub(crate) identifier: Option<u32>,
    pub(crate) properties: Properties,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) overflow: Overflow,
    pub(crate) stream_bytes: Option<usize>,
    /// The version in whose form the filters are, if what comes is requests.
    pub(crate) serves: Option<Version>,
}

impl Filters {
    /// One filter, with the highest QoS at which its messages are wanted.
    pub fn new(filter: impl Into<Rc<str>>, qos: Qos) -> Self {
        Self {
            filters: vec![(filter.into(), qos)],
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            identifier: None,
            properties: Properties::new(),
            acknowledge: Acknowledge::OnTake,
            overflow: Overflow::DropOldest,
            stream_bytes: None,
            serves: None,
        }
    }

    /// Adds another filter, whose messages come on the same stream.
    pub fn and(mut self, filter: impl Into<Rc<str>>, qos: Qos) -> Self {
        self.filters.push((filter.into(), qos));
        self
    }

    /// Sets whether this client's own messages are left out; MQTT 5 only. Defaults to false.
    pub fn no_local(mut self, no_local: bool) -> Self {
        self.no_local = no_local;
        self
    }

    /// Sets whether the retain flag comes as it was published, instead of saying whether the message
    /// came because of the subscription; MQTT 5 only. Defaults to false.
    pub fn retain_as_published(mut self, as_published: bool) -> Self {
        self.retain_as_published = as_published;
        self
    }

    /// Sets when retained messages come; MQTT 5 only. Defaults to [`RetainHandling::Send`].
    pub fn retain_handling(mut self, handling: RetainHandling) -> Self {
        self.retain_handling = handling;
        self
    }

    /// Sets the subscription identifier, 1 to 268,435,455, which comes back with each message; MQTT 5
    /// only, and an error where the broker does not know identifiers. Those from 16,384 on may be taken.
    ///
    /// Defaults to one that is given automatically, see [`Options::subscription_identifiers`].
    ///
    /// [`Options::subscription_identifiers`]: crate::Options::subscription_identifiers
    pub fn identifier(mut self, identifier: u32) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// Sets the user properties of SUBSCRIBE, also of one that makes the subscription again after the broker
    /// lost the session; MQTT 5 only. Defaults to none.
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// Sets when messages of QoS 1 and 2 are acknowledged. Defaults to [`Acknowledge::OnTake`].
    pub fn acknowledge(mut self, acknowledge: Acknowledge) -> Self {
        self.acknowledge = acknowledge;
        self
    }

    /// Sets what happens when the stream is not read. Defaults to [`Overflow::DropOldest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the bound of this stream's queue, in bytes. Defaults to [`Options::stream_bytes`].
    ///
    /// [`Options::stream_bytes`]: crate::Options::stream_bytes
    pub fn stream_bytes(mut self, bytes: usize) -> Self {
        self.stream_bytes = Some(bytes);
        self
    }
}

impl From<(&str, Qos)> for Filters {
    fn from((filter, qos): (&str, Qos)) -> Self {
        Self::new(filter, qos)
    }
}

/// A subscription: a stream of the messages that match its filters.
///
/// Dropping it gives up its filters; one that no other handle has is unsubscribed. Messages that it
/// holds count as taken.
#[must_use = "a subscription that is dropped is unsubscribed"]
pub struct Subscription {
    shared: Shared,
    key: usize,
    granted: Vec<(Rc<str>, Reason, Remarks)>,
}

impl Subscription {
    pub(crate) fn new(shared: &Shared, key: usize) -> Self {
        Self {
            shared: shared.clone(),
            key,
            granted: Vec::new(),
        }
    }

    /// Waits for the next message; none when the subscription has ended: unsubscribed, refused, or the
    /// client closed. [`Subscription::error`] then says why. What was queued at the end still comes first; but
    /// when a client with a store closes, what the next process gets is left to that: see [`Options::store`].
    ///
    /// [`Options::store`]: crate::Options::store
    ///
    /// With [`Acknowledge::OnTake`] this is the moment at which the message is acknowledged. The stream
    /// of an inline handler yields nothing.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a message that was not returned stays queued.
    pub async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The next message if one is queued. Never waits; acknowledges as [`Subscription::next`] does.
    pub fn try_next(&mut self) -> Option<Message> {
        self.take()
    }

    /// Why the stream has ended; none while it goes on, and if you have unsubscribed. When the client is at
    /// its end, also by your own `disconnect()`, it is [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn error(&self) -> Option<Error> {
        self.shared
            .with(|state| state.router.subscribers.get(self.key)?.reading.error())
    }

    /// How many messages are queued.
    pub fn len(&self) -> usize {
        self.shared.with(|state| {
            match state
                .router
                .subscribers
                .get(self.key)
                .map(|subscriber| &subscriber.sink)
            {
                Some(Sink::Stream(queue)) => queue.len(),
                Some(Sink::Inline(_) | Sink::Answers) | None => 0,
            }
        })
    }

    /// Whether no message is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the broker granted for each filter, if the subscribe waited for it.
    pub fn granted(&self) -> impl Iterator<Item = (&str, Reason)> {
        self.granted
            .iter()
            .map(|(filter, reason, _)| (filter.as_ref(), *reason))
    }

    /// What the broker said with the SUBACK for `filter`, if the subscribe waited for it: its reason
    /// string, user properties; MQTT 5 only. Of more than 4 KiB at most the reason string is kept.
    pub fn properties_of(&self, filter: &str) -> PropertyList<'_> {
        self.granted
            .iter()
            .find(|(granted, ..)| **granted == *filter)
            .map_or(PropertyList::EMPTY, |(.., remarks)| remarks.list())
    }

    /// The program gets it.
    pub(crate) fn hand_over(&self) {
        self.shared.with(|state| state.hand_over(self.key));
    }

    pub(crate) fn set_granted(&mut self, grants: &[Grant]) {
        self.granted = grants
            .iter()
            .filter_map(|grant| match &grant.answer {
                Asked::Answered(reason, remarks) => {
                    Some((Rc::clone(&grant.filter), *reason, remarks.clone()))
                }
                Asked::Failed(_) => None,
            })
            .collect();
    }

    fn take(&self) -> Option<Message> {
        let (message, owed) = self.shared.with(|state| {
            let subscriber = state.router.subscribers.get_mut(self.key)?;
            let Sink::Stream(queue) = &mut subscriber.sink else {
                return None;
            };
            let queued = queue.pop()?;
            let by_hand = queue.acknowledge() == Acknowledge::ByHand;
            let owed = match (queued.receipt, queued.kept) {
                (Some(receipt), _) => Some(Owed::Acknowledgement(receipt)),
                (None, Some(kept)) => Some(Owed::Oblivion(kept)),
                (None, None) => None,
            };
            if by_hand {
                return Some((queued.message, owed));
            }
            if let Some(receipt) = queued.receipt {
                state.protocol.take(receipt, Reason::SUCCESS);
            }
            if let Some(kept) = queued.kept {
                state.protocol.let_go(kept);
            }
            if owed.is_some() {
                state.wake_driver();
            }
            Some((queued.message, None))
        })?;
        Some(match owed {
            Some(owed) => {
                let topic = message.shared_topic();
                let shared = self.shared.downgrade();
                let duty = ByHand {
                    shared,
                    owed,
                    topic,
                    answer: Cell::new(Answer::Owed),
                };
                message.with_duty(Rc::new(duty))
            }
            None => message,
        })
    }

    fn poll_message(&self, cx: &Context<'_>) -> Poll<Option<Message>> {
        if let Some(message) = self.take() {
            return Poll::Ready(Some(message));
        }
        self.shared.with(|state| {
            let Some(subscriber) = state.router.subscribers.get_mut(self.key) else {
                return Poll::Ready(None);
            };
            if subscriber.reading.is_ended() {
                return Poll::Ready(None);
            }
            let old = subscriber.reading.waker.replace(cx.waker().clone());
            state.loose.drop_later(old);
            Poll::Pending
        })
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_message(cx)
    }
}

impl Drop for Subscription {
    /// Only marks: the driver unsubscribes.
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.give_back(self.key);
            if state.is_closed() {
                state.end_subscriber(self.key);
            } else {
                state.dropped.push(self.key);
            }
            state.drop_handle();
        });
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

/// The duty to acknowledge a message by hand.
struct ByHand {
    shared: WeakShared,
    owed: Owed,
    topic: Rc<str>,
    answer: Cell<Answer>,
}

/// To whom a message is owed.
#[derive(Debug, Clone, Copy)]
enum Owed {
    /// To the broker.
    Acknowledgement(Receipt),
    /// To the store, where an earlier process had left it.
    Oblivion(Kept),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Owed,
    Given,
}

impl Duty for ByHand {
    fn acknowledge(&self, reason: Reason, properties: PropertyList<'_>) -> Result<()> {
        if reason != Reason::SUCCESS && !may_refuse(reason) {
            return Err(Error::misuse(
                "a message cannot be refused with this reason",
            ));
        }
        Place::Ack.check_from_user(properties)?;
        if self.answer.replace(Answer::Given) == Answer::Given {
            return Err(Error::misuse("the message was acknowledged before"));
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.with(|state| {
                match self.owed {
                    Owed::Acknowledgement(receipt) => {
                        let remarks = properties.into();
                        state.protocol.take_with(receipt, reason, remarks);
                    }
                    Owed::Oblivion(kept) => state.protocol.let_go(kept),
                }
                state.wake_driver();
            });
        }
        Ok(())
    }
}

/// The errors that PUBACK and PUBREC may carry [MQTT-3.4.2-1, MQTT-3.5.2-1].
fn may_refuse(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::UNSPECIFIED_ERROR
            | Reason::IMPLEMENTATION_SPECIFIC_ERROR
            | Reason::NOT_AUTHORIZED
            | Reason::TOPIC_NAME_INVALID
            | Reason::PACKET_IDENTIFIER_IN_USE
            | Reason::QUOTA_EXCEEDED
            | Reason::PAYLOAD_FORMAT_INVALID
    )
}

impl Drop for ByHand {
    fn drop(&mut self) {
        if self.answer.get() == Answer::Given {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            let topic = Rc::clone(&self.topic);
            shared.with(|state| {
                match self.owed {
                    Owed::Acknowledgement(receipt) => state.protocol.abandon(receipt),
                    // It stays there for the next process.
                    Owed::Oblivion(_) => {}
                }
                state.tell(&Event::Unacknowledged { topic });
            });
        }
    }
}
