//! A client whose disk is full or does not answer: it ends and says why, or goes on without a store if that was
//! chosen.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coracle::testkit;
use coracle::{
    Blame, Client, Error, ErrorKind, Event, FileStore, Options, Qos, Store, StoreErrorKind,
    Subscription, Version, Wait,
};

use crate::broker::Broker;
use crate::device::{Device, Trouble};
use crate::world::{World, next, options, run};

/// Room for the store and some messages.
const ROOM: usize = 300_000;

fn stored(broker: &Broker, device: &Device) -> Options {
    let store = FileStore::on_device(device.clone()).expect("a store");
    options(broker, Version::V5_0, "device").store(store)
}

async fn watch(world: &World, broker: &Broker) -> Subscription {
    let watcher = world
        .client(options(broker, Version::V5_0, "watcher"))
        .await;
    watcher
        .subscribe("out/#", Qos::ExactlyOnce, Wait::Ack)
        .await
        .expect("granted")
}

/// Publishes until it fails. Returns what was promised, and why there is no more.
async fn fill(client: &Client) -> (BTreeSet<String>, Error) {
    let mut promised = BTreeSet::new();
    for nth in 0..10_000 {
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][nth % 2];
        let topic = format!("out/{nth}");
        // It stays in the store for as long as it is not acknowledged, so a large one fills it.
        let text = vec![b'x'; 40_000];
        match client.publish(&topic, text, qos, Wait::Sent).await {
            Ok(_) => promised.insert(topic),
            Err(error) => return (promised, error),
        };
    }
    panic!("the disk never was full");
}

fn assert_full(error: &Error) {
    // A call that comes after the end of the driver is told why it has ended.
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
    let error = match (error.kind(), cause) {
        (ErrorKind::Closed, Some(cause)) => cause,
        _ => error,
    };
    match error.kind() {
        ErrorKind::Store(store) => assert_eq!(store.kind(), StoreErrorKind::Full, "{error}"),
        _ => panic!("{error}"),
    }
    assert_eq!(error.blame(), Blame::Device);
    assert!(error.is_permanent(), "{error}");
    let text = error.to_string();
    assert!(text.contains("No space left on device"), "{text}");
}

#[test]
fn a_client_whose_disk_is_full_ends_and_loses_nothing_that_was_promised() {
    run(async |world| {
        let broker = Broker::open().await;
        let mut stream = watch(&world, &broker).await;
        let device = Device::default().in_trouble(Trouble::Full { left: ROOM });
        let full = world.connected(stored(&broker, &device)).await;
        let (promised, error) = fill(&full.client).await;
        assert_full(&error);
        assert_full(&full.driver.await.expect_err("it ends"));
        assert!(!promised.is_empty());

        // Somebody has made room.
        let device = device.in_trouble(Trouble::None);
        let healed = world.connected(stored(&broker, &device)).await;
        let mut arrived = Vec::new();
        while !promised.iter().all(|topic| arrived.contains(topic)) {
            arrived.push(next(&mut stream).await.topic().to_owned());
        }
        healed
            .client
            .publish("out/end", "", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("it works again");
        while arrived.last().is_some_and(|last| last != "out/end") {
            arrived.push(next(&mut stream).await.topic().to_owned());
        }
        for (nth, topic) in arrived.iter().enumerate() {
            let number = topic.strip_prefix("out/").expect("one of ours");
            let is_exact = number.parse::<usize>().is_ok_and(|number| number % 2 == 1);
            assert!(
                !is_exact || !arrived[..nth].contains(topic),
                "{topic} twice"
            );
        }
    });
}

#[test]
fn a_client_that_may_goes_on_without_its_store() {
    run(async |world| {
        let broker = Broker::open().await;
        let mut stream = watch(&world, &broker).await;
        let device = Device::default().in_trouble(Trouble::Full { left: ROOM });
        let options = stored(&broker, &device).go_on_without_store(true);
        let device = world.connected(options).await;
        let mut events = device.client.events();
        for nth in 0..200 {
            let topic = format!("out/{nth}");
            let text = vec![b'x'; 40_000];
            device
                .client
                .publish(&topic, text, Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("with the store or without it");
            assert_eq!(next(&mut stream).await.topic(), topic);
        }
        let mut failed = 0;
        device.client.disconnect().await.expect("nothing stays");
        while let Some(event) = events.next().await {
            if let Event::StoreFailed { error } = event {
                assert_full(&error);
                failed += 1;
            }
        }
        assert_eq!(failed, 1);
    });
}

/// How the driver of a client ends that plays this, is disconnected, and has a disk that does not answer. It does
/// so on a thread of its own, which has ended too. The disk answers again then, and may be what a thread of the
/// store is still waiting for; how many steps it had taken before comes with it.
fn end_on_a_silent_disk(
    play: impl FnOnce(&Client) + Send + 'static,
) -> (Result<(), String>, Device, usize) {
    let device = Device::default();
    let (told, ends) = mpsc::channel();
    let disk = device.clone();
    let client = thread::spawn(move || {
        let store = FileStore::on_device(disk.clone()).expect("a store");
        let _silent = disk.in_trouble(Trouble::Silent);
        let world = testkit::World::with_peers();
        let options = Options::new("mqtt://broker", "c")
            .expect("the URL is well-formed")
            .connector(world.network())
            .clock(world.clock())
            .store(store);
        let (client, driver) = Client::new(options);
        let driver = world.spawn(driver.run());
        play(&client);
        world.run_until_idle();
        drop(client.disconnect());
        world.advance(Duration::from_secs(6));
        let ended = world.block_on(driver).map_err(|error| error.to_string());
        told.send(ended).expect("somebody listens");
    });
    let ended = ends.recv_timeout(Duration::from_secs(20));
    let before = device.steps();
    let device = device.in_trouble(Trouble::None);
    let ended = ended.expect("the thread of the client is not held up");
    client.join().expect("it ends");
    (ended, device, before)
}

/// A database writes to its file when it is closed, whatever was committed before.
#[test]
fn a_client_that_had_nothing_to_keep_is_not_held_up_by_its_disk() {
    let (ended, device, before) = end_on_a_silent_disk(|_| {});
    assert_eq!(ended, Ok(()));
    // The thread of the store lives on and closes the file.
    while device.steps() == before {
        thread::sleep(Duration::from_millis(1));
    }
}

/// What waits for a disk is never the thread of the client, whose other tasks would stand still with it.
#[test]
fn a_client_whose_disk_does_not_answer_ends_all_the_same() {
    let (ended, device, _) = end_on_a_silent_disk(|client| {
        drop(client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    });
    assert_eq!(
        ended.expect_err("the store has failed"),
        "store: the last changes are not on disk after 5s"
    );
    // The thread of the store lives on until it has done what it was told.
    let is_there = || {
        let copy = Device::with(device.content());
        let mut store = FileStore::on_device(copy).expect("a store");
        !store.load().expect("readable").is_empty()
    };
    while !is_there() {
        thread::sleep(Duration::from_millis(1));
    }
}
