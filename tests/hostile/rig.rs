//! A protocol with a driver that does what the contract on `Protocol` asks of it.

use std::collections::BTreeMap;
use std::time::Instant;

use coracle::protocol::{
    Config, Credentials, Done, Effect, End, Protocol, Receipt, SessionMode, Step, Token,
};
use coracle::{Error, Reason, Version};

use super::connack;

/// Where every clock starts. From here on all time is computed.
#[expect(
    clippy::disallowed_methods,
    reason = "the one door: std makes no instant from nothing"
)]
fn epoch() -> Instant {
    Instant::now()
}

pub(crate) struct Rig {
    pub(crate) protocol: Protocol,
    pub(crate) now: Instant,
    /// What was written and not looked at.
    pub(crate) wire: Vec<u8>,
    /// How many bytes one write takes.
    pub(crate) takes: usize,
    pub(crate) flushes: bool,
    /// Input that is not used.
    input: Vec<u8>,
    /// How many have to take each message; those of which nobody has taken any are in `untaken`.
    pub(crate) takers: usize,
    pub(crate) untaken: Vec<Receipt>,
    pub(crate) delivered: usize,
    pub(crate) waits: BTreeMap<Token, Option<Result<Done, Error>>>,
    next_token: Token,
}

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            protocol: Protocol::new(config),
            now: epoch(),
            wire: Vec::new(),
            takes: usize::MAX,
            flushes: true,
            input: Vec::new(),
            takers: 1,
            untaken: Vec::new(),
            delivered: 0,
            waits: BTreeMap::new(),
            next_token: 1,
        }
    }

    /// Connected, with no session.
    pub(crate) fn online(version: Version) -> Self {
        let mut config = Config {
            receive_maximum: 1024,
            ..Config::new(version, "c")
        };
        config.session = SessionMode::None;
        let mut rig = Self::new(config);
        rig.connect();
        rig.receive(connack(version)).expect("it is CONNACK");
        assert!(rig.protocol.is_online());
        rig.wire.clear();
        rig
    }

    pub(crate) fn connect(&mut self) {
        self.input.clear();
        self.protocol
            .connect(self.now, &Credentials::default())
            .expect("nothing is wrong with no credentials");
        self.turn();
    }

    pub(crate) fn cut(&mut self, end: End) {
        self.protocol.disconnected(end);
        self.input.clear();
        self.turn();
    }

    pub(crate) fn begin_wait(&mut self) -> Token {
        self.next_token += 1;
        self.waits.insert(self.next_token, None);
        self.next_token
    }

    /// Bytes arrive.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.protocol.handle_received(self.now);
        self.input.extend_from_slice(bytes);
        let mut from = 0;
        let outcome = loop {
            let input = &self.input[from..];
            match self.protocol.handle_input(self.now, input, None) {
                Err(error) => break Err(error),
                Ok(Step::More { size }) => {
                    assert!(size.is_none_or(|size| size > input.len()), "all is here");
                    break Ok(());
                }
                Ok(Step::Handled { size }) => {
                    assert!(size > 0 && size <= input.len(), "a step goes forward");
                    from += size;
                }
                Ok(Step::Deliver { size, delivery }) => {
                    assert!(size > 0 && size <= input.len(), "a step goes forward");
                    from += size;
                    self.delivered += 1;
                    let incoming = delivery.incoming();
                    assert!(!incoming.topic().is_empty());
                    if let Some(receipt) = delivery.receipt() {
                        let deadline = self.now + self.protocol.config().take_timeout;
                        let takers = self.takers;
                        self.protocol.delivered(receipt, takers, Some(deadline));
                        if takers > 0 {
                            self.untaken.push(receipt);
                        }
                    }
                }
            }
        };
        self.input.drain(..from);
        if outcome.is_err() {
            self.input.clear();
        }
        self.turn();
        outcome
    }

    pub(crate) fn take(&mut self, receipt: Receipt, reason: Reason) {
        self.protocol.take(receipt, reason);
        self.turn();
    }

    /// One turn: what may leave leaves, as far as the transport takes it.
    pub(crate) fn turn(&mut self) {
        self.protocol.pump(self.now);
        while let Some(chunk) = self.protocol.poll_chunk() {
            let count = chunk.as_bytes().len().min(self.takes);
            self.wire.extend_from_slice(&chunk.as_bytes()[..count]);
            self.protocol.handle_written(self.now, chunk, count);
            if self.takes != usize::MAX {
                break;
            }
            self.protocol.pump(self.now);
        }
        if self.flushes && self.protocol.needs_flush() {
            self.protocol.handle_flushed(self.now);
        }
        self.protocol.pump(self.now);
        while let Some(effect) = self.protocol.poll_effect() {
            if let Effect::Done(token, outcome) = effect {
                let wait = self.waits.get_mut(&token).expect("the wait was begun");
                assert!(wait.is_none(), "wait {token} ended twice: {outcome:?}");
                *wait = Some(outcome);
            }
        }
    }
}
