//! The chapters of the tour. Each leaves the broker as it found it.

use std::error::Error;
use std::time::{Duration, Instant};

use async_io::Timer;
use coracle::{
    Client, Endpoint, LocalExecutor, Message, Qos, Statistics, Subscription, Version, Wait,
};
use futures_lite::future;

use crate::options;
use crate::relay::Relay;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What every chapter needs.
pub(crate) struct Tour<'a> {
    pub(crate) executor: &'a LocalExecutor<'static>,
    pub(crate) client: Client,
    pub(crate) url: String,
    /// Client identifier, and the root of all topics, so that two tours do not meet.
    pub(crate) name: String,
    pub(crate) version: Version,
}

pub(crate) const ALL_QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// Messages per cell of the table of waits.
const ROUNDS: usize = 200;

/// How long something may take that a working broker does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

impl Tour<'_> {
    pub(crate) async fn tell(self) -> Outcome<()> {
        self.connect().await?;
        self.waits().await?;
        self.subscription().await?;
        self.retained().await?;
        self.will().await?;
        self.cut().await?;
        self.farewell().await
    }

    async fn connect(&self) -> Outcome<()> {
        chapter(1, "Connect");
        let begin = now();
        self.client.connected().timeout(PATIENCE).await?;
        say(&format!("CONNACK came after {}.", show(begin.elapsed())));
        say(&format!(
            "The client identifier is {:?}.",
            self.client.client_id()
        ));
        let announced = self.client.server_properties().unwrap_or_default();
        let limits = announced.list();
        match (limits.receive_maximum(), limits.topic_alias_maximum()) {
            (None, None) => say("The broker announced no limits."),
            (window, aliases) => say(&format!(
                "The broker takes {} unacknowledged messages at a time and {} topic aliases.",
                window.unwrap_or(u16::MAX),
                aliases.unwrap_or(0)
            )),
        }
        Ok(())
    }

    async fn waits(&self) -> Outcome<()> {
        chapter(2, "The three waits");
        say(&format!(
            "How long publish(…).await took, median of {ROUNDS} messages of 64 bytes:"
        ));
        println!();
        say(&format!(
            "{:8}{:>12}{:>12}{:>12}",
            "", "None", "Sent", "Ack"
        ));
        let topic = self.topic("waits");
        for qos in ALL_QOS {
            let mut line = format!("{:8}", qos.to_string());
            for wait in [Wait::None, Wait::Sent, Wait::Ack] {
                // The first ones warm up, and let what went before come to its end.
                for _ in 0..10 {
                    self.client
                        .publish(&topic, [b'.'; 64].as_slice(), qos, Wait::Ack)
                        .await?;
                }
                let mut taken = Vec::with_capacity(ROUNDS);
                for _ in 0..ROUNDS {
                    let begin = now();
                    self.client
                        .publish(&topic, [b'.'; 64].as_slice(), qos, wait)
                        .await?;
                    taken.push(begin.elapsed());
                }
                taken.sort();
                let median = taken.get(ROUNDS / 2).copied().unwrap_or_default();
                line.push_str(&format!("{:>12}", show(median)));
            }
            say(&line);
        }
        println!();
        say("None: the message is accepted. Sent: its bytes are handed to the system.");
        say("Ack: the broker has confirmed it (QoS 0 knows no confirmation, so it is as Sent).");
        Ok(())
    }

    async fn subscription(&self) -> Outcome<()> {
        chapter(3, "A subscription");
        let filter = self.topic("rooms/+");
        let mut rooms = self
            .client
            .subscribe(&filter, Qos::AtLeastOnce, Wait::Ack)
            .await?;
        for (filter, granted) in rooms.granted() {
            say(&format!(
                "The broker granted {filter:?} with QoS {}.",
                granted.code()
            ));
        }
        for (room, degrees) in [("hall", "21.4"), ("attic", "17.9"), ("cellar", "12.0")] {
            let topic = self.topic(&format!("rooms/{room}"));
            self.client
                .publish(&topic, degrees, Qos::AtLeastOnce, Wait::None)
                .await?;
        }
        for _ in 0..3 {
            let message = next(&mut rooms).await?;
            let text = message.text().unwrap_or("?");
            say(&format!(
                "{} says {text}, {}",
                message.topic(),
                message.quality_of_service()
            ));
        }
        say("Now the subscription is dropped, and so unsubscribed.");
        Ok(())
    }

    async fn retained(&self) -> Outcome<()> {
        chapter(4, "A retained message");
        let topic = self.topic("firmware");
        let message = Message::new(topic.as_str(), "4.2.1").retain(true);
        self.client.publish_message(message, Wait::Ack).await?;
        say("Version \"4.2.1\" is published and retained. A subscriber that comes later gets it:");
        let mut late = self
            .client
            .subscribe(&topic, Qos::AtLeastOnce, Wait::Ack)
            .await?;
        let message = next(&mut late).await?;
        let kept = if message.is_retained() {
            "retained"
        } else {
            "not retained"
        };
        say(&format!(
            "{} says {}, {kept}",
            message.topic(),
            message.text().unwrap_or("?")
        ));
        drop(late);
        // An empty retained message removes what the broker keeps.
        let nothing = Message::new(topic.as_str(), "").retain(true);
        self.client.publish_message(nothing, Wait::Ack).await?;
        Ok(())
    }

    async fn will(&self) -> Outcome<()> {
        chapter(5, "A will");
        let topic = self.topic("pump");
        let mut watch = self
            .client
            .subscribe(&topic, Qos::AtLeastOnce, Wait::Ack)
            .await?;
        let relay = Relay::open(self.executor, &address(&self.url)?)?;
        let name = format!("{}-pump", self.name);
        let will = Message::new(topic.as_str(), "the pump is gone");
        let (pump, driver) = Client::new(options(&relay.url(), &name, self.version)?.will(will));
        let driver = self.executor.spawn(driver.run());
        pump.connected().timeout(PATIENCE).await?;
        say("A second client leaves its will with the broker. Then its link is cut:");
        relay.cut_after(0);
        let begin = now();
        let ping = pump.ping().await;
        let message = next(&mut watch).await?;
        let text = message.text().unwrap_or("?");
        say(&format!(
            "{} says {text:?} after {}",
            message.topic(),
            show(begin.elapsed())
        ));
        if let Err(error) = ping {
            say(&format!(
                "The second client noticed too: \"{error}\". It connects again,"
            ));
        }
        pump.connected().timeout(PATIENCE).await?;
        pump.disconnect().await?;
        driver.await?;
        say("disconnects, and as it said goodbye its will is not published a second time.");
        Ok(())
    }

    async fn farewell(&self) -> Outcome<()> {
        chapter(7, "Drain and disconnect");
        let topic = self.topic("last");
        for count in 0..ROUNDS {
            self.client
                .publish(&topic, count.to_string(), Qos::AtLeastOnce, Wait::None)
                .await?;
        }
        let waiting = self.client.statistics().unfinished;
        say(&format!(
            "{waiting} messages are accepted and not acknowledged yet."
        ));
        let begin = now();
        self.client.disconnect().await?;
        let took = show(begin.elapsed());
        say(&format!(
            "disconnect() waited {took} until they were, and then left."
        ));
        counters(&self.client.statistics());
        Ok(())
    }

    pub(crate) fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name)
    }
}

fn counters(counted: &Statistics) {
    println!("\n   Counters of the first client");
    let bytes = format!("{} / {}", counted.bytes_out, counted.bytes_in);
    let calls = format!("{} / {}", counted.writes, counted.reads);
    for (name, value) in [
        ("messages published", counted.published.to_string()),
        ("messages received", counted.received.to_string()),
        ("bytes out / in", bytes),
        ("writes / reads", calls),
        ("connections", counted.connected.to_string()),
        ("attempts that failed", counted.failed.to_string()),
        ("messages dropped", counted.dropped.to_string()),
        ("messages unfinished", counted.unfinished.to_string()),
    ] {
        say(&format!("{name:22}{value:>16}"));
    }
}

/// The next message, within the time in which a broker must have brought it.
pub(crate) async fn next(subscription: &mut Subscription) -> Outcome<Message> {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(format!("no message came within {PATIENCE:?}").into())
    };
    let message = async {
        match subscription.next().await {
            Some(message) => Ok(message),
            None => Err("the subscription ended".into()),
        }
    };
    future::or(message, late).await
}

/// The `host:port` of a URL.
pub(crate) fn address(url: &str) -> Outcome<String> {
    let endpoint = Endpoint::parse(url)?;
    Ok(format!("{}:{}", endpoint.host(), endpoint.port()))
}

pub(crate) fn chapter(number: u32, title: &str) {
    println!("\n{number}. {title}\n");
}

pub(crate) fn say(line: &str) {
    println!("   {line}");
}

/// A duration with three digits at most.
pub(crate) fn show(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..10.0 => format!("{micros:.2} µs"),
        10.0..1e3 => format!("{micros:.0} µs"),
        1e3..1e4 => format!("{:.2} ms", micros / 1e3),
        1e4..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tour measures what its user waits for"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
