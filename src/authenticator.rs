//! Enhanced authentication as a program sees it: who makes the data, and who looks at the server's.

#[cfg(feature = "auth")]
mod sas;
#[cfg(feature = "auth")]
mod scram;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::properties::PropertyList;
use crate::protocol::AuthStep;
use crate::transport::Endpoint;

#[cfg(feature = "auth")]
pub use sas::SasToken;
#[cfg(feature = "auth")]
pub use scram::{Scram, ScramHash};

/// A boxed future that stays on its thread and may borrow from what it was made of.
pub type AuthFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// A method of enhanced authentication (MQTT 5, section 4.12), set with
/// [`Options::authenticator`](crate::Options::authenticator).
///
/// It is asked to start an [`Exchange`] before each CONNECT, and again whenever the connection is to be
/// authenticated anew: by [`Client::reauthenticate`](crate::Client::reauthenticate), or because an exchange
/// said at its end after which time its credential has to be renewed. Nothing of one exchange is left
/// for the next one, unless the authenticator itself keeps it.
///
/// Every callback may take time; meanwhile the other tasks of the thread run. Each step has the time of
/// [`Options::connack_timeout`](crate::Options::connack_timeout). Data that a callback hands out is never
/// logged, and errors that it makes are: they must not hold a secret.
///
/// ```
/// use coracle::{AuthFuture, AuthStep, Authenticator, Exchange, Occasion, Options};
///
/// /// A token that a server looks at and that needs no answer.
/// struct Token(String);
/// struct Handed;
///
/// impl Authenticator for Token {
///     fn method(&self) -> &str {
///         "OAUTH2-JWT"
///     }
///
///     fn start<'a>(&'a self, _: &'a Occasion) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
///         Box::pin(async {
///             let step = AuthStep::new().data(self.0.as_str());
///             Ok((step, Box::new(Handed) as Box<dyn Exchange>))
///         })
///     }
/// }
///
/// impl Exchange for Handed {}
///
/// # fn main() -> coracle::Result<()> {
/// let options = Options::new("mqtt://localhost", "pump-1")?.authenticator(Token("eyJ0".into()));
/// # let _ = options; Ok(()) }
/// ```
pub trait Authenticator {
    /// The Authentication Method: a name that client and server agree on.
    fn method(&self) -> &str;

    /// Begins an exchange: what CONNECT says, or the AUTH that begins a re-authentication, and who goes on
    /// from there.
    ///
    /// The transport is open when this is called for a CONNECT. Servers close a connection on which no
    /// CONNECT comes for some seconds, so what takes long is better done ahead.
    ///
    /// # Errors
    /// [`Error::no_credential`]. The attempt to connect has failed; a re-authentication does not begin,
    /// and the connection stays as it is.
    fn start<'a>(&'a self, occasion: &'a Occasion)
    -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)>;

    /// Whether the server proves nothing in this method. Then a success that does not repeat the method is
    /// let pass: at least one large cloud leaves it out, against [MQTT-4.12.0-5]. Defaults to false.
    fn is_one_sided(&self) -> bool {
        false
    }
}

/// One exchange of an [`Authenticator`], from its first step to its end.
///
/// The default methods are those of an exchange in which the client speaks once and believes any server.
pub trait Exchange {
    /// The server has sent a challenge: an AUTH with these properties, the Authentication Data among them.
    ///
    /// # Errors
    /// [`Error::unproven`] if the challenge makes no sense, [`Error::no_credential`] if there is no answer.
    /// Either ends the connection.
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        let _ = server;
        Box::pin(async {
            Err(Error::unproven(
                "it sent a challenge in a method without one",
            ))
        })
    }

    /// The server says that the client is authenticated: with CONNACK, or with AUTH at a
    /// re-authentication, whose properties these are. What it sends to prove who it is itself is in the
    /// Authentication Data.
    ///
    /// Returns after which time the credential has to be renewed, which the driver then does by itself;
    /// none for never.
    ///
    /// # Errors
    /// [`Error::unproven`] if the server is not the one it should be. The connection is ended, before any
    /// other packet is sent on it if this was its CONNACK.
    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        let _ = server;
        Box::pin(async { Ok(None) })
    }
}

/// What an exchange is for: which client, at which broker, and when.
#[derive(Debug, Clone)]
pub struct Occasion {
    pub(crate) client_id: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) unix_time: Duration,
    pub(crate) purpose: Purpose,
}

/// Which packet begins the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Connect,
    Renewal,
}

impl Occasion {
    /// A CONNECT, for tests.
    #[cfg(all(test, feature = "auth"))]
    fn of(client_id: &str, url: &str) -> Self {
        Self {
            client_id: client_id.into(),
            endpoint: Endpoint::parse(url).expect("the URL is well-formed"),
            unix_time: Duration::ZERO,
            purpose: Purpose::Connect,
        }
    }

    /// The client identifier of CONNECT, or the one that the broker chose.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Where the connection leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The wall clock: the time since 1970-01-01T00:00:00Z, as the clock of the options tells it.
    pub fn unix_time(&self) -> Duration {
        self.unix_time
    }

    /// Whether a connection that is open is authenticated again.
    pub fn is_renewal(&self) -> bool {
        self.purpose == Purpose::Renewal
    }
}
