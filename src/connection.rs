//! One connection: read, feed, write, once per turn.
//!
//! A turn is bounded: at most [`ROUNDS`] reads and as many writes, then the others on the thread have
//! theirs. All that a turn brings about leaves in as few writes as there are full buffers.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::dialogue::Dialogue;
use crate::error::{Doing, Error, ErrorKind};
use crate::keeper::Keeper;
use crate::protocol::{Delivery, End, Step};
use crate::reader::{Buffer, Input, Reader};
use crate::shared::{Shared, State};
use crate::transport::{BoxedTransport, progress};

/// Reads of one turn, and writes. At 64 KiB each that is half a megabyte, well below a millisecond.
const ROUNDS: usize = 8;

/// An open transport with the protocol on it.
pub(crate) struct Connection {
    transport: BoxedTransport,
    reader: Reader,
    /// The authentication, if the user wants one.
    dialogue: Option<Dialogue>,
    /// Whether input was left unused until CONNACK is believed, or until the store keeps up.
    held: bool,
    /// Keys of inline handlers to call, kept to reuse its memory.
    calls: Vec<usize>,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The protocol left it to connect again at once.
    Again,
    /// We left, because the user wanted it.
    Left,
    /// It failed.
    Failed(Error, End),
}

/// Why a turn reads no more.
enum Read {
    /// Nothing is here to be read, or nothing may be before the authenticator's answer.
    Idle,
    /// It has read as much as fits into a turn.
    Busy,
    /// The peer takes our acknowledgements too slowly, or the store what they wait for. Something may have
    /// been read before.
    Clogged,
}

/// When it goes on.
enum Next {
    /// As soon as the others on the thread had their turn.
    AtOnce,
    /// When something comes, or the transport takes bytes again.
    WhenWoken,
}

impl Connection {
    pub(crate) fn new(transport: BoxedTransport, dialogue: Option<Dialogue>) -> Self {
        Self {
            transport,
            reader: Reader::new(),
            dialogue,
            held: false,
            calls: Vec::new(),
        }
    }

    /// Runs until the connection ends or the user wants something else of the driver. What is then still to be
    /// said, a goodbye, is for [`Connection::close`] to write: a link that the broker has ended gets nothing
    /// more, so that what waits is not lost in it.
    pub(crate) async fn run(
        &mut self,
        shared: &Shared,
        clock: &dyn Clock,
        alarm: &mut Alarm,
        keeper: &mut Keeper,
    ) -> Outcome {
        std::future::poll_fn(|cx| {
            loop {
                let now = clock.now();
                shared.with(|state| state.begin_turn(now));
                match self.turn(now, shared, clock, keeper, cx) {
                    Ok(Next::AtOnce) => {
                        shared.with(|state| state.give_way(cx.waker()));
                        return Poll::Pending;
                    }
                    Ok(Next::WhenWoken) => {}
                    Err(outcome) => return Poll::Ready(outcome),
                }
                let deadline = shared.with(|state| {
                    state.end_turn(cx.waker());
                    state.poll_timeout()
                });
                if alarm.poll(clock, deadline, cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// One turn. An outcome comes as an error, so that `?` ends the turn.
    fn turn(
        &mut self,
        now: Instant,
        shared: &Shared,
        clock: &dyn Clock,
        keeper: &mut Keeper,
        cx: &mut Context<'_>,
    ) -> Result<Next, Outcome> {
        let taken = progress::taken();
        let read = self.read(now, shared, cx)?;
        shared.with(|state| {
            // Handlers may have called, and may have taken their time: what they began has its time from now on.
            // What is owed to us is judged by when the turn began, as the answer may lie there unread.
            state.catch_up(clock.now());
            state.protocol.handle_timeout(now).map_err(lost)
        })?;
        let answered = match &mut self.dialogue {
            Some(dialogue) => dialogue.poll(now, shared, clock, cx).map_err(lost)?,
            None => false,
        };
        shared.with(|state| {
            if state.protocol.is_leaving() {
                return Err(Outcome::Again);
            }
            stays(state, now)
        })?;
        if keeper.is_present() {
            // What was called for goes to the store first, and leaves in this turn if that works at once.
            keeper.date(now, shared, clock);
            shared.with(|state| state.protocol.pump(now));
            keeper.poll(shared, cx).map_err(lost)?;
        }
        // What is written now has its time from now on too, a ping above all.
        let now = clock.now();
        let written = self.write(now, shared, cx)?;
        if progress::taken() != taken {
            shared.with(|state| state.protocol.handle_progress(now));
        }
        // While it was written, there was room for more.
        let stored = keeper.poll(shared, cx).map_err(lost)?;
        // What was flushed now may be the last that a disconnect waited for, and nothing need come back.
        shared.with(|state| stays(state, now))?;
        let reads_on = match read {
            Read::Idle => false,
            Read::Busy => true,
            // Else we are woken when the transport takes bytes again, or by the store.
            Read::Clogged => !shared.with(|state| state.protocol.is_clogged()),
        };
        // An exchange may have begun while it was written.
        let asked = self.dialogue.is_some() && shared.with(|state| state.ask.is_some());
        // What was held back until the authenticator's answer is looked at next, and what was until the store
        // had it leaves.
        if reads_on || answered || stored || asked {
            return Ok(Next::AtOnce);
        }
        Ok(written)
    }

    fn read(
        &mut self,
        now: Instant,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<Read, Outcome> {
        let mut buffer = Buffer::take();
        let read = self.read_into(&mut buffer, now, shared, cx);
        self.reader.put_by(&mut buffer);
        read
    }

    fn read_into(
        &mut self,
        buffer: &mut Buffer,
        now: Instant,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<Read, Outcome> {
        for _ in 0..ROUNDS {
            let (clogged, verifying) =
                shared.with(|state| (state.protocol.is_clogged(), state.protocol.is_verifying()));
            if verifying {
                self.held = true;
                return Ok(Read::Idle);
            }
            if clogged {
                return Ok(Read::Clogged);
            }
            if std::mem::take(&mut self.held) {
                self.reader.bring_back(buffer);
                self.feed(now, shared, buffer)?;
            }
            let transport = self.transport.as_mut();
            let count = match self.reader.poll_read(buffer, transport, cx) {
                Poll::Pending => return Ok(Read::Idle),
                Poll::Ready(Ok(count)) => count,
                // As below.
                Poll::Ready(Err(error)) if self.reader.is_amid(buffer) => {
                    return Err(lost(Error::io(error, Doing::Connected)));
                }
                Poll::Ready(Err(error)) => return Err(broken(error, now)),
            };
            if count == 0 {
                let error = Error::new(ErrorKind::LinkLost, Doing::Connected);
                // No broker that means to end it stops in the middle of a packet: that is the network, which
                // is no reason to suspect a message of ours.
                let end = if self.reader.is_amid(buffer) {
                    End::Otherwise
                } else {
                    shared.with(|state| state.protocol.closed_at(now))
                };
                return Err(Outcome::Failed(error, end));
            }
            shared.with(|state| {
                state.statistics.reads += 1;
                state.statistics.bytes_in += count as u64;
                state.protocol.handle_received(now);
            });
            self.feed(now, shared, buffer)?;
        }
        // The last read may have brought the CONNACK, and more behind it.
        self.held |= shared.with(|state| state.protocol.is_verifying());
        Ok(Read::Busy)
    }

    /// Gives the protocol every whole packet that is here.
    fn feed(&mut self, now: Instant, shared: &Shared, buffer: &mut Buffer) -> Result<(), Outcome> {
        loop {
            let input = self.reader.input(buffer);
            let (bytes, whole): (&[u8], Option<&Rc<Vec<u8>>>) = match &input {
                Input::Bytes(bytes) => (bytes, None),
                Input::Whole(packet) => (packet, Some(packet)),
            };
            if bytes.is_empty() {
                return Ok(());
            }
            let calls = &mut self.calls;
            let mut waits = false;
            let step = shared.with(|state| {
                let was_online = state.protocol.is_online();
                let step = state.protocol.handle_input(now, bytes, whole)?;
                waits = !was_online && state.protocol.is_clogged();
                if let Step::Deliver { delivery, .. } = &step {
                    state.deliver(now, delivery, calls);
                }
                Ok::<_, Error>(step)
            });
            let used = match step.map_err(|error| failed(error, now, shared))? {
                Step::More { size } => {
                    if let Some(size) = size {
                        self.reader.expect(buffer, size);
                    }
                    return Ok(());
                }
                Step::Handled { size } => size,
                Step::Deliver { size, delivery } => {
                    call(shared, calls, &delivery);
                    size
                }
            };
            // A whole packet was in a buffer of its own, and is gone with it.
            if whole.is_none() {
                self.reader.consume(buffer, used);
            }
            if waits {
                // CONNACK was read nevertheless. What stands behind it would pile up with each connection.
                self.held = true;
                return Ok(());
            }
        }
    }

    /// Writes what there is, filling up as the transport takes it, then flushes.
    ///
    /// # Errors
    /// The transport failed.
    fn write(
        &mut self,
        now: Instant,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<Next, Outcome> {
        for _ in 0..ROUNDS {
            let chunk = shared.with(|state| {
                state.protocol.pump(now);
                state.protocol.poll_chunk()
            });
            let Some(chunk) = chunk else {
                return self.flush(now, shared, cx).map(|()| Next::WhenWoken);
            };
            // The transport may be the user's, so the state is not borrowed while it writes.
            let poll = self.transport.as_mut().poll_write(cx, chunk.as_bytes());
            let count = match &poll {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            shared.with(|state| {
                state.statistics.writes += u64::from(count > 0);
                state.statistics.bytes_out += count as u64;
                state.protocol.handle_written(now, chunk, count);
            });
            match poll {
                Poll::Ready(Ok(0)) => {
                    return Err(lost(Error::new(ErrorKind::LinkLost, Doing::Connected)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(broken(error, now)),
                Poll::Pending => return self.flush(now, shared, cx).map(|()| Next::WhenWoken),
            }
        }
        self.flush(now, shared, cx).map(|()| Next::AtOnce)
    }

    fn flush(
        &mut self,
        now: Instant,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Result<(), Outcome> {
        if !shared.with(|state| state.protocol.needs_flush()) {
            return Ok(());
        }
        match self.transport.as_mut().poll_flush(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(broken(error, now)),
            Poll::Ready(Ok(())) => {
                shared.with(|state| state.protocol.handle_flushed(now));
                Ok(())
            }
        }
    }

    /// Hands out what is left and closes the transport: DISCONNECT is only worth something if it
    /// arrives. Ends when the peer has closed too; the caller sets a limit.
    pub(crate) async fn close(&mut self, shared: &Shared, clock: &dyn Clock) {
        std::future::poll_fn(|cx| match self.write(clock.now(), shared, cx) {
            Ok(Next::AtOnce) => give_way(cx),
            Ok(Next::WhenWoken) if shared.with(|state| state.protocol.unsent()) > 0 => {
                Poll::Pending
            }
            Ok(Next::WhenWoken) | Err(_) => Poll::Ready(()),
        })
        .await;
        // The link is given up whatever comes of it.
        let _ = std::future::poll_fn(|cx| self.transport.as_mut().poll_close(cx)).await;
        // A socket dropped with unread bytes sends a reset, which may overtake DISCONNECT.
        let mut unread = [0; 512];
        std::future::poll_fn(|cx| {
            for _ in 0..ROUNDS {
                match self.transport.as_mut().poll_read(cx, &mut unread) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                }
            }
            give_way(cx)
        })
        .await;
    }
}

/// Goes on at once, after the others on the thread.
fn give_way(cx: &Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Calls the inline handlers of one message, with nothing borrowed.
fn call(shared: &Shared, calls: &mut Vec<usize>, delivery: &Delivery<'_>) {
    for key in calls.drain(..) {
        let Some(mut inline) = shared.with(|state| state.borrow_inline(key, delivery.receipt()))
        else {
            continue;
        };
        (inline.0)(&delivery.incoming());
        shared.with(|state| state.return_inline(key, inline, delivery.receipt()));
    }
}

/// Whether the user wants the connection to go on.
fn stays(state: &State, now: Instant) -> Result<(), Outcome> {
    if state.wants_connection(now) {
        Ok(())
    } else {
        Err(Outcome::Left)
    }
}

/// The protocol ends the connection. A broker that said goodbye may have meant a message of ours.
fn failed(error: Error, now: Instant, shared: &Shared) -> Outcome {
    let by_broker = matches!(error.kind(), ErrorKind::Disconnected { .. });
    let end = if by_broker {
        shared.with(|state| state.protocol.closed_at(now))
    } else {
        End::Otherwise
    };
    Outcome::Failed(error, end)
}

fn lost(error: Error) -> Outcome {
    Outcome::Failed(error, End::Otherwise)
}

/// The transport failed. Who hangs up with bytes unread, as a broker does that wants no more of a message, sends a
/// reset; so does a network. What the system says of the network alone is no reason to suspect a message.
fn broken(error: io::Error, now: Instant) -> Outcome {
    let end = match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => End::Broken(now),
        _ => End::Otherwise,
    };
    Outcome::Failed(Error::io(error, Doing::Connected), end)
}
