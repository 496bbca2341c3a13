//! Who gets a message: by the subscription identifiers that it brings, or by its topic.

mod groups;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use slab::Slab;

use crate::codec::subscribe::FilterOptions;
use crate::error::{Doing, Error, ErrorKind};
use crate::message::Incoming;
use crate::properties::PropertyList;
use crate::protocol::{Identifier, Wish};
use crate::queue::{Queue, Reading};
use crate::topic;
use crate::version::Version;

use groups::{Groups, Spread};
use tree::Node;

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
    /// To the requests that wait for them.
    Answers,
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
    /// The version in whose form its filters are, if they are those of requests.
    serves: Option<Version>,
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
    /// Kept for as long as anyone has the filter, so that no message on its way brings an older one.
    identifier: Identifier,
    subscribers: Vec<usize>,
}

/// Whether the identifiers that come with messages tell for whom they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Trust {
    /// The broker may have subscriptions of an earlier process, whose identifiers this one gives too, to
    /// others; or some that were made when it knew no identifiers, which are not named beside others.
    #[default]
    Doubtful,
    /// All subscriptions of the session are ours, and have our identifiers.
    Sure,
}

/// The subscribers and their filters.
#[derive(Debug, Default)]
pub(crate) struct Router {
    root: Node,
    filters: Slab<Entry>,
    names: BTreeMap<Rc<str>, usize>,
    groups: Groups,
    /// Filters without an identifier: messages for them say nothing of them.
    unnumbered: usize,
    trust: Trust,
    pub(crate) subscribers: Slab<Subscriber>,
    /// Counts messages, for `seen`.
    message: u64,
    hits: Vec<usize>,
    matched: Vec<usize>,
}

impl Router {
    /// Checks that each filter may be subscribed to with these options, and returns the QoS to ask for:
    /// the highest that any of its handles wants. `identifier` is the user's.
    ///
    /// # Errors
    /// Another handle has the same filter with other options.
    pub(crate) fn check(
        &self,
        filter: &str,
        mut options: FilterOptions,
        identifier: Option<u32>,
    ) -> Result<FilterOptions, Error> {
        let Some(entry) = self.entry(filter) else {
            return Ok(options);
        };
        options.qos = options.qos.max(entry.options.qos);
        let same = FilterOptions {
            qos: options.qos,
            ..entry.options
        } == options;
        if !same || entry.identifier.given() != identifier {
            let kind = ErrorKind::Conflict(filter.into());
            return Err(Error::new(kind, Doing::Subscribing));
        }
        Ok(options)
    }

    /// Gives each filter its identifier: the one it has, the user's, or if `automatic` a new one.
    ///
    /// # Errors
    /// The user's is one of ours.
    pub(crate) fn identify(
        &mut self,
        filters: Vec<(Rc<str>, FilterOptions)>,
        given: Option<u32>,
        automatic: bool,
    ) -> Result<Vec<Wish>, Error> {
        self.groups.check(given)?;
        let mut spread = Spread::default();
        let wish = |(filter, options): (Rc<str>, FilterOptions)| {
            let known = self.names.get(&filter);
            let entry = known.and_then(|known| self.filters.get(*known));
            let identifier = match (entry, given) {
                (Some(entry), _) => entry.identifier,
                (None, Some(given)) => Identifier::Given(given),
                (None, None) if automatic => spread.identify(&filter, &mut self.groups),
                (None, None) => Identifier::None,
            };
            Wish {
                filter,
                options,
                identifier,
            }
        };
        Ok(filters.into_iter().map(wish).collect())
    }

    fn entry(&self, filter: &str) -> Option<&Entry> {
        self.filters.get(*self.names.get(filter)?)
    }

    /// Adds a subscriber. Its filters have been checked.
    pub(crate) fn insert(&mut self, wishes: &[Wish], sink: Sink) -> usize {
        let key = self.subscribers.insert(Subscriber {
            filters: wishes.iter().map(|wish| Rc::clone(&wish.filter)).collect(),
            sink,
            reading: Reading::default(),
            seen: 0,
            call: Call::Unanswered,
            serves: None,
        });
        for wish in wishes {
            self.attach(key, wish);
        }
        key
    }

    /// Gives a subscriber one of its filters.
    fn attach(&mut self, key: usize, wish: &Wish) {
        let filter = match self.names.get(&wish.filter) {
            Some(filter) => *filter,
            None => self.begin(wish),
        };
        if let Some(entry) = self.filters.get_mut(filter) {
            entry.options = wish.options;
            if !entry.subscribers.contains(&key) {
                entry.subscribers.push(key);
            }
        }
        self.groups.look(wish.identifier, &self.filters);
    }

    /// The filters of this subscriber are those of requests, in the form of this version.
    pub(crate) fn serve(&mut self, key: usize, version: Version) {
        if let Some(subscriber) = self.subscribers.get_mut(key) {
            subscriber.serves = Some(version);
        }
    }

    /// The filters of requests that have another form in this version, and whose they are; they are to be
    /// renamed.
    pub(crate) fn reform(&mut self, version: Version) -> Vec<(usize, Rc<str>)> {
        let mut reformed = Vec::new();
        for (key, subscriber) in &mut self.subscribers {
            if let Some(form) = &mut subscriber.serves
                && (*form == Version::V5_0) != (version == Version::V5_0)
            {
                *form = version;
                reformed.extend(subscriber.filters.iter().map(|name| (key, Rc::clone(name))));
            }
        }
        reformed
    }

    /// A subscriber wants `to` instead of one of its filters. Returns how; none if it does not have that one.
    pub(crate) fn rename(&mut self, key: usize, from: &str, to: Rc<str>) -> Option<Wish> {
        let Entry {
            mut options,
            identifier,
            ..
        } = *self.entry(from)?;
        if let Some(entry) = self.entry(&to) {
            options.qos = options.qos.max(entry.options.qos);
        }
        let wish = Wish {
            filter: to,
            options,
            identifier,
        };
        self.detach(key, from);
        self.attach(key, &wish);
        let subscriber = self.subscribers.get_mut(key)?;
        subscriber.filters.push(Rc::clone(&wish.filter));
        Some(wish)
    }

    /// A filter that nobody had.
    fn begin(&mut self, wish: &Wish) -> usize {
        let filter = self.filters.insert(Entry {
            options: wish.options,
            identifier: wish.identifier,
            subscribers: Vec::new(),
        });
        self.names.insert(Rc::clone(&wish.filter), filter);
        self.root
            .list(topic::matching_part(&wish.filter))
            .push(filter);
        self.groups.add(wish.identifier, filter);
        self.unnumbered += usize::from(wish.identifier == Identifier::None);
        filter
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
            serves: None,
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
        self.entry(filter)
            .is_some_and(|entry| entry.subscribers.contains(&key))
    }

    /// Takes one filter from a subscriber. Returns whether nobody has it any more.
    pub(crate) fn detach(&mut self, key: usize, filter: &str) -> bool {
        if let Some(subscriber) = self.subscribers.get_mut(key) {
            subscriber.filters.retain(|own| **own != *filter);
        }
        let Some(number) = self.names.get(filter).copied() else {
            return false;
        };
        let Some(entry) = self.filters.get_mut(number) else {
            return false;
        };
        entry.subscribers.retain(|other| *other != key);
        let identifier = entry.identifier;
        let ended = entry.subscribers.is_empty();
        if ended {
            self.names.remove(filter);
            self.root.prune(topic::matching_part(filter), number);
            self.groups.remove(identifier, number);
            self.unnumbered -= usize::from(identifier == Identifier::None);
            self.filters.remove(number);
        }
        self.groups.look(identifier, &self.filters);
        ended
    }

    /// All subscribers of `filter`.
    pub(crate) fn subscribers_of(&self, filter: &str) -> Vec<usize> {
        self.entry(filter)
            .map_or_else(Vec::new, |entry| entry.subscribers.clone())
    }

    /// A connection begins: whether all subscriptions will be made on it, and whether the broker knows
    /// identifiers.
    pub(crate) fn connected(&mut self, anew: bool, identifiers: bool) {
        self.trust = match (anew, identifiers) {
            (true, true) => Trust::Sure,
            // It stays as it was with the connection on which they were made.
            (false, true) => self.trust,
            (_, false) => Trust::Doubtful,
        };
    }

    /// Finds the subscribers of a message to `topic` that says this, each once. They are given back with
    /// [`Router::done`].
    pub(crate) fn route(&mut self, topic: &str, said: PropertyList<'_>) -> Vec<usize> {
        let mut hits = std::mem::take(&mut self.hits);
        self.begin_anew(&mut hits);
        let known = match self.trust {
            Trust::Sure if self.unnumbered == 0 => {
                self.route_by_identifiers(topic, said, &mut hits)
            }
            Trust::Sure | Trust::Doubtful => false,
        };
        if !known {
            self.begin_anew(&mut hits);
            self.route_by_topic(topic, |_| true, &mut hits);
        }
        hits
    }

    fn begin_anew(&mut self, hits: &mut Vec<usize>) {
        hits.clear();
        self.message += 1;
    }

    /// Adds the subscribers of a filter that are not among the hits yet. At once: a packet may name one
    /// identifier a quarter of a million times.
    fn hit(&mut self, filter: usize, hits: &mut Vec<usize>) {
        let Some(entry) = self.filters.get(filter) else {
            return;
        };
        for key in &entry.subscribers {
            if let Some(subscriber) = self.subscribers.get_mut(*key)
                && std::mem::replace(&mut subscriber.seen, self.message) != self.message
            {
                hits.push(*key);
            }
        }
    }

    /// By the identifiers alone where they say everything; else by the topic among the filters that have
    /// them. Returns whether that explains the message.
    fn route_by_identifiers(
        &mut self,
        topic: &str,
        said: PropertyList<'_>,
        hits: &mut Vec<usize>,
    ) -> bool {
        let mut whole = true;
        for number in said.subscription_identifiers() {
            let Some(group) = self.groups.get(number) else {
                return false;
            };
            match group.like_one() {
                Some(filter) => self.hit(filter, hits),
                None => whole = false,
            }
        }
        if !whole {
            self.begin_anew(hits);
            let asked = |identifier: Identifier| {
                let mut numbers = said.subscription_identifiers();
                numbers.any(|number| identifier.number() == Some(number))
            };
            self.route_by_topic(topic, asked, hits);
        }
        !hits.is_empty()
    }

    /// By the topic, among the filters whose identifier is wanted.
    fn route_by_topic(
        &mut self,
        topic: &str,
        wanted: impl Fn(Identifier) -> bool,
        hits: &mut Vec<usize>,
    ) {
        self.root
            .collect(Some(topic), topic.starts_with('$'), &mut self.matched);
        let mut matched = std::mem::take(&mut self.matched);
        for filter in matched.drain(..) {
            let entry = self.filters.get(filter);
            if entry.is_some_and(|entry| wanted(entry.identifier)) {
                self.hit(filter, hits);
            }
        }
        self.matched = matched;
    }

    /// The handler of a subscriber that the last message was routed to; none for one that took its key
    /// since.
    pub(crate) fn handler(&mut self, key: usize) -> Option<&mut Option<Inline>> {
        let subscriber = self.subscribers.get_mut(key)?;
        match &mut subscriber.sink {
            Sink::Inline(inline) if subscriber.seen == self.message => Some(inline),
            Sink::Inline(_) | Sink::Stream(_) | Sink::Answers => None,
        }
    }

    /// Gives back the list of [`Router::route`], so that the next one allocates nothing.
    pub(crate) fn done(&mut self, hits: Vec<usize>) {
        self.hits = hits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;
    use crate::properties::Properties;

    const OPTIONS: FilterOptions = FilterOptions {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };

    fn subscribe(router: &mut Router, filters: &[&str]) -> usize {
        subscribe_as(router, filters, None).0
    }

    /// Subscribes and gives the identifiers of the filters, automatic ones unless they are given.
    fn subscribe_as(
        router: &mut Router,
        filters: &[&str],
        given: Option<u32>,
    ) -> (usize, Vec<u32>) {
        let filters = filters
            .iter()
            .map(|filter| (Rc::from(*filter), OPTIONS))
            .collect();
        let wishes = router.identify(filters, given, true).expect("it is free");
        let numbers = wishes.iter().filter_map(|wish| wish.identifier.number());
        let numbers = numbers.collect();
        (router.insert(&wishes, Sink::Inline(None)), numbers)
    }

    fn route(router: &mut Router, topic: &str) -> Vec<usize> {
        route_as(router, topic, &[])
    }

    /// Who gets a message that brings these identifiers.
    fn route_as(router: &mut Router, topic: &str, numbers: &[u32]) -> Vec<usize> {
        let mut said = Properties::new().content_type("x");
        for number in numbers {
            said = said.subscription_identifier(*number);
        }
        let mut hits = router.route(topic, said.list());
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
