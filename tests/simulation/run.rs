//! One run: a whole client in a world of its own, an application that does anything, a network and a
//! broker that do anything to it. What happens depends on the seed alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coracle::testkit::{Attempt, Cut, MemoryStore, Network, Peer, World};
use coracle::{
    Acknowledge, Client, ErrorKind, Event, Events, Filters, Message, Options, Properties, Qos,
    Reason, Sent, Session, Subscription, Version, Wait, WhenFull,
};
use fastrand::Rng;
use futures_lite::Stream;
use smol::Task;

use crate::broker::{Broker, Mood};
use crate::ledger::{Ledger, Mine, Told, number_of, payload_of};
use crate::observer::Observer;

/// Steps of one run. Longer runs found nothing that more runs did not.
const STEPS: usize = 140;

/// Seconds: longer than any delay, timeout and keep-alive together, and than all attempts that fail.
const PATIENCE: u32 = 1_500;

const SECOND: Duration = Duration::from_secs(1);
const TOPICS: [&str; 3] = ["t/a", "t/b/c", "telemetry/hall/temperature"];
const FILTERS: [&str; 5] = ["w/0", "w/1", "w/2", "w/+", "w/#"];
const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
const WAITS: [Wait; 3] = [Wait::None, Wait::Sent, Wait::Ack];
const POLICIES: [WhenFull; 3] = [WhenFull::Fail, WhenFull::DropOldest, WhenFull::DropNewest];

/// A subscription that comes and goes.
struct Handle {
    filters: BTreeSet<&'static str>,
    /// As long as it is subscribed.
    live: Rc<RefCell<Live>>,
    task: Option<Task<()>>,
    qos: Qos,
    seen: Seen,
    by_hand: bool,
    /// Received by hand and not answered yet.
    held: Vec<Message>,
}

enum Live {
    Asked,
    Open(Subscription),
    Gone,
}

/// What one stream has yielded.
#[derive(Debug, Default)]
struct Seen {
    times: BTreeMap<u32, u32>,
    first: Vec<u32>,
}

impl Seen {
    fn note(&mut self, number: u32) {
        let times = self.times.entry(number).or_default();
        *times += 1;
        if *times == 1 {
            self.first.push(number);
        }
    }
}

/// The connection that the test has the other end of.
struct Conn {
    peer: Peer,
    /// Bytes of the client on their way.
    wire: VecDeque<u8>,
    /// Bytes that clients had read before.
    base: usize,
    air: Air,
}

/// Whether the test sees what the client writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Flows,
    Stalls,
}

/// Whether anything arrives on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Air {
    Clear,
    /// Nothing, in either direction, and nobody is told. The test still sees what the client writes.
    Silent,
}

/// How the application leaves in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Disconnect,
    DropHandles,
    DropDriver,
}

pub(crate) struct Run {
    world: World,
    network: Network,
    store: Option<MemoryStore>,
    random: Rng,
    client: Option<Client>,
    driver: Option<Task<coracle::Result<()>>>,
    events: Events,
    broker: Broker,
    observer: Observer,
    ledger: Rc<RefCell<Ledger>>,
    conn: Option<Conn>,
    /// Bytes of the client that were seen.
    seen_bytes: usize,
    drain: Drain,
    /// Calls that were told that their message was sent, while nobody could look.
    unproved: Vec<u32>,
    steady: Option<Subscription>,
    steady_seen: Seen,
    handles: Vec<Handle>,
    waits: Vec<(Option<u32>, Task<()>)>,
    next: u32,
    queue_bytes: usize,
    when_full: WhenFull,
    when_full_qos0: WhenFull,
    republish: bool,
    keep_qos0: bool,
    keep_alive: bool,
    reconnects: u32,
    /// TRACE is set: it tells what happens.
    talks: bool,
    /// A digest of all that left the client, to compare two runs.
    pub(crate) digest: u64,
}

/// Looks once whether a future has ended.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let version = [Version::V5_0, Version::V3_1_1, Version::V3_1][random.usize(..3)];
        let world = World::with_peers();
        let network = world.network();
        let window = random.u16(1..20);
        let queue_bytes = [200, 600, 3000, 1 << 20][random.usize(..4)];
        let republish = random.u8(..6) == 0;
        let keep_qos0 = random.u8(..4) > 0;
        let keep_alive = [0, 5, 30, 60][random.usize(..4)];
        // Of another source, so that a seed of before plays as before unless something is dropped.
        let mut dice = Rng::with_seed(!seed);
        let when_full = POLICIES[dice.usize(..POLICIES.len())];
        let when_full_qos0 = POLICIES[dice.usize(..POLICIES.len())];
        let session = match random.u8(..8) {
            0 => Session::None,
            1 => Session::Resume,
            _ => Session::Fresh,
        };
        let options = Options::new("mqtt://broker", "simulated")
            .expect("the URL is well-formed")
            .connector(network.clone())
            .clock(world.clock())
            .seed(seed)
            .version(version)
            .session(session)
            .window(window)
            .receive_maximum(random.u16(1..12))
            .queue_bytes(queue_bytes)
            .when_full(when_full)
            .when_full_qos0(when_full_qos0)
            .stream_bytes([300, 1 << 20][random.usize(..2)])
            .keep_qos0_offline(keep_qos0)
            .republish_after_session_loss(republish)
            .keep_alive(Duration::from_secs(keep_alive))
            .ping_timeout(Duration::from_secs(random.u64(2..10)))
            .take_timeout(Duration::from_secs(random.u64(1..20)))
            .wait_timeout(Duration::from_secs(random.u64(5..200)))
            .retry_delays(SECOND, Duration::from_secs(random.u64(1..30)));
        // In every fourth world there is a store, and half of those take their time. What must hold is the same.
        let store = (session != Session::None && seed.is_multiple_of(4)).then(MemoryStore::new);
        let options = match &store {
            Some(store) => options.store(store.clone()),
            None => options,
        };
        if let Some(store) = store.as_ref().filter(|_| seed.is_multiple_of(8)) {
            store.hold();
        }
        let (client, driver) = Client::new(options);
        let events = client.events();
        let acknowledge = [Acknowledge::OnTake, Acknowledge::OnReceipt][random.usize(..2)];
        let filters = Filters::new("in/#", Qos::ExactlyOnce)
            .stream_bytes(1 << 20)
            .acknowledge(acknowledge);
        let steady = now(client.subscribe_many(filters, Wait::None));
        let driver = world.spawn(driver.run());
        let broker = Broker::new(version, &mut random);
        Self {
            network,
            store,
            client: Some(client),
            driver: Some(driver),
            events,
            broker,
            observer: Observer::new(version, window.into(), republish),
            ledger: Rc::new(RefCell::new(Ledger::new())),
            conn: None,
            seen_bytes: 0,
            drain: Drain::Flows,
            unproved: Vec::new(),
            steady: Some(steady.expect("at once").expect("a filter")),
            steady_seen: Seen::default(),
            handles: Vec::new(),
            waits: Vec::new(),
            next: 0,
            queue_bytes,
            when_full,
            when_full_qos0,
            republish,
            keep_qos0,
            keep_alive: keep_alive > 0,
            reconnects: 0,
            talks: std::env::var_os("TRACE").is_some(),
            digest: 0xcbf2_9ce4_8422_2325,
            random,
            world,
        }
    }

    /// The whole run.
    pub(crate) fn play(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.look();
        }
        if let Some(store) = &self.store {
            store.release();
        }
        // Most runs come to rest before they end; some end in the middle.
        let settled = self.random.u8(..6) > 0;
        if settled {
            self.settle();
            self.judge();
        }
        self.leave(settled);
    }

    // The schedule.

    fn step(&mut self) {
        if let Some(store) = &self.store
            && self.random.u8(..3) == 0
        {
            store.commit();
        }
        let dice = self.random.u8(..100);
        if self.talks {
            let what = self.client.as_ref().map(Client::statistics);
            let left = self.network.bytes_sent().wrapping_sub(self.seen_bytes);
            eprintln!("step {dice}, {left} unseen, {what:?}");
        }
        match dice {
            0..24 => self.publish(),
            24..36 => self.flow_to_broker(),
            36..50 => self.flow_to_client(),
            50..56 => self.broker.publish(&mut self.random),
            56..63 => self.take(),
            63..67 => self.subscribe(),
            67..69 => self.drop_handle(),
            69..71 => self.unsubscribe(),
            71..74 => self.drop_wait(),
            74..79 => self.pass(),
            79..84 => self.surprise(),
            84..89 => self.weather(),
            89..91 => self.attempts(),
            91 => self.call(),
            92..96 => self.cut(),
            _ => self.world.run_until_idle(),
        }
    }

    fn publish(&mut self) {
        let client = self.client.as_ref().expect("until it leaves");
        let qos = QOS[self.random.usize(..3)];
        let wait = WAITS[self.random.usize(..3)];
        let topic = TOPICS[self.random.usize(..3)];
        let size = match self.random.u8(..80) {
            0..70 => self.random.usize(8..40),
            70..79 => self.random.usize(100..500),
            // Above 64 KiB a payload is not copied into the out buffer.
            _ => 70_000,
        };
        let retain = self.random.u8(..20) == 0;
        let expires = self.random.u8(..20) == 0;
        let timeout = (self.random.u8(..5) == 0).then(|| self.random.u64(1..20));
        let number = self.next;
        self.next += 1;
        let had_room = matches!(now(client.ready()), Some(Ok(())));
        let mut message = Message::new(topic, payload_of(number, size))
            .qos(qos)
            .retain(retain);
        if expires {
            message = message.expiry(Duration::from_secs(self.random.u64(1..30)));
        }
        self.ledger.borrow_mut().mine.insert(
            number,
            Mine {
                qos,
                wait,
                topic,
                retain,
                expires,
                size: size + topic.len() + 20,
                had_room,
                told: Told::Waiting,
                unpublished: false,
                left: false,
                written: 0,
                taken: 0,
                refused: None,
                acknowledged: false,
                received: false,
                barred: None,
                superseded: false,
            },
        );
        let mut publishing = client.publish_message(message, wait);
        if let Some(seconds) = timeout {
            publishing = publishing.timeout(Duration::from_secs(seconds));
        }
        let ledger = Rc::clone(&self.ledger);
        let task = self.world.spawn(async move {
            let outcome = publishing.await;
            let outcome = outcome
                .map(|published| published.reason())
                .map_err(coracle::Error::from);
            ledger.borrow_mut().end(number, outcome);
        });
        self.waits.push((Some(number), task));
        if self.random.bool() {
            self.world.run_until_idle();
        }
    }

    fn drop_wait(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let nth = self.random.usize(..self.waits.len());
        let (number, task) = self.waits.swap_remove(nth);
        let finished = task.is_finished();
        drop(task);
        // The executor drops the future when it runs next.
        self.world.run_until_idle();
        if let Some(number) = number
            && !finished
        {
            let mut ledger = self.ledger.borrow_mut();
            let mine = ledger.of(number);
            if matches!(mine.told, Told::Waiting) {
                mine.told = Told::Dropped;
            }
        }
    }

    fn subscribe(&mut self) {
        let client = self.client.as_ref().expect("until it leaves");
        let count = self.random.usize(1..3);
        let qos = QOS[self.random.usize(..3)];
        let filters: BTreeSet<_> = (0..count)
            .map(|_| FILTERS[self.random.usize(..FILTERS.len())])
            .collect();
        let mut wanted: Option<Filters> = None;
        for filter in &filters {
            wanted = Some(match wanted {
                None => Filters::new(*filter, qos),
                Some(others) => others.and(*filter, qos),
            });
        }
        let by_hand = self.random.u8(..4) == 0;
        let acknowledge = if by_hand {
            Acknowledge::ByHand
        } else {
            Acknowledge::OnTake
        };
        let wanted = wanted.expect("one or more").acknowledge(acknowledge);
        let wait = WAITS[self.random.usize(..3)];
        if self.talks {
            eprintln!("  subscribe {filters:?} {qos:?} {wait:?}, by hand {by_hand}");
        }
        let live = Rc::new(RefCell::new(Live::Asked));
        let end = Rc::clone(&live);
        let subscribing = if !by_hand && self.random.u8(..5) == 0 {
            let other = client.clone();
            // A handler may call the client.
            let handler = move |incoming: &coracle::Incoming<'_>| {
                assert!(incoming.topic().starts_with("w/"));
                let _ = (other.credit(), other.is_connected());
            };
            client.subscribe_inline(wanted, handler, wait)
        } else {
            client.subscribe_many(wanted, wait)
        };
        let task = self.world.spawn(async move {
            let outcome = subscribing.await;
            let is_gone = matches!(*end.borrow(), Live::Gone);
            let next = match outcome {
                Ok(subscription) if !is_gone => Live::Open(subscription),
                // Dropped after the borrow.
                Ok(_) | Err(_) => Live::Gone,
            };
            let old = end.replace(next);
            drop(old);
        });
        self.handles.push(Handle {
            filters,
            live,
            task: Some(task),
            qos,
            seen: Seen::default(),
            by_hand,
            held: Vec::new(),
        });
    }

    fn drop_handle(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let nth = self.random.usize(..self.handles.len());
        let mut handle = self.handles.swap_remove(nth);
        if self.talks {
            eprintln!("  drop {:?}", handle.filters);
        }
        for message in handle.held.drain(..) {
            message.acknowledge().expect("once");
        }
        handle.live.replace(Live::Gone);
        self.world.run_until_idle();
    }

    fn unsubscribe(&mut self) {
        let client = self.client.as_ref().expect("until it leaves");
        let filter = FILTERS[self.random.usize(..FILTERS.len())];
        if self.talks {
            eprintln!("  unsubscribe {filter}");
        }
        for handle in &mut self.handles {
            handle.filters.remove(filter);
        }
        let wait = WAITS[self.random.usize(..3)];
        let unsubscribing = client.unsubscribe(filter, wait);
        let task = async move { drop(unsubscribing.await) };
        self.waits.push((None, self.world.spawn(task)));
    }

    /// Takes messages from the streams and acknowledges some of those received by hand.
    fn take(&mut self) {
        let most = self.random.usize(1..6);
        for _ in 0..most {
            if let Some(message) = self.steady.as_mut().and_then(Subscription::try_next) {
                let number = number_of(message.payload());
                assert_eq!(message.topic(), self.broker.theirs[&number].topic);
                self.steady_seen.note(number);
            }
        }
        for handle in &mut self.handles {
            let mut live = handle.live.borrow_mut();
            if let Live::Open(subscription) = &mut *live
                && let Some(message) = subscription.try_next()
            {
                let number = number_of(message.payload());
                let theirs = self.broker.theirs[&number];
                assert_eq!(message.topic(), theirs.topic);
                handle.seen.note(number);
                if handle.by_hand && message.quality_of_service() != Qos::AtMostOnce {
                    handle.held.push(message);
                }
            }
            drop(live);
            if !handle.held.is_empty() && self.random.bool() {
                let nth = self.random.usize(..handle.held.len());
                let message = handle.held.swap_remove(nth);
                message.acknowledge().expect("once");
            }
        }
    }

    fn pass(&mut self) {
        let most = if self.random.u8(..4) == 0 {
            40_000
        } else {
            3_000
        };
        let span = Duration::from_millis(self.random.u64(..most));
        self.world.advance(span);
    }

    fn surprise(&mut self) {
        let ledger = self.ledger.borrow();
        let observer = &self.observer;
        self.broker
            .surprise(&mut self.random, |qos| observer.used(qos, &ledger));
    }

    fn weather(&mut self) {
        match self.random.u8(..9) {
            0 => self.network.send_buffer(self.random.usize(1..60)),
            1 => self.network.send_buffer(usize::MAX),
            2 => self.network.read_chunk(self.random.usize(1..9)),
            3 => self.network.read_chunk(usize::MAX),
            4 => {
                self.network.stall();
                self.drain = Drain::Stalls;
            }
            5 | 6 => {
                self.unstall();
                self.network.release_flush();
            }
            7 => self.network.hold_flush(),
            _ => {
                let cut = [Cut::Close, Cut::Reset][self.random.usize(..2)];
                if self.random.bool() {
                    // After a reset the bytes would not be seen.
                    self.network
                        .cut_after_sent(self.random.usize(..80), Cut::Close);
                } else {
                    self.network
                        .cut_after_received(self.random.usize(..60), cut);
                }
                if cut == Cut::Close {
                    self.ledger.borrow_mut().orderly += 1;
                }
            }
        }
    }

    fn unstall(&mut self) {
        self.network.unstall();
        self.drain = Drain::Flows;
    }

    fn attempts(&mut self) {
        let attempt = match self.random.u8(..3) {
            0 => Attempt::Hang,
            1 => Attempt::Refuse(io::ErrorKind::ConnectionRefused),
            _ => Attempt::Refuse(io::ErrorKind::ConnectionReset),
        };
        self.network.next_attempts(self.random.usize(1..3), attempt);
    }

    fn call(&mut self) {
        let client = self.client.as_ref().expect("until it leaves");
        let waiting = match self.random.u8(..4) {
            0 => {
                self.reconnects += 1;
                client.reconnect().expect("it is open");
                self.read_marks();
                if self.conn.is_some() {
                    self.observer.leaves();
                }
                return;
            }
            1 => client.ping(),
            2 => client.connected(),
            _ => client.ready(),
        };
        let waiting = waiting.timeout(Duration::from_secs(self.random.u64(1..60)));
        let task = async move { drop(waiting.await) };
        self.waits.push((None, self.world.spawn(task)));
    }

    fn cut(&mut self) {
        if self.conn.is_none() {
            return;
        }
        self.flow_to_broker();
        self.flow_to_client();
        match self.random.u8(..3) {
            0 => self.end(Cut::Close),
            1 => self.end(Cut::Reset),
            _ => self.fall_silent(),
        }
        if self.random.u8(..3) == 0 {
            self.broker.forget();
        }
    }

    // The network.

    fn accept(&mut self) {
        self.world.run_until_idle();
        if self.conn.is_some() || self.network.connections() == 0 {
            return;
        }
        self.conn = Some(Conn {
            peer: self.world.peer(),
            wire: VecDeque::new(),
            base: self.network.bytes_received(),
            air: Air::Clear,
        });
        self.broker.opened();
        self.observer.opened();
    }

    /// Sees what the client has written.
    fn observe(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        let bytes = conn.peer.received();
        self.seen_bytes += bytes.len();
        for byte in &bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        conn.wire.extend(&bytes);
        if self.talks && !bytes.is_empty() {
            eprintln!("  client: {}", bytes.escape_ascii());
        }
        self.observer.wrote(&bytes, &mut self.ledger.borrow_mut());
    }

    fn flow_to_broker(&mut self) {
        self.observe();
        let waiting = self.conn.as_ref().map_or(0, |conn| conn.wire.len());
        let count = if self.random.bool() {
            waiting
        } else {
            self.random.usize(..=waiting)
        };
        self.deliver_to_broker(count);
    }

    fn deliver_to_broker(&mut self, count: usize) {
        let Some(conn) = &mut self.conn else { return };
        let bytes: Vec<u8> = conn.wire.drain(..count).collect();
        if conn.air == Air::Silent {
            return;
        }
        self.broker
            .hear(&bytes, &mut self.random, &mut self.ledger.borrow_mut());
    }

    fn flow_to_client(&mut self) {
        self.observe();
        let waiting = self.broker.output();
        let count = if self.random.bool() {
            waiting
        } else {
            self.random.usize(..=waiting)
        };
        self.deliver_to_client(count);
    }

    fn deliver_to_client(&mut self, count: usize) {
        let Some(conn) = &mut self.conn else { return };
        if conn.air == Air::Silent {
            return;
        }
        // After its DISCONNECT the client reads no more.
        if !self.observer.has_left() {
            let bytes = self.broker.take_output(count);
            if self.talks && !bytes.is_empty() {
                eprintln!("  broker: {}", bytes.escape_ascii());
            }
            conn.peer.send(&bytes);
            self.read_marks();
        }
        if self.broker.is_over() && (self.broker.output() == 0 || self.observer.has_left()) {
            self.observe();
            let cut = [Cut::Close, Cut::Reset][self.random.usize(..2)];
            self.end(cut);
        }
    }

    fn read_marks(&mut self) {
        let Some(conn) = &self.conn else { return };
        let read = self.network.bytes_received() - conn.base;
        let mut ledger = self.ledger.borrow_mut();
        for mark in self.broker.marks_until(read as u64) {
            self.observer.read(mark, &mut ledger);
        }
    }

    /// The connection breaks, or is found broken.
    fn end(&mut self, cut: Cut) {
        self.unstall();
        self.world.run_until_idle();
        self.read_marks();
        self.observe();
        let Some(mut conn) = self.conn.take() else {
            return;
        };
        if self.talks {
            eprintln!("  end: {cut:?}");
        }
        match cut {
            Cut::Close => conn.peer.close(),
            Cut::Reset => conn.peer.reset(),
            _ => unreachable!("holes are made otherwise"),
        }
        if cut == Cut::Close {
            self.ledger.borrow_mut().orderly += 1;
        }
        let rest = conn.peer.received();
        assert!(rest.is_empty(), "everything was observed");
        drop(conn);
        self.broker.ended(self.observer.was_greeted());
        let mut ledger = self.ledger.borrow_mut();
        self.observer.ended(&mut ledger);
        ledger.blind |= self.seen_bytes != self.network.bytes_sent();
        self.seen_bytes = self.network.bytes_sent();
    }

    /// The connection becomes a hole: the broker gives it up, the client has to find out.
    fn fall_silent(&mut self) {
        self.read_marks();
        self.observe();
        let Some(conn) = &mut self.conn else { return };
        conn.air = Air::Silent;
        conn.wire.clear();
        self.broker.ended(self.observer.was_greeted());
    }

    // What must hold all the time.

    fn look(&mut self) {
        self.world.run_until_idle();
        self.read_marks();
        self.observe();
        if self.conn.as_ref().is_some_and(|conn| conn.peer.is_closed()) {
            // What was on its way may still arrive.
            self.flow_to_broker();
            self.end(Cut::Close);
        }
        self.accept();
        self.observe();
        self.events();
        self.outcomes();
        if let Some(client) = &self.client {
            let statistics = client.statistics();
            // A finished exchange counts 64 bytes at least, and one message may go beyond.
            let most = self.queue_bytes.div_ceil(64);
            assert!(statistics.unfinished <= most, "{statistics:?}, {most}");
            assert!(statistics.pending <= most, "{statistics:?}, {most}");
        }
        self.waits.retain(|(_, task)| !task.is_finished());
    }

    fn events(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = Pin::new(&mut self.events).poll_next(&mut cx) {
            if self.talks {
                eprintln!("  event: {event:?}");
            }
            if let Event::Unpublished {
                message: Some(message),
                ..
            } = &event
            {
                let number = number_of(message.payload());
                self.ledger.borrow_mut().of(number).unpublished = true;
            }
        }
    }

    /// Checks what calls were told, at the time.
    fn outcomes(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        let ledger = &mut *ledger;
        if self.drain == Drain::Flows {
            for number in self.unproved.drain(..) {
                let mine = &ledger.mine[&number];
                assert!(
                    mine.written > 0 || ledger.blind,
                    "{number} was not sent, its wait says so: {mine:?}"
                );
            }
        }
        for number in std::mem::take(&mut ledger.fresh) {
            let known = self.observer.known;
            let mine = &ledger.mine[&number];
            let Told::Done(outcome) = &mine.told else {
                panic!("{number} has ended");
            };
            if self.talks {
                eprintln!("  {number} {:?} {:?}: {outcome:?}", mine.qos, mine.wait);
            }
            match (outcome, mine.wait, mine.qos) {
                (Ok(_), Wait::None, _) => {}
                (Ok(_), Wait::Sent, _) | (Ok(_), Wait::Ack, Qos::AtMostOnce) => {
                    self.unproved.push(number);
                }
                (Ok(_), Wait::Ack, Qos::AtLeastOnce | Qos::ExactlyOnce) => {
                    assert!(
                        mine.acknowledged && mine.taken > 0,
                        "{number} was not acknowledged, its wait says so: {mine:?}"
                    );
                }
                (Err(error), wait, qos) => {
                    let fits = match error.kind() {
                        ErrorKind::QueueFull => {
                            wait == Wait::None
                                && !mine.had_room
                                && self.policy(qos) == WhenFull::Fail
                        }
                        ErrorKind::Dropped(policy) => {
                            wait != Wait::None
                                && error.sent() == Sent::No
                                && match policy {
                                    WhenFull::DropNewest => {
                                        !mine.had_room && self.policy(qos) != WhenFull::Fail
                                    }
                                    WhenFull::DropOldest => self.policy(qos) == *policy,
                                    _ => false,
                                }
                        }
                        ErrorKind::LinkLost => match qos {
                            Qos::AtMostOnce => wait != Wait::None || !self.keep_qos0,
                            // The broker may have closed over it again and again.
                            Qos::AtLeastOnce | Qos::ExactlyOnce => ledger.orderly >= 3,
                        },
                        ErrorKind::SessionLost { received } => {
                            qos == Qos::ExactlyOnce
                                && ledger.told_losses > 0
                                && (mine.left || ledger.blind || ledger.torn > 0)
                                && *received == mine.received
                                && (*received || !self.republish)
                        }
                        ErrorKind::Refused { reason, .. } => {
                            mine.refused == Some(*reason) && error.sent() == Sent::Yes
                        }
                        ErrorKind::TimedOut(_) => wait != Wait::None,
                        ErrorKind::Expired => mine.expires,
                        ErrorKind::TooLarge { limit, .. } => *limit == known.packet_size,
                        ErrorKind::NotOffered(_) => {
                            mine.qos > known.qos || (mine.retain && !known.retain)
                        }
                        ErrorKind::Closed => self.client.is_none(),
                        _ => false,
                    };
                    assert!(fits, "{number}: {error}: {mine:?}, {known:?}");
                    if error.sent() == Sent::Yes {
                        assert!(
                            mine.taken > 0 || mine.refused.is_some(),
                            "{number} has not arrived: {error}"
                        );
                    }
                }
            }
        }
    }

    // The end.

    /// Fair weather and a fair broker: everything has to come to its end.
    fn settle(&mut self) {
        self.broker.mood = Mood::Fair;
        self.network.send_buffer(usize::MAX);
        self.network.read_chunk(usize::MAX);
        self.unstall();
        self.network.release_flush();
        self.network.all_attempts(Attempt::Accept);
        // What the broker kept back comes after a reconnect only. That a link is silent the client has to
        // find out itself, if it has a keep-alive.
        let silent = |conn: &Conn| conn.air == Air::Silent;
        if !self.keep_alive || !self.conn.as_ref().is_some_and(silent) {
            self.end(Cut::Reset);
        }
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            for _ in 0..50 {
                self.look();
                let wire = self.conn.as_ref().map_or(0, |conn| conn.wire.len());
                let output = self.broker.output();
                if wire + output == 0 && self.conn.is_some() {
                    break;
                }
                self.deliver_to_broker(wire);
                let output = self.broker.output();
                self.deliver_to_client(output);
                self.take();
                if self.conn.is_none() {
                    break;
                }
            }
            let client = self.client.as_ref().expect("until it leaves");
            let statistics = client.statistics();
            let held: usize = self.handles.iter().map(|handle| handle.held.len()).sum();
            let rest = client.is_connected()
                && statistics.unfinished == 0
                && statistics.pending == 0
                && held == 0
                && self.waits.is_empty()
                && self.steady.as_ref().is_some_and(Subscription::is_empty)
                && self.broker.is_quiet();
            quiet = if rest { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
            for _ in 0..10 {
                self.take();
            }
            self.world.advance(SECOND);
        }
        let waits: Vec<_> = self.waits.iter().map(|(number, _)| number).collect();
        panic!(
            "it does not come to rest: {:?}, {waits:?}, {:?}",
            self.client.as_ref().map(Client::statistics),
            self.broker
        );
    }

    fn judge(&self) {
        self.judge_mine();
        self.judge_theirs();
        self.judge_filters();
    }

    fn judge_mine(&self) {
        let ledger = self.ledger.borrow();
        let mut dropped = 0;
        assert!(ledger.first_zero.is_sorted(), "{:?}", ledger.first_zero);
        // A refusal that the client never saw is followed by a replay, which then comes late.
        let in_order = ledger
            .first
            .iter()
            .filter(|number| ledger.mine[number].refused.is_none());
        assert!(in_order.is_sorted(), "{:?}", ledger.first);
        for (number, mine) in &ledger.mine {
            assert!(!matches!(mine.told, Told::Waiting), "{number} waits");
            let mut excused = self.excused(&ledger, mine);
            // Dropped by the policy: nobody is told if nobody waits, but it is counted.
            if !excused
                && mine.taken == 0
                && !mine.left
                && self.policy(mine.qos) != WhenFull::Fail
                && (mine.wait == Wait::None || mine.waits_no_more())
            {
                excused = true;
                dropped += u64::from(mine.qos != Qos::AtMostOnce);
            }
            let lost = mine.taken == 0 && !excused;
            match mine.qos {
                Qos::AtMostOnce => assert!(mine.taken <= 1, "{number} came twice: {mine:?}"),
                Qos::AtLeastOnce => assert!(!lost, "{number} is lost: {mine:?}"),
                Qos::ExactlyOnce => {
                    assert!(!lost, "{number} is lost: {mine:?}");
                    let exact =
                        ledger.untold_losses == 0 && (ledger.told_losses == 0 || !self.republish);
                    assert!(mine.taken <= 1 || !exact, "{number} came twice: {mine:?}");
                }
            }
            if mine.superseded {
                let given_up = excused || mine.told_of_end();
                assert!(
                    given_up,
                    "the identifier of {number} was used twice: {mine:?}"
                );
            }
        }
        let statistics = self.client.as_ref().expect("until it leaves").statistics();
        let counted = statistics.dropped_oldest + statistics.dropped_newest;
        assert!(dropped <= counted, "{dropped} are missing: {statistics:?}");
        let drops = |qos| self.policy(qos) != WhenFull::Fail;
        assert!(counted == 0 || drops(Qos::AtMostOnce) || drops(Qos::AtLeastOnce));
        self.judge_unsent();
    }

    fn policy(&self, qos: Qos) -> WhenFull {
        match qos {
            Qos::AtMostOnce => self.when_full_qos0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.when_full,
        }
    }

    fn judge_unsent(&self) {
        for (number, mine) in &self.ledger.borrow().mine {
            if let Some(error) = mine.failure()
                && error.sent() == Sent::No
            {
                assert!(!mine.left, "{number} was sent: {error}: {mine:?}");
            }
        }
    }

    /// Whether there is a reason why the message need not have arrived.
    fn excused(&self, ledger: &Ledger, mine: &Mine) -> bool {
        let limited = mine.size > ledger.tightest.packet_size
            || mine.qos > ledger.tightest.qos
            || (mine.retain && !ledger.tightest.retain);
        let withdrawn = mine.wait != Wait::None && !mine.had_room;
        let lost = mine.qos == Qos::ExactlyOnce && ledger.told_losses > 0;
        let told = match mine.failure().map(coracle::Error::kind) {
            None => false,
            // Accepted all the same, unless it was in line.
            Some(ErrorKind::TimedOut(_)) => withdrawn,
            Some(_) => true,
        };
        let unseen = match mine.told {
            Told::Dropped => true,
            Told::Done(Err(_)) => true,
            // With these waits an event is all that is left.
            Told::Done(Ok(_)) => mine.wait != Wait::Ack,
            Told::Waiting => false,
        };
        told || mine.unpublished
            || mine.refused.is_some()
            || (unseen
                && (limited
                    || mine.expires
                    || lost
                    || ledger.orderly >= 3 && self.gave_up_silently(ledger)
                    || (withdrawn && matches!(mine.told, Told::Dropped))))
    }

    /// Whether the client may have given up a message that the broker closed over again and again.
    fn gave_up_silently(&self, ledger: &Ledger) -> bool {
        ledger.orderly >= 6
    }

    fn judge_theirs(&self) {
        let epoch = self.broker.epoch();
        for (number, sent) in &self.broker.theirs {
            let times = self.steady_seen.times.get(number).copied().unwrap_or(0);
            if sent.topic.starts_with("w/") {
                continue;
            }
            let kept = sent.epoch == epoch;
            match sent.qos {
                Qos::AtMostOnce => assert!(times <= 1, "{number} came twice"),
                Qos::AtLeastOnce => assert!(times >= 1 || !kept, "{number} is lost: {sent:?}"),
                Qos::ExactlyOnce => {
                    assert!(times <= 1, "{number} came {times} times: {sent:?}");
                    assert!(times == 1 || !kept, "{number} is lost: {sent:?}");
                }
            }
        }
        self.check_order(&self.steady_seen, Qos::AtLeastOnce);
        for handle in &self.handles {
            self.check_order(&handle.seen, Qos::ExactlyOnce);
            for (number, times) in &handle.seen.times {
                let qos = self.broker.theirs[number].qos;
                assert!(
                    *times == 1 || qos == Qos::AtLeastOnce,
                    "{number} came {times} times on one stream"
                );
            }
        }
    }

    /// First deliveries come in order: QoS 0, and the rest, of which a handle that came late may have missed
    /// the first delivery of QoS 1.
    fn check_order(&self, seen: &Seen, least: Qos) {
        let of = |number: &&u32| self.broker.theirs[number].qos;
        let zero = seen.first.iter().filter(|it| of(it) == Qos::AtMostOnce);
        let rest = seen.first.iter().filter(|it| of(it) >= least);
        assert!(zero.is_sorted() && rest.is_sorted(), "{:?}", seen.first);
    }

    /// The broker has the subscriptions that somebody holds.
    fn judge_filters(&self) {
        let filters = self.broker.filters();
        assert!(filters.contains_key("in/#"), "{filters:?}");
        for filter in FILTERS {
            if self.broker.refused.contains(filter) {
                continue;
            }
            let wanted = self
                .handles
                .iter()
                .filter(|handle| {
                    matches!(*handle.live.borrow(), Live::Open(_))
                        && handle.filters.contains(filter)
                })
                .map(|handle| handle.qos)
                .max();
            let has = filters.get(filter).copied();
            assert!(
                match (wanted, has) {
                    (None, None) => true,
                    (Some(wanted), Some(has)) => has >= wanted,
                    (Some(_), None) | (None, Some(_)) => false,
                },
                "{filter}: wanted {wanted:?}, the broker has {has:?}"
            );
        }
    }

    /// The client ends, and with it everything.
    fn leave(&mut self, settled: bool) {
        let leaving = [
            Leaving::Disconnect,
            Leaving::DropHandles,
            Leaving::DropDriver,
        ][self.random.usize(..3)];
        let client = self.client.take().expect("it has not left");
        let mut driver = self.driver.take();
        let mut said = None;
        match leaving {
            Leaving::Disconnect => {
                let disconnecting = if self.random.bool() {
                    client.disconnect()
                } else {
                    client.disconnect_with(Reason::SUCCESS, Properties::new())
                };
                said = Some(self.world.spawn(disconnecting));
            }
            Leaving::DropHandles => {
                self.steady = None;
                self.handles.clear();
            }
            Leaving::DropDriver => driver = None,
        }
        let statistics = client.statistics();
        drop(client);
        for _ in 0..PATIENCE {
            let over = driver.as_ref().is_none_or(Task::is_finished);
            self.world.run_until_idle();
            self.read_marks();
            self.observe();
            if over && self.waits.iter().all(|(_, task)| task.is_finished()) {
                break;
            }
            let wire = self.conn.as_ref().map_or(0, |conn| conn.wire.len());
            self.deliver_to_broker(wire);
            let output = self.broker.output();
            self.deliver_to_client(output);
            self.look();
            self.world.advance(SECOND);
        }
        self.observe();
        self.outcomes();
        for (number, task) in &self.waits {
            assert!(task.is_finished(), "{number:?} waits for ever, {leaving:?}");
        }
        for handle in &self.handles {
            let finished = handle.task.as_ref().is_none_or(Task::is_finished);
            assert!(finished, "a subscribe waits for ever, {leaving:?}");
        }
        if let Some(steady) = &mut self.steady {
            for _ in 0..statistics.received + 1 {
                match now(steady.next()) {
                    Some(None) => break,
                    Some(Some(_)) => {}
                    None => panic!("the stream goes on, {leaving:?}"),
                }
            }
        }
        if let Some(driver) = driver {
            let outcome = now(driver).expect("the driver has ended");
            outcome.expect("nobody told it to give up");
        }
        if let Some(said) = said {
            let outcome = now(said).expect("disconnect has ended");
            assert!(outcome.is_ok() || !settled, "{outcome:?}");
        }
        self.judge_unsent();
    }
}

impl Mine {
    /// Whether the application heard that the message was given up, or nobody was left to hear it.
    fn told_of_end(&self) -> bool {
        match &self.told {
            Told::Done(Ok(_)) => self.wait != Wait::Ack,
            Told::Done(Err(_)) | Told::Dropped => true,
            Told::Waiting => false,
        }
    }
}
