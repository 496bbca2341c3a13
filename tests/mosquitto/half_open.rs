//! The broker is frozen: the system goes on taking bytes for it, and nobody says good-bye. Each client
//! finds out in time, whatever it is sending, and one on the same thread with a broker that works notices
//! nothing.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coracle::{Client, ErrorKind, Event, Events, Qos, Version, Wait};
use smol::Timer;

use crate::broker::Broker;
use crate::world::{options, run};

const KEEP_ALIVE: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(2);

/// Round trips of the client whose broker works may take this long; without the frozen ones beside it
/// they take less than a millisecond.
const UNDISTURBED: Duration = Duration::from_millis(500);

/// The round trips of the client whose broker works.
#[derive(Debug, Default)]
struct Trips {
    count: Cell<u32>,
    /// Those that were disturbed.
    late: Cell<u32>,
    slowest: Cell<Duration>,
}

/// What a client of the frozen broker goes on publishing, and how often.
#[derive(Debug, Clone, Copy)]
enum Traffic {
    Nothing,
    /// Small messages, which the system takes to the end.
    Small(Qos),
    /// More than the system takes.
    Flood(Qos),
}

const TRAFFIC: [Traffic; 5] = [
    Traffic::Nothing,
    Traffic::Small(Qos::AtMostOnce),
    Traffic::Small(Qos::AtLeastOnce),
    Traffic::Flood(Qos::AtMostOnce),
    Traffic::Flood(Qos::AtLeastOnce),
];

#[expect(clippy::disallowed_methods, reason = "how long something real takes")]
fn now() -> Instant {
    Instant::now()
}

async fn publish(client: Client, traffic: Traffic) {
    let (payload, qos) = match traffic {
        Traffic::Nothing => return,
        Traffic::Small(qos) => (vec![0; 10], qos),
        Traffic::Flood(qos) => (vec![0; 100_000], qos),
    };
    loop {
        // A full queue is what a flood ends in.
        drop(client.publish("t", payload.clone(), qos, Wait::None));
        Timer::after(Duration::from_millis(10)).await;
    }
}

/// Waits until the link is given up as silent.
async fn lost(mut events: Events) {
    while let Some(event) = events.next().await {
        if let Event::Disconnected { error, .. } = event {
            assert!(matches!(error.kind(), ErrorKind::Silent(_)), "{error}");
            return;
        }
    }
    panic!("the client is closed");
}

#[test]
fn a_frozen_broker_is_found_in_time_and_others_on_the_thread_notice_nothing() {
    run(async |world| {
        let frozen = Broker::open().await;
        let works = Broker::open().await;
        let mut devices = Vec::new();
        for version in [Version::V3_1_1, Version::V5_0] {
            for (number, traffic) in TRAFFIC.into_iter().enumerate() {
                let options = options(&frozen, version, &format!("{number}-{}", devices.len()))
                    .keep_alive(KEEP_ALIVE)
                    .ping_timeout(PING_TIMEOUT);
                let device = world.connected(options).await;
                let writer = world.spawn(publish(device.client.clone(), traffic));
                devices.push((version, traffic, device, writer));
            }
        }
        let other = world
            .client(options(&works, Version::V5_0, "undisturbed"))
            .await;
        let trips = Rc::new(Trips::default());
        let travelling = {
            let trips = Rc::clone(&trips);
            world.spawn(async move {
                loop {
                    let begin = now();
                    let publishing = other.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
                    publishing.await.expect("its broker works");
                    let took = now() - begin;
                    trips.slowest.set(trips.slowest.get().max(took));
                    trips.count.set(trips.count.get() + 1);
                    trips
                        .late
                        .set(trips.late.get() + u32::from(took >= UNDISTURBED));
                    Timer::after(Duration::from_millis(1)).await;
                }
            })
        };
        // Traffic of all kinds for a while, then the frost.
        Timer::after(Duration::from_millis(500)).await;
        let events: Vec<_> = devices
            .iter()
            .map(|(_, _, device, _)| device.client.events())
            .collect();
        frozen.signal("STOP");
        let begin = now();
        let waits: Vec<_> = events
            .into_iter()
            .map(|events| {
                world.spawn(async move {
                    lost(events).await;
                    now() - begin
                })
            })
            .collect();
        let most = KEEP_ALIVE * 3 / 2 + PING_TIMEOUT;
        for (wait, (version, traffic, ..)) in waits.into_iter().zip(&devices) {
            let took = wait.await;
            println!("{traffic:?} on {version}: found after {took:?}");
            assert!(took <= most + SLACK, "{traffic:?} on {version}: {took:?}");
        }
        println!("{trips:?}");
        // A few may be late because the machine does something else for a while.
        assert!(trips.count.get() > 10, "{trips:?}");
        assert!(trips.late.get() * 10 <= trips.count.get(), "{trips:?}");
        travelling.cancel().await;
    });
}
