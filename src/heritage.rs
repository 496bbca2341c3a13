//! What an earlier process had acknowledged and not taken: it waits in the store for the streams of this
//! one.
//!
//! ```text
//!     restored ──► handed to each subscriber whose filter matches, as it comes
//!         │            └─ taken by all who had come until then ──► forgotten in the store
//!         └─ nobody has come when the time of the earlier subscriptions is over ──► forgotten
//! ```
//!
//! Whoever comes after that still gets it, from memory. Were it kept in the store for the sake of those who may
//! still come, every process that ends before that time would hand it on once more to those who had it.

use std::collections::VecDeque;

use crate::message::Message;
use crate::protocol::{Kept, Restored};
use crate::queue::{Push, Queued};
use crate::router::{Inline, Sink};
use crate::shared::State;
use crate::topic;

/// The messages, and for which inline handlers some of them are.
#[derive(Debug, Default)]
pub(crate) struct Heritage {
    messages: Vec<Inherited>,
    /// Handlers are called by the driver, with nothing borrowed.
    calls: VecDeque<(usize, Kept, Message)>,
}

#[derive(Debug)]
struct Inherited {
    kept: Kept,
    message: Message,
    holder: Holder,
}

/// For whose sake a message stays in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// For whoever comes first.
    Heritage,
    /// For those who have it and did not take it yet.
    Subscribers,
}

impl State {
    /// The store was read.
    pub(crate) fn inherit(&mut self, restored: &mut Restored) {
        let kept = std::mem::take(&mut restored.kept).into_iter();
        self.heritage.messages = kept
            .map(|(kept, message)| Inherited {
                kept,
                message,
                holder: Holder::Heritage,
            })
            .collect();
        let keys: Vec<usize> = self.router.subscribers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.hand_on(key);
        }
    }

    /// There is a new subscriber: it gets what an earlier process had left for its filters.
    pub(crate) fn hand_on(&mut self, key: usize) {
        if self.heritage.messages.is_empty() {
            return;
        }
        let Some(subscriber) = self.router.subscribers.get_mut(key) else {
            return;
        };
        let mut lost = Vec::new();
        for inherited in &mut self.heritage.messages {
            let Inherited { kept, message, .. } = inherited;
            let matches =
                |filter: &str| topic::matches(topic::matching_part(filter), message.topic());
            if !subscriber.filters.iter().any(|filter| matches(filter)) {
                continue;
            }
            let message = message.clone();
            match &mut subscriber.sink {
                Sink::Stream(queue) => {
                    self.protocol.hold(*kept);
                    let queued = Queued {
                        message,
                        receipt: None,
                        kept: Some(*kept),
                    };
                    match queue.push(queued) {
                        Push::Room => {}
                        full @ (Push::Dropped(_) | Push::End(_)) => lost.push(full),
                    }
                }
                Sink::Inline(_) => {
                    self.protocol.hold(*kept);
                    self.heritage.calls.push_back((key, *kept, message));
                }
                Sink::Answers => continue,
            }
            if inherited.holder == Holder::Heritage {
                inherited.holder = Holder::Subscribers;
                self.protocol.let_go(inherited.kept);
            }
        }
        for full in lost {
            self.overflowed(key, full);
        }
    }

    /// The next call of a handler for something inherited. The handler comes back with
    /// [`State::return_inherited`].
    pub(crate) fn borrow_inherited(&mut self) -> Option<(usize, Inline, Kept, Message)> {
        while let Some((key, kept, message)) = self.heritage.calls.pop_front() {
            // No message was routed to it, so what the router knows of the last one says nothing.
            let subscriber = self.router.subscribers.get_mut(key);
            let inline = match subscriber.map(|subscriber| &mut subscriber.sink) {
                Some(Sink::Inline(inline)) if !self.dropped.contains(&key) => inline.take(),
                Some(Sink::Inline(_) | Sink::Stream(_) | Sink::Answers) | None => None,
            };
            match inline {
                Some(inline) => return Some((key, inline, kept, message)),
                None => {
                    self.protocol.let_go(kept);
                    self.loose.drop_later(Some(message));
                }
            }
        }
        None
    }

    /// A subscriber is gone, and its key may be another's next: what waits for its handler counts as taken.
    pub(crate) fn forget_calls(&mut self, key: usize) {
        let calls = std::mem::take(&mut self.heritage.calls);
        for (own, kept, message) in calls {
            if own == key {
                self.protocol.let_go(kept);
                self.loose.drop_later(Some(message));
            } else {
                self.heritage.calls.push_back((own, kept, message));
            }
        }
    }

    /// The handler was called.
    pub(crate) fn return_inherited(&mut self, key: usize, inline: Inline, kept: Kept) {
        self.return_inline(key, inline, None);
        self.protocol.let_go(kept);
    }

    /// The client is at its end: what was inherited and not taken stays in the store for the next process.
    pub(crate) fn bequeath(&mut self) {
        let Heritage { messages, calls } = std::mem::take(&mut self.heritage);
        let messages = messages.into_iter().map(|inherited| inherited.message);
        for message in messages.chain(calls.into_iter().map(|(.., message)| message)) {
            self.loose.drop_later(Some(message));
        }
    }

    /// Nobody can come any more for what was inherited.
    pub(crate) fn disinherit(&mut self) {
        for inherited in std::mem::take(&mut self.heritage.messages) {
            let Inherited {
                kept,
                message,
                holder,
            } = inherited;
            match holder {
                Holder::Heritage => self.protocol.let_go(kept),
                Holder::Subscribers => {}
            }
            self.loose.drop_later(Some(message));
        }
    }
}
