//! A client under load is killed and started again, against a broker that lives on: what was promised holds.
//!
//! The device publishes and receives at QoS 1 and 2 with its session in a file. It says on a pipe what its calls
//! have promised and what it has taken, each before it goes on. Then it is killed in the middle of it all. Beside
//! it live a reader of what it publishes and a writer of what it receives, who count.
//!
//! 20 times for each version in the test command; `KILLS=200 cargo test --test store lives` is more, `SEED=2`
//! chooses other moments.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::process;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle::{
    Acknowledge, Batch, Client, Event, FileStore, Filters, LocalExecutor, Message, Options, Qos,
    Record, Store, StoreError, Subscription, Version, Wait,
};
use fastrand::Rng;
use smol::Timer;

use crate::broker::Broker;
use crate::ground::{GLANCE, Scratch};
use crate::process::{Process, part, say};
use crate::world::{World, options, run_within};
use crate::writer::{kills, seed};

/// Tasks of the device that publish, each one message at a time.
const WRITERS: usize = 8;

/// Between two messages of the writer at the other end.
const PACE: Duration = Duration::from_millis(2);

/// Lives before the device can receive anything.
const YOUNG: u32 = 2;

/// How long the last life has to bring everything to an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it is watched after that, for what should not come.
const REST: Duration = Duration::from_millis(500);

/// Longer than any run with a number of kills that somebody waits for.
const LONG: Duration = Duration::from_secs(3600);

/// The store of the device, which says when a batch is handed over and when it is on disk.
struct Told(FileStore);

impl Store for Told {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        self.0.load()
    }

    fn submit(&mut self, batch: Batch) {
        say("submit");
        self.0.submit(batch);
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let poll = self.0.poll_committed(cx);
        if let Poll::Ready(Ok(())) = poll {
            say("commit");
        }
        poll
    }
}

/// One life of the device. It does not end by itself.
fn live(path: &Path) -> ! {
    let store = FileStore::open(path).expect("a store");
    let url = variable("URL");
    let version = match variable("VERSION").as_str() {
        "3.1" => Version::V3_1,
        "3.1.1" => Version::V3_1_1,
        _ => Version::V5_0,
    };
    let life = variable("LIFE");
    let options = Options::new(&url, "device")
        .expect("a URL")
        .version(version)
        .store(Told(store))
        .retry_delays(Duration::from_millis(5), Duration::from_millis(40));
    let executor = Rc::new(LocalExecutor::new());
    let spawner = Rc::clone(&executor);
    coracle::block_on(executor.run(async move {
        let (client, driver) = Client::new(options);
        let mut events = client.events();
        // Before the driver runs: what comes first already has a stream.
        let on_take = Filters::new("in/take/#", Qos::ExactlyOnce);
        let on_receipt =
            Filters::new("in/receipt/#", Qos::ExactlyOnce).acknowledge(Acknowledge::OnReceipt);
        let on_take = client.subscribe_many(on_take, Wait::Ack);
        let on_receipt = client.subscribe_many(on_receipt, Wait::Ack);
        let running = spawner.spawn(async {
            let end = driver.run().await;
            panic!("the driver has ended: {end:?}");
        });
        if life != "last" {
            for writer in 0..WRITERS {
                let name = format!("{life}/{writer}");
                spawner.spawn(write(client.clone(), name)).detach();
            }
        }
        spawner
            .spawn(async move {
                while let Some(event) = events.next().await {
                    if let Event::StoreFailed { .. } | Event::Unpublished { .. } = event {
                        panic!("{event:?}");
                    }
                }
            })
            .detach();
        spawner
            .spawn(async { take(on_receipt.await.expect("granted")).await })
            .detach();
        let on_take = on_take.await.expect("granted");
        say("subscribed");
        take(on_take).await;
        running.await;
    }));
    process::exit(1);
}

async fn write(client: Client, name: String) {
    let mut rng = Rng::new();
    for nth in 0_u64.. {
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][rng.usize(0..2)];
        let wait = [Wait::Sent, Wait::Ack, Wait::None][rng.usize(0..3)];
        let topic = format!("out/{}/{name}/{nth}", qos.bits());
        let mut text = topic.clone();
        text.extend((0..rng.usize(0..2_000)).map(|_| 'x'));
        let published = client.publish(&topic, text, qos, wait).await;
        if wait != Wait::None {
            published.unwrap_or_else(|error| panic!("{topic}: {error}"));
            say(&format!("promised {topic}"));
        }
    }
}

async fn take(mut stream: Subscription) {
    while let Some(message) = stream.next().await {
        say(&format!("took {}", topic(&message)));
    }
    panic!("the stream has ended: {:?}", stream.error());
}

/// The topic of a message, whose text has to begin with it.
fn topic(message: &Message) -> &str {
    let topic = message.topic();
    let text = message.text().expect("text");
    assert!(text.starts_with(topic), "{topic}: {text}");
    topic
}

fn variable(name: &str) -> String {
    env::var(format!("CORACLE_STORE_{name}")).expect("the test sets it")
}

/// What the two who live on have seen, and what the device has said.
#[derive(Debug, Default)]
struct Log {
    /// How often a message of the device has arrived.
    arrived: BTreeMap<String, usize>,
    promised: BTreeSet<String>,
    /// What the broker has taken over for the device.
    fed: BTreeSet<String>,
    taken: BTreeMap<String, Taken>,
    /// What is wrong.
    faults: Vec<String>,
}

/// What the device has said about one message.
#[derive(Debug, Default)]
struct Taken {
    times: usize,
    /// Whether an earlier life knew for good that it was taken.
    durable: bool,
}

impl Log {
    /// What one life has said.
    fn read(&mut self, life: &str, said: &[String]) {
        let mut here = BTreeSet::new();
        // The taking of a message is in the batch that gathers, which is handed over next; one that is
        // handed over in the same moment may still be without it.
        let mut fresh: Vec<(String, u32)> = Vec::new();
        let mut under_way = Vec::new();
        for line in said {
            if let Some(topic) = line.strip_prefix("promised ") {
                self.promised.insert(topic.to_owned());
            } else if let Some(topic) = line.strip_prefix("took ") {
                let taken = self.taken.entry(topic.to_owned()).or_default();
                taken.times += 1;
                let exactly_once = topic.contains("/2/");
                if exactly_once && taken.durable {
                    self.faults
                        .push(format!("life {life}: {topic} was taken for good before"));
                }
                if !here.insert(topic) && exactly_once {
                    self.faults
                        .push(format!("life {life}: {topic} was taken twice"));
                }
                fresh.push((topic.to_owned(), 0));
            } else if line == "submit" {
                for (topic, submits) in &mut fresh {
                    *submits += 1;
                    if *submits == 2 {
                        under_way.push(topic.clone());
                    }
                }
                fresh.retain(|(_, submits)| *submits < 2);
            } else if line == "commit" {
                for topic in under_way.drain(..) {
                    self.taken.entry(topic).or_default().durable = true;
                }
            }
        }
    }

    /// What was promised and has not come, and what was sent to the device and never taken.
    fn missing(&self) -> Vec<&String> {
        let out = self.promised.iter();
        let into = self.fed.iter();
        out.filter(|topic| !self.arrived.contains_key(*topic))
            .chain(into.filter(|topic| !self.taken.contains_key(*topic)))
            .collect()
    }

    fn check(&self) {
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
        let missing = self.missing();
        assert!(missing.is_empty(), "lost: {missing:#?}");
        for (topic, times) in &self.arrived {
            if topic.starts_with("out/2/") {
                assert_eq!(*times, 1, "{topic} arrived {times} times");
            }
        }
    }
}

async fn survive(world: World, version: Version, test: &'static str) {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let broker = Broker::open().await;
    let log = Rc::new(RefCell::new(Log::default()));

    let reader = world.client(options(&broker, version, "reader")).await;
    let mut stream = reader
        .subscribe("out/#", Qos::ExactlyOnce, Wait::Ack)
        .await
        .expect("granted");
    let seen = Rc::clone(&log);
    let _reading = world.spawn(async move {
        while let Some(message) = stream.next().await {
            let topic = topic(&message).to_owned();
            *seen.borrow_mut().arrived.entry(topic).or_default() += 1;
        }
    });

    let url = broker.url();
    let spoken = version.to_string();
    let start = |life: &str| {
        let variables = [
            ("CORACLE_STORE_URL", url.as_str()),
            ("CORACLE_STORE_VERSION", spoken.as_str()),
            ("CORACLE_STORE_LIFE", life),
        ];
        Process::start(test, &path, &variables)
    };
    let mut rng = Rng::with_seed(seed());
    let mut feeding = None;
    let kills = kills().max(2 * YOUNG);
    for kill in 0..kills {
        let life = kill.to_string();
        let device = start(&life);
        // The first ones hardly come to life, with nothing in the store; then one lives until the broker knows
        // what it wants; then mostly in the middle of the work, sometimes while it starts.
        if kill == YOUNG {
            until(|| device.count("subscribed") > 0, &device).await;
            let writer = world.client(options(&broker, version, "writer")).await;
            feeding = Some(world.spawn(feed(writer, Rc::clone(&log))));
        } else if kill > YOUNG && kill % 4 > 0 {
            until(|| device.count("promised") > 0, &device).await;
        }
        Timer::after(Duration::from_micros(rng.u64(0..250_000))).await;
        let said = smol::unblock(|| device.kill()).await;
        log.borrow_mut().read(&life, &said);
    }
    if let Some(feeding) = feeding {
        feeding.cancel().await;
    }

    // The last one brings to an end what the others have begun.
    let device = start("last");
    let mut looks = 0;
    while !is_complete(&log, &device) && PATIENCE > GLANCE * 10 * looks {
        Timer::after(GLANCE * 10).await;
        looks += 1;
    }
    Timer::after(REST).await;
    let said = smol::unblock(|| device.kill()).await;
    let mut log = log.borrow_mut();
    log.read("last", &said);
    log.check();
    println!(
        "{kills} kills: {} promised, {} arrived; {} sent to it, {} taken, {} of them twice",
        log.promised.len(),
        log.arrived.len(),
        log.fed.len(),
        log.taken.len(),
        log.taken.values().filter(|taken| taken.times > 1).count(),
    );
    let least = kills as usize;
    assert!(log.promised.len() > 5 * least && log.fed.len() > 5 * least);
}

/// Whether everything has arrived, with what this life has said until now.
fn is_complete(log: &RefCell<Log>, device: &Process) -> bool {
    let taken: BTreeSet<String> = device.ends_of("took ").into_iter().collect();
    let log = log.borrow();
    log.missing().into_iter().all(|topic| taken.contains(topic))
}

async fn until(condition: impl Fn() -> bool, device: &Process) {
    let mut looks = 0;
    while !condition() {
        assert!(GLANCE * looks < PATIENCE, "{device:?} does nothing");
        Timer::after(GLANCE).await;
        looks += 1;
    }
}

/// Publishes for the device, whether it lives or not.
async fn feed(writer: Client, log: Rc<RefCell<Log>>) {
    for nth in 0_usize.. {
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][nth % 2];
        let way = ["take", "receipt"][nth / 2 % 2];
        let topic = format!("in/{way}/{}/{nth}", qos.bits());
        writer
            .publish(&topic, topic.as_str(), qos, Wait::Ack)
            .await
            .expect("acknowledged");
        log.borrow_mut().fed.insert(topic);
        Timer::after(PACE).await;
    }
}

#[test]
fn what_a_killed_client_promised_holds_in_5_0() {
    if let Some(path) = part() {
        live(&path);
    }
    let test = "lives::what_a_killed_client_promised_holds_in_5_0";
    run_within(LONG, |world| survive(world, Version::V5_0, test));
}

#[test]
fn what_a_killed_client_promised_holds_in_3_1_1() {
    if let Some(path) = part() {
        live(&path);
    }
    let test = "lives::what_a_killed_client_promised_holds_in_3_1_1";
    run_within(LONG, |world| survive(world, Version::V3_1_1, test));
}

#[test]
fn what_a_killed_client_promised_holds_in_3_1() {
    if let Some(path) = part() {
        live(&path);
    }
    let test = "lives::what_a_killed_client_promised_holds_in_3_1";
    run_within(LONG, |world| survive(world, Version::V3_1, test));
}
