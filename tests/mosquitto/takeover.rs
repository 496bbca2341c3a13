//! Two clients of one name: each pushes the other out, and both come back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use coracle::{Blame, Client, Error, Event, Qos, Reason, Session, Subscription, Version, Wait};
use smol::Timer;

use crate::broker::Broker;
use crate::world::{World, next, options, run};

/// Messages that each of the two publishes one after the other, and that both together get.
const COUNT: usize = 100;

/// Between two messages of one writer.
const PACE: Duration = Duration::from_millis(10);

/// The first and the longest bound of the delays of both.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(320);

/// How one of the two lost its connection: why, and when it tries again.
type Push = (Error, Option<Duration>);

async fn write(client: Client, topic: &'static str, name: &'static str) {
    for number in 0..COUNT {
        let payload = format!("{name} {number}");
        let publishing = client.publish(topic, payload, Qos::AtLeastOnce, Wait::Ack);
        publishing.await.expect("acknowledged");
        Timer::after(PACE).await;
    }
}

async fn read(mut stream: Subscription, seen: Rc<RefCell<BTreeSet<String>>>) {
    loop {
        let message = next(&mut stream).await;
        seen.borrow_mut()
            .insert(message.text().expect("text").to_owned());
    }
}

async fn fight(world: World, version: Version) {
    let broker = Broker::open().await;
    let watcher = world.client(options(&broker, version, "watcher")).await;
    let mut stream = watcher
        .subscribe("out", Qos::AtLeastOnce, Wait::Ack)
        .await
        .expect("granted");
    let seen_by_twins = Rc::new(RefCell::new(BTreeSet::new()));
    let mut twins = Vec::new();
    for (seed, name) in ["one", "other"].into_iter().enumerate() {
        // Neither discards what it finds: to the broker they are one client, whose session goes on.
        let twin = options(&broker, version, "twin")
            .session(Session::Resume)
            .retry_delays(FIRST, LONGEST)
            .seed(seed as u64);
        let twin = world.client(twin).await;
        let mut events = twin.events();
        let pushes = Rc::new(RefCell::new(Vec::<Push>::new()));
        let log = Rc::clone(&pushes);
        let listening = world.spawn(async move {
            while let Some(event) = events.next().await {
                if let Event::Disconnected { error, retry_in } = event {
                    log.borrow_mut().push((error, retry_in));
                }
            }
        });
        let inbound = twin
            .subscribe("in", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("granted");
        let reading = world.spawn(read(inbound, Rc::clone(&seen_by_twins)));
        twins.push((name, twin, pushes, listening, reading));
    }
    let mut writing = vec![world.spawn(write(watcher.clone(), "in", "watcher"))];
    for (name, twin, ..) in &twins {
        writing.push(world.spawn(write(twin.clone(), "out", name)));
    }

    let mut seen = BTreeSet::new();
    while seen.len() < 2 * COUNT {
        seen.insert(next(&mut stream).await.text().expect("text").to_owned());
    }
    for task in writing {
        task.await;
    }
    while seen_by_twins.borrow().len() < COUNT {
        Timer::after(PACE).await;
    }

    for (name, twin, pushes, ..) in &twins {
        let pushes = pushes.borrow();
        assert!(
            pushes.len() >= 3,
            "{name} was pushed out {} times",
            pushes.len()
        );
        assert_eq!(
            twin.statistics().failed,
            0,
            "every attempt was accepted, then pushed out"
        );
        for (nth, (error, retry_in)) in pushes.iter().enumerate() {
            // mosquitto 2.0.11 just closes; newer ones say why on 5.0, and then it is told as permanent.
            match error.reason() {
                Some(reason) => {
                    assert_eq!(
                        (version, reason),
                        (Version::V5_0, Reason::SESSION_TAKEN_OVER)
                    );
                    assert!(error.is_permanent());
                }
                None => assert_eq!(error.blame(), Blame::Network, "{error}"),
            }
            let bound = FIRST.saturating_mul(1 << nth.min(10)).min(LONGEST);
            let delay = retry_in.expect("it was not told to give up");
            assert!(delay <= bound, "{name}: {delay:?} after push {nth}");
        }
        // Without backing off it would have been back after 10 ms each time: once for every message.
        assert!(
            pushes.len() < COUNT / 2,
            "{name} was pushed out {} times",
            pushes.len()
        );
    }
}

#[test]
fn two_clients_of_one_name_back_off_and_lose_nothing_in_3_1() {
    run(|world| fight(world, Version::V3_1));
}

#[test]
fn two_clients_of_one_name_back_off_and_lose_nothing_in_3_1_1() {
    run(|world| fight(world, Version::V3_1_1));
}

#[test]
fn two_clients_of_one_name_back_off_and_lose_nothing_in_5_0() {
    run(|world| fight(world, Version::V5_0));
}
