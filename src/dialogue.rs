//! The talk between the protocol and the user's authenticator, on one connection.
//!
//! ```text
//!     Quiet ── the protocol asks ──► Thinking ── the authenticator answers ──► Quiet
//! ```
//!
//! The authenticator's future is polled in the driver's turn and never while the state is borrowed. It
//! is dropped with its connection, so that no answer reaches the wrong one.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::authenticator::{Authenticator, Exchange, Occasion, Purpose};
use crate::clock::{Clock, LocalBoxFuture};
use crate::error::{Error, Result};
use crate::protocol::{Ask, AuthStep, Login};
use crate::shared::Shared;

/// The authentication of one connection.
pub(crate) struct Dialogue {
    authenticator: Rc<dyn Authenticator>,
    occasion: Occasion,
    state: State,
}

enum State {
    /// The exchange goes on when the protocol asks; none if an answer to it never came.
    Quiet(Option<Box<dyn Exchange>>),
    /// The authenticator has the word, and the exchange with it.
    Thinking(LocalBoxFuture<(Answer, Option<Box<dyn Exchange>>)>),
}

/// What the authenticator says.
enum Answer {
    Step(Result<AuthStep>),
    Verdict(Result<Option<Duration>>),
}

impl Dialogue {
    /// Asks for the first data, those of CONNECT.
    pub(crate) async fn begin(
        authenticator: Rc<dyn Authenticator>,
        occasion: Occasion,
    ) -> Result<(Login, Self)> {
        let (step, exchange) = authenticator.start(&occasion).await?;
        let login = Login {
            method: authenticator.method().into(),
            step,
            one_sided: authenticator.is_one_sided(),
        };
        let dialogue = Self {
            authenticator,
            occasion,
            state: State::Quiet(Some(exchange)),
        };
        Ok((login, dialogue))
    }

    /// Carries questions and answers. Returns whether an answer was given.
    ///
    /// # Errors
    /// The connection has to end.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        shared: &Shared,
        clock: &dyn Clock,
        cx: &mut Context<'_>,
    ) -> Result<bool> {
        let asked = shared.with(|state| {
            let ask = state.ask.take()?;
            Some((ask, state.protocol.client_id().to_owned()))
        });
        if let Some((ask, client_id)) = asked {
            let state = std::mem::replace(&mut self.state, State::Quiet(None));
            let exchange = match state {
                State::Quiet(exchange) => exchange,
                State::Thinking(_) => None,
            };
            self.state = State::Thinking(self.think(ask, exchange, client_id, clock));
        }
        let State::Thinking(thinking) = &mut self.state else {
            return Ok(false);
        };
        let Poll::Ready((answer, exchange)) = thinking.as_mut().poll(cx) else {
            return Ok(false);
        };
        self.state = State::Quiet(exchange);
        shared.with(|state| match answer {
            Answer::Step(step) => state.protocol.answer(now, step),
            Answer::Verdict(verdict) => state.protocol.verified(now, verdict),
        })?;
        Ok(true)
    }

    fn think(
        &self,
        ask: Ask,
        exchange: Option<Box<dyn Exchange>>,
        client_id: String,
        clock: &dyn Clock,
    ) -> LocalBoxFuture<(Answer, Option<Box<dyn Exchange>>)> {
        // The protocol asks for nothing more of an exchange that has failed.
        let lost = || Error::no_credential("the exchange has ended");
        match ask {
            Ask::Begin => {
                let authenticator = Rc::clone(&self.authenticator);
                let occasion = Occasion {
                    client_id,
                    unix_time: clock.unix_time(),
                    purpose: Purpose::Renewal,
                    ..self.occasion.clone()
                };
                Box::pin(async move {
                    match authenticator.start(&occasion).await {
                        Ok((step, exchange)) => (Answer::Step(Ok(step)), Some(exchange)),
                        Err(error) => (Answer::Step(Err(error)), None),
                    }
                })
            }
            Ask::Proceed(server) => Box::pin(async move {
                let Some(mut exchange) = exchange else {
                    return (Answer::Step(Err(lost())), None);
                };
                let step = exchange.proceed(server.list()).await;
                (Answer::Step(step), Some(exchange))
            }),
            // With its end the exchange is dropped, and what it knew.
            Ask::Finish(server) => Box::pin(async move {
                let Some(mut exchange) = exchange else {
                    return (Answer::Verdict(Err(lost())), None);
                };
                let verdict = exchange.finish(server.list()).await;
                (Answer::Verdict(verdict), None)
            }),
        }
    }
}
