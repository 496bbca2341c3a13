//! What an earlier process had acknowledged and not taken: it waits in the store for the streams of this
//! one.
//!
//! ```text
//!     restored ──► handed to each subscriber whose filter matches, as it comes
//!       │  ▲           ├─ taken by all who had come until then ──► forgotten in the store
//!       │  └───────────┴─ each of them was a subscribe that failed
//!       └─ nobody has come when the time of the earlier subscriptions is over ──► forgotten
//! ```
//!
//! A subscriber has come when the program has its handle, or its handler was called: what only a subscribe had
//! that failed nobody can have taken. Until the first has come, the heritage itself holds the message in the store,
//! beside the queues that have it: what these drop for want of room is not forgotten.
//!
//! A filter brings it to the program once: whoever subscribes to that again gets it no second time. Whoever comes
//! with another filter after it was forgotten still gets it, from memory. Were it kept in the store for the sake of those
//! who may still come, every process that ends before that time would hand it on once more to those who had it.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use crate::message::Message;
use crate::protocol::{Kept, Protocol, Restored};
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
    /// Subscribers whose handles the program does not have yet.
    asked: BTreeSet<usize>,
}

#[derive(Debug)]
struct Inherited {
    kept: Kept,
    message: Message,
    /// How it was handed on. Until the program has got it, it stays in the store for whoever comes first; then
    /// for those who did not take it yet.
    passages: Vec<Passage>,
}

/// A filter through which a message was handed on, and to whom.
#[derive(Debug)]
struct Passage {
    filter: Rc<str>,
    owner: Owner,
}

/// Who got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Program,
    /// A subscriber whose handle the program does not have yet, and perhaps never will.
    Asked(usize),
}

impl Heritage {
    fn owner(&self, key: usize) -> Owner {
        if self.asked.contains(&key) {
            Owner::Asked(key)
        } else {
            Owner::Program
        }
    }
}

impl Inherited {
    /// The program has what this subscriber got: from now on only those hold it who did not take it yet.
    fn reached(&mut self, key: usize, protocol: &mut Protocol) {
        let is_held = self.is_held();
        for passage in &mut self.passages {
            if passage.owner == Owner::Asked(key) {
                passage.owner = Owner::Program;
            }
        }
        if is_held && !self.is_held() {
            protocol.let_go(self.kept);
        }
    }

    /// Whether it is still for whoever comes first.
    fn is_held(&self) -> bool {
        let mut passages = self.passages.iter();
        passages.all(|passage| passage.owner != Owner::Program)
    }

    /// Whether the program has got it through this filter.
    fn came_through(&self, filter: &str) -> bool {
        let mut passages = self.passages.iter();
        passages.any(|passage| passage.owner == Owner::Program && *passage.filter == *filter)
    }

    /// Those of these filters that it matches.
    fn matching(&self, filters: &[Rc<str>]) -> Vec<Rc<str>> {
        let topic = self.message.topic();
        let matches = |filter: &&Rc<str>| topic::matches(topic::matching_part(filter), topic);
        filters.iter().filter(matches).cloned().collect()
    }
}

impl State {
    /// The store was read.
    pub(crate) fn inherit(&mut self, restored: &mut Restored) {
        let kept = std::mem::take(&mut restored.kept).into_iter();
        self.heritage.messages = kept
            .map(|(kept, message)| Inherited {
                kept,
                message,
                passages: Vec::new(),
            })
            .collect();
        let keys: Vec<usize> = self.router.subscribers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.hand_on(key);
        }
    }

    /// There is a subscriber whose handle the program gets if the subscribe succeeds.
    pub(crate) fn ask_for(&mut self, key: usize) {
        self.heritage.asked.insert(key);
    }

    /// The program has the handle of this subscriber.
    pub(crate) fn hand_over(&mut self, key: usize) {
        if self.heritage.asked.remove(&key) && !self.heritage.messages.is_empty() {
            // What its queue had no room for is forgotten now.
            self.wake_driver();
            for inherited in &mut self.heritage.messages {
                inherited.reached(key, &mut self.protocol);
            }
        }
    }

    /// This subscriber ends. If the program never had its handle, what was inherited is no less wanted than
    /// before. What it holds itself is let go of by whoever discards that.
    pub(crate) fn give_back(&mut self, key: usize) {
        if !self.heritage.asked.remove(&key) {
            return;
        }
        for inherited in &mut self.heritage.messages {
            let passages = &mut inherited.passages;
            passages.retain(|passage| passage.owner != Owner::Asked(key));
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
        let owner = self.heritage.owner(key);
        let mut dropped = Vec::new();
        let mut is_full = false;
        for inherited in &mut self.heritage.messages {
            let filters = inherited.matching(&subscriber.filters);
            if filters.iter().all(|filter| inherited.came_through(filter)) {
                continue;
            }
            let kept = inherited.kept;
            let message = inherited.message.clone();
            match &mut subscriber.sink {
                Sink::Stream(queue) => {
                    let queued = Queued {
                        message,
                        receipt: None,
                        kept: Some(kept),
                    };
                    match queue.push(queued) {
                        Push::Room => {}
                        Push::Dropped(some) => dropped.push(some),
                        Push::End(queued) => {
                            // The stream never has it, nor what follows: the next one does.
                            self.loose.drop_later(Some(queued.message));
                            is_full = true;
                            break;
                        }
                    }
                    self.protocol.hold(kept);
                }
                Sink::Inline(_) => {
                    self.protocol.hold(kept);
                    self.heritage.calls.push_back((key, kept, message));
                }
                Sink::Answers => continue,
            }
            let is_held = inherited.is_held();
            let passages = filters.into_iter().map(|filter| Passage { filter, owner });
            inherited.passages.extend(passages);
            if is_held && !inherited.is_held() {
                self.protocol.let_go(kept);
            }
        }
        for dropped in dropped {
            self.fell_behind(key, dropped);
        }
        if is_full {
            self.end_overflowed(key);
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
                Some(inline) => {
                    let messages = &mut self.heritage.messages;
                    // They are in the order in which they were kept.
                    let place = messages.binary_search_by(|inherited| inherited.kept.cmp(&kept));
                    if let Some(inherited) = place.ok().and_then(|place| messages.get_mut(place)) {
                        inherited.reached(key, &mut self.protocol);
                    }
                    return Some((key, inline, kept, message));
                }
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
        let Heritage {
            messages, calls, ..
        } = std::mem::take(&mut self.heritage);
        let messages = messages.into_iter().map(|inherited| inherited.message);
        for message in messages.chain(calls.into_iter().map(|(.., message)| message)) {
            self.loose.drop_later(Some(message));
        }
    }

    /// Nobody can come any more for what was inherited.
    pub(crate) fn disinherit(&mut self) {
        for inherited in std::mem::take(&mut self.heritage.messages) {
            if inherited.is_held() {
                self.protocol.let_go(inherited.kept);
            }
            self.loose.drop_later(Some(inherited.message));
        }
    }
}
