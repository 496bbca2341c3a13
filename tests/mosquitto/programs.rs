//! Against mosquitto_pub and mosquitto_sub: the other side has a codec that is not ours.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use coracle::{Message, Properties, Property, Qos, Version, Wait};
use smol::Timer;

use crate::broker::Broker;
use crate::ground::{GLANCE, GLANCES, program};
use crate::world::{VERSIONS, next, options, run};

const QOS: [(Qos, &str); 3] = [
    (Qos::AtMostOnce, "0"),
    (Qos::AtLeastOnce, "1"),
    (Qos::ExactlyOnce, "2"),
];

/// What the programs call the versions.
const NAMES: [(Version, &str); 3] = [
    (Version::V3_1, "mqttv31"),
    (Version::V3_1_1, "mqttv311"),
    (Version::V5_0, "mqttv5"),
];

/// A program of mosquitto, ended with the test.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(name: &str, broker: &Broker, version: Version, arguments: &[&str]) -> Self {
        let (_, version) = NAMES
            .into_iter()
            .find(|(named, _)| *named == version)
            .expect("the programs know every version");
        let child = Command::new(program(name))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &broker.port().to_string(),
                "-V",
                version,
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a program of mosquitto");
        Self(child)
    }

    /// Waits for its good end, and returns what it has said: little enough to fit into a pipe.
    pub(crate) async fn output(mut self) -> String {
        for _ in 0..GLANCES {
            if let Some(status) = self.0.try_wait().expect("the program is our child") {
                assert!(status.success(), "{status}");
                let mut said = String::new();
                let mut pipe = self.0.stdout.take().expect("its output is piped");
                pipe.read_to_string(&mut said).expect("text");
                return said;
            }
            Timer::after(GLANCE).await;
        }
        panic!("the program does not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_mosquitto_pub_publishes_arrives_here() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "reader")).await;
            let mut stream = client
                .subscribe("from/#", Qos::ExactlyOnce, Wait::Ack)
                .await
                .expect("granted");
            for (qos, number) in QOS {
                let text = format!("{version} at {number}, ä€😀");
                let arguments = ["-t", "from/outside", "-q", number, "-m", &text];
                let program = Program::start("mosquitto_pub", &broker, version, &arguments);
                let message = next(&mut stream).await;
                assert_eq!(message.topic(), "from/outside");
                assert_eq!(message.text(), Some(text.as_str()));
                assert_eq!(message.quality_of_service(), qos);
                program.output().await;
            }
            client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn what_is_published_here_arrives_at_mosquitto_sub() {
    run(async |world| {
        let broker = Broker::open().await;
        for version in VERSIONS {
            let client = world.client(options(&broker, version, "writer")).await;
            let name = format!("sub{}", version.level());
            let arguments = [
                "-i",
                &name,
                "-t",
                "to/#",
                "-q",
                "2",
                "-C",
                "3",
                "-F",
                "%t|%q|%r|%p",
            ];
            let program = Program::start("mosquitto_sub", &broker, version, &arguments);
            broker.logged(&format!("{name} 2 to/#"), 1).await;
            for (qos, number) in QOS {
                let text = format!("{version} at {number}, ä€😀");
                client
                    .publish("to/outside", text, qos, Wait::Ack)
                    .await
                    .expect("acknowledged");
            }
            let expected: String = QOS
                .iter()
                .map(|(_, number)| format!("to/outside|{number}|0|{version} at {number}, ä€😀\n"))
                .collect();
            assert_eq!(program.output().await, expected);
            client.disconnect().await.expect("nothing stays");
        }
    });
}

#[test]
fn the_properties_of_mosquitto_pub_arrive_here() {
    run(async |world| {
        let broker = Broker::open().await;
        let version = Version::V5_0;
        let client = world.client(options(&broker, version, "reader")).await;
        let mut stream = client
            .subscribe("ask", Qos::AtLeastOnce, Wait::Ack)
            .await
            .expect("granted");
        let arguments = [
            ["-t", "ask"].as_slice(),
            &["-q", "1", "-m", "?"],
            &["-D", "publish", "payload-format-indicator", "1"],
            &["-D", "publish", "content-type", "text/plain"],
            &["-D", "publish", "response-topic", "answer"],
            &["-D", "publish", "correlation-data", "17"],
            &["-D", "publish", "user-property", "room", "hall"],
            &["-D", "publish", "user-property", "room", "kitchen"],
        ]
        .concat();
        let program = Program::start("mosquitto_pub", &broker, version, &arguments);
        let message = next(&mut stream).await;
        let list = message.property_list();
        assert_eq!(list.payload_format_indicator(), Some(true));
        assert_eq!(list.content_type(), Some("text/plain"));
        assert_eq!(list.response_topic(), Some("answer"));
        assert_eq!(list.correlation_data(), Some(b"17".as_slice()));
        let rooms: Vec<_> = list.user_properties().collect();
        assert_eq!(rooms, [("room", "hall"), ("room", "kitchen")]);
        program.output().await;
    });
}

#[test]
fn the_properties_of_a_message_arrive_at_mosquitto_sub() {
    run(async |world| {
        let broker = Broker::open().await;
        let version = Version::V5_0;
        let client = world.client(options(&broker, version, "writer")).await;
        let form = "%F|%C|%R|%D|%P|%p";
        let arguments = ["-i", "sub", "-t", "ask", "-q", "1", "-C", "1", "-F", form];
        let program = Program::start("mosquitto_sub", &broker, version, &arguments);
        broker.logged("sub 1 ask", 1).await;
        let properties = Properties::new()
            .payload_format_indicator(true)
            .content_type("text/plain")
            .response_topic("answer")
            .correlation_data(b"17")
            .user_property("room", "hall")
            .with(Property::UserProperty("floor", "1"));
        let message = Message::new("ask", "?").properties(properties);
        client
            .publish_message(message, Wait::Ack)
            .await
            .expect("acknowledged");
        let said = program.output().await;
        assert_eq!(said, "1|text/plain|answer|17|room:hall floor:1|?\n");
    });
}
