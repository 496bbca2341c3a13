//! A proxy for tests, in memory: it knows what it will be asked, byte for byte, and what it answers.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite};
use smol::block_on;

use super::super::Endpoint;
use super::server::Server;
use crate::obstacle::{Cause, Obstacle, Step};

/// What is asked and what is answered to it, by turns. Behind the last answer the connection ends.
pub(super) type Turns<'a> = &'a [(&'a [u8], &'a [u8])];

struct Script {
    /// What is still to be asked, and the answers.
    turns: VecDeque<(VecDeque<u8>, Vec<u8>)>,
    /// What was answered and not read yet.
    answer: VecDeque<u8>,
    /// Bytes that a read or a write moves at most.
    piece: usize,
    /// Whether the next read or write goes through at once. In pieces every other one waits.
    is_ready: bool,
}

impl Script {
    fn new(turns: Turns<'_>, piece: usize) -> Self {
        let turns = turns
            .iter()
            .map(|(asked, answer)| (asked.iter().copied().collect(), answer.to_vec()))
            .collect();
        Self {
            turns,
            answer: VecDeque::new(),
            piece,
            is_ready: true,
        }
    }

    fn is_ready(&mut self, cx: &Context<'_>) -> bool {
        let ready = self.is_ready;
        self.is_ready = !ready || self.piece == usize::MAX;
        if !ready {
            cx.waker().wake_by_ref();
        }
        ready
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_ready(cx) {
            return Poll::Pending;
        }
        if self.answer.is_empty()
            && let Some((asked, _)) = self.turns.front()
        {
            panic!("an answer is awaited before {asked:02X?} was asked");
        }
        let count = bytes.len().min(self.piece).min(self.answer.len());
        for (slot, byte) in bytes.iter_mut().zip(self.answer.drain(..count)) {
            *slot = byte;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_ready(cx) {
            return Poll::Pending;
        }
        let piece = self.piece;
        let (asked, _) = self.turns.front_mut().expect("the script has another turn");
        let mut count = 0;
        for byte in bytes.iter().take(piece) {
            assert_eq!(asked.pop_front(), Some(*byte), "in {bytes:02X?}");
            count += 1;
        }
        if asked.is_empty() {
            let (_, answer) = self.turns.pop_front().expect("the turn is there");
            self.answer.extend(answer);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn run_in_pieces(
    server: &Server,
    endpoint: &str,
    turns: Turns<'_>,
    piece: usize,
) -> Result<Vec<u8>, Obstacle> {
    let endpoint = Endpoint::parse(endpoint).expect(endpoint);
    let script = Box::pin(Script::new(turns, piece));
    let connected = block_on(server.connect_on(script, &endpoint));
    let mut stream = connected.map_err(|error| {
        let obstacle = Obstacle::of(&error).expect("an obstacle").clone();
        assert_eq!(obstacle.step(), Step::Proxy);
        assert_eq!(obstacle.with(), server.to_string());
        obstacle
    })?;
    let mut rest = Vec::new();
    block_on(stream.read_to_end(&mut rest)).expect("the end of the script");
    Ok(rest)
}

/// Connects on to `endpoint` by this proxy, whole and one byte at a time: what is left in the stream, or
/// what stood in the way.
pub(super) fn run_with(
    server: &Server,
    endpoint: &str,
    turns: Turns<'_>,
) -> Result<Vec<u8>, Obstacle> {
    let whole = run_in_pieces(server, endpoint, turns, usize::MAX);
    let in_bytes = run_in_pieces(server, endpoint, turns, 1);
    assert_eq!(whole, in_bytes, "whole and one byte at a time");
    whole
}

/// As [`run_with`], with the URL of a proxy.
pub(super) fn run(proxy: &str, endpoint: &str, turns: Turns<'_>) -> Result<Vec<u8>, Obstacle> {
    run_with(&Server::parse(proxy).expect(proxy), endpoint, turns)
}

/// The cause of the failure.
pub(super) fn cause(proxy: &str, endpoint: &str, turns: Turns<'_>) -> Cause {
    let obstacle = run(proxy, endpoint, turns).expect_err("a failure");
    obstacle.cause().clone()
}

/// What comes of it when the connection ends in each answer, in front of each of its bytes.
pub(super) fn causes_of_cuts(proxy: &str, endpoint: &str, turns: Turns<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, (asked, answer)) in turns.iter().enumerate() {
        for end in 0..answer.len() {
            let mut cut = turns[..index].to_vec();
            cut.push((asked, &answer[..end]));
            causes.push(cause(proxy, endpoint, &cut));
        }
    }
    causes
}
