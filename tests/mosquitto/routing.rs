//! Topic aliases and subscription identifiers, as a real broker sees and sends them.

use coracle::{Filters, Message, Qos, Subscription, Version, Wait};

use crate::broker::Broker;
use crate::world::{next, options, run};

const VERSION: Version = Version::V5_0;

/// What a stream got before the message "end".
async fn until_end(stream: &mut Subscription) -> Vec<(String, String)> {
    let mut all = Vec::new();
    loop {
        let message = next(stream).await;
        let text = message.text().expect("a text");
        if text == "end" {
            return all;
        }
        all.push((message.topic().to_owned(), text.to_owned()));
    }
}

#[test]
fn topics_arrive_whole_whatever_aliases_they_were_sent_by() {
    // More topics than the 10 aliases that mosquitto allows, some at a time.
    const TOPICS: usize = 14;
    const ROUNDS: usize = 60;
    run(async |world| {
        let broker = Broker::open().await;
        let to = world.client(options(&broker, VERSION, "to")).await;
        let mut stream = to
            .subscribe("building/#", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("granted");
        let mut bytes = Vec::new();
        for aliases in [0, 64] {
            let options = options(&broker, VERSION, "from").topic_aliases(aliases);
            let from = world.client(options).await;
            let before = from.statistics().bytes_out;
            let mut expected = Vec::new();
            for number in 0..ROUNDS * TOPICS {
                let place = number % TOPICS / 2 + number / (ROUNDS * TOPICS / 4) * 5;
                let topic = format!("building/floor/room {place}/temperature");
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][number % 3];
                // One after the other, because the classes may overtake each other.
                from.publish(&topic, number.to_string(), qos, Wait::Ack)
                    .await
                    .expect("acknowledged");
                expected.push((topic, number.to_string()));
            }
            bytes.push(from.statistics().bytes_out - before);
            from.publish("building/end", "end", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            let mut got = until_end(&mut stream).await;
            let number = |(_, text): &(String, String)| text.parse::<usize>().expect("a number");
            got.sort_by_key(number);
            assert_eq!(got, expected);
            from.disconnect().await.expect("nothing stays");
        }
        // Of 34 bytes of topic 3 are left, for most messages.
        let saved = bytes[0] - bytes[1];
        assert!(saved > (ROUNDS * TOPICS * 25) as u64, "{bytes:?}");
    });
}

#[test]
fn overlapping_subscriptions_get_each_copy_once() {
    run(async |world| {
        let broker = Broker::open().await;
        let client = world.client(options(&broker, VERSION, "client")).await;
        let kept = Message::new("a/b", "kept").retain(true);
        client
            .publish_message(kept, Wait::Ack)
            .await
            .expect("acknowledged");
        let mut streams = Vec::new();
        for filters in [
            Filters::new("a/#", Qos::ExactlyOnce),
            Filters::new("a/+", Qos::AtLeastOnce),
            Filters::new("a/b", Qos::ExactlyOnce).and("c/#", Qos::AtLeastOnce),
            // Once more, and two that overlap.
            Filters::new("a/b", Qos::ExactlyOnce)
                .and("+/b", Qos::AtLeastOnce)
                .and("#", Qos::AtLeastOnce),
        ] {
            let stream = client.subscribe_many(filters, Wait::Ack).await;
            streams.push(stream.expect("granted"));
            // What is retained comes after SUBACK, and to every handle that is there by then.
            client.ping().await.expect("an answer");
        }
        for (topic, text) in [("a/b", "1"), ("c/d", "2"), ("a/b", "3")] {
            client
                .publish(topic, text, Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("acknowledged");
        }
        client
            .publish("a/b", "end", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        // A copy for each subscription, and retained ones for the SUBSCRIBE that asked.
        let expected = [
            [1, 1, 0, 1, 1],
            [1, 1, 0, 1, 1],
            // With the second handle of "a/b" the retained message comes again.
            [2, 1, 1, 1, 1],
            [3, 3, 1, 3, 3],
        ];
        let mut counts = [[0; 5]; 4];
        // No more than 20 are on their way before they are taken, so it takes some rounds until the last
        // has come; and some more, in which one too many would be seen.
        let mut rounds_left = 5;
        while rounds_left > 0 {
            client.ping().await.expect("an answer");
            for (stream, counts) in streams.iter_mut().zip(&mut counts) {
                while let Some(message) = stream.try_next() {
                    let texts = ["kept", "1", "2", "3", "end"];
                    let index = texts.iter().position(|text| message.text() == Some(text));
                    counts[index.expect("a known text")] += 1;
                }
            }
            let total = |counts: &[[i32; 5]; 4]| counts.iter().flatten().sum::<i32>();
            if total(&counts) >= total(&expected) {
                rounds_left -= 1;
            }
        }
        assert_eq!(counts, expected);
        client.disconnect().await.expect("nothing stays");
    });
}
