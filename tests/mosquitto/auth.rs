//! Enhanced authentication, carried out by mosquitto with a plugin that is compiled here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coracle::{
    AuthFuture, AuthStep, Authenticator, Client, Error, ErrorKind, Event, Exchange, Occasion,
    PropertyList, Qos, Reason, Version, Wait,
};

use crate::broker::Broker;
use crate::every_property::{Site, use_every_property};
use crate::world::{next, options, run};

/// What both sides know; see `extauth.c`.
const KEY: u8 = 0x5A;

const NONCE: &[u8] = b"nonce 01";

/// The client's side of the methods of `extauth.c`.
#[derive(Debug, Clone)]
struct Mutual {
    method: &'static str,
    key: u8,
    renew_in: Option<Duration>,
}

impl Mutual {
    fn new(method: &'static str) -> Self {
        Self {
            method,
            key: KEY,
            renew_in: None,
        }
    }

    fn flip(&self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().map(|byte| byte ^ self.key).collect()
    }
}

impl Authenticator for Mutual {
    fn method(&self) -> &str {
        self.method
    }

    fn start<'a>(&'a self, _: &'a Occasion) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async {
            let exchange: Box<dyn Exchange> = Box::new(self.clone());
            Ok((AuthStep::new().data(NONCE), exchange))
        })
    }
}

impl Exchange for Mutual {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        Box::pin(async move {
            let challenge = server.authentication_data().unwrap_or_default();
            Ok(AuthStep::new().data(self.flip(challenge)))
        })
    }

    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        Box::pin(async move {
            if server.authentication_data() == Some(&self.flip(NONCE)) {
                Ok(self.renew_in)
            } else {
                Err(Error::unproven("it cannot flip the nonce"))
            }
        })
    }
}

/// A mosquitto with the plugin.
fn with_plugin(directory: &Path) -> String {
    let plugin = directory.join("extauth.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mosquitto/extauth.c");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-o"])
        .args([&plugin, &source])
        .output();
    let needs = "these tests need a C compiler and the headers of mosquitto (Debian: apt-get install gcc \
                 libc6-dev mosquitto-dev libmosquitto-dev)";
    let made = made.unwrap_or_else(|error| panic!("cc: {error}: {needs}"));
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{needs}:\n{said}");
    format!("allow_anonymous true\nplugin {}\n", plugin.display())
}

/// What the first attempt of such a client fails with.
async fn failure(client: &Client) -> Error {
    let mut events = client.events();
    match events.next().await {
        Some(Event::ConnectFailed { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_is_authenticated_at_connect_and_again_twice() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let pump = options(&broker, Version::V5_0, "pump-1").authenticator(Mutual::new("MUTUAL"));
        let pump = world.client(pump).await;
        let said = pump.server_properties().expect("it is connected");
        assert_eq!(said.list().authentication_method(), Some("MUTUAL"));
        let mut stream = pump
            .subscribe("a", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("granted");
        for text in ["x", "y"] {
            let again = pump.reauthenticate();
            // Mosquitto takes no message in the middle of it, so this one waits.
            let publishing = pump.publish("a", text, Qos::ExactlyOnce, Wait::Ack);
            assert_eq!(next(&mut stream).await.text(), Some(text));
            publishing.await.expect("acknowledged");
            again.await.expect("both sides are content");
        }
        broker.logged("extauth: exchange 3 is good", 1).await;
        assert_eq!(pump.statistics().connected, 1);
        pump.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn a_credential_is_renewed_by_itself() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let mutual = Mutual {
            renew_in: Some(Duration::from_millis(50)),
            ..Mutual::new("MUTUAL")
        };
        let pump = options(&broker, Version::V5_0, "pump-1").authenticator(mutual);
        let pump = world.client(pump).await;
        let mut events = pump.events();
        for _ in 0..3 {
            let event = events.next().await;
            assert!(matches!(event, Some(Event::Reauthenticated)), "{event:?}");
        }
        broker.logged("extauth: exchange 4 is good", 1).await;
        assert_eq!(pump.statistics().connected, 1);
    });
}

#[test]
fn the_program_that_uses_every_property_runs() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let seen = use_every_property(&Site {
            world: &world,
            url: broker.url(),
            authenticator: &|renew_in| {
                Box::new(Mutual {
                    renew_in,
                    ..Mutual::new("MUTUAL")
                })
            },
        })
        .await;
        // What it says of its own accord: its limits, the name that it gives, its proof; and in messages
        // what publishers say, and the number of the subscription.
        let expected = [
            0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x12, 0x15, 0x16, 0x21, 0x22, 0x26,
        ];
        assert!(seen.iter().copied().eq(expected), "{seen:02X?}");
    });
}

#[test]
fn each_connection_is_authenticated() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let pump = options(&broker, Version::V5_0, "pump-1").authenticator(Mutual::new("MUTUAL"));
        let pump = world.client(pump).await;
        pump.reconnect().expect("it is open");
        broker.logged("extauth: exchange 2 is good", 1).await;
        pump.publish("a", "x", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect("acknowledged");
    });
}

#[test]
fn a_wrong_answer_and_an_unknown_method_are_refused() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let wrong = Mutual {
            key: 0,
            ..Mutual::new("MUTUAL")
        };
        for (mutual, reason) in [
            (wrong, Reason::NOT_AUTHORIZED),
            (Mutual::new("OTHER"), Reason::BAD_AUTHENTICATION_METHOD),
        ] {
            let pump = options(&broker, Version::V5_0, "pump-1").authenticator(mutual);
            let pump = world.device(pump);
            let error = failure(&pump.client).await;
            assert_eq!(error.reason(), Some(reason), "{error}");
            assert!(error.is_permanent());
        }
    });
}

#[test]
fn a_broker_that_lets_us_in_and_proves_nothing_is_left() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        let pump = options(&broker, Version::V5_0, "pump-1")
            .authenticator(Mutual::new("LIAR"))
            .give_up_when(|error, _| error.is_permanent());
        let pump = world.device(pump);
        let publishing = pump.client.publish("a", "x", Qos::AtMostOnce, Wait::Sent);
        let error = pump.driver.await.expect_err("it gave up");
        assert!(matches!(error.kind(), ErrorKind::Unproven(_)), "{error}");
        publishing.await.expect_err("nothing is sent");
        // It was told, and did not just lose the connection.
        broker.logged("disconnected", 1).await;
        assert!(!broker.log().contains("pump-1 closed"), "{}", broker.log());
    });
}

#[test]
fn a_refused_reauthentication_ends_the_connection() {
    run(async |world| {
        let broker = Broker::start_with(with_plugin).await;
        // A credential that is good once: its second exchange has another key.
        let pump =
            options(&broker, Version::V5_0, "pump-1").authenticator(Fading(Mutual::new("MUTUAL")));
        let pump = world.client(pump).await;
        let mut events = pump.events();
        let error = pump.reauthenticate().await.expect_err("it is refused");
        assert!(matches!(error.kind(), ErrorKind::LinkLost), "{error}");
        let event = events.next().await;
        let Some(Event::Disconnected { error, .. }) = event else {
            panic!("{event:?}");
        };
        assert_eq!(error.reason(), Some(Reason::NOT_AUTHORIZED), "{error}");
        pump.connected().await.expect("a fresh connection is good");
    });
}

/// Good for CONNECT, and wrong for a re-authentication.
struct Fading(Mutual);

impl Authenticator for Fading {
    fn method(&self) -> &str {
        self.0.method()
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async {
            let mut mutual = self.0.clone();
            if occasion.is_renewal() {
                mutual.key = 0;
            }
            let exchange: Box<dyn Exchange> = Box::new(mutual);
            Ok((AuthStep::new().data(NONCE), exchange))
        })
    }
}
