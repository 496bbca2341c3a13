//! What follows from a lost connection and from an attempt that has failed.

use std::time::Duration;

use super::{Driver, Next};
use crate::error::{Doing, Error, ErrorKind};
use crate::event::Event;
use crate::protocol::End;
use crate::reason::Reason;
use crate::reconnect::Decision;
use crate::routes::{Fault, Onward, Referral};

/// An attempt that has failed, and what stood in its way.
pub(super) struct Failed {
    error: Error,
    fault: Fault,
}

impl Failed {
    pub(super) fn ours(error: Error) -> Self {
        Self {
            error,
            fault: Fault::Ours,
        }
    }

    pub(super) fn on_the_way(error: Error) -> Self {
        Self {
            error,
            fault: Fault::Way,
        }
    }
}

impl Driver {
    pub(super) fn link_lost(&mut self, error: Error) -> Next {
        log::info!("{error}");
        let decision = if self.follow_referral(&error) {
            // After the usual delay: two brokers that send a client to each other must not keep it busy.
            self.reconnect.sent_on()
        } else {
            self.reconnect.link_lost(&error)
        };
        let (next, retry_in) = self.follow(decision, &error);
        let failure = Some(error.clone());
        let event = Event::Disconnected { error, retry_in };
        self.guard.0.with(|state| {
            state.failure = failure;
            state.tell(&event);
        });
        next
    }

    /// CONNECT was sent, and the broker has not let us in.
    pub(super) fn not_let_in(&mut self, error: Error) -> Next {
        // A session goes on in its version or not at all, and that says nothing of other brokers.
        if self.goes_on_in.is_none() && self.fallback.failed(&error) {
            let version = self.fallback.version();
            log::info!("{error}; MQTT {version} is tried next");
            self.note_failure(&error);
            return Next::Connect;
        }
        // An answer with a reason came from the broker, whatever the way to it is like.
        let fault = match (error.kind(), error.reason()) {
            (ErrorKind::NoCredential(_), _) => Fault::Ours,
            (ErrorKind::Unproven(_), _) | (_, Some(_)) => Fault::Broker,
            (_, None) => Fault::Way,
        };
        self.attempt_failed(Failed { error, fault })
    }

    fn note_failure(&mut self, error: &Error) {
        self.guard
            .0
            .with(|state| state.protocol.disconnected(End::Otherwise));
        self.return_home();
        self.guard.0.with(|state| {
            state.statistics.failed += 1;
            state.failure = Some(error.clone());
        });
    }

    pub(super) fn attempt_failed(&mut self, failed: Failed) -> Next {
        let Failed { error, fault } = failed;
        let error = match (&self.target, fault) {
            (Some(endpoint), Fault::Way | Fault::Broker) => {
                error.on_the_way(&self.options.told(endpoint))
            }
            (None, Fault::Way | Fault::Broker) | (_, Fault::Ours) => error,
        };
        log::info!("attempt {}: {error}", self.reconnect.attempts() + 1);
        self.note_failure(&error);
        if self.follow_referral(&error) {
            return Next::Connect;
        }
        self.tell_way_failed(&error, fault);
        match self.routes.failed(self.options.clock.now(), fault) {
            Onward::AtOnce => {
                self.reconnect.way_failed(&error);
                Next::Connect
            }
            Onward::Later => {
                let error = self.reconnect.round_failed(error);
                self.round_failed(error)
            }
        }
    }

    /// The broker that was tried did not let us in, or only to wipe: the session is where it was.
    pub(super) fn return_home(&mut self) {
        if let Some(home) = self.home_before.take() {
            self.home = home;
        }
        self.guard.0.with(|state| {
            // While the session is forgotten, or it would be given up for the other version that was tried.
            if let Some(version) = self.home.spoken {
                state.speak(version);
            }
            state.protocol.remember_session();
        });
    }

    /// Every way was tried.
    fn round_failed(&mut self, error: Error) -> Next {
        let decision = self.reconnect.attempt_failed(&error);
        let (next, retry_in) = self.follow(decision, &error);
        let event = Event::ConnectFailed {
            error,
            attempt: self.reconnect.attempts(),
            retry_in,
        };
        self.guard.0.with(|state| state.tell(&event));
        next
    }

    /// With one way alone, `ConnectFailed` says it all.
    fn tell_way_failed(&self, error: &Error, fault: Fault) {
        let (Some(endpoint), Fault::Way | Fault::Broker) = (&self.target, fault) else {
            return;
        };
        if self.routes.are_several() {
            let event = Event::WayFailed {
                endpoint: self.options.told(endpoint),
                error: error.clone(),
            };
            self.guard.0.with(|state| state.tell(&event));
        }
    }

    /// Goes where the broker sends us, if it does so and the user lets it.
    fn follow_referral(&mut self, error: &Error) -> bool {
        let referral = match error.reason() {
            Some(Reason::USE_ANOTHER_SERVER) => Referral::ForNow,
            Some(Reason::SERVER_MOVED) => Referral::ForGood,
            Some(_) | None => return false,
        };
        let (Some(from), true) = (&self.target, self.options.places.follow_referrals) else {
            return false;
        };
        // It may name several, with spaces between them (MQTT 5, section 4.11: not normative).
        let named = error.properties().server_reference().unwrap_or_default();
        let endpoint = named
            .split_whitespace()
            .find_map(|reference| from.referred(reference).ok());
        let Some(endpoint) = endpoint.filter(|to| self.routes.refer(to.clone(), referral)) else {
            return false;
        };
        let event = Event::Referred {
            endpoint,
            error: error.clone(),
        };
        self.guard.0.with(|state| state.tell(&event));
        true
    }

    /// What follows from a decision, and when the next attempt begins. Who leaves connects no more.
    fn follow(&self, decision: Decision, error: &Error) -> (Next, Option<Duration>) {
        let open = self
            .guard
            .0
            .with(|state| state.check_open(Doing::Connected));
        if open.is_err() {
            return (Next::Connect, None);
        }
        (Next::of(decision, error), decision.delay())
    }
}
