//! What a lost link and the next CONNACK do to QoS 1 and 2 messages that are not finished (MQTT 5,
//! section 4.4; situations 3, 4 and 5).

use std::collections::VecDeque;

use super::stored::unstore_burnt;
use super::{PublishOut, Stage, Written};
use crate::codec::publish::AckKind;
use crate::error::{Doing, Error, ErrorKind, Sent};
use crate::message::Qos;
use crate::protocol::limits::Limits;
use crate::protocol::outbox::Outbox;
use crate::protocol::packet_id::PacketIds;
use crate::protocol::window::{Proof, Window};
use crate::reason::Reason;

/// Connections that the broker may close over one message before the message is given up.
const CUTS: u8 = 3;

impl PublishOut {
    /// The connection is open and the broker still has the session: PUBRELs leave at once and in the
    /// order of their PUBRECs; they never wait for quota. PUBLISHes follow as there is room.
    pub(in crate::protocol) fn connected_present(
        &mut self,
        limits: &Limits,
        out: &mut Outbox,
    ) -> Window {
        let mut released = Vec::new();
        let mut unsettled = Vec::new();
        for (key, entry) in &mut self.entries {
            match &mut entry.stage {
                Stage::Released {
                    id, order, resent, ..
                } => {
                    *resent = true;
                    released.push((*order, *id));
                }
                Stage::Unsettled { .. } => unsettled.push((entry.order, key)),
                Stage::Pending | Stage::Named { .. } | Stage::Sent { .. } => {}
            }
        }
        released.sort_unstable();
        unsettled.sort_unstable();
        for (_, id) in &released {
            out.acknowledge_stored(AckKind::Pubrel, *id, Reason::SUCCESS);
        }
        // A broker that lowered its Receive Maximum gets no PUBLISH until enough are finished.
        let replay = unsettled.into_iter().map(|(_, key)| key).collect();
        Window::new(limits, released.len(), replay)
    }

    /// The connection is open and the broker has no session: identifiers are forgotten. QoS 1 is sent
    /// anew; so is QoS 2 of which no byte had left, or all of it if `republish`. The rest ends
    /// (situations 4 and 5).
    pub(in crate::protocol) fn connected_lost(
        &mut self,
        limits: &Limits,
        republish: bool,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) -> Window {
        let mut again = Vec::new();
        let mut ended = Vec::new();
        for (key, entry) in &mut self.entries {
            match entry.stage {
                Stage::Pending => {}
                Stage::Named { id } => {
                    ids.release(id);
                    entry.stage = Stage::Pending;
                    entry.store_name(None, out);
                }
                Stage::Sent { id, .. } | Stage::Unsettled { id } => {
                    ids.release(id);
                    entry.stage = Stage::Pending;
                    entry.store_name(None, out);
                    let was_written = entry.written != Written::Never;
                    if entry.qos == Qos::ExactlyOnce && was_written && !republish {
                        ended.push((entry.order, key, Sent::Maybe));
                    } else {
                        if was_written {
                            entry.written = Written::InLostSession;
                        }
                        again.push((entry.order, key));
                    }
                }
                Stage::Released { id, .. } => {
                    ids.release(id);
                    ended.push((entry.order, key, Sent::Yes));
                }
            }
        }
        self.named = 0;
        for id in self.burnt.drain(..) {
            ids.release(id);
            unstore_burnt(id, out);
        }
        again.sort_unstable();
        ended.sort_unstable_by_key(|(order, ..)| *order);
        for (_, key) in again.into_iter().rev() {
            self.pending.push_front(key);
        }
        for (_, key, sent) in ended {
            let kind = ErrorKind::SessionLost {
                received: sent == Sent::Yes,
            };
            self.fail(key, Error::new(kind, Doing::Publishing).sent_as(sent), out);
        }
        Window::new(limits, 0, VecDeque::new())
    }

    /// The connection is over. `blame` if the broker itself ended it in order, so that a message may
    /// be the cause.
    pub(in crate::protocol) fn disconnected(
        &mut self,
        window: &Window,
        blame: bool,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let taken = out.taken();
        let mut oldest: Option<(u64, usize)> = None;
        for (key, entry) in &mut self.entries {
            let Stage::Sent { id, from, to } = entry.stage else {
                continue;
            };
            entry.stage = Stage::Unsettled { id };
            if from < taken {
                entry.written = Written::InThisSession;
            }
            if to <= taken && oldest.is_none_or(|(order, _)| entry.order < order) {
                oldest = Some((entry.order, key));
            }
        }
        // Only the oldest message that had left whole can be to blame, and only if nothing at all was
        // acknowledged: a network that cuts at random must never cost a message. Once suspected, it is
        // blamed again only by a connection that had answered a PINGREQ just before.
        let Some((_, key)) = oldest.filter(|_| blame) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match window.proof {
            Proof::Progress => return,
            Proof::None | Proof::Asked if entry.cuts > 0 => return,
            Proof::None | Proof::Asked | Proof::Given => {}
        }
        entry.cuts += 1;
        if entry.cuts >= CUTS
            && let Stage::Unsettled { id } = entry.stage
        {
            let error = Error::new(ErrorKind::LinkLost, Doing::Publishing);
            self.give_up(key, Some(id), error, ids, out);
        }
    }
}
