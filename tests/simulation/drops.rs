//! Each operation once for every poll after which its future is dropped, over a network that passes
//! single bytes: dropping stops the waiting, and nothing else.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle::testkit::{BrokerOptions, World};
use coracle::{Client, ErrorKind, Filters, Message, Options, Qos, Subscription, Version, Wait};

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
const WAITS: [Wait; 3] = [Wait::None, Wait::Sent, Wait::Ack];

type Erased = Pin<Box<dyn Future<Output = ()>>>;

/// Polls a future a number of times and drops it within the last of them, or with no poll at once.
struct Doomed {
    inner: Option<Erased>,
    left: usize,
    polls: Rc<Cell<usize>>,
}

impl Future for Doomed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let doomed = &mut *self;
        if doomed.left > 0
            && let Some(inner) = &mut doomed.inner
        {
            doomed.polls.set(doomed.polls.get() + 1);
            if inner.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            doomed.left -= 1;
        }
        if doomed.left == 0 {
            doomed.inner = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Bytes go one at a time, so that everything takes as many polls as it can.
fn start(version: Version) -> (World, Client, smol::Task<coracle::Result<()>>) {
    let world = World::new(BrokerOptions::new());
    let network = world.network();
    network.read_chunk(1);
    network.send_buffer(1);
    let options = Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .connector(network)
        .clock(world.clock())
        .seed(1)
        .version(version)
        .wait_timeout(Duration::from_secs(100));
    let (client, driver) = Client::new(options);
    let driver = world.spawn(driver.run());
    (world, client, driver)
}

/// What must hold afterwards.
type Check = Box<dyn Fn(&World, &Client)>;

/// Something to do, by name, with what must hold after it, wherever it was dropped.
struct Operation {
    name: String,
    /// Whether it begins with a connection.
    online: bool,
    begin: Box<dyn Fn(&Client) -> Erased>,
    check: Check,
}

fn operation<T: 'static, F: Future<Output = T> + 'static>(
    name: impl Into<String>,
    online: bool,
    begin: impl Fn(&Client) -> F + 'static,
    check: impl Fn(&World, &Client) + 'static,
) -> Operation {
    Operation {
        name: name.into(),
        online,
        begin: Box::new(move |client| {
            let future = begin(client);
            Box::pin(async move { drop(future.await) })
        }),
        check: Box::new(check),
    }
}

/// Plays it with every number of polls; returns how many there are.
fn check(version: Version, operation: &Operation) -> usize {
    let mut most = 0;
    loop {
        let (world, client, driver) = start(version);
        if operation.online {
            world.block_on(client.connected()).expect("it connects");
        }
        let polls = Rc::new(Cell::new(0));
        let doomed = Doomed {
            inner: Some((operation.begin)(&client)),
            left: most,
            polls: Rc::clone(&polls),
        };
        world.block_on(world.spawn(doomed));
        world.advance(Duration::from_secs(2));
        let told = format!("{}, dropped after {most} polls", operation.name);
        let statistics = client.statistics();
        assert_eq!(statistics.waits, 0, "{told}");
        assert_eq!(
            (statistics.unfinished, statistics.pending),
            (0, 0),
            "{told}"
        );
        (operation.check)(&world, &client);
        // Everything goes on.
        if !driver.is_finished() {
            let after = client.publish("after", "x", Qos::ExactlyOnce, Wait::Ack);
            world.block_on(after).expect(&told);
            world.block_on(client.disconnect()).expect(&told);
        }
        world.block_on(driver).expect(&told);
        world.broker(|broker, _| assert!(broker.violations().is_empty(), "{told}"));
        if polls.get() < most {
            return most;
        }
        most += 1;
    }
}

fn times(world: &World, topic: &str) -> usize {
    world.broker(|broker, _| {
        let messages = broker.messages().iter();
        messages.filter(|it| it.topic() == topic).count()
    })
}

fn subscribed(world: &World) -> Vec<String> {
    world.broker(|broker, _| {
        let all = broker.subscriptions("c");
        all.into_iter().map(|(filter, _)| filter.into()).collect()
    })
}

fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for online in [false, true] {
        for wait in WAITS {
            for qos in QOS {
                all.push(operation(
                    format!("publish at {qos}, {wait:?}, {online}"),
                    online,
                    move |client| client.publish("t", "x", qos, wait),
                    |world, _| assert_eq!(times(world, "t"), 1),
                ));
                all.push(operation(
                    format!("publish_message at {qos}, {wait:?}, {online}"),
                    online,
                    move |client| client.publish_message(Message::new("t", "x").qos(qos), wait),
                    |world, _| assert_eq!(times(world, "t"), 1),
                ));
            }
            // The stream is given up, before its future has ended or behind it.
            all.push(operation(
                format!("subscribe, {wait:?}, {online}"),
                online,
                move |client| client.subscribe("f", Qos::AtLeastOnce, wait),
                |world, _| assert_eq!(subscribed(world), [""; 0]),
            ));
            all.push(operation(
                format!("subscribe_inline, {wait:?}, {online}"),
                online,
                move |client| {
                    let filters = Filters::new("f", Qos::AtLeastOnce);
                    client.subscribe_inline(filters, |_| {}, wait)
                },
                |world, _| assert_eq!(subscribed(world), [""; 0]),
            ));
            all.push(operation(
                format!("unsubscribe, {wait:?}, {online}"),
                online,
                move |client| client.unsubscribe("f", wait),
                |_, client| assert!(client.is_connected()),
            ));
        }
        all.push(operation(
            format!("connected, {online}"),
            online,
            Client::connected,
            |_, client| assert!(client.is_connected()),
        ));
        all.push(operation(
            format!("ready, {online}"),
            online,
            Client::ready,
            |_, client| assert!(client.is_connected()),
        ));
    }
    all.push(operation("ping", true, Client::ping, |_, client| {
        assert!(client.is_connected());
    }));
    all.push(operation(
        "disconnect",
        true,
        Client::disconnect,
        |world, client| {
            assert!(!client.is_connected());
            world.broker(|broker, _| assert!(!broker.is_connected("c")));
        },
    ));
    all
}

#[test]
fn a_future_that_is_dropped_at_any_await_leaves_nothing_behind() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        let polls: usize = operations()
            .iter()
            .map(|operation| check(version, operation))
            .sum();
        assert!(polls > 70, "{polls} places");
    }
}

#[test]
fn a_next_that_is_dropped_at_any_await_loses_no_message() {
    for most in 0..4 {
        let (world, client, _driver) = start(Version::V5_0);
        let subscribing = client.subscribe("t", Qos::ExactlyOnce, Wait::Ack);
        let stream = world.block_on(subscribing).expect("granted");
        let stream = Rc::new(RefCell::new(stream));
        let got = Rc::new(RefCell::new(Vec::new()));
        let publish = |payload: &str| {
            let message = Message::new("t", payload).qos(Qos::ExactlyOnce);
            world.broker(|broker, now| broker.publish(now, &message));
        };
        publish("one");
        let (reading, into) = (Rc::clone(&stream), Rc::clone(&got));
        let next = async move {
            for _ in 0..2 {
                let message = std::future::poll_fn(|cx| {
                    let mut stream = reading.borrow_mut();
                    std::pin::pin!(stream.next()).poll(cx)
                });
                let message = message.await.expect("the stream goes on");
                into.borrow_mut().push(message.text().map(str::to_owned));
            }
        };
        let task = world.spawn(Doomed {
            inner: Some(Box::pin(next)),
            left: most,
            polls: Rc::default(),
        });
        world.run_until_idle();
        publish("two");
        world.run_until_idle();
        drop(task);
        let rest = std::iter::from_fn(|| stream.borrow_mut().try_next());
        got.borrow_mut()
            .extend(rest.map(|message| message.text().map(str::to_owned)));
        let all: Vec<_> = ["one", "two"]
            .iter()
            .map(|it| Some((*it).to_owned()))
            .collect();
        assert_eq!(*got.borrow(), all, "dropped after {most} polls");
    }
}

/// Which of the waits ended well.
type Ends = Rc<RefCell<Vec<bool>>>;

fn note<T: 'static>(
    world: &World,
    ends: &Ends,
    wait: impl Future<Output = coracle::Result<T>> + 'static,
) -> smol::Task<()> {
    let ends = Rc::clone(ends);
    world.spawn(async move {
        let outcome = wait.await;
        ends.borrow_mut().push(outcome.is_ok());
    })
}

#[test]
fn a_driver_that_is_dropped_at_any_await_ends_every_wait_and_every_stream() {
    let mut most = 0;
    loop {
        let world = World::new(BrokerOptions::new());
        let network = world.network();
        network.read_chunk(1);
        network.send_buffer(1);
        let options = Options::new("mqtt://broker", "c")
            .expect("the URL is well-formed")
            .connector(network)
            .clock(world.clock())
            .seed(1);
        let (client, driver) = Client::new(options);
        let mut waits = Vec::new();
        let ends: Ends = Rc::default();
        for wait in WAITS {
            for qos in QOS {
                waits.push(note(&world, &ends, client.publish("t", "x", qos, wait)));
            }
            waits.push(note(&world, &ends, client.unsubscribe("g", wait)));
        }
        waits.push(note(&world, &ends, client.connected()));
        let stream = client.subscribe("f", Qos::AtLeastOnce, Wait::None);
        let mut stream: Subscription = world.block_on(stream).expect("at once");
        let polls = Rc::new(Cell::new(0));
        let driver = world.spawn(Doomed {
            inner: Some(Box::pin(async move { drop(driver.run().await) })),
            left: most,
            polls: Rc::clone(&polls),
        });
        world.run_until_idle();
        let over = !driver.is_finished();
        drop(driver);
        world.run_until_idle();
        for wait in &waits {
            assert!(wait.is_finished(), "dropped after {most} polls");
        }
        assert!(world.block_on(stream.next()).is_none());
        let late = client.publish("t", "x", Qos::AtMostOnce, Wait::Sent);
        let error = world.block_on(late).expect_err("nobody is there any more");
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
        let statistics = client.statistics();
        assert_eq!((statistics.waits, statistics.unfinished), (0, 0));
        if over {
            // It had nothing more to do, and everything had gone well.
            assert!(ends.borrow().iter().all(|ended_well| *ended_well));
            assert!(most > 100, "only {most} polls");
            return;
        }
        most += 1;
    }
}
