//! One proxy: how it is written as a URL, and how a conversation with it is led.

use std::fmt;
use std::io;
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use percent_encoding::percent_decode_str;

use super::super::BoxedTransport;
use super::super::endpoint::{Endpoint, parse_port, split_port};
use super::{http, socks5};
use crate::obstacle::{Cause, Obstacle, Step};

/// One proxy, and who we are there.
#[derive(Clone)]
pub(crate) struct Server {
    protocol: Protocol,
    /// Without brackets.
    host: Rc<str>,
    port: u16,
    login: Option<Login>,
}

/// What is spoken with the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Socks5,
}

impl Protocol {
    const NAMES: [(&'static str, Self); 3] = [
        ("http", Self::Http),
        ("socks5", Self::Socks5),
        // Elsewhere the `h` says that the proxy looks up the name of the host. Here it always does: what
        // a device behind a proxy can look up itself is often only the name of the proxy.
        ("socks5h", Self::Socks5),
    ];

    /// Compared without regard to case, as in every URL (RFC 3986, section 3.1).
    fn parse(name: &str) -> Result<Self, String> {
        for (known, protocol) in Self::NAMES {
            if name.eq_ignore_ascii_case(known) {
                return Ok(protocol);
            }
        }
        if name.eq_ignore_ascii_case("https") {
            return Err("TLS with the proxy itself (https) is not supported".to_owned());
        }
        let known = Self::NAMES.map(|(name, _)| name).join(", ");
        // Quoted only if it is a scheme (RFC 3986, section 3.1): a password may hold `://` too.
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !name.bytes().all(is_scheme) {
            return Err(format!("what stands before :// is none of {known}"));
        }
        Err(format!("the scheme {name:?} is unknown; known are {known}"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            // RFC 9110, section 4.2.1. Proxies have no port of their own: 3128 and 8080 are both usual.
            Self::Http => 80,
            // Registered with IANA (RFC 1928, section 3).
            Self::Socks5 => 1080,
        }
    }
}

/// A user name and a password. They are bytes: a URL may percent-encode any. Never shown.
#[derive(Clone)]
pub(super) struct Login {
    user_name: Rc<[u8]>,
    password: Rc<[u8]>,
}

impl Login {
    pub(super) fn new(user_name: &[u8], password: &[u8]) -> Self {
        Self {
            user_name: user_name.into(),
            password: password.into(),
        }
    }

    /// From what stands before the `@` of a URL.
    fn decode(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (user_name, password) = text.split_once(':').unwrap_or((text, ""));
        let [user_name, password] =
            [user_name, password].map(|part| percent_decode_str(part).collect::<Vec<u8>>());
        Some(Self::new(&user_name, &password))
    }

    pub(super) fn user_name(&self) -> &[u8] {
        &self.user_name
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.password
    }
}

impl Server {
    /// Reads a URL. What is wrong with it is said without a word out of it that may be a password.
    pub(in crate::transport) fn parse(url: &str) -> Result<Self, String> {
        let (protocol, rest) = match url.split_once("://") {
            Some((name, rest)) => (Protocol::parse(name)?, rest),
            None => (Protocol::Http, url),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // Many write a slash at the end. First of all: a password with a slash in it ends up here, and
        // what is left before the slash looks like host and port.
        if !matches!(target, "" | "/") {
            return Err(
                "behind host and port nothing may stand; in a password / ? # are written %2F %3F %23"
                    .to_owned(),
            );
        }
        // At the last one: who forgets to encode an `@` means it as part of the password.
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => (Login::decode(login), authority),
            None => (None, authority),
        };
        // Their errors speak of an endpoint and quote what stands there: in `user:secret` without a host
        // that is the password.
        let (host, port) = split_port(authority).map_err(|_| {
            "host and port are not readable; an IPv6 address stands in brackets, a port behind a colon"
        })?;
        if host.is_empty() {
            return Err("the host is empty".to_owned());
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("the host contains a space or a control character".to_owned());
        }
        let port = match port {
            Some(digits) => {
                parse_port(digits).map_err(|_| "the port is not a number from 1 to 65535")?
            }
            None => protocol.default_port(),
        };
        Ok(Self {
            protocol,
            host: host.into(),
            port,
            login,
        })
    }

    pub(super) fn set_login(&mut self, login: Login) {
        self.login = Some(login);
    }

    /// Why its user name and password cannot be told to it.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let login = self.login.as_ref()?;
        match self.protocol {
            Protocol::Http => http::fault(login),
            Protocol::Socks5 => socks5::fault(login),
        }
    }

    /// The host to connect to, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Asks the proxy, over this open connection to it, to connect on to the endpoint. What comes back
    /// is a connection to the endpoint, with all that the endpoint has sent.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection to the proxy.
    pub(crate) async fn connect_on(
        &self,
        stream: BoxedTransport,
        endpoint: &Endpoint,
    ) -> io::Result<BoxedTransport> {
        let mut talk = Talk {
            stream,
            with: self.to_string(),
        };
        // Told before, by `Proxy::check`; here for who has not asked it.
        if let Some(fault) = self.fault() {
            return Err(talk.stopped(Cause::Settings(fault.into())));
        }
        let login = self.login.as_ref();
        match self.protocol {
            Protocol::Http => http::connect(&mut talk, &endpoint.authority(), login).await?,
            Protocol::Socks5 => {
                socks5::connect(&mut talk, endpoint.host(), endpoint.port(), login).await?;
            }
        }
        Ok(talk.stream)
    }
}

impl fmt::Display for Server {
    /// As a URL with its port, without user name and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            host,
            port,
            login: _,
        } = self;
        if host.contains(':') {
            write!(f, "{}://[{host}]:{port}", protocol.name())
        } else {
            write!(f, "{}://{host}:{port}", protocol.name())
        }
    }
}

impl fmt::Debug for Server {
    /// As `Display`: a user name may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The conversation with a proxy over an open connection.
pub(super) struct Talk {
    stream: BoxedTransport,
    /// The proxy, for errors.
    with: String,
}

impl Talk {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| self.failed(&error))
    }

    /// Exactly so many bytes and none behind them: those belong to the broker, and there is no way to put
    /// them back into the stream.
    pub(super) async fn receive(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let received = self.stream.read_exact(bytes).await;
        received.map_err(|error| self.failed(&error))
    }

    pub(super) async fn receive_byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.receive(&mut byte).await?;
        let [byte] = byte;
        Ok(byte)
    }

    /// The error with which the conversation is over.
    pub(super) fn stopped(&self, cause: Cause) -> io::Error {
        Obstacle::new(Step::Proxy, self.with.as_str(), cause).into()
    }

    fn failed(&self, error: &io::Error) -> io::Error {
        Obstacle::io(Step::Proxy, &self.with, error).into()
    }
}
