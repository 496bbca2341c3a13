//! Subscription identifiers: which filters have one in common (MQTT 5, sections 3.8.2.1.2 and 3.3.4).
//!
//! A SUBSCRIBE has one identifier for all its filters, so filters share one to go together. What a message
//! with an identifier means is then known without its topic, as long as all of them have the same
//! subscribers:
//!
//! ```text
//!               a filter gets a subscriber that another has not
//!     Like one ─────────────────────────────────────────────────► Apart ── they are alike again ──► Like one
//!        │                                                          │
//!        └── one filter ends, others go on ──► Shrunk ◄─────────────┘
//! ```
//!
//! A shrunk group stays so: messages of the ended filter may be on their way, and must not go to the
//! subscribers of the others. Then, and while they are apart, the topic decides among them. That is exact,
//! because two filters that share an identifier of ours never match the same topic; else a broker that
//! sends a copy for each would leave open which copy is meant for which.

use std::collections::BTreeMap;

use slab::Slab;

use super::Entry;
use crate::error::{Doing, Error};
use crate::properties::MAX_VARIABLE;
use crate::protocol::{BATCH, Identifier};
use crate::topic;

/// The first identifier that is given automatically. Those below are the user's, so that a program that
/// tells its messages apart by numbers of its own never meets one of ours. It is the first that takes three
/// bytes.
const FIRST: u32 = 16_384;

/// The filters of each identifier that is in use.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<u32, Group>,
    /// The next to be given. The counter goes through all numbers before one is given again, so what is
    /// still on its way for an ended subscription never reaches another one.
    next: u32,
}

/// The filters of one identifier.
#[derive(Debug)]
pub(super) struct Group {
    filters: Vec<usize>,
    whose: Whose,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Users,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// All filters have the same subscribers.
    LikeOne,
    /// They have not, or there are more than it pays to compare.
    Apart,
    /// A filter has ended.
    Shrunk,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            next: FIRST,
        }
    }
}

impl Group {
    /// A filter that stands for all, if the topic need not be looked at. It is with an identifier of the
    /// user's, who may give it again while messages for its last filter are on their way.
    pub(super) fn like_one(&self) -> Option<usize> {
        match (self.whose, self.state) {
            (Whose::Ours, State::LikeOne) => self.filters.first().copied(),
            (Whose::Ours, State::Apart | State::Shrunk) | (Whose::Users, _) => None,
        }
    }
}

impl Groups {
    /// Checks that an identifier of the user's is none of ours.
    ///
    /// # Errors
    /// A misuse.
    pub(super) fn check(&self, given: Option<u32>) -> Result<(), Error> {
        let group = given.and_then(|given| self.groups.get(&given));
        match group.map(|group| group.whose) {
            Some(Whose::Ours) => Err(Error::misuse(
                "this subscription identifier was given to another one automatically, as may be those \
                 from 16384 on",
            )
            .while_doing(Doing::Subscribing)),
            Some(Whose::Users) | None => Ok(()),
        }
    }

    /// The group of an identifier; none if nobody has it, or nobody any more.
    pub(super) fn get(&self, number: u32) -> Option<&Group> {
        self.groups.get(&number)
    }

    /// An identifier that nobody has.
    fn next(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = if number < MAX_VARIABLE {
                number + 1
            } else {
                FIRST
            };
            if !self.groups.contains_key(&number) {
                return number;
            }
        }
    }

    /// A filter has this identifier now.
    pub(super) fn add(&mut self, identifier: Identifier, filter: usize) {
        let (number, whose) = match identifier {
            Identifier::None => return,
            Identifier::Automatic(number) => (number, Whose::Ours),
            Identifier::Given(number) => (number, Whose::Users),
        };
        let group = self.groups.entry(number).or_insert_with(|| Group {
            filters: Vec::new(),
            whose,
            state: State::LikeOne,
        });
        group.filters.push(filter);
    }

    /// A filter has ended.
    pub(super) fn remove(&mut self, identifier: Identifier, filter: usize) {
        let Some(number) = identifier.number() else {
            return;
        };
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        group.filters.retain(|other| *other != filter);
        group.state = State::Shrunk;
        if group.filters.is_empty() {
            self.groups.remove(&number);
        }
    }

    /// Looks whether the filters of this identifier have the same subscribers.
    pub(super) fn look(&mut self, identifier: Identifier, filters: &Slab<Entry>) {
        let group = identifier
            .number()
            .and_then(|number| self.groups.get_mut(&number));
        let Some(group) = group else { return };
        let alike = |pair: &[usize]| {
            let [one, other] = pair else { return false };
            match (filters.get(*one), filters.get(*other)) {
                (Some(one), Some(other)) => one.subscribers == other.subscribers,
                (Some(_) | None, _) => false,
            }
        };
        let few = group.filters.len() <= BATCH;
        group.state = match group.state {
            State::Shrunk => State::Shrunk,
            State::LikeOne | State::Apart if few && group.filters.windows(2).all(alike) => {
                State::LikeOne
            }
            State::LikeOne | State::Apart => State::Apart,
        };
    }
}

/// Gives the filters of one call identifiers of ours: one for as many as fit into a SUBSCRIBE and match no
/// topic in common.
#[derive(Debug, Default)]
pub(super) struct Spread {
    number: Option<u32>,
    filters: Vec<String>,
}

impl Spread {
    pub(super) fn identify(&mut self, filter: &str, groups: &mut Groups) -> Identifier {
        let fits = self.filters.len() < BATCH
            && !self
                .filters
                .iter()
                .any(|other| topic::overlap(other, filter));
        let number = match self.number.filter(|_| fits) {
            Some(number) => number,
            None => {
                self.filters.clear();
                *self.number.insert(groups.next())
            }
        };
        self.filters.push(filter.into());
        Identifier::Automatic(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_given_again_only_after_all_others() {
        let mut groups = Groups::default();
        assert_eq!(groups.next(), 16_384);
        assert_eq!(groups.next(), 16_385);
        groups.next = MAX_VARIABLE;
        groups.add(Identifier::Automatic(16_384), 1);
        groups.add(Identifier::Given(16_385), 2);
        assert_eq!(groups.next(), 268_435_455);
        // Those in use are passed over.
        assert_eq!(groups.next(), 16_386);
    }
}
