//! Requests that wait for their answers: where the answers come, and to which request one belongs.
//!
//! Answers come on one topic per client, which is subscribed to at the first request. A request is held
//! until the broker has confirmed that subscription, because an answer that is faster would be lost.
//!
//! ```text
//!               a request is held,            SUBACK
//!               and there is a link
//!     Nowhere ─────────────────────► Asked ───────────► Ready ── session lost ──► Restoring
//!        ▲                             │                  ▲                           │
//!        └── refused: what is held ────┘                  └──── SUBACK ───────────────┘
//!            fails; or the topic changed
//! ```
//!
//! **A request has a number** that its answer brings back, in sixteen hexadecimal digits: in MQTT 5 as
//! Correlation Data, in 3.x as the last level of the topic. Its lower 24 bits name the wait, so that an answer finds
//! it without a search; the upper 40 are drawn by a keyed hash, whose key is new in every process. So an
//! answer from before a restart, or to a request that is over, names nothing, and who sees one number
//! cannot tell the next.
//!
//! When the topic changes, the old one stays subscribed to for as long as a request waits that names it.
//!
//! **The topic of answers** is `PREFIX/CLIENT`, in 3.x with the number as a third level. PREFIX is what
//! [`Options::response_prefix`] says, else the Response Information of an MQTT 5 broker, else
//! `coracle/response`. CLIENT is the client identifier with `%`, `+`, `#` and `/` as `%25`, `%2B`, `%23`
//! and `%2F`; for a client without one, `~` and sixteen digits that are new in every process. In 3.x a
//! request has no place for all that, so it goes to `TOPIC/CLIENT/NUMBER`, and PREFIX is agreed upon.
//!
//! [`Options::response_prefix`]: crate::Options::response_prefix

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::time::Duration;

use crate::codec::subscribe::FilterOptions;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::message::{Incoming, Message, Qos, check_topic};
use crate::properties::PropertyList;
use crate::protocol::{Accepted, Continuity, Protocol, Receipt, Subscription, Token};
use crate::reason::Reason;
use crate::router::Sink;
use crate::shared::State;
use crate::topic;
use crate::version::Version;
use crate::wait::Wait;
use crate::waiter::{Answer, Asked, Place};

/// What the topics of answers begin with, unless somebody says otherwise.
pub(crate) const DEFAULT_PREFIX: &str = "coracle/response";

/// Bits of a request's number that name its wait: 16 million at a time, at 200 bytes each far more than
/// a device has memory for.
const SLOT_BITS: u32 = 24;

/// Retain Handling: no retained messages, which could not answer anything (MQTT 5, section 3.8.3.1).
const NO_RETAINED: u8 = 2;

/// The state of a client's requests that is not in their waits.
#[derive(Debug)]
pub(crate) struct Answers {
    inbox: Inbox,
    /// Topics of before, to which requests up to this place may still be answered.
    former: Vec<(Address, u64)>,
    /// Requests that wait for the inbox, in their order: the tokens of their waits, which have them.
    held: BTreeMap<u64, Token>,
    /// Draws the tags: the hash of a running number under a key that nobody knows.
    secret: RandomState,
    drawn: u64,
    prefix: Option<Rc<str>>,
    maximum_qos: Qos,
    /// Whether filters get subscription identifiers: then this one needs one too.
    identifiers: bool,
}

/// The subscription that brings the answers.
#[derive(Debug)]
enum Inbox {
    Nowhere,
    Asked(Address),
    Ready(Address),
    /// The broker had lost it, and has not confirmed it again.
    Restoring(Address),
}

#[derive(Debug, Clone)]
struct Address {
    /// The subscriber, as the router knows it.
    key: usize,
    /// `PREFIX/CLIENT`.
    topic: Rc<str>,
}

impl Answers {
    /// A client that has never made a request.
    pub(crate) fn new(prefix: Option<Rc<str>>, maximum_qos: Qos, identifiers: bool) -> Self {
        Self {
            inbox: Inbox::Nowhere,
            former: Vec::new(),
            held: BTreeMap::new(),
            secret: RandomState::new(),
            drawn: 0,
            prefix,
            maximum_qos,
            identifiers,
        }
    }

    /// A request waits for the inbox.
    pub(crate) fn hold(&mut self, place: u64, token: Token) {
        self.held.insert(place, token);
    }

    /// A caller gives up. Returns whether its request was still held: then it is not sent, or not again.
    pub(crate) fn withdraw(&mut self, place: u64) -> bool {
        self.held.remove(&place).is_some()
    }

    fn draw_tag(&mut self) -> u64 {
        self.drawn += 1;
        self.secret.hash_one(self.drawn) >> SLOT_BITS
    }

    /// Where answers are to come, by what is known on this connection.
    fn topic(&self, protocol: &Protocol) -> Rc<str> {
        let limits = protocol.limits();
        let told = limits.and_then(|limits| limits.properties.list().response_information());
        // The standard leaves open what is in it: what cannot begin a topic is of no use.
        let told = told.filter(|told| topic::check_topic(told).is_ok() && !topic::is_shared(told));
        let prefix = self.prefix.as_deref().or(told).unwrap_or(DEFAULT_PREFIX);
        let mut topic = String::from(prefix.strip_suffix('/').unwrap_or(prefix));
        topic.push('/');
        // A broker may tell all its clients the same, so the client's name follows in any case.
        match protocol.client_id() {
            "" => push_nonce(&mut topic, self.secret.hash_one(0_u64)),
            client => push_level(&mut topic, client),
        }
        topic.into()
    }
}

fn push_nonce(topic: &mut String, nonce: u64) {
    // Writing to a text cannot fail.
    let _ = write!(topic, "~{nonce:016x}");
}

/// Appends `text` as one level of a topic, whatever is in it.
fn push_level(topic: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '%' => topic.push_str("%25"),
            '+' => topic.push_str("%2B"),
            '#' => topic.push_str("%23"),
            '/' => topic.push_str("%2F"),
            other => topic.push(other),
        }
    }
}

/// The number of a request, of the key of its wait and its tag.
fn number(token: Token, tag: u64) -> Result<u64> {
    match u64::try_from(token) {
        Ok(slot) if slot >> SLOT_BITS == 0 => Ok(tag << SLOT_BITS | slot),
        Ok(_) | Err(_) => Err(Error::new(ErrorKind::QueueFull, Doing::Requesting)),
    }
}

/// The same back.
fn parts(number: u64) -> Option<(Token, u64)> {
    let slot = number & ((1 << SLOT_BITS) - 1);
    Some((usize::try_from(slot).ok()?, number >> SLOT_BITS))
}

/// The request as it is sent: with where the answer is to go, and what it has to bring back.
fn dress(version: Version, message: Message, number: u64, inbox: &str) -> Result<Message> {
    match version {
        Version::V5_0 => {
            let properties = message
                .owned_properties()
                .response_topic(inbox)
                .correlation_data(digits(number).as_bytes());
            properties.check().map_err(Error::property)?;
            Ok(message.properties(properties))
        }
        Version::V3_1 | Version::V3_1_1 => {
            let client = inbox.rsplit('/').next().unwrap_or_default();
            let topic = format!("{}/{client}/{}", message.topic(), digits(number));
            check_topic(&topic)?;
            Ok(message.with_topic(topic.into()))
        }
    }
}

/// A number as it is sent: text, so that every tool can show it and send it back.
fn digits(number: u64) -> String {
    format!("{number:016x}")
}

/// The number that a message on the topic of answers brings.
fn claimed(version: Version, incoming: &Incoming<'_>) -> Option<u64> {
    let digits = match version {
        Version::V5_0 => {
            let data = PropertyList::correlation_data(incoming.property_list())?;
            std::str::from_utf8(data).ok()?
        }
        Version::V3_1 | Version::V3_1_1 => incoming.topic().rsplit('/').next()?,
    };
    u64::from_str_radix(digits, 16).ok()
}

impl State {
    /// Accepts a request: sends it, or holds it until its answer can arrive.
    ///
    /// # Errors
    /// It cannot be expressed, or the broker's limits forbid it.
    pub(crate) fn request(&mut self, message: Message, timeout: Duration) -> Result<Token> {
        let tag = self.answers.draw_tag();
        let place = self.answers.drawn;
        let token = self.waiters.insert(Doing::Requesting, Some(timeout));
        self.waiters.ask(token, Asked::new(tag, place, message));
        let sent = match self.open_inbox() {
            Some(inbox) => self.send_request(token, &inbox),
            None => {
                self.answers.hold(place, token);
                self.want_inbox();
                Ok(())
            }
        };
        if let Err(error) = sent {
            self.waiters.remove(token);
            return Err(error.while_doing(Doing::Requesting));
        }
        self.statistics.published += 1;
        self.wake_driver();
        Ok(token)
    }

    /// Where answers arrive, if they do.
    fn open_inbox(&mut self) -> Option<Rc<str>> {
        self.forget_ended_inbox();
        match &self.answers.inbox {
            Inbox::Ready(address) if self.protocol.is_online() => Some(Rc::clone(&address.topic)),
            // After a lost link it is not known whether the broker still has the session.
            Inbox::Ready(_) | Inbox::Nowhere | Inbox::Asked(_) | Inbox::Restoring(_) => None,
        }
    }

    fn send_request(&mut self, token: Token, inbox: &str) -> Result<()> {
        let Some((message, tag)) = self.waiters.hand_over(token, self.now)? else {
            return Ok(());
        };
        let version = self.protocol.config().version;
        let number = number(token, tag)?;
        let message = dress(version, message, number, inbox)?;
        let qos = message.quality_of_service();
        match self.protocol.publish(message, Some((Wait::Ack, token))) {
            // Somebody waits, so a drop is an error.
            Ok(Accepted::Yes | Accepted::Dropped) => Ok(()),
            Ok(Accepted::Parked(place)) => {
                self.waiters.park(token, Place::Line(qos, place));
                Ok(())
            }
            Err((message, error)) => {
                self.loose.drop_later(Some(message));
                Err(error)
            }
        }
    }

    /// Something is held: subscribes to the topic of answers, once it is known where that is.
    fn want_inbox(&mut self) {
        let Inbox::Nowhere = self.answers.inbox else {
            return;
        };
        // Before CONNACK neither Response Information nor an assigned client identifier is known.
        if self.answers.held.is_empty() || !self.protocol.is_online() {
            return;
        }
        match self.ask_for_inbox() {
            Ok(address) => self.answers.inbox = Inbox::Asked(address),
            Err(error) => self.fail_held(&error),
        }
    }

    fn ask_for_inbox(&mut self) -> Result<Address> {
        let topic = self.answers.topic(&self.protocol);
        let version = self.protocol.config().version;
        let filter = match version {
            Version::V5_0 => Rc::clone(&topic),
            Version::V3_1 | Version::V3_1_1 => format!("{topic}/+").into(),
        };
        topic::check_filter(&filter).map_err(|error| {
            let kind = ErrorKind::Filter(filter.as_ref().into(), error);
            Error::new(kind, Doing::Subscribing)
        })?;
        let options = FilterOptions {
            qos: Qos::AtLeastOnce.min(self.answers.maximum_qos),
            // A client may serve its own requests.
            no_local: false,
            retain_as_published: false,
            retain_handling: match version {
                Version::V5_0 => NO_RETAINED,
                Version::V3_1 | Version::V3_1_1 => 0,
            },
        };
        let options = self.router.check(&filter, options, None)?;
        let automatic = self.answers.identifiers;
        let filters = self
            .router
            .identify(vec![(filter, options)], None, automatic)?;
        let key = self.router.insert(&filters, Sink::Answers);
        self.protocol.subscribe(Subscription {
            owner: key,
            filters,
            properties: crate::properties::Properties::new(),
            wait: None,
        });
        self.wake_driver();
        Ok(Address { key, topic })
    }

    /// SUBACK has come for this subscriber; a refusal has ended it.
    pub(crate) fn inbox_subscribed(&mut self, subscriber: usize) {
        match &self.answers.inbox {
            Inbox::Asked(address) if address.key == subscriber => {
                self.answers.inbox = Inbox::Ready(address.clone());
                self.release_held();
            }
            Inbox::Asked(_) | Inbox::Nowhere | Inbox::Ready(_) | Inbox::Restoring(_) => {}
        }
    }

    /// SUBACK has come for all that the broker had lost.
    pub(crate) fn inbox_restored(&mut self) {
        if let Inbox::Restoring(address) = &self.answers.inbox {
            self.answers.inbox = Inbox::Ready(address.clone());
            self.release_held();
        }
    }

    /// There is a connection: what is held may leave, if the broker still has the subscription.
    pub(crate) fn inbox_connected(&mut self, continuity: Continuity) {
        self.hold_unanswered();
        self.forget_ended_inbox();
        let address = match &self.answers.inbox {
            Inbox::Nowhere => None,
            Inbox::Asked(address) | Inbox::Ready(address) | Inbox::Restoring(address) => {
                Some(address.clone())
            }
        };
        if let Some(address) = address
            && let topic = self.answers.topic(&self.protocol)
            && address.topic != topic
        {
            // Another broker, or another name with it. What was handed over names the old topic.
            self.answers.former.push((address, self.answers.drawn));
            self.retire_inboxes();
            let mut former = self.answers.former.iter();
            self.answers.inbox = match former.position(|(address, _)| address.topic == topic) {
                Some(index) => Inbox::Ready(self.answers.former.swap_remove(index).0),
                None => Inbox::Nowhere,
            };
        }
        match (&self.answers.inbox, continuity) {
            (Inbox::Nowhere, _) => self.want_inbox(),
            (Inbox::Ready(_), Continuity::Present) => self.release_held(),
            (Inbox::Ready(address), Continuity::Lost | Continuity::Untold) => {
                self.answers.inbox = Inbox::Restoring(address.clone());
            }
            // Its SUBSCRIBE was not answered, and leaves again.
            (Inbox::Asked(_) | Inbox::Restoring(_), _) => {}
        }
    }

    /// The link was lost: what was not answered and is still here is held again.
    fn hold_unanswered(&mut self) {
        let Self {
            waiters,
            protocol,
            loose,
            ..
        } = self;
        // A slab yields its keys in ascending order.
        let mut unsent = Vec::new();
        let held = waiters.hold_unanswered(|token, place| {
            if let Some(Place::Line(qos, place)) = place {
                loose.drop_later(protocol.withdraw(qos, place));
            }
            unsent.push(token);
        });
        protocol.withdraw_qos0(&unsent);
        for (place, token) in held {
            self.answers.hold(place, token);
        }
    }

    /// Ends what brings answers to a topic of before, once nobody waits for one.
    pub(crate) fn retire_inboxes(&mut self) {
        if self.answers.former.is_empty() {
            return;
        }
        let Self {
            answers,
            waiters,
            router,
            ..
        } = self;
        let is_over = |(address, place): &mut (Address, u64)| {
            let subscriber = router.subscribers.get(address.key);
            subscriber.is_none_or(|one| one.reading.is_ended()) || !waiters.expects_answer(*place)
        };
        let over: Vec<_> = answers.former.extract_if(.., is_over).collect();
        for (address, _) in over {
            self.end_subscriber(address.key);
        }
    }

    /// The subscription may have been refused, or the user may have unsubscribed from it: the next request
    /// asks for it again.
    fn forget_ended_inbox(&mut self) {
        if let Some(error) = self.ended_inbox() {
            self.fail_held(&error);
        }
    }

    /// Gives up a subscription that has ended. Returns why it has.
    fn ended_inbox(&mut self) -> Option<Error> {
        let key = match &self.answers.inbox {
            Inbox::Nowhere => return None,
            Inbox::Asked(address) | Inbox::Ready(address) | Inbox::Restoring(address) => {
                address.key
            }
        };
        let reading = match self.router.subscribers.get(key) {
            Some(subscriber) if !subscriber.reading.is_ended() => return None,
            Some(subscriber) => subscriber.reading.error(),
            None => None,
        };
        self.end_subscriber(key);
        self.answers.inbox = Inbox::Nowhere;
        Some(reading.unwrap_or_else(|| {
            Error::misuse("the topic of answers was unsubscribed").while_doing(Doing::Requesting)
        }))
    }

    fn release_held(&mut self) {
        let Some(inbox) = self.open_inbox() else {
            return;
        };
        while let Some((_, token)) = self.answers.held.pop_first() {
            if let Err(error) = self.send_request(token, &inbox) {
                if let ErrorKind::Expired = error.kind() {
                    self.statistics.expired += 1;
                }
                self.finish(token, Err(error));
            }
        }
        self.wake_driver();
    }

    fn fail_held(&mut self, error: &Error) {
        for (_, token) in std::mem::take(&mut self.answers.held) {
            self.finish(token, Err(error.clone()));
        }
    }

    /// A message came on the topic of answers. One that belongs to no request that waits is dropped. Returns
    /// whether somebody has to take it.
    pub(crate) fn handle_answer(
        &mut self,
        incoming: &Incoming<'_>,
        receipt: Option<Receipt>,
    ) -> bool {
        let version = self.protocol.config().version;
        let answered = claimed(version, incoming)
            .and_then(parts)
            .and_then(|(token, tag)| {
                self.waiters.answer(token, tag, || Answer {
                    message: incoming.to_message(),
                    receipt,
                })
            });
        let Some(claimed) = answered else {
            self.statistics.unclaimed += 1;
            return false;
        };
        if let Some(place) = claimed.held {
            self.answers.withdraw(place);
        }
        self.loose.wake_later(claimed.waker);
        receipt.is_some()
    }

    /// The answer is taken, which acknowledges it: so PUBACK leaves together with what the caller does next.
    pub(crate) fn take_answer(&mut self, answer: Answer) -> Message {
        if let Some(receipt) = answer.receipt {
            self.protocol.take(receipt, Reason::SUCCESS);
            self.wake_driver();
        }
        answer.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str) -> String {
        let mut topic = String::new();
        push_level(&mut topic, text);
        topic
    }

    #[test]
    fn any_client_identifier_is_one_level_of_its_own() {
        for (id, expected) in [
            ("pump-7", "pump-7"),
            ("a/b", "a%2Fb"),
            ("a+b#", "a%2Bb%23"),
            ("a%2Fb", "a%252Fb"),
            ("$é", "$é"),
        ] {
            assert_eq!(level(id), expected);
            assert!(topic::check_topic(&level(id)).is_ok());
        }
    }

    #[test]
    fn a_number_names_its_wait_and_its_tag() {
        for (token, tag) in [(0, 0), (1, 2), (0xFF_FFFF, (1 << 40) - 1)] {
            let number = number(token, tag).expect("it fits");
            assert_eq!(parts(number), Some((token, tag)));
        }
        assert!(number(1 << SLOT_BITS, 1).is_err());
    }

    #[test]
    fn tags_differ_and_another_client_draws_others() {
        let mut one = Answers::new(None, Qos::ExactlyOnce, true);
        let mut other = Answers::new(None, Qos::ExactlyOnce, true);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            for tag in [one.draw_tag(), other.draw_tag()] {
                assert!(tag < 1 << 40);
                assert!(seen.insert(tag), "drawn twice: {tag}");
            }
        }
    }
}
