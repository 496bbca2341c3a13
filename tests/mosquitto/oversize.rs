//! A broker that hangs up over a message that is too large for it, which on 3.1.1 is all that it can say.

use std::time::Duration;

use coracle::{ErrorKind, Qos, Sent, Version, Wait};

use crate::broker::{Broker, OPEN};
use crate::world::{next, options, run};

/// It is sent once, and five times again, three of them on a connection that has to last for 5 s before.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn a_message_above_the_limit_of_the_broker_ends_with_an_error_and_the_next_one_arrives() {
    run(async |world| {
        let broker = Broker::start(&format!("{OPEN}max_packet_size 100000\n")).await;
        let reader = world
            .client(options(&broker, Version::V3_1_1, "reader"))
            .await;
        let mut stream = reader
            .subscribe("t/#", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("granted");
        // The system takes the one whole, and of the other a part.
        let mut waits = Vec::new();
        for (name, size) in [("small", 120_000), ("large", 30_000_000)] {
            let options = options(&broker, Version::V3_1_1, name).queue_bytes(64 << 20);
            let writer = world.client(options).await;
            let topic = format!("t/{name}");
            let large = writer
                .publish(&topic, vec![0; size], Qos::AtLeastOnce, Wait::Ack)
                .timeout(LONGEST);
            let behind = writer
                .publish(&topic, name, Qos::AtLeastOnce, Wait::Ack)
                .timeout(LONGEST);
            waits.push((writer, large, behind));
        }
        for (_writer, large, behind) in waits {
            let error = large.await.expect_err("it is too large");
            assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
            assert_eq!(error.sent(), Sent::Maybe);
            behind.await.expect("it is not too large");
        }
        let mut got = Vec::new();
        for _ in 0..2 {
            got.push(next(&mut stream).await.text().expect("text").to_owned());
        }
        got.sort();
        assert_eq!(got, ["large", "small"]);
    });
}
