//! Properties that only a broker sends, and only one that offers less than everything.

use std::time::Duration;

use coracle::{ErrorKind, Event, Options, Qos, Reason, Scram, ScramHash, Session, Version, Wait};
use mqtt5::broker::LoadBalancerConfig;

use crate::broker::{Broker, USER, credential};
use crate::world::{options_at, run};

fn credentials() -> String {
    credential(USER.0, USER.1)
}

fn options(broker: &Broker) -> Options {
    let scram = Scram::new(ScramHash::Sha256, USER.0, USER.1).expect("printable ASCII");
    options_at(&broker.url(), Version::V5_0, "pump-1").authenticator(scram)
}

#[test]
fn what_a_broker_does_not_offer_is_read_and_kept_to() {
    run(async |world| {
        let broker = Broker::start(&credentials(), |mut config| {
            config.wildcard_subscription_available = false;
            config.subscription_identifier_available = false;
            config.shared_subscription_available = false;
            config
                .with_maximum_qos(1)
                .with_retain_available(false)
                .with_session_expiry(Duration::from_secs(60))
        });
        let pump = options(&broker)
            .session(Session::Fresh)
            .session_expiry(Duration::from_secs(3600));
        let pump = world.client(pump).await;
        let said = pump.server_properties().expect("it is connected");
        let list = said.list();
        assert_eq!(list.maximum_qos(), Some(1));
        assert_eq!(list.retain_available(), Some(false));
        assert_eq!(list.wildcard_subscription_available(), Some(false));
        assert_eq!(list.subscription_identifiers_available(), Some(false));
        assert_eq!(list.shared_subscription_available(), Some(false));
        assert_eq!(list.session_expiry_interval(), Some(60));
        let error = pump
            .publish("a", "x", Qos::ExactlyOnce, Wait::Ack)
            .await
            .expect_err("it has no QoS 2");
        assert!(matches!(error.kind(), ErrorKind::NotOffered(_)), "{error}");
        pump.publish("a", "x", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
    });
}

#[test]
fn a_reference_to_another_broker_is_read_and_with_leave_followed() {
    run(async |world| {
        let target = Broker::with_scram(&credentials());
        // A name and a port, as the standard recommends (MQTT 5, section 4.11).
        let there = target.url().replace("mqtt://", "");
        let backend = there.clone();
        let referring = Broker::start(&credentials(), move |config| {
            config.with_load_balancer(LoadBalancerConfig::new(vec![backend]))
        });
        let pump = world.device(options(&referring));
        let mut events = pump.client.events();
        let Some(Event::ConnectFailed { error, .. }) = events.next().await else {
            panic!("it is sent away");
        };
        assert_eq!(error.reason(), Some(Reason::USE_ANOTHER_SERVER), "{error}");
        let reference = error.properties().server_reference();
        assert_eq!(reference, Some(there.as_str()));
        drop(pump);

        let pump = world
            .client(options(&referring).follow_referrals(true))
            .await;
        let place = pump.endpoint().expect("it is connected").to_string();
        assert_eq!(place, target.url());
    });
}
