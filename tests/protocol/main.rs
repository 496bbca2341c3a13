//! Scripts against the rules: literal bytes in, literal bytes out, and a clock that only the script
//! moves. The modules have the stems of `src/protocol/`; `situations` follows the table of situations
//! and `random` plays long random schedules against a small model of a broker.

mod alias;
mod answers;
mod auth;
mod connect;
mod ping;
mod publish_in;
mod publish_out;
mod queues;
mod random;
mod records;
mod session;
mod situations;
mod store;
mod subscribe;
mod unsubscribe;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coracle::codec::subscribe::FilterOptions;
use coracle::protocol::record::Entry;
use coracle::protocol::{
    Accepted, Config, Credentials, Done, Effect, End, Identifier, Kept, Outgoing, Protocol,
    Receipt, Step, Subscription, Token, Wish,
};
use coracle::{
    Batch, Error, ErrorKind, Message, Properties, PropertyList, Qos, Reason, Record, Sent, Version,
    Wait,
};

/// Where every script's clock starts. An `Instant` can only be had from the system; from here on all
/// time is computed.
#[expect(
    clippy::disallowed_methods,
    reason = "the one door: std makes no instant from nothing"
)]
fn epoch() -> Instant {
    Instant::now()
}

/// PINGREQ and PINGRESP, the same in every version.
const PINGREQ: &[u8] = &[0xC0, 0];
const PINGRESP: &[u8] = &[0xD0, 0];

/// CONNACK without a session, for the older versions and for 5.0.
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const CONNACK_5: &[u8] = &[0x20, 3, 0, 0, 0];

/// CONNACK with a session.
const PRESENT: &[u8] = &[0x20, 2, 1, 0];
const PRESENT_5: &[u8] = &[0x20, 3, 1, 0, 0];

/// DISCONNECT without a reason.
const DISCONNECT: &[u8] = &[0xE0, 0];

/// Plays `script` with the input as it is and with every byte of it by itself; without a store, and with one
/// that has everything on disk at once, which must change nothing.
fn play(config: &Config, script: impl Fn(&mut Scene)) {
    play_with(&[None, Some(Disk::at_once())], config, script);
}

/// Without a store alone: what a store changes is the order between classes of packets, that an identifier is
/// given earlier, and that what stays in it may still be sent.
fn play_unstored(config: &Config, script: impl Fn(&mut Scene)) {
    play_with(&[None], config, script);
}

fn play_with(disks: &[Option<Disk>], config: &Config, script: impl Fn(&mut Scene)) {
    for disk in disks {
        for feed in [Feed::Whole, Feed::Bytewise] {
            let mut scene = Scene::new(config.clone(), feed);
            if let Some(disk) = disk {
                scene.boot(disk.clone());
            }
            script(&mut scene);
            scene.rest();
        }
    }
}

/// As [`play`], with the connection open and CONNECT out of sight.
fn play_online(config: &Config, script: impl Fn(&mut Scene)) {
    play(config, |scene| {
        scene.open();
        script(scene);
    });
}

fn play_online_unstored(config: &Config, script: impl Fn(&mut Scene)) {
    play_unstored(config, |scene| {
        scene.open();
        script(scene);
    });
}

/// The defaults for a client `c` of this version, whose broker surely holds nothing of it.
fn config(version: Version) -> Config {
    Config::new(version, "c")
}

/// With a Receive Maximum of our own, so that its rules are met.
fn v5() -> Config {
    Config {
        receive_maximum: 1024,
        ..config(Version::V5_0)
    }
}

fn v3() -> Config {
    config(Version::V3_1_1)
}

/// How the input is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Whole,
    Bytewise,
}

/// What a store has on disk.
#[derive(Debug, Clone, Default)]
struct Disk {
    records: BTreeMap<u64, Vec<u8>>,
    /// The batch that was handed over.
    under_way: Option<Batch>,
    /// Whether it is on disk at once, or when the script says so.
    at_once: bool,
}

impl Disk {
    /// An empty one, which is as fast as can be.
    fn at_once() -> Self {
        Self {
            at_once: true,
            ..Self::default()
        }
    }

    fn read(&self) -> Vec<Record> {
        let records = self.records.iter();
        records
            .map(|(key, value)| Record::new(*key, value.clone()))
            .collect()
    }

    /// Whether it says that the broker has the session.
    fn has_session(&self) -> bool {
        self.records
            .iter()
            .map(|(key, value)| Entry::read(&Record::new(*key, value.clone())))
            .any(|entry| matches!(entry, Ok(Entry::Session(identity)) if identity.at_broker))
    }

    /// The batch that was handed over is on disk. Returns whether there was one.
    fn commit(&mut self) -> bool {
        let Some(batch) = self.under_way.take() else {
            return false;
        };
        batch.apply_to(&mut self.records);
        true
    }
}

/// A message that arrived, and what it is owed.
struct Got {
    message: Message,
    receipt: Option<Receipt>,
    /// It is in the store until it is taken.
    kept: Option<Kept>,
}

/// A protocol with a driver that does what the contract on [`Protocol`] asks of it.
struct Scene {
    protocol: Protocol,
    disk: Option<Disk>,
    start: Instant,
    now: Instant,
    feed: Feed,
    /// Input that is not a whole packet yet.
    input: Vec<u8>,
    /// How many more bytes the transport takes.
    takes: usize,
    /// Whether it flushes what it took.
    flushes: bool,
    /// What it took and the script has not looked at.
    wire: Vec<u8>,
    /// Whether messages are left unread instead of being taken at once.
    hold: bool,
    /// How many get each message.
    takers: usize,
    got: VecDeque<Got>,
    effects: VecDeque<Effect>,
    next_token: Token,
    /// Waits by token: none while they go on. A wait that ends twice, or never began, fails the script.
    waits: BTreeMap<Token, Option<Result<Done, Error>>>,
}

impl Scene {
    fn new(config: Config, feed: Feed) -> Self {
        let now = epoch();
        Self {
            protocol: Protocol::new(config),
            disk: None,
            start: now,
            now,
            feed,
            input: Vec::new(),
            takes: usize::MAX,
            flushes: true,
            wire: Vec::new(),
            hold: false,
            takers: 1,
            got: VecDeque::new(),
            effects: VecDeque::new(),
            next_token: 100,
            waits: BTreeMap::new(),
        }
    }

    // The connection.

    /// Opens the transport, which sends CONNECT.
    fn connect(&mut self) {
        self.connect_as(&Credentials::default());
    }

    fn connect_as(&mut self, credentials: &Credentials) {
        self.input.clear();
        self.takes = usize::MAX;
        self.flushes = true;
        self.protocol
            .connect(self.now, credentials)
            .expect("these credentials can be sent");
        self.turn();
    }

    /// Connects and gets a CONNACK without a session; the bytes and effects of it are not kept.
    fn open(&mut self) {
        let version = self.protocol.config().version;
        self.open_with(if version == Version::V5_0 {
            CONNACK_5
        } else {
            CONNACK
        });
    }

    /// Connects and gets this CONNACK; CONNECT is not kept, but what follows it is.
    ///
    /// 3.1 wipes what an earlier process may have left with a connection of its own, at first.
    fn open_with(&mut self, connack: &[u8]) {
        self.connect();
        self.wire.clear();
        self.receive(connack);
        if matches!(self.effects.back(), Some(Effect::Again)) {
            self.sends(&[DISCONNECT]);
            self.effects.clear();
            self.cut();
            self.connect();
            self.wire.clear();
            self.receive(connack);
        }
        assert!(self.protocol.is_online(), "CONNACK opened the connection");
        self.effects.clear();
    }

    /// The network ends the connection.
    fn cut(&mut self) {
        self.end(End::Otherwise);
    }

    /// The broker ends it in order.
    fn closed_by_broker(&mut self) {
        self.end(End::ByBroker);
    }

    /// It breaks, as it does when a broker hangs up with bytes of ours unread.
    fn breaks(&mut self) {
        self.end(End::Broken(self.now));
    }

    fn end(&mut self, end: End) {
        self.protocol.disconnected(end);
        self.input.clear();
        self.turn();
    }

    /// The link is lost, and another one finds the session.
    fn reconnect_present(&mut self) {
        self.cut();
        self.wire.clear();
        let version = self.protocol.config().version;
        self.open_with(if version == Version::V5_0 {
            PRESENT_5
        } else {
            PRESENT
        });
    }

    /// The link is lost, and the broker does not have the session any more.
    fn reconnect_lost(&mut self) {
        self.cut();
        self.wire.clear();
        self.open();
    }

    // The driver.

    /// One turn: what may leave leaves, as far as the transport takes it.
    fn turn(&mut self) {
        self.protocol.pump(self.now);
        self.keep();
        while self.takes > 0 {
            let Some(chunk) = self.protocol.poll_chunk() else {
                break;
            };
            let count = chunk.as_bytes().len().min(self.takes);
            assert!(count > 0, "a chunk has something to write");
            self.wire.extend_from_slice(&chunk.as_bytes()[..count]);
            self.takes -= if self.takes == usize::MAX { 0 } else { count };
            self.protocol.handle_written(self.now, chunk, count);
            self.protocol.pump(self.now);
            self.keep();
        }
        if self.takes == 0
            && let Some(chunk) = self.protocol.poll_chunk()
        {
            // The transport says that it would block.
            self.protocol.handle_written(self.now, chunk, 0);
        }
        if self.flushes && self.protocol.needs_flush() {
            self.protocol.handle_flushed(self.now);
        }
        self.protocol.pump(self.now);
        self.keep();
        self.collect();
    }

    /// What was handed over is on disk. Returns whether there was anything.
    fn commit(&mut self) -> bool {
        let arrived = self.disk.as_mut().is_some_and(Disk::commit);
        if arrived {
            self.protocol.handle_committed();
        }
        arrived
    }

    /// Hands over what has gathered.
    fn keep(&mut self) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        while let Some(batch) = self.protocol.poll_batch() {
            assert!(disk.under_way.is_none(), "one batch at a time");
            disk.under_way = Some(batch);
            if !disk.at_once {
                return;
            }
            disk.commit();
            self.protocol.handle_committed();
            self.protocol.pump(self.now);
        }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.protocol.poll_effect() {
            if let Effect::Done(token, outcome) = effect {
                let wait = self.waits.get_mut(&token).expect("the wait was begun");
                assert!(wait.is_none(), "wait {token} ended twice: {outcome:?}");
                *wait = Some(outcome);
            } else {
                if let Effect::Overdue(receipt) = effect {
                    let held = self.got.iter_mut();
                    for got in held.filter(|got| got.receipt == Some(receipt)) {
                        got.kept = self.protocol.keep(receipt, &got.message);
                    }
                    self.protocol.late(receipt);
                }
                self.effects.push_back(effect);
            }
        }
    }

    /// Bytes arrive, and are dealt with before the next turn.
    fn receive(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_receive(bytes) {
            panic!("{error} on {}", Hex(bytes));
        }
    }

    /// Bytes arrive that end the connection; the rest of them is not read.
    fn refuses(&mut self, bytes: &[u8]) -> Error {
        match self.try_receive(bytes) {
            Err(error) => error,
            Ok(()) => panic!("accepted {}", Hex(bytes)),
        }
    }

    fn try_receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.feed {
            Feed::Whole => self.feed(bytes)?,
            Feed::Bytewise => {
                for byte in bytes {
                    self.feed(std::slice::from_ref(byte))?;
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.protocol.handle_received(self.now);
        self.input.extend_from_slice(bytes);
        let mut from = 0;
        let outcome = loop {
            match self
                .protocol
                .handle_input(self.now, &self.input[from..], None)
            {
                Err(error) => break Err(error),
                Ok(Step::More { .. }) => break Ok(()),
                Ok(Step::Handled { size }) => {
                    assert!(size > 0, "a step goes forward");
                    from += size;
                }
                Ok(Step::Deliver { size, delivery }) => {
                    from += size;
                    let receipt = delivery.receipt();
                    let message = delivery.incoming().to_message();
                    self.got.push_back(Got {
                        message,
                        receipt,
                        kept: None,
                    });
                    if let Some(receipt) = receipt {
                        let deadline = self.now + self.protocol.config().take_timeout;
                        self.protocol
                            .delivered(receipt, self.takers, Some(deadline));
                        if !self.hold {
                            for _ in 0..self.takers {
                                self.protocol.take(receipt, Reason::SUCCESS);
                            }
                        }
                    }
                }
            }
        };
        self.input.drain(..from);
        self.turn();
        outcome
    }

    /// Time passes, and the driver wakes up whenever it is asked to.
    fn pass(&mut self, span: Duration) -> Result<(), Error> {
        let end = self.now + span;
        let mut wakes = 0;
        while let Some(due) = self.protocol.poll_timeout().filter(|due| *due <= end) {
            wakes += 1;
            assert!(wakes < 100_000, "woken again and again for the same thing");
            self.now = self.now.max(due);
            self.protocol.handle_timeout(self.now)?;
            self.turn();
        }
        self.now = end;
        self.protocol.handle_timeout(self.now)?;
        self.turn();
        Ok(())
    }

    /// Seconds pass and the connection survives them.
    fn wait(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds))
            .expect("the connection survives this");
    }

    /// Seconds since the script began.
    fn clock(&self) -> u64 {
        (self.now - self.start).as_secs()
    }

    // What the script looks at.

    /// What was written since the last look is `packets`, one behind the other, and nothing else.
    #[track_caller]
    fn sends(&mut self, packets: &[&[u8]]) {
        let wire = std::mem::take(&mut self.wire);
        let expected = packets.concat();
        assert!(
            wire == expected,
            "at {} s, {:?}\n sent     {}\n expected {}",
            self.clock(),
            self.feed,
            Hex(&wire),
            Hex(&expected)
        );
    }

    /// Nothing was written since the last look.
    #[track_caller]
    fn sends_nothing(&mut self) {
        self.sends(&[]);
    }

    /// The next message that arrived.
    #[track_caller]
    fn gets(&mut self, topic: &str, payload: &[u8]) -> Got {
        let got = self.got.pop_front().expect("a message arrived");
        assert_eq!(got.message.topic(), topic);
        assert_eq!(got.message.payload(), payload);
        got
    }

    #[track_caller]
    fn gets_nothing(&self) {
        let topics: Vec<_> = self.got.iter().map(|got| got.message.topic()).collect();
        assert!(topics.is_empty(), "messages arrived: {topics:?}");
    }

    fn take(&mut self, got: &Got) {
        self.refuse(got, Reason::SUCCESS);
    }

    fn refuse(&mut self, got: &Got, reason: Reason) {
        assert!(
            got.receipt.is_some() || got.kept.is_some(),
            "only QoS 1 and 2 are taken"
        );
        if let Some(receipt) = got.receipt {
            self.protocol.take(receipt, reason);
        }
        if let Some(kept) = got.kept {
            self.protocol.let_go(kept);
        }
        self.turn();
    }

    fn answer_with(&mut self, got: &Got, reason: Reason, properties: &Properties) {
        let receipt = got.receipt.expect("only QoS 1 and 2 are taken");
        let remarks = properties.list().into();
        self.protocol.take_with(receipt, reason, remarks);
        self.turn();
    }

    /// The next effect that is not the end of a wait, as text.
    fn effect(&mut self) -> String {
        match self.effects.pop_front() {
            Some(effect) => format!("{effect:?}"),
            None => String::new(),
        }
    }

    #[track_caller]
    fn no_effect(&self) {
        assert!(self.effects.is_empty(), "{:?}", self.effects);
    }

    /// The script is over: nothing that it did not look at may be left of the effects.
    #[track_caller]
    fn rest(&mut self) {
        self.turn();
        self.protocol.close();
        self.collect();
        for (token, outcome) in &self.waits {
            assert!(outcome.is_some(), "wait {token} survived close()");
        }
    }

    // Waits.

    fn begin(&mut self) -> Token {
        self.next_token += 1;
        self.waits.insert(self.next_token, None);
        self.next_token
    }

    fn begin_for(&mut self, wait: Wait) -> (Option<(Wait, Token)>, Token) {
        match wait {
            Wait::None => (None, 0),
            Wait::Sent | Wait::Ack => {
                let token = self.begin();
                (Some((wait, token)), token)
            }
        }
    }

    #[track_caller]
    fn goes_on(&self, token: Token) {
        let outcome = self.waits.get(&token).expect("the wait was begun");
        assert!(outcome.is_none(), "wait {token} is over: {outcome:?}");
    }

    #[track_caller]
    fn outcome(&self, token: Token) -> &Result<Done, Error> {
        let outcome = self.waits.get(&token).expect("the wait was begun");
        outcome.as_ref().expect("the wait is over")
    }

    #[track_caller]
    fn is_sent(&self, token: Token) {
        let outcome = self.outcome(token);
        assert!(matches!(outcome, Ok(Done::Sent)), "{outcome:?}");
    }

    #[track_caller]
    fn is_acknowledged(&self, token: Token, reason: Reason) {
        let outcome = self.outcome(token);
        assert!(
            matches!(outcome, Ok(Done::Acknowledged(given, _)) if *given == reason),
            "{outcome:?}"
        );
    }

    #[track_caller]
    fn fails(&self, token: Token) -> &Error {
        match self.outcome(token) {
            Err(error) => error,
            Ok(done) => panic!("wait {token} ended well: {done:?}"),
        }
    }

    /// The wait failed with an error that shows as `text`, and its message had or had not left.
    #[track_caller]
    fn fails_with(&self, token: Token, sent: Sent, text: &str) {
        let error = self.fails(token);
        assert_eq!((error.to_string().as_str(), error.sent()), (text, sent));
    }

    // Commands.

    /// Publishes `payload` to topic `t`.
    fn publish(&mut self, qos: Qos, payload: &[u8], wait: Wait) -> Token {
        self.publish_message(Message::new("t", payload).qos(qos), wait)
    }

    #[track_caller]
    fn publish_message(&mut self, message: Message, wait: Wait) -> Token {
        let (wait, token) = self.begin_for(wait);
        match self.protocol.publish(message, wait) {
            Ok(Accepted::Yes | Accepted::Parked(_) | Accepted::Dropped) => self.turn(),
            Err((_, error)) => panic!("refused at the call: {error}"),
        }
        token
    }

    /// The error of a publish that nobody waits for.
    #[track_caller]
    fn publish_refused(&mut self, message: Message) -> Error {
        match self.protocol.publish(message, None) {
            Ok(accepted) => panic!("accepted: {accepted:?}"),
            Err((_, error)) => error,
        }
    }

    /// Publishes at QoS 0 through the short path.
    fn publish_0(&mut self, payload: &[u8], wait: Wait) -> Token {
        let (wait, token) = self.begin_for(wait);
        self.protocol
            .publish_qos0(outgoing(payload), wait.map(|(_, token)| token))
            .expect("accepted");
        self.turn();
        token
    }

    fn subscribe(&mut self, filters: &[&str], qos: Qos, wait: Wait) -> Token {
        let (wait, token) = self.begin_for(wait);
        self.protocol.subscribe(Subscription {
            owner: 7,
            filters: filters
                .iter()
                .map(|filter| wish(filter, options(qos), Identifier::None))
                .collect(),
            properties: Properties::new(),
            wait,
        });
        self.turn();
        token
    }

    fn unsubscribe(&mut self, filters: &[&str], wait: Wait) -> Token {
        let (wait, token) = self.begin_for(wait);
        let filters: Vec<Rc<str>> = filters.iter().map(|filter| Rc::from(*filter)).collect();
        self.protocol.unsubscribe(&filters, Properties::new(), wait);
        self.turn();
        token
    }

    fn disconnect(&mut self) {
        self.protocol
            .disconnect(Reason::SUCCESS, PropertyList::EMPTY)
            .expect("DISCONNECT can be sent");
        self.turn();
    }
}

/// `payload` to topic `t`, at QoS 0.
fn outgoing(payload: &[u8]) -> Outgoing<'_> {
    Outgoing {
        topic: "t",
        payload: payload.into(),
        properties: PropertyList::EMPTY,
        retain: false,
    }
}

fn options(qos: Qos) -> FilterOptions {
    FilterOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

fn wish(filter: &str, options: FilterOptions, identifier: Identifier) -> Wish {
    Wish {
        filter: Rc::from(filter),
        options,
        identifier,
    }
}

/// The clause that the broker broke, and the reason code for it.
#[track_caller]
fn violation(error: &Error) -> (&'static str, Reason) {
    match error.kind() {
        ErrorKind::Protocol(violation) => (violation.clause, violation.reason),
        other => panic!("not a violation: {other:?}"),
    }
}

/// Bytes as the standard writes them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(200) {
            write!(f, "{byte:02X} ")?;
        }
        write!(f, "({} bytes)", self.0.len())
    }
}
