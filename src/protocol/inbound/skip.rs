//! Packets above our limit: refused, or skipped and acknowledged.

use crate::codec;
use crate::error::{Error, Violation};
use crate::message::Qos;
use crate::protocol::{Effect, Link, Protocol, Step};
use crate::reason::Reason;
use crate::version::Version;

/// The first byte of every PUBLISH, without its flags.
const PUBLISH: u8 = 0x30;

impl Protocol {
    /// A packet above our limit: on 5.0 the broker knew the limit; before, a message is skipped and
    /// acknowledged, because it would otherwise come back for ever.
    pub(super) fn skip<'a>(
        &mut self,
        first: u8,
        body: &[u8],
        size: usize,
        here: usize,
    ) -> Result<Step<'a>, Error> {
        let too_large = Violation::protocol("MQTT-3.1.2-24", "a packet above our maximum size")
            .with_reason(Reason::PACKET_TOO_LARGE);
        let online = match (&mut self.link, self.config.version) {
            (Link::Online(online), Version::V3_1 | Version::V3_1_1) if first & 0xF0 == PUBLISH => {
                online
            }
            (Link::Online(_) | Link::Offline | Link::Connecting(_) | Link::Leaving(_), _) => {
                return Err(too_large.into());
            }
        };
        let Some((qos, id)) = codec::publish::peek_id(first, body) else {
            // At most a topic of 65,535 bytes stands before the identifier; both have a length of two.
            let header = here - body.len();
            let topic = body
                .first_chunk()
                .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
            let wanted = header + 2 + topic + 2;
            if wanted > size {
                return Err(Violation::malformed("MQTT5 2.1.4", "a field is cut off").into());
            }
            return Ok(Step::More { size: Some(wanted) });
        };
        match (qos, id) {
            (Qos::AtMostOnce, _) => {}
            (Qos::AtLeastOnce | Qos::ExactlyOnce, Some(id)) => {
                let ledger = &mut online.ledger;
                let publish_in = &mut self.session.publish_in;
                publish_in.handle_skipped(qos, id, ledger, &mut self.out);
            }
            (Qos::AtLeastOnce | Qos::ExactlyOnce, None) => {
                return Err(Violation::protocol("MQTT-2.2.1-3", "a packet id is 0").into());
            }
        }
        online.skip = size - here;
        self.out.effect(Effect::Skipped(size));
        Ok(Step::Handled { size: here })
    }
}
