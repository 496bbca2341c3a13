//! The queue of one stream: bounded in bytes.

use std::collections::VecDeque;
use std::task::Waker;

use crate::error::Error;
use crate::message::{Message, Qos};
use crate::options::{Acknowledge, Overflow};
use crate::protocol::{Kept, Receipt};

/// Bytes that a queued message counts beside topic and payload, so that empty ones are bounded too: about a
/// third of what its entry takes.
const OVERHEAD: usize = 64;

/// Messages that a stream has not taken.
#[derive(Debug)]
pub(crate) struct Queue {
    /// QoS 0, and QoS 1 and 2, each with its place in the common order. They are apart so that neither
    /// to make room for a message nor to find one takes a search, whatever the broker sends.
    fleeting: VecDeque<(Place, Queued)>,
    kept: VecDeque<(Place, Queued)>,
    next: Place,
    bytes: usize,
    bound: usize,
    overflow: Overflow,
    acknowledge: Acknowledge,
    dropped: u64,
}

/// Where a message stands in its queue.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    number: u64,
    /// The last receipt up to here. Not every message has one: its own would leave gaps in which a search does
    /// not know where to go on.
    receipt: Option<Receipt>,
}

/// The reading end of a subscription: whether messages still come, and who waits for one or for the end.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    state: State,
    pub(crate) waker: Option<Waker>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// No message will come any more; with the reason, unless the user wanted it.
    Ended(Option<Error>),
}

/// A message that is not taken.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    /// What is to be acknowledged when it is taken.
    pub(crate) receipt: Option<Receipt>,
    /// What the store may forget when it is taken.
    pub(crate) kept: Option<Kept>,
}

/// What a full queue did to make room.
#[derive(Debug)]
pub(crate) enum Push {
    /// Nothing: there was room.
    Room,
    /// These were dropped.
    Dropped(Vec<Queued>),
    /// The message was not taken in, and the stream is to end.
    End(Queued),
}

impl Queue {
    pub(crate) fn new(bound: usize, overflow: Overflow, acknowledge: Acknowledge) -> Self {
        Self {
            fleeting: VecDeque::new(),
            kept: VecDeque::new(),
            next: Place::default(),
            bytes: 0,
            bound,
            overflow,
            acknowledge,
            dropped: 0,
        }
    }

    pub(crate) fn acknowledge(&self) -> Acknowledge {
        self.acknowledge
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Queues a message; an empty queue takes one of any size.
    pub(crate) fn push(&mut self, queued: Queued) -> Push {
        let size = size(&queued.message);
        let mut out = Vec::new();
        let is_fleeting = queued.message.quality_of_service() == Qos::AtMostOnce;
        while self.bytes + size > self.bound && self.len() > 0 {
            // At QoS 0 the newest matters most, and losing is allowed; above it the user decides.
            let oldest = match self.overflow {
                _ if is_fleeting => self.fleeting.pop_front().map(|(_, queued)| queued),
                Overflow::DropOldest => self.take_oldest(),
                Overflow::DropNewest => None,
                Overflow::End => return Push::End(queued),
            };
            self.dropped += 1;
            let Some(old) = oldest else {
                out.push(queued);
                return Push::Dropped(out);
            };
            self.bytes -= self::size(&old.message);
            out.push(old);
        }
        self.bytes += size;
        self.next.receipt = queued.receipt.or(self.next.receipt);
        let place = self.next;
        self.next.number += 1;
        let messages = if is_fleeting {
            &mut self.fleeting
        } else {
            &mut self.kept
        };
        messages.push_back((place, queued));
        if out.is_empty() {
            Push::Room
        } else {
            Push::Dropped(out)
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.take_oldest()?;
        self.bytes -= size(&queued.message);
        Some(queued)
    }

    fn take_oldest(&mut self) -> Option<Queued> {
        let oldest = match (self.fleeting.front(), self.kept.front()) {
            (Some((fleeting, _)), Some((kept, _))) if fleeting.number < kept.number => {
                &mut self.fleeting
            }
            (Some(_), None) => &mut self.fleeting,
            (_, Some(_)) | (None, None) => &mut self.kept,
        };
        oldest.pop_front().map(|(_, queued)| queued)
    }

    /// The message with this receipt. Receipts are queued in the order in which they were made, perhaps with
    /// messages between them that have none: what is in the store already.
    pub(crate) fn find(&mut self, receipt: Receipt) -> Option<&mut Queued> {
        let is_before = |last: Option<Receipt>| last.is_none_or(|last| last.is_before(receipt));
        let index = self
            .kept
            .partition_point(|(place, _)| is_before(place.receipt));
        let (_, queued) = self.kept.get_mut(index)?;
        (queued.receipt == Some(receipt)).then_some(queued)
    }

    /// Takes out those of QoS 1 and 2 that are `wanted`.
    pub(crate) fn take_out(&mut self, wanted: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let mut out = Vec::new();
        for (place, queued) in std::mem::take(&mut self.kept) {
            if wanted(&queued) {
                self.bytes -= size(&queued.message);
                out.push(queued);
            } else {
                self.kept.push_back((place, queued));
            }
        }
        out
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.fleeting.len() + self.kept.len()
    }
}

impl Reading {
    /// No message will come any more. What is left in the queue can still be read.
    pub(crate) fn end(&mut self, error: Option<Error>) -> Option<Waker> {
        if let State::Open = self.state {
            self.state = State::Ended(error);
        }
        self.waker.take()
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    pub(crate) fn error(&self) -> Option<Error> {
        match &self.state {
            State::Open => None,
            State::Ended(error) => error.clone(),
        }
    }
}

fn size(message: &Message) -> usize {
    // Properties count too, or a broker could fill the memory with messages that seem empty.
    let properties = message.property_list().as_bytes().len();
    message.topic().len() + message.payload().len() + properties + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::Properties;

    fn queued(qos: Qos, topic: &str) -> Queued {
        Queued {
            message: Message::new(topic, "").qos(qos),
            receipt: None,
            kept: None,
        }
    }

    fn queue(messages: usize, overflow: Overflow) -> Queue {
        Queue::new(messages * (OVERHEAD + 1), overflow, Acknowledge::OnTake)
    }

    fn topics(messages: impl IntoIterator<Item = Queued>) -> String {
        let topic = |queued: Queued| queued.message.topic().to_owned();
        messages.into_iter().map(topic).collect()
    }

    fn dropped(push: Push) -> String {
        match push {
            Push::Room => String::new(),
            Push::Dropped(dropped) => topics(dropped),
            Push::End(queued) => format!("end {}", queued.message.topic()),
        }
    }

    #[test]
    fn messages_of_all_qos_come_out_in_their_order() {
        let mut queue = queue(100, Overflow::DropOldest);
        let all = [
            Qos::AtLeastOnce,
            Qos::AtMostOnce,
            Qos::AtMostOnce,
            Qos::ExactlyOnce,
        ];
        for (topic, qos) in ["a", "b", "c", "d"].into_iter().zip(all) {
            assert_eq!(dropped(queue.push(queued(qos, topic))), "");
        }
        assert_eq!(queue.len(), 4);
        assert_eq!(topics(std::iter::from_fn(|| queue.pop())), "abcd");
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_qos_0_or_what_its_option_says() {
        for (overflow, kept, fleeting, rest) in [
            (Overflow::DropOldest, "a", "b", "cde"),
            (Overflow::DropNewest, "d", "b", "ace"),
            (Overflow::End, "end d", "b", "ace"),
        ] {
            let mut queue = queue(3, overflow);
            queue.push(queued(Qos::AtLeastOnce, "a"));
            queue.push(queued(Qos::AtMostOnce, "b"));
            queue.push(queued(Qos::AtLeastOnce, "c"));
            assert_eq!(dropped(queue.push(queued(Qos::AtLeastOnce, "d"))), kept);
            assert_eq!(dropped(queue.push(queued(Qos::AtMostOnce, "e"))), fleeting);
            assert_eq!(topics(std::iter::from_fn(|| queue.pop())), rest);
            assert_eq!(queue.bytes, 0);
        }
        let mut queue = queue(1, Overflow::DropOldest);
        queue.push(queued(Qos::AtLeastOnce, "a"));
        assert_eq!(dropped(queue.push(queued(Qos::AtMostOnce, "b"))), "b");
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn properties_count() {
        let mut queue = queue(100, Overflow::DropOldest);
        let large = Properties::new().user_property("name", &"x".repeat(3000));
        for _ in 0..1000 {
            let message = Message::new("t", "").properties(large.clone());
            queue.push(Queued {
                message,
                receipt: None,
                kept: None,
            });
        }
        assert_eq!(queue.len(), 2);
    }
}
