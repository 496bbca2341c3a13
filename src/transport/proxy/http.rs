//! HTTP: the method CONNECT (RFC 9110, section 9.3.6).
//!
//! ```text
//!   CONNECT ──► head of the answer ──► 2xx: what follows comes from the broker
//!                                 └──► any other status: the end
//! ```

use std::io;

use data_encoding::BASE64;

use super::server::{Login, Talk};
use crate::obstacle::Cause;

/// Bytes of an answer's head. HTTP sets no limit; 8 KiB is what many servers allow for the head of a
/// request, and the answer to CONNECT has some hundred bytes.
const HEAD_LIMIT: usize = 8192;

/// With what every answer begins (RFC 9112, section 2.3).
const HTTP: &[u8] = b"HTTP/";

/// Characters of a reason phrase that are repeated in an error. Those in use have a few words.
const PHRASE_LIMIT: usize = 80;

/// Why this user name and this password cannot be told to an HTTP proxy (RFC 7617, section 2).
pub(super) fn fault(login: &Login) -> Option<&'static str> {
    let is_control = |bytes: &[u8]| bytes.iter().any(u8::is_ascii_control);
    if login.user_name().contains(&b':') {
        Some("the user name contains a colon, which HTTP cannot carry")
    } else if is_control(login.user_name()) || is_control(login.password()) {
        Some(
            "the user name or the password contains a control character, which HTTP does not allow",
        )
    } else {
        None
    }
}

/// Asks for a connection to `authority`, `host:port`.
pub(super) async fn connect(
    talk: &mut Talk,
    authority: &str,
    login: Option<&Login>,
) -> io::Result<()> {
    talk.send(request(authority, login).as_bytes()).await?;
    let head = receive_head(talk).await?;
    let (status, phrase) = parse_status(&head).ok_or_else(|| {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        talk.stopped(seen(line))
    })?;
    match status {
        // What the other lines of the head say is not looked at. Even the length of a body has no
        // meaning here: "a client MUST ignore any Content-Length" (RFC 9110, section 9.3.6).
        200..=299 => Ok(()),
        // tinyproxy answers 401 where it knows the user name or the password not.
        401 | 407 => Err(talk.stopped(Cause::ProxyLogin)),
        _ => {
            let text = format!("{status} {phrase}");
            Err(talk.stopped(Cause::ProxyRefused(text.trim_end().into())))
        }
    }
}

fn request(authority: &str, login: Option<&Login>) -> String {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(login) = login {
        // Not asked for by a 407 first: some proxies end the connection with it, and the second attempt
        // would need another one.
        let pair = BASE64.encode(&[login.user_name(), b":", login.password()].concat());
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&pair);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// Everything up to the empty line.
///
/// Byte by byte. Where the head ends is known only when its last byte is there, and what stands behind it
/// belongs to the broker: a larger read would take that along. To keep it for later would cost every later
/// read a look at a buffer; this costs one connection some hundred short reads.
async fn receive_head(talk: &mut Talk) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    // A line may end without CR (RFC 9112, section 2.2).
    while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() == HEAD_LIMIT {
            let text = format!("the head of its answer is larger than {HEAD_LIMIT} bytes");
            return Err(talk.stopped(Cause::Rules(text.into())));
        }
        head.push(talk.receive_byte().await?);
        // At once: who speaks something else may never send an empty line.
        if !head.iter().zip(HTTP).all(|(byte, http)| byte == http) {
            return Err(talk.stopped(seen(&head)));
        }
    }
    Ok(head)
}

/// What has answered instead of an HTTP proxy, by what was seen of it.
fn seen(bytes: &[u8]) -> Cause {
    let text = match bytes.first() {
        // RFC 1928, section 3, and RFC 8446, section 5.1: an alert.
        Some(0x05) => "a SOCKS5 proxy answered".to_owned(),
        Some(0x15) => "it wants TLS".to_owned(),
        Some(_) | None => {
            let start = bytes.get(..PHRASE_LIMIT).unwrap_or(bytes);
            format!("its answer begins with \"{}\"", start.escape_ascii())
        }
    };
    Cause::OtherProtocol(text.into())
}

/// The status and the reason phrase, printable and cut.
fn parse_status(head: &[u8]) -> Option<(u16, String)> {
    // Only the first line, as if no other followed: a proxy with a strange line in its head is none the
    // worse for it.
    let end = head.iter().position(|byte| *byte == b'\n')? + 1;
    let line = [head.get(..end)?, b"\r\n"].concat();
    let mut response = httparse::Response::new(&mut []);
    response.parse(&line).ok()?;
    let printable = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
    let phrase = response.reason.unwrap_or_default().trim().chars();
    let phrase = phrase.map(printable).take(PHRASE_LIMIT).collect();
    Some((response.code?, phrase))
}

#[cfg(test)]
mod tests {
    use super::super::script::{cause, causes_of_cuts, run};
    use super::*;

    const PROXY: &str = "http://proxy.example:3128";
    const BROKER: &str = "mqtt://broker.example";
    const REQUEST: &[u8] =
        b"CONNECT broker.example:1883 HTTP/1.1\r\nHost: broker.example:1883\r\n\r\n";

    fn cause_of(answer: &[u8]) -> Cause {
        cause(PROXY, BROKER, &[(REQUEST, answer)])
    }

    fn refused(text: &str) -> Cause {
        Cause::ProxyRefused(text.into())
    }

    #[test]
    fn any_status_of_success_connects() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\nX-A: b\r\n\r\n",
            "HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 200 \r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 299 Strange\r\n\r\n",
            "HTTP/1.0 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 200 \u{dc}ber\r\nno colon\r\n folded\r\n\r\n",
        ] {
            let rest = run(PROXY, BROKER, &[(REQUEST, answer.as_bytes())]);
            assert_eq!(rest, Ok(Vec::new()), "{answer:?}");
        }
    }

    #[test]
    fn what_stands_behind_the_head_stays_in_the_stream() {
        for head in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HTTP/1.0 200 OK\n\n"] {
            let answer = [head.as_bytes(), b"\r\n\x20\x02\x00\x00"].concat();
            let rest = run(PROXY, BROKER, &[(REQUEST, &answer)]);
            assert_eq!(rest, Ok(b"\r\n\x20\x02\x00\x00".to_vec()), "{head:?}");
        }
    }

    #[test]
    fn the_request_names_host_and_port() {
        for (endpoint, request) in [
            (
                "mqtt://192.0.2.7:1884",
                "CONNECT 192.0.2.7:1884 HTTP/1.1\r\nHost: 192.0.2.7:1884\r\n\r\n",
            ),
            (
                "mqtt://[2001:db8::7]",
                "CONNECT [2001:db8::7]:1883 HTTP/1.1\r\nHost: [2001:db8::7]:1883\r\n\r\n",
            ),
        ] {
            let turns: &[(&[u8], &[u8])] = &[(request.as_bytes(), b"HTTP/1.1 200 OK\r\n\r\n")];
            assert_eq!(run(PROXY, endpoint, turns), Ok(Vec::new()), "{endpoint}");
        }
    }

    #[test]
    fn user_name_and_password_go_along() {
        for (proxy, encoded) in [
            // The example of RFC 7617, section 2.
            (
                "http://Aladdin:open%20sesame@proxy",
                "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("http://user@proxy", "dXNlcjo="),
            ("http://:a:b@proxy", "OmE6Yg=="),
            ("http://us%C3%A9r:%25%40@proxy", "dXPDqXI6JUA="),
        ] {
            let request = format!(
                "CONNECT broker.example:1883 HTTP/1.1\r\nHost: broker.example:1883\r\n\
                 Proxy-Authorization: Basic {encoded}\r\n\r\n"
            );
            let turns: &[(&[u8], &[u8])] = &[(request.as_bytes(), b"HTTP/1.1 200 OK\r\n\r\n")];
            assert_eq!(run(proxy, BROKER, turns), Ok(Vec::new()), "{proxy}");
        }
    }

    #[test]
    fn a_proxy_that_wants_a_login_is_told_apart() {
        for answer in [
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
            "HTTP/1.0 401 Unauthorized\r\n\r\n",
        ] {
            assert_eq!(cause_of(answer.as_bytes()), Cause::ProxyLogin, "{answer}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_proxy() {
        for (line, text) in [
            ("403 Forbidden", "403 Forbidden"),
            ("502 Bad\tGateway ", "502 Bad Gateway"),
            ("503", "503"),
            ("302 Found", "302 Found"),
            ("101 Switching Protocols", "101 Switching Protocols"),
            ("999 ?", "999 ?"),
            ("000 Nothing", "0 Nothing"),
            ("404 \u{e4}", "404"),
        ] {
            let answer = format!("HTTP/1.1 {line}\r\nContent-Length: 4\r\n\r\nbody");
            assert_eq!(cause_of(answer.as_bytes()), refused(text), "{line:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let answer = format!("HTTP/1.1 500 {}\r\n\r\n", "x".repeat(5000));
        let text = format!("500 {}", "x".repeat(80));
        assert_eq!(cause_of(answer.as_bytes()), refused(&text));
    }

    #[test]
    fn who_speaks_something_else_is_noticed_at_once() {
        // Whoever read on to the end of the head would find `Cause::Ended` instead.
        for (answer, text) in [
            (&b"\x05\xFF"[..], "a SOCKS5 proxy answered"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "it wants TLS"),
            (b"SSH-2.0-x\r\n", "its answer begins with \"S\""),
            (b"HTML", "its answer begins with \"HTM\""),
            (b"\x00", "its answer begins with \"\\x00\""),
            (
                b"\r\nHTTP/1.1 200 OK\r\n\r\n",
                "its answer begins with \"\\r\"",
            ),
        ] {
            let expected = Cause::OtherProtocol(text.into());
            assert_eq!(cause_of(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn an_unreadable_status_line_is_another_protocol() {
        for (line, seen) in [
            ("HTTP/2 200 OK", "HTTP/2 200 OK"),
            ("HTTP/1.1 20 OK", "HTTP/1.1 20 OK"),
            ("HTTP/1.1  200 OK", "HTTP/1.1  200 OK"),
            ("HTTP/1.1 2x0 OK", "HTTP/1.1 2x0 OK"),
            ("HTTP/1.1 200OK", "HTTP/1.1 200OK"),
            ("HTTP/1.1 200 O\u{7}K", "HTTP/1.1 200 O\\x07K"),
            ("HTTP/", "HTTP/"),
        ] {
            let Cause::OtherProtocol(text) = cause_of(format!("{line}\r\n\r\n").as_bytes()) else {
                panic!("{line:?} is not HTTP");
            };
            let expected = format!("its answer begins with \"{seen}\\r\"");
            assert_eq!(*text, *expected, "{line:?}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_end() {
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n";
        let causes = causes_of_cuts(PROXY, BROKER, &[(REQUEST, answer)]);
        assert_eq!(causes, vec![Cause::Ended; answer.len()]);
    }

    #[test]
    fn a_head_may_have_8_kib_and_not_a_byte_more() {
        let start = "HTTP/1.1 200 OK\r\nA: ";
        for (length, fits) in [(8191, true), (8192, true), (8193, false), (100_000, false)] {
            let filling = "x".repeat(length - start.len() - 4);
            let head = format!("{start}{filling}\r\n\r\n");
            assert_eq!(head.len(), length);
            let result = run(PROXY, BROKER, &[(REQUEST, head.as_bytes())]);
            if fits {
                assert_eq!(result, Ok(Vec::new()), "{length}");
            } else {
                let text = "the head of its answer is larger than 8192 bytes";
                let obstacle = result.expect_err("too large");
                assert_eq!(*obstacle.cause(), Cause::Rules(text.into()), "{length}");
            }
        }
    }
}
