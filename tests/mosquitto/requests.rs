//! Requests and answers through mosquitto: between two clients, and with its own programs on one side.

use std::time::Duration;

use coracle::{ErrorKind, Filters, Message, Qos, Reason, Reply, Version, Wait};

use crate::broker::Broker;
use crate::programs::Program;
use crate::world::{VERSIONS, next_connection, options, run};

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn thousands_of_requests_are_answered_in_every_version() {
    const COUNT: usize = 3_000;
    run(async |world| {
        let broker = Broker::start("allow_anonymous true\nmax_queued_messages 0\n").await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "asks")).await;
            let server = world.client(options(&broker, version, "serves")).await;
            let service = server.serve(
                ("square/+", Qos::AtLeastOnce),
                |request| {
                    let number: u64 = request.text()?.parse().ok()?;
                    Some(format!("{} {}", request.topic(), number * number))
                },
                Wait::Ack,
            );
            let service = service.await.expect("granted");
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
                let waits: Vec<_> = (0..COUNT)
                    .map(|number| {
                        let message = Message::new("square/x", number.to_string()).qos(qos);
                        client.request_message(message, TIMEOUT)
                    })
                    .collect();
                for (number, wait) in waits.into_iter().enumerate() {
                    let answer = wait.await.expect("answered");
                    let expected = format!("square/x {}", number * number);
                    assert_eq!(answer.text(), Some(expected.as_str()), "{version} {qos}");
                    assert_eq!(answer.quality_of_service(), qos);
                }
            }
            assert_eq!(client.statistics().unclaimed, 0);
            drop(service);
            client.disconnect().await.expect("nothing stays");
            server.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn a_request_survives_a_restart_of_the_broker() {
    run(async |world| {
        for version in VERSIONS {
            let mut broker = Broker::open().await;
            // One client on both sides: so the service is there again before the requests are.
            let client = world.client(options(&broker, version, "both")).await;
            let mut events = client.events();
            let mut service = client
                .requests(("t", Qos::AtLeastOnce), Wait::Ack)
                .await
                .expect("granted");
            let asked = client.request("t", "first", TIMEOUT);
            drop(service.next().await.expect("it came"));
            broker.kill().await;
            let held = client.request("t", "second", TIMEOUT);
            broker.start_again().await;
            // Nothing was saved.
            assert!(!next_connection(&mut events).await);
            for expected in ["first", "second"] {
                let request = service.next().await.expect("it came again");
                assert_eq!(request.text(), Some(expected));
                let text = expected.to_uppercase();
                request.respond(text, Wait::None).await.expect("accepted");
            }
            assert_eq!(asked.await.expect("answered").text(), Some("FIRST"));
            assert_eq!(held.await.expect("answered").text(), Some("SECOND"));
        }
    });
}

#[test]
fn mosquitto_says_at_qos_1_that_nobody_serves() {
    run(async |world| {
        let broker = Broker::open().await;
        let client = world.client(options(&broker, Version::V5_0, "asks")).await;
        let request = client.request_message(Message::new("nobody", "x"), TIMEOUT);
        let error = request.await.expect_err("nobody serves");
        assert_eq!(error.reason(), Some(Reason::NO_MATCHING_SUBSCRIBERS));
        let request = client.request("nobody", "x", Duration::from_millis(300));
        let error = request.await.expect_err("nobody serves");
        assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
    });
}

#[test]
fn shared_services_spread_the_requests() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in [Version::V3_1_1, Version::V5_0] {
            let client = world.client(options(&broker, version, "asks")).await;
            let mut services = Vec::new();
            for name in ["one", "two"] {
                let server = world.client(options(&broker, version, name)).await;
                let filter = Filters::new("$share/group/t", Qos::AtMostOnce);
                let service = server.serve(filter, move |_| name, Wait::Ack).await;
                services.push((server, service.expect("granted")));
            }
            let mut names = std::collections::BTreeSet::new();
            for _ in 0..20 {
                let answer = client.request("t", "", TIMEOUT).await.expect("answered");
                names.insert(answer.text().map(str::to_owned));
            }
            assert_eq!(names.len(), 2, "{names:?}");
            assert_eq!(client.statistics().unclaimed, 0);
            for (server, _service) in services {
                server.disconnect().await.expect("nothing stays");
            }
            client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn mosquitto_rr_is_answered() {
    run(async |world| {
        let broker = Broker::open().await;
        let server = world
            .client(options(&broker, Version::V5_0, "serves"))
            .await;
        let service = server.serve(
            ("t", Qos::AtLeastOnce),
            |request| {
                let data = request.property_list().correlation_data();
                let data = data.map(String::from_utf8_lossy).unwrap_or_default();
                Reply::new(format!("{} to {data}", request.text().unwrap_or_default()))
            },
            Wait::Ack,
        );
        let _service = service.await.expect("granted");
        let arguments = [
            "-t",
            "t",
            "-e",
            "answers/rr",
            "-m",
            "yes",
            "-q",
            "1",
            "-F",
            "%t %D %p",
            "-D",
            "publish",
            "correlation-data",
            "abc",
        ];
        let program = Program::start("mosquitto_rr", &broker, Version::V5_0, &arguments);
        assert_eq!(program.output().await.trim(), "answers/rr abc yes to abc");
    });
}

#[test]
fn programs_that_follow_the_rules_can_serve() {
    run(async |world| {
        let broker = Broker::open().await;
        for (version, filter, format) in [
            (Version::V5_0, "t", "%R %D %p"),
            (Version::V3_1_1, "t/+/+", "%t - %p"),
        ] {
            let client = world.client(options(&broker, version, "asks")).await;
            // Retained at its filter or not, what stands there answers nothing.
            let old = Message::new("coracle/response/asks/0", "old").retain(true);
            client
                .publish_message(old, Wait::Ack)
                .await
                .expect("published");
            let arguments = ["-i", "foreign", "-t", filter, "-C", "1", "-F", format];
            let program = Program::start("mosquitto_sub", &broker, version, &arguments);
            broker.logged(&format!("foreign 0 {filter}"), 1).await;
            let request = client.request("t", "question", TIMEOUT);
            let said = program.output().await;
            let said: Vec<&str> = said.split_whitespace().collect();
            let [place, data, payload] = said[..] else {
                panic!("{said:?}");
            };
            assert_eq!(payload, "question");
            // Before MQTT 5 the place is the topic itself, to be changed at its front.
            let answers_to = place.replacen("t/", "coracle/response/", usize::from(data == "-"));
            let mut arguments = vec!["-t", &answers_to, "-m", "answer"];
            if version == Version::V5_0 {
                arguments.extend(["-D", "publish", "correlation-data", data]);
            }
            Program::start("mosquitto_pub", &broker, version, &arguments)
                .output()
                .await;
            let answer = request.await.expect("answered");
            assert_eq!(answer.text(), Some("answer"), "{version}");
            client.disconnect().await.expect("nothing stays");
        }
    });
}
