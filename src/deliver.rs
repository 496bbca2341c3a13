//! Handing a message to everyone it belongs to, and what is owed for it.

use std::rc::Rc;
use std::time::Instant;

use crate::error::{Doing, Error, ErrorKind};
use crate::event::Event;
use crate::message::{Incoming, Message};
use crate::options::Acknowledge;
use crate::properties::Properties;
use crate::protocol::{Delivery, Kept, Protocol, Receipt};
use crate::queue::{Push, Queue, Queued};
use crate::reason::Reason;
use crate::router::{Inline, Sink};
use crate::shared::State;

/// A message while it is handed on.
struct Handing<'a> {
    incoming: Incoming<'a>,
    receipt: Option<Receipt>,
    /// The receipt, if those who acknowledge on receipt have the message kept in the store.
    keeps: Option<Receipt>,
    kept: Option<Kept>,
    /// Made for the first stream.
    message: Option<Message>,
    /// How many have to take it, and whether one of them does by hand.
    takers: usize,
    by_hand: bool,
}

impl Handing<'_> {
    /// Hands the message to a stream.
    fn queue(&mut self, queue: &mut Queue, protocol: &mut Protocol) -> Push {
        let message = self
            .message
            .get_or_insert_with(|| self.incoming.to_message());
        let owed = match (queue.acknowledge(), self.keeps) {
            (Acknowledge::OnReceipt, None) if protocol.is_keeping() => self.receipt,
            (Acknowledge::OnReceipt, None) => None,
            (Acknowledge::OnReceipt, Some(receipt)) => {
                match self.kept {
                    None => self.kept = protocol.keep(receipt, message),
                    Some(kept) => protocol.hold(kept),
                }
                None
            }
            (Acknowledge::OnTake, _) => self.receipt,
            (Acknowledge::ByHand, _) => {
                self.by_hand |= self.receipt.is_some();
                self.receipt
            }
        };
        self.takers += usize::from(owed.is_some());
        queue.push(Queued {
            message: message.clone(),
            receipt: owed,
            kept: self.kept.filter(|_| owed.is_none()),
        })
    }
}

impl State {
    /// Hands a message to everyone it belongs to, but not to whom a handler has just dropped. Inline
    /// handlers are not called here: their keys go into `calls`, and what they owe is taken after the call.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        delivery: &Delivery<'_>,
        calls: &mut Vec<usize>,
    ) {
        self.end_dropped();
        self.statistics.received += 1;
        let incoming = delivery.incoming();
        let receipt = delivery.receipt();
        let hits = self
            .router
            .route(incoming.topic(), incoming.property_list());
        if hits.is_empty() {
            self.statistics.unmatched += 1;
        }
        let mut is_answer = false;
        let mut lost = Vec::new();
        // What one stream has to take is acknowledged only then: so all who get it have to, or it would be in
        // the store before the broker is done with it, and come again from both.
        let keeps = receipt.filter(|_| self.protocol.is_keeping() && !self.someone_takes(&hits));
        let mut handing = Handing {
            incoming,
            receipt,
            keeps,
            kept: None,
            message: None,
            takers: 0,
            by_hand: false,
        };
        for key in &hits {
            let Some(subscriber) = self.router.subscribers.get_mut(*key) else {
                continue;
            };
            if subscriber.reading.is_ended() {
                continue;
            }
            match &mut subscriber.sink {
                Sink::Inline(Some(_)) => {
                    handing.takers += 1;
                    calls.push(*key);
                }
                Sink::Inline(None) => {}
                Sink::Answers => is_answer = true,
                Sink::Stream(queue) => {
                    match handing.queue(queue, &mut self.protocol) {
                        Push::Room => {}
                        full @ (Push::Dropped(_) | Push::End(_)) => lost.push((*key, full)),
                    }
                    let waker = subscriber.reading.waker.take();
                    self.loose.wake_later(waker);
                }
            }
        }
        self.router.done(hits);
        if is_answer && self.handle_answer(&handing.incoming, receipt) {
            handing.takers += 1;
        }
        if let Some(receipt) = receipt {
            // What is acknowledged by hand may take as long as it takes.
            let timeout = self.protocol.config().take_timeout;
            let deadline = if handing.by_hand {
                None
            } else {
                now.checked_add(timeout)
            };
            self.protocol.delivered(receipt, handing.takers, deadline);
        }
        for (key, full) in lost {
            self.overflowed(key, full);
        }
    }

    /// A queue was full, and did this.
    fn overflowed(&mut self, key: usize, push: Push) {
        match push {
            Push::Room => {}
            Push::Dropped(dropped) => self.fell_behind(key, dropped),
            Push::End(queued) => {
                self.statistics.dropped += 1;
                self.discard(queued);
                self.end_overflowed(key);
            }
        }
    }

    /// A stream does not take its messages as fast as they come, and has lost these.
    pub(crate) fn fell_behind(&mut self, key: usize, dropped: Vec<Queued>) {
        for queued in dropped {
            self.statistics.dropped += 1;
            self.discard(queued);
        }
        if let Some(subscriber) = self.router.subscribers.get(key)
            && let Some(filter) = subscriber.filters.first().cloned()
            && let Sink::Stream(queue) = &subscriber.sink
        {
            let dropped = queue.dropped();
            self.tell(&Event::SlowConsumer { filter, dropped });
        }
    }

    /// A stream ends, because there was no room for a message.
    pub(crate) fn end_overflowed(&mut self, key: usize) {
        let Some(subscriber) = self.router.subscribers.get_mut(key) else {
            return;
        };
        let filters = std::mem::take(&mut subscriber.filters);
        if filters.is_empty() {
            return;
        }
        let error = Error::new(ErrorKind::Overflow, Doing::Receiving);
        let waker = subscriber.reading.end(Some(error.clone()));
        self.loose.wake_later(waker);
        let mut ended = Vec::new();
        for filter in filters {
            if self.router.detach(key, &filter) {
                ended.push(Rc::clone(&filter));
            }
            let error = error.clone();
            self.tell(&Event::SubscriptionEnded { filter, error });
        }
        if !ended.is_empty() {
            self.protocol.unsubscribe(&ended, Properties::new(), None);
        }
    }

    /// Whether one of these takes what it gets: then it is not acknowledged on receipt.
    fn someone_takes(&self, hits: &[usize]) -> bool {
        hits.iter().any(|key| {
            match self.router.subscribers.get(*key).map(|own| &own.sink) {
                Some(Sink::Stream(queue)) => queue.acknowledge() != Acknowledge::OnReceipt,
                Some(Sink::Answers) => true,
                // It is called, and has taken it, before the store gets its next batch.
                Some(Sink::Inline(_)) | None => false,
            }
        })
    }

    /// A message that nobody will take.
    pub(crate) fn discard(&mut self, queued: Queued) {
        if let Some(receipt) = queued.receipt {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
        if let Some(kept) = queued.kept {
            self.protocol.let_go(kept);
        }
        self.loose.drop_later(Some(queued.message));
    }

    pub(crate) fn overdue(&mut self, receipt: Receipt) {
        self.statistics.overdue += 1;
        let mut topic = None;
        let mut kept = None;
        for (_, subscriber) in &mut self.router.subscribers {
            let Sink::Stream(queue) = &mut subscriber.sink else {
                continue;
            };
            let Some(queued) = queue.find(receipt) else {
                continue;
            };
            topic.get_or_insert_with(|| queued.message.shared_topic());
            // Acknowledged, it will not come again: so it is in the store until it is taken.
            match kept {
                None => kept = self.protocol.keep(receipt, &queued.message),
                Some(kept) => self.protocol.hold(kept),
            }
            queued.kept = kept;
        }
        self.protocol.late(receipt);
        if let Some(topic) = topic {
            self.tell(&Event::Overdue { topic });
        }
    }

    /// Takes a handler out for its call. None if an earlier handler of the same message has ended its
    /// subscription: then the message counts as taken.
    pub(crate) fn borrow_inline(&mut self, key: usize, receipt: Option<Receipt>) -> Option<Inline> {
        let dropped = self.dropped.contains(&key);
        let handler = self.router.handler(key).filter(|_| !dropped);
        let inline = handler.and_then(Option::take);
        if let (None, Some(receipt)) = (&inline, receipt) {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
        inline
    }

    /// Puts a handler back after its call, unless its subscription ended meanwhile, and takes what it
    /// was called with.
    pub(crate) fn return_inline(&mut self, key: usize, inline: Inline, receipt: Option<Receipt>) {
        let mut inline = Some(inline);
        if let Some(subscriber) = self.router.subscribers.get_mut(key)
            && let Sink::Inline(place @ None) = &mut subscriber.sink
            && !subscriber.filters.is_empty()
        {
            *place = inline.take();
        }
        self.loose.drop_later(inline);
        if let Some(receipt) = receipt {
            self.protocol.take(receipt, Reason::SUCCESS);
        }
    }
}
