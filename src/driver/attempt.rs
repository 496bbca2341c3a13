//! One attempt to connect, up to CONNECT: where it leads, with which credentials, for which session.

use std::rc::Rc;

use super::Driver;
use super::failure::Failed;
use crate::authenticator::{Authenticator, Occasion, Purpose};
use crate::connection::Connection;
use crate::dialogue::Dialogue;
use crate::error::{Doing, Error, Result};
use crate::options::Attempt;
use crate::protocol::Login;
use crate::transport::Endpoint;

impl Driver {
    /// Opens the transport, begins an authentication and sends CONNECT. None if the user wants something else
    /// meanwhile.
    pub(super) async fn open(&mut self) -> std::result::Result<Option<Connection>, Failed> {
        let endpoint = self.routes.target(self.options.clock.now());
        self.target = Some(endpoint.clone());
        let attempt = Attempt {
            failed_before: self.reconnect.attempts(),
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
        let home = self.home.endpoint.as_ref();
        let moved = home.is_some_and(|home| !self.routes.are_one_broker(home, &attempt.endpoint));
        let forgets = moved && !attempt.shares_sessions;
        if forgets && self.home_before.is_none() {
            self.home_before = Some(self.home.clone());
        }
        // What was spoken elsewhere says nothing of this broker.
        self.goes_on_in = self.home.spoken.filter(|_| !forgets);
        let version = self.goes_on_in.unwrap_or_else(|| self.fallback.version());
        self.guard.0.with(|state| {
            if forgets {
                state.protocol.forget_session();
            }
            state.speak(version);
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
}
