//! The last known message of each topic (MQTT 5, section 3.3.1.3).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use crate::topic::matches;

use super::stored::Stored;

#[derive(Debug, Default)]
pub(super) struct Retained {
    by_topic: BTreeMap<Rc<str>, Rc<Stored>>,
}

impl Retained {
    /// Replaces what is kept for the topic; an empty payload removes it [MQTT-3.3.1-5/-6/-7].
    pub(super) fn keep(&mut self, message: &Rc<Stored>) {
        if message.payload.is_empty() {
            self.by_topic.remove(&message.topic);
        } else {
            self.by_topic
                .insert(Rc::clone(&message.topic), Rc::clone(message));
        }
    }

    pub(super) fn payload(&self, topic: &str) -> Option<&[u8]> {
        self.by_topic
            .get(topic)
            .map(|message| message.payload.as_slice())
    }

    pub(super) fn clear(&mut self) {
        self.by_topic.clear();
    }

    /// What a new subscription to `filter` gets, in the order of the topics.
    pub(super) fn matching(&self, filter: &str, now: Instant) -> Vec<Rc<Stored>> {
        self.by_topic
            .values()
            .filter(|message| matches(filter, &message.topic) && !message.is_expired(now))
            .cloned()
            .collect()
    }
}
