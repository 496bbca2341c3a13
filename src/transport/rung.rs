//! One of several ways to the same broker: a rung of the ladder through a firewall.

use std::rc::Rc;

use super::endpoint::{Endpoint, Scheme, Via};

/// One of several ways to the same broker: see [`Options::ladder`](crate::Options::ladder).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rung has an effect only in the ladder of the options"]
pub struct Rung {
    scheme: Scheme,
    port: u16,
    alpn: Option<Rc<[Rc<str>]>>,
    via: Via,
}

impl Rung {
    fn new(scheme: Scheme, port: u16) -> Self {
        Self {
            scheme,
            port,
            alpn: None,
            via: Via::Direct,
        }
    }

    /// Plain TCP.
    pub fn tcp(port: u16) -> Self {
        Self::new(Scheme::Tcp, port)
    }

    /// TLS.
    #[cfg(feature = "tls")]
    pub fn tls(port: u16) -> Self {
        Self::new(Scheme::Tls, port)
    }

    /// A WebSocket.
    #[cfg(feature = "websocket")]
    pub fn websocket(port: u16) -> Self {
        Self::new(Scheme::WebSocket, port)
    }

    /// A WebSocket on TLS.
    #[cfg(all(feature = "tls", feature = "websocket"))]
    pub fn secure_websocket(port: u16) -> Self {
        Self::new(Scheme::SecureWebSocket, port)
    }

    /// Offers these application protocols in TLS instead of those of [`Tls::alpn`](crate::Tls::alpn).
    #[cfg(feature = "tls")]
    pub fn alpn<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.alpn = Some(names.into_iter().map(Rc::from).collect());
        self
    }

    /// Goes through the proxy of the options. Left out where the options have none for the host.
    #[cfg(feature = "proxy")]
    pub fn through_proxy(mut self) -> Self {
        self.via = Via::Proxy;
        self
    }

    /// The usual ladder, as far as this build can climb it: TLS on port 8883; TLS on 443 with the ALPN name
    /// `mqtt`; a WebSocket on TLS on 443; then each of these through the proxy.
    ///
    /// None of them is plain: what a firewall does must not make a device talk in the clear.
    pub fn standard() -> Vec<Self> {
        let direct = Vec::from([
            #[cfg(feature = "tls")]
            Self::tls(8883),
            #[cfg(feature = "tls")]
            Self::tls(443).alpn(["mqtt"]),
            #[cfg(all(feature = "tls", feature = "websocket"))]
            Self::secure_websocket(443),
        ]);
        #[cfg(feature = "proxy")]
        let direct = {
            let through = direct.clone().into_iter().map(Self::through_proxy);
            direct.into_iter().chain(through).collect()
        };
        direct
    }

    /// This way to the host of `endpoint`.
    pub(crate) fn to(&self, endpoint: &Endpoint) -> Endpoint {
        endpoint.by(self.scheme, self.port, self.alpn.clone(), self.via)
    }
}
