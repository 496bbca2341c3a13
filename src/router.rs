//! Who gets a message: filters to subscribers, by the levels of the topic.
//!
//! The tree has one node per level of the filters; a message walks it along its topic, by the literal
//! level, by `+` and by `#` (MQTT 5, section 4.7). Nothing is allocated on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use slab::Slab;

use crate::codec::subscribe::FilterOptions;
use crate::error::{Doing, Error, ErrorKind};
use crate::message::Incoming;
use crate::queue::{Queue, Reading};
use crate::topic;

/// An inline handler: called from the driver with the message borrowed.
pub(crate) struct Inline(pub(crate) Box<dyn FnMut(&Incoming<'_>)>);

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inline")
    }
}

/// Where a subscriber's messages go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To a stream.
    Stream(Queue),
    /// To a handler; none while it is being called.
    Inline(Option<Inline>),
}

/// One subscription handle.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) filters: Vec<Rc<str>>,
    pub(crate) sink: Sink,
    pub(crate) reading: Reading,
    /// The last message that was given to it, so that overlapping filters give it only one.
    seen: u64,
    call: Call,
}

/// The subscribe that made a subscriber. The protocol knows it by the key, which therefore must not be
/// used for another one before the answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Unanswered,
    Answered,
    /// The handle is gone, and the answer still to come.
    Orphaned,
}

/// A filter that someone subscribes to.
#[derive(Debug)]
struct Entry {
    options: FilterOptions,
    identifier: Option<u32>,
    subscribers: Vec<usize>,
}

/// The subscribers and their filters.
#[derive(Debug, Default)]
pub(crate) struct Router {
    root: Node,
    filters: BTreeMap<Rc<str>, Box<Entry>>,
    pub(crate) subscribers: Slab<Subscriber>,
    /// Counts messages, for `seen`.
    message: u64,
    hits: Vec<usize>,
}

/// One level of the tree.
#[derive(Debug, Default)]
struct Node {
    /// Subscribers whose filter ends here.
    here: Vec<usize>,
    /// Subscribers whose filter ends with `#` below here; it matches this level too.
    rest: Vec<usize>,
    any: Option<Box<Self>>,
    /// Boxed, because a tree map reserves room for eleven.
    children: BTreeMap<Box<str>, Box<Self>>,
}

impl Router {
    /// Checks that each filter may be subscribed to with these options, and returns the QoS to ask for:
    /// the highest that any of its handles wants.
    ///
    /// # Errors
    /// Another handle has the same filter with other options.
    pub(crate) fn check(
        &self,
        filter: &str,
        mut options: FilterOptions,
        identifier: Option<u32>,
    ) -> Result<FilterOptions, Error> {
        let Some(entry) = self.filters.get(filter) else {
            return Ok(options);
        };
        options.qos = options.qos.max(entry.options.qos);
        let same = FilterOptions {
            qos: options.qos,
            ..entry.options
        } == options;
        if !same || entry.identifier != identifier {
            let kind = ErrorKind::Conflict(filter.into());
            return Err(Error::new(kind, Doing::Subscribing));
        }
        Ok(options)
    }

    /// Adds a subscriber. Its filters have been checked.
    pub(crate) fn insert(
        &mut self,
        filters: &[(Rc<str>, FilterOptions)],
        identifier: Option<u32>,
        sink: Sink,
    ) -> usize {
        let names = filters
            .iter()
            .map(|(filter, _)| Rc::clone(filter))
            .collect();
        let key = self.subscribers.insert(Subscriber {
            filters: names,
            sink,
            reading: Reading::default(),
            seen: 0,
            call: Call::Unanswered,
        });
        for (filter, options) in filters {
            let entry = self.filters.entry(Rc::clone(filter)).or_insert_with(|| {
                Box::new(Entry {
                    options: *options,
                    identifier,
                    subscribers: Vec::new(),
                })
            });
            entry.options = *options;
            if !entry.subscribers.contains(&key) {
                entry.subscribers.push(key);
                self.root.list(topic::matching_part(filter)).push(key);
            }
        }
        key
    }

    /// Removes a subscriber. Returns it with those of its filters that nobody else has.
    pub(crate) fn remove(&mut self, key: usize) -> Option<(Subscriber, Vec<Rc<str>>)> {
        let filters = self.subscribers.get(key)?.filters.clone();
        let ended = filters
            .into_iter()
            .filter(|filter| self.detach(key, filter))
            .collect();
        let orphan = Subscriber {
            filters: Vec::new(),
            sink: Sink::Inline(None),
            reading: Reading::default(),
            seen: 0,
            call: Call::Orphaned,
        };
        let subscriber = self.subscribers.get_mut(key)?;
        let subscriber = match subscriber.call {
            Call::Unanswered => std::mem::replace(subscriber, orphan),
            Call::Answered => self.subscribers.remove(key),
            Call::Orphaned => return None,
        };
        Some((subscriber, ended))
    }

    /// The subscribe of this subscriber was answered.
    pub(crate) fn answered(&mut self, key: usize) {
        let Some(subscriber) = self.subscribers.get_mut(key) else {
            return;
        };
        match subscriber.call {
            Call::Unanswered => subscriber.call = Call::Answered,
            Call::Answered => {}
            Call::Orphaned => {
                self.subscribers.remove(key);
            }
        }
    }

    /// Whether this subscriber has this filter.
    pub(crate) fn has(&self, key: usize, filter: &str) -> bool {
        self.filters
            .get(filter)
            .is_some_and(|entry| entry.subscribers.contains(&key))
    }

    /// Takes one filter from a subscriber. Returns whether nobody has it any more.
    pub(crate) fn detach(&mut self, key: usize, filter: &str) -> bool {
        let Some(entry) = self.filters.get_mut(filter) else {
            return false;
        };
        entry.subscribers.retain(|other| *other != key);
        let ended = entry.subscribers.is_empty();
        if ended {
            self.filters.remove(filter);
        }
        self.root.prune(topic::matching_part(filter), key);
        // The same levels may be reached by another of its filters, `$share/a/x` beside `x`.
        if let Some(subscriber) = self.subscribers.get_mut(key) {
            subscriber.filters.retain(|own| **own != *filter);
            for own in &subscriber.filters {
                let list = self.root.list(topic::matching_part(own));
                if !list.contains(&key) {
                    list.push(key);
                }
            }
        }
        ended
    }

    /// All subscribers of `filter`.
    pub(crate) fn subscribers_of(&self, filter: &str) -> Vec<usize> {
        self.filters
            .get(filter)
            .map_or_else(Vec::new, |entry| entry.subscribers.clone())
    }

    /// Finds the subscribers of `topic`, each once. They are given back with [`Router::done`].
    pub(crate) fn route(&mut self, topic: &str) -> Vec<usize> {
        let mut hits = std::mem::take(&mut self.hits);
        hits.clear();
        self.root
            .collect(Some(topic), topic.starts_with('$'), &mut hits);
        self.message += 1;
        let message = self.message;
        hits.retain(|key| {
            let Some(subscriber) = self.subscribers.get_mut(*key) else {
                return false;
            };
            std::mem::replace(&mut subscriber.seen, message) != message
        });
        hits
    }

    /// The handler of a subscriber that the last message was routed to; none for one that took its key
    /// since.
    pub(crate) fn handler(&mut self, key: usize) -> Option<&mut Option<Inline>> {
        let subscriber = self.subscribers.get_mut(key)?;
        match &mut subscriber.sink {
            Sink::Inline(inline) if subscriber.seen == self.message => Some(inline),
            Sink::Inline(_) | Sink::Stream(_) => None,
        }
    }

    /// Gives back the list of [`Router::route`], so that the next one allocates nothing.
    pub(crate) fn done(&mut self, hits: Vec<usize>) {
        self.hits = hits;
    }
}

impl Node {
    /// The list of the subscribers whose filter has these levels.
    fn list(&mut self, levels: &str) -> &mut Vec<usize> {
        let mut node = self;
        let mut rest = Some(levels);
        while let Some(levels) = rest {
            let (level, tail) = split(levels);
            node = match level {
                "#" => return &mut node.rest,
                "+" => node.any.get_or_insert_default(),
                level => node.children.entry(level.into()).or_default(),
            };
            rest = tail;
        }
        &mut node.here
    }

    /// Removes a subscriber from the list of these levels, and the nodes that are then of no use.
    fn prune(&mut self, levels: &str, key: usize) {
        // The last node on the way that is of use whatever becomes of what is below, and how the way
        // goes on from there: all that is below can be cut off there at once.
        let mut cut = levels;
        let mut node = &mut *self;
        let mut rest = Some(levels);
        let mut is_rest = false;
        while let Some(levels) = rest {
            if node.leads_elsewhere() {
                cut = levels;
            }
            let (level, tail) = split(levels);
            if level == "#" {
                is_rest = true;
                break;
            }
            let Some(next) = node.next_mut(level) else {
                return;
            };
            node = next;
            rest = tail;
        }
        let list = if is_rest {
            &mut node.rest
        } else {
            &mut node.here
        };
        list.retain(|other| *other != key);
        if !node.is_empty() {
            return;
        }
        let mut node = self;
        let mut above = levels;
        while above.len() > cut.len() {
            let (level, Some(tail)) = split(above) else {
                return;
            };
            let Some(next) = node.next_mut(level) else {
                return;
            };
            node = next;
            above = tail;
        }
        match split(cut).0 {
            // It is a list of the node itself, which is still of use.
            "#" => {}
            "+" => node.any = None,
            level => {
                node.children.remove(level);
            }
        }
    }

    /// The node below for a level of a filter.
    fn next_mut(&mut self, level: &str) -> Option<&mut Self> {
        match level {
            "+" => self.any.as_deref_mut(),
            level => self.children.get_mut(level).map(|child| &mut **child),
        }
    }

    /// Whether more than one thing hangs on this node, so that it stays when one of them goes.
    fn leads_elsewhere(&self) -> bool {
        let lists = [!self.here.is_empty(), !self.rest.is_empty()];
        let things = usize::from(self.any.is_some()) + self.children.len();
        things + lists.into_iter().filter(|is_used| *is_used).count() > 1
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.rest.is_empty()
            && self.any.is_none()
            && self.children.is_empty()
    }

    /// `reserved`: the topic begins with `$`, which no leading wildcard matches [MQTT-4.7.2-1].
    ///
    /// Calls itself only where the way parts, and each such place on one way takes a filter of its own:
    /// neither a long topic from the broker nor one filter with 65,535 levels can exhaust the stack.
    fn collect(&self, levels: Option<&str>, mut reserved: bool, hits: &mut Vec<usize>) {
        let mut node = self;
        let mut rest = levels;
        loop {
            if !reserved {
                hits.extend_from_slice(&node.rest);
            }
            let Some(levels) = rest else {
                hits.extend_from_slice(&node.here);
                return;
            };
            let any = if reserved { None } else { node.any.as_deref() };
            if any.is_none() && node.children.is_empty() {
                return;
            }
            let (level, tail) = split(levels);
            let child = if node.children.is_empty() {
                None
            } else {
                node.children.get(level).map(|child| &**child)
            };
            node = match (any, child) {
                (Some(any), Some(child)) => {
                    any.collect(tail, false, hits);
                    child
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return,
            };
            reserved = false;
            rest = tail;
        }
    }
}

impl Drop for Node {
    /// Level by level: dropped one inside the other, the nodes of a long filter exhaust the stack.
    fn drop(&mut self) {
        let mut below = Vec::new();
        self.uproot(&mut below);
        while let Some(mut node) = below.pop() {
            node.uproot(&mut below);
        }
    }
}

impl Node {
    #[expect(
        clippy::vec_box,
        reason = "nodes are boxed in the tree, and stay where they are"
    )]
    fn uproot(&mut self, below: &mut Vec<Box<Self>>) {
        below.extend(self.any.take());
        below.extend(std::mem::take(&mut self.children).into_values());
    }
}

fn split(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, tail)) => (level, Some(tail)),
        None => (levels, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;

    const OPTIONS: FilterOptions = FilterOptions {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };

    fn subscribe(router: &mut Router, filters: &[&str]) -> usize {
        let filters: Vec<_> = filters
            .iter()
            .map(|filter| (Rc::from(*filter), OPTIONS))
            .collect();
        router.insert(&filters, None, Sink::Inline(None))
    }

    fn route(router: &mut Router, topic: &str) -> Vec<usize> {
        let mut hits = router.route(topic);
        hits.sort_unstable();
        let found = hits.clone();
        router.done(hits);
        found
    }

    #[test]
    fn the_tree_agrees_with_matching_one_by_one() {
        let filters = [
            "#",
            "+",
            "a",
            "a/#",
            "a/+",
            "+/b",
            "a/b",
            "a/b/c",
            "+/+/c",
            "/",
            "/+",
            "a//b",
            "$SYS/#",
            "$share/g/a/+",
            "+/#",
            "a/+/#",
        ];
        let topics = [
            "a", "a/b", "a/b/c", "/", "/x", "a//b", "$SYS/x", "b", "x/b", "a/", "", "$SYS",
        ];
        let mut router = Router::default();
        let keys: Vec<_> = filters
            .iter()
            .map(|one| subscribe(&mut router, &[one]))
            .collect();
        for topic in topics {
            let expected: Vec<_> = filters
                .iter()
                .zip(&keys)
                .filter(|(filter, _)| topic::matches(filter, topic))
                .map(|(_, key)| *key)
                .collect();
            assert_eq!(route(&mut router, topic), expected, "{topic}");
        }
        for key in keys {
            assert!(router.remove(key).is_some());
        }
        assert!(router.root.is_empty());
        assert!(router.filters.is_empty());
    }

    #[test]
    fn overlapping_filters_of_one_handle_give_one_message() {
        let mut router = Router::default();
        let one = subscribe(&mut router, &["a/#", "a/+", "a/b"]);
        let other = subscribe(&mut router, &["a/b"]);
        assert_eq!(route(&mut router, "a/b"), [one, other]);
        assert!(!router.detach(one, "a/b"));
        assert!(router.detach(one, "a/+"));
        assert_eq!(route(&mut router, "a/b"), [one, other]);
    }

    #[test]
    fn a_filter_or_topic_of_65535_bytes_of_levels_does_not_exhaust_the_stack() {
        // The stack of a small device's thread.
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        let test = small.spawn(|| {
            let slashes = "/".repeat(65_535);
            let pluses = vec!["+"; 32_768].join("/");
            let letters = vec!["a"; 32_768].join("/");
            let deep = format!("{}/#", &letters[..65_531]);
            let mut router = Router::default();
            let all = [&slashes, &pluses, &letters, &deep, "#", "a/#"];
            let keys: Vec<_> = all
                .iter()
                .map(|filter| subscribe(&mut router, &[filter]))
                .collect();
            assert_eq!(route(&mut router, &slashes), [keys[0], keys[4]]);
            assert_eq!(route(&mut router, &letters), keys[1..]);
            for key in &keys[..5] {
                assert!(router.remove(*key).is_some());
            }
            assert_eq!(route(&mut router, &letters), keys[5..]);
            assert_eq!(router.root.children.len(), 1);
            subscribe(&mut router, &[&pluses]);
        });
        let test = test.expect("a thread can be started");
        assert!(test.join().is_ok());
    }

    #[test]
    fn filters_come_and_go_in_any_order_and_leave_nothing() {
        let mut random = fastrand::Rng::with_seed(3);
        let levels = ["a", "b", "+", "#"];
        for _ in 0..300 {
            let mut router = Router::default();
            let mut there: Vec<(usize, String)> = Vec::new();
            for _ in 0..30 {
                if random.bool() || there.is_empty() {
                    let mut filter = String::from(levels[random.usize(..4)]);
                    while !filter.ends_with('#') && random.u8(..4) > 0 {
                        filter.push('/');
                        filter.push_str(levels[random.usize(..4)]);
                    }
                    there.push((subscribe(&mut router, &[&filter]), filter));
                } else {
                    let (key, _) = there.swap_remove(random.usize(..there.len()));
                    assert!(router.remove(key).is_some());
                }
                for topic in ["a", "b", "a/a", "a/b", "b/a/b", "c", "a/b/c"] {
                    let mut expected: Vec<_> = there
                        .iter()
                        .filter(|(_, filter)| topic::matches(filter, topic))
                        .map(|(key, _)| *key)
                        .collect();
                    expected.sort_unstable();
                    assert_eq!(route(&mut router, topic), expected, "{topic} {there:?}");
                }
            }
            for (key, _) in there {
                router.remove(key);
            }
            assert!(router.root.is_empty());
        }
    }

    #[test]
    fn a_filter_with_other_options_is_a_conflict_and_the_highest_qos_wins() {
        let mut router = Router::default();
        subscribe(&mut router, &["a"]);
        let higher = FilterOptions {
            qos: Qos::ExactlyOnce,
            ..OPTIONS
        };
        assert!(matches!(router.check("a", higher, None), Ok(options) if options == higher));
        let lower = FilterOptions {
            qos: Qos::AtMostOnce,
            ..OPTIONS
        };
        assert!(matches!(router.check("a", lower, None), Ok(options) if options == OPTIONS));
        let other = FilterOptions {
            no_local: true,
            ..OPTIONS
        };
        assert!(router.check("a", other, None).is_err());
        assert!(router.check("a", OPTIONS, Some(1)).is_err());
    }
}
