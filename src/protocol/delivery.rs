//! A message that arrived: how it is handed on, and what its takers say.

use std::rc::Rc;
use std::time::Instant;

use super::journal::Kept;
use super::ledger::Ledger;
use super::publish_in::Receipt;
use super::{Link, Protocol};
use crate::codec::Publish;
use crate::message::{Incoming, Message, TopicRef};
use crate::properties::Remarks;
use crate::reason::Reason;

/// What became of the input.
#[derive(Debug)]
pub enum Step<'a> {
    /// The packet is not complete: nothing can be done before `size` bytes are here, if that is known.
    More {
        /// Bytes of the whole packet, header included; of one to be skipped, as many as are looked at.
        size: Option<usize>,
    },
    /// So many bytes are dealt with.
    Handled {
        /// Bytes used up.
        size: usize,
    },
    /// So many bytes were a message, to be handed on now.
    Deliver {
        /// Bytes used up.
        size: usize,
        /// The message.
        delivery: Delivery<'a>,
    },
}

/// A message that arrived. If it has a receipt, [`Protocol::delivered`] must be called for it.
#[derive(Debug)]
pub struct Delivery<'a> {
    pub(super) publish: Publish<'a>,
    pub(super) alias: Option<Rc<str>>,
    pub(super) whole: Option<&'a Rc<Vec<u8>>>,
    pub(super) receipt: Option<Receipt>,
}

impl Delivery<'_> {
    /// The message, borrowed.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming {
            topic: match &self.alias {
                Some(topic) => TopicRef::Aliased(topic),
                None => TopicRef::Borrowed(self.publish.topic),
            },
            payload: self.publish.payload,
            properties: self.publish.properties,
            qos: self.publish.qos,
            retain: self.publish.retain,
            dup: self.publish.dup,
            whole: self.whole,
        }
    }

    /// What its takers acknowledge; none at QoS 0.
    pub fn receipt(&self) -> Option<Receipt> {
        self.receipt
    }
}

impl Protocol {
    /// The message was handed to so many who have to take it, and is acknowledged at `deadline` even
    /// if they do not.
    pub fn delivered(&mut self, receipt: Receipt, takers: usize, deadline: Option<Instant>) {
        let ledger = ledger(&mut self.link);
        self.session
            .publish_in
            .delivered(receipt, takers, deadline, ledger, &mut self.out);
    }

    /// One of those who got the message has taken it, or refuses it with an error.
    pub fn take(&mut self, receipt: Receipt, reason: Reason) {
        let ledger = ledger(&mut self.link);
        self.session
            .publish_in
            .take(receipt, (reason, Remarks::NONE), ledger, &mut self.out);
    }

    /// As [`Protocol::take`], with what its taker says beside the reason. It is left out where the broker
    /// takes no packet so large [MQTT-3.4.2-2, -3, MQTT-3.5.2-2, -3].
    pub fn take_with(&mut self, receipt: Receipt, reason: Reason, remarks: Remarks) {
        let ledger = ledger(&mut self.link);
        self.session
            .publish_in
            .take(receipt, (reason, remarks), ledger, &mut self.out);
    }

    /// The message was dropped by the one who had to answer it by hand: it is never acknowledged, and
    /// handed on again when the broker sends it again.
    pub fn abandon(&mut self, receipt: Receipt) {
        self.session.publish_in.abandon(receipt, &mut self.out);
    }

    /// Whether there is a store, so that what is acknowledged before it is taken has to be kept.
    pub fn is_keeping(&self) -> bool {
        self.out.journal.is_some()
    }

    /// A message will be acknowledged before all who got it have taken it: with a store it is kept there, at
    /// first for one of them. Said before [`Protocol::delivered`], or after [`Effect::Overdue`].
    ///
    /// [`Effect::Overdue`]: super::Effect::Overdue
    pub fn keep(&mut self, receipt: Receipt, message: &Message) -> Option<Kept> {
        self.session
            .publish_in
            .keep(receipt, message, &mut self.out)
    }

    /// One more holds a kept message.
    pub fn hold(&mut self, kept: Kept) {
        if let Some(journal) = &mut self.out.journal {
            journal.hold(kept);
        }
    }

    /// Whether the store has this message; it forgets what all its holders have taken.
    pub fn is_kept(&self, kept: Kept) -> bool {
        let journal = self.out.journal.as_ref();
        journal.is_some_and(|journal| journal.is_kept(kept))
    }

    /// One of those who held a kept message has taken or dropped it.
    pub fn let_go(&mut self, kept: Kept) {
        if let Some(journal) = &mut self.out.journal {
            journal.let_go(kept);
        }
    }

    /// Whether the next process gets this message from the broker, because that goes on with the session and
    /// was not told that it is taken.
    pub fn comes_again(&self, receipt: Receipt) -> bool {
        let journal = self.out.journal.as_ref();
        journal.is_some_and(|journal| journal.goes_on())
            && self.session.publish_in.is_unanswered(receipt)
    }

    /// Those who hold an overdue message have it in the store now, so that it may be acknowledged. Does
    /// nothing without a store: it was.
    pub fn late(&mut self, receipt: Receipt) {
        let ledger = ledger(&mut self.link);
        self.session.publish_in.late(receipt, ledger, &mut self.out);
    }
}

fn ledger(link: &mut Link) -> Option<&mut Ledger> {
    match link {
        Link::Online(online) => Some(&mut online.ledger),
        Link::Offline | Link::Connecting(_) | Link::Leaving(_) => None,
    }
}
