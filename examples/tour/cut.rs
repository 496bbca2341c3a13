//! The chapter of the cut link: what becomes of messages that are under way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use async_io::Timer;
use coracle::{Client, Error, Event, Filters, Incoming, Qos, Wait};
use futures_lite::future;

use crate::options;
use crate::relay::Relay;
use crate::story::{ALL_QOS, Outcome, PATIENCE, Tour, address, chapter, now, say, show};

/// Messages at each QoS.
const MESSAGES: usize = 300;

/// Bytes that pass before the cut: some of the messages, and not to the end of one.
const PASSING: usize = 20_011;

/// What the sender was told about the messages of one QoS.
#[derive(Default)]
struct Told {
    done: usize,
    failed: usize,
    /// One of the errors; they are alike.
    error: Option<Error>,
}

/// How often each message arrived: by its QoS, then by its number.
#[derive(Default)]
struct Arrivals([Vec<u32>; 3]);

impl Arrivals {
    fn count(&mut self, message: &Incoming<'_>) {
        let last = |separator| message.topic().rsplit(separator).next();
        let qos = last('/').and_then(|digit| digit.parse::<usize>().ok());
        let number = message
            .text()
            .and_then(|text| text.trim().parse::<usize>().ok());
        let (Some(qos), Some(number)) = (qos, number) else {
            return;
        };
        let Some(counts) = self.0.get_mut(qos) else {
            return;
        };
        if counts.len() <= number && number < MESSAGES {
            counts.resize(number + 1, 0);
        }
        if let Some(count) = counts.get_mut(number) {
            *count += 1;
        }
    }

    fn arrived(&self, qos: Qos) -> usize {
        self.of(qos).filter(|count| **count > 0).count()
    }

    fn arrived_twice(&self, qos: Qos) -> usize {
        self.of(qos).filter(|count| **count > 1).count()
    }

    fn of(&self, qos: Qos) -> impl Iterator<Item = &u32> {
        self.0.get(usize::from(qos.bits())).into_iter().flatten()
    }
}

impl Tour<'_> {
    pub(crate) async fn cut(&self) -> Outcome<()> {
        chapter(6, "A cut link");
        let arrivals = Rc::<RefCell<Arrivals>>::default();
        let counting = Rc::clone(&arrivals);
        // An inline handler sees each message where it lies, before anything is copied.
        let handler = move |message: &Incoming<'_>| counting.borrow_mut().count(message);
        let filters = Filters::new(self.topic("cut/+"), Qos::ExactlyOnce);
        let _watch = self
            .client
            .subscribe_inline(filters, handler, Wait::Ack)
            .await?;

        let relay = Relay::open(self.executor, &address(&self.url)?)?;
        let name = format!("{}-cut", self.name);
        let (client, driver) = Client::new(options(&relay.url(), &name, self.version)?);
        let driver = self.executor.spawn(driver.run());
        client.connected().timeout(PATIENCE).await?;
        let diary = self.executor.spawn(write_diary(client.clone()));

        say(&format!(
            "A third client publishes {MESSAGES} messages at each QoS, all with Wait::Ack."
        ));
        say(&format!(
            "After {PASSING} bytes its link is cut, in the middle of a message."
        ));
        println!();
        relay.cut_after(PASSING);
        let mut waits = Vec::new();
        for number in 0..MESSAGES {
            for qos in ALL_QOS {
                let topic = self.topic(&format!("cut/{}", qos.bits()));
                // The call publishes; the futures are awaited together below.
                waits.push((
                    qos,
                    client.publish(&topic, format!("{number:64}"), qos, Wait::Ack),
                ));
            }
            // Lets the driver send these before the next ones come.
            future::yield_now().await;
        }
        let mut told = [Told::default(), Told::default(), Told::default()];
        for (qos, wait) in waits {
            let Some(told) = told.get_mut(usize::from(qos.bits())) else {
                continue;
            };
            match wait.await {
                Ok(_) => told.done += 1,
                Err(error) => {
                    told.failed += 1;
                    told.error = Some(error);
                }
            }
        }
        client.disconnect().await?;
        driver.await?;
        diary.await;
        settle(&arrivals).await?;
        report(&told, &arrivals.borrow());
        Ok(())
    }
}

/// Says what happens to the connection until the client is closed.
async fn write_diary(client: Client) {
    let begin = now();
    let mut events = client.events();
    while let Some(event) = events.next().await {
        let at = show(begin.elapsed());
        match event {
            Event::Disconnected { error, retry_in } => {
                let unfinished = client.statistics().unfinished;
                say(&format!("+{at:9}{error}"));
                say(&format!(
                    "{:10}{unfinished} messages of QoS 1 and 2 are unfinished",
                    ""
                ));
                let delay = retry_in.map_or_else(|| "no time".into(), show);
                say(&format!("{:10}trying again in {delay}", ""));
            }
            Event::Connected {
                session_present: true,
            } => {
                say(&format!(
                    "+{at:9}connected again; the broker still has the session"
                ));
            }
            // MQTT 3.1 brokers have no way to say it.
            Event::Connected {
                session_present: false,
            } => {
                say(&format!(
                    "+{at:9}connected again; no word that the session was kept"
                ));
            }
            // None of these is expected here, so they are shown as they are.
            other => say(&format!("+{at:9}{other:?}")),
        }
    }
}

/// Waits until what is promised has come through the broker, for a bounded time.
async fn settle(arrivals: &RefCell<Arrivals>) -> Outcome<()> {
    let begin = now();
    let promised = [Qos::AtLeastOnce, Qos::ExactlyOnce];
    while promised
        .iter()
        .any(|qos| arrivals.borrow().arrived(*qos) < MESSAGES)
    {
        if begin.elapsed() > PATIENCE {
            return Err("messages that the broker has confirmed did not arrive".into());
        }
        Timer::after(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn report(told: &[Told; 3], arrivals: &Arrivals) {
    println!();
    say(&format!(
        "{:8}{:>10}{:>10}{:>10}{:>16}",
        "", "Ok", "Err", "arrived", "arrived twice"
    ));
    for (qos, told) in ALL_QOS.into_iter().zip(told) {
        let (once, twice) = (arrivals.arrived(qos), arrivals.arrived_twice(qos));
        let name = qos.to_string();
        say(&format!(
            "{name:8}{:>10}{:>10}{once:>10}{twice:>16}",
            told.done, told.failed
        ));
    }
    for (qos, told) in ALL_QOS.into_iter().zip(told) {
        if let Some(error) = &told.error {
            say(&format!("{qos} Err: \"{error}\""));
        }
    }
    println!();
    say("At QoS 0 Ok means handed to the system, so more can be Ok than arrived.");
    say("QoS 1 may arrive twice and QoS 2 may not; both arrive whenever the wait says Ok.");
}
