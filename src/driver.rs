//! The one task: connect, serve the connection, and when it ends decide whether to connect again.
//!
//! ```text
//!              ┌──────────── delay ◄──────────────┐
//!              ▼                                  │
//!     ── Connecting ── transport, CONNACK ──► Serving ── link lost, reconnect()
//!              │ failed, and the user gives up    │ disconnect(), or no handle is left
//!              ▼                                  ▼
//!            Ended: every wait and stream has ended
//! ```

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::alarm::Alarm;
use crate::authenticator::{Authenticator, Occasion, Purpose};
use crate::connection::{Connection, Outcome};
use crate::dialogue::Dialogue;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::event::Event;
use crate::fallback::Fallback;
use crate::keeper::Keeper;
use crate::options::{Attempt, Options, Order};
use crate::properties::{Properties, PropertyList};
use crate::protocol::{Done, End, Login, Restored};
use crate::reason::Reason;
use crate::reconnect::{Decision, Reconnect};
use crate::routes::{Fault, Onward, Referral, Routes};
use crate::shared::{Shared, Wanted};
use crate::transport::{Connector, Endpoint};

/// How long a goodbye may take: DISCONNECT is written and the transport closed, or not.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the end of a driver waits for its store: what the last messages changed is on disk, or not.
const LAST_BATCH: Duration = Duration::from_secs(5);

/// Does all the work of a client, as one future that the application spawns: see [`Driver::run`].
#[must_use = "nothing is sent or received unless the driver runs"]
pub struct Driver {
    guard: Guard,
    options: Options,
    connector: Rc<dyn Connector>,
    reconnect: Reconnect,
    routes: Routes,
    fallback: Fallback,
    alarm: Alarm,
    keeper: Keeper,
    /// Whether another client has the store that the options name.
    lacks_store: bool,
    /// Where the last connection led: there the session is.
    home: Option<Endpoint>,
    /// The home to come back to if the broker that is tried does not let us in.
    left: Option<Endpoint>,
    /// Where the attempt at hand leads.
    target: Option<Endpoint>,
}

/// An attempt that has failed, and what stood in its way.
struct Failed {
    error: Error,
    fault: Fault,
}

impl Failed {
    fn ours(error: Error) -> Self {
        Self {
            error,
            fault: Fault::Ours,
        }
    }

    fn on_the_way(error: Error) -> Self {
        Self {
            error,
            fault: Fault::Way,
        }
    }
}

/// Ends every wait and stream when the driver is gone, however it went.
struct Guard(Shared);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.with(crate::shared::State::close);
    }
}

/// What the driver does next.
enum Next {
    /// Connect, at once, if the user still wants to.
    Connect,
    /// Connect, after the delay.
    Wait(Duration),
    /// End.
    End(Result<()>),
}

impl Next {
    fn of(decision: Decision, error: &Error) -> Self {
        match decision {
            Decision::After(delay) => Self::Wait(delay),
            Decision::GiveUp => Self::End(Err(error.clone())),
        }
    }
}

impl Driver {
    pub(crate) fn new(shared: Shared, options: Options) -> Self {
        let lacks_store = options.lacks_store();
        let store = options.storage.take();
        let mut routes = Routes::new(options.ways(), options.places.aside);
        match options.places.order {
            Order::AsGiven => {}
            Order::Random => routes.shuffle(&mut options.random()),
        }
        Self {
            guard: Guard(shared),
            connector: options.opener(),
            reconnect: Reconnect::new(options.retry, options.give_up.clone(), options.random()),
            routes,
            fallback: Fallback::new(options.spoken(), options.oldest()),
            alarm: Alarm::default(),
            keeper: Keeper::new(store, options.storage.go_on),
            lacks_store,
            home: None,
            left: None,
            target: None,
            options,
        }
    }

    /// Connects and stays connected until the client is disconnected or all its handles are dropped.
    ///
    /// All of Coracle runs inside this future. When it ends, returns an error, panics or is dropped,
    /// every wait and every stream of the client ends with [`ErrorKind::Closed`], and its handlers are
    /// dropped.
    ///
    /// # Errors
    /// Options that cannot work; the last failure, when [`Options::give_up_when`] said so.
    ///
    /// # Cancel safety
    /// Dropping it closes the client without DISCONNECT, so the broker publishes the will.
    pub async fn run(mut self) -> Result<()> {
        let result = self.stay_connected().await;
        if let Err(error) = &result {
            // Spawned and detached, nobody reads what it returns: each `Closed` says it, and the log.
            log::error!("{error}");
            self.guard
                .0
                .with(|state| state.failure = Some(error.clone()));
        }
        result
    }

    async fn stay_connected(&mut self) -> Result<()> {
        self.options.check()?;
        self.take_over()?;
        loop {
            let next = match self.open().await {
                Ok(Some(connection)) => self.serve(connection).await,
                Ok(None) => self.interrupted().await,
                Err(failed) => self.attempt_failed(failed),
            };
            match next {
                Next::Connect => {}
                Next::Wait(delay) => self.pause(delay).await,
                Next::End(result) => {
                    self.keep_the_rest().await;
                    return result;
                }
            }
            if let Next::End(result) = self.interrupted().await {
                return result;
            }
        }
    }

    /// Goes on with the session of the process before, if there is a store with one.
    fn take_over(&mut self) -> Result<()> {
        if self.lacks_store {
            return Err(Error::misuse(
                "another client has the store of these options",
            ));
        }
        let clock = Rc::clone(&self.options.clock);
        let Some(mut restored) = self.keeper.load(&self.guard.0, &*clock)? else {
            return Ok(());
        };
        let Some(identity) = restored.identity.take() else {
            // It was never connected, so there is only what it wanted to send.
            self.tell_restored(&restored, false);
            return Ok(());
        };
        let home = self.options.known(&identity.place);
        let speaks = self.fallback.remember(identity.version);
        let is_listed = home.as_ref().is_some_and(|home| {
            let mut ways = self.options.ways().into_iter().flatten();
            ways.any(|way| self.routes.are_one_broker(home, &way))
        });
        let is_there = is_listed || self.options.places.share_sessions;
        let same_session = identity.ours && restored.is_ours && speaks && is_there;
        self.tell_restored(&restored, same_session);
        let version = self.fallback.version();
        self.guard.0.with(|state| {
            // So that services have the form of their requests, before these are handed on.
            state.speak(version);
            // Where it was cannot be compared with where it would be.
            let is_lost = home.is_none() && !self.options.places.share_sessions;
            if is_lost || !speaks {
                state.protocol.disown();
            }
            state.inherit(&mut restored);
        });
        self.home = home;
        Ok(())
    }

    fn tell_restored(&self, restored: &Restored, same_session: bool) {
        if restored.is_empty {
            return;
        }
        let event = Event::Restored {
            outgoing: restored.unfinished,
            incoming: restored.kept.len(),
            filters: restored.filters.clone(),
            same_session,
        };
        self.guard.0.with(|state| state.tell(&event));
    }

    /// What the last messages changed goes into the store, before anyone hears that this is the end.
    async fn keep_the_rest(&mut self) {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let end = clock.now().checked_add(LAST_BATCH);
        std::future::poll_fn(|cx| {
            loop {
                let now = clock.now();
                shared.with(|state| state.protocol.pump(now));
                match self.keeper.poll(now, &shared, &*clock, cx) {
                    Ok(true) => continue,
                    Ok(false) if !self.keeper.is_done() && end.is_none_or(|end| now < end) => {}
                    Ok(false) | Err(_) => return Poll::Ready(()),
                }
                if self.alarm.poll(&*clock, end, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Opens the transport, begins an authentication and sends CONNECT. None if the user wants something else meanwhile.
    async fn open(&mut self) -> std::result::Result<Option<Connection>, Failed> {
        let endpoint = self.routes.target(self.options.clock.now());
        self.target = Some(endpoint.clone());
        let attempt = Attempt {
            number: self.reconnect.attempts(),
            endpoint,
            credentials: self.options.credentials.clone(),
            shares_sessions: self.options.places.share_sessions,
        };
        let connector = Rc::clone(&self.connector);
        let before_connect = self.options.before_connect.clone();
        let opening = async move {
            let attempt = match before_connect {
                Some(callback) => callback(attempt).await.map_err(Failed::ours)?,
                None => attempt,
            };
            let opened = connector.connect(&attempt.endpoint).await;
            Ok((attempt, opened))
        };
        let timeout = self.options.connect_timeout;
        let opened: Option<std::result::Result<_, Failed>> = self
            .alongside(opening, timeout)
            .await
            .map_err(Failed::on_the_way)?;
        let Some(opened) = opened else {
            return Ok(None);
        };
        let (attempt, opened) = opened?;
        self.target = Some(attempt.endpoint.clone());
        let transport =
            opened.map_err(|error| Failed::on_the_way(Error::io(error, Doing::Connecting)))?;
        self.prepare(&attempt).map_err(Failed::ours)?;
        let begun = match self.options.authenticator.clone() {
            None => None,
            Some(authenticator) => {
                let begun = self.authenticate(authenticator, &attempt.endpoint).await;
                let Some(begun) = begun.map_err(Failed::ours)? else {
                    self.return_home();
                    return Ok(None);
                };
                Some(begun)
            }
        };
        let (login, dialogue) = begun.unzip();
        self.begin(&attempt, login.as_ref()).map_err(Failed::ours)?;
        Ok(Some(Connection::new(transport, dialogue)))
    }

    /// Asks the authenticator for what CONNECT has to say. None if the user wants something else
    /// meanwhile.
    async fn authenticate(
        &mut self,
        authenticator: Rc<dyn Authenticator>,
        endpoint: &Endpoint,
    ) -> Result<Option<(Login, Dialogue)>> {
        let client_id = self
            .guard
            .0
            .with(|state| state.protocol.client_id().to_owned());
        let occasion = Occasion {
            client_id,
            endpoint: endpoint.clone(),
            unix_time: self.options.clock.unix_time(),
            purpose: Purpose::Connect,
        };
        let timeout = self.options.config.connack_timeout;
        self.alongside(Dialogue::begin(authenticator, occasion), timeout)
            .await?
            .transpose()
    }

    /// Where the connection leads decides which session it goes on with.
    fn prepare(&mut self, attempt: &Attempt) -> Result<()> {
        self.options.check_will(&attempt.credentials)?;
        let moved = self
            .home
            .as_ref()
            .is_some_and(|home| !self.routes.are_one_broker(home, &attempt.endpoint));
        let forgets = moved && !attempt.shares_sessions;
        if forgets && self.left.is_none() {
            self.left.clone_from(&self.home);
        }
        self.guard.0.with(|state| {
            if forgets {
                state.protocol.forget_session();
            }
            state.speak(self.fallback.version());
            state.endpoint = Some(self.options.told(&attempt.endpoint));
            if state.protocol.is_keeping() {
                state.protocol.set_place(&attempt.endpoint.to_string());
            }
            // What was asked on an earlier connection.
            state.ask = None;
        });
        Ok(())
    }

    /// Sends CONNECT on a transport that is open.
    fn begin(&self, attempt: &Attempt, login: Option<&Login>) -> Result<()> {
        let now = self.options.clock.now();
        let credentials = &attempt.credentials;
        self.guard.0.with(|state| match login {
            Some(login) => state
                .protocol
                .connect_authenticated(now, credentials, login),
            None => state.protocol.connect(now, credentials),
        })
    }

    /// Runs a connection to its end.
    async fn serve(&mut self, mut connection: Connection) -> Next {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let outcome = connection
            .run(&shared, &*clock, &mut self.alarm, &mut self.keeper)
            .await;
        let connected_at = shared.with(|state| state.connected_at.take());
        let held = connected_at.map(|since| clock.now() - since);
        if let Some(held) = held {
            self.home.clone_from(&self.target);
            self.left = None;
            self.routes.worked();
            self.fallback.worked();
            self.reconnect.connection_ended(held);
        }
        match outcome {
            Outcome::Again => {
                self.home.clone_from(&self.target);
                self.fallback.worked();
                self.goodbye(&mut connection).await;
                shared.with(|state| state.protocol.disconnected(End::Otherwise));
                Next::Connect
            }
            Outcome::Left => {
                let left = self.leave(&mut connection).await;
                shared.with(|state| state.protocol.disconnected(End::Otherwise));
                match held {
                    Some(_) => shared.with(|state| state.tell(&Event::Left)),
                    None => self.return_home(),
                }
                left
            }
            Outcome::Failed(error, end) => {
                if shared.with(|state| state.protocol.is_leaving()) {
                    // The broker is told what it did wrong.
                    self.goodbye(&mut connection).await;
                }
                shared.with(|state| state.protocol.disconnected(end));
                // Without DISCONNECT: this is an end for which there is a will.
                if let Some(error) = self.keeper.failure() {
                    return Next::End(Err(error));
                }
                match held {
                    Some(_) => self.link_lost(error),
                    None => self.not_let_in(error.while_doing(Doing::Connecting)),
                }
            }
        }
    }

    /// The user wants to leave this connection: says so to the broker.
    async fn leave(&mut self, connection: &mut Connection) -> Next {
        let shared = self.guard.0.clone();
        shared.with(|state| {
            let (reason, properties) = match &state.wanted {
                Wanted::Leave {
                    reason, properties, ..
                } => (*reason, properties.clone()),
                Wanted::Connection | Wanted::Reconnect | Wanted::Nothing => {
                    (Reason::SUCCESS, Properties::new())
                }
            };
            // Properties too large for this broker are no reason to stay. Words go first: they alone may be
            // left out [MQTT-3.14.2-3, -4]. What is left may still be nine bytes.
            let protocol = &mut state.protocol;
            if protocol.disconnect(reason, properties.list()).is_err()
                && protocol
                    .disconnect(reason, properties.without_words().list())
                    .is_err()
            {
                let _ = protocol.disconnect(reason, PropertyList::EMPTY);
            }
        });
        self.goodbye(connection).await;
        Next::Connect
    }

    async fn goodbye(&mut self, connection: &mut Connection) {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        let mut closing = pin!(connection.close(&shared, &*clock));
        let limit = clock.now() + GOODBYE;
        std::future::poll_fn(|cx| {
            loop {
                if closing.as_mut().poll(cx).is_ready() || clock.now() >= limit {
                    return Poll::Ready(());
                }
                // The alarm may still be set to something earlier.
                if self.alarm.poll(&*clock, Some(limit), cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// What the user wants when there is no connection.
    async fn interrupted(&mut self) -> Next {
        if let Some(error) = self.keeper.failure() {
            return Next::End(Err(error));
        }
        let shared = self.guard.0.clone();
        if shared
            .with(|state| state.check_open(Doing::Connected))
            .is_err()
        {
            self.keep_the_rest().await;
        }
        let (result, waits) = shared.with(|state| match &state.wanted {
            Wanted::Connection => (None, Vec::new()),
            Wanted::Reconnect => {
                state.wanted = Wanted::Connection;
                (None, Vec::new())
            }
            Wanted::Leave { .. } | Wanted::Nothing => {
                let unacknowledged = state.protocol.unfinished() + state.protocol.pending_qos0();
                let waits = std::mem::take(&mut state.conditions.closed);
                (Some(unacknowledged), waits)
            }
        });
        let Some(unacknowledged) = result else {
            return Next::Connect;
        };
        let left = match unacknowledged {
            0 => Ok(()),
            count => Err(Error::new(
                ErrorKind::Unacknowledged(count),
                Doing::Disconnecting,
            )),
        };
        shared.with(|state| {
            for token in waits {
                state.finish(token, left.clone().map(|()| Done::Sent));
            }
        });
        // The caller of disconnect() is told what stayed; for the driver it is a good end.
        Next::End(Ok(()))
    }

    fn link_lost(&mut self, error: Error) -> Next {
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
    fn not_let_in(&mut self, error: Error) -> Next {
        if self.fallback.failed(&error) {
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

    fn attempt_failed(&mut self, failed: Failed) -> Next {
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
    fn return_home(&mut self) {
        if let Some(home) = self.left.take() {
            self.home = Some(home);
        }
        self.guard.0.with(|state| state.protocol.remember_session());
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

    /// Waits before the next attempt, unless the user wants something.
    async fn pause(&mut self, delay: Duration) {
        // Nothing is waited for but time, so the end of the delay is no error.
        let _ = self.alongside(std::future::pending::<()>(), delay).await;
    }

    /// Waits for `future` and keeps house meanwhile: waits time out, dropped handles are noticed. None
    /// if the user wants something else.
    ///
    /// # Errors
    /// It took longer than `limit`.
    async fn alongside<T>(
        &mut self,
        future: impl Future<Output = T>,
        limit: Duration,
    ) -> Result<Option<T>> {
        let shared = self.guard.0.clone();
        let clock = Rc::clone(&self.options.clock);
        // A limit beyond the end of time is none.
        let end = clock.now().checked_add(limit);
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            loop {
                let now = clock.now();
                let goes_on = shared.with(|state| {
                    state.begin_turn(now);
                    let timeout = state.protocol.handle_timeout(now);
                    debug_assert!(timeout.is_ok(), "offline nothing can time out");
                    state.protocol.pump(now);
                    matches!(state.wanted, Wanted::Connection)
                });
                match self.keeper.poll(now, &shared, &*clock, cx) {
                    Ok(true) => continue,
                    Ok(false) if goes_on => {}
                    Ok(false) | Err(_) => return Poll::Ready(Ok(None)),
                }
                if let Poll::Ready(value) = future.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Some(value)));
                }
                if end.is_some_and(|end| now >= end) {
                    let kind = ErrorKind::TimedOut(limit);
                    return Poll::Ready(Err(Error::new(kind, Doing::Connecting)));
                }
                let deadline = shared.with(|state| {
                    state.end_turn(cx.waker());
                    state.poll_timeout().into_iter().chain(end).min()
                });
                if self.alarm.poll(&*clock, deadline, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
