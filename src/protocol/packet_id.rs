//! Packet identifiers: who holds which (MQTT 5, section 2.2.1).
//!
//! One counter runs from 1 up to 65,535 and around; it skips identifiers that are in use, and one that
//! became free is not used again before the counter comes by. The table grows with the number in use,
//! so an idle client holds nothing. It is hashed by the low bits: identifiers come in a row, so each
//! finds its own slot.

use crate::message::PacketId;

/// Identifiers that publications never take, so that SUBSCRIBE and UNSUBSCRIBE always get one.
pub(super) const RESERVED: usize = 16;

/// SUBSCRIBEs, and as many UNSUBSCRIBEs, that may be unanswered at a time: together they hold no more than
/// what is reserved, so that an identifier is always free for the next one.
pub(super) const REQUESTS: usize = RESERVED / 2;

/// Slots that are kept when no identifier is in use, so that one message after the other allocates nothing.
const KEPT: usize = 128;

/// Who holds an identifier, with the key of the entry in that machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A QoS 1 or 2 message on its way out.
    PublishOut(usize),
    /// A SUBSCRIBE that waits for its SUBACK.
    Subscribe(usize),
    /// An UNSUBSCRIBE that waits for its UNSUBACK.
    Unsubscribe(usize),
    /// A QoS 2 message that was given up although the broker may have recorded its identifier.
    Burnt,
}

/// The identifiers in use.
#[derive(Debug, Default)]
pub(super) struct PacketIds {
    last: u16,
    used: usize,
    /// A power of two of slots, at most half of them taken; or none at all.
    slots: Vec<Option<(PacketId, Owner)>>,
    /// How many are not in the slot of their low bits. Mostly none: then nothing has to move when one goes,
    /// and the search for what might need not run through all that are in a row.
    displaced: usize,
}

impl PacketIds {
    /// How many publications may have, so that enough is left for the others.
    pub(super) const FOR_PUBLICATIONS: usize = u16::MAX as usize - RESERVED;

    /// How many are in use.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Whether a publication may take one.
    pub(super) fn has_room(&self) -> bool {
        self.used < Self::FOR_PUBLICATIONS
    }

    /// Whether one is free.
    pub(super) fn has_any(&self) -> bool {
        self.used < usize::from(u16::MAX)
    }

    /// Takes the next free identifier [MQTT-2.2.1-3]; none if all are in use.
    pub(super) fn take(&mut self, owner: Owner) -> Option<PacketId> {
        if !self.has_any() {
            return None;
        }
        let id = loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if let Some(id) = PacketId::new(self.last)
                && self.owner(id).is_none()
            {
                break id;
            }
        };
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow();
        }
        self.used += 1;
        self.put(id, owner);
        Some(id)
    }

    /// An earlier process gave this identifier, which is free. The counter goes on from there.
    pub(super) fn occupy(&mut self, id: PacketId, owner: Owner) {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow();
        }
        self.used += 1;
        self.last = id.get();
        self.put(id, owner);
    }

    /// Who holds `id`.
    pub(super) fn owner(&self, id: PacketId) -> Option<Owner> {
        self.find(id)
            .and_then(|slot| self.slots[slot])
            .map(|(_, owner)| owner)
    }

    /// The holder of `id` is gone, but no other may have it yet.
    pub(super) fn burn(&mut self, id: PacketId) {
        if let Some(slot) = self.find(id) {
            self.slots[slot] = Some((id, Owner::Burnt));
        }
    }

    /// Makes `id` free.
    pub(super) fn release(&mut self, id: PacketId) {
        let Some(mut hole) = self.find(id) else {
            return;
        };
        let mask = self.slots.len() - 1;
        self.used -= 1;
        self.slots[hole] = None;
        self.displaced -= usize::from(hole != usize::from(id.get()) & mask);
        if self.used == 0 && self.slots.len() > KEPT {
            self.slots = Vec::new();
            return;
        }
        // What was pushed past this slot moves back, so that a search may stop at an empty slot.
        let mut slot = (hole + 1) & mask;
        while self.displaced > 0
            && let Some((id, _)) = self.slots[slot]
        {
            let home = usize::from(id.get()) & mask;
            let passes_hole = (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(hole) & mask);
            if passes_hole {
                self.slots[hole] = self.slots[slot].take();
                self.displaced -= usize::from(hole == home);
                hole = slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&mut self) {
        if self.used == 0 {
            self.slots = Vec::new();
        }
    }

    fn find(&self, id: PacketId) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = usize::from(id.get()) & mask;
        loop {
            match self.slots[slot] {
                Some((found, _)) if found == id => return Some(slot),
                Some(_) => slot = (slot + 1) & mask,
                None => return None,
            }
        }
    }

    /// There is a free slot: at most half of them are taken.
    fn put(&mut self, id: PacketId, owner: Owner) {
        let mask = self.slots.len() - 1;
        let home = usize::from(id.get()) & mask;
        let mut slot = home;
        while self.slots[slot].is_some() {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = Some((id, owner));
        self.displaced += usize::from(slot != home);
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        let old = std::mem::replace(&mut self.slots, vec![None; size]);
        self.displaced = 0;
        for (id, owner) in old.into_iter().flatten() {
            self.put(id, owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_start_at_one_and_are_not_reused_at_once() {
        let mut ids = PacketIds::default();
        let first = ids.take(Owner::PublishOut(0)).map(PacketId::get);
        assert_eq!(first, Some(1));
        ids.release(PacketId::MIN);
        assert_eq!(ids.take(Owner::PublishOut(0)).map(PacketId::get), Some(2));
    }

    #[test]
    fn the_counter_skips_what_is_in_use_for_200_000_publications() {
        let mut ids = PacketIds::default();
        let stuck = ids.take(Owner::Subscribe(7)).expect("the table is empty");
        for _ in 0..200_000 {
            let id = ids.take(Owner::PublishOut(1)).expect("two are in use");
            assert_ne!(id, stuck);
            ids.release(id);
        }
        assert_eq!(ids.owner(stuck), Some(Owner::Subscribe(7)));
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn all_65535_can_be_in_use_and_each_is_found() {
        let mut ids = PacketIds::default();
        for key in 0..65_535 {
            assert!(ids.take(Owner::PublishOut(key)).is_some());
        }
        assert_eq!(ids.take(Owner::PublishOut(0)), None);
        for key in 0..65_535_u16 {
            let id = PacketId::new(key + 1).expect("at least 1");
            assert_eq!(ids.owner(id), Some(Owner::PublishOut(usize::from(key))));
        }
    }

    #[test]
    fn the_table_agrees_with_a_map_under_random_use() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ids = PacketIds::default();
        let mut model = std::collections::BTreeMap::new();
        for step in 0..20_000 {
            if random.bool() || model.is_empty() {
                let id = ids.take(Owner::PublishOut(step)).expect("few are in use");
                assert_eq!(model.insert(id, step), None);
            } else {
                let nth = random.usize(..model.len());
                let id = *model.keys().nth(nth).expect("nth is below the length");
                model.remove(&id);
                ids.release(id);
            }
            assert_eq!(ids.len(), model.len());
            let mask = ids.slots.len().wrapping_sub(1);
            let taken = ids.slots.iter().enumerate();
            let displaced = taken.filter(|(slot, taken)| {
                taken.is_some_and(|(id, _)| usize::from(id.get()) & mask != *slot)
            });
            assert_eq!(ids.displaced, displaced.count());
        }
        for (id, key) in model {
            assert_eq!(ids.owner(id), Some(Owner::PublishOut(key)));
        }
    }

    #[test]
    fn what_comes_and_goes_in_a_row_moves_nothing() {
        let mut ids = PacketIds::default();
        let mut oldest = (1..=1000).map(|key| ids.take(Owner::PublishOut(key)));
        assert!(oldest.all(|id| id.is_some()));
        for key in 1..=60_000 {
            assert_eq!(
                ids.displaced, 0,
                "else each release is a search through all"
            );
            ids.release(PacketId::new(key).expect("at least 1"));
            assert!(ids.take(Owner::PublishOut(0)).is_some());
        }
    }

    #[test]
    fn a_small_table_is_kept_until_the_client_is_idle() {
        let mut ids = PacketIds::default();
        for _ in 0..3 {
            let id = ids.take(Owner::PublishOut(0)).expect("none is in use");
            ids.release(id);
            assert!(!ids.slots.is_empty());
        }
        ids.shrink();
        assert!(ids.slots.is_empty());
        let many: Vec<_> = (0..1000)
            .map(|key| ids.take(Owner::PublishOut(key)))
            .collect();
        many.into_iter().flatten().for_each(|id| ids.release(id));
        assert!(ids.slots.is_empty(), "a burst leaves nothing behind");
        assert_eq!(ids.owner(PacketId::MIN), None);
    }
}
