//! What dropping a future does, at every await: it stops the waiting and nothing else, except that a
//! parked message is withdrawn and an unfinished subscribe gives up its stream.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use coracle::testkit::{Attempt, BrokerOptions, Cut, Kind, Rule, Then, When, World};
use coracle::{Client, Message, Qos, Reason, Result, Wait};

use crate::{CONNACK, SECOND, Setup, now, options, poll};

type Operation = Pin<Box<dyn Future<Output = bool>>>;

/// Begins an operation; its output tells whether it ended well.
type Begin = Box<dyn Fn(&Client) -> Operation>;

fn begin<T: 'static, F>(call: impl Fn(&Client) -> F + 'static) -> Begin
where
    F: Future<Output = Result<T>> + 'static,
{
    Box::new(move |client| {
        let future = call(client);
        Box::pin(async move { future.await.is_ok() })
    })
}

/// An operation with what the peer expects of it and answers to it, in turns.
struct Script {
    name: String,
    begin: Begin,
    turns: Vec<(&'static [u8], &'static [u8])>,
}

fn publish(qos: Qos, wait: Wait) -> Script {
    let turns: Vec<(&[u8], &[u8])> = match qos {
        Qos::AtMostOnce => vec![(b"\x30\x05\x00\x01t\x00x", b"")],
        Qos::AtLeastOnce => vec![(b"\x32\x07\x00\x01t\x00\x01\x00x", b"\x40\x02\x00\x01")],
        Qos::ExactlyOnce => vec![
            (b"\x34\x07\x00\x01t\x00\x01\x00x", b"\x50\x02\x00\x01"),
            (b"\x62\x02\x00\x01", b"\x70\x02\x00\x01"),
        ],
    };
    Script {
        name: format!("publish at {qos}, {wait:?}"),
        begin: begin(move |client| client.publish("t", "x", qos, wait)),
        turns,
    }
}

/// Plays each operation once for every number of polls after which it is dropped, and checks that the
/// wire looks the same each time and that nothing is left of the wait.
fn check(scripts: &[Script]) {
    for Script { name, begin, turns } in scripts {
        for polls in 0..=turns.len() + 1 {
            let (setup, mut peer) = Setup::connected();
            let mut operation = Some(begin(&setup.client));
            let mut polled = 0;
            let mut step = |operation: &mut Option<Operation>| {
                if polled == polls {
                    operation.take();
                } else if let Some(going_on) = operation
                    && let Some(ended_well) = poll(going_on)
                {
                    assert!(ended_well, "{name}");
                    operation.take();
                }
                polled += 1;
            };
            for (expected, answer) in turns {
                step(&mut operation);
                peer.expect(expected);
                peer.send(answer);
            }
            step(&mut operation);
            step(&mut operation);
            assert!(operation.is_none(), "{name} has ended after all turns");
            peer.expect_nothing();
            let statistics = setup.client.statistics();
            assert_eq!(statistics.waits, 0, "{name}, dropped after {polls} polls");
            assert_eq!(
                (statistics.unfinished, statistics.pending),
                (0, 0),
                "{name}"
            );
        }
    }
}

#[test]
fn a_publish_that_is_dropped_at_any_await_goes_out_exactly_once() {
    let mut scripts = Vec::new();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for wait in [Wait::None, Wait::Sent, Wait::Ack] {
            scripts.push(publish(qos, wait));
        }
    }
    scripts.push(Script {
        name: "publish_message".into(),
        begin: Box::new(|client| {
            let publishing = client.publish_message(Message::new("t", "x"), Wait::Ack);
            Box::pin(async move { publishing.await.is_ok() })
        }),
        turns: vec![(b"\x32\x07\x00\x01t\x00\x01\x00x", b"\x40\x02\x00\x01")],
    });
    check(&scripts);
}

#[test]
fn an_unsubscribe_or_a_ping_that_is_dropped_at_any_await_goes_out_exactly_once() {
    let unsubscribe = |wait| Script {
        name: format!("unsubscribe, {wait:?}"),
        begin: begin(move |client| client.unsubscribe("t", wait)),
        turns: vec![(
            b"\xa2\x06\x00\x01\x00\x00\x01t",
            b"\xb0\x04\x00\x01\x00\x00",
        )],
    };
    check(&[
        unsubscribe(Wait::None),
        unsubscribe(Wait::Sent),
        unsubscribe(Wait::Ack),
        Script {
            name: "ping".into(),
            begin: begin(Client::ping),
            turns: vec![(b"\xc0\x00", b"\xd0\x00")],
        },
    ]);
}

#[test]
fn an_unfinished_subscribe_that_is_dropped_gives_up_its_stream() {
    for wait in [Wait::None, Wait::Sent, Wait::Ack] {
        for dropped_before in ["the flush", "SUBACK", "the next poll"] {
            let (setup, mut peer) = Setup::connected();
            setup.world.network().hold_flush();
            let mut subscribing = Some(setup.client.subscribe("t", Qos::AtLeastOnce, wait));
            let mut wire = peer.received();
            if dropped_before == "the flush" {
                subscribing.take();
            }
            setup.world.network().release_flush();
            wire.extend(peer.received());
            if dropped_before == "SUBACK" {
                subscribing.take();
            }
            wire.extend(peer.received());
            peer.send(b"\x90\x04\x00\x01\x00\x01");
            subscribing.take();
            wire.extend(peer.received());
            let expected =
                b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01\xa2\x06\x00\x02\x00\x00\x01t";
            assert_eq!(wire, expected, "{wait:?}, dropped before {dropped_before}");
            peer.send(b"\xb0\x04\x00\x02\x00\x00");
            assert_eq!(setup.client.statistics().waits, 0);
        }
    }
}

#[test]
fn a_subscribe_that_timed_out_gives_up_its_stream() {
    let (setup, mut peer) = Setup::connected();
    let subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack);
    assert!(setup.wait(subscribing.timeout(SECOND)).is_err());
    peer.expect(b"\x82\x0b\x00\x01\x04\x0b\x80\x80\x01\x00\x01t\x01\xa2\x06\x00\x02\x00\x00\x01t");
    // A message in between is acknowledged and goes to nobody.
    peer.send(b"\x90\x04\x00\x01\x00\x01\x32\x07\x00\x01t\x00\x07\x00x");
    peer.expect(b"\x40\x02\x00\x07");
    peer.send(b"\xb0\x04\x00\x02\x00\x00");
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn a_dropped_subscribe_is_not_restored_when_the_session_is_lost() {
    let (setup, mut peer) = Setup::connected();
    let subscribing = setup.client.subscribe("t", Qos::AtLeastOnce, Wait::Ack);
    peer.received();
    peer.send(b"\x90\x04\x00\x01\x00\x01");
    drop(subscribing);
    peer.expect(b"\xa2\x06\x00\x02\x00\x00\x01t");
    peer.send(b"\xb0\x04\x00\x02\x00\x00");
    peer.reset();
    let mut peer = setup.greet_later(CONNACK);
    peer.expect_nothing();
}

#[test]
fn a_parked_publish_that_is_dropped_at_any_await_leaves_nothing_behind() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for polls in 0..3 {
            let world = World::new(BrokerOptions::new());
            world.network().all_attempts(Attempt::Hang);
            let options = options(&world).queue_bytes(1).connect_timeout(SECOND);
            let setup = Setup::start(world, options);
            drop(setup.client.publish("t", "first", qos, Wait::None));
            let mut parked = setup.client.publish("t", "parked", qos, Wait::Ack);
            for _ in 0..polls {
                assert!(poll(&mut parked).is_none());
                setup.world.run_until_idle();
            }
            drop(parked);
            assert_eq!(setup.client.statistics().waits, 0);
            setup.world.network().all_attempts(Attempt::Accept);
            setup
                .wait(setup.client.connected())
                .expect("the network is back");
            setup
                .wait(setup.client.ready())
                .expect("the message has left");
            setup.world.broker(|broker, _| {
                let [only] = broker.messages() else {
                    panic!("one message was accepted");
                };
                assert_eq!(only.payload(), b"first");
            });
        }
    }
}

#[test]
fn waits_for_a_condition_leave_nothing_behind_when_they_are_dropped_or_time_out() {
    let world = World::with_peers();
    world.network().all_attempts(Attempt::Hang);
    let options = options(&world).queue_bytes(1);
    let setup = Setup::start(world, options);
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::None));
    drop(setup.client.publish("t", "x", Qos::AtMostOnce, Wait::None));
    for _ in 0..100 {
        let (mut connected, mut ready) = (setup.client.connected(), setup.client.ready());
        assert!(poll(&mut connected).is_none() && poll(&mut ready).is_none());
    }
    assert_eq!(setup.client.statistics().waits, 0, "dropped");
    for _ in 0..100 {
        assert!(
            setup
                .wait(setup.client.connected().timeout(SECOND))
                .is_err()
        );
        assert!(setup.wait(setup.client.ready().timeout(SECOND)).is_err());
    }
    assert_eq!(setup.client.statistics().waits, 0, "timed out");
}

#[test]
fn a_wait_that_timed_out_is_forgotten_when_its_answer_comes() {
    let (setup, mut peer) = Setup::connected();
    let publishing = setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack);
    assert!(setup.wait(publishing.timeout(SECOND)).is_err());
    assert_eq!(setup.client.statistics().waits, 1, "PUBACK may still come");
    peer.send(b"\x40\x02\x00\x01");
    assert_eq!(setup.client.statistics().waits, 0);
    // The same when the future is still held, and polled only after the answer.
    let mut publishing = setup
        .client
        .publish("t", "x", Qos::AtLeastOnce, Wait::Ack)
        .timeout(SECOND);
    setup.world.advance(2 * SECOND);
    peer.send(b"\x40\x02\x00\x02");
    assert!(poll(&mut publishing).is_some_and(|outcome| outcome.is_err()));
    assert_eq!(setup.client.statistics().waits, 0);
}

#[test]
fn next_that_is_dropped_at_any_await_loses_no_message() {
    let (setup, mut peer) = Setup::connected();
    let mut stream =
        now(setup.client.subscribe("t", Qos::AtMostOnce, Wait::None)).expect("accepted");
    for number in 0..10_u8 {
        {
            let mut next = Box::pin(stream.next());
            assert!(poll(&mut next).is_none());
            peer.send(&[0x30, 5, 0, 1, b't', 0, number]);
            // Woken, and dropped before it is polled again.
        }
        let mut next = Box::pin(stream.next());
        let message = poll(&mut next).flatten().expect("it stayed queued");
        assert_eq!(message.payload(), [number]);
    }
}

#[test]
fn a_disconnect_that_is_dropped_goes_on() {
    for polls in 0..3 {
        let setup = Setup::with_broker(BrokerOptions::new());
        setup
            .wait(setup.client.connected())
            .expect("the broker is there");
        let mut leaving = setup.client.disconnect();
        for _ in 0..polls {
            let _ = poll(&mut leaving);
        }
        drop(leaving);
        setup.world.run_until_idle();
        assert!(setup.driver.is_finished());
        setup.world.broker(|broker, _| {
            let last = broker.packets().last().map(|packet| packet.kind());
            assert_eq!(last, Some(Kind::Disconnect));
        });
    }
}

/// Runs `future` for so many polls, then drops it. None if it was dropped.
fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let mut future = Some(Box::pin(future));
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        let Some(going_on) = &mut future else {
            return Poll::Ready(None);
        };
        if left == 0 {
            future = None;
            return Poll::Ready(None);
        }
        left -= 1;
        going_on.as_mut().poll(cx).map(Some)
    })
}

/// A task of an application; counts the publishes it has called for.
async fn application(client: Client, called: Rc<Cell<usize>>) -> Result<()> {
    let call = |topic: &str, qos, wait| {
        called.set(called.get() + 1);
        let number = called.get().to_string();
        client.publish(topic, number, qos, wait)
    };
    client.connected().await?;
    let mut stream = client.subscribe("a/+", Qos::ExactlyOnce, Wait::Ack).await?;
    for qos in [Qos::ExactlyOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for wait in [Wait::Sent, Wait::Ack, Wait::None] {
            call("a/b", qos, wait).await?;
        }
        client.ready().await?;
        assert!(stream.next().await.is_some());
    }
    client.unsubscribe("a/+", Wait::Ack).await?;
    drop(stream);
    call("c", Qos::ExactlyOnce, Wait::Ack).await?;
    Ok(())
}

#[test]
fn a_task_that_is_dropped_at_any_await_never_loses_or_doubles_what_it_published() {
    // The broker answers late, so that there are many awaits, and the link breaks on the way; the
    // session stays. Only QoS 2 promises that nothing doubles.
    for cut_after in [usize::MAX, 60, 100, 150, 200, 250, 300] {
        let mut polls = 0;
        loop {
            let setup = Setup::with_broker(BrokerOptions::new());
            setup.world.broker(|broker, _| {
                for kind in [
                    Kind::Publish,
                    Kind::Pubrel,
                    Kind::Subscribe,
                    Kind::Unsubscribe,
                ] {
                    let late = Rule::new(When::Packet(kind), [Then::Delay(SECOND / 10)]);
                    broker.add_rule(late.always());
                }
            });
            setup.world.network().cut_after_sent(cut_after, Cut::Close);
            let called = Rc::new(Cell::new(0));
            let task = application(setup.client.clone(), Rc::clone(&called));
            let outcome = setup.wait(drop_after(polls, task));
            // Whatever is left of it is finished by the driver alone.
            setup.world.advance(100 * SECOND);
            let statistics = setup.client.statistics();
            assert_eq!(statistics.unfinished, 0);
            assert_eq!(
                statistics.waits, 0,
                "cut after {cut_after} bytes, {polls} polls"
            );
            setup.world.broker(|broker, _| {
                assert!(broker.violations().is_empty());
                assert_eq!(broker.subscriptions("c"), [], "the stream was given up");
                let mut seen = vec![0; called.get()];
                for message in broker.messages() {
                    let text = String::from_utf8_lossy(message.payload());
                    let number: usize = text.parse().expect("payloads are numbers");
                    seen[number - 1] += 1;
                    if message.qos() == Qos::ExactlyOnce {
                        assert_eq!(seen[number - 1], 1, "{number} doubled");
                    }
                }
                assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
                if cut_after == usize::MAX {
                    assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
                }
            });
            if let Some(ended) = outcome {
                assert!(ended.is_ok(), "{ended:?}");
                assert_eq!(called.get(), 10);
                break;
            }
            polls += 1;
        }
        assert!(polls > 10, "{polls} awaits only");
    }
}

#[test]
fn a_dropped_wait_leaves_the_refusal_to_an_event() {
    let (mut setup, mut peer) = Setup::connected();
    drop(setup.client.publish("t", "x", Qos::AtLeastOnce, Wait::Ack));
    peer.received();
    peer.send(b"\x40\x03\x00\x01\x87");
    let events = setup.events();
    let refused = events.iter().any(|event| match event {
        coracle::Event::Unpublished { error, .. } => error.reason() == Some(Reason::NOT_AUTHORIZED),
        _ => false,
    });
    assert!(refused, "{events:?}");
}
