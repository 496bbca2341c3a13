//! The queue of one stream: bounded in bytes.

use std::collections::VecDeque;
use std::task::Waker;

use crate::error::Error;
use crate::message::{Message, Qos};
use crate::options::{Acknowledge, Overflow};
use crate::protocol::Receipt;

/// Bytes that a queued message counts beside topic and payload: about what it takes.
const OVERHEAD: usize = 64;

/// Messages that a stream has not taken.
#[derive(Debug)]
pub(crate) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
    bound: usize,
    overflow: Overflow,
    acknowledge: Acknowledge,
    dropped: u64,
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
            messages: VecDeque::new(),
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
        while self.bytes + size > self.bound && !self.messages.is_empty() {
            let qos0 = |queued: &Queued| queued.message.quality_of_service() == Qos::AtMostOnce;
            // At QoS 0 the newest matters most, and losing is allowed; above it the user decides.
            let oldest = match self.overflow {
                _ if qos0(&queued) => match self.messages.iter().position(qos0) {
                    Some(index) => index,
                    None => {
                        self.dropped += 1;
                        out.push(queued);
                        return Push::Dropped(out);
                    }
                },
                Overflow::DropOldest => 0,
                Overflow::DropNewest => {
                    self.dropped += 1;
                    out.push(queued);
                    return Push::Dropped(out);
                }
                Overflow::End => return Push::End(queued),
            };
            if let Some(old) = self.messages.remove(oldest) {
                self.bytes -= self::size(&old.message);
                self.dropped += 1;
                out.push(old);
            }
        }
        self.bytes += size;
        self.messages.push_back(queued);
        if out.is_empty() {
            Push::Room
        } else {
            Push::Dropped(out)
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.messages.pop_front()?;
        self.bytes -= size(&queued.message);
        Some(queued)
    }

    /// The topic of the message with this receipt.
    pub(crate) fn find(&self, receipt: Receipt) -> Option<&Message> {
        let mut all = self.messages.iter();
        all.find(|queued| queued.receipt == Some(receipt))
            .map(|queued| &queued.message)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}

impl Reading {
    /// No message will come any more. What is queued can still be read.
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
    message.topic().len() + message.payload().len() + OVERHEAD
}
