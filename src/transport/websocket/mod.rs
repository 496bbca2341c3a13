//! MQTT in a WebSocket (RFC 6455; MQTT 5.0, chapter 6).
//!
//! This file holds what a user sets. `upgrade` turns HTTP into a WebSocket, `frames` is the stream of
//! bytes that comes of it, `unpack` and `pack` are its two directions.

mod frames;
mod pack;
mod unpack;
mod upgrade;
#[cfg(test)]
mod wire;

use std::fmt;
use std::rc::Rc;

#[cfg(feature = "testkit")]
use super::BoxedTransport;
use super::Endpoint;
use crate::clock::LocalBoxFuture;
use crate::error::Result;

pub(crate) use upgrade::upgrade;

/// The stream of bytes in the frames of an open WebSocket.
#[cfg(feature = "testkit")]
pub(crate) fn frames(inner: BoxedTransport, endpoint: &Endpoint) -> BoxedTransport {
    Box::pin(frames::Frames::new(
        inner,
        bytes::BytesMut::new(),
        endpoint.host(),
    ))
}

type Rewrite = Rc<dyn Fn(Upgrade) -> LocalBoxFuture<Result<Upgrade>>>;

/// How the upgrade to a WebSocket is asked for.
///
/// ```
/// use coracle::WebSocket;
///
/// let websocket = WebSocket::new()
///     .header("User-Agent", "pump/1.4")
///     .rewrite(|upgrade| Box::pin(async move {
///         // A service that signs could be asked here.
///         let target = format!("{}?signature=5f4dcc3b", upgrade.target());
///         Ok(upgrade.with_target(&target))
///     }));
/// # let _ = websocket;
/// ```
#[derive(Clone, Default)]
#[must_use = "it has an effect only in the options of a client"]
pub struct WebSocket {
    headers: Headers,
    rewrite: Option<Rewrite>,
}

impl WebSocket {
    /// An upgrade with no header but those that every WebSocket has.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header to each upgrade request. One of the same name that was added before is replaced.
    ///
    /// What cannot be sent is an error of each attempt, with [`Cause::Settings`](crate::Cause::Settings):
    /// a name or a value that is not one, and a name that is not the user's to set (`Host`, `Upgrade`,
    /// `Connection`, `Sec-WebSocket-…`, `Content-Length`, `Transfer-Encoding`).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Sets a callback that may rewrite the request at each attempt: for a signed URL, or a token that
    /// has to be fresh.
    ///
    /// It is called when the connection below stands, and its time counts as that of the attempt. If it
    /// fails, the attempt fails with its error and nothing is sent.
    pub fn rewrite(
        mut self,
        rewrite: impl Fn(Upgrade) -> LocalBoxFuture<Result<Upgrade>> + 'static,
    ) -> Self {
        self.rewrite = Some(Rc::new(rewrite));
        self
    }

    /// The request of one attempt.
    ///
    /// # Errors
    /// That of the user's callback.
    async fn request(&self, endpoint: &Endpoint) -> Result<Upgrade> {
        let request = Upgrade {
            host: host(endpoint),
            target: endpoint.path_and_query().to_owned(),
            headers: self.headers.clone(),
        };
        match &self.rewrite {
            Some(rewrite) => rewrite(request).await,
            None => Ok(request),
        }
    }
}

/// The `Host` header. Without the port that its scheme has anyway, as browsers write it: a server, or a
/// signature, that compares it would not find itself in `broker.example:443`.
fn host(endpoint: &Endpoint) -> String {
    let mut authority = endpoint.authority();
    if endpoint.port() == endpoint.kind().default_port() {
        let end = authority.rfind(':').unwrap_or(authority.len());
        authority.truncate(end);
    }
    authority
}

impl fmt::Debug for WebSocket {
    /// Without the values of the headers, which may be tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("headers", &self.headers)
            .field("rewrite", &self.rewrite.is_some())
            .finish()
    }
}

/// One upgrade request, as the callback of [`WebSocket::rewrite`] gets and returns it.
#[must_use = "the callback has to return it"]
pub struct Upgrade {
    host: String,
    target: String,
    headers: Headers,
}

impl Upgrade {
    /// The host as in the `Host` header: with its port unless that is the scheme's own, and with
    /// brackets around an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Replaces the path and the query. It begins with a slash, has no fragment, and what is not a
    /// visible ASCII character is percent-encoded; else the attempt fails with
    /// [`Cause::Settings`](crate::Cause::Settings).
    pub fn with_target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a header to this request, in place of one of the same name. See [`WebSocket::header`].
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Whether it can be sent. A line end in it would let its author write the rest of the request.
    ///
    /// # Errors
    /// What is wrong, without the values, which may be secrets.
    fn check(&self) -> std::result::Result<(), String> {
        let sendable = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !self.target.starts_with('/') || !self.target.bytes().all(sendable) {
            return Err(
                "the target of the upgrade does not begin with a slash, or has a fragment or a \
                 character that has to be percent-encoded"
                    .to_owned(),
            );
        }
        for (name, value) in &self.headers.0 {
            if name.is_empty() || !name.bytes().all(is_of_a_token) {
                return Err(format!("{name:?} is not the name of a header"));
            }
            if is_ours(name) {
                return Err(format!("the header {name} is not the user's to set"));
            }
            if value.chars().any(char::is_control) {
                return Err(format!("the header {name} has a control character in it"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Upgrade {
    /// Without the query and the values of the headers, which may be signatures and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        f.debug_struct("Upgrade")
            .field("host", &self.host)
            .field("path", &path)
            .field("headers", &self.headers)
            .finish()
    }
}

/// What the name of a header is made of (RFC 9110, 5.6.2).
fn is_of_a_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Headers that the upgrade has itself, and those that would announce a body that never comes.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 5] = [
        "host",
        "upgrade",
        "connection",
        "content-length",
        "transfer-encoding",
    ];
    let name = name.to_ascii_lowercase();
    OURS.contains(&name.as_str()) || name.starts_with("sec-websocket-")
}

/// Names and values, each name once.
#[derive(Clone, Default)]
struct Headers(Vec<(Rc<str>, Rc<str>)>);

impl Headers {
    fn set(&mut self, name: &str, value: &str) {
        self.0
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.into(), value.into()));
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}
