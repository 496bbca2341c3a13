//! Bytes on their way out of the broker.

use std::time::Instant;

use crate::codec::Frame;
use crate::message::PacketId;

use super::broker::{Broker, LinkId};
use super::link::{Attention, Outflow, Phase};
use super::record::{Kind, packets};
use super::script::{Answering, Direction, End};

impl Broker {
    /// Appends what `encode` writes to the output of a link, if anything may leave there.
    pub(super) fn write(&mut self, id: LinkId, now: Instant, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_closed()) else {
            return;
        };
        match link.outflow {
            Outflow::Open => {
                let start = link.out.len();
                encode(&mut link.out);
                self.passed_out(id, now, start);
            }
            Outflow::Corked(due) => {
                let mut bytes = Vec::new();
                encode(&mut bytes);
                link.hold_back(due, bytes, End::Stay);
                self.arm(due);
            }
            Outflow::Mute => {}
        }
    }

    /// The one gate for bytes that leave: those from `start` on are counted, logged and cut.
    pub(super) fn passed_out(&mut self, id: LinkId, now: Instant, start: usize) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !self.script.is_empty() {
            let count = link.out.len() - start;
            let client = link.client().map(|client| &**client);
            let fired = self.script.on_bytes(Direction::Out, client, count);
            if let Some((before, plan)) = fired {
                if plan.end == End::Cut {
                    link.out.truncate(start + before);
                    link.outflow = Outflow::Mute;
                    self.lost.push(id);
                }
                if let Answering::Literal(bytes) = plan.answering {
                    link.out.extend_from_slice(&bytes);
                }
            }
        }
        let (connection, written) = match &mut link.phase {
            Phase::Connected(connection) => (Some(connection), &link.out),
            Phase::Greeting | Phase::Authenticating(_) | Phase::Closed => (None, &link.out),
        };
        let mut unfinished = connection.map(|connection| &mut connection.unfinished);
        for (packet, frame) in packets(written.get(start..).unwrap_or_default()) {
            self.record.packet(now, id, Direction::Out, packet);
            if let (Some(unfinished), Some(finished)) = (&mut unfinished, finishes(frame)) {
                unfinished.remove(&finished);
            }
        }
        self.want_attention(id);
    }

    pub(super) fn want_attention(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id)
            && link.attention == Attention::None
        {
            link.attention = Attention::Wanted;
            self.attention.push_back(id);
        }
    }
}

/// The publication of the client that this packet to it finishes, if it is one that does.
fn finishes(frame: Frame<'_>) -> Option<PacketId> {
    let ends = match Kind::of(frame.first)? {
        Kind::Puback | Kind::Pubcomp => true,
        Kind::Pubrec => frame.body.get(2).is_some_and(|reason| *reason >= 0x80),
        Kind::Connect
        | Kind::Connack
        | Kind::Publish
        | Kind::Pubrel
        | Kind::Subscribe
        | Kind::Suback
        | Kind::Unsubscribe
        | Kind::Unsuback
        | Kind::Pingreq
        | Kind::Pingresp
        | Kind::Disconnect
        | Kind::Auth => false,
    };
    let (id, _) = frame.body.split_first_chunk()?;
    PacketId::new(u16::from_be_bytes(*id)).filter(|_| ends)
}
