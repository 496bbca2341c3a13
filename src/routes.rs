//! Which way the next attempt takes: there may be several brokers, and several ways to each.
//!
//! ```text
//!                    a round                        the way failed: the next way, at once
//!     Between ─────────────────────► Trying ──────────────────────────────────────┐
//!        ▲                            │   ▲   the broker refused, or its last way │
//!        │   it worked                │   │   failed: the next broker, at once    │
//!        ├────────────────────────────┘   └───────────────────────────────────────┤
//!        │   it was the last broker of the round: after a delay                   │
//!        └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A round begins with the first broker that is not set aside, by the way that worked there last. A broker
//! that was tried in vain is set aside for a while, so that the next rounds begin with another one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::transport::Endpoint;

/// How often brokers may send a client on to another one before a delay or a connection comes about.
/// Clusters need one or two; two brokers that point at each other would go on for ever.
const REFERRALS: u32 = 4;

/// The ways of one client.
pub(crate) struct Routes {
    /// Those of the user; behind them the broker to which we were sent for good, and the one to which we
    /// were sent for now, as far as there are such.
    brokers: Vec<Broker>,
    /// How often we were sent on since the last connection or delay.
    referrals: u32,
    aside: Duration,
    state: State,
}

/// One broker.
struct Broker {
    /// The ways to it, in the order in which they are tried. Never empty.
    ways: Vec<Endpoint>,
    /// The way that worked last.
    best: usize,
    aside_until: Option<Instant>,
    /// None for a broker of the user's.
    referral: Option<Referral>,
}

enum State {
    /// The next attempt begins a round.
    Between,
    Trying(Round),
}

struct Round {
    /// The broker that is tried.
    broker: usize,
    /// How many of its ways have failed.
    failed: usize,
    /// The brokers after it.
    left: VecDeque<usize>,
}

/// For how long a broker has sent its clients on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Referral {
    /// For one connection (reason 0x9C).
    ForNow,
    /// For good, as far as this process remembers (reason 0x9D).
    ForGood,
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The way: another one to the same broker may be free.
    Way,
    /// The broker: it has answered, and refused.
    Broker,
    /// This side: no way leads around it.
    Ours,
}

/// When the next attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onward {
    /// At once, by another way.
    AtOnce,
    /// After a delay: everything was tried.
    Later,
}

impl Broker {
    fn new(ways: Vec<Endpoint>, referral: Option<Referral>) -> Self {
        debug_assert!(!ways.is_empty(), "a broker is reached by some way");
        Self {
            ways,
            best: 0,
            aside_until: None,
            referral,
        }
    }

    /// The way that is tried when so many have failed: first the best, then the others in their order.
    fn way(&self, failed: usize) -> Option<usize> {
        match failed {
            0 => Some(self.best),
            nth => (0..self.ways.len())
                .filter(|way| *way != self.best)
                .nth(nth - 1),
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        self.aside_until.is_none_or(|until| now >= until)
    }
}

impl Routes {
    /// The ways to each broker. One that was tried in vain is set aside for so long.
    pub(crate) fn new(brokers: Vec<Vec<Endpoint>>, aside: Duration) -> Self {
        let brokers = brokers.into_iter().map(|ways| Broker::new(ways, None));
        Self {
            brokers: brokers.collect(),
            referrals: 0,
            aside,
            state: State::Between,
        }
    }

    /// Tries the brokers in a random order, so that a fleet spreads over them.
    pub(crate) fn shuffle(&mut self, random: &mut fastrand::Rng) {
        random.shuffle(&mut self.brokers);
    }

    /// Whether there is more than one way.
    pub(crate) fn are_several(&self) -> bool {
        self.brokers.iter().map(|it| it.ways.len()).sum::<usize>() > 1
    }

    /// Where the next attempt leads: by the same way as before, unless that failed or worked.
    pub(crate) fn target(&mut self, now: Instant) -> Endpoint {
        let (broker, failed) = match &self.state {
            State::Trying(round) => (round.broker, round.failed),
            State::Between => {
                let round = self.begin(now);
                let broker = round.broker;
                self.state = State::Trying(round);
                (broker, 0)
            }
        };
        let broker = &self.brokers[broker];
        broker.ways[broker.way(failed).unwrap_or(broker.best)].clone()
    }

    fn begin(&self, now: Instant) -> Round {
        let mut left = VecDeque::new();
        for (index, broker) in self.brokers.iter().enumerate() {
            match broker.referral {
                Some(Referral::ForNow | Referral::ForGood) => left.push_front(index),
                None if broker.is_free(now) => left.push_back(index),
                None => {}
            }
        }
        // Nothing is gained by trying none of the user's: where we were sent to may be gone.
        let is_users = |index: &usize| self.brokers[*index].referral.is_none();
        if !left.iter().any(is_users) {
            left.extend((0..self.brokers.len()).filter(is_users));
        }
        Round {
            broker: left.pop_front().unwrap_or_default(),
            failed: 0,
            left,
        }
    }

    /// The attempt has failed.
    pub(crate) fn failed(&mut self, now: Instant, fault: Fault) -> Onward {
        let onward = self.fail(now, fault);
        match onward {
            Onward::AtOnce => {}
            // A delay keeps a client from being busy too. Without it, a broker that always sends us on to
            // one that is down for a while would never be followed again.
            Onward::Later => self.referrals = 0,
        }
        onward
    }

    fn fail(&mut self, now: Instant, fault: Fault) -> Onward {
        let State::Trying(mut round) = std::mem::replace(&mut self.state, State::Between) else {
            return Onward::Later;
        };
        let broker = &mut self.brokers[round.broker];
        match fault {
            Fault::Ours => return Onward::Later,
            Fault::Way if broker.way(round.failed + 1).is_some() => {
                round.failed += 1;
                self.state = State::Trying(round);
                return Onward::AtOnce;
            }
            Fault::Way | Fault::Broker => {}
        }
        broker.aside_until = now.checked_add(self.aside);
        self.end_referral_for_now();
        let Some(next) = round.left.pop_front() else {
            return Onward::Later;
        };
        self.state = State::Trying(Round {
            broker: next,
            failed: 0,
            left: round.left,
        });
        Onward::AtOnce
    }

    /// The attempt has led to a connection, which has ended.
    pub(crate) fn worked(&mut self) {
        self.referrals = 0;
        let State::Trying(round) = std::mem::replace(&mut self.state, State::Between) else {
            return;
        };
        let broker = &mut self.brokers[round.broker];
        broker.aside_until = None;
        broker.best = broker.way(round.failed).unwrap_or(broker.best);
        match broker.referral {
            // It was for this one connection.
            Some(Referral::ForNow) => self.end_referral_for_now(),
            Some(Referral::ForGood) | None => {}
        }
    }

    /// The broker of the last attempt sends us to this one. Returns whether we go.
    pub(crate) fn refer(&mut self, to: Endpoint, referral: Referral) -> bool {
        if self.referrals >= REFERRALS {
            return false;
        }
        self.referrals += 1;
        self.end_referral_for_now();
        match referral {
            // The one before is still the one to turn to afterwards.
            Referral::ForNow => {}
            Referral::ForGood => self.brokers.retain(|broker| broker.referral.is_none()),
        }
        self.brokers.push(Broker::new(vec![to], Some(referral)));
        self.state = State::Between;
        true
    }

    /// A broker to which we were sent for now is forgotten. It is the last one, so the others keep their
    /// places. One to which we were sent for good stays though it fails: the old one may be gone.
    fn end_referral_for_now(&mut self) {
        self.brokers
            .pop_if(|last| last.referral == Some(Referral::ForNow));
    }

    /// Whether both lead to one broker.
    pub(crate) fn are_one_broker(&self, one: &Endpoint, other: &Endpoint) -> bool {
        let has_both = |broker: &Broker| broker.ways.contains(one) && broker.ways.contains(other);
        one == other || self.brokers.iter().any(has_both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    const ASIDE: Duration = Duration::from_secs(60);

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("a valid endpoint")
    }

    /// Brokers by their hosts, each with as many ways as there are ports.
    fn routes(brokers: &[(&str, &[u16])]) -> Routes {
        let ways = |(host, ports): &(&str, &[u16])| {
            ports
                .iter()
                .map(|port| endpoint(&format!("mqtt://{host}:{port}")))
                .collect()
        };
        Routes::new(brokers.iter().map(ways).collect(), ASIDE)
    }

    /// A script of attempts: what fails, in which second, and where each leads.
    struct Script {
        routes: Routes,
        begin: Instant,
        now: Instant,
    }

    impl Script {
        fn new(routes: Routes) -> Self {
            let begin = SystemClock.now();
            Self {
                routes,
                begin,
                now: begin,
            }
        }

        fn at(&mut self, second: u64) -> &mut Self {
            self.now = self.begin + Duration::from_secs(second);
            self
        }

        #[track_caller]
        fn leads_to(&mut self, way: &str) -> &mut Self {
            let target = self.routes.target(self.now).authority();
            assert_eq!(target, way);
            self
        }

        #[track_caller]
        fn fails(&mut self, fault: Fault, onward: Onward) -> &mut Self {
            assert_eq!(self.routes.failed(self.now, fault), onward);
            self
        }

        fn works(&mut self) -> &mut Self {
            self.routes.worked();
            self
        }

        #[track_caller]
        fn is_referred(&mut self, to: &str, referral: Referral) -> &mut Self {
            assert!(self.routes.refer(endpoint(to), referral));
            self
        }
    }

    #[test]
    fn one_way_alone_is_tried_again_and_again() {
        let mut script = Script::new(routes(&[("a", &[1])]));
        assert!(!script.routes.are_several());
        for second in [0, 1, 2, 3] {
            script
                .at(second)
                .leads_to("a:1")
                .fails(Fault::Way, Onward::Later);
        }
    }

    #[test]
    fn an_attempt_that_neither_failed_nor_worked_is_made_again_by_the_same_way() {
        let mut script = Script::new(routes(&[("a", &[1, 2])]));
        script
            .leads_to("a:1")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:2")
            .leads_to("a:2");
    }

    #[test]
    fn the_ladder_is_climbed_at_once_and_begins_where_it_worked() {
        let mut script = Script::new(routes(&[("a", &[1, 2, 3])]));
        script
            .leads_to("a:1")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:2")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:3")
            .works()
            .leads_to("a:3")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:1")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:2")
            .fails(Fault::Way, Onward::Later)
            .leads_to("a:3");
    }

    #[test]
    fn a_broker_that_refuses_was_reached_and_its_ladder_is_climbed_no_further() {
        let mut script = Script::new(routes(&[("a", &[1, 2]), ("b", &[1, 2])]));
        script
            .leads_to("a:1")
            .fails(Fault::Broker, Onward::AtOnce)
            .leads_to("b:1")
            .fails(Fault::Broker, Onward::Later);
    }

    #[test]
    fn a_fault_of_ours_is_not_tried_elsewhere() {
        let mut script = Script::new(routes(&[("a", &[1, 2]), ("b", &[1])]));
        script
            .leads_to("a:1")
            .fails(Fault::Ours, Onward::Later)
            .leads_to("a:1");
    }

    #[test]
    fn a_broker_that_failed_is_set_aside_for_a_while() {
        let mut script = Script::new(routes(&[("a", &[1]), ("b", &[1])]));
        script
            .leads_to("a:1")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("b:1")
            .works()
            .at(59)
            .leads_to("b:1")
            .works()
            .at(60)
            .leads_to("a:1");
    }

    #[test]
    fn when_all_are_set_aside_all_are_tried() {
        let mut script = Script::new(routes(&[("a", &[1]), ("b", &[1])]));
        for second in [0, 1, 2] {
            script
                .at(second)
                .leads_to("a:1")
                .fails(Fault::Way, Onward::AtOnce)
                .leads_to("b:1")
                .fails(Fault::Way, Onward::Later);
        }
    }

    #[test]
    fn a_broker_that_works_again_is_no_longer_set_aside() {
        let mut script = Script::new(routes(&[("a", &[1]), ("b", &[1])]));
        script
            .leads_to("a:1")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("b:1")
            .fails(Fault::Way, Onward::Later)
            .leads_to("a:1")
            .works()
            .leads_to("a:1");
    }

    #[test]
    fn a_referral_for_now_is_for_one_connection() {
        let mut script = Script::new(routes(&[("a", &[1]), ("b", &[1])]));
        script
            .leads_to("a:1")
            .is_referred("mqtt://x:9", Referral::ForNow)
            .leads_to("x:9")
            .works()
            .leads_to("a:1");
    }

    #[test]
    fn a_referral_for_good_stays_though_it_fails() {
        let mut script = Script::new(routes(&[("a", &[1])]));
        script
            .leads_to("a:1")
            .is_referred("mqtt://x:9", Referral::ForGood)
            .leads_to("x:9")
            .works()
            .leads_to("x:9")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:1")
            .fails(Fault::Way, Onward::Later)
            .leads_to("x:9")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:1")
            // Only another one takes its place, and one for now does not.
            .is_referred("mqtt://y:9", Referral::ForNow)
            .leads_to("y:9")
            .works()
            .leads_to("x:9")
            .is_referred("mqtt://z:9", Referral::ForGood)
            .leads_to("z:9")
            .fails(Fault::Way, Onward::AtOnce)
            .leads_to("a:1");
    }

    #[test]
    fn brokers_that_point_at_each_other_are_followed_four_times() {
        let mut script = Script::new(routes(&[("a", &[1])]));
        script.leads_to("a:1");
        for _ in 0..2 {
            script
                .is_referred("mqtt://x:9", Referral::ForNow)
                .leads_to("x:9")
                .is_referred("mqtt://a:1", Referral::ForNow)
                .leads_to("a:1");
        }
        let again = script
            .routes
            .refer(endpoint("mqtt://x:9"), Referral::ForNow);
        assert!(!again);
        script.fails(Fault::Broker, Onward::AtOnce).leads_to("a:1");
        // A connection makes it start over.
        script.works().is_referred("mqtt://x:9", Referral::ForNow);
    }

    #[test]
    fn a_fleet_spreads() {
        let mut first = [0; 4];
        for seed in 0..400 {
            let mut routes = routes(&[("0", &[1]), ("1", &[1]), ("2", &[1]), ("3", &[1])]);
            routes.shuffle(&mut fastrand::Rng::with_seed(seed));
            let index: usize = routes
                .target(SystemClock.now())
                .host()
                .parse()
                .expect("it is a number");
            first[index] += 1;
        }
        assert!(first.iter().all(|count| *count > 60), "{first:?}");
    }

    #[test]
    fn the_ways_of_a_ladder_lead_to_one_broker() {
        let routes = routes(&[("a", &[1, 2]), ("b", &[1])]);
        let [first, second, other] = ["a:1", "a:2", "b:1"].map(endpoint);
        assert!(routes.are_one_broker(&first, &second));
        assert!(!routes.are_one_broker(&first, &other));
        let unknown = endpoint("mqtt://c:1");
        assert!(routes.are_one_broker(&unknown, &unknown));
        assert!(!routes.are_one_broker(&unknown, &first));
    }
}
