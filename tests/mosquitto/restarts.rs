//! The broker is stopped and started ten times while messages are under way, to it and from it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coracle::{Client, Error, ErrorKind, Qos, Subscription, Version, Wait};
use smol::Timer;

use crate::broker::{Broker, PERSISTENT};
use crate::ground::{GLANCE, GLANCES};
use crate::world::{World, options, run};

/// A window wider than anything here: what does not fit into it when mosquitto 2.0.11 starts again, it
/// takes for new, and sends QoS 2 messages a second time that had come to PUBREL.
const WIDE: &str = "max_inflight_messages 2000\n";

const RESTARTS: usize = 10;

/// Messages that have to arrive between two restarts, so that each interrupts a link that works.
const BETWEEN: usize = 100;

/// Between two messages of one writer.
const PACE: Duration = Duration::from_millis(1);

/// How long the broker is down, and how long it is frozen before, so that bytes lie in its sockets
/// which it never reads.
const OUTAGE: Duration = Duration::from_millis(20);

/// After how many messages the reader rests, so that some are always under way to it.
const REST: usize = 16;

/// Waits that one writer leaves open at a time.
const OPEN: usize = 50;

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// What became of one message.
#[derive(Debug)]
struct Fate {
    qos: Qos,
    wait: Wait,
    /// How often it came.
    arrived: usize,
    /// What its call said; none while it has not ended.
    told: Option<Result<(), Error>>,
}

/// All messages by their topics.
#[derive(Debug)]
struct Log {
    fates: RefCell<BTreeMap<String, Fate>>,
    arrived: Cell<usize>,
    /// Waits of the writer that leaves many open.
    open: Cell<usize>,
    stage: Cell<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Writers write.
    Writing,
    /// Each ends after its message.
    Ending,
}

impl Log {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            fates: RefCell::default(),
            arrived: Cell::new(0),
            open: Cell::new(0),
            stage: Cell::new(Stage::Writing),
        })
    }

    /// Publishes the message of this number, and notes what the call says.
    async fn publish(self: Rc<Self>, client: Client, writer: &'static str, nth: usize, wait: Wait) {
        let qos = QOS[nth % QOS.len()];
        // The topic says which message it is, because that is what a broker's log shows.
        let topic = format!("number/{}/{writer}/{nth}", qos.bits());
        let fate = Fate {
            qos,
            wait,
            arrived: 0,
            told: None,
        };
        self.fates.borrow_mut().insert(topic.clone(), fate);
        let outcome = client.publish(&topic, "x", qos, wait).await;
        if let Some(fate) = self.fates.borrow_mut().get_mut(&topic) {
            fate.told = Some(outcome.map(drop));
        }
    }

    fn arrived(&self, topic: &str) {
        let mut fates = self.fates.borrow_mut();
        let fate = fates.get_mut(topic).expect("somebody has published it");
        fate.arrived += 1;
        self.arrived.set(self.arrived.get() + 1);
    }

    /// Messages above QoS 0 that have not come.
    fn missing(&self) -> Vec<String> {
        let fates = self.fates.borrow();
        fates
            .iter()
            .filter(|(_, fate)| fate.qos != Qos::AtMostOnce && fate.arrived == 0)
            .map(|(topic, fate)| format!("{topic}, {:?}: {:?}", fate.wait, fate.told))
            .collect()
    }

    /// What must hold when everything has come to an end.
    fn check(&self) {
        for (topic, fate) in &*self.fates.borrow() {
            let Some(told) = &fate.told else {
                panic!("{topic}: its call never ended")
            };
            match (fate.qos, told) {
                // Lost with the link, or not: the caller was told that it is not known.
                (Qos::AtMostOnce, Err(error)) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::LinkLost),
                        "{topic}: {error}"
                    );
                    assert!(fate.arrived <= 1, "{topic} came {} times", fate.arrived);
                }
                (Qos::AtMostOnce, Ok(())) => {
                    assert!(fate.arrived <= 1, "{topic} came {} times", fate.arrived);
                }
                (Qos::AtLeastOnce, Ok(())) => assert!(fate.arrived >= 1, "{topic} never came"),
                (Qos::ExactlyOnce, Ok(())) => {
                    assert_eq!(fate.arrived, 1, "{topic} did not come once");
                }
                (Qos::AtLeastOnce | Qos::ExactlyOnce, Err(error)) => panic!("{topic}: {error}"),
            }
        }
    }
}

/// Waits for each message before the next, and for a moment between them.
async fn one_by_one(log: Rc<Log>, client: Client, writer: &'static str, wait: Wait) {
    for nth in 0.. {
        if log.stage.get() == Stage::Ending {
            return;
        }
        Rc::clone(&log)
            .publish(client.clone(), writer, nth, wait)
            .await;
        Timer::after(PACE).await;
    }
}

/// Leaves many waits for the acknowledgement open at a time.
async fn side_by_side(world: World, log: Rc<Log>, client: Client) {
    for nth in 0.. {
        if log.stage.get() == Stage::Ending && log.open.get() == 0 {
            return;
        }
        if log.stage.get() == Stage::Writing && log.open.get() < OPEN {
            log.open.set(log.open.get() + 1);
            let (log, client) = (Rc::clone(&log), client.clone());
            let waiting = async move {
                Rc::clone(&log)
                    .publish(client, "side", nth, Wait::Ack)
                    .await;
                log.open.set(log.open.get() - 1);
            };
            world.spawn(waiting).detach();
        }
        Timer::after(PACE).await;
    }
}

async fn read(log: Rc<Log>, mut stream: Subscription) {
    while let Some(message) = stream.next().await {
        log.arrived(message.topic());
        if log.arrived.get().is_multiple_of(REST) {
            Timer::after(PACE).await;
        }
    }
}

async fn ten_restarts(world: World, version: Version) {
    let mut broker = Broker::start(&format!("{PERSISTENT}{WIDE}")).await;
    let reader = world.client(options(&broker, version, "reader")).await;
    let stream = reader
        .subscribe("number/#", Qos::ExactlyOnce, Wait::Ack)
        .await
        .expect("granted");
    let writer = world.client(options(&broker, version, "writer")).await;
    let log = Log::new();
    let reading = world.spawn(read(Rc::clone(&log), stream));
    let mut writing =
        vec![world.spawn(side_by_side(world.clone(), Rc::clone(&log), writer.clone()))];
    for (name, wait) in [
        ("none", Wait::None),
        ("sent", Wait::Sent),
        ("ack", Wait::Ack),
    ] {
        writing.push(world.spawn(one_by_one(Rc::clone(&log), writer.clone(), name, wait)));
    }

    let mut under_way = 0;
    for nth in 0..RESTARTS {
        let enough = log.arrived.get() + BETWEEN;
        for _ in 0..GLANCES {
            let both = writer.is_connected() && reader.is_connected();
            if both && log.arrived.get() >= enough {
                break;
            }
            Timer::after(GLANCE).await;
        }
        assert!(
            log.arrived.get() >= enough,
            "messages stopped coming after restart {nth}"
        );
        if nth % 2 == 1 {
            broker.signal("STOP");
            for _ in 0..GLANCES {
                if writer.statistics().unfinished > 0 {
                    break;
                }
                Timer::after(GLANCE).await;
            }
            assert!(writer.statistics().unfinished > 0, "nothing was under way");
        }
        under_way += writer.statistics().unfinished;
        broker.stop().await;
        Timer::after(OUTAGE).await;
        broker.start_again().await;
    }

    log.stage.set(Stage::Ending);
    for task in writing {
        task.await;
    }
    for _ in 0..GLANCES {
        if writer.statistics().unfinished == 0 && log.missing().is_empty() {
            break;
        }
        Timer::after(GLANCE).await;
    }
    let missing = log.missing();
    assert!(
        missing.is_empty(),
        "{} never came: {missing:#?}",
        missing.len()
    );
    // Whatever the broker still has for the reader comes before this.
    let (end, mark) = (Rc::clone(&log), writer.clone());
    end.publish(mark, "mark", 2, Wait::Ack).await;
    for _ in 0..GLANCES {
        if log.missing().is_empty() {
            break;
        }
        Timer::after(GLANCE).await;
    }
    log.check();
    for client in [&reader, &writer] {
        assert_eq!(client.statistics().connected, RESTARTS as u64 + 1);
    }
    assert!(
        under_way >= RESTARTS,
        "only {under_way} messages were under way at all stops"
    );
    writer.disconnect().await.expect("nothing stays");
    reader.disconnect().await.expect("nothing stays");
    reading.await;
}

#[test]
fn ten_restarts_lose_nothing_and_repeat_nothing_in_3_1() {
    run(|world| ten_restarts(world, Version::V3_1));
}

#[test]
fn ten_restarts_lose_nothing_and_repeat_nothing_in_3_1_1() {
    run(|world| ten_restarts(world, Version::V3_1_1));
}

#[test]
fn ten_restarts_lose_nothing_and_repeat_nothing_in_5_0() {
    run(|world| ten_restarts(world, Version::V5_0));
}
