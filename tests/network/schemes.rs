//! Every way to the broker, against mosquitto: what is published arrives, also right after a reconnect.

use std::time::Duration;

use coracle::{Client, Options, Qos, Tls, Version, Wait};

use crate::pki::Authority;
use crate::relay::{End, Mode, Relay};
use crate::site::{Door, Site};
use crate::world::{VERSIONS, next, next_connection, options_at, run};

/// Publishes and receives a message at each QoS.
pub(crate) async fn exchange(client: &Client, topic: &str) {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let topic = format!("{topic}/{qos}");
        let mut stream = client
            .subscribe(&topic, Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("granted");
        // Not larger: mosquitto 2.0 sends some 40 KB a second through a WebSocket.
        let large = vec![0x55; 5_000];
        for payload in [&b"warm"[..], b"", &large] {
            client
                .publish(&topic, payload, qos, Wait::Ack)
                .await
                .expect("acknowledged");
            let message = next(&mut stream).await;
            assert!(message.payload() == payload, "{topic}: another payload");
            assert_eq!(message.quality_of_service(), qos);
        }
    }
}

/// The same, then again right after a reconnect that nobody waits for.
async fn exchange_and_again(world: &crate::world::World, options: Options, topic: &str) {
    let device = world.device(options);
    let client = &device.client;
    exchange(client, topic).await;
    client.reconnect().expect("it is open");
    exchange(client, topic).await;
    client.disconnect().await.expect("nothing stays");
    device.driver.await.expect("a good end");
}

/// How to get in by each door.
fn tls_for(door: Door, authority: &Authority) -> Tls {
    let tls = Tls::new().roots(authority.root());
    match door {
        Door::ClientCertificate => {
            let own = authority.client("pump-1");
            tls.client_certificate(own.chain, own.key)
        }
        Door::Tcp | Door::Tls | Door::WebSocket | Door::SecureWebSocket | Door::Unix => tls,
    }
}

fn by(door: Door) {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        for version in VERSIONS {
            let options =
                options_at(&site.url(door), version, "pump-1").tls(tls_for(door, &authority));
            exchange_and_again(&world, options, &format!("{door:?}")).await;
        }
    });
}

#[test]
fn tcp_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::Tcp);
}

#[test]
fn tls_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::Tls);
}

#[test]
fn tls_with_a_client_certificate_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::ClientCertificate);
}

#[test]
fn a_unix_socket_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::Unix);
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::WebSocket);
}

#[cfg(feature = "websocket")]
#[test]
fn a_secure_websocket_takes_messages_both_ways_and_again_after_a_reconnect() {
    by(Door::SecureWebSocket);
}

/// How long a handshake in single bytes may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Through a relay that passes single bytes, and cut by force afterwards.
fn torn(door: Door, scheme: &str) {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let relay = Relay::start(site.port(door), &[Mode::Bytewise]);
        // Some 2,500 bytes, each with a sleep and a wake-up.
        let options = options_at(&relay.url(scheme), Version::V5_0, "pump-1")
            .tls(tls_for(door, &authority))
            .connect_timeout(PATIENCE)
            .connack_timeout(PATIENCE);
        let device = world.device(options);
        let mut events = device.client.events();
        let mut stream = device
            .client
            .subscribe("hall", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("granted");
        for (text, by) in [("one", End::Reset), ("two", End::Fin)] {
            while events
                .next()
                .await
                .is_some_and(|event| !matches!(event, coracle::Event::Connected { .. }))
            {
            }
            device
                .client
                .publish("hall", text, Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            assert_eq!(next(&mut stream).await.text(), Some(text));
            relay.cut(by);
        }
        next_connection(&mut events).await;
        device.client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn tls_may_arrive_in_single_bytes_and_be_cut() {
    torn(Door::Tls, "mqtts");
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_may_arrive_in_single_bytes_and_be_cut() {
    torn(Door::WebSocket, "ws");
}

#[cfg(feature = "websocket")]
#[test]
fn a_secure_websocket_may_arrive_in_single_bytes_and_be_cut() {
    torn(Door::SecureWebSocket, "wss");
}
