//! What a lost link and the next CONNACK do to QoS 1 and 2 messages that are not finished (MQTT 5,
//! section 4.4; situations 3, 4 and 5).

use std::collections::VecDeque;

use super::stored::unstore_burnt;
use super::{Entry, PublishOut, Stage, Written};
use crate::codec::publish::AckKind;
use crate::error::{Doing, Error, ErrorKind, Sent};
use crate::message::Qos;
use crate::protocol::End;
use crate::protocol::limits::Limits;
use crate::protocol::outbox::Outbox;
use crate::protocol::packet_id::PacketIds;
use crate::protocol::trial::Proof;
use crate::protocol::window::Window;
use crate::reason::Reason;

/// Connections that the broker may close over one message before the message is given up.
const CUTS: u8 = 3;

/// Connections that may break over one message in a row before it is sent alone, behind a proof.
const DOUBTFUL: u8 = 3;

/// Connections that may break over one message in a row before it is given up.
const BREAKS: u8 = 6;

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

    /// Whether the oldest message that is unanswered has left in part.
    pub(in crate::protocol) fn is_amid(&self, out: &Outbox) -> bool {
        let ends = self
            .entries
            .iter()
            .filter_map(|(_, entry)| match entry.stage {
                Stage::Sent { from, to, .. } if from < out.taken() => Some(to),
                Stage::Pending
                | Stage::Named { .. }
                | Stage::Sent { .. }
                | Stage::Unsettled { .. }
                | Stage::Released { .. } => None,
            });
        ends.min().is_some_and(|to| to > out.taken())
    }

    /// The connection is over.
    pub(in crate::protocol) fn disconnected(
        &mut self,
        window: &Window,
        end: End,
        ids: &mut PacketIds,
        out: &mut Outbox,
    ) {
        let taken = out.taken();
        let mut oldest: Option<(u64, usize, bool)> = None;
        for (key, entry) in &mut self.entries {
            let Stage::Sent { id, from, to } = entry.stage else {
                continue;
            };
            entry.stage = Stage::Unsettled { id };
            if from >= taken {
                continue;
            }
            entry.written = Written::InThisSession;
            if oldest.is_none_or(|(order, ..)| entry.order < order) {
                oldest = Some((entry.order, key, to <= taken));
            }
        }
        // Only the oldest message can be to blame, and only if nothing at all was acknowledged: a network
        // that cuts at random must never cost a message.
        let suspect = oldest.and_then(|(_, key, whole)| {
            let entry = self.entries.get(key)?;
            entry.is_blamed(window, end, whole).then_some(key)
        });
        match end {
            // What breaks at another place is the network.
            End::Broken(_) | End::Otherwise => {
                for (key, entry) in &mut self.entries {
                    if suspect != Some(key) {
                        entry.breaks = 0;
                    }
                }
            }
            End::ByBroker => {}
        }
        let Some(key) = suspect else { return };
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match end {
            End::ByBroker => {
                entry.cuts += 1;
                // It is no broken link, but neither is it a message that passes.
                entry.breaks += u8::from(entry.breaks > 0);
            }
            End::Broken(_) => entry.breaks += 1,
            End::Otherwise => return,
        }
        if (entry.cuts >= CUTS || entry.breaks >= BREAKS)
            && let Stage::Unsettled { id } = entry.stage
        {
            let error = Error::new(ErrorKind::LinkLost, Doing::Publishing);
            self.give_up(key, Some(id), error, ids, out);
        }
    }
}

impl Entry {
    /// Whether the link broke so often over it that it is sent alone, behind a proof.
    pub(super) fn is_doubtful(&self) -> bool {
        self.breaks >= DOUBTFUL
    }

    /// Whether the connection that ends like this may have ended over it. It was the oldest, and has left
    /// whole or in part.
    ///
    /// A broker that closes in order has read what it closes over. Once suspected, a message is blamed again
    /// only by a connection that had answered a PINGREQ just before.
    ///
    /// A link that breaks says much less, so more is asked for: that it breaks over the same message, and
    /// nowhere else, [`BREAKS`] times in a row; and after the first of them that the connection had lasted, that
    /// the message was the only one under way, behind a PINGRESP, and that the end came as fast as a broker hangs
    /// up. Then it is nothing that a network does by chance, however often it breaks: its time for that is short,
    /// also for a large message that is long under way.
    fn is_blamed(&self, window: &Window, end: End, whole: bool) -> bool {
        match (end, window.trial.proof()) {
            (End::Otherwise, _) | (End::ByBroker | End::Broken(_), Proof::Progress) => false,
            (End::ByBroker, Proof::None | Proof::Asked(_)) => whole && self.cuts == 0,
            (End::ByBroker, Proof::Given(_)) => whole,
            (End::Broken(at), Proof::None | Proof::Asked(_) | Proof::Given(_)) => {
                !self.is_doubtful() || window.trial.has_ended(at)
            }
        }
    }
}
