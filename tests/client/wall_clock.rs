//! The wall clock may jump: whoever sets it, and wherever to. All waiting goes by the monotonic clock, so
//! nothing changes but the dates that an authenticator puts into its tokens, and those in a store.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use coracle::protocol::record::{Death, Entry, Outgoing};
use coracle::testkit::{Attempt, FakeClock, MemoryStore, World};
use coracle::{
    AuthFuture, AuthStep, Authenticator, Client, Clock, Exchange, LocalBoxFuture, Message,
    Occasion, Qos, Version, Wait,
};

use crate::{SECOND, Setup, now, options, poll};

/// 2026-01-01T00:00:00Z.
const TODAY: Duration = Duration::from_secs(1_767_225_600);

/// A clock whose wall clock says what the test wants.
#[derive(Debug, Clone)]
struct Jumping {
    monotonic: FakeClock,
    wall: Rc<Cell<Duration>>,
    /// How often anyone looked at the wall clock.
    looks: Rc<Cell<usize>>,
}

impl Clock for Jumping {
    fn now(&self) -> Instant {
        self.monotonic.now()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
        self.monotonic.sleep_until(deadline)
    }

    fn unix_time(&self) -> Duration {
        self.looks.set(self.looks.get() + 1);
        self.wall.get()
    }
}

/// What leaves in ten minutes with everything that has a deadline in them, second by second; the wall clock
/// goes by `wall`.
fn ten_minutes(version: Version, wall: impl Fn(u64) -> Duration) -> Vec<(u64, Vec<u8>)> {
    let world = World::with_peers();
    let clock = Jumping {
        monotonic: world.clock(),
        wall: Rc::new(Cell::new(wall(0))),
        looks: Rc::default(),
    };
    let options = options(&world).version(version).clock(clock.clone());
    let setup = Setup::start(world.clone(), options);
    let mut log = Vec::new();
    let mut seen = 0;
    let mut peer = None;
    let mut ends = Vec::new();
    for second in 1..=600 {
        // Expiry, the timeout of a wait, the delay between attempts, CONNACK, keep-alive, PINGRESP.
        if second % 50 == 1 {
            ends.push((second, publish(&setup.client, second)));
        }
        if world.network().attempts() > seen {
            seen = world.network().attempts();
            let mut next = world.peer();
            log.push((second, next.received()));
            // Every third gets no CONNACK.
            match version {
                _ if seen.is_multiple_of(3) => {}
                Version::V5_0 => next.send(crate::CONNACK),
                _ => next.send(crate::CONNACK_3),
            }
            peer = Some(next);
        }
        if let Some(peer) = &mut peer {
            log.push((second, peer.received()));
        }
        ends.retain_mut(|(number, wait)| match poll(wait) {
            Some(outcome) => {
                log.push((second, format!("{number} {outcome:?}").into_bytes()));
                false
            }
            None => true,
        });
        clock.wall.set(wall(second));
        world.advance(SECOND);
    }
    assert_eq!(
        clock.looks.get(),
        0,
        "without an authenticator nobody looks"
    );
    log
}

fn publish(client: &Client, second: u64) -> coracle::PublishingMessage {
    let message = Message::new("t", second.to_string())
        .qos(Qos::AtLeastOnce)
        .expiry(Duration::from_secs(second % 100));
    client.publish_message(message, Wait::Ack)
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        let steady = ten_minutes(version, |second| TODAY + Duration::from_secs(second));
        assert!(steady.iter().any(|(_, bytes)| bytes == b"\xc0\x00"));
        let day = Duration::from_secs(86_400);
        let back = |second: u64| TODAY - day * u32::try_from(second % 7).expect("small");
        let ahead = |second: u64| TODAY + day * u32::try_from(second * 50 % 3001).expect("small");
        assert_eq!(steady, ten_minutes(version, back), "back, on {version}");
        assert_eq!(steady, ten_minutes(version, ahead), "ahead, on {version}");
        let unset = |second: u64| [Duration::ZERO, Duration::MAX][usize::from(second > 300)];
        assert_eq!(
            steady,
            ten_minutes(version, unset),
            "never set, on {version}"
        );
    }
}

/// Notes the date at which it is asked for a token.
struct Dated(Rc<RefCell<Vec<Duration>>>);
struct Handed;

impl Authenticator for Dated {
    fn method(&self) -> &str {
        "M"
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        self.0.borrow_mut().push(occasion.unix_time());
        Box::pin(async { Ok((AuthStep::new(), Box::new(Handed) as Box<dyn Exchange>)) })
    }
}

impl Exchange for Handed {}

#[test]
fn an_authenticator_sees_the_date_of_each_attempt() {
    let world = World::with_peers();
    let clock = Jumping {
        monotonic: world.clock(),
        wall: Rc::new(Cell::new(TODAY)),
        looks: Rc::default(),
    };
    let times = Rc::new(RefCell::new(Vec::new()));
    let asked = Rc::clone(&times);
    let options = options(&world)
        .clock(clock.clone())
        .authenticator(Dated(asked));
    let setup = Setup::start(world.clone(), options);
    world.peer().close();
    clock.wall.set(Duration::from_secs(5));
    setup.until_attempt();
    assert_eq!(*times.borrow(), [TODAY, Duration::from_secs(5)]);
    assert_eq!(clock.looks.get(), 2);
}

#[test]
fn a_message_is_stored_with_the_date_at_which_it_was_published() {
    // The clock of a device is often set while it runs already; or it slept, and the monotonic clock with it.
    for online in [false, true] {
        let world = World::with_peers();
        let clock = Jumping {
            monotonic: world.clock(),
            wall: Rc::default(),
            looks: Rc::default(),
        };
        let store = MemoryStore::new();
        let options = options(&world).clock(clock.clone()).store(store.clone());
        let setup = Setup::start(world, options);
        let mut peer = setup.greet(crate::CONNACK);
        if !online {
            peer.reset();
        }
        setup.world.run_until_idle();
        for date in [TODAY, TODAY + 1_000 * SECOND] {
            clock.wall.set(date);
            let message = Message::new("t", "x").expiry(100 * SECOND);
            let message = message.qos(Qos::AtLeastOnce);
            drop(setup.client.publish_message(message, Wait::None));
            setup.world.run_until_idle();
            let records = store.records();
            let mut dates = records.iter().filter_map(|record| {
                if let Ok(Entry::Outgoing(_, Outgoing::Message { dies, .. })) = Entry::read(record)
                {
                    return Some(dies);
                }
                None
            });
            let dies = (date + 100 * SECOND).as_secs();
            assert_eq!(dates.next_back(), Some(Death::At(dies)), "online: {online}");
        }
    }
}

/// A process that has this store and this wall clock, and no link.
fn without_link(store: &MemoryStore, wall: &Rc<Cell<Duration>>) -> Setup {
    store.crash();
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let clock = Jumping {
        monotonic: world.clock(),
        wall: Rc::clone(wall),
        looks: Rc::default(),
    };
    let options = options(&world).clock(clock).store(store.clone());
    let setup = Setup::start(world, options);
    setup.world.run_until_idle();
    setup
}

/// Publishes a message that is of use for an hour; the wall clock is set a minute later; after another one
/// the process is killed. Returns how long the message is of use to the next process.
fn left_after_a_jump(from: Duration, to: Duration) -> Duration {
    let store = MemoryStore::new();
    let wall = Rc::new(Cell::new(from));
    let setup = without_link(&store, &wall);
    let message = Message::new("t", "x").qos(Qos::AtLeastOnce);
    let message = message.expiry(3_600 * SECOND);
    now(setup.client.publish_message(message, Wait::None)).expect("accepted");
    setup.world.run_until_idle();
    wall.set(to);
    setup.world.advance(60 * SECOND);
    wall.set(to.saturating_add(60 * SECOND));
    setup.world.advance(60 * SECOND);
    assert_eq!(setup.client.statistics().unfinished, 1);
    drop(setup);
    let setup = without_link(&store, &wall);
    let begin = setup.world.clock().now();
    while setup.client.statistics().expired == 0 {
        setup.world.advance(SECOND);
    }
    setup.world.clock().now() - begin
}

#[test]
fn a_message_in_the_store_lives_as_long_as_its_process_means_it_to_though_the_clock_is_set() {
    // A device without a battery begins with the date at which it was switched off, and hears of the right one
    // when it has a network.
    for from in [TODAY, TODAY + 172_800 * SECOND, Duration::ZERO] {
        let to = TODAY + 86_400 * SECOND;
        let left = left_after_a_jump(from, to);
        let expected = 3_480 * SECOND;
        assert!(
            left.abs_diff(expected) <= 61 * SECOND,
            "{left:?} from {from:?}"
        );
    }
}

#[test]
fn a_date_beyond_all_others_or_none_costs_no_message() {
    for from in [TODAY, Duration::ZERO, Duration::MAX] {
        for to in [Duration::MAX, Duration::ZERO] {
            assert!(left_after_a_jump(from, to) >= 3_400 * SECOND);
        }
    }
}
