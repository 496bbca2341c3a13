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
//!
//! What happens in one attempt is in `attempt`, what follows from a failure in `failure`, how a connection and
//! the driver end in `parting`, and how the session of an earlier process is taken over in `heritage`.

mod attempt;
mod failure;
mod heritage;
mod parting;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::yield_now;

use crate::alarm::Alarm;
use crate::connection::{Connection, Outcome};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::event::Event;
use crate::fallback::Fallback;
use crate::keeper::Keeper;
use crate::options::{Options, Order};
use crate::protocol::End;
use crate::reconnect::{Decision, Reconnect};
use crate::routes::Routes;
use crate::shared::{Shared, Wanted};
use crate::transport::{Connector, Endpoint};
use crate::version::Version;

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
    home: Home,
    /// The home to come back to if the broker that is tried does not let us in.
    home_before: Option<Home>,
    /// Where the attempt at hand leads.
    target: Option<Endpoint>,
    /// The version of the session with which the attempt at hand goes on, if that is one of [`Home::spoken`].
    goes_on_in: Option<Version>,
}

/// Where the session is.
#[derive(Debug, Clone, Default)]
struct Home {
    /// Where the last connection led.
    endpoint: Option<Endpoint>,
    /// The version of the session there, if an earlier process began it and this one was not let in yet. It
    /// says nothing of other brokers.
    spoken: Option<Version>,
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
            home: Home::default(),
            home_before: None,
            target: None,
            goes_on_in: None,
            options,
        }
    }

    /// Connects and stays connected until the client is disconnected or all its handles are dropped.
    ///
    /// All of Coracle runs inside this future. When it ends, returns an error, panics or is dropped,
    /// every wait and every stream of the client ends with [`ErrorKind::Closed`], and its handlers are
    /// dropped. What streams still hold can be read, but for what a store leaves to the next process: see
    /// [`Options::store`].
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
            self.settle_at_target();
            self.home_before = None;
            self.routes.worked();
            self.version_worked();
            self.reconnect.connection_ended(held);
        }
        match outcome {
            Outcome::Again => {
                // For now: `home_before` stays known until this broker lets us in for good.
                self.settle_at_target();
                self.version_worked();
                self.goodbye(&mut connection).await;
                shared.with(|state| state.protocol.disconnected(End::Otherwise));
                Next::Connect
            }
            Outcome::Left => {
                self.leave(&mut connection).await;
                shared.with(|state| state.protocol.disconnected(End::Otherwise));
                match held {
                    Some(_) => shared.with(|state| state.tell(&Event::Left)),
                    None => self.return_home(),
                }
                // Or to the end, if that is wanted: `interrupted` comes first.
                Next::Connect
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

    /// The session is where the connection leads.
    fn settle_at_target(&mut self) {
        self.home = Home {
            endpoint: self.target.clone(),
            spoken: None,
        };
    }

    /// The broker has let us in.
    fn version_worked(&mut self) {
        match self.goes_on_in {
            Some(version) => self.fallback.remember(version),
            None => self.fallback.worked(),
        }
    }

    /// Waits before the next attempt, unless the user wants something.
    async fn pause(&mut self, delay: Duration) {
        // However short the delay is: an attempt may fail at once, and the others have their turn first.
        yield_now().await;
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
                self.keeper.date(now, &shared, &*clock);
                let goes_on = shared.with(|state| {
                    state.begin_turn(now);
                    let timeout = state.protocol.handle_timeout(now);
                    debug_assert!(timeout.is_ok(), "offline nothing can time out");
                    state.protocol.pump(now);
                    matches!(state.wanted, Wanted::Connection)
                });
                match self.keeper.poll(&shared, cx) {
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
