//! What the broker says when a client is gone.

use std::time::Duration;

use coracle::{Message, Properties, Qos, Reason, Version, Wait};
use smol::Timer;

use crate::broker::Broker;
use crate::world::{VERSIONS, next, next_connection, options, run};

fn will() -> Message {
    Message::new("gone", "pump").qos(Qos::AtLeastOnce)
}

#[test]
fn a_client_that_vanishes_leaves_its_will() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let watcher = world.client(options(&broker, version, "watcher")).await;
            let mut stream = watcher
                .subscribe("gone", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let pump = options(&broker, version, "pump").will(will().qos(qos));
                world.connected(pump).await.crash().await;
                let message = next(&mut stream).await;
                assert_eq!((message.topic(), message.text()), ("gone", Some("pump")));
                assert_eq!(message.quality_of_service(), qos);
            }
            let pump = options(&broker, version, "pump").will(will().retain(true));
            world.connected(pump).await.crash().await;
            next(&mut stream).await;
            let late = world.client(options(&broker, version, "late")).await;
            let mut retained = late
                .subscribe("gone", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("granted");
            assert!(next(&mut retained).await.is_retained());
            let nothing = Message::new("gone", "").retain(true);
            late.publish_message(nothing, Wait::Ack)
                .await
                .expect("removed");
            late.disconnect().await.expect("nothing stays");
            watcher.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_client_that_leaves_or_reconnects_leaves_no_will() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let watcher = world.client(options(&broker, version, "watcher")).await;
            let mut stream = watcher
                .subscribe("gone", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("granted");
            let pump = options(&broker, version, "pump").will(will());
            let pump = world.client(pump).await;
            let mut events = pump.events();
            pump.reconnect().expect("not closed");
            let present = next_connection(&mut events).await;
            assert_eq!(present, version != Version::V3_1, "3.1 does not say");
            pump.disconnect().await.expect("nothing stays");
            // Its will would have come before this.
            watcher
                .publish("gone", "mark", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            assert_eq!(next(&mut stream).await.text(), Some("mark"), "{version}");
            watcher.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_client_may_leave_with_its_will() {
    run(async |world| {
        let broker = Broker::open().await;
        let version = Version::V5_0;
        let watcher = world.client(options(&broker, version, "watcher")).await;
        let mut stream = watcher
            .subscribe("gone", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("granted");
        let pump = world
            .client(options(&broker, version, "pump").will(will()))
            .await;
        let leaving = pump.disconnect_with(Reason::DISCONNECT_WITH_WILL, Properties::new());
        leaving.await.expect("nothing stays");
        assert_eq!(next(&mut stream).await.text(), Some("pump"));
    });
}

#[test]
fn a_delayed_will_comes_late_and_not_at_all_if_the_client_is_back() {
    run(async |world| {
        let broker = Broker::open().await;
        let version = Version::V5_0;
        let watcher = world.client(options(&broker, version, "watcher")).await;
        let mut stream = watcher
            .subscribe("gone", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("granted");
        // In seconds; all that is to come before the will takes less.
        const DELAY: u32 = 5;
        let delayed = |text: &str, seconds| {
            let properties = Properties::new()
                .will_delay_interval(seconds)
                .user_property("of", text);
            Message::new("gone", text.to_owned()).properties(properties)
        };

        // Two that vanish; one of them comes back at once [MQTT-3.1.3-9].
        let pump = options(&broker, version, "pump").will(delayed("pump", DELAY));
        world.connected(pump).await.crash().await;
        let valve = options(&broker, version, "valve").will(delayed("valve", DELAY));
        world.connected(valve).await.crash().await;
        let valve = options(&broker, version, "valve").session(coracle::Session::Resume);
        let valve = world.client(valve).await;
        watcher
            .publish("gone", "mark", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        assert_eq!(next(&mut stream).await.text(), Some("mark"));
        let message = next(&mut stream).await;
        assert_eq!(message.text(), Some("pump"));
        assert_eq!(
            message.property_list().user_properties().next(),
            Some(("of", "pump"))
        );

        // mosquitto looks at delayed wills once a second; the valve's would have been due by now.
        Timer::after(Duration::from_millis(1_500)).await;
        watcher
            .publish("gone", "mark", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("acknowledged");
        assert_eq!(next(&mut stream).await.text(), Some("mark"));
        valve.disconnect().await.expect("nothing stays");
    });
}
