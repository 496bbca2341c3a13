//! The ladder through a firewall, of real parts: what is blocked is named, and what worked is remembered.

use std::time::Duration;

use coracle::{Event, Proxy as Through, Rung, Tls, Version};

use crate::front::{Demand, Front};
use crate::peers::{BAD_REQUEST, Peer, Refused};
use crate::pki::Authority;
use crate::proxies::Proxy;
use crate::relay::{End, Mode, Relay};
use crate::schemes::exchange;
use crate::site::{Door, Site};
use crate::world::{options_at, run};

#[test]
fn the_ladder_is_climbed_until_a_rung_leads_to_the_broker() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        // Port 8883 is dropped by the firewall, another answers that it is no request of HTTP, and a
        // third cannot do the protocol. A WebSocket leads out.
        let (dropped, page) = (Peer::silent(), Peer::answering(BAD_REQUEST));
        let demand = Demand {
            alpn: Some("h2"),
            ..Demand::default()
        };
        let web = Front::start(
            site.port(Door::Tcp),
            &authority.server(&["localhost"]),
            &demand,
        );
        let way_out = Relay::start(site.port(Door::SecureWebSocket), &[Mode::Whole]);
        let url = dropped.url("mqtts");
        let rungs = [
            Rung::tls(page.listening.port()),
            Rung::tls(web.listening.port()).alpn(["mqtt"]),
            Rung::secure_websocket(way_out.listening.port()),
        ];
        let options = options_at(&url, Version::V5_0, "pump-1")
            .tls(Tls::new().roots(authority.root()))
            .step_timeout(Duration::from_secs(3))
            .ladder(rungs);
        let device = world.device(options);
        let mut events = device.client.events();
        let mut failed = Vec::new();
        loop {
            match events.next().await {
                Some(Event::WayFailed { error, .. }) => failed.push(error.to_string()),
                Some(Event::Connected { .. }) => break,
                Some(_) => {}
                None => panic!("the client has ended"),
            }
        }
        for text in &failed {
            println!("{text}");
        }
        let [first, second, third] = &failed[..] else {
            panic!("{failed:?}");
        };
        assert_eq!(
            *first,
            format!("connect: {url}: TLS with localhost: no answer within 3s")
        );
        let page = format!(
            "connect: mqtts://localhost:{}: TLS with localhost: it speaks something else: ",
            page.listening.port()
        );
        assert!(second.starts_with(&page), "{second}");
        assert_eq!(
            *third,
            format!(
                "connect: mqtts://localhost:{} with ALPN mqtt: TLS with localhost: it knows none of the \
                 application protocols (ALPN) offered",
                web.listening.port()
            )
        );
        exchange(&device.client, "ladder").await;
        let endpoint = device.client.endpoint().expect("it is connected");
        assert_eq!(endpoint.scheme(), "wss");
        // The next connection begins with what worked.
        let before = dropped.listening.connections();
        way_out.cut(End::Reset);
        loop {
            match events.next().await {
                Some(Event::WayFailed { error, .. }) => panic!("{error}"),
                Some(Event::Connected { .. }) => break,
                Some(_) => {}
                None => panic!("the client has ended"),
            }
        }
        assert_eq!(dropped.listening.connections(), before);
        device.client.disconnect().await.expect("nothing stays");
    });
}

#[test]
fn the_last_rungs_lead_through_the_proxy() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let refused = Refused::new();
        let proxy = Proxy::http(&[site.port(Door::Tls)], None).await;
        let options = options_at(&refused.url("mqtts"), Version::V5_0, "pump-1")
            .tls(Tls::new().roots(authority.root()))
            .proxy(Through::parse(&proxy.url()).expect("a valid proxy"))
            .ladder([
                Rung::tls(refused.port()).through_proxy(),
                Rung::tls(site.port(Door::Tls)).through_proxy(),
            ]);
        let device = world.device(options);
        let mut events = device.client.events();
        let mut failed = Vec::new();
        loop {
            match events.next().await {
                Some(Event::WayFailed { error, .. }) => failed.push(error.to_string()),
                Some(Event::Connected { .. }) => break,
                Some(_) => {}
                None => panic!("the client has ended"),
            }
        }
        for text in &failed {
            println!("{text}");
        }
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(
            failed[1].contains(" through the proxy: proxy http://"),
            "{failed:?}"
        );
        exchange(&device.client, "ladder").await;
        device.client.disconnect().await.expect("nothing stays");
    });
}
