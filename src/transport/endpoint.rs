//! Where the broker is, and what lies between MQTT and the network: an endpoint, written as a URL.

use std::fmt;
use std::net::Ipv6Addr;
use std::rc::Rc;

use crate::error::{Error, Result};

/// The path of a WebSocket if the URL names none: what the clouds use, and mosquitto takes any.
const WEBSOCKET_PATH: &str = "/mqtt";

/// Where the broker is, and by which way it is reached. Written as a URL: see [`Endpoint::parse`].
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    /// The host, without brackets; the path of a Unix socket.
    host: Rc<str>,
    /// 0 for a Unix socket.
    port: u16,
    /// The path and the query of a WebSocket; else empty.
    target: Rc<str>,
    /// The application protocols to offer in TLS, if this way has its own.
    alpn: Option<Rc<[Rc<str>]>>,
    via: Via,
}

/// What lies between the bytes of MQTT and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Nothing: plain TCP.
    Tcp,
    Tls,
    WebSocket,
    /// A WebSocket on TLS.
    SecureWebSocket,
    /// A Unix socket.
    Unix,
}

/// Whether the proxy of the options, if there is one, is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// If it is meant for this host.
    AsSet,
    /// No.
    Direct,
    /// Yes.
    #[cfg_attr(
        not(feature = "proxy"),
        expect(dead_code, reason = "only a rung through the proxy asks for it")
    )]
    Proxy,
}

impl Scheme {
    /// The names by which a URL asks for a scheme. Brokers' documentation uses either for TCP and TLS.
    const NAMES: [(&'static str, Self); 7] = [
        ("mqtt", Self::Tcp),
        ("tcp", Self::Tcp),
        ("mqtts", Self::Tls),
        ("tls", Self::Tls),
        ("ws", Self::WebSocket),
        ("wss", Self::SecureWebSocket),
        ("unix", Self::Unix),
    ];

    /// Compared without regard to case, as in every URL (RFC 3986, section 3.1).
    fn parse(name: &str) -> Result<Self> {
        for (known, scheme) in Self::NAMES {
            if name.eq_ignore_ascii_case(known) {
                return scheme.check(known);
            }
        }
        let known = Self::NAMES.map(|(name, _)| name).join(", ");
        // Quoted only if it is a scheme (RFC 3986, section 3.1): a password may hold `://` too.
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !name.bytes().all(is_scheme) {
            return Err(Error::misuse(format!(
                "what stands before :// in the endpoint is none of {known}"
            )));
        }
        Err(Error::misuse(format!(
            "the scheme {name:?} of the endpoint is unknown; known are {known}"
        )))
    }

    /// Whether what has no `://` may have no scheme at all. `mqtt:1883` is a host and a port, `mqtt:/host` a
    /// slip, of which the next error would be hard to understand.
    fn check_left_out(url: &str) -> Result<()> {
        let end = url.find([':', '/']).unwrap_or(url.len());
        let (name, rest) = url.split_at(end);
        let is_port = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
        if rest.strip_prefix(':').unwrap_or(rest).is_empty()
            || rest.strip_prefix(':').is_some_and(is_port)
        {
            return Ok(());
        }
        match Self::NAMES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
        {
            Some((known, _)) => Err(Error::misuse(format!(
                "the scheme {known:?} of the endpoint is not followed by ://"
            ))),
            None => Ok(()),
        }
    }

    /// Whether this build of the crate can do it.
    fn check(self, name: &str) -> Result<Self> {
        let missing = if self.is_tls() && !cfg!(feature = "tls") {
            "was built without its feature `tls`"
        } else if self.is_websocket() && !cfg!(feature = "websocket") {
            "was built without its feature `websocket`"
        } else if self == Self::Unix && !cfg!(unix) {
            "finds no Unix sockets on this system"
        } else {
            return Ok(self);
        };
        Err(Error::misuse(format!(
            "the endpoint has the scheme {name:?}, but coracle {missing}"
        )))
    }

    pub(super) fn default_port(self) -> u16 {
        match self {
            // Both are registered with IANA for MQTT.
            Self::Tcp => 1883,
            Self::Tls => 8883,
            // Those of HTTP (RFC 6455, section 3).
            Self::WebSocket => 80,
            Self::SecureWebSocket => 443,
            Self::Unix => 0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtts",
            Self::WebSocket => "ws",
            Self::SecureWebSocket => "wss",
            Self::Unix => "unix",
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        match self {
            Self::Tls | Self::SecureWebSocket => true,
            Self::Tcp | Self::WebSocket | Self::Unix => false,
        }
    }

    pub(crate) fn is_websocket(self) -> bool {
        match self {
            Self::WebSocket | Self::SecureWebSocket => true,
            Self::Tcp | Self::Tls | Self::Unix => false,
        }
    }
}

impl Endpoint {
    /// Reads a URL:
    ///
    /// | URL                            | way                 | port, if none is named |
    /// |--------------------------------|---------------------|------------------------|
    /// | `mqtt://host`, `tcp://host`    | TCP                 | 1883                   |
    /// | `mqtts://host`, `tls://host`   | TLS                 | 8883                   |
    /// | `ws://host/path?query`         | WebSocket           | 80                     |
    /// | `wss://host/path?query`        | WebSocket on TLS    | 443                    |
    /// | `unix:///run/broker.sock`      | Unix socket         |                        |
    ///
    /// The host is a name, an IPv4 address or, in brackets, an IPv6 address: `mqtt://[::1]:1884`. The
    /// scheme defaults to `mqtt`, the path of a WebSocket to `/mqtt`.
    ///
    /// # Errors
    /// A misuse that names what is wrong with `url`; a way for which this build lacks the feature. It never
    /// repeats a password out of the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = match url.split_once("://") {
            Some((name, rest)) => (Scheme::parse(name)?, rest),
            None => {
                Scheme::check_left_out(url)?;
                (Scheme::Tcp, url)
            }
        };
        if scheme == Scheme::Unix {
            return Self::parse_unix(rest);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // Before any part of it is quoted: what stands there may be a password, and errors are logged.
        if authority.contains('@') {
            return Err(Error::misuse(
                "the endpoint holds a user name or a password; credentials belong into the options",
            ));
        }
        // Not quoted either: a password with a slash in it looks like a path.
        let target = check_target(scheme, target)?;
        let (host, port) = split_port(authority)?;
        check_host(host)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            host: host.into(),
            port,
            target,
            alpn: None,
            via: Via::AsSet,
        })
    }

    fn parse_unix(path: &str) -> Result<Self> {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(Error::misuse(format!(
                "the endpoint names the Unix socket {path:?}; it is written unix:///path/of/the/socket"
            )));
        }
        Ok(Self {
            scheme: Scheme::Unix,
            host: path.into(),
            port: 0,
            target: "".into(),
            alpn: None,
            via: Via::Direct,
        })
    }

    /// The same host by another way.
    pub(crate) fn by(
        &self,
        scheme: Scheme,
        port: u16,
        alpn: Option<Rc<[Rc<str>]>>,
        via: Via,
    ) -> Self {
        let target = match (scheme.is_websocket(), self.scheme.is_websocket()) {
            (true, true) => Rc::clone(&self.target),
            (true, false) => WEBSOCKET_PATH.into(),
            (false, _) => "".into(),
        };
        Self {
            scheme,
            host: Rc::clone(&self.host),
            port,
            target,
            alpn,
            via,
        }
    }

    /// The same through the proxy of the options.
    #[cfg(feature = "proxy")]
    pub(crate) fn through_proxy(&self) -> Self {
        Self {
            via: Via::Proxy,
            ..self.clone()
        }
    }

    /// The same without a proxy.
    pub(crate) fn directly(&self) -> Self {
        Self {
            via: Via::Direct,
            ..self.clone()
        }
    }

    /// Whether it is reached by a network, so that another way may lead there.
    pub(crate) fn is_on_network(&self) -> bool {
        self.scheme != Scheme::Unix
    }

    /// By the same way to another host: what a broker names when it sends its clients on, `host`,
    /// `host:port`, or as some brokers do a URL.
    ///
    /// # Errors
    /// As [`Endpoint::parse`]. A Unix socket leads to no other host. A URL with another scheme than ours: a
    /// broker could take TLS away.
    pub(crate) fn referred(&self, reference: &str) -> Result<Self> {
        // The path of another one is not for a broker to choose: CONNECT would go to any service here.
        if !self.is_on_network() {
            return Err(Error::misuse("a Unix socket leads to no other host"));
        }
        let (host, port) = if reference.contains("://") {
            // A slash at the end means nothing, and brokers write it.
            let named = Self::parse(reference.trim_end_matches('/'))?;
            if named.scheme != self.scheme {
                return Err(Error::misuse("a broker cannot choose another way"));
            }
            (named.host, named.port)
        } else {
            let (host, port) = split_port(reference)?;
            check_host(host)?;
            let port = match port {
                Some(digits) => parse_port(digits)?,
                None => self.port,
            };
            (host.into(), port)
        };
        Ok(Self {
            host,
            port,
            ..self.clone()
        })
    }

    /// The scheme as it stands in a URL: `mqtt`, `mqtts`, `ws`, `wss` or `unix`.
    pub fn scheme(&self) -> &'static str {
        self.scheme.name()
    }

    /// The host name or address, without brackets; for a Unix socket its path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and the query of a WebSocket; else empty. It may hold a signature: better not logged.
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    pub(crate) fn kind(&self) -> Scheme {
        self.scheme
    }

    pub(crate) fn via(&self) -> Via {
        self.via
    }

    #[cfg(feature = "tls")]
    pub(crate) fn alpn(&self) -> Option<&[Rc<str>]> {
        self.alpn.as_deref()
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    /// As a URL with its port, and what else there is to the way. Without the query of a WebSocket, which
    /// may hold a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Unix {
            return write!(f, "unix://{}", self.host);
        }
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme.name(), self.authority())?;
        if let Some(alpn) = &self.alpn {
            write!(f, " with ALPN {}", alpn.join(", "))?;
        }
        match self.via {
            Via::Proxy => f.write_str(" through the proxy"),
            Via::AsSet | Via::Direct => Ok(()),
        }
    }
}

impl fmt::Debug for Endpoint {
    /// As `Display`: the query of a WebSocket may hold a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What may stand behind host and port: a path and a query with a WebSocket, nothing without.
fn check_target(scheme: Scheme, target: &str) -> Result<Rc<str>> {
    if !scheme.is_websocket() {
        return if target.is_empty() {
            Ok("".into())
        } else {
            Err(Error::misuse(
                "the endpoint has a path, a query or a fragment; only a WebSocket has one",
            ))
        };
    }
    // A fragment is never sent (RFC 6455, section 3). What is sent ends at a space.
    if target
        .bytes()
        .any(|byte| byte == b'#' || !byte.is_ascii_graphic())
    {
        return Err(Error::misuse(
            "the path of the endpoint has a fragment, or a character that has to be percent-encoded",
        ));
    }
    Ok(match target.strip_prefix('?') {
        Some(query) => format!("{WEBSOCKET_PATH}?{query}").into(),
        None if target.is_empty() => WEBSOCKET_PATH.into(),
        None => target.into(),
    })
}

fn check_host(host: &str) -> Result<()> {
    if host.is_empty() {
        return Err(Error::misuse("the host of the endpoint is empty"));
    }
    // A line end left over from a file would otherwise fail much later, in the look-up. And what is told
    // to a proxy or in the head of an upgrade must not end its line.
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::misuse(format!(
            "the host {host:?} of the endpoint contains a space or a control character"
        )));
    }
    Ok(())
}

/// Takes `host:port` apart, and the brackets off an IPv6 address.
pub(super) fn split_port(authority: &str) -> Result<(&str, Option<&str>)> {
    let Some(bracketed) = authority.strip_prefix('[') else {
        return match authority.split_once(':') {
            // Without brackets, `::1:1883` could be an address alone or an address and a port.
            Some((_, port)) if port.contains(':') => Err(Error::misuse(format!(
                "the endpoint {authority:?} has more than one colon; an IPv6 address stands in brackets"
            ))),
            Some((host, port)) => Ok((host, Some(port))),
            None => Ok((authority, None)),
        };
    };
    let Some((host, after)) = bracketed.split_once(']') else {
        return Err(Error::misuse(format!(
            "the endpoint {authority:?} opens a bracket and does not close it"
        )));
    };
    if !host.is_empty() && host.parse::<Ipv6Addr>().is_err() {
        return Err(Error::misuse(format!(
            "the host {host:?} of the endpoint stands in brackets and is not an IPv6 address"
        )));
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(Error::misuse(format!(
            "the endpoint has {after:?} after the bracket where only a colon and a port may stand"
        ))),
    }
}

/// A port to connect to: 0 is none, and `+1883`, which `parse` would take, is not how one is written.
pub(super) fn parse_port(digits: &str) -> Result<u16> {
    digits
        .parse()
        .ok()
        .filter(|port| *port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| {
            Error::misuse(format!(
                "the port {digits:?} of the endpoint is not a number from 1 to 65535"
            ))
        })
}
