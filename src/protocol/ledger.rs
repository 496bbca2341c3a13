//! Which acknowledgements one connection owes the broker, in which order, and its topic aliases (MQTT 5,
//! sections 4.6 and 3.3.2.3.4).

use std::collections::VecDeque;
use std::rc::Rc;

use super::outbox::Outbox;
use crate::codec::Publish;
use crate::codec::publish::AckKind;
use crate::error::Violation;
use crate::message::{PacketId, Qos};
use crate::properties::Remarks;
use crate::reason::Reason;
use crate::version::Version;

/// Acknowledgements that may wait for an older one. There are no more packet identifiers, so a peer that
/// makes us owe more uses some twice.
const MOST: usize = 65_535;

/// What belongs to one connection.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) pubacks: Owed,
    pub(super) pubrecs: Owed,
    /// PUBLISHes without PUBACK, PUBCOMP, or PUBREC with an error.
    pub(super) unanswered: usize,
    receive_maximum: usize,
    aliases: Vec<Option<Rc<str>>>,
    alias_maximum: u16,
}

/// Acknowledgements of one kind in their order of arrival [MQTT-4.6.0-2, -3].
#[derive(Debug, Default)]
pub(super) struct Owed {
    first: u64,
    queue: VecDeque<(PacketId, Answer)>,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// Not everyone has taken the message.
    Open,
    /// To be sent, with what the application says beside the reason, once all before it are, and the batch of
    /// this number is on disk; 0 if it needs none.
    Ready(Reason, Remarks, u64),
    /// Not to be sent: the broker released the identifier first.
    Void,
}

impl Owed {
    pub(super) fn push(&mut self, id: PacketId, answer: Answer) -> u64 {
        self.queue.push_back((id, answer));
        self.first + self.queue.len() as u64 - 1
    }

    pub(super) fn set(&mut self, place: u64, answer: Answer) {
        let slot = place
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some((_, slot)) = slot.and_then(|index| self.queue.get_mut(index)) {
            *slot = answer;
        }
    }

    /// Whether what is owed at this place is not sent yet.
    pub(super) fn is_waiting(&self, place: u64) -> bool {
        place >= self.first
    }

    /// The next one that may be sent, with this much on disk; none while the oldest is open.
    fn pop(&mut self, committed: u64) -> Option<(PacketId, Option<(Reason, Remarks)>)> {
        let said = match &mut self.queue.front_mut()?.1 {
            Answer::Open => return None,
            Answer::Ready(.., batch) if *batch > committed => return None,
            Answer::Ready(reason, remarks, _) => Some((*reason, std::mem::take(remarks))),
            Answer::Void => None,
        };
        let (id, _) = self.queue.pop_front()?;
        self.first += 1;
        Some((id, said))
    }
}

impl Ledger {
    /// A connection begins for which we announced these limits.
    pub(super) fn new(receive_maximum: u16, alias_maximum: u16) -> Self {
        Self {
            pubacks: Owed::default(),
            pubrecs: Owed::default(),
            unanswered: 0,
            receive_maximum: receive_maximum.into(),
            aliases: Vec::new(),
            alias_maximum,
        }
    }

    /// The topic of a PUBLISH with an alias: what the alias stands for, or stands for from now on.
    ///
    /// # Errors
    /// An alias that is 0, above what we announced, or not defined yet.
    pub(super) fn resolve(&mut self, publish: &Publish<'_>) -> Result<Option<Rc<str>>, Violation> {
        let Some(alias) = publish.properties.topic_alias() else {
            return Ok(None);
        };
        if alias == 0 || alias > self.alias_maximum {
            return Err(
                Violation::protocol("MQTT-3.1.2-26", "a topic alias above our maximum")
                    .with_reason(Reason::TOPIC_ALIAS_INVALID),
            );
        }
        let index = usize::from(alias) - 1;
        if !publish.topic.is_empty() {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, None);
            }
            let known = self.aliases[index]
                .as_ref()
                .filter(|known| &***known == publish.topic);
            let topic = known.cloned().unwrap_or_else(|| Rc::from(publish.topic));
            self.aliases[index] = Some(Rc::clone(&topic));
            return Ok(Some(topic));
        }
        match self.aliases.get(index) {
            Some(Some(topic)) => Ok(Some(Rc::clone(topic))),
            Some(None) | None => Err(Violation::protocol(
                "MQTT5 3.3.2.3.4",
                "a topic alias that was never defined",
            )),
        }
    }

    pub(super) fn owed(&mut self, qos: Qos) -> &mut Owed {
        match qos {
            Qos::ExactlyOnce => &mut self.pubrecs,
            Qos::AtLeastOnce | Qos::AtMostOnce => &mut self.pubacks,
        }
    }

    pub(super) fn count(&mut self, version: Version) -> Result<(), Violation> {
        self.unanswered += 1;
        if version == Version::V5_0 && self.unanswered > self.receive_maximum {
            return Err(
                Violation::protocol("MQTT-3.3.4-9", "more publications than our maximum")
                    .with_reason(Reason::RECEIVE_MAXIMUM_EXCEEDED),
            );
        }
        // Before 5.0 there is no maximum, and in every version a message that is released before its
        // PUBREC leaves its place here.
        if self.pubacks.queue.len() + self.pubrecs.queue.len() >= MOST {
            return Err(
                Violation::protocol("MQTT-2.2.1-4", "more publications than packet ids")
                    .with_reason(Reason::RECEIVE_MAXIMUM_EXCEEDED),
            );
        }
        Ok(())
    }

    /// Sends every acknowledgement before which none is missing.
    pub(super) fn flush(&mut self, out: &mut Outbox) {
        let committed = out.committed();
        while let Some((id, said)) = self.pubacks.pop(committed) {
            self.answered();
            if let Some((reason, remarks)) = said {
                out.acknowledge_with(AckKind::Puback, id, reason, remarks.list());
            }
        }
        while let Some((id, said)) = self.pubrecs.pop(committed) {
            let Some((reason, remarks)) = said else {
                continue;
            };
            // After PUBREC with an error no PUBREL comes.
            if reason.is_error() {
                self.answered();
            }
            out.acknowledge_with(AckKind::Pubrec, id, reason, remarks.list());
        }
    }

    /// One of the broker's PUBLISHes is answered to the end.
    pub(super) fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }
}
