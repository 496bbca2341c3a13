//! A WebSocket as a stream of bytes.
//!
//! Reads are made straight into the caller's buffer and unpacked in place; what is written is packed
//! into a buffer that is empty again before it takes more. So an idle connection holds a few hundred
//! bytes, and a busy one a frame.
//!
//! A ping is answered by whoever comes first: a read tries to write what is due, and so does a write or a
//! flush. All of them come from one task, the driver's, whose waker the inner transport has from each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite};

use super::pack::Pack;
use super::unpack::{End, NORMAL, Unpack};
use crate::obstacle::{Cause, Obstacle, Step};
use crate::transport::BoxedTransport;

/// Reads of the inner transport, and bytes, after which a read that found no payload gives way: a
/// server can send empty frames and pings without end. As much as one read of a driver's turn.
const READS: usize = 16;
const BYTES: usize = 64 * 1024;

/// An open WebSocket.
pub(super) struct Frames {
    inner: BoxedTransport,
    /// What came right behind the answer to the upgrade.
    early: BytesMut,
    unpack: Unpack,
    pack: Pack,
    host: Arc<str>,
}

impl Frames {
    pub(super) fn new(inner: BoxedTransport, early: BytesMut, host: &str) -> Self {
        let host: Arc<str> = host.into();
        Self {
            inner,
            early,
            unpack: Unpack::new(Arc::clone(&host)),
            pack: Pack::new(),
            host,
        }
    }

    /// Reads bytes as they are on the wire.
    fn poll_wire(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            return self.inner.as_mut().poll_read(cx, buffer);
        }
        let count = buffer.len().min(self.early.len());
        self.early.copy_to_slice(&mut buffer[..count]);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Poll::Ready(Ok(count))
    }

    /// Tries to send what is due. A failure is that of the next write, not of a read: there may be more
    /// to read, and the end of it tells better why.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if self.pack.needs_flush() {
            let _ = self.pack.poll_flush(self.inner.as_mut(), cx);
        }
    }

    /// Why nothing can be written any more.
    fn over(&self) -> io::Error {
        match self.unpack.end() {
            Some(End::Failed(obstacle)) => obstacle.clone().into(),
            Some(End::Refused(obstacle)) => refused(obstacle),
            Some(End::Closed) => {
                Obstacle::new(Step::WebSocket, Arc::clone(&self.host), Cause::Ended).into()
            }
            None => io::Error::new(io::ErrorKind::BrokenPipe, "the WebSocket is closed"),
        }
    }

    fn failed(&self, error: &io::Error) -> io::Error {
        Obstacle::io(Step::WebSocket, &self.host, error).into()
    }
}

/// The other side hung up and said why: 1009 for example, if a message is too big for it.
fn refused(obstacle: &Obstacle) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, obstacle.clone())
}

impl AsyncRead for Frames {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.answer(cx);
        let mut bytes = 0;
        for _ in 0..READS {
            match this.unpack.end() {
                Some(End::Closed) => return Poll::Ready(Ok(0)),
                Some(End::Failed(obstacle)) => return Poll::Ready(Err(obstacle.clone().into())),
                Some(End::Refused(obstacle)) => return Poll::Ready(Err(refused(obstacle))),
                None => {}
            }
            match ready!(this.poll_wire(cx, buffer)) {
                Ok(0) => this.unpack.handle_end(),
                Ok(count) => {
                    let payload = this.unpack.unpack(&mut buffer[..count], &mut this.pack);
                    this.answer(cx);
                    if payload > 0 {
                        return Poll::Ready(Ok(payload));
                    }
                    bytes += count;
                }
                Err(error) => {
                    let obstacle = Obstacle::io(Step::WebSocket, &this.host, &error);
                    this.unpack.handle_failure(obstacle);
                }
            }
            if bytes >= BYTES {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Frames {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.pack.is_open() {
            return Poll::Ready(Err(this.over()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let poll = this.pack.poll_write(this.inner.as_mut(), cx, bytes);
        poll.map_err(|error| this.failed(&error))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = this.pack.poll_flush(this.inner.as_mut(), cx);
        poll.map_err(|error| this.failed(&error))
    }

    /// Says Close, then closes what is below. What the server still sends can be read.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.pack.close(Some(NORMAL));
        let poll = ready!(this.pack.poll_flush(this.inner.as_mut(), cx));
        poll.map_err(|error| this.failed(&error))?;
        let poll = this.inner.as_mut().poll_close(cx);
        poll.map_err(|error| this.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::Waker;

    use super::super::wire::{Count, Step as Does, Wire, bytes, wire};
    use super::*;

    /// A frame as a server sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(short as u8),
            long @ 126..=0xFFFF => {
                frame.push(126);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
            longer => {
                frame.push(127);
                frame.extend_from_slice(&(longer as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn announced(length: u64) -> Vec<u8> {
        [&[0x82, 127][..], &length.to_be_bytes()].concat()
    }

    /// A frame of a client: its first byte and the payload without its mask.
    type Sent = (u8, Vec<u8>);

    fn unmask(mut sent: &[u8]) -> Vec<Sent> {
        let mut frames = Vec::new();
        while let [first, second, rest @ ..] = sent {
            assert_eq!(second & 0x80, 0x80, "a client masks every frame");
            let (length, rest) = match second & 0x7F {
                126 => {
                    let (length, rest) = rest.split_at(2);
                    (usize::from(length[0]) << 8 | usize::from(length[1]), rest)
                }
                127 => {
                    let (length, rest) = rest.split_at(8);
                    let length = u64::from_be_bytes(length.try_into().expect("eight bytes"));
                    (length as usize, rest)
                }
                short => (usize::from(short), rest),
            };
            let (key, rest) = rest.split_at(4);
            let (payload, rest) = rest.split_at(length);
            let payload = payload.iter().zip(key.iter().cycle());
            frames.push((*first, payload.map(|(byte, key)| byte ^ key).collect()));
            sent = rest;
        }
        assert!(sent.is_empty(), "a frame is cut");
        frames
    }

    fn open(script: Vec<Does>) -> (Frames, Rc<RefCell<Wire>>) {
        let (inner, wire) = wire(script);
        (Frames::new(inner, BytesMut::new(), "broker.example"), wire)
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// How reading went.
    #[derive(Debug, PartialEq, Eq)]
    enum Ending {
        Waits,
        Ends,
        Fails(io::ErrorKind, String),
    }

    /// Reads until nothing comes any more.
    fn read(frames: &mut Frames, buffer: &mut [u8]) -> (Vec<u8>, Ending) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut received = Vec::new();
        loop {
            match Pin::new(&mut *frames).poll_read(&mut cx, buffer) {
                Poll::Pending if count.take() > 0 => {}
                Poll::Pending => return (received, Ending::Waits),
                Poll::Ready(Ok(0)) => return (received, Ending::Ends),
                Poll::Ready(Ok(count)) => received.extend_from_slice(&buffer[..count]),
                Poll::Ready(Err(error)) => {
                    return (received, Ending::Fails(error.kind(), error.to_string()));
                }
            }
        }
    }

    /// What comes of these bytes, followed by the end of the stream if `ends`: whole, byte by byte, and
    /// with buffers of several sizes. Returns what was read, how that ended, and what was sent.
    fn run(sent: &[u8], ends: bool) -> (Vec<u8>, Ending, Vec<Sent>) {
        let mut outcomes = Vec::new();
        for (chunk, size) in [
            (usize::MAX, 70_000),
            (1, 70_000),
            (usize::MAX, 3),
            (5, 7),
            (1, 1),
        ] {
            let mut script = vec![bytes(sent)];
            if ends {
                script.push(Does::Ends);
            }
            let (mut frames, wire) = open(script);
            wire.borrow_mut().chunk = chunk;
            let mut buffer = vec![0xEE; size];
            let (received, ending) = read(&mut frames, &mut buffer);
            for _ in 0..3 {
                let again = read(&mut frames, &mut buffer);
                assert_eq!(again, (Vec::new(), clone(&ending)), "a later read");
            }
            let answers = unmask(&wire.borrow().sent);
            outcomes.push((received, ending, answers));
        }
        let first = outcomes.swap_remove(0);
        for outcome in outcomes {
            assert_eq!(outcome, first);
        }
        first
    }

    fn clone(ending: &Ending) -> Ending {
        match ending {
            Ending::Waits => Ending::Waits,
            Ending::Ends => Ending::Ends,
            Ending::Fails(kind, text) => Ending::Fails(*kind, text.clone()),
        }
    }

    fn write(frames: &mut Frames, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(frames).poll_write(&mut context(), bytes)
    }

    fn taken(frames: &mut Frames, bytes: &[u8]) -> usize {
        match write(frames, bytes) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("it is not taken: {other:?}"),
        }
    }

    fn flush(frames: &mut Frames) -> bool {
        let poll = Pin::new(frames).poll_flush(&mut context());
        poll.map(|result| result.expect("a flush")).is_ready()
    }

    fn close(frames: &mut Frames) -> bool {
        let poll = Pin::new(frames).poll_close(&mut context());
        poll.map(|result| result.expect("a close")).is_ready()
    }

    fn counted(size: usize) -> Vec<u8> {
        (0..size).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn binary_frames_are_a_stream_of_bytes() {
        let payloads = [
            &counted(2)[..],
            &[],
            &counted(125),
            &counted(126),
            &counted(300),
        ];
        let sent: Vec<u8> = payloads.iter().flat_map(|part| frame(0x82, part)).collect();
        assert_eq!(
            run(&sent, false),
            (payloads.concat(), Ending::Waits, vec![])
        );
    }

    #[test]
    fn each_length_of_a_frame_is_taken() {
        for size in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 70_001] {
            let sent = [frame(0x82, &counted(size)), frame(0x82, b"next")].concat();
            let (received, ending, _) = run(&sent, true);
            assert_eq!(received, [&counted(size)[..], b"next"].concat());
            assert_eq!(ending, Ending::Ends, "{size}");
        }
    }

    #[test]
    fn fragments_are_one_stream_too() {
        let sent = [
            frame(0x02, b"fr"),
            frame(0x00, b""),
            frame(0x00, b"agm"),
            frame(0x80, b"ents"),
            frame(0x02, b""),
            frame(0x80, b"!"),
            frame(0x82, b"?"),
        ];
        let all = (b"fragments!?".to_vec(), Ending::Waits, vec![]);
        assert_eq!(run(&sent.concat(), false), all);
    }

    #[test]
    fn a_ping_between_fragments_is_answered_with_its_payload() {
        for payload in [&b""[..], b"are you there", &counted(125)] {
            let sent = [
                frame(0x02, b"one "),
                frame(0x89, payload),
                frame(0x80, b"two"),
            ]
            .concat();
            let (received, ending, answers) = run(&sent, false);
            assert_eq!((&received[..], ending), (&b"one two"[..], Ending::Waits));
            assert_eq!(answers, [(0x8A, payload.to_vec())]);
        }
    }

    #[test]
    fn a_pong_that_nobody_asked_for_is_passed_over() {
        let sent = [frame(0x8A, b""), frame(0x82, b"a"), frame(0x8A, b"pong")].concat();
        assert_eq!(run(&sent, false), (b"a".to_vec(), Ending::Waits, vec![]));
    }

    #[test]
    fn a_close_without_an_error_is_the_end() {
        for payload in [&[][..], &[0x03, 0xE8], &[0x03, 0xE9], b"\x03\xE8bye"] {
            let sent = [
                frame(0x82, b"last"),
                frame(0x88, payload),
                frame(0x82, b"not"),
            ]
            .concat();
            let (received, ending, answers) = run(&sent, false);
            assert_eq!((&received[..], ending), (&b"last"[..], Ending::Ends));
            let code = payload.get(..2).unwrap_or_default().to_vec();
            assert_eq!(answers, [(0x88, code)]);
        }
    }

    #[test]
    fn a_close_with_an_error_says_it() {
        const POLICY: &str = "it closed the WebSocket with code 1008";
        for (payload, said, answer) in [
            (&b"\x03\xF0"[..], POLICY.to_owned(), [0x03, 0xF0]),
            (b"\x03\xF0quota", format!("{POLICY}: quota"), [0x03, 0xF0]),
            (
                b"\x03\xF0\x1B[2J\xFF",
                format!("{POLICY}: \u{FFFD}[2J\u{FFFD}"),
                [0x03, 0xF0],
            ),
            (
                b"\x0F\xA0",
                "it closed the WebSocket with code 4000".to_owned(),
                [0x0F, 0xA0],
            ),
            // 1006 is what a program tells itself when no Close came; it may not be sent back.
            (
                b"\x03\xEE",
                "it closed the WebSocket with code 1006".to_owned(),
                [0x03, 0xEA],
            ),
            (
                b"\x03",
                "it sent a Close with half a code [RFC 6455, 5.5.1]".to_owned(),
                [0x03, 0xEA],
            ),
        ] {
            let (received, ending, answers) = run(&frame(0x88, payload), false);
            let text = format!("WebSocket with broker.example: {said}");
            // Half a code is a broken rule, the others say that the connection is over.
            let kind = match payload {
                [_] => io::ErrorKind::InvalidData,
                _ => io::ErrorKind::ConnectionAborted,
            };
            assert_eq!(ending, Ending::Fails(kind, text));
            assert_eq!(
                (&received[..], answers),
                (&[][..], vec![(0x88, answer.to_vec())])
            );
        }
    }

    #[test]
    fn a_broken_rule_closes_and_says_which() {
        let wrong_length = "it wrote the length of a frame wrongly [RFC 6455, 5.2]";
        let reserved_bit = "it set a reserved bit of a frame [RFC 6455, 5.2]";
        let unknown = "it sent a frame of an unknown kind [RFC 6455, 5.2]";
        let not_begun = "it continued a message that it had not begun [RFC 6455, 5.4]";
        let inside = "it began a message inside of another [RFC 6455, 5.4]";
        let fragmented = "it fragmented a control frame [RFC 6455, 5.5]";
        let long = "it sent a control frame of more than 125 bytes [RFC 6455, 5.5]";
        let masked = "it masked a frame [RFC 6455, 5.1]";
        for (sent, code, text) in [
            (
                frame(0x81, b"text"),
                1003,
                "it sent a text frame [MQTT-6.0.0-1]",
            ),
            (
                frame(0x01, b""),
                1003,
                "it sent a text frame [MQTT-6.0.0-1]",
            ),
            (b"\x82\x81\x00\x00\x00\x00\x30".to_vec(), 1002, masked),
            (b"\x89\x80\x01\x02\x03\x04".to_vec(), 1002, masked),
            (frame(0x80, b"a"), 1002, not_begun),
            (frame(0x00, b"a"), 1002, not_begun),
            ([frame(0x02, b""), frame(0x82, b"a")].concat(), 1002, inside),
            ([frame(0x02, b""), frame(0x81, b"a")].concat(), 1002, inside),
            (frame(0xC2, b"deflated"), 1002, reserved_bit),
            (frame(0xA2, b""), 1002, reserved_bit),
            (frame(0x92, b""), 1002, reserved_bit),
            (frame(0x83, b""), 1002, unknown),
            (frame(0x8B, b""), 1002, unknown),
            (frame(0x8F, b""), 1002, unknown),
            (frame(0x09, b""), 1002, fragmented),
            (frame(0x08, b""), 1002, fragmented),
            (frame(0x89, &[0; 126]), 1002, long),
            (b"\x82\x7E\x00\x7D".to_vec(), 1002, wrong_length),
            (b"\x89\x7E\x00\x01a".to_vec(), 1002, wrong_length),
            (announced(0xFFFF), 1002, wrong_length),
            (announced(1 << 63), 1002, wrong_length),
        ] {
            let sent = [frame(0x82, b"good"), sent, frame(0x82, b"not")].concat();
            let (received, ending, answers) = run(&sent, false);
            let text = format!("WebSocket with broker.example: {text}");
            assert_eq!(ending, Ending::Fails(io::ErrorKind::InvalidData, text));
            assert_eq!(received, b"good");
            assert_eq!(answers, [(0x88, u16::to_be_bytes(code).to_vec())]);
        }
    }

    #[test]
    fn the_end_of_the_stream_is_one_between_frames_alone() {
        let sent = [
            frame(0x02, b"abc"),
            frame(0x89, b"p"),
            frame(0x80, &counted(130)),
        ]
        .concat();
        let payload = [b"abc", &counted(130)[..]].concat();
        // Behind the first frame, the second and the third.
        let boundaries = [0, 5, 8, sent.len()];
        for cut in 0..=sent.len() {
            let (received, ending, _) = run(&sent[..cut], true);
            assert!(payload.starts_with(&received), "cut at {cut}");
            if boundaries.contains(&cut) {
                assert_eq!(ending, Ending::Ends, "cut at {cut}");
            } else {
                let text = "WebSocket with broker.example: the other side ended the connection";
                let fails = Ending::Fails(io::ErrorKind::UnexpectedEof, text.to_owned());
                assert_eq!(ending, fails, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_failure_below_stays_what_it_is() {
        let (mut frames, _wire) = open(vec![
            bytes(&frame(0x82, b"a")),
            Does::Fails(io::ErrorKind::NetworkDown),
            bytes(&frame(0x82, b"b")),
        ]);
        let (received, ending) = read(&mut frames, &mut [0; 100]);
        assert_eq!(received, b"a");
        let Ending::Fails(io::ErrorKind::NetworkDown, _) = ending else {
            panic!("{ending:?}");
        };
        assert_eq!(read(&mut frames, &mut [0; 100]), (Vec::new(), ending));
    }

    #[test]
    fn what_came_behind_the_upgrade_is_read_first() {
        for size in [1, 3, 1000] {
            let (inner, _wire) = wire(vec![bytes(b"ly"), bytes(&frame(0x82, b", then late"))]);
            let early = BytesMut::from(&b"\x82\x02no\x82\x05ear"[..]);
            let mut frames = Frames::new(inner, early, "broker.example");
            let (received, ending) = read(&mut frames, &mut vec![0; size]);
            assert_eq!(received, b"noearly, then late");
            assert_eq!(ending, Ending::Waits);
            assert_eq!(frames.early.capacity(), 0);
        }
    }

    #[test]
    fn a_frame_as_large_as_a_packet_can_be_costs_nothing() {
        // 1 + 4 + 268,435,455: the largest remaining length [1.5.5].
        const LARGEST: usize = 268_435_460;
        let (mut frames, _wire) = open(vec![
            bytes(&announced(LARGEST as u64)),
            Does::Zeros(LARGEST),
            bytes(&frame(0x82, b"next")),
        ]);
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        while received < LARGEST {
            let poll = Pin::new(&mut frames).poll_read(&mut context(), &mut buffer);
            let Poll::Ready(Ok(count @ 1..)) = poll else {
                panic!("after {received} bytes: {poll:?}");
            };
            received += count;
            assert_eq!(frames.pack.held() + frames.early.capacity(), 0);
        }
        assert_eq!(received, LARGEST);
        assert_eq!(
            read(&mut frames, &mut buffer),
            (b"next".to_vec(), Ending::Waits)
        );
        // All that there is beside the buffer of the caller.
        assert!(size_of::<Frames>() < 512, "{}", size_of::<Frames>());
    }

    #[test]
    fn payload_is_read_into_the_buffer_of_the_caller_as_far_as_it_goes() {
        let frame = frame(0x82, &counted(50_000));
        let (mut frames, wire) = open(vec![bytes(&frame)]);
        let mut buffer = [0; 10_000];
        assert_eq!(read(&mut frames, &mut buffer).0, counted(50_000));
        // Five full ones, one for the four bytes of the head, and the one that waits.
        assert_eq!(wire.borrow().reads, 7);
    }

    #[test]
    fn a_flood_of_empty_frames_gives_way() {
        for (chunk, most_reads) in [(usize::MAX, 1), (1, READS)] {
            let (mut frames, wire) = open(vec![bytes(&frame(0x82, b"").repeat(100_000))]);
            wire.borrow_mut().chunk = chunk;
            let count = Arc::new(Count::default());
            let waker = Waker::from(Arc::clone(&count));
            let mut cx = Context::from_waker(&waker);
            let mut buffer = vec![0; BYTES];
            let poll = Pin::new(&mut frames).poll_read(&mut cx, &mut buffer);
            assert!(poll.is_pending(), "{poll:?}");
            assert_eq!(count.take(), 1, "it goes on by itself");
            assert_eq!(wire.borrow().reads, most_reads);
        }
    }

    #[test]
    fn of_a_flood_of_pings_the_latest_is_answered() {
        let (mut frames, wire) = open(vec![]);
        wire.borrow_mut().room = 0;
        let mut pings: Vec<u8> = Vec::new();
        for number in 0..10_000_u32 {
            pings.extend(frame(0x89, &number.to_be_bytes()));
        }
        wire.borrow_mut().script.push_back(bytes(&pings));
        wire.borrow_mut()
            .script
            .push_back(bytes(&frame(0x82, b"data")));
        assert_eq!(read(&mut frames, &mut [0; 600]).0, b"data");
        assert!(frames.pack.held() < 1024, "{}", frames.pack.held());
        wire.borrow_mut().room = usize::MAX;
        assert_eq!(read(&mut frames, &mut [0; 600]).1, Ending::Waits);
        let answers = unmask(&wire.borrow().sent);
        // The first one was in the buffer already when the peer stopped reading.
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1], (0x8A, 9_999_u32.to_be_bytes().to_vec()));
    }

    #[test]
    fn a_pong_leaves_although_nobody_writes() {
        let (mut frames, wire) = open(vec![bytes(&frame(0x89, b"p"))]);
        wire.borrow_mut().room = 3;
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut buffer = [0; 100];
        let poll = Pin::new(&mut frames).poll_read(&mut cx, &mut buffer);
        assert!(poll.is_pending(), "{poll:?}");
        assert_eq!((count.take(), wire.borrow().sent.len()), (0, 3));
        wire.borrow_mut().room = usize::MAX;
        let writer = wire.borrow_mut().writer.take();
        writer.expect("the transport knows whom to wake").wake();
        assert_eq!(count.take(), 1);
        let poll = Pin::new(&mut frames).poll_read(&mut cx, &mut buffer);
        assert!(poll.is_pending(), "{poll:?}");
        assert_eq!(unmask(&wire.borrow().sent), [(0x8A, b"p".to_vec())]);
        assert_eq!(wire.borrow().flushes, 1);
        // Nothing is due any more: the next read only reads.
        let writes = wire.borrow().writes;
        let poll = Pin::new(&mut frames).poll_read(&mut cx, &mut buffer);
        assert!(poll.is_pending(), "{poll:?}");
        assert_eq!((wire.borrow().writes, wire.borrow().flushes), (writes, 1));
    }

    #[test]
    fn a_pong_leaves_in_one_write_with_the_data_behind_it() {
        let (mut frames, wire) = open(vec![bytes(&frame(0x89, b"1"))]);
        // A first frame is stuck while the ping comes.
        wire.borrow_mut().room = 0;
        assert_eq!(taken(&mut frames, b"before"), 6);
        assert_eq!(read(&mut frames, &mut [0; 100]).1, Ending::Waits);
        wire.borrow_mut().room = usize::MAX;
        assert_eq!(taken(&mut frames, b"behind"), 6);
        assert_eq!(wire.borrow().writes, 2);
        let sent = unmask(&wire.borrow().sent);
        let expected = [
            (0x82, b"before".to_vec()),
            (0x8A, b"1".to_vec()),
            (0x82, b"behind".to_vec()),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn what_is_written_leaves_masked_in_binary_frames() {
        for size in [1, 125, 126, 0xFFFF, 0x1_0000] {
            let (mut frames, wire) = open(vec![]);
            assert_eq!(taken(&mut frames, &counted(size)), size);
            assert_eq!(wire.borrow().writes, 1, "head and payload in one write");
            assert_eq!(unmask(&wire.borrow().sent), [(0x82, counted(size))]);
        }
    }

    #[test]
    fn a_frame_holds_64_kib_at_most() {
        let (mut frames, wire) = open(vec![]);
        let data = counted(150_000);
        let mut rest = &data[..];
        for expected in [65_536, 65_536, 18_928] {
            let count = taken(&mut frames, rest);
            assert_eq!(count, expected);
            rest = &rest[count..];
        }
        let sent = unmask(&wire.borrow().sent);
        assert!(sent.iter().all(|(first, _)| *first == 0x82));
        let sent: Vec<u8> = sent.into_iter().flat_map(|(_, payload)| payload).collect();
        assert_eq!(sent, data);
    }

    #[test]
    fn nothing_is_taken_before_the_frame_before_has_left() {
        let (mut frames, wire) = open(vec![]);
        wire.borrow_mut().room = 10;
        assert_eq!(taken(&mut frames, &counted(1000)), 1000);
        // The head has eight bytes: 998 of the frame are left, and one goes at a time.
        for _ in 0..998 {
            assert!(write(&mut frames, b"more").is_pending());
            assert!(!flush(&mut frames));
            wire.borrow_mut().room = 1;
        }
        wire.borrow_mut().room = usize::MAX;
        assert_eq!(taken(&mut frames, b"more"), 4);
        assert!(flush(&mut frames));
        let expected = [(0x82, counted(1000)), (0x82, b"more".to_vec())];
        assert_eq!(unmask(&wire.borrow().sent), expected);
        assert_eq!(wire.borrow().flushes, 1);
    }

    #[test]
    fn after_a_flush_a_large_buffer_is_given_back() {
        let (mut frames, _wire) = open(vec![]);
        taken(&mut frames, &counted(60_000));
        assert!(frames.pack.held() >= 60_000);
        assert!(flush(&mut frames));
        assert_eq!(frames.pack.held(), 0);
        // A small one stays, and serves the next message.
        taken(&mut frames, &counted(100));
        assert!(flush(&mut frames));
        assert!((100..1024).contains(&frames.pack.held()));
    }

    #[test]
    fn a_close_is_said_once_and_what_still_comes_is_read() {
        let (mut frames, wire) = open(vec![]);
        taken(&mut frames, b"\xE0\x00");
        wire.borrow_mut().room = 0;
        assert!(!close(&mut frames));
        wire.borrow_mut().room = usize::MAX;
        assert!(close(&mut frames) && close(&mut frames));
        let Poll::Ready(Err(error)) = write(&mut frames, b"late") else {
            panic!("nothing follows a Close");
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // Neither a ping nor a Close is answered after that.
        let still = [
            frame(0x89, b"p"),
            frame(0x82, b"still"),
            frame(0x88, b"\x03\xE8"),
        ]
        .concat();
        wire.borrow_mut().script.push_back(bytes(&still));
        let received = read(&mut frames, &mut [0; 100]);
        assert_eq!(received, (b"still".to_vec(), Ending::Ends));
        let expected = [(0x82, b"\xE0\x00".to_vec()), (0x88, b"\x03\xE8".to_vec())];
        assert_eq!(unmask(&wire.borrow().sent), expected);
        assert_eq!(wire.borrow().closes, 2);
    }

    #[test]
    fn the_answer_to_a_close_stands_behind_the_frame_that_is_on_its_way() {
        let (mut frames, wire) = open(vec![bytes(&frame(0x88, b"\x03\xE8"))]);
        wire.borrow_mut().room = 5;
        taken(&mut frames, b"half of it");
        // Whoever closed may read no more, so its end is not held back for the answer.
        assert_eq!(read(&mut frames, &mut [0; 100]).1, Ending::Ends);
        assert_eq!(wire.borrow().sent.len(), 5);
        wire.borrow_mut().room = usize::MAX;
        assert!(close(&mut frames));
        let expected = [(0x82, b"half of it".to_vec()), (0x88, b"\x03\xE8".to_vec())];
        assert_eq!(unmask(&wire.borrow().sent), expected);
    }

    #[test]
    fn whatever_comes_is_the_same_however_it_is_cut() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut endings = std::collections::HashSet::new();
        for _ in 0..3000 {
            let mut sent = Vec::new();
            for _ in 0..random.usize(1..8) {
                let first = random.choice([0x82, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88]);
                let payload = counted(random.usize(0..140));
                sent.extend(frame(first.expect("there are eight"), &payload));
            }
            sent.truncate(random.usize(0..=sent.len()));
            if random.u8(..4) == 0 && !sent.is_empty() {
                let place = random.usize(..sent.len());
                sent[place] ^= 1 << random.u8(..8);
            }
            let mut outcomes =
                [(usize::MAX, 4096), (1, 4096), (3, 2), (100, 1)].map(|(chunk, size)| {
                    let (mut frames, wire) = open(vec![bytes(&sent), Does::Ends]);
                    wire.borrow_mut().chunk = chunk;
                    if sent.is_empty() {
                        wire.borrow_mut().script.pop_front();
                    }
                    let outcome = read(&mut frames, &mut vec![0; size]);
                    // What is answered may differ, of several pings the latest: but it is all frames.
                    unmask(&wire.borrow().sent);
                    outcome
                });
            outcomes.sort_by_key(|(received, _)| received.len());
            let [first, .., last] = outcomes;
            assert_eq!(first, last, "{sent:02X?}");
            endings.insert(format!("{:?}", last.1));
        }
        assert!(endings.len() > 8, "it went in many ways: {endings:?}");
    }

    #[test]
    fn a_write_after_the_end_says_how_it_ended() {
        for (sent, text) in [
            (frame(0x81, b"t"), "it sent a text frame [MQTT-6.0.0-1]"),
            (frame(0x88, b""), "the other side ended the connection"),
        ] {
            let (mut frames, _wire) = open(vec![bytes(&sent)]);
            read(&mut frames, &mut [0; 100]);
            let Poll::Ready(Err(error)) = write(&mut frames, b"late") else {
                panic!("it is over");
            };
            assert_eq!(
                error.to_string(),
                format!("WebSocket with broker.example: {text}")
            );
        }
    }
}
