//! Who subscribes to what, and who gets a message.
//!
//! A list that is searched from front to end: the broker is made for tests with few subscriptions.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::codec::subscribe::FilterOptions;
use crate::message::Qos;
use crate::topic::{is_shared, matches};

use super::options::Overlap;

#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) filter: Rc<str>,
    pub(super) options: FilterOptions,
    pub(super) identifier: Option<u32>,
}

/// One client that gets a message, and how.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) client: Rc<str>,
    pub(super) qos: Qos,
    pub(super) retain_as_published: bool,
    pub(super) identifiers: Vec<u32>,
}

impl Target {
    fn new(client: &Rc<str>, subscription: &Subscription) -> Self {
        Self {
            client: Rc::clone(client),
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            identifiers: subscription.identifier.into_iter().collect(),
        }
    }

    /// The same copy serves another subscription too [MQTT-3.3.4-2/-4].
    fn merge(&mut self, subscription: &Subscription) {
        self.qos = self.qos.max(subscription.options.qos);
        self.retain_as_published |= subscription.options.retain_as_published;
        self.identifiers.extend(subscription.identifier);
    }
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_client: BTreeMap<Rc<str>, Vec<Subscription>>,
    /// Whose turn it is, per shared filter.
    turns: BTreeMap<Rc<str>, usize>,
}

impl Subscriptions {
    /// Adds or replaces [MQTT-3.8.4-3]; says whether it is new.
    pub(super) fn insert(&mut self, client: &Rc<str>, subscription: Subscription) -> bool {
        let list = self.by_client.entry(Rc::clone(client)).or_default();
        let same = list
            .iter_mut()
            .find(|old| old.filter == subscription.filter);
        match same {
            Some(old) => {
                *old = subscription;
                false
            }
            None => {
                list.push(subscription);
                true
            }
        }
    }

    /// Says whether there was one. Filters are compared character by character [MQTT-3.10.4-1].
    pub(super) fn remove(&mut self, client: &str, filter: &str) -> bool {
        let Some(list) = self.by_client.get_mut(client) else {
            return false;
        };
        let before = list.len();
        list.retain(|old| &*old.filter != filter);
        before != list.len()
    }

    pub(super) fn forget(&mut self, client: &str) {
        self.by_client.remove(client);
    }

    pub(super) fn of(&self, client: &str) -> &[Subscription] {
        self.by_client.get(client).map_or(&[], Vec::as_slice)
    }

    /// Appends to `targets` who gets a message to `topic` that `from` has published.
    pub(super) fn targets(
        &mut self,
        topic: &str,
        from: Option<&str>,
        overlap: Overlap,
        is_online: impl Fn(&str) -> bool,
        targets: &mut Vec<Target>,
    ) {
        // Allocates nothing while nothing matches: the broker is also the sink of benchmarks.
        let mut shared: Vec<(Rc<str>, Vec<Target>)> = Vec::new();
        for (client, list) in &self.by_client {
            let first = targets.len();
            for subscription in list {
                if !matches(&subscription.filter, topic) {
                    continue;
                }
                // [MQTT-3.8.3-3]
                if subscription.options.no_local && from == Some(client) {
                    continue;
                }
                if is_shared(&subscription.filter) {
                    let target = Target::new(client, subscription);
                    let group = shared
                        .iter_mut()
                        .find(|(filter, _)| *filter == subscription.filter);
                    match group {
                        Some((_, group)) => group.push(target),
                        None => shared.push((Rc::clone(&subscription.filter), vec![target])),
                    }
                    continue;
                }
                match targets[first..].first_mut() {
                    Some(target) if overlap == Overlap::OneCopy => target.merge(subscription),
                    Some(_) | None => targets.push(Target::new(client, subscription)),
                }
            }
        }
        for (filter, mut group) in shared {
            // Members without a connection get nothing while another has one.
            if group.iter().any(|target| is_online(&target.client)) {
                group.retain(|target| is_online(&target.client));
            }
            let turn = self.turns.entry(filter).or_default();
            let index = *turn % group.len();
            *turn += 1;
            targets.push(group.swap_remove(index));
        }
    }
}
