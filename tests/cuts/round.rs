//! One round: a broker, two clients behind networks that cut, and messages from one to the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coracle::{
    Acknowledge, Client, Event, Events, Filters, Options, Qos, Subscription, Version, Wait,
};
use fastrand::Rng;
use smol::Timer;

use crate::broker::{Broker, PERSISTENT};
use crate::fates::{Fates, Fault, Kind, Sum};
use crate::ground::GLANCE;
use crate::knife::{Cut, Direction, Knife};
use crate::wire::Passed;
use crate::world::World;

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
const TOPICS: [&str; 3] = ["cut/at-most-once", "cut/at-least-once", "cut/exactly-once"];

/// Tasks that publish, by what they wait for.
const WRITERS: [(Wait, usize); 3] = [(Wait::Ack, 24), (Wait::Sent, 6), (Wait::None, 1)];

/// Messages above QoS 0 that may be under way, so that the reader's cuts do not fill the broker.
const UNDER_WAY: usize = 600;

/// Longer than the longest chain of failing attempts: a call that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(60);

/// How often it is looked for what does not come; 30 s in all.
const LOOKS: u32 = 6_000;

/// What happens to the broker meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fall {
    /// Nothing.
    Never,
    /// It is ended in order and started again, after so many cuts each time. It then writes everything it
    /// holds to disk, so that nothing may be lost.
    Stopped { every: usize },
    /// It is killed. Mosquitto saves now and then, not before it acknowledges: what is lost and doubled
    /// is its own fault, and only what the client says of it can be judged.
    Killed { every: usize },
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sum: Sum,
    pub(crate) faults: Vec<Fault>,
    pub(crate) cuts: Vec<Cut>,
    /// How long it took from the broker's start to the first acknowledgement.
    pub(crate) back_after: Vec<Duration>,
    /// How often the broker told a client that it had lost its session.
    pub(crate) sessions_lost: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Writing,
    Ending,
}

#[derive(Debug)]
struct Shared {
    fates: RefCell<Fates>,
    stage: Cell<Stage>,
}

/// The settings of a client that come of the seed.
fn options(url: &str, name: &str, version: Version, random: &mut Rng) -> Options {
    let options = Options::new(url, name)
        .expect("the URL of a network")
        .version(version)
        .seed(random.u64(..))
        .window([4, 64, 1_024][random.usize(..3)])
        // The shortest ones there are, so that a hole costs as little as it can.
        .keep_alive(Duration::from_secs(1))
        .ping_timeout(Duration::from_millis(200))
        .connack_timeout(Duration::from_millis(400))
        .connect_timeout(Duration::from_secs(2))
        .retry_delays(Duration::from_millis(1), Duration::from_millis(5))
        .wait_timeout(HANGS)
        // A broker that saves each message takes long on a slow disk.
        .drain_timeout(HANGS);
    match random.u8(..3) {
        0 => options.receive_maximum(10),
        _ => options,
    }
}

async fn write(shared: Rc<Shared>, client: Client, wait: Wait, mut random: Rng) {
    while shared.stage.get() == Stage::Writing {
        if wait == Wait::None || shared.fates.borrow().under_way() >= UNDER_WAY {
            Timer::after(Duration::from_millis(1)).await;
            if shared.fates.borrow().under_way() >= UNDER_WAY {
                continue;
            }
        }
        publish(&shared, &client, QOS[random.usize(..3)], wait).await;
    }
}

/// Publishes the next message, and notes what its call says. Returns its number.
async fn publish(shared: &Shared, client: &Client, qos: Qos, wait: Wait) -> usize {
    // The number and the call in one step: messages are in the order of their numbers.
    let number = shared.fates.borrow_mut().begin(qos, wait);
    let topic = TOPICS[usize::from(qos.bits())];
    let publishing = client.publish(topic, crate::fates::payload_of(number), qos, wait);
    let outcome = publishing.await.map(drop);
    shared.fates.borrow_mut().end(number, outcome);
    number
}

async fn read(shared: Rc<Shared>, mut stream: Subscription) {
    while let Some(message) = stream.next().await {
        let qos = message.quality_of_service();
        shared.fates.borrow_mut().arrive(qos, message.payload());
    }
}

/// Notes what nobody waits for and was given up.
async fn watch(shared: Rc<Shared>, mut events: Events) {
    while let Some(event) = events.next().await {
        if let Event::Unpublished {
            message: Some(message),
            error,
        } = event
        {
            shared.fates.borrow_mut().give_up(message.payload(), error);
        }
    }
}

/// How often the broker let a client in without its session, that had one.
fn sessions_lost(received: &[Passed]) -> usize {
    let without = received.iter().filter(|passed| match passed {
        Passed::Connack { present } => !present,
        Passed::Publish { .. } | Passed::Pubrel { .. } => false,
    });
    without.count()
}

/// Waits until something holds. Returns whether it came to.
async fn until(holds: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS {
        if holds() {
            return true;
        }
        Timer::after(GLANCE).await;
    }
    false
}

/// Plays a round of so many cuts.
pub(crate) async fn play(world: World, seed: u64, count: usize, fall: Fall) -> Outcome {
    let mut random = Rng::with_seed(seed);
    let version = [Version::V3_1_1, Version::V5_0][(seed % 2) as usize];
    // Its own window of 20, or one that nothing here fills. What does not fit into the window when mosquitto
    // 2.0.11 starts again, it takes for new, and sends QoS 2 messages a second time that had come to PUBREL.
    let mosquitto = match (fall, random.bool()) {
        (Fall::Never, true) => "allow_anonymous true\n".to_owned(),
        (Fall::Never, false) => "allow_anonymous true\nmax_inflight_messages 2000\n".to_owned(),
        (Fall::Stopped { .. }, _) => format!("{PERSISTENT}max_inflight_messages 2000\n"),
        (Fall::Killed { .. }, _) => {
            "allow_anonymous true\npersistence true\nmax_inflight_messages 2000\n\
            autosave_on_changes true\nautosave_interval 1\n"
                .to_owned()
        }
    };
    let mut broker = Broker::start(&mosquitto).await;
    let to_writer = Knife::start(broker.port(), version, random.u64(..), count / 2);
    let to_reader = Knife::start(broker.port(), version, random.u64(..), count - count / 2);
    let shared = Rc::new(Shared {
        fates: RefCell::default(),
        stage: Cell::new(Stage::Writing),
    });

    let reader = world.device(options(&to_reader.url(), "reader", version, &mut random));
    let writer = world.device(options(&to_writer.url(), "writer", version, &mut random));
    world
        .spawn(watch(Rc::clone(&shared), writer.client.events()))
        .detach();
    let filters = Filters::new("cut/#", Qos::ExactlyOnce)
        .acknowledge([Acknowledge::OnTake, Acknowledge::OnReceipt][random.usize(..2)]);
    let stream = reader.client.subscribe_many(filters, Wait::Ack).await;
    let stream = stream.expect("a subscription gets through");
    let reading = world.spawn(read(Rc::clone(&shared), stream));
    // From here on both have a session. A client whose CONNACK got lost ends what it finds, and begins anew.
    publish(&shared, &writer.client, Qos::AtLeastOnce, Wait::Ack).await;
    let begun = [&to_writer, &to_reader].map(|knife| knife.passed(Direction::ToClient).len());
    let mut writing = Vec::new();
    for (wait, tasks) in WRITERS {
        for _ in 0..tasks {
            let (shared, client) = (Rc::clone(&shared), writer.client.clone());
            let random = Rng::with_seed(random.u64(..));
            writing.push(world.spawn(write(shared, client, wait, random)));
        }
    }

    let mut back_after = Vec::new();
    let cuts = || to_writer.count() + to_reader.count();
    while !(to_writer.is_blunt() && to_reader.is_blunt()) {
        let before = cuts();
        let every = match fall {
            Fall::Never => 1,
            Fall::Stopped { every } | Fall::Killed { every } => every.min(count - before),
        };
        let blunt = || to_writer.is_blunt() && to_reader.is_blunt();
        assert!(
            until(|| cuts() >= before + every || blunt()).await,
            "no cut for a long time: somebody does not connect or does not send"
        );
        match fall {
            Fall::Never => continue,
            Fall::Stopped { .. } => broker.stop().await,
            Fall::Killed { .. } => broker.kill().await,
        }
        broker.start_again().await;
        let done = shared.fates.borrow().acknowledged;
        back_after.push(first_since(&shared, done).await);
    }

    shared.stage.set(Stage::Ending);
    // Each wait ends by itself, at the latest by its timeout, which counts as a fault.
    for task in writing {
        task.await;
    }
    let finished = until(|| {
        let none_under_way =
            matches!(fall, Fall::Killed { .. }) || shared.fates.borrow().under_way() == 0;
        writer.client.statistics().unfinished == 0 && none_under_way
    });
    // What did not come is a fault below.
    finished.await;
    // Whatever the broker still has for the reader comes before these: copies above all.
    reader.client.reconnect().expect("it is open");
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mark = publish(&shared, &writer.client, qos, Wait::Ack).await;
        until(|| shared.fates.borrow().has_come(mark)).await;
    }

    for client in [&writer.client, &reader.client] {
        client.disconnect().await.expect("nothing stays");
    }
    for driver in [writer.driver, reader.driver] {
        driver.await.expect("a good end");
    }
    reading.await;
    let mut all = to_writer.cuts();
    all.extend(to_reader.cuts());
    let (told_writer, told_reader) = (
        to_writer.passed(Direction::ToClient),
        to_reader.passed(Direction::ToClient),
    );
    let (sum, mut faults) = shared
        .fates
        .take()
        .settle(&to_writer.passed(Direction::ToBroker), &told_reader);
    if let Fall::Killed { .. } = fall {
        faults.retain(|fault| match fault.kind {
            Kind::Lost | Kind::Doubled | Kind::OutOfOrder | Kind::Failed => false,
            Kind::Hangs | Kind::Untrue | Kind::Damaged => true,
        });
    }
    Outcome {
        sum,
        faults,
        cuts: all,
        back_after,
        sessions_lost: sessions_lost(&told_writer[begun[0]..])
            + sessions_lost(&told_reader[begun[1]..]),
    }
}

/// How long it takes to the next acknowledgement.
#[expect(clippy::disallowed_methods, reason = "real time is measured")]
async fn first_since(shared: &Shared, done: usize) -> Duration {
    let since = std::time::Instant::now();
    for _ in 0..30_000 {
        if shared.fates.borrow().acknowledged > done {
            return since.elapsed();
        }
        Timer::after(Duration::from_millis(1)).await;
    }
    panic!("nothing is acknowledged since the broker is back");
}
