//! Filters, and what MQTT 5 lets a subscription say.

use std::collections::{BTreeMap, BTreeSet};

use coracle::{Filters, Message, Qos, Reason, RetainHandling, Version, Wait};

use crate::broker::Broker;
use crate::world::{VERSIONS, next, options, run};

#[test]
fn several_filters_come_on_one_stream_and_go_one_by_one() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "client")).await;
            // More than fit into one SUBSCRIBE of ours.
            let mut filters = Filters::new("hall/+", Qos::ExactlyOnce)
                .and("cellar/#", Qos::AtLeastOnce)
                .and("attic", Qos::AtMostOnce);
            for number in 0..20 {
                filters = filters.and(format!("room/{number}"), Qos::AtLeastOnce);
            }
            let mut stream = client
                .subscribe_many(filters, Wait::Ack)
                .await
                .expect("granted");
            let granted: Vec<_> = stream.granted().map(|(_, reason)| reason).collect();
            assert_eq!(granted.len(), 23);
            let first = [
                Reason::GRANTED_QOS_2,
                Reason::GRANTED_QOS_1,
                Reason::SUCCESS,
            ];
            assert_eq!(granted[..3], first);

            let publish = async |topic: &str| {
                client
                    .publish(topic, "x", Qos::ExactlyOnce, Wait::Ack)
                    .await
                    .expect("acknowledged");
            };
            for (topic, qos) in [
                ("hall/temp", Qos::ExactlyOnce),
                ("cellar", Qos::AtLeastOnce),
                ("cellar/a/b", Qos::AtLeastOnce),
                ("attic", Qos::AtMostOnce),
                ("room/19", Qos::AtLeastOnce),
            ] {
                publish(topic).await;
                let message = next(&mut stream).await;
                assert_eq!(
                    (message.topic(), message.quality_of_service()),
                    (topic, qos)
                );
            }

            client
                .unsubscribe("cellar/#", Wait::Ack)
                .await
                .expect("unsubscribed");
            client
                .unsubscribe("room/19", Wait::Ack)
                .await
                .expect("unsubscribed");
            for topic in ["cellar/a", "room/19", "attic"] {
                publish(topic).await;
            }
            assert_eq!(next(&mut stream).await.topic(), "attic");

            // What a dropped handle alone had is unsubscribed in the driver's next turn.
            drop(stream);
            client.ping().await.expect("an answer");
            let again = client
                .unsubscribe("attic", Wait::Ack)
                .await
                .expect("answered");
            let expected = if version == Version::V5_0 {
                Reason::NO_SUBSCRIPTION_EXISTED
            } else {
                Reason::SUCCESS
            };
            assert_eq!(again.reason(), expected, "{version}");
            client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_filter_that_two_filters_of_one_stream_cover_comes_once() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "client")).await;
            let filters = Filters::new("a/#", Qos::AtLeastOnce).and("b/#", Qos::AtLeastOnce);
            let mut one = client
                .subscribe_many(filters, Wait::Ack)
                .await
                .expect("granted");
            let mut other = client
                .subscribe("a/#", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            for text in ["1", "2"] {
                client
                    .publish("a/x", text, Qos::ExactlyOnce, Wait::Ack)
                    .await
                    .expect("acknowledged");
            }
            for text in ["1", "2"] {
                assert_eq!(next(&mut one).await.text(), Some(text));
                assert_eq!(next(&mut other).await.text(), Some(text));
            }
            client.disconnect().await.expect("nothing stays");
        }
    });
}

// MQTT 5, section 4.8.2.
#[test]
fn a_shared_subscription_spreads_its_messages_and_each_group_gets_all() {
    const COUNT: usize = 300;
    const GROUPS: [(&str, &[&str]); 2] =
        [("workers", &["w1", "w2", "w3"]), ("clerks", &["c1", "c2"])];
    run(async |world| {
        let broker = Broker::open().await;
        let version = Version::V5_0;
        let (told, messages) = smol::channel::unbounded();
        let mut workers = Vec::new();
        for (group, members) in GROUPS {
            for name in members {
                let worker = world.client(options(&broker, version, name)).await;
                let filter = format!("$share/{group}/jobs/+");
                let mut stream = worker
                    .subscribe(&filter, Qos::AtLeastOnce, Wait::Ack)
                    .await
                    .expect("granted");
                let told = told.clone();
                workers.push(world.spawn(async move {
                    // The client lives as long as the task.
                    let _worker = worker;
                    while let Some(message) = stream.next().await {
                        let one = (group, *name, message);
                        told.send(one).await.expect("the test listens");
                    }
                }));
            }
        }
        let boss = world.client(options(&broker, version, "boss")).await;
        for number in 0..COUNT {
            boss.publish("jobs/x", number.to_string(), Qos::AtLeastOnce, Wait::None)
                .await
                .expect("accepted");
        }
        let mut seen = BTreeSet::new();
        let mut shares: BTreeMap<_, usize> = BTreeMap::new();
        for _ in 0..COUNT * GROUPS.len() {
            let (group, name, message) = messages.recv().await.expect("the workers work");
            let text = message.text().expect("a number").to_owned();
            assert!(
                seen.insert((group, text.clone())),
                "{text} came twice to {group}"
            );
            *shares.entry(name).or_default() += 1;
        }
        for (group, members) in GROUPS {
            for name in members {
                // Mosquitto deals them out in turn; half of an even share leaves it other ways.
                let least = COUNT / members.len() / 2;
                assert!(shares[name] >= least, "{name} of {group}: {shares:?}");
            }
        }
        // Nothing more comes: the last message is the only one left.
        boss.publish("jobs/last", "last", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        for _ in GROUPS {
            let (_, _, message) = messages.recv().await.expect("the workers work");
            assert_eq!(message.topic(), "jobs/last");
        }
    });
}

#[test]
fn no_local_keeps_ones_own_messages_away() {
    run(async |world| {
        let broker = Broker::open().await;
        let one = world.client(options(&broker, Version::V5_0, "one")).await;
        let other = world.client(options(&broker, Version::V5_0, "other")).await;
        let filters = Filters::new("chat", Qos::AtLeastOnce).no_local(true);
        let mut stream = one
            .subscribe_many(filters, Wait::Ack)
            .await
            .expect("granted");
        one.publish("chat", "mine", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        other
            .publish("chat", "yours", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        assert_eq!(next(&mut stream).await.text(), Some("yours"));
    });
}

#[test]
fn retain_as_published_keeps_the_flag() {
    run(async |world| {
        let broker = Broker::open().await;
        let client = world
            .client(options(&broker, Version::V5_0, "client"))
            .await;
        for (filter, keeps) in [("with/+", true), ("without/+", false)] {
            let filters = Filters::new(filter, Qos::AtLeastOnce).retain_as_published(keeps);
            let mut stream = client
                .subscribe_many(filters, Wait::Ack)
                .await
                .expect("granted");
            let topic = filter.replace('+', "x");
            for retain in [true, false] {
                let message = Message::new(topic.as_str(), "x").retain(retain);
                client
                    .publish_message(message, Wait::Ack)
                    .await
                    .expect("acknowledged");
                assert_eq!(
                    next(&mut stream).await.is_retained(),
                    retain && keeps,
                    "{filter}"
                );
            }
        }
    });
}

#[test]
fn retain_handling_says_when_retained_messages_come() {
    run(async |world| {
        let broker = Broker::open().await;
        let client = world
            .client(options(&broker, Version::V5_0, "client"))
            .await;
        let kept = Message::new("kept", "old").retain(true);
        client
            .publish_message(kept, Wait::Ack)
            .await
            .expect("acknowledged");
        for (handling, at_first, again) in [
            (RetainHandling::Send, true, true),
            (RetainHandling::SendIfNew, true, false),
            (RetainHandling::DoNotSend, false, false),
        ] {
            let filters = || Filters::new("kept", Qos::AtLeastOnce).retain_handling(handling);
            let mut first = client
                .subscribe_many(filters(), Wait::Ack)
                .await
                .expect("granted");
            client
                .publish("kept", "mark", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            let message = next(&mut first).await;
            assert_eq!(message.is_retained(), at_first, "{handling:?}");
            if at_first {
                assert_eq!(next(&mut first).await.text(), Some("mark"));
            }
            // Another handle of the same filter asks once more; all handles share what comes.
            let second = client
                .subscribe_many(filters(), Wait::Ack)
                .await
                .expect("granted");
            client
                .publish("kept", "mark", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            assert_eq!(next(&mut first).await.is_retained(), again, "{handling:?}");
            drop((first, second));
            client
                .unsubscribe("kept", Wait::Ack)
                .await
                .expect("unsubscribed");
        }
    });
}

#[test]
fn a_subscription_identifier_comes_back_with_the_message() {
    run(async |world| {
        let broker = Broker::open().await;
        let client = world
            .client(options(&broker, Version::V5_0, "client"))
            .await;
        let wide = Filters::new("a/#", Qos::AtLeastOnce).identifier(7);
        let mut wide = client
            .subscribe_many(wide, Wait::Ack)
            .await
            .expect("granted");
        let narrow = Filters::new("b/c", Qos::AtLeastOnce).identifier(268_435_455);
        let mut narrow = client
            .subscribe_many(narrow, Wait::Ack)
            .await
            .expect("granted");
        for topic in ["a/b", "b/c"] {
            client
                .publish(topic, "x", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
        }
        let identifiers = |message: &Message| {
            message
                .property_list()
                .subscription_identifiers()
                .collect::<Vec<_>>()
        };
        assert_eq!(identifiers(&next(&mut wide).await), [7]);
        assert_eq!(identifiers(&next(&mut narrow).await), [268_435_455]);
    });
}
