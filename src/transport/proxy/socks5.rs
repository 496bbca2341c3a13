//! SOCKS5 (RFC 1928), with a user name and a password (RFC 1929).
//!
//! ```text
//!   methods ──► 0x00: none ─────────────────────► request ──► reply ──► 0x00: the broker follows
//!          ├──► 0x02 ──► login ──► 0x00: let in ──┘               └──► any other code: the end
//!          │                  └──► any other: the end
//!          └──► 0xFF: the end
//! ```
//!
//! By hand: it is four short packets, and the crates for it bring tokio, or threads, along.

use std::io;
use std::net::IpAddr;

use super::server::{Login, Talk};
use crate::obstacle::Cause;

const VERSION: u8 = 5;
/// Of the packets of RFC 1929, section 2.
const LOGIN_VERSION: u8 = 1;

/// The methods (RFC 1928, section 3).
const NO_LOGIN: u8 = 0x00;
const LOGIN: u8 = 0x02;
const NONE_ACCEPTABLE: u8 = 0xFF;

/// "Establish a TCP/IP stream connection" (RFC 1928, section 4).
const CONNECT: u8 = 0x01;

/// The types of address (RFC 1928, section 5).
const IPV4: u8 = 0x01;
const NAME: u8 = 0x03;
const IPV6: u8 = 0x04;

/// What the reply codes from 1 on mean, in the words of RFC 1928, section 6.
const REPLIES: [&str; 8] = [
    "general SOCKS server failure",
    "connection not allowed by ruleset",
    "Network unreachable",
    "Host unreachable",
    "Connection refused",
    "TTL expired",
    "Command not supported",
    "Address type not supported",
];

/// Why this user name and this password cannot be told to a SOCKS5 proxy (RFC 1929, section 2).
pub(super) fn fault(login: &Login) -> Option<&'static str> {
    let fits = |bytes: &[u8]| !bytes.is_empty() && length(bytes).is_some();
    if !fits(login.user_name()) {
        Some("the user name is empty or longer than 255 bytes, which SOCKS5 does not allow")
    } else if !fits(login.password()) {
        Some("the password is empty or longer than 255 bytes, which SOCKS5 does not allow")
    } else {
        None
    }
}

/// Asks for a connection to `host`, a name or an address.
pub(super) async fn connect(
    talk: &mut Talk,
    host: &str,
    port: u16,
    login: Option<&Login>,
) -> io::Result<()> {
    let Some(request) = request(host, port) else {
        let text = "the name of the broker is longer than 255 bytes, which SOCKS5 cannot carry";
        return Err(talk.stopped(Cause::Settings(text.into())));
    };
    let methods: &[u8] = match login {
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        None => &[VERSION, 1, NO_LOGIN],
    };
    talk.send(methods).await?;
    expect_version(talk, VERSION).await?;
    match (talk.receive_byte().await?, login) {
        (NO_LOGIN, _) => {}
        (LOGIN, Some(login)) => log_in(talk, login).await?,
        (NONE_ACCEPTABLE, _) => return Err(talk.stopped(Cause::ProxyLogin)),
        (method, _) => {
            let text = format!("it chose the method 0x{method:02X}, which was not offered");
            return Err(talk.stopped(Cause::Rules(text.into())));
        }
    }
    talk.send(&request).await?;
    receive_reply(talk).await
}

async fn log_in(talk: &mut Talk, login: &Login) -> io::Result<()> {
    let mut packet = vec![LOGIN_VERSION];
    for part in [login.user_name(), login.password()] {
        // `fault` has told it before anything was sent.
        let Some(length) = length(part) else {
            return Err(talk.stopped(Cause::ProxyLogin));
        };
        packet.push(length);
        packet.extend_from_slice(part);
    }
    talk.send(&packet).await?;
    expect_version(talk, LOGIN_VERSION).await?;
    match talk.receive_byte().await? {
        0 => Ok(()),
        _ => Err(talk.stopped(Cause::ProxyLogin)),
    }
}

/// None if the name is too long.
fn request(host: &str, port: u16) -> Option<Vec<u8>> {
    let mut packet = vec![VERSION, CONNECT, 0x00];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            packet.push(IPV4);
            packet.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            packet.push(IPV6);
            packet.extend_from_slice(&address.octets());
        }
        Err(_) => {
            packet.push(NAME);
            packet.push(length(host.as_bytes())?);
            packet.extend_from_slice(host.as_bytes());
        }
    }
    packet.extend_from_slice(&port.to_be_bytes());
    Some(packet)
}

async fn receive_reply(talk: &mut Talk) -> io::Result<()> {
    expect_version(talk, VERSION).await?;
    // Before the rest of the reply: who refuses may end the connection in the middle of it.
    let code = talk.receive_byte().await?;
    if let Some(index) = code.checked_sub(1) {
        let text = match REPLIES.get(usize::from(index)) {
            Some(text) => (*text).to_owned(),
            None => format!("reply code 0x{code:02X}, which is not assigned"),
        };
        return Err(talk.stopped(Cause::ProxyRefused(text.into())));
    }
    let _reserved = talk.receive_byte().await?;
    // The address from which the proxy connects. It is of no use here, but the broker's bytes stand
    // behind it.
    let length = match talk.receive_byte().await? {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(talk.receive_byte().await?),
        other => {
            let text =
                format!("its reply has the address type 0x{other:02X}, which does not exist");
            return Err(talk.stopped(Cause::Rules(text.into())));
        }
    };
    let mut address_and_port = vec![0; length + 2];
    talk.receive(&mut address_and_port).await
}

/// With its version every packet begins, and by it another protocol shows.
async fn expect_version(talk: &mut Talk, version: u8) -> io::Result<()> {
    let byte = talk.receive_byte().await?;
    if byte == version {
        return Ok(());
    }
    let text = match byte {
        b'H' => "an HTTP proxy answered".to_owned(),
        _ => format!("its answer begins with 0x{byte:02X} in place of the version 0x{version:02X}"),
    };
    Err(talk.stopped(Cause::OtherProtocol(text.into())))
}

/// As one byte; none if it does not fit.
fn length(bytes: &[u8]) -> Option<u8> {
    u8::try_from(bytes.len()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::script::{Turns, cause, causes_of_cuts, run, run_with};
    use super::super::server::Server;
    use super::*;

    const PROXY: &str = "socks5://proxy.example";
    const PROXY_WITH_LOGIN: &str = "socks5://user:secret@proxy.example";
    const BROKER: &str = "mqtt://broker.example";

    const METHODS: &[u8] = b"\x05\x01\x00";
    const METHODS_WITH_LOGIN: &[u8] = b"\x05\x02\x00\x02";
    const CREDENTIALS: &[u8] = b"\x01\x04user\x06secret";
    const REQUEST: &[u8] = b"\x05\x01\x00\x03\x0Ebroker.example\x07\x5B";
    const CONNECTED: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";

    /// The cause when the proxy replies so to the request.
    fn cause_of_reply(reply: &[u8]) -> Cause {
        cause(PROXY, BROKER, &[(METHODS, b"\x05\x00"), (REQUEST, reply)])
    }

    #[test]
    fn without_a_login_none_is_offered() {
        let turns: Turns<'_> = &[(METHODS, b"\x05\x00"), (REQUEST, CONNECTED)];
        for proxy in [PROXY, "socks5h://proxy.example", "SOCKS5://proxy:1081/"] {
            assert_eq!(run(proxy, BROKER, turns), Ok(Vec::new()), "{proxy}");
        }
    }

    #[test]
    fn a_login_is_told_if_the_proxy_wants_it() {
        let turns: Turns<'_> = &[
            (METHODS_WITH_LOGIN, b"\x05\x02"),
            (CREDENTIALS, b"\x01\x00"),
            (REQUEST, CONNECTED),
        ];
        assert_eq!(run(PROXY_WITH_LOGIN, BROKER, turns), Ok(Vec::new()));
    }

    #[test]
    fn a_login_is_not_told_if_the_proxy_does_not_want_it() {
        let turns: Turns<'_> = &[(METHODS_WITH_LOGIN, b"\x05\x00"), (REQUEST, CONNECTED)];
        assert_eq!(run(PROXY_WITH_LOGIN, BROKER, turns), Ok(Vec::new()));
    }

    #[test]
    fn the_longest_login_fits() {
        let long = "x".repeat(255);
        let proxy = format!("socks5://{long}:{long}@proxy");
        let packet = [b"\x01\xFF", long.as_bytes(), b"\xFF", long.as_bytes()].concat();
        let turns: Turns<'_> = &[
            (METHODS_WITH_LOGIN, b"\x05\x02"),
            (&packet, b"\x01\x00"),
            (REQUEST, CONNECTED),
        ];
        assert_eq!(run(&proxy, BROKER, turns), Ok(Vec::new()));
    }

    #[test]
    fn a_name_is_left_to_the_proxy_and_an_address_goes_as_one() {
        let longest = format!("mqtt://{}:256", "n".repeat(255));
        let longest_name = [b"\x05\x01\x00\x03\xFF", &[b'n'; 255][..], b"\x01\x00"].concat();
        for (endpoint, request) in [
            ("mqtt://a:1", &b"\x05\x01\x00\x03\x01a\x00\x01"[..]),
            (
                "mqtt://192.0.2.7",
                b"\x05\x01\x00\x01\xC0\x00\x02\x07\x07\x5B",
            ),
            (
                "mqtt://[2001:db8::7]:65535",
                b"\x05\x01\x00\x04\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x07\xFF\xFF",
            ),
            (&longest, &longest_name),
        ] {
            let turns: Turns<'_> = &[(METHODS, b"\x05\x00"), (request, CONNECTED)];
            assert_eq!(run(PROXY, endpoint, turns), Ok(Vec::new()), "{endpoint}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_a_wrong_setting() {
        let endpoint = format!("mqtt://{}", "n".repeat(256));
        let text = "the name of the broker is longer than 255 bytes, which SOCKS5 cannot carry";
        assert_eq!(cause(PROXY, &endpoint, &[]), Cause::Settings(text.into()));
    }

    #[test]
    fn what_stands_behind_the_reply_stays_in_the_stream() {
        let longest = [b"\x05\x00\x00\x03\xFF", &[b'n'; 255][..], b"\x1F\x90"].concat();
        for reply in [
            CONNECTED,
            b"\x05\x00\x00\x01\xC0\x00\x02\x07\x1F\x90",
            b"\x05\x00\x00\x04\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x07\x1F\x90",
            b"\x05\x00\x00\x03\x05proxy\x1F\x90",
            b"\x05\x00\x00\x03\x00\x1F\x90",
            // The reserved byte has no meaning.
            b"\x05\x00\xAA\x01\x00\x00\x00\x00\x00\x00",
            &longest,
        ] {
            let reply_and_more = [reply, b"\x20\x02\x00\x00"].concat();
            let turns: Turns<'_> = &[(METHODS, b"\x05\x00"), (REQUEST, &reply_and_more)];
            let rest = run(PROXY, BROKER, turns);
            assert_eq!(rest, Ok(b"\x20\x02\x00\x00".to_vec()), "{reply:02X?}");
            let causes = causes_of_cuts(PROXY, BROKER, &[(METHODS, b"\x05\x00"), (REQUEST, reply)]);
            assert_eq!(causes, vec![Cause::Ended; 2 + reply.len()], "{reply:02X?}");
        }
    }

    #[test]
    fn a_login_cut_anywhere_is_an_end() {
        let turns: Turns<'_> = &[
            (METHODS_WITH_LOGIN, b"\x05\x02"),
            (CREDENTIALS, b"\x01\x00"),
            (REQUEST, CONNECTED),
        ];
        let causes = causes_of_cuts(PROXY_WITH_LOGIN, BROKER, turns);
        assert_eq!(causes, vec![Cause::Ended; 2 + 2 + CONNECTED.len()]);
    }

    #[test]
    fn a_proxy_that_wants_a_login_is_told_apart() {
        for (proxy, methods) in [(PROXY, METHODS), (PROXY_WITH_LOGIN, METHODS_WITH_LOGIN)] {
            let cause = cause(proxy, BROKER, &[(methods, b"\x05\xFF")]);
            assert_eq!(cause, Cause::ProxyLogin, "{proxy}");
        }
    }

    #[test]
    fn a_refused_login_is_told_apart() {
        for status in [1, 2, 0xFF] {
            let turns: Turns<'_> = &[
                (METHODS_WITH_LOGIN, b"\x05\x02"),
                (CREDENTIALS, &[1, status]),
            ];
            let cause = cause(PROXY_WITH_LOGIN, BROKER, turns);
            assert_eq!(cause, Cause::ProxyLogin, "{status}");
        }
    }

    #[test]
    fn a_method_that_was_not_offered_breaks_the_rules() {
        for (proxy, methods, method) in [
            (PROXY, METHODS, 0x02),
            (PROXY, METHODS, 0x01),
            (PROXY_WITH_LOGIN, METHODS_WITH_LOGIN, 0x01),
            (PROXY_WITH_LOGIN, METHODS_WITH_LOGIN, 0xFE),
        ] {
            let cause = cause(proxy, BROKER, &[(methods, &[5, method])]);
            let text = format!("it chose the method 0x{method:02X}, which was not offered");
            assert_eq!(cause, Cause::Rules(text.into()), "{proxy} {method}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_standard() {
        for (code, text) in [
            (1, "general SOCKS server failure"),
            (2, "connection not allowed by ruleset"),
            (3, "Network unreachable"),
            (4, "Host unreachable"),
            (5, "Connection refused"),
            (6, "TTL expired"),
            (7, "Command not supported"),
            (8, "Address type not supported"),
            (9, "reply code 0x09, which is not assigned"),
            (0xFF, "reply code 0xFF, which is not assigned"),
        ] {
            let reply = [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
            // Some proxies end the connection right behind the code.
            for length in [2, 3, 10] {
                let cause = cause_of_reply(&reply[..length]);
                assert_eq!(cause, Cause::ProxyRefused(text.into()), "{code}");
            }
        }
    }

    #[test]
    fn an_unknown_address_type_breaks_the_rules() {
        for kind in [0, 2, 5, 0xFF] {
            let text = format!("its reply has the address type 0x{kind:02X}, which does not exist");
            let cause = cause_of_reply(&[5, 0, 0, kind, 0, 0, 0, 0, 0, 0]);
            assert_eq!(cause, Cause::Rules(text.into()), "{kind}");
        }
    }

    #[test]
    fn who_speaks_something_else_is_noticed_by_the_first_byte() {
        let http = Cause::OtherProtocol("an HTTP proxy answered".into());
        let other = |byte: u8, version: u8| {
            let text = format!(
                "its answer begins with 0x{byte:02X} in place of the version 0x{version:02X}"
            );
            Cause::OtherProtocol(text.into())
        };
        for (answer, expected) in [
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], http.clone()),
            (b"H", http),
            (b"\x00", other(0x00, 5)),
            (b"\x04\x5A", other(0x04, 5)),
            (b"\x15\x03\x01", other(0x15, 5)),
        ] {
            let cause = cause(PROXY, BROKER, &[(METHODS, answer)]);
            assert_eq!(cause, expected, "{answer:02X?}");
        }
        let turns: Turns<'_> = &[
            (METHODS_WITH_LOGIN, b"\x05\x02"),
            (CREDENTIALS, b"\x05\x00"),
        ];
        assert_eq!(cause(PROXY_WITH_LOGIN, BROKER, turns), other(5, 1));
        assert_eq!(cause_of_reply(b"\x04\x00"), other(4, 5));
    }

    #[test]
    fn a_login_that_does_not_fit_is_told_before_anything_is_sent() {
        let long = "x".repeat(256);
        for (user_name, password, names) in [
            (
                "",
                "secret",
                "the user name is empty or longer than 255 bytes",
            ),
            (&*long, "secret", "the user name is empty"),
            ("user", "", "the password is empty or longer than 255 bytes"),
            ("user", &*long, "the password is empty"),
        ] {
            let mut server = Server::parse(PROXY).expect("a valid proxy");
            server.set_login(Login::new(user_name.as_bytes(), password.as_bytes()));
            let obstacle = run_with(&server, BROKER, &[]).expect_err("it does not fit");
            assert!(matches!(obstacle.cause(), Cause::Settings(_)), "{obstacle}");
            assert!(obstacle.to_string().contains(names), "{obstacle}");
        }
    }
}
