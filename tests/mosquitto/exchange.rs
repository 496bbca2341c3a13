//! Messages from one client to another: every version, every QoS, retained ones, large and many.

use std::collections::BTreeSet;

use coracle::{ErrorKind, Message, Qos, Version, Wait};

use crate::broker::Broker;
use crate::world::{VERSIONS, next, options, run};

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[test]
fn every_qos_goes_both_ways_in_every_version_and_between_versions() {
    run(async |world| {
        let broker = Broker::open().await;
        for left in VERSIONS {
            for right in VERSIONS {
                let one = world.client(options(&broker, left, "left")).await;
                let other = world.client(options(&broker, right, "right")).await;
                for (from, to) in [(&one, &other), (&other, &one)] {
                    for granted in QOS {
                        let mut stream = to
                            .subscribe("a/+", granted, Wait::Ack)
                            .await
                            .expect("granted");
                        for qos in QOS {
                            from.publish("a/b", [qos.bits()].as_slice(), qos, Wait::Ack)
                                .await
                                .expect("acknowledged");
                            let message = next(&mut stream).await;
                            assert_eq!(message.topic(), "a/b");
                            assert_eq!(message.payload(), [qos.bits()]);
                            // The lower of the two [MQTT-3.8.4-8].
                            assert_eq!(message.quality_of_service(), qos.min(granted));
                            assert!(!message.is_retained() && !message.is_duplicate());
                        }
                        to.unsubscribe("a/+", Wait::Ack)
                            .await
                            .expect("unsubscribed");
                    }
                }
                one.disconnect().await.expect("nothing stays");
                other.disconnect().await.expect("nothing stays");
            }
        }
    });
}

#[test]
fn a_retained_message_comes_with_the_subscription_until_it_is_removed() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            for qos in QOS {
                let client = world.client(options(&broker, version, "client")).await;
                let lamp = Message::new("lamp", "on").qos(qos).retain(true);
                client
                    .publish_message(lamp, Wait::Ack)
                    .await
                    .expect("published");
                let mut stream = client
                    .subscribe("lamp", qos, Wait::Ack)
                    .await
                    .expect("granted");
                let message = next(&mut stream).await;
                assert_eq!(message.text(), Some("on"));
                assert!(message.is_retained());
                assert_eq!(message.quality_of_service(), qos);

                // To a subscription that stands already, it comes without the flag [MQTT-3.3.1-9].
                let lamp = Message::new("lamp", "off").qos(qos).retain(true);
                client
                    .publish_message(lamp, Wait::Ack)
                    .await
                    .expect("published");
                let message = next(&mut stream).await;
                assert_eq!(message.text(), Some("off"));
                assert!(!message.is_retained());

                // An empty payload removes it (MQTT 5, section 3.3.1.3).
                let nothing = Message::new("lamp", "").qos(qos).retain(true);
                client
                    .publish_message(nothing, Wait::Ack)
                    .await
                    .expect("published");
                assert_eq!(next(&mut stream).await.payload(), b"");
                client
                    .unsubscribe("lamp", Wait::Ack)
                    .await
                    .expect("unsubscribed");
                let mut stream = client
                    .subscribe("lamp", qos, Wait::Ack)
                    .await
                    .expect("granted");
                client
                    .publish("lamp", "new", qos, Wait::Ack)
                    .await
                    .expect("published");
                assert_eq!(next(&mut stream).await.text(), Some("new"));
                client.disconnect().await.expect("nothing stays");
            }
        }
    });
}

#[test]
fn payloads_of_300_kib_arrive_whole_both_ways() {
    run(async |world| {
        let broker = Broker::open().await;
        // Every byte says where it stands, so that a piece in the wrong place shows.
        let large: Vec<u8> = (0..300 * 1024_usize).map(|at| (at % 251) as u8).collect();
        for version in VERSIONS {
            let one = world.client(options(&broker, version, "one")).await;
            let other = world.client(options(&broker, version, "other")).await;
            for (from, to) in [(&one, &other), (&other, &one)] {
                let mut stream = to
                    .subscribe("large", Qos::AtLeastOnce, Wait::Ack)
                    .await
                    .expect("granted");
                let first = from.publish("large", &large, Qos::AtLeastOnce, Wait::Ack);
                let small = from.publish("large", "between", Qos::AtLeastOnce, Wait::Ack);
                let second = from.publish("large", large.clone(), Qos::AtLeastOnce, Wait::Ack);
                assert!(next(&mut stream).await.payload() == large);
                assert_eq!(next(&mut stream).await.text(), Some("between"));
                assert!(next(&mut stream).await.payload() == large);
                first.await.expect("acknowledged");
                small.await.expect("acknowledged");
                second.await.expect("acknowledged");
                to.unsubscribe("large", Wait::Ack)
                    .await
                    .expect("unsubscribed");
            }
            one.disconnect().await.expect("nothing stays");
            other.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn ten_thousand_small_messages_arrive_in_order_through_a_small_queue() {
    const COUNT: u32 = 10_000;
    run(async |world| {
        let broker = Broker::open().await;
        for (version, qos) in [
            (Version::V3_1, Qos::AtLeastOnce),
            (Version::V3_1_1, Qos::ExactlyOnce),
            (Version::V5_0, Qos::AtLeastOnce),
            (Version::V5_0, Qos::ExactlyOnce),
        ] {
            let reader = world.client(options(&broker, version, "reader")).await;
            let writer = options(&broker, version, "writer").queue_bytes(32 * 1024);
            let writer = world.client(writer).await;
            let mut stream = reader
                .subscribe("small", qos, Wait::Ack)
                .await
                .expect("granted");
            let sending = world.spawn({
                let writer = writer.clone();
                async move {
                    let mut full = 0;
                    for number in 0..COUNT {
                        let payload = number.to_be_bytes();
                        while let Err(error) =
                            writer.publish("small", &payload, qos, Wait::None).await
                        {
                            assert!(matches!(error.kind(), ErrorKind::QueueFull), "{error}");
                            full += 1;
                            writer.ready().await.expect("room");
                        }
                    }
                    full
                }
            });
            for number in 0..COUNT {
                let message = next(&mut stream).await;
                assert_eq!(message.payload(), number.to_be_bytes(), "{version} {qos}");
                assert_eq!(message.quality_of_service(), qos);
            }
            assert!(sending.await > 0, "the queue was never full");
            writer.disconnect().await.expect("nothing stays");
            reader.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn more_messages_at_once_than_the_broker_takes_are_not_dropped() {
    const COUNT: u8 = 100;
    run(async |world| {
        // With its defaults mosquitto has 20 unfinished messages of QoS 2 of each client at most.
        let broker = Broker::open().await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "client")).await;
            let mut stream = client
                .subscribe("many", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            let mut waits = Vec::new();
            for number in 0..COUNT {
                for qos in [Qos::ExactlyOnce, Qos::AtLeastOnce] {
                    let payload = [number, qos.bits()];
                    waits.push(client.publish("many", &payload, qos, Wait::Ack));
                }
            }
            for wait in waits {
                wait.await.expect("acknowledged");
            }
            let mut seen = BTreeSet::new();
            for _ in 0..2 * usize::from(COUNT) {
                let message = next(&mut stream).await;
                assert!(seen.insert(message.payload().to_vec()), "{message:?} twice");
            }
            client.disconnect().await.expect("nothing stays");
        }
    });
}
