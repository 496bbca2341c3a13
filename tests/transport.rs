//! How an endpoint is written.

use coracle::{Blame, Doing, Endpoint, ErrorKind};

#[test]
fn an_endpoint_is_a_host_and_a_port() {
    for (url, host, port, shown) in [
        (
            "mqtt://localhost",
            "localhost",
            1883,
            "mqtt://localhost:1883",
        ),
        (
            "mqtt://localhost:1884",
            "localhost",
            1884,
            "mqtt://localhost:1884",
        ),
        (
            "tcp://192.0.2.7",
            "192.0.2.7",
            1883,
            "mqtt://192.0.2.7:1883",
        ),
        ("tcp://192.0.2.7:1", "192.0.2.7", 1, "mqtt://192.0.2.7:1"),
        (
            "MQTT://Broker.example:65535",
            "Broker.example",
            65535,
            "mqtt://Broker.example:65535",
        ),
        ("mqtt://[::1]", "::1", 1883, "mqtt://[::1]:1883"),
        (
            "tcp://[2001:db8::7]:1884",
            "2001:db8::7",
            1884,
            "mqtt://[2001:db8::7]:1884",
        ),
        ("[::1]:1884", "::1", 1884, "mqtt://[::1]:1884"),
        (
            "broker.example:1884",
            "broker.example",
            1884,
            "mqtt://broker.example:1884",
        ),
        (
            "broker.example",
            "broker.example",
            1883,
            "mqtt://broker.example:1883",
        ),
    ] {
        let endpoint = Endpoint::parse(url).expect(url);
        assert_eq!(endpoint.host(), host, "{url}");
        assert_eq!(endpoint.port(), port, "{url}");
        assert_eq!(endpoint.to_string(), shown, "{url}");
    }
}

#[test]
fn each_scheme_has_its_port_and_a_websocket_its_path() {
    for (url, scheme, port, target, shown) in [
        ("mqtt://h", "mqtt", 1883, "", "mqtt://h:1883"),
        ("tcp://h", "mqtt", 1883, "", "mqtt://h:1883"),
        ("mqtts://h", "mqtts", 8883, "", "mqtts://h:8883"),
        ("TLS://h:443", "mqtts", 443, "", "mqtts://h:443"),
        ("ws://h", "ws", 80, "/mqtt", "ws://h:80/mqtt"),
        ("wss://h", "wss", 443, "/mqtt", "wss://h:443/mqtt"),
        ("wss://h/", "wss", 443, "/", "wss://h:443/"),
        (
            "ws://[::1]:8083/a/b",
            "ws",
            8083,
            "/a/b",
            "ws://[::1]:8083/a/b",
        ),
        // The query is sent and never shown.
        (
            "wss://h/mqtt?sig=secret",
            "wss",
            443,
            "/mqtt?sig=secret",
            "wss://h:443/mqtt",
        ),
        (
            "wss://h?sig=secret",
            "wss",
            443,
            "/mqtt?sig=secret",
            "wss://h:443/mqtt",
        ),
    ] {
        let endpoint = Endpoint::parse(url).expect(url);
        assert_eq!(endpoint.scheme(), scheme, "{url}");
        assert_eq!(endpoint.port(), port, "{url}");
        assert_eq!(endpoint.path_and_query(), target, "{url}");
        assert_eq!(endpoint.to_string(), shown, "{url}");
        assert_eq!(format!("{endpoint:?}"), shown, "{url}");
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_a_path() {
    let endpoint = Endpoint::parse("unix:///run/broker.sock").expect("a valid endpoint");
    assert_eq!(endpoint.scheme(), "unix");
    assert_eq!(endpoint.host(), "/run/broker.sock");
    assert_eq!(endpoint.to_string(), "unix:///run/broker.sock");
    for url in ["unix://", "unix://run/broker.sock", "unix:///run/\0"] {
        let error = Endpoint::parse(url).expect_err(url);
        let text = error.to_string();
        assert!(text.contains("it is written unix:///path"), "{text}");
    }
}

#[test]
fn both_schemes_mean_the_same_endpoint() {
    let mqtt = Endpoint::parse("mqtt://broker.example").expect("a valid endpoint");
    for same in [
        "tcp://broker.example:1883",
        "broker.example",
        "mqtt://broker.example:01883",
    ] {
        assert_eq!(Endpoint::parse(same).expect(same), mqtt, "{same}");
    }
    let other = Endpoint::parse("mqtt://broker.example:1884").expect("a valid endpoint");
    assert_ne!(other, mqtt);
}

#[test]
fn a_wrong_endpoint_is_a_misuse_that_names_what_is_wrong() {
    const USER: &str = "user name or a password; credentials belong into the options";
    const PATH: &str = "has a path, a query or a fragment";
    for (url, names) in [
        (
            "mqttss://host",
            "the scheme \"mqttss\" of the endpoint is unknown; known are mqtt, tcp, mqtts, tls, ws",
        ),
        ("http://host:1883/mqtt", "the scheme \"http\""),
        ("://host", "the scheme \"\""),
        ("", "the host of the endpoint is empty"),
        ("mqtt://", "the host of the endpoint is empty"),
        ("mqtt://:1883", "the host of the endpoint is empty"),
        ("mqtt://[]:1883", "the host of the endpoint is empty"),
        (
            "mqtt://host:",
            "the port \"\" of the endpoint is not a number from 1 to 65535",
        ),
        ("mqtt://host:0", "the port \"0\""),
        ("mqtt://host:65536", "the port \"65536\""),
        ("mqtt://host:+1883", "the port \"+1883\""),
        ("mqtt://host:-1", "the port \"-1\""),
        ("mqtt://host:mqtt", "the port \"mqtt\""),
        ("mqtt://host:1883 ", "the port \"1883 \""),
        ("mqtt://[::1]:", "the port \"\""),
        ("mqtt://host/", PATH),
        ("mqtt://host:1883/mqtt", PATH),
        (
            "mqtt:/host",
            "\"mqtt\" of the endpoint is not followed by ://",
        ),
        (
            "MQTTS//host",
            "\"mqtts\" of the endpoint is not followed by ://",
        ),
        ("wss:host", "\"wss\" of the endpoint is not followed by ://"),
        ("unix:/run/broker.sock", "is not followed by ://"),
        ("mqtt:secret@host", "is not followed by ://"),
        ("host:1883/mqtt", PATH),
        ("mqtt://host?tls=1", PATH),
        ("mqtt://host#1", PATH),
        ("mqtt://user@host", USER),
        ("mqtt://user:secret@host:1883", USER),
        ("user:secret@host", USER),
        ("mqtt://@host", USER),
        (
            "mqtt://::1",
            "more than one colon; an IPv6 address stands in brackets",
        ),
        ("fe80::1:1883", "more than one colon"),
        ("mqtt://[::1", "opens a bracket and does not close it"),
        (
            "mqtt://[host]:1883",
            "\"host\" of the endpoint stands in brackets and is not an IPv6",
        ),
        ("mqtt://[192.0.2.7]", "is not an IPv6 address"),
        ("mqtt://[::1]1883", "\"1883\" after the bracket"),
        (
            "broker.example\n",
            "contains a space or a control character",
        ),
        (
            "mqtt:// host:1883",
            "contains a space or a control character",
        ),
        ("mqtts://host/mqtt", PATH),
        (
            "ws://host/a#b",
            "a fragment, or a character that has to be percent-encoded",
        ),
        (
            "ws://host/a b",
            "a character that has to be percent-encoded",
        ),
        (
            "ws://host/a\r\nHost: evil",
            "a character that has to be percent-encoded",
        ),
        ("ws://host/\u{e4}", "has to be percent-encoded"),
        ("wss://user:secret@host/mqtt", USER),
        ("mqtt://ho\0st", "contains a space or a control character"),
    ] {
        let error = Endpoint::parse(url).expect_err(url);
        assert!(
            matches!(error.kind(), ErrorKind::Misuse(_)),
            "{url:?}: {error}"
        );
        assert_eq!(error.doing(), Doing::Configuring, "{url:?}");
        assert_eq!(error.blame(), Blame::You, "{url:?}");
        assert!(error.to_string().contains(names), "{url:?}: {error}");
    }
}

#[test]
fn an_error_never_repeats_a_password() {
    for url in [
        "mqtt://user:secret@host",
        "user:secret@host:1883",
        "mqtt://user:sec/secret@host",
        "mqtt://user:?secret@host",
        "mqtt://user:#secret@host",
        "mqtts://user:secret@host",
        "mqtt://user:secret@host:99999/path",
        "mqtt://user:secret@[::1",
        "user:secret://x@host",
        "mqtt:secret@host",
        "mqtt:/secret@host",
    ] {
        let text = Endpoint::parse(url).expect_err(url).to_string();
        assert!(!text.contains("secret"), "{url}: {text}");
    }
}
