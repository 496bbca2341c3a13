//! What the broker answers: it goes to the machine that holds the packet identifier.

use crate::codec::publish::AckKind;
use crate::codec::{Ack, Suback, Unsuback};
use crate::error::Violation;
use crate::protocol::outbox::Outbox;
use crate::protocol::packet_id::Owner;
use crate::protocol::session::Session;
use crate::protocol::window::Window;
use crate::reason::Reason;

/// Each returns whether the packet belongs to something.
impl Session {
    pub(super) fn handle_puback(
        &mut self,
        ack: &Ack<'_>,
        window: &mut Window,
        out: &mut Outbox,
    ) -> bool {
        let Self {
            ids, publish_out, ..
        } = self;
        match ids.owner(ack.id) {
            Some(Owner::PublishOut(key)) => {
                publish_out.handle_puback(key, ack.reason, ack.properties, window, ids, out)
            }
            Some(Owner::Subscribe(_) | Owner::Unsubscribe(_) | Owner::Burnt) | None => false,
        }
    }

    pub(super) fn handle_pubrec(
        &mut self,
        ack: &Ack<'_>,
        window: &mut Window,
        out: &mut Outbox,
    ) -> bool {
        let Self {
            ids, publish_out, ..
        } = self;
        let known = match ids.owner(ack.id) {
            Some(Owner::PublishOut(key)) => {
                publish_out.handle_pubrec(key, ack.reason, ack.properties, window, ids, out)
            }
            Some(Owner::Burnt) if ack.reason.is_error() => {
                publish_out.handle_burnt(ack.id, ids, out);
                false
            }
            Some(Owner::Subscribe(_) | Owner::Unsubscribe(_) | Owner::Burnt) | None => false,
        };
        if !known && !ack.reason.is_error() {
            // So that the broker can finish what only it remembers [MQTT-3.6.2-1].
            let reason = Reason::PACKET_IDENTIFIER_NOT_FOUND;
            // In the order of the PUBRECs, some of which may wait for the store [MQTT-4.6.0-4].
            out.acknowledge_stored(AckKind::Pubrel, ack.id, reason);
        }
        known
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        ack: &Ack<'_>,
        window: &mut Window,
        out: &mut Outbox,
    ) -> bool {
        let Self {
            ids, publish_out, ..
        } = self;
        match ids.owner(ack.id) {
            Some(Owner::PublishOut(key)) => {
                publish_out.handle_pubcomp(key, ack.reason, ack.properties, window, ids, out)
            }
            Some(Owner::Burnt) => {
                publish_out.handle_burnt(ack.id, ids, out);
                false
            }
            Some(Owner::Subscribe(_) | Owner::Unsubscribe(_)) | None => false,
        }
    }

    pub(super) fn handle_suback(
        &mut self,
        suback: &Suback<'_>,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let Self {
            ids,
            subscribing,
            unsubscribing,
            ..
        } = self;
        match ids.owner(suback.id) {
            Some(Owner::Subscribe(key)) => {
                subscribing.handle_suback(key, suback, unsubscribing, ids, out)?;
                Ok(true)
            }
            Some(Owner::PublishOut(_) | Owner::Unsubscribe(_) | Owner::Burnt) | None => Ok(false),
        }
    }

    pub(super) fn handle_unsuback(
        &mut self,
        unsuback: &Unsuback<'_>,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let Self {
            ids,
            subscribing,
            unsubscribing,
            ..
        } = self;
        match ids.owner(unsuback.id) {
            Some(Owner::Unsubscribe(key)) => {
                unsubscribing.handle_unsuback(key, unsuback, subscribing, ids, out)?;
                Ok(true)
            }
            Some(Owner::PublishOut(_) | Owner::Subscribe(_) | Owner::Burnt) | None => Ok(false),
        }
    }
}
