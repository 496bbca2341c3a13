//! Nobody on the thread starves, and nobody who is slow holds up the others.

use std::cell::Cell;
use std::rc::Rc;

use coracle::testkit::{BrokerOptions, World};
use coracle::{
    Acknowledge, Client, ErrorKind, Event, Filters, Incoming, Message, Options, Qos, Wait,
};
use futures_lite::future::yield_now;

use crate::{CONNACK, SECOND, Setup, now, options, poll};

/// Messages of the flood.
const FLOOD: usize = 100_000;

/// PUBLISH at QoS 1 to "t" with 100 bytes, MQTT 5. Its identifier is always answered before it comes
/// again.
fn flood_message(number: usize) -> [u8; 108] {
    let mut packet = [b'x'; 108];
    let id = (number % 1000) as u16 + 1;
    let [high, low] = id.to_be_bytes();
    packet[..8].copy_from_slice(&[0x32, 106, 0, 1, b't', high, low, 0]);
    packet
}

/// Counts how often a task runs until `done`, and the most that `progress` moved in between.
async fn count_runs(progress: Rc<Cell<usize>>, until: usize) -> (usize, usize) {
    let (mut runs, mut longest, mut last) = (0, 0, progress.get());
    while progress.get() < until {
        runs += 1;
        longest = longest.max(progress.get() - last);
        last = progress.get();
        yield_now().await;
    }
    (runs, longest)
}

#[test]
fn a_flood_of_messages_starves_neither_a_task_nor_another_client() {
    let (setup, mut peer) = Setup::connected();
    let received = Rc::new(Cell::new(0));
    let handler = {
        let received = Rc::clone(&received);
        move |_: &Incoming<'_>| received.set(received.get() + 1)
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", Qos::AtLeastOnce), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();

    // Another client on the same thread, whose own peer reads what it publishes.
    let other = Setup::start(setup.world.clone(), options(&setup.world));
    let mut other_peer = other.greet(CONNACK);
    let published = Rc::new(Cell::new(0));
    let publisher = {
        let (client, received, published) = (
            other.client.clone(),
            Rc::clone(&received),
            Rc::clone(&published),
        );
        async move {
            while received.get() < FLOOD {
                let publishing = client.publish("o", "x", Qos::AtMostOnce, Wait::Sent);
                publishing.await.expect("its link is idle");
                published.set(published.get() + 1);
            }
        }
    };
    let publisher = setup.world.spawn(publisher);
    let runs = setup.world.spawn(count_runs(Rc::clone(&received), FLOOD));

    let messages: Vec<u8> = (0..FLOOD).flat_map(flood_message).collect();
    peer.send(&messages);
    assert_eq!(received.get(), FLOOD);
    let (runs, longest) = setup.world.block_on(runs);
    setup.world.block_on(publisher);
    // A turn reads half a megabyte at most.
    let turns = messages.len() / (512 * 1024);
    assert!(runs >= turns, "{runs} runs in {turns} turns");
    assert!(
        longest <= 512 * 1024 / 108 + 1,
        "{longest} messages without a pause"
    );
    assert!(
        published.get() >= turns / 2,
        "{} of {turns} turns",
        published.get()
    );
    assert_eq!(other_peer.received().len(), published.get() * 7);
    // It would have left with its last handle.
    assert!(other.client.is_connected());
    assert_eq!(peer.received().len(), FLOOD * 4, "each is acknowledged");
}

#[test]
fn two_flooded_clients_take_turns() {
    let world = World::new(BrokerOptions::new());
    let received = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
    let mut clients = Vec::new();
    for (name, received) in ["a", "b"].into_iter().zip(&received) {
        let options = Options::new("mqtt://broker", name)
            .expect("the URL is well-formed")
            .connector(world.network())
            .clock(world.clock());
        let setup = Setup::start(world.clone(), options);
        let received = Rc::clone(received);
        let handler = move |_: &Incoming<'_>| received.set(received.get() + 1);
        let subscribing = setup
            .client
            .subscribe_inline(("t", Qos::AtMostOnce), handler, Wait::Ack);
        let subscription = setup.wait(subscribing).expect("granted");
        clients.push((setup, subscription));
    }
    // At QoS 0, so that the broker is owed nothing.
    let mut message = [b'x'; 108];
    message[..6].copy_from_slice(&[0x30, 106, 0, 1, b't', 0]);
    let messages = message.repeat(FLOOD);
    world.broker(|broker, now| {
        for name in ["a", "b"] {
            let link = broker.link_of(name).expect("it is connected");
            broker.inject(link, now, &messages);
        }
    });
    let [first, second] = received;
    let widest = world.block_on(async move {
        let mut widest = 0;
        while first.get() < FLOOD || second.get() < FLOOD {
            widest = widest.max(first.get().abs_diff(second.get()));
            yield_now().await;
        }
        widest
    });
    // One turn apart, of half a megabyte.
    assert!(widest <= 512 * 1024 / 108 + 1, "{widest} messages apart");
}

#[test]
fn a_slow_stream_holds_up_neither_pings_nor_what_others_are_owed() {
    let (setup, mut peer) = Setup::connected();
    let slow = Filters::new("s", Qos::AtLeastOnce).acknowledge(Acknowledge::ByHand);
    let _slow = now(setup.client.subscribe_many(slow, Wait::None)).expect("accepted");
    let mut fast =
        now(setup.client.subscribe("f", Qos::ExactlyOnce, Wait::None)).expect("accepted");
    peer.received();
    // Nobody ever takes this one.
    peer.send(b"\x32\x07\x00\x01s\x00\x01\x00x");
    // A message at QoS 2 does not wait behind it: PUBACKs and PUBRECs have an order each.
    peer.send(b"\x34\x07\x00\x01f\x00\x02\x00x");
    assert!(fast.try_next().is_some());
    peer.expect(b"\x50\x02\x00\x02");
    peer.send(b"\x62\x02\x00\x02");
    peer.expect(b"\x70\x02\x00\x02");
    // Nor does QoS 0, what is published, or a ping.
    peer.send(b"\x30\x05\x00\x01f\x00x");
    assert!(fast.try_next().is_some());
    let publishing = setup.client.publish("p", "x", Qos::AtLeastOnce, Wait::Ack);
    let wire = peer.received();
    peer.send(&[0x40, 2, wire[5], wire[6]]);
    assert!(now(publishing).is_ok());
    let ping = setup.client.ping();
    peer.expect(b"\xc0\x00");
    peer.send(b"\xd0\x00");
    assert!(now(ping).is_ok());
}

#[test]
fn a_stream_that_nobody_reads_stops_the_link_for_the_take_timeout_at_most() {
    // The broker's window is full of messages that nobody takes.
    let world = World::new(BrokerOptions::new());
    let options = options(&world).receive_maximum(10);
    let setup = Setup::start(world, options);
    let unread = setup
        .wait(setup.client.subscribe("u", Qos::AtLeastOnce, Wait::Ack))
        .expect("granted");
    let mut read = setup
        .wait(setup.client.subscribe("r", Qos::AtLeastOnce, Wait::Ack))
        .expect("granted");
    for _ in 0..50 {
        setup
            .world
            .broker(|broker, now| broker.publish(now, &Message::new("u", "x")));
    }
    setup
        .world
        .broker(|broker, now| broker.publish(now, &Message::new("r", "x")));
    setup.world.run_until_idle();
    assert_eq!(unread.len(), 10);
    // Ten per take timeout of five seconds.
    let start = setup.world.now();
    assert!(setup.wait(read.next()).is_some());
    assert!(setup.world.now() - start <= 25 * SECOND);
    assert_eq!(unread.len(), 50, "nothing of it is lost");
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_and_dead_after_the_keep_alive() {
    let (mut setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", Qos::AtLeastOnce).acknowledge(Acknowledge::OnReceipt);
    let _stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    peer.received();
    drop(setup.events());
    let network = setup.world.network();
    network.stall();
    network.send_buffer(1000);
    let before = network.bytes_received();
    // Seven bytes in, four bytes out.
    let messages: Vec<u8> = (0..FLOOD)
        .flat_map(|number| {
            let [high, low] = ((number % 1000) as u16 + 1).to_be_bytes();
            [0x32, 6, 0, 1, b't', high, low, 0]
        })
        .collect();
    peer.send(&messages);
    let read = network.bytes_received() - before;
    // What 64 KiB of replies answer, and the read in which they were exceeded.
    assert!(
        read <= (64 * 1024 + 1000) / 4 * 8 + 64 * 1024,
        "{read} bytes"
    );
    setup.world.advance(60 * SECOND - SECOND / 1000);
    assert!(setup.client.is_connected());
    setup.world.advance(SECOND / 1000);
    let events = setup.events();
    let Some(Event::Disconnected { error, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert!(
        matches!(error.kind(), ErrorKind::Silent(after) if *after == 60 * SECOND),
        "{error}"
    );
}

#[test]
fn reading_goes_on_when_the_peer_takes_its_replies_again() {
    let (setup, mut peer) = Setup::connected();
    let filters = Filters::new("t", Qos::AtLeastOnce).acknowledge(Acknowledge::OnReceipt);
    let _stream = now(setup.client.subscribe_many(filters, Wait::None)).expect("accepted");
    peer.received();
    let network = setup.world.network();
    network.stall();
    network.send_buffer(1000);
    let messages: Vec<u8> = (0..FLOOD).flat_map(flood_message).collect();
    let before = network.bytes_received();
    peer.send(&messages);
    assert!(network.bytes_received() - before < messages.len());
    network.unstall();
    let mut replies = 0;
    for _ in 0..FLOOD {
        let taken = peer.received().len();
        replies += taken;
        if taken == 0 {
            break;
        }
    }
    assert_eq!(network.bytes_received() - before, messages.len());
    assert_eq!(replies, FLOOD * 4);
}

#[test]
fn a_thousand_publishes_of_one_turn_take_a_handful_of_writes() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let (setup, mut peer) = Setup::connected();
        let network = setup.world.network();
        let before = network.writes();
        for _ in 0..1000 {
            drop(setup.client.publish("t", &[b'x'; 64], qos, Wait::None));
        }
        assert_eq!(network.writes(), before, "a call does not write");
        assert!(peer.received().len() >= 70_000);
        let writes = network.writes() - before;
        assert!(writes <= 3, "{writes} writes");
    }
}

#[test]
fn a_hundred_tasks_that_publish_share_the_writes() {
    let setup = Setup::with_broker(BrokerOptions::new());
    setup
        .wait(setup.client.connected())
        .expect("the broker is there");
    let network = setup.world.network();
    let before = network.writes();
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let client = setup.client.clone();
            setup.world.spawn(async move {
                for _ in 0..10 {
                    client
                        .publish("t", "x", Qos::AtLeastOnce, Wait::Ack)
                        .await?;
                }
                coracle::Result::Ok(())
            })
        })
        .collect();
    for task in tasks {
        assert!(setup.wait(task).is_ok());
    }
    let writes = network.writes() - before;
    assert!(
        writes <= 20,
        "{writes} writes for 1000 messages in ten rounds"
    );
    setup
        .world
        .broker(|broker, _| assert_eq!(broker.messages().len(), 1000));
}

#[test]
fn a_handler_that_answers_every_message_is_bounded() {
    let (setup, mut peer) = Setup::connected();
    let refused = Rc::new(Cell::new(0));
    let handler = {
        let (client, refused): (Client, _) = (setup.client.clone(), Rc::clone(&refused));
        move |incoming: &Incoming<'_>| {
            let publishing =
                client.publish("answer", incoming.payload(), Qos::AtMostOnce, Wait::None);
            if now(publishing).is_err() {
                refused.set(refused.get() + 1);
            }
        }
    };
    let subscribing = setup
        .client
        .subscribe_inline(("t", Qos::AtMostOnce), handler, Wait::None);
    let _subscription = now(subscribing).expect("accepted");
    peer.received();
    setup.world.network().stall();
    setup.world.network().send_buffer(0);
    let messages: Vec<u8> = (0..FLOOD).flat_map(flood_message).collect();
    peer.send(&messages);
    let pending = setup.client.statistics().pending;
    // The bound of the queue is a megabyte, and a message counts 170 bytes.
    assert!((1000..7000).contains(&pending), "{pending}");
    assert!(refused.get() > 0);
}

#[test]
fn a_flood_to_publish_does_not_hold_up_what_arrives() {
    let setup = Setup::with_broker(BrokerOptions::new());
    // A real network takes some bytes at a time.
    setup.world.network().send_buffer(64 * 1024);
    let mut stream = setup
        .wait(setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack))
        .expect("granted");
    let client = setup.client.clone();
    let flood = setup.world.spawn(async move {
        for _ in 0..FLOOD {
            while now(client.publish("f", &[b'x'; 64], Qos::AtMostOnce, Wait::None)).is_err() {
                client.ready().await?;
            }
        }
        coracle::Result::Ok(())
    });
    let client = setup.client.clone();
    let echo = setup.world.spawn(async move {
        for _ in 0..10 {
            client
                .publish("t", "x", Qos::AtLeastOnce, Wait::Ack)
                .await?;
            stream.next().await;
        }
        coracle::Result::Ok(client.statistics().published)
    });
    let published = setup.wait(echo).expect("acknowledged");
    assert!(published < FLOOD as u64, "it ended long before the flood");
    assert!(setup.wait(flood).is_ok());
}

#[test]
fn pings_go_on_while_everything_else_waits_for_quota() {
    let world = World::with_peers();
    let options = options(&world).window(1);
    let setup = Setup::start(world, options);
    let mut peer = setup.greet(CONNACK);
    let mut waits: Vec<_> = (0..10)
        .map(|_| setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack))
        .collect();
    peer.received();
    setup.world.advance(60 * SECOND);
    peer.expect(b"\xc0\x00");
    peer.send(b"\xd0\x00");
    assert!(
        waits.iter_mut().all(|wait| poll(wait).is_some()),
        "they have timed out"
    );
    assert!(setup.client.is_connected());
}
