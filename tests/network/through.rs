//! Through real proxies, and around those that do not play along.

use coracle::{Blame, Options, Proxy as Through, Tls, Version};

use crate::failures::{SILENCE, failure};
use crate::peers::{BAD_REQUEST, FORBIDDEN, GARBAGE, NOT_FOUND, Peer, Refused};
use crate::pki::Authority;
use crate::proxies::Proxy;
use crate::schemes::exchange;
use crate::site::{Door, Site};
use crate::world::{World, options_at, run};

const DOORS: [Door; 4] = [Door::Tcp, Door::Tls, Door::WebSocket, Door::SecureWebSocket];

fn through(url: &str) -> Through {
    Through::parse(url).expect("a valid proxy")
}

async fn every_door(world: &World, authority: &Authority, site: &Site, proxy: &Through) {
    for door in DOORS {
        let options = options_at(&site.url(door), Version::V5_0, "pump-1")
            .tls(Tls::new().roots(authority.root()))
            .proxy(proxy.clone());
        let client = world.client(options).await;
        exchange(&client, "through").await;
        let way = client.endpoint().expect("it is connected").to_string();
        assert!(way.ends_with(" through the proxy"), "{way}");
        client.reconnect().expect("it is open");
        exchange(&client, "through").await;
        client.disconnect().await.expect("nothing stays");
    }
}

#[test]
fn socks5_leads_to_every_door_and_looks_up_the_name_itself() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let open = Proxy::socks5(None).await;
        every_door(&world, &authority, &site, &through(&open.url())).await;
        let port = site.port(Door::Tcp);
        open.process
            .said(&format!("connected to localhost:{port}"))
            .await;
        let guarded = Proxy::socks5(Some(("user", "pass@word"))).await;
        let proxy = through(&guarded.url()).credentials("user", "pass@word");
        every_door(&world, &authority, &site, &proxy).await;
    });
}

#[test]
fn http_leads_to_every_door() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let ports = DOORS.map(|door| site.port(door));
        let open = Proxy::http(&ports, None).await;
        every_door(&world, &authority, &site, &through(&open.url())).await;
        let guarded = Proxy::http(&ports, Some(("user", "pass"))).await;
        let url = guarded.url().replace("://", "://user:pass@");
        every_door(&world, &authority, &site, &through(&url)).await;
    });
}

fn options(url: &str, proxy: Through) -> Options {
    options_at(url, Version::V5_0, "pump-1").proxy(proxy)
}

#[test]
fn a_proxy_that_does_not_play_along_says_how() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        let url = site.url(Door::Tcp);
        let (socks, http) = (
            Proxy::socks5(Some(("user", "secret"))).await,
            Proxy::http(&[site.port(Door::Tcp)], Some(("user", "secret"))).await,
        );
        let (silent, refused) = (Peer::silent(), Refused::new());
        let (forbidden, missing) = (Peer::http(FORBIDDEN), Peer::http(NOT_FOUND));
        let (garbage, closing) = (Peer::answering(GARBAGE), Peer::closing());
        let web = Peer::answering(BAD_REQUEST);
        let login = "it wants a user name and a password, or others than these";
        let wrong = |proxy: &Proxy| through(&proxy.url()).credentials("user", "wrong-secret");
        for (proxy, sentence, blame) in [
            (through(&socks.url()), login, Blame::You),
            (wrong(&socks), login, Blame::You),
            (through(&http.url()), login, Blame::You),
            (wrong(&http), login, Blame::You),
            (
                through(&silent.url("http")),
                "no answer within 400ms",
                Blame::Limit,
            ),
            (
                through(&silent.url("socks5")),
                "no answer within 400ms",
                Blame::Limit,
            ),
            (
                through(&forbidden.url("http")),
                "it does not connect there: 403 Forbidden",
                Blame::Network,
            ),
            (
                through(&missing.url("http")),
                "it does not connect there: 404 Not Found",
                Blame::Network,
            ),
            (
                through(&garbage.url("http")),
                "it speaks something else: its answer begins with \"\\x00\"",
                Blame::Broker,
            ),
            (
                through(&web.url("socks5")),
                "it speaks something else: an HTTP proxy answered",
                Blame::Broker,
            ),
            (
                through(&closing.url("http")),
                "the other side ended the connection; perhaps it expects another protocol there",
                Blame::Network,
            ),
        ] {
            let shown = format!("{proxy:?}");
            let mut options = options(&url, proxy);
            if blame == Blame::Limit {
                options = options.step_timeout(SILENCE);
            }
            let error = failure(&world, options).await;
            let text = error.to_string();
            println!("{text}");
            let start = format!("connect: {url} through the proxy: proxy ");
            assert!(text.starts_with(&start), "{shown}: {text}");
            assert!(text.ends_with(sentence), "{shown}: {text}");
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(error.blame(), blame, "{text}");
        }
        let error = failure(&world, options(&url, through(&refused.url("http")))).await;
        let text = error.to_string();
        println!("{text}");
        assert!(text.contains("proxy http://127.0.0.1:"), "{text}");
        assert!(text.contains("Connection refused"), "{text}");
    });
}

#[test]
fn a_proxy_that_finds_nobody_says_so() {
    run(async |world| {
        let refused = Refused::new();
        let socks = Proxy::socks5(None).await;
        let http = Proxy::http(&[refused.port()], None).await;
        for proxy in [&socks, &http] {
            let url = refused.url("mqtt");
            let error = failure(&world, options(&url, through(&proxy.url()))).await;
            let text = error.to_string();
            println!("{text}");
            assert!(text.contains("it does not connect there: "), "{text}");
        }
    });
}

#[test]
fn exceptions_are_reached_directly() {
    run(async |world| {
        let authority = Authority::new();
        let site = Site::open(&authority).await;
        // Nothing comes through this one.
        let silent = Peer::silent();
        let proxy = through(&silent.url("http")).except("localhost");
        let client = world.client(options(&site.url(Door::Tcp), proxy)).await;
        client.disconnect().await.expect("nothing stays");
        assert_eq!(silent.listening.connections(), 0);
        let refused = Refused::new();
        let url = refused.url("mqtt");
        let proxy = through(&silent.url("http")).except("127.0.0.1");
        let error = failure(&world, options(&url, proxy)).await;
        assert_eq!(error.way(), Some(&*url), "{error}");
    });
}
