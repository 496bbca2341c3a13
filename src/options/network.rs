//! The options about the way to the broker.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Options;
use crate::error::Result;
#[cfg(feature = "proxy")]
use crate::transport::Proxy;
#[cfg(feature = "tls")]
use crate::transport::Tls;
#[cfg(feature = "websocket")]
use crate::transport::WebSocket;
use crate::transport::{Connector, Endpoint, Network, Rung};
use crate::version::Version;

/// As good as for ever, and no clock ends before.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Where the broker is, or the brokers are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// In the order in which they are tried.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) order: Order,
    pub(crate) ladder: Vec<Rung>,
    pub(crate) share_sessions: bool,
    /// For how long an endpoint that failed is set aside.
    pub(crate) aside: Duration,
    pub(crate) follow_referrals: bool,
}

/// In which order several endpoints are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    AsGiven,
    Random,
}

impl Places {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint],
            order: Order::AsGiven,
            ladder: Vec::new(),
            share_sessions: false,
            aside: Duration::from_secs(60),
            follow_referrals: false,
        }
    }
}

impl Options {
    /// Adds another endpoint, to which the client turns when those before it fail. Defaults to none.
    ///
    /// The endpoints are tried in their order, one right after the other; only when all have failed does a
    /// delay follow. One that failed is set aside for a while ([`Options::set_aside`]). A session
    /// goes on only where [`Options::endpoints_share_sessions`] says so; elsewhere it counts as lost.
    ///
    /// # Errors
    /// A misuse that says what is wrong with `url`, see [`Endpoint::parse`].
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.places.endpoints.push(Endpoint::parse(url)?);
        Ok(self)
    }

    /// Tries the endpoints in a random order, chosen once per client, so that a fleet spreads over them.
    /// Defaults to the order in which they are given.
    pub fn random_order(mut self) -> Self {
        self.places.order = Order::Random;
        self
    }

    /// Declares that the endpoints are one cluster: a session that began at one goes on at the others, and
    /// at those to which a broker refers. Defaults to false: elsewhere the session counts as lost.
    pub fn endpoints_share_sessions(mut self, share: bool) -> Self {
        self.places.share_sessions = share;
        self
    }

    /// Sets for how long an endpoint that failed is passed over while there are others. Defaults to 60 s.
    pub fn set_aside(mut self, time: Duration) -> Self {
        // Beyond the end of time it would not be set aside at all.
        self.places.aside = time.min(CENTURY);
        self
    }

    /// Follows a broker that sends its clients to another one (reason 0x9C or 0x9D with a Server Reference;
    /// MQTT 5, section 4.11): to the host it names, by the same scheme. Defaults to false, because the other
    /// host gets the credentials.
    ///
    /// After four such steps without a connection a delay follows. With 0x9C the next attempt leads
    /// there and later ones begin with the options again; with 0x9D the new host is tried first for as long
    /// as the process lives.
    pub fn follow_referrals(mut self, follow: bool) -> Self {
        self.places.follow_referrals = follow;
        self
    }

    /// Climbs a ladder: when the way of the URL is blocked, each rung is tried to the same host, right after
    /// the other, until one leads to the broker. The next connection begins with the rung that worked.
    /// Defaults to none.
    ///
    /// Each rung that fails is an [`Event::WayFailed`](crate::Event::WayFailed). A broker that answers and
    /// refuses was reached: the ladder is not climbed any further.
    ///
    /// ```
    /// # use coracle::{Options, Rung};
    /// # fn main() -> coracle::Result<()> {
    /// let options = Options::new("mqtts://broker.example", "pump-1")?.ladder(Rung::standard());
    /// # let _ = options; Ok(()) }
    /// ```
    pub fn ladder(mut self, rungs: impl IntoIterator<Item = Rung>) -> Self {
        self.places.ladder = rungs.into_iter().collect();
        self
    }

    /// Sets how TLS is spoken. Defaults to [`Tls::new`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.network.tls = tls;
        self
    }

    /// Sets how the upgrade to a WebSocket is asked for. Defaults to [`WebSocket::new`].
    #[cfg(feature = "websocket")]
    pub fn websocket(mut self, websocket: WebSocket) -> Self {
        self.network.websocket = websocket;
        self
    }

    /// Goes through this proxy. Defaults to none; [`Proxy::from_environment`] does as other programs do.
    #[cfg(feature = "proxy")]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.network.proxy = Some(proxy);
        self
    }

    /// Sets how long each step to the broker may take: the look-up of its name, TCP (over all its
    /// addresses), the proxy, TLS, the WebSocket. [`Options::connect_timeout`] bounds them together.
    /// Defaults to 10 s.
    pub fn step_timeout(mut self, timeout: Duration) -> Self {
        self.network.step_timeout = timeout;
        self
    }

    /// Connects from this address of the device; only addresses of the broker of the same family are tried
    /// then. Defaults to what the system chooses.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.network.tcp.local_address = Some(address);
        self
    }

    /// Lets the system probe a TCP connection that has been silent for this long, in whole seconds, 1 to
    /// 32,767. Defaults to not: the keep-alive of MQTT finds a dead link too, and the broker sees it.
    pub fn tcp_keep_alive(mut self, silence: Duration) -> Self {
        // Linux takes no others, and would refuse each connection.
        let silence = silence.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
        self.network.tcp.keep_alive = Some(silence);
        self
    }

    /// Lets the system give up a TCP connection on which sent bytes stay unacknowledged for this long, in
    /// milliseconds; Linux and Android only, elsewhere without effect. Defaults to the system's own
    /// patience, about a quarter of an hour.
    pub fn tcp_user_timeout(mut self, timeout: Duration) -> Self {
        // Linux takes it as a number of 31 bits, and would refuse each connection.
        let most = Duration::from_millis(i32::MAX.unsigned_abs().into());
        self.network.tcp.user_timeout = Some(timeout.min(most));
        self
    }

    /// Sets how connections are opened. Defaults to the ways of [`Endpoint::parse`].
    pub fn connector(mut self, connector: impl Connector + 'static) -> Self {
        self.connector = Some(Rc::new(connector));
        self
    }

    /// The connector that these options would use without one of your own, for one that wraps it. Other
    /// options that are set later do not reach it.
    ///
    /// ```
    /// # use std::rc::Rc;
    /// use coracle::{Connector, Endpoint, Options};
    ///
    /// # fn main() -> coracle::Result<()> {
    /// let options = Options::new("mqtt://localhost", "pump-1")?;
    /// let inner = options.built_in_connector();
    /// let options = options.connector(move |endpoint: &Endpoint| {
    ///     println!("to {endpoint}");
    ///     inner.connect(endpoint)
    /// });
    /// # let _ = options; Ok(()) }
    /// ```
    pub fn built_in_connector(&self) -> impl Connector + 'static {
        let subprotocol = match self.config.version {
            // Not if 3.1 is what is left over: a broker that speaks it behind the newer name answers that.
            Version::V3_1 => "mqttv3.1",
            // The name that is registered with IANA for WebSockets [MQTT-6.0.0-3].
            Version::V3_1_1 | Version::V5_0 => "mqtt",
        };
        Network::new(
            self.network.clone(),
            subprotocol,
            Rc::clone(&self.clock),
            self.connect_timeout,
        )
    }

    pub(crate) fn opener(&self) -> Rc<dyn Connector> {
        match &self.connector {
            Some(own) => Rc::clone(own),
            None => Rc::new(self.built_in_connector()),
        }
    }

    /// This way as it is told. The proxy is named also where the options alone bring it in: perhaps the user
    /// does not know of it, and what answers with a certificate may be the proxy.
    #[cfg(feature = "proxy")]
    pub(crate) fn told(&self, way: &Endpoint) -> Endpoint {
        let proxy = self.network.proxy.as_ref();
        let goes_through = |proxy: &Proxy| proxy.server_for(way).is_some();
        if self.connector.is_none() && proxy.is_some_and(goes_through) {
            way.through_proxy()
        } else {
            way.clone()
        }
    }

    /// This way as it is told.
    #[cfg(not(feature = "proxy"))]
    pub(crate) fn told(&self, way: &Endpoint) -> Endpoint {
        way.clone()
    }

    /// The endpoint that was written like this: one of these options, or one that can be read again.
    pub(crate) fn known(&self, written: &str) -> Option<Endpoint> {
        let mut ways = self.ways().into_iter().flatten();
        let way = ways.find(|way| way.to_string() == written);
        way.or_else(|| Endpoint::parse(written).ok())
    }

    /// The ways to each broker, in the order in which they are tried.
    pub(crate) fn ways(&self) -> Vec<Vec<Endpoint>> {
        self.places
            .endpoints
            .iter()
            .map(|endpoint| self.ways_to(endpoint))
            .collect()
    }

    fn ways_to(&self, endpoint: &Endpoint) -> Vec<Endpoint> {
        if self.places.ladder.is_empty() || !endpoint.is_on_network() {
            return vec![endpoint.clone()];
        }
        let mut ways = vec![endpoint.directly()];
        for rung in &self.places.ladder {
            let way = rung.to(endpoint);
            if !ways.contains(&way) && self.network.has_proxy_for(&way) {
                ways.push(way);
            }
        }
        ways
    }
}
