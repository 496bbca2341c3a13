//! User name and password, right and wrong.

use std::path::Path;
use std::process::Command;

use coracle::{Blame, ErrorKind, Event, Qos, Reason, Sent, Wait};

use crate::broker::Broker;
use crate::ground::program;
use crate::world::{VERSIONS, next, options, run};

/// What mosquitto calls a wrong password, in the code of each version.
const REFUSAL: Reason = Reason::NOT_AUTHORIZED;

/// A mosquitto that lets only `pump` in, whose password is `secret`.
fn guarded(directory: &Path) -> String {
    let file = directory.join("passwd");
    let made = Command::new(program("mosquitto_passwd"))
        .args(["-b", "-c"])
        .arg(&file)
        .args(["pump", "secret"])
        .status()
        .expect("mosquitto_passwd");
    assert!(made.success(), "mosquitto_passwd: {made}");
    format!("allow_anonymous false\npassword_file {}\n", file.display())
}

#[test]
fn the_right_password_lets_in() {
    run(async |world| {
        let broker = Broker::start_with(guarded).await;
        for version in VERSIONS {
            let pump = options(&broker, version, "pump-1").credentials("pump", "secret");
            let pump = world.client(pump).await;
            let mut stream = pump
                .subscribe("a", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            pump.publish("a", "x", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            assert_eq!(next(&mut stream).await.text(), Some("x"));
            pump.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn the_wrong_password_is_told_as_permanent_and_tried_again_unless_told_otherwise() {
    run(async |world| {
        let broker = Broker::start_with(guarded).await;
        for version in VERSIONS {
            for (user, password) in [("pump", "wrong"), ("nobody", "secret")] {
                let pump = options(&broker, version, "pump-1").credentials(user, password);
                let pump = world.device(pump);
                let mut events = pump.client.events();
                for nth in 1..=2 {
                    let event = events.next().await;
                    let Some(Event::ConnectFailed {
                        error,
                        attempt,
                        retry_in,
                    }) = event
                    else {
                        panic!("{event:?}");
                    };
                    assert!(error.is_permanent(), "{version}: {error}");
                    assert_eq!(error.reason(), Some(REFUSAL), "{version}");
                    assert_eq!(error.blame(), Blame::Broker);
                    assert_eq!(attempt, nth);
                    assert!(retry_in.is_some());
                }
            }
        }
    });
}

#[test]
fn a_client_that_gives_up_on_a_wrong_password_says_why_and_ends_every_wait() {
    run(async |world| {
        let broker = Broker::start_with(guarded).await;
        for version in VERSIONS {
            let pump = options(&broker, version, "pump-1")
                .credentials("pump", "wrong")
                .give_up_when(|error, _| error.is_permanent());
            let pump = world.device(pump);
            let publishing = pump.client.publish("a", "x", Qos::AtLeastOnce, Wait::Ack);
            let subscribing = pump.client.subscribe("a", Qos::AtLeastOnce, Wait::Ack);
            let connecting = pump.client.connected();
            let end = pump.driver.await.expect_err("it gave up");
            assert_eq!(end.reason(), Some(REFUSAL), "{version}");
            let error = publishing.await.expect_err("closed");
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
            assert_eq!(error.sent(), Sent::No);
            let error = subscribing.await.expect_err("closed");
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
            let error = connecting.await.expect_err("closed");
            assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
        }
    });
}

#[test]
fn new_credentials_are_asked_for_at_every_attempt() {
    run(async |world| {
        let broker = Broker::start_with(guarded).await;
        for version in VERSIONS {
            let pump = options(&broker, version, "pump-1").before_connect(|attempt| {
                Box::pin(async move {
                    let password = if attempt.failed_before() < 2 {
                        "old"
                    } else {
                        "secret"
                    };
                    Ok(attempt.credentials("pump", password))
                })
            });
            let pump = world.client(pump).await;
            assert_eq!(pump.statistics().failed, 2);
            pump.disconnect().await.expect("nothing stays");
        }
    });
}
