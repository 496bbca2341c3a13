//! SCRAM, carried out by a broker that others wrote.

use std::time::Duration;

use coracle::{
    Client, Error, ErrorKind, Event, Options, Qos, Reason, Scram, ScramHash, Subscription, Version,
    Wait,
};

use crate::broker::{Broker, USER, credential};
use crate::every_property::{Site, use_every_property};
use crate::world::{next, options_at, run};

const QUALITIES: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

fn scram(password: &str) -> Scram {
    Scram::new(ScramHash::Sha256, USER.0, password).expect("printable ASCII")
}

fn options(broker: &Broker, scram: Scram) -> Options {
    options_at(&broker.url(), Version::V5_0, "pump-1").authenticator(scram)
}

fn broker() -> Broker {
    let (user_name, password) = USER;
    Broker::with_scram(&credential(user_name, password))
}

/// What the first attempt of such a client fails with.
async fn failure(client: &Client) -> Error {
    let mut events = client.events();
    match events.next().await {
        Some(Event::ConnectFailed { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

/// Messages flow, at each QoS.
async fn echo(client: &Client, stream: &mut Subscription) {
    for qos in QUALITIES {
        let published = client.publish("a", "x", qos, Wait::Ack).await;
        published.expect("acknowledged");
        assert_eq!(next(stream).await.quality_of_service(), qos);
    }
}

#[test]
fn a_client_is_authenticated_at_connect_and_again_twice() {
    run(async |world| {
        let broker = broker();
        let pump = world.client(options(&broker, scram(USER.1))).await;
        let said = pump.server_properties().expect("it is connected");
        assert_eq!(said.list().authentication_method(), Some("SCRAM-SHA-256"));
        let proof = said.list().authentication_data().expect("its signature");
        assert!(proof.starts_with(b"v="));
        let mut stream = pump
            .subscribe("a", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("granted");
        echo(&pump, &mut stream).await;
        for text in ["x", "y"] {
            let again = pump.reauthenticate();
            // Published in the middle of it.
            let publishing = pump.publish("a", text, Qos::ExactlyOnce, Wait::Ack);
            again.await.expect("both sides are content");
            publishing.await.expect("acknowledged");
            assert_eq!(next(&mut stream).await.text(), Some(text));
            echo(&pump, &mut stream).await;
        }
        assert_eq!(pump.statistics().connected, 1);
        pump.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn messages_flow_while_a_credential_is_renewed_by_itself() {
    run(async |world| {
        let broker = broker();
        let scram = scram(USER.1).renew_every(Duration::from_millis(50));
        // This broker lets other packets pass in the middle of a re-authentication.
        for quiet in [true, false] {
            let options = options(&broker, scram.clone()).quiet_renewal(quiet);
            let pump = world.client(options).await;
            let mut events = pump.events();
            let mut stream = pump
                .subscribe("a", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            for _ in 0..3 {
                let event = events.next().await;
                assert!(matches!(event, Some(Event::Reauthenticated)), "{event:?}");
                echo(&pump, &mut stream).await;
            }
            assert_eq!(pump.statistics().connected, 1);
            pump.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused() {
    run(async |world| {
        let broker = broker();
        let stranger = Scram::new(ScramHash::Sha256, "stranger", USER.1).expect("ASCII");
        for scram in [scram("guess"), stranger] {
            let pump = world.device(options(&broker, scram));
            let error = failure(&pump.client).await;
            assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED), "{error}");
            assert!(error.is_permanent());
            let said = error.properties().reason_string();
            assert_eq!(said, Some("Authentication failed"), "{error}");
        }
    });
}

#[test]
fn a_method_that_the_broker_does_not_know_is_refused() {
    run(async |world| {
        let broker = broker();
        let scram = Scram::new(ScramHash::Sha512, USER.0, USER.1).expect("ASCII");
        let pump = world.device(options(&broker, scram));
        let error = failure(&pump.client).await;
        let reason = Some(Reason::BAD_AUTHENTICATION_METHOD);
        assert_eq!(error.reason(), reason, "{error}");
    });
}

#[test]
fn a_broker_that_does_not_know_the_password_is_left() {
    run(async |world| {
        // It can check our proof, but its own key is another user's: it lets us in with a wrong signature.
        let (user_name, password) = USER;
        let good = credential(user_name, password);
        let other = credential("other", "other");
        let (checked, _) = good.rsplit_once(':').expect("five fields");
        let (_, key) = other.rsplit_once(':').expect("five fields");
        let broker = Broker::with_scram(&format!("{checked}:{key}"));
        let options =
            options(&broker, scram(password)).give_up_when(|error, _| error.is_permanent());
        let pump = world.device(options);
        let publishing = pump.client.publish("a", "x", Qos::AtMostOnce, Wait::Sent);
        let error = pump.driver.await.expect_err("it gave up");
        assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
        publishing.await.expect_err("nothing is sent");
    });
}

#[test]
fn the_program_that_uses_every_property_runs() {
    run(async |world| {
        let (user_name, password) = USER;
        let broker = Broker::start(&credential(user_name, password), |mut config| {
            config.topic_alias_maximum = 8;
            config.server_keep_alive = Some(Duration::from_secs(45));
            config.response_information = Some("answers/for/you".into());
            config
                .with_server_receive_maximum(30)
                .with_session_expiry(Duration::from_secs(3600))
        });
        let seen = use_every_property(&Site {
            world: &world,
            url: broker.url(),
            authenticator: &|lifetime| {
                let scram = scram(password);
                Box::new(match lifetime {
                    Some(lifetime) => scram.renew_every(lifetime),
                    None => scram,
                })
            },
        })
        .await;
        let expected = [
            0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x21, 0x22, 0x25,
            0x26, 0x27, 0x28, 0x29, 0x2A,
        ];
        assert!(seen.iter().copied().eq(expected), "{seen:02X?}");
    });
}
