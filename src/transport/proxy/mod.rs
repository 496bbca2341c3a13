//! Through a proxy: which one leads to an endpoint, and how it is asked to connect on.
//!
//! ```text
//!   endpoint ──► Proxy::server_for ──► none: connect directly
//!                        │
//!                        └──► Server ──► TCP to it ──► Server::connect_on ──► TLS, WebSocket, MQTT
//! ```
//!
//! A proxy is a matter of TCP: once it has connected on, it passes bytes both ways and looks at none.

mod environment;
mod except;
mod http;
mod server;
mod socks5;

#[cfg(test)]
mod script;

use std::env;
use std::fmt;

use self::except::Exceptions;
use self::server::Login;
pub(super) use self::server::Server;
use super::endpoint::{Endpoint, Scheme, Via};
use crate::error::{Error, Result};

/// A proxy to go through, HTTP or SOCKS5.
///
/// The proxy looks up the name of the broker, and passes bytes on without a look at them: TLS is spoken
/// with the broker, through the proxy. With the proxy itself no TLS is spoken, so user name and password
/// go to it in plain text.
///
/// Many HTTP proxies connect on to port 443 only. A broker that offers `wss` is reached there.
///
/// ```
/// use coracle::Proxy;
///
/// # fn main() -> coracle::Result<()> {
/// let proxy = Proxy::parse("http://proxy.example:3128")?
///     .credentials("pump-1", "secret")
///     .except("localhost, .plant.example, 10.0.0.0/8");
/// # let _ = proxy; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Proxy {
    /// For an endpoint without TLS. The environment may name another one than for TLS, or only one.
    plain: Option<Server>,
    /// For an endpoint with TLS.
    secure: Option<Server>,
    except: Exceptions,
}

impl Proxy {
    /// Reads a URL:
    ///
    /// | URL                                     | proxy               | port, if none is named |
    /// |-----------------------------------------|---------------------|------------------------|
    /// | `http://host`                           | HTTP, by `CONNECT`  | 80                     |
    /// | `socks5://host`, `socks5h://host`       | SOCKS5              | 1080                   |
    ///
    /// The host is a name, an IPv4 address or, in brackets, an IPv6 address. A user name and a password
    /// may stand before it, percent-encoded: `http://user:pass%40word@host:3128`. The scheme defaults to
    /// `http`.
    ///
    /// Port 80 is what `http` means in every other URL; some programs, curl for example, take 1080 there.
    /// Better name the port. `socks5` and `socks5h` mean the same here: the proxy looks up the name.
    ///
    /// # Errors
    /// A misuse that says what is wrong with `url`, and never repeats a password out of it. A proxy with
    /// which TLS is spoken, `https://host`, is not supported.
    pub fn parse(url: &str) -> Result<Self> {
        let server = parse_server(url, "the proxy")?;
        Ok(Self {
            plain: Some(server.clone()),
            secure: Some(server),
            except: Exceptions::default(),
        })
    }

    /// The user name and the password for the proxy, in place of those of the URL.
    ///
    /// An HTTP proxy takes any without control characters, and no colon in the user name (RFC 7617); a
    /// SOCKS5 proxy takes 1 to 255 bytes of each (RFC 1929). Others are a misuse, told when the client is
    /// made.
    pub fn credentials(mut self, user_name: &str, password: &str) -> Self {
        let login = Login::new(user_name.as_bytes(), password.as_bytes());
        for server in [&mut self.plain, &mut self.secure].into_iter().flatten() {
            server.set_login(login.clone());
        }
        self
    }

    /// Hosts that are reached without the proxy, in addition to those already named. In the form of
    /// `no_proxy`, separated by commas or spaces:
    ///
    /// | entry                                    | host                                                  |
    /// |------------------------------------------|-------------------------------------------------------|
    /// | `*`                                      | every host                                            |
    /// | `example.com`, `.example.com`, also `*.` | this name and all that end in `.example.com`          |
    /// | `192.0.2.7`, `2001:db8::7`               | this address                                          |
    /// | `10.0.0.0/8`, `fd00::/8`                 | the addresses of this block                           |
    /// | `broker:1883`, `[2001:db8::7]:1883`      | the same, at this port only                           |
    ///
    /// Upper and lower case are the same. An entry with an address is for an endpoint written with an
    /// address: names are not looked up for it. `localhost` and loopback addresses are exceptions only if
    /// they are listed. Entries that make no sense are ignored.
    pub fn except(mut self, hosts: &str) -> Self {
        self.except.add(hosts);
        self
    }

    /// As the environment says. It is read once, by this call.
    ///
    /// | endpoint        | variable, the first that is set and not empty                    |
    /// |-----------------|------------------------------------------------------------------|
    /// | `mqtts`, `wss`  | `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`           |
    /// | `mqtt`, `ws`    | `http_proxy`, `all_proxy`, `ALL_PROXY`                           |
    /// | exceptions      | `no_proxy`, `NO_PROXY`                                           |
    ///
    /// `HTTP_PROXY` is left out, as in other programs: under CGI it holds the header `Proxy` of whoever
    /// sent the request. With no variable set, every endpoint is reached directly.
    ///
    /// # Errors
    /// As [`Proxy::parse`], with the name of the variable; also one whose value is not Unicode.
    pub fn from_environment() -> Result<Self> {
        environment::read(|name| env::var(name))
    }

    /// Whether its user name and password can be told to it.
    ///
    /// # Errors
    /// A misuse that says why not.
    pub(crate) fn check(&self) -> Result<()> {
        for server in [&self.plain, &self.secure].into_iter().flatten() {
            if let Some(fault) = server.fault() {
                return Err(misuse("the proxy", fault));
            }
        }
        Ok(())
    }

    /// The proxy by which this endpoint is reached; none if directly.
    pub(crate) fn server_for(&self, endpoint: &Endpoint) -> Option<&Server> {
        match endpoint.via() {
            Via::Direct => return None,
            // An exception stays one on a way that asks for the proxy: often the proxy does not connect
            // there, and what is meant to stay inside must not be told to it.
            Via::AsSet | Via::Proxy => {}
        }
        let server = match endpoint.kind() {
            Scheme::Tcp | Scheme::WebSocket => self.plain.as_ref(),
            Scheme::Tls | Scheme::SecureWebSocket => self.secure.as_ref(),
            Scheme::Unix => None,
        };
        server.filter(|_| !self.except.holds(endpoint.host(), endpoint.port()))
    }
}

impl fmt::Debug for Proxy {
    /// Without user name and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("plain", &self.plain)
            .field("secure", &self.secure)
            .field("except", &self.except)
            .finish()
    }
}

fn parse_server(url: &str, whose: &str) -> Result<Server> {
    let server = Server::parse(url).map_err(|fault| misuse(whose, &fault))?;
    match server.fault() {
        Some(fault) => Err(misuse(whose, fault)),
        None => Ok(server),
    }
}

fn misuse(whose: &str, fault: &str) -> Error {
    Error::misuse(format!("{whose}: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn shown(proxy: &Proxy, endpoint: &Endpoint) -> Option<String> {
        proxy.server_for(endpoint).map(ToString::to_string)
    }

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect(url)
    }

    #[test]
    fn a_url_names_a_proxy() {
        for (url, host, port, shown) in [
            ("http://proxy", "proxy", 80, "http://proxy:80"),
            ("http://proxy/", "proxy", 80, "http://proxy:80"),
            ("HTTP://Proxy:3128", "Proxy", 3128, "http://Proxy:3128"),
            ("proxy:3128", "proxy", 3128, "http://proxy:3128"),
            ("proxy", "proxy", 80, "http://proxy:80"),
            (
                "socks5://192.0.2.7",
                "192.0.2.7",
                1080,
                "socks5://192.0.2.7:1080",
            ),
            (
                "socks5h://proxy:65535",
                "proxy",
                65535,
                "socks5://proxy:65535",
            ),
            (
                "http://[2001:db8::7]",
                "2001:db8::7",
                80,
                "http://[2001:db8::7]:80",
            ),
            ("[::1]:3128", "::1", 3128, "http://[::1]:3128"),
            (
                "http://user:secret@proxy:3128/",
                "proxy",
                3128,
                "http://proxy:3128",
            ),
            ("http://user:se@cret@proxy", "proxy", 80, "http://proxy:80"),
            ("http://user:se:cret@[::1]", "::1", 80, "http://[::1]:80"),
            ("http://@proxy", "proxy", 80, "http://proxy:80"),
            (
                "socks5://user:s%2Fecret@proxy",
                "proxy",
                1080,
                "socks5://proxy:1080",
            ),
        ] {
            let proxy = Proxy::parse(url).expect(url);
            for broker in ["mqtt://broker", "mqtts://broker"] {
                if cfg!(not(feature = "tls")) && broker.starts_with("mqtts") {
                    continue;
                }
                let server = proxy.server_for(&endpoint(broker)).expect(url);
                assert_eq!(server.host(), host, "{url}");
                assert_eq!(server.port(), port, "{url}");
                assert_eq!(server.to_string(), shown, "{url}");
            }
        }
    }

    #[test]
    fn a_wrong_url_is_a_misuse_that_names_what_is_wrong() {
        const BEHIND: &str = "behind host and port nothing may stand";
        const UNREADABLE: &str = "host and port are not readable";
        const PORT: &str = "the port is not a number from 1 to 65535";
        const SPACE: &str = "the host contains a space or a control character";
        for (url, names) in [
            (
                "https://proxy",
                "TLS with the proxy itself (https) is not supported",
            ),
            ("HTTPS://proxy:443", "TLS with the proxy itself"),
            (
                "socks4://proxy",
                "the scheme \"socks4\" is unknown; known are http, socks5, socks5h",
            ),
            ("socks://proxy", "the scheme \"socks\" is unknown"),
            ("mqtt://proxy", "the scheme \"mqtt\" is unknown"),
            ("://proxy", "the scheme \"\" is unknown"),
            (
                "ht tp://proxy",
                "what stands before :// is none of http, socks5, socks5h",
            ),
            ("", "the host is empty"),
            ("http://", "the host is empty"),
            ("http://:3128", "the host is empty"),
            ("http://[]", "the host is empty"),
            ("http://user:secret@", "the host is empty"),
            ("http://pro xy", SPACE),
            ("proxy\n", SPACE),
            ("http://pro\0xy", SPACE),
            ("http://proxy:", PORT),
            ("http://proxy:0", PORT),
            ("http://proxy:65536", PORT),
            ("http://proxy:+80", PORT),
            ("http://proxy:http", PORT),
            ("http://user:secret", PORT),
            ("http://::1", UNREADABLE),
            ("http://user:secret@::1", UNREADABLE),
            ("http://[::1", UNREADABLE),
            ("http://[proxy]", UNREADABLE),
            ("http://[::1]80", UNREADABLE),
            ("http://proxy/path", BEHIND),
            ("http://proxy?query", BEHIND),
            ("http://proxy#fragment", BEHIND),
            ("http://user:se/cret@proxy", BEHIND),
            ("http:/proxy", BEHIND),
            (
                "http://us%3Aer:secret@proxy",
                "the user name contains a colon",
            ),
            (
                "http://us%0Aer:secret@proxy",
                "contains a control character",
            ),
            (
                "http://user:secret%0D%0A@proxy",
                "contains a control character",
            ),
            (
                "socks5://user@proxy",
                "the password is empty or longer than 255 bytes",
            ),
            (
                "socks5://:secret@proxy",
                "the user name is empty or longer than 255 bytes",
            ),
        ] {
            let error = Proxy::parse(url).expect_err(url);
            let ErrorKind::Misuse(text) = error.kind() else {
                panic!("{url:?}: {error} is no misuse");
            };
            assert!(text.starts_with("the proxy: "), "{url:?}: {error}");
            assert!(text.contains(names), "{url:?}: {error}");
        }
    }

    #[test]
    fn no_error_repeats_a_password() {
        for url in [
            "https://user:secret@proxy",
            "socks4://user:secret@proxy",
            "user:secret://proxy",
            "user:://secret@proxy",
            "http://user:secret",
            "http://user:secret/",
            "http://user:sec/secret@proxy",
            "http://user:?secret@proxy",
            "http://user:#secret@proxy",
            "http://user:secret@",
            "http://user:secret@pro xy",
            "http://user:secret@proxy:99999",
            "http://user:secret@proxy:port",
            "http://user:secret@proxy/path",
            "http://user:secret@a:b:c",
            "http://user:secret@[::1",
            "http://user:secret:8080",
            "http://[secret]:80",
            "http://[::1]secret",
            "http://user:secret%00@proxy",
            "http://a%3Ab:secret@proxy",
            "socks5://:secret@proxy",
            "socks5://secret@proxy",
        ] {
            let error = Proxy::parse(url).expect_err(url);
            let text = format!("{error} {error:?} {error:#?}");
            assert!(!text.contains("secret"), "{url}: {text}");
        }
    }

    #[test]
    fn neither_debug_nor_display_shows_user_name_or_password() {
        for proxy in [
            Proxy::parse("http://token:secret@proxy").expect("a valid proxy"),
            Proxy::parse("socks5://token:secret@proxy").expect("a valid proxy"),
            Proxy::parse("http://proxy")
                .expect("a valid proxy")
                .credentials("token", "secret"),
        ] {
            let server = proxy.server_for(&endpoint("mqtt://broker")).expect("one");
            let text = format!("{proxy:?} {proxy:#?} {server} {server:?}");
            assert!(text.contains("://proxy:"), "{text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(!text.contains("token"), "{text}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_told_are_found_early() {
        let long = "x".repeat(256);
        for (url, user_name, password, fault) in [
            ("http://proxy", "user", "secret", None),
            ("http://proxy", "", "", None),
            ("http://proxy", "user", "se:cret", None),
            ("http://proxy", "us:er", "secret", Some("a colon")),
            (
                "http://proxy",
                "user\n",
                "secret",
                Some("a control character"),
            ),
            (
                "http://proxy",
                "user",
                "secret\r\n",
                Some("a control character"),
            ),
            ("socks5://proxy", "us:er", "secret\n", None),
            (
                "socks5://proxy",
                "",
                "secret",
                Some("the user name is empty"),
            ),
            ("socks5://proxy", "user", "", Some("the password is empty")),
            (
                "socks5://proxy",
                &long,
                "secret",
                Some("longer than 255 bytes"),
            ),
            (
                "socks5://proxy",
                "user",
                &long,
                Some("longer than 255 bytes"),
            ),
            // The URL's are replaced.
            ("http://a:b@proxy", "us:er", "secret", Some("a colon")),
        ] {
            let proxy = Proxy::parse(url)
                .expect(url)
                .credentials(user_name, password);
            match (proxy.check(), fault) {
                (Ok(()), None) => {}
                (Err(error), Some(fault)) => {
                    assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error:?}");
                    let text = format!("{error} {error:?}");
                    assert!(text.contains(fault), "{text}");
                    assert!(!text.contains("secret"), "{text}");
                }
                (result, fault) => panic!("{url} {user_name:?}: {result:?}, not {fault:?}"),
            }
        }
    }

    #[test]
    fn the_proxy_is_for_every_endpoint_but_the_exceptions() {
        let proxy = Proxy::parse("http://proxy:3128").expect("a valid proxy");
        let proxy = proxy.except("inside.example").except("[::1]:1883");
        let broker = endpoint("mqtt://broker.example");
        let inside = endpoint("mqtt://a.inside.example");
        let used = Some("http://proxy:3128".to_owned());
        for scheme in [
            Scheme::Tcp,
            Scheme::Tls,
            Scheme::WebSocket,
            Scheme::SecureWebSocket,
        ] {
            for (via, expected) in [
                (Via::AsSet, &used),
                (Via::Proxy, &used),
                (Via::Direct, &None),
            ] {
                let outside = broker.by(scheme, 443, None, via);
                assert_eq!(shown(&proxy, &outside), *expected, "{outside}");
                let inside = inside.by(scheme, 443, None, via);
                assert_eq!(shown(&proxy, &inside), None, "{inside}");
            }
        }
        assert_eq!(shown(&proxy, &endpoint("mqtt://[::1]")), None);
        assert_eq!(shown(&proxy, &endpoint("mqtt://[::1]:1884")), used);
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_has_no_proxy() {
        let proxy = Proxy::parse("http://proxy:3128").expect("a valid proxy");
        let socket = endpoint("unix:///run/broker.sock");
        assert_eq!(shown(&proxy, &socket), None);
        // Not even if a way asks for it.
        let socket = socket.by(Scheme::Unix, 0, None, Via::Proxy);
        assert_eq!(shown(&proxy, &socket), None);
    }
}
