//! What is known of every message the application published, by the number in its payload.

use std::collections::BTreeMap;

use coracle::{Error, ErrorKind, Qos, Reason, Wait};

/// A payload begins with its number between two of these, so that it is found in a torn packet too.
const FENCE: u8 = b'#';

/// `#000042#`.
pub(crate) const MARK: usize = 8;

pub(crate) fn payload_of(number: u32, size: usize) -> Vec<u8> {
    let mut payload = format!("#{number:06}#").into_bytes();
    payload.resize(size.max(MARK), b'.');
    payload
}

/// The number of a whole payload.
pub(crate) fn number_of(payload: &[u8]) -> u32 {
    marks(payload).next().expect("every payload has a number")
}

/// The numbers in any bytes.
pub(crate) fn marks(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.windows(MARK).filter_map(|window| {
        let digits = window.strip_prefix(&[FENCE])?.strip_suffix(&[FENCE])?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// How far its call has come.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Waiting,
    /// Nobody waits any more.
    Dropped,
    Done(Result<Reason, Error>),
}

/// A message that the application published.
#[derive(Debug)]
pub(crate) struct Mine {
    pub(crate) qos: Qos,
    pub(crate) wait: Wait,
    pub(crate) topic: &'static str,
    pub(crate) retain: bool,
    pub(crate) expires: bool,
    /// Bytes of its packet with the longest head it may have.
    pub(crate) size: usize,
    /// There was room at the call, so it was not parked.
    pub(crate) had_room: bool,
    pub(crate) told: Told,
    /// An event said that it was not published.
    pub(crate) unpublished: bool,
    /// Bytes of its payload have left the client.
    pub(crate) left: bool,
    /// How often its whole packet has left the client.
    pub(crate) written: u32,
    /// How often the broker took it.
    pub(crate) taken: u32,
    /// What the broker refused it with, or the client has read.
    pub(crate) refused: Option<Reason>,
    /// The client has read the last acknowledgement, without an error.
    pub(crate) acknowledged: bool,
    /// The client has read PUBREC without an error.
    pub(crate) received: bool,
    /// May never be published again, by this rule.
    pub(crate) barred: Option<&'static str>,
    /// Its identifier was used for another message, so the client must have given it up.
    pub(crate) superseded: bool,
}

impl Mine {
    /// Whether somebody waited, and gave up while the message was still to be sent.
    pub(crate) fn waits_no_more(&self) -> bool {
        match &self.told {
            Told::Dropped => true,
            Told::Done(Err(error)) => matches!(error.kind(), ErrorKind::TimedOut(_)),
            Told::Done(Ok(_)) | Told::Waiting => false,
        }
    }

    /// Whether its call ended with an error.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.told {
            Told::Done(Err(error)) => Some(error),
            Told::Done(Ok(_)) | Told::Waiting | Told::Dropped => None,
        }
    }
}

/// What CONNACK announced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: usize,
    pub(crate) packet_size: usize,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) aliases: u16,
}

impl Limits {
    pub(crate) const NONE: Self = Self {
        receive_maximum: usize::MAX,
        packet_size: usize::MAX,
        qos: Qos::ExactlyOnce,
        retain: true,
        aliases: 0,
    };
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) mine: BTreeMap<u32, Mine>,
    /// Outcomes since the last look.
    pub(crate) fresh: Vec<u32>,
    /// Numbers in the order of their first arrival.
    pub(crate) first: Vec<u32>,
    pub(crate) first_zero: Vec<u32>,
    /// Losses of the session that the client could know of, and others.
    pub(crate) told_losses: u32,
    pub(crate) untold_losses: u32,
    /// Connections that the broker's side ended in order.
    pub(crate) orderly: u32,
    /// Bytes left the client that nobody saw.
    pub(crate) blind: bool,
    /// PUBLISHes that were cut off before their number.
    pub(crate) torn: u32,
    /// The tightest of what any CONNACK announced.
    pub(crate) tightest: Limits,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            mine: BTreeMap::new(),
            fresh: Vec::new(),
            first: Vec::new(),
            first_zero: Vec::new(),
            told_losses: 0,
            untold_losses: 0,
            orderly: 0,
            blind: false,
            torn: 0,
            tightest: Limits::NONE,
        }
    }

    pub(crate) fn of(&mut self, number: u32) -> &mut Mine {
        self.mine
            .get_mut(&number)
            .expect("the application published it")
    }

    pub(crate) fn end(&mut self, number: u32, outcome: Result<Reason, Error>) {
        self.of(number).told = Told::Done(outcome);
        self.fresh.push(number);
    }

    /// The broker takes a message for the first time as far as it knows.
    pub(crate) fn take(&mut self, number: u32) {
        let mine = self.of(number);
        mine.taken += 1;
        if mine.taken == 1 {
            match mine.qos {
                Qos::AtMostOnce => self.first_zero.push(number),
                Qos::AtLeastOnce | Qos::ExactlyOnce => self.first.push(number),
            }
        }
    }
}
