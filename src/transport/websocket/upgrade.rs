//! Turns HTTP into a WebSocket (RFC 6455, section 4).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};
use soketto::handshake::client::Header;
use soketto::handshake::{Client, Error, ServerResponse};

use super::WebSocket;
use super::frames::Frames;
use crate::obstacle::{Cause, Obstacle, Step};
use crate::transport::{BoxedTransport, Endpoint};

/// The longest answer. Servers, and the proxies in front of them, send some hundred bytes to 2 KiB, and
/// take requests of 8 to 16 KiB themselves.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Bytes of an answer that stand in the text of an error.
const EXCERPT: usize = 40;

/// Asks for a WebSocket on an open stream.
///
/// # Errors
/// An [`Obstacle`] at [`Step::WebSocket`], or the error of the user's callback.
///
/// # Cancel safety
/// Dropping it drops the stream.
pub(crate) async fn upgrade(
    stream: BoxedTransport,
    endpoint: &Endpoint,
    subprotocol: &'static str,
    settings: &WebSocket,
) -> io::Result<BoxedTransport> {
    let obstacle = |cause| Obstacle::new(Step::WebSocket, endpoint.host(), cause);
    let request = settings.request(endpoint).await.map_err(io::Error::other)?;
    let checked = request.check();
    checked.map_err(|text| obstacle(Cause::Settings(text.into())))?;

    let headers: Vec<Header<'_>> = request
        .headers
        .0
        .iter()
        .map(|(name, value)| Header {
            name,
            value: value.as_bytes(),
        })
        .collect();
    let mut answer = Answer {
        inner: stream,
        seen: Vec::new(),
        too_long: obstacle(Cause::Rules(
            format!("the head of its answer is longer than {LONGEST_ANSWER} bytes").into(),
        )),
    };
    let mut client = Client::new(&mut answer, &request.host, &request.target);
    client.set_headers(&headers).add_protocol(subprotocol);
    let response = client.handshake().await;
    let early = client.take_buffer();
    drop(client);

    let head = answer.seen.len().saturating_sub(early.len());
    let head = answer.seen.get(..head).unwrap_or_default();
    let cause = match response {
        Ok(ServerResponse::Accepted { protocol }) => refusal(head, protocol.is_some(), subprotocol),
        Ok(
            ServerResponse::Redirect { status_code, .. } | ServerResponse::Rejected { status_code },
        ) => Some(Cause::UpgradeRefused(status_code)),
        Err(Error::Io(error)) => {
            return Err(Obstacle::io(Step::WebSocket, endpoint.host(), &error).into());
        }
        Err(error) => Some(explain(&error, &answer.seen, subprotocol)),
    };
    if let Some(cause) = cause {
        return Err(obstacle(cause).into());
    }
    let frames = Frames::new(answer.inner, early, endpoint.host());
    Ok(Box::pin(frames))
}

/// What is wrong with an answer that accepts.
fn refusal(head: &[u8], named: bool, subprotocol: &str) -> Option<Cause> {
    if !named {
        return Some(Cause::Rules(
            format!("it did not choose the subprotocol {subprotocol:?} [MQTT-6.0.0-4]").into(),
        ));
    }
    // We offer none, and one of them would change what a frame is (RFC 6455, 4.1).
    extends(head)
        .then(|| Cause::Rules("it chose an extension that was not offered [RFC 6455, 4.1]".into()))
}

/// Whether the head of an answer names an extension. The handshake passes over those it does not know.
fn extends(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"Sec-WebSocket-Extensions") && !value.trim_ascii().is_empty()
    })
}

/// Why an answer is none, from what was seen of it.
fn explain(error: &Error, seen: &[u8], subprotocol: &str) -> Cause {
    match status(seen) {
        // A refusal by HTTP/1.0, or a redirection to nowhere.
        Some(status) if status != 101 => return Cause::UpgradeRefused(status),
        Some(_) => {}
        None => {
            // Not behind a question mark: who only echoes, or says what it did not find, repeats the query,
            // which may hold a signature.
            let end = seen.iter().take(EXCERPT).take_while(|byte| **byte != b'?');
            let excerpt = seen.get(..end.count()).unwrap_or_default().escape_ascii();
            return Cause::OtherProtocol(format!("it answered \"{excerpt}\"").into());
        }
    }
    let text = match error {
        Error::InvalidSecWebSocketAccept => {
            "its Sec-WebSocket-Accept does not answer this request [RFC 6455, 4.1]".to_owned()
        }
        Error::UnsolicitedProtocol => {
            format!("it chose another subprotocol than {subprotocol:?} [MQTT-6.0.0-4]")
        }
        other => format!("it accepts with a head that is wrong: {other} [RFC 6455, 4.1]"),
    };
    Cause::Rules(text.into())
}

/// The status of an answer by any HTTP.
fn status(seen: &[u8]) -> Option<u16> {
    let line = seen.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    if !words.next()?.starts_with("HTTP/") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    (100..1000).contains(&status).then_some(status)
}

/// The stream during the handshake, which by itself would read for as long as the head is not complete.
struct Answer {
    inner: BoxedTransport,
    /// All that was read.
    seen: Vec<u8>,
    too_long: Obstacle,
}

impl AsyncRead for Answer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = buffer.len().min(LONGEST_ANSWER - this.seen.len());
        if room == 0 {
            return Poll::Ready(Err(this.too_long.clone().into()));
        }
        let poll = this.inner.as_mut().poll_read(cx, &mut buffer[..room]);
        if let Poll::Ready(Ok(count)) = poll {
            this.seen.extend_from_slice(&buffer[..count]);
        }
        poll
    }
}

impl AsyncWrite for Answer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use smol::block_on;
    use soketto::handshake::Server;
    use soketto::handshake::server::Response;

    use super::super::wire::{Step as Does, Wire, bytes, wire};
    use super::*;
    use crate::error::{Doing, ErrorKind};

    /// The sides of a server that has the whole request.
    struct Whole<'a> {
        request: &'a [u8],
        response: Vec<u8>,
    }

    impl AsyncRead for Whole<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.request).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Whole<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.response).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// How another implementation accepts this request.
    fn accept(request: &[u8], protocol: Option<&str>) -> String {
        let mut whole = Whole {
            request,
            response: Vec::new(),
        };
        let mut server = Server::new(&mut whole);
        block_on(async {
            let key = server.receive_request().await.expect("a request").key();
            let response = Response::Accept { key, protocol };
            server.send_response(&response).await.expect("a response");
        });
        String::from_utf8(whole.response).expect("it is text")
    }

    /// A server that accepts, its answer changed by `change`.
    fn accepting(change: impl FnOnce(String) -> String + 'static) -> Does {
        Does::Answer(Box::new(|request| {
            change(accept(request, Some("mqtt"))).into()
        }))
    }

    fn as_it_is(answer: String) -> String {
        answer
    }

    fn ask(
        script: Vec<Does>,
        chunk: usize,
        url: &str,
        settings: &WebSocket,
    ) -> (io::Result<BoxedTransport>, Rc<RefCell<Wire>>) {
        let endpoint = Endpoint::parse(url).expect("a valid endpoint");
        let (inner, wire) = wire(script);
        wire.borrow_mut().chunk = chunk;
        (block_on(upgrade(inner, &endpoint, "mqtt", settings)), wire)
    }

    /// What stands in the way with such a server, byte by byte as well as whole.
    fn refused(mut script: impl FnMut() -> Vec<Does>) -> Cause {
        let [whole, bytes] = [usize::MAX, 1].map(|chunk| {
            let settings = WebSocket::new();
            let (result, _) = ask(script(), chunk, "ws://broker.example/mqtt", &settings);
            let Err(error) = result else {
                panic!("there is a WebSocket");
            };
            let obstacle = Obstacle::of(&error).expect("it says what stands in the way");
            assert_eq!(obstacle.step(), Step::WebSocket);
            assert_eq!(obstacle.with(), "broker.example");
            obstacle.cause().clone()
        });
        match (&whole, &bytes) {
            // By bytes, less of it was seen before it was known to be something else.
            (Cause::OtherProtocol(_), Cause::OtherProtocol(_)) => {}
            _ => assert_eq!(whole, bytes),
        }
        whole
    }

    fn rules(script: impl FnMut() -> Vec<Does>) -> String {
        match refused(script) {
            Cause::Rules(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_request_has_what_the_standard_asks_for() {
        let settings = WebSocket::new()
            .header("User-Agent", "pump/1")
            .header("X-Token", "old")
            .header("x-token", "new");
        let url = "ws://broker.example:8080/mqtt?a=b";
        let (result, wire) = ask(vec![accepting(as_it_is)], usize::MAX, url, &settings);
        assert!(result.is_ok(), "{:?}", result.err());
        let request = String::from_utf8(wire.borrow().sent.clone()).expect("it is text");
        let (key_line, others): (Vec<&str>, Vec<&str>) = request
            .split("\r\n")
            .partition(|line| line.starts_with("Sec-WebSocket-Key: "));
        assert_eq!(key_line.len(), 1);
        assert_eq!(key_line[0].len(), "Sec-WebSocket-Key: ".len() + 24);
        let expected = [
            "GET /mqtt?a=b HTTP/1.1",
            "Host: broker.example:8080",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "User-Agent: pump/1",
            "x-token: new",
            "Sec-WebSocket-Protocol: mqtt",
            "Sec-WebSocket-Version: 13",
            "",
            "",
        ];
        assert_eq!(others, expected);
        assert_eq!(wire.borrow().writes, 1);
    }

    #[test]
    fn the_host_is_named_without_the_port_of_its_scheme() {
        for (url, host) in [
            ("ws://broker.example", "broker.example"),
            ("ws://broker.example:80/x", "broker.example"),
            ("ws://broker.example:443", "broker.example:443"),
            ("ws://[::1]", "[::1]"),
            ("ws://[::1]:81", "[::1]:81"),
            #[cfg(feature = "tls")]
            ("wss://broker.example", "broker.example"),
            #[cfg(feature = "tls")]
            ("wss://192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let (_, wire) = ask(vec![Does::Ends], usize::MAX, url, &WebSocket::new());
            let request = String::from_utf8(wire.borrow().sent.clone()).expect("it is text");
            assert!(
                request.contains(&format!("\r\nHost: {host}\r\n")),
                "{request}"
            );
        }
    }

    #[test]
    fn mqtt_3_1_has_a_subprotocol_of_its_own() {
        let endpoint = Endpoint::parse("ws://broker.example").expect("a valid endpoint");
        let answer = |request: &[u8]| accept(request, Some("mqttv3.1")).into();
        let (inner, _wire) = wire(vec![Does::Answer(Box::new(answer))]);
        let settings = WebSocket::new();
        let result = block_on(upgrade(inner, &endpoint, "mqttv3.1", &settings));
        assert!(result.is_ok(), "{:?}", result.err());
    }

    #[test]
    fn bytes_go_both_ways_also_those_right_behind_the_answer() {
        for chunk in [usize::MAX, 1, 100] {
            let script = vec![
                accepting(|answer| answer + "\u{0}"),
                Does::Bytes(b"\x02no\x82".to_vec().into()),
                bytes(b"\x03yes"),
                Does::Ends,
            ];
            // The NUL stands for the first byte of a frame, which is no text.
            let script = script.into_iter().map(|step| match step {
                Does::Answer(answer) => Does::Answer(Box::new(|request| {
                    let mut answer = answer(request);
                    *answer.last_mut().expect("the NUL") = 0x82;
                    answer
                })),
                other => other,
            });
            let url = "ws://broker.example/mqtt";
            let (result, wire) = ask(script.collect(), chunk, url, &WebSocket::new());
            let mut websocket = result.expect("a WebSocket");
            let mut received = Vec::new();
            block_on(websocket.read_to_end(&mut received)).expect("an end");
            assert_eq!(received, b"noyes");
            let before = wire.borrow().sent.len();
            block_on(websocket.write_all(b"ping")).expect("a write");
            assert_eq!(wire.borrow().sent.len(), before + 2 + 4 + 4);
        }
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_an_end() {
        let length = accept(&request(), Some("mqtt")).len();
        for cut in 0..length {
            // A step without bytes is an end by itself.
            let script = || {
                let cut = move |answer: String| answer[..cut].to_owned();
                vec![accepting(cut), Does::Ends]
            };
            assert_eq!(refused(script), Cause::Ended, "cut at {cut} of {length}");
        }
    }

    /// A request that is as good as any.
    fn request() -> Vec<u8> {
        let url = "ws://broker.example/mqtt";
        let (_, wire) = ask(vec![Does::Ends], usize::MAX, url, &WebSocket::new());
        wire.borrow().sent.clone()
    }

    #[test]
    fn a_refusal_has_its_status() {
        for (answer, status) in [
            (
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
                401,
            ),
            ("HTTP/1.1 403 Forbidden\r\n\r\n<html>", 403),
            ("HTTP/1.1 404 Not Found\r\n\r\n", 404),
            (
                "HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\n\r\n",
                302,
            ),
            ("HTTP/1.1 308 Permanent Redirect\r\n\r\n", 308),
            ("HTTP/1.1 200 OK\r\n\r\n", 200),
            ("HTTP/1.1 503\r\n\r\n", 503),
            ("HTTP/1.0 400 Bad Request\r\n\r\n", 400),
            ("HTTP/1.1 502 Bad\r\nno header\r\n\r\n", 502),
        ] {
            let cause = refused(|| vec![bytes(answer.as_bytes())]);
            assert_eq!(cause, Cause::UpgradeRefused(status), "{answer}");
        }
    }

    #[test]
    fn an_answer_that_is_not_http_is_shown() {
        for (answer, text) in [
            (
                &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
                "it answered \"SSH-2.0-OpenSSH_9.6\\r\\n\"",
            ),
            (b"\x20\x02\x00\x00", "it answered \" \\x02\\x00\\x00\""),
            (
                b"\x15\x03\x01\x00\x02\x02\x46",
                "it answered \"\\x15\\x03\\x01\\x00\\x02\\x02F\"",
            ),
            (
                &[b'x'; 5000],
                "it answered \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
            ),
            // It echoes, and the query may hold a signature.
            (
                b"GET /mqtt?signature=5f4dcc3b HTTP/1.1\r\n\r\n",
                "it answered \"GET /mqtt\"",
            ),
            (
                b"HTTP/1.1 hello\r\n\r\n",
                "it answered \"HTTP/1.1 hello\\r\\n\\r\\n\"",
            ),
        ] {
            let cause = refused(|| vec![bytes(answer)]);
            assert_eq!(cause, Cause::OtherProtocol(text.into()));
        }
    }

    #[test]
    fn the_subprotocol_has_to_be_the_one_asked_for() {
        let none = rules(|| {
            let without = |answer: String| answer.replace("\r\nSec-WebSocket-Protocol: mqtt", "");
            vec![accepting(without)]
        });
        let text = "it did not choose the subprotocol \"mqtt\" [MQTT-6.0.0-4]";
        assert_eq!(none, text);
        let other = rules(|| {
            vec![accepting(|answer| {
                answer.replace("Protocol: mqtt", "Protocol: mqttv3.1")
            })]
        });
        let text = "it chose another subprotocol than \"mqtt\" [MQTT-6.0.0-4]";
        assert_eq!(other, text);
    }

    #[test]
    fn an_answer_that_accepts_wrongly_is_not_taken() {
        const KEY: &str = "its Sec-WebSocket-Accept does not answer this request [RFC 6455, 4.1]";
        for (from, to, text) in [
            ("Accept: ", "Accept: A", KEY),
            ("=\r\n", "\r\n", KEY),
            ("Upgrade: websocket\r\n", "", "header Upgrade not found"),
            (
                "Upgrade: websocket",
                "Upgrade: h2c",
                "header Upgrade had an unexpected",
            ),
            ("Connection: upgrade\r\n", "", "header Connection not found"),
            (
                "Sec-WebSocket-Accept",
                "X-Accept",
                "header Sec-WebSocket-Accept not found",
            ),
            ("HTTP/1.1", "HTTP/1.0", "http version was not 1.1"),
            ("Server:", "\u{1}Server:", "invalid header name"),
            (
                "Server:",
                "Sec-Websocket-Extensions: permessage-deflate\r\nServer:",
                "it chose an extension that was not offered [RFC 6455, 4.1]",
            ),
        ] {
            let said = rules(|| {
                vec![accepting(move |answer| {
                    assert!(answer.contains(from), "{answer}");
                    answer.replace(from, to)
                })]
            });
            assert!(said.contains(text), "{to}: {said}");
        }
    }

    #[test]
    fn no_extension_is_none_and_the_frames_behind_an_answer_are_not_its_head() {
        for behind in ["\u{2}", "\u{2}\r\nSec-WebSocket-Extensions: x\r\n"] {
            let script = vec![accepting(move |answer| {
                let empty = "Sec-WebSocket-Extensions: \r\nServer:";
                answer.replace("Server:", empty) + behind
            })];
            let url = "ws://broker.example/mqtt";
            let (result, _) = ask(script, usize::MAX, url, &WebSocket::new());
            assert!(result.is_ok(), "{:?}", result.err());
        }
    }

    #[test]
    fn an_answer_without_an_end_is_too_long() {
        let endless = || {
            let mut head = b"HTTP/1.1 101 Switching Protocols\r\nX: ".to_vec();
            head.resize(1 << 20, b'x');
            vec![bytes(&head)]
        };
        assert_eq!(
            rules(endless),
            "the head of its answer is longer than 16384 bytes"
        );
        let url = "ws://broker.example/mqtt";
        let (_, wire) = ask(endless(), usize::MAX, url, &WebSocket::new());
        let left = match wire.borrow().script.front() {
            Some(Does::Bytes(bytes)) => bytes.len(),
            _ => 0,
        };
        assert_eq!(left, (1 << 20) - LONGEST_ANSWER);
    }

    #[test]
    fn a_failure_below_is_an_obstacle_of_the_upgrade() {
        let cause = refused(|| vec![Does::Fails(io::ErrorKind::NetworkDown)]);
        let Cause::System(io::ErrorKind::NetworkDown, _) = cause else {
            panic!("{cause:?}");
        };
        // Who hangs up with bytes unread sends a reset.
        let cause = refused(|| vec![Does::Fails(io::ErrorKind::ConnectionReset)]);
        assert_eq!(cause, Cause::Ended);
    }

    /// What is wrong with these settings, of which no byte may have left.
    fn unsendable(settings: &WebSocket) -> String {
        let url = "ws://broker.example/mqtt";
        let (result, wire) = ask(vec![accepting(as_it_is)], usize::MAX, url, settings);
        assert_eq!((wire.borrow().sent.len(), wire.borrow().reads), (0, 0));
        let error = result.err().expect("it cannot be sent");
        match Obstacle::of(&error).map(Obstacle::cause) {
            Some(Cause::Settings(text)) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_header_that_is_none_is_not_sent() {
        for name in ["", "X Y", "X:", "X\r\nHost", "X\0", "Größe", "(x)"] {
            let text = unsendable(&WebSocket::new().header(name, "v"));
            assert_eq!(text, format!("{name:?} is not the name of a header"));
        }
        for name in [
            "Host",
            "UPGRADE",
            "connection",
            "Sec-WebSocket-Protocol",
            "sec-websocket-anything",
            "Content-Length",
            "Transfer-Encoding",
        ] {
            let text = unsendable(&WebSocket::new().header(name, "v"));
            assert_eq!(text, format!("the header {name} is not the user's to set"));
        }
        for value in [
            "secret\r\nHost: x",
            "secret\n",
            "secret\0",
            "\tsecret",
            "secret\u{7F}",
        ] {
            let text = unsendable(&WebSocket::new().header("X-Token", value));
            assert_eq!(text, "the header X-Token has a control character in it");
        }
    }

    #[test]
    fn a_target_that_is_none_is_not_sent() {
        for target in [
            "",
            "mqtt",
            "/a b",
            "/a\r\nHost: x",
            "/a#b",
            "/ä",
            "/a\0",
            "*",
        ] {
            let settings = WebSocket::new().rewrite(move |upgrade| {
                Box::pin(std::future::ready(Ok(upgrade.with_target(target))))
            });
            let text = unsendable(&settings);
            assert!(text.starts_with("the target of the upgrade"), "{text}");
        }
    }

    #[test]
    fn a_callback_rewrites_each_attempt() {
        let attempts = Rc::new(RefCell::new(0));
        let count = Rc::clone(&attempts);
        let settings = WebSocket::new()
            .header("X-Token", "none")
            .rewrite(move |upgrade| {
                *count.borrow_mut() += 1;
                let attempt = *count.borrow();
                Box::pin(async move {
                    futures_lite::future::yield_now().await;
                    let (host, target) = (upgrade.host().to_owned(), upgrade.target().to_owned());
                    let target = format!("{target}&signed={host}&attempt={attempt}");
                    Ok(upgrade.with_target(&target).header("x-token", "fresh"))
                })
            });
        for attempt in 1..=2 {
            let url = "ws://broker.example/mqtt?a=b";
            let (result, wire) = ask(vec![accepting(as_it_is)], usize::MAX, url, &settings);
            assert!(result.is_ok(), "{:?}", result.err());
            let request = String::from_utf8(wire.borrow().sent.clone()).expect("it is text");
            let line =
                format!("GET /mqtt?a=b&signed=broker.example&attempt={attempt} HTTP/1.1\r\n");
            assert!(request.starts_with(&line), "{request}");
            assert!(request.contains("\r\nx-token: fresh\r\n"), "{request}");
            assert!(!request.contains("none"), "{request}");
        }
    }

    #[test]
    fn a_callback_that_fails_is_what_the_attempt_fails_with() {
        let settings = WebSocket::new()
            .rewrite(|_| Box::pin(std::future::ready(Err(crate::Error::misuse("no token")))));
        let url = "ws://broker.example";
        let (result, wire) = ask(vec![accepting(as_it_is)], usize::MAX, url, &settings);
        assert!(wire.borrow().sent.is_empty());
        let error = crate::Error::io(result.err().expect("it failed"), Doing::Connecting);
        let ErrorKind::Misuse(text) = error.kind() else {
            panic!("{error}");
        };
        assert_eq!((&**text, error.doing()), ("no token", Doing::Connecting));
        assert!(error.is_permanent());
    }

    #[test]
    fn what_is_printed_holds_no_secret() {
        let shown = Rc::new(RefCell::new(String::new()));
        let show = Rc::clone(&shown);
        let settings = WebSocket::new()
            .header("X-Token", "secret")
            .rewrite(move |upgrade| {
                *show.borrow_mut() = format!("{upgrade:?}");
                Box::pin(std::future::ready(Ok(upgrade)))
            });
        let _ = ask(
            vec![Does::Ends],
            usize::MAX,
            "ws://host/p?sig=secret",
            &settings,
        );
        let settings = format!("{settings:?}");
        assert_eq!(
            settings,
            "WebSocket { headers: [\"X-Token\"], rewrite: true }"
        );
        let upgrade = "Upgrade { host: \"host\", path: \"/p\", headers: [\"X-Token\"] }";
        assert_eq!(*shown.borrow(), upgrade);
    }
}
