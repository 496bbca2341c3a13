//! A protocol with a driver that does what the contract on `Protocol` asks of it, and an observer beside it.

use std::time::{Duration, Instant};

use coracle::codec::{self, Split};
use coracle::protocol::{
    Ask, Config, Credentials, Effect, End, Login, Protocol, Receipt, Step, Token,
};
use coracle::{AuthStep, Error, ErrorKind, PacketId, Qos, Reason, Version};

use super::input::epoch;
use super::observer::Observer;

/// Rounds that any loop over what comes out may take: no run has as many packets.
const ROUNDS: usize = 10_000;

/// Bytes that a client may hold which the transport does not take: its mark of 64 KiB, what one message and
/// one read may add to it, and acknowledgements up to the point at which reading stops.
const UNSENT: usize = 160 * 1024;

/// A message that was handed on and is not taken by all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unread {
    pub(crate) receipt: Receipt,
    qos: Qos,
    id: Option<PacketId>,
    takers: usize,
}

pub(crate) struct Rig {
    pub(crate) protocol: Protocol,
    pub(crate) observer: Observer,
    pub(crate) version: Version,
    login: Option<Login>,
    pub(crate) now: Instant,
    /// Input that is not used.
    input: Vec<u8>,
    /// Bytes of a packet that is dropped, still to come.
    skip: usize,
    /// How many bytes one write takes, and whether they are flushed.
    pub(crate) takes: usize,
    pub(crate) flushes: bool,
    /// Bytes that the transport took, and bytes looked at, over the client's life.
    taken: u64,
    seen: u64,
    /// How many have to take each message.
    pub(crate) takers: usize,
    pub(crate) unread: Vec<Unread>,
    /// By token: whether the wait is over.
    waits: Vec<bool>,
    ask: Option<Ask>,
    /// Whether the transport is open.
    pub(crate) is_open: bool,
    /// Whether the client wants another connection at once.
    again: bool,
    /// Whether DISCONNECT had been sent before this turn.
    was_leaving: bool,
}

impl Rig {
    pub(crate) fn new(config: Config, login: Option<Login>) -> Self {
        let version = config.version;
        Self {
            protocol: Protocol::new(config),
            observer: Observer::new(version),
            version,
            login,
            now: epoch(),
            input: Vec::new(),
            skip: 0,
            takes: usize::MAX,
            flushes: true,
            taken: 0,
            seen: 0,
            takers: 1,
            unread: Vec::new(),
            waits: Vec::new(),
            ask: None,
            is_open: false,
            again: false,
            was_leaving: false,
        }
    }

    pub(crate) fn begin_wait(&mut self) -> Token {
        self.waits.push(false);
        self.waits.len() - 1
    }

    /// The call has failed, so that the wait has never begun.
    pub(crate) fn give_back(&mut self, token: Token) {
        assert!(!self.waits[token], "it ended although it never began");
        self.waits[token] = true;
    }

    // The connection.

    pub(crate) fn connect(&mut self) {
        assert!(!self.is_open);
        self.input.clear();
        self.skip = 0;
        self.again = false;
        self.ask = None;
        self.is_open = true;
        self.observer.opened();
        let credentials = Credentials::default();
        match &self.login {
            Some(login) => self
                .protocol
                .connect_authenticated(self.now, &credentials, login),
            None => self.protocol.connect(self.now, &credentials),
        }
        .expect("nothing is wrong with these credentials");
        self.turn();
    }

    pub(crate) fn cut(&mut self, end: End) {
        if !self.is_open {
            return;
        }
        self.is_open = false;
        self.input.clear();
        self.protocol.disconnected(end);
        self.observer.closed(self.taken);
        // What was not taken is thrown away.
        self.taken = self.seen;
        self.turn();
    }

    /// The protocol ends the connection; what it still says has to be this.
    fn end(&mut self, error: &Error) {
        let accuses = match (error.kind(), self.version) {
            (ErrorKind::Protocol(violation), Version::V5_0) if !self.was_leaving => {
                Some(violation.reason)
            }
            _ => None,
        };
        if let Some(reason) = accuses {
            assert!(!self.protocol.is_online(), "{error} leaves it online");
            let goodbyes = self.look();
            // Nothing fits if the broker takes no packet of three bytes.
            let silent = reason == Reason::IMPLEMENTATION_SPECIFIC_ERROR && goodbyes.is_empty();
            assert!(goodbyes == [reason] || silent, "{error}: {goodbyes:?}");
        } else if self.protocol.is_leaving() {
            // In the same turn something else may have been due, like a message that nobody took.
            self.effects();
            self.look();
        } else {
            // The driver closes, and what is unsent dies with the connection.
            return self.cut(match error.kind() {
                ErrorKind::Disconnected { .. } => End::ByBroker,
                _ => End::Otherwise,
            });
        }
        self.observer.is_over();
        let _ = self
            .protocol
            .handle_timeout(self.now + Duration::from_secs(1000));
        self.turn();
        self.cut(End::Otherwise);
    }

    // The driver.

    /// Bytes arrive, and stay where they are while the client takes no more. Returns whether the connection
    /// goes on.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> bool {
        if !self.is_open {
            return false;
        }
        self.protocol.handle_received(self.now);
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut from = 0;
        let outcome = loop {
            let rest = &input[from..];
            if self.protocol.is_clogged() {
                break Ok(());
            }
            if self.protocol.is_leaving() {
                // Nothing is looked at any more, so the rest of what was dropped is not told from packets.
                self.skip = 0;
            }
            let skipping = self.skip.min(rest.len());
            let mut receipt = None;
            let (size, delivered) = match self.protocol.handle_input(self.now, rest, None) {
                Err(error) => break Err(error),
                Ok(Step::More { size }) => {
                    assert!(size.is_none_or(|size| size > rest.len()), "all is here");
                    break Ok(());
                }
                Ok(Step::Handled { size }) => (size, false),
                Ok(Step::Deliver { size, delivery }) => {
                    let incoming = delivery.incoming();
                    assert!(!incoming.topic().is_empty());
                    assert!(incoming.payload().len() <= size);
                    receipt = delivery.receipt().map(|receipt| Unread {
                        receipt,
                        qos: incoming.quality_of_service(),
                        id: None,
                        takers: self.takers,
                    });
                    (size, true)
                }
            };
            assert!(size > 0 && size <= rest.len(), "a step goes forward");
            let used = &rest[..size];
            if skipping > 0 {
                assert_eq!((size, delivered), (skipping, false));
                self.skip -= size;
            } else if let Some(left) = self.dropped(used, rest) {
                self.skip = left;
            } else {
                let unread = receipt.filter(|unread| unread.takers > 0);
                let unread = unread.map(|unread| unread.receipt);
                self.observer.received(used, delivered, unread);
            }
            if let Some(mut unread) = receipt {
                unread.id = id_of(used, self.version);
                let deadline = self.now.checked_add(self.protocol.config().take_timeout);
                self.protocol
                    .delivered(unread.receipt, unread.takers, deadline);
                if unread.takers > 0 {
                    self.unread.push(unread);
                }
            }
            from += size;
            self.turn();
        };
        input.drain(..from);
        self.input = input;
        match outcome {
            Ok(()) => self.turn(),
            Err(error) => self.end(&error),
        }
        if self.again && self.is_open {
            assert!(self.protocol.is_leaving());
            self.cut(End::Otherwise);
        }
        self.is_open
    }

    /// If the client drops the packet of which it used up these bytes: how many more there are of it.
    fn dropped(&mut self, used: &[u8], rest: &[u8]) -> Option<usize> {
        let (first, header, size) = match codec::split(rest) {
            Ok(Split::Partial {
                first,
                header,
                size,
            }) => (first, header, size),
            Ok(Split::Whole { frame, size }) => (frame.first, size - frame.body.len(), size),
            Ok(Split::Header) | Err(_) => return None,
        };
        if size <= self.protocol.config().inbound_limit || !self.protocol.is_online() {
            return None;
        }
        self.observer.skipped(first, &used[header..]);
        Some(size - used.len())
    }

    /// One of those who have the message takes it, or refuses it.
    pub(crate) fn take(&mut self, nth: usize, reason: Reason) {
        let unread = &mut self.unread[nth];
        unread.takers -= 1;
        let Unread {
            receipt,
            qos,
            id,
            takers,
        } = *unread;
        if takers == 0 {
            self.unread.swap_remove(nth);
            self.observer.taken(receipt);
        }
        if let (Qos::ExactlyOnce, Some(id), true) = (qos, id, reason.is_error()) {
            self.observer.refused(id);
        }
        self.protocol.take(receipt, reason);
        self.turn();
    }

    /// The one who had to take the message by hand drops it.
    pub(crate) fn abandon(&mut self, nth: usize) {
        let Unread {
            receipt, qos, id, ..
        } = self.unread.swap_remove(nth);
        if let (Qos::ExactlyOnce, Some(id)) = (qos, id) {
            self.observer.refused(id);
        }
        self.protocol.abandon(receipt);
        self.turn();
    }

    /// Time passes, and what was due is done.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.now += span;
        for _ in 0..2 {
            if let Err(error) = self.protocol.handle_timeout(self.now) {
                return self.end(&error);
            }
            self.turn();
            if self
                .protocol
                .poll_timeout()
                .is_none_or(|due| due > self.now)
            {
                return;
            }
        }
        panic!("what was due is due again at once");
    }

    /// The authenticator has an answer, or none.
    pub(crate) fn answer(&mut self, knows: bool, renew: Option<Duration>) {
        let Some(ask) = self.ask.take() else { return };
        let unproven = || Error::unproven("it is another one");
        let answered = match ask {
            Ask::Begin | Ask::Proceed(_) => {
                let step = AuthStep::new().data("data");
                self.protocol
                    .answer(self.now, if knows { Ok(step) } else { Err(unproven()) })
            }
            Ask::Finish(_) => {
                let verdict = if knows { Ok(renew) } else { Err(unproven()) };
                self.protocol.verified(self.now, verdict)
            }
        };
        match answered {
            Ok(()) => {
                self.turn();
                // What came behind a CONNACK that was not believed yet.
                self.receive(b"");
            }
            Err(error) => self.end(&error),
        }
    }

    /// One turn: what may leave leaves, as far as the transport takes it.
    pub(crate) fn turn(&mut self) {
        self.effects();
        self.protocol.pump(self.now);
        while self.protocol.poll_batch().is_some() {
            self.protocol.handle_committed();
        }
        self.protocol.pump(self.now);
        self.look();
        if self.flushes && self.protocol.needs_flush() {
            self.protocol.handle_flushed(self.now);
        }
        self.protocol.pump(self.now);
        self.look();
        self.effects();
        let protocol = &self.protocol;
        self.was_leaving = protocol.is_leaving();
        assert!(protocol.unsent() < UNSENT, "{} unsent", protocol.unsent());
        // With a store a message may have its identifier before there is room for it on the wire.
        let ahead = match protocol.config().stored {
            true => protocol.unfinished(),
            false => 0,
        };
        assert!(protocol.identifiers() <= self.observer.identifiers() + ahead);
        assert!(protocol.untaken() <= self.unread.len());
    }

    /// The transport takes what it takes; the observer sees all there is. Returns what DISCONNECTs say.
    fn look(&mut self) -> Vec<Reason> {
        let mut goodbyes = Vec::new();
        for _ in 0..ROUNDS {
            let Some(chunk) = self.protocol.poll_chunk() else {
                return goodbyes;
            };
            let bytes = chunk.as_bytes();
            assert!(!bytes.is_empty(), "a chunk has something to write");
            let known = (self.seen - self.taken) as usize;
            let new = &bytes[known.min(bytes.len())..];
            goodbyes.extend(self.observer.sent(new));
            self.seen += new.len() as u64;
            let count = bytes.len().min(self.takes);
            let whole = count == bytes.len();
            self.taken += count as u64;
            self.protocol.handle_written(self.now, chunk, count);
            if !whole {
                return goodbyes;
            }
        }
        panic!("chunks come without end");
    }

    fn effects(&mut self) {
        for _ in 0..ROUNDS {
            let Some(effect) = self.protocol.poll_effect() else {
                return;
            };
            match effect {
                Effect::Connected(continuity) => {
                    if let Some(limits) = self.protocol.limits() {
                        self.observer.connected(continuity, limits);
                    }
                }
                Effect::Again => self.again = true,
                Effect::Done(token, _) => {
                    let over = self.waits.get_mut(token).expect("the wait was begun");
                    assert!(!*over, "wait {token} ended twice");
                    *over = true;
                }
                Effect::Authenticate(ask) => self.ask = Some(ask),
                Effect::Overdue(receipt) => self.observer.taken(receipt),
                Effect::Unpublished(..)
                | Effect::Subscribed(..)
                | Effect::Unrestored(_)
                | Effect::Restored
                | Effect::Disinherited
                | Effect::Skipped(_)
                | Effect::Reauthenticated
                | Effect::NotRenewed(..)
                | Effect::Stray => {}
            }
        }
        panic!("effects come without end");
    }

    /// A broker without a session answers everything: then nothing is left.
    pub(crate) fn drain(&mut self) {
        self.takes = usize::MAX;
        self.flushes = true;
        while !self.unread.is_empty() {
            self.take(0, Reason::SUCCESS);
        }
        self.cut(End::Otherwise);
        for _ in 0..ROUNDS {
            if !self.is_open {
                self.connect();
            }
            self.answer(true, None);
            if !self.is_open {
                continue;
            }
            let Some(asked) = self.observer.asked.pop_front() else {
                break;
            };
            let packet = super::fair::answer(asked, self.version, self.login.as_ref());
            self.receive(&packet);
        }
        let protocol = &self.protocol;
        assert!(protocol.is_drained(), "{protocol:?}");
        // 3.1 never says that a session is lost, so that an identifier which must not be used stays so.
        if self.version != Version::V3_1 {
            assert_eq!(protocol.identifiers(), 0);
        }
        assert_eq!(protocol.unfinished(), 0);
        assert_eq!(protocol.untaken(), 0);
        assert_eq!(
            protocol.credit(),
            protocol
                .limits()
                .map_or(0, |limits| { usize::from(limits.receive_maximum) })
        );
        self.protocol.close();
        self.effects();
        let open = self.waits.iter().position(|over| !over);
        assert_eq!(open, None, "a wait goes on");
    }
}

/// The identifier of a PUBLISH.
fn id_of(packet: &[u8], version: Version) -> Option<PacketId> {
    let Ok(Split::Whole { frame, .. }) = codec::split(packet) else {
        return None;
    };
    match codec::decode(version, frame) {
        Ok(codec::Packet::Publish(publish)) => publish.id,
        Ok(_) | Err(_) => None,
    }
}
