//! Our client through relays to mosquitto.

use coracle::{Qos, Wait};

use crate::broker::Broker;
use crate::relay::{Direction, End, Mode, Relay};
use crate::world::{VERSIONS, next, next_connection, options, options_at, run};

#[test]
fn a_message_comes_and_goes_one_byte_at_a_time() {
    run(async |world| {
        let broker = Broker::open().await;
        let relay = Relay::start(broker.port(), &[Mode::Bytewise]);
        for version in VERSIONS {
            let client = world
                .client(options_at(&relay.url("mqtt"), version, "slow"))
                .await;
            let mut stream = client
                .subscribe("hall", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            client
                .publish("hall", "warm", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            assert_eq!(next(&mut stream).await.text(), Some("warm"));
            client.disconnect().await.expect("nothing stays");
        }
        assert!(relay.listening.connections() >= VERSIONS.len());
    });
}

#[test]
fn a_client_comes_back_when_its_connection_is_cut() {
    run(async |world| {
        let broker = Broker::open().await;
        let (after, of) = (2, Direction::ToClient);
        // The CONNACK has four bytes or more.
        let modes = [
            Mode::Cut {
                after,
                of,
                by: End::Fin,
            },
            Mode::Cut {
                after,
                of,
                by: End::Reset,
            },
            Mode::Whole,
        ];
        for version in VERSIONS {
            let relay = Relay::start(broker.port(), &modes);
            let device = world.device(options_at(&relay.url("mqtt"), version, "cut"));
            let mut events = device.client.events();
            next_connection(&mut events).await;
            // Versions before 5.0 may connect once more to begin with a clean session.
            let before = relay.listening.connections();
            assert!(before >= 3, "{before}");
            relay.cut(End::Reset);
            next_connection(&mut events).await;
            assert!(relay.listening.connections() > before);
            device.client.disconnect().await.expect("nothing stays");
            device.driver.await.expect("a good end");
        }
    });
}

#[test]
fn what_a_crashed_client_had_said_passes_and_then_the_end() {
    run(async |world| {
        let broker = Broker::open().await;
        let relay = Relay::start(broker.port(), &[Mode::Whole]);
        for (nth, version) in VERSIONS.into_iter().enumerate() {
            let watcher = world.client(options(&broker, version, "watcher")).await;
            let device = world
                .connected(options_at(&relay.url("mqtt"), version, "crashing"))
                .await;
            device.crash().await;
            broker
                .logged("crashing closed its connection", nth + 1)
                .await;
            watcher.disconnect().await.expect("nothing stays");
        }
    });
}
