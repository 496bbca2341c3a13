//! The way to the broker, step by step: name, TCP or Unix socket, proxy, TLS, WebSocket.
//!
//! ```text
//!     unix:   Unix socket ─────────────────────────────────────────┐
//!     mqtt:   name ─► TCP ─► (proxy) ──────────────────────────────┤
//!     mqtts:  name ─► TCP ─► (proxy) ─► TLS ───────────────────────┼─► MQTT
//!     ws:     name ─► TCP ─► (proxy) ─────────► WebSocket ─────────┤
//!     wss:    name ─► TCP ─► (proxy) ─► TLS ──► WebSocket ─────────┘
//! ```
//!
//! Each step has its own limit and its own errors, and all of them share the limit of the attempt.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::endpoint::{Scheme, Via};
#[cfg(feature = "proxy")]
use super::proxy::Proxy;
use super::resolve::resolve;
use super::steps::Steps;
use super::tcp::{self, TcpSettings};
#[cfg(feature = "tls")]
use super::tls::{Tls, TlsConnector};
#[cfg(feature = "websocket")]
use super::websocket::{self, WebSocket};
use super::{BoxedTransport, Connector, Endpoint, unix};
use crate::clock::{Clock, LocalBoxFuture};
use crate::obstacle::Step;

/// What the user set for the ways that this crate knows.
#[derive(Debug, Clone)]
pub(crate) struct NetworkSettings {
    pub(crate) tcp: TcpSettings,
    /// How long each step may take.
    pub(crate) step_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) tls: Tls,
    #[cfg(feature = "websocket")]
    pub(crate) websocket: WebSocket,
    #[cfg(feature = "proxy")]
    pub(crate) proxy: Option<Proxy>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            tcp: TcpSettings::default(),
            // An unanswered SYN is repeated after 1, 3 and 7 s (RFC 6298, 2.1 and 5.5): 10 s forgive three
            // lost ones, and leave the next step a turn within the attempt.
            step_timeout: Duration::from_secs(10),
            #[cfg(feature = "tls")]
            tls: Tls::new(),
            #[cfg(feature = "websocket")]
            websocket: WebSocket::new(),
            #[cfg(feature = "proxy")]
            proxy: None,
        }
    }
}

impl NetworkSettings {
    /// Whether this way needs no proxy, or there is one for it.
    pub(crate) fn has_proxy_for(&self, way: &Endpoint) -> bool {
        match way.via() {
            Via::AsSet | Via::Direct => true,
            #[cfg(feature = "proxy")]
            Via::Proxy => self
                .proxy
                .as_ref()
                .is_some_and(|proxy| proxy.server_for(way).is_some()),
            #[cfg(not(feature = "proxy"))]
            Via::Proxy => false,
        }
    }
}

/// Opens connections by the ways that this crate knows.
#[derive(Clone)]
pub(crate) struct Network(Rc<Inner>);

struct Inner {
    settings: NetworkSettings,
    #[cfg(feature = "tls")]
    tls: TlsConnector,
    /// What the upgrade to a WebSocket asks for.
    #[cfg_attr(
        not(feature = "websocket"),
        expect(dead_code, reason = "only a WebSocket has one")
    )]
    subprotocol: &'static str,
    clock: Rc<dyn Clock>,
    /// How long an attempt may take.
    whole: Duration,
}

impl Network {
    pub(crate) fn new(
        settings: NetworkSettings,
        subprotocol: &'static str,
        clock: Rc<dyn Clock>,
        whole: Duration,
    ) -> Self {
        Self(Rc::new(Inner {
            #[cfg(feature = "tls")]
            tls: TlsConnector::new(settings.tls.clone()),
            settings,
            subprotocol,
            clock,
            whole,
        }))
    }
}

impl Connector for Network {
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        let (network, endpoint) = (Rc::clone(&self.0), endpoint.clone());
        Box::pin(async move { network.open(&endpoint).await })
    }
}

impl Inner {
    async fn open(&self, endpoint: &Endpoint) -> io::Result<BoxedTransport> {
        let steps = Steps::new(
            Rc::clone(&self.clock),
            self.settings.step_timeout,
            self.whole,
        );
        let stream = match endpoint.kind() {
            Scheme::Unix => {
                let path = endpoint.host();
                steps.take(Step::Unix, path, unix::connect(path)).await?
            }
            Scheme::Tcp | Scheme::Tls | Scheme::WebSocket | Scheme::SecureWebSocket => {
                self.dial(endpoint, &steps).await?
            }
        };
        #[cfg(feature = "tls")]
        let stream = if endpoint.kind().is_tls() {
            let securing = self.tls.secure(stream, endpoint);
            steps.take(Step::Tls, endpoint.host(), securing).await?
        } else {
            stream
        };
        #[cfg(feature = "websocket")]
        let stream = if endpoint.kind().is_websocket() {
            let settings = &self.settings.websocket;
            let upgrading = websocket::upgrade(stream, endpoint, self.subprotocol, settings);
            steps
                .take(Step::WebSocket, endpoint.host(), upgrading)
                .await?
        } else {
            stream
        };
        Ok(stream)
    }

    /// Opens the connection on which the rest builds: to the broker, or through the proxy.
    async fn dial(&self, endpoint: &Endpoint, steps: &Steps) -> io::Result<BoxedTransport> {
        #[cfg(feature = "proxy")]
        if let Some(server) = self
            .settings
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.server_for(endpoint))
        {
            let stream = self
                .connect(server.host(), server.port(), steps)
                .await
                .map_err(|error| at_the_proxy(server, &error))?;
            let with = server.to_string();
            let asking = server.connect_on(stream, endpoint);
            return steps.take(Step::Proxy, &with, asking).await;
        }
        self.connect(endpoint.host(), endpoint.port(), steps).await
    }

    async fn connect(&self, host: &str, port: u16, steps: &Steps) -> io::Result<BoxedTransport> {
        let addresses = steps.take(Step::Name, host, resolve(host, port)).await?;
        let with = match addresses.as_slice() {
            [only] => only.to_string(),
            several => format!("the {} addresses of {host}", several.len()),
        };
        let connecting = tcp::connect(&addresses, &self.settings.tcp, steps.clock());
        let socket = steps.take(Step::Tcp, &with, connecting).await?;
        Ok(Box::pin(socket))
    }
}

/// The proxy itself was not reached: says so, because the broker is somewhere else.
#[cfg(feature = "proxy")]
fn at_the_proxy(server: &super::proxy::Server, error: &io::Error) -> io::Error {
    use crate::obstacle::{Cause, Obstacle};

    let cause = match Obstacle::of(error) {
        Some(obstacle) => match obstacle.cause() {
            Cause::TimedOut(after) => Cause::TimedOut(*after),
            Cause::System(kind, _) => Cause::System(*kind, obstacle.to_string().into()),
            other => other.clone(),
        },
        None => Cause::System(error.kind(), error.to_string().into()),
    };
    Obstacle::new(Step::Proxy, server.to_string(), cause).into()
}
