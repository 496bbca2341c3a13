//! Wills: published when their client is lost, or some time after (MQTT 5, section 3.1.2.5).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::codec::Will;

use super::session::Expiry;
use super::stored::Stored;

/// The will of a connected client.
#[derive(Debug)]
pub(super) struct Testament {
    message: Stored,
    lifetime: Option<Duration>,
    delay: Duration,
}

impl Testament {
    pub(super) fn new(will: &Will<'_>) -> Self {
        let seconds = |value: u32| Duration::from_secs(value.into());
        Self {
            message: Stored::will(will),
            lifetime: will.properties.message_expiry_interval().map(seconds),
            delay: will
                .properties
                .will_delay_interval()
                .map_or(Duration::ZERO, seconds),
        }
    }

    /// How long it waits: never longer than the session lasts [MQTT-3.1.2-8].
    pub(super) fn wait(&self, expiry: Expiry) -> Duration {
        match expiry {
            Expiry::AtClose => Duration::ZERO,
            Expiry::After(after) => self.delay.min(after),
            Expiry::Never => self.delay,
        }
    }

    /// The message; its expiry counts from `now`, when the will is published.
    pub(super) fn into_message(self, now: Instant) -> Stored {
        self.message
            .expiring(self.lifetime.map(|lifetime| now + lifetime))
    }
}

/// The wills of clients that are gone but may still come back in time.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_client: BTreeMap<Rc<str>, (Instant, Testament)>,
}

impl Pending {
    pub(super) fn insert(&mut self, client: Rc<str>, due: Instant, testament: Testament) {
        self.by_client.insert(client, (due, testament));
    }

    /// The client came back, or its session has ended.
    pub(super) fn take(&mut self, client: &str) -> Option<Testament> {
        self.by_client
            .remove(client)
            .map(|(_, testament)| testament)
    }

    pub(super) fn clear(&mut self) {
        self.by_client.clear();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_client.values().map(|(due, _)| *due).min()
    }

    /// One whose time has come.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<(Rc<str>, Testament)> {
        let client = self
            .by_client
            .iter()
            .find(|(_, (due, _))| *due <= now)
            .map(|(client, _)| Rc::clone(client))?;
        let testament = self.take(&client)?;
        Some((client, testament))
    }
}
