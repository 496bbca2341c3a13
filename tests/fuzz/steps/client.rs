//! A whole client, with its driver, streams and handlers, in a world where bytes and time move only as the
//! input says.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coracle::codec::{self, Packet, Split};
use coracle::testkit::{Network, Peer, World};
use coracle::{
    Acknowledge, Client, Filters, Message, Options, Overflow, Qos, Reason, Session, Subscription,
    Version, Wait,
};
use smol::Task;

use super::application::{QOS, connack};
use super::fair::answer;
use super::input::Input;
use super::observer::Asked;

const SECOND: Duration = Duration::from_secs(1);

/// Streams and inline handlers that one run has, at most.
const STREAMS: usize = 8;

struct Play {
    world: World,
    network: Network,
    client: Client,
    version: Version,
    peer: Option<Peer>,
    /// Connections that were taken.
    accepted: usize,
    /// What the client sent and nobody has answered.
    sent: Vec<u8>,
    streams: Vec<Subscription>,
    stream_bytes: usize,
    messages: Vec<Message>,
    waits: Vec<Task<()>>,
    handlers: usize,
}

/// Input: settings, then steps: a length below 64 and so many bytes from the broker, or something else.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::with_peers();
    let network = world.network();
    let version = input.version();
    let settings = input.u8();
    let sizes = input.u8();
    let stream_bytes = [100_000, 1, 300][usize::from(sizes >> 4 & 3) % 3];
    let options = Options::new("mqtt://broker", "c")
        .expect("the URL is well-formed")
        .version(version)
        .session([Session::None, Session::Fresh, Session::Resume][usize::from(settings & 3) % 3])
        .window([100, 1, 2, 4][usize::from(sizes & 3)])
        .queue_bytes([200_000, 1, 200][usize::from(sizes >> 2 & 3) % 3])
        .stream_bytes(stream_bytes)
        .inbound_limit([100_000, 64][usize::from(sizes >> 6 & 1)])
        .retry_delays(SECOND, SECOND)
        .connector(world.network())
        .clock(world.clock())
        .seed(1);
    network.read_chunk([usize::MAX, 1][usize::from(settings >> 2 & 1)]);
    let (client, driver) = Client::new(options);
    let driver = world.spawn(driver.run());
    let mut play = Play {
        world,
        network,
        client,
        version,
        peer: None,
        accepted: 0,
        sent: Vec::new(),
        streams: Vec::new(),
        stream_bytes,
        messages: Vec::new(),
        waits: Vec::new(),
        handlers: 0,
    };
    while !input.is_empty() {
        play.step(&mut input);
        play.check();
    }
    play.end(&driver);
}

impl Play {
    /// The connection, if there is one; of a new one the CONNECT is answered, if the input wants that.
    fn peer(&mut self, input: &mut Input<'_>) -> Option<&mut Peer> {
        self.world.run_until_idle();
        if self.peer.as_ref().is_some_and(Peer::is_closed) {
            self.peer = None;
        }
        if self.peer.is_none() {
            if self.network.attempts() == self.accepted {
                self.world.advance(SECOND);
            }
            if self.network.attempts() == self.accepted {
                return None;
            }
            self.accepted += 1;
            let mut peer = self.world.peer();
            self.sent = peer.received();
            match input.u8() {
                0..0x90 => {
                    if let Some(asked) = next(self.version, &mut self.sent) {
                        peer.send(&answer(asked, self.version, None));
                    }
                }
                0x90..0xE0 => peer.send(&connack(input, self.version)),
                0xE0.. => {}
            }
            self.peer = Some(peer);
        }
        self.peer.as_mut()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() {
            length @ 0..0x40 => {
                let bytes = input.take(length.into());
                if let Some(peer) = self.peer(input) {
                    peer.send(bytes);
                }
            }
            0x40..0x70 => {
                if self.peer(input).is_some()
                    && let Some(peer) = &mut self.peer
                {
                    self.sent.extend(peer.received());
                    if let Some(asked) = next(self.version, &mut self.sent) {
                        peer.send(&answer(asked, self.version, None));
                    }
                }
            }
            0x70..0x98 => {
                let qos = input.pick(&QOS);
                let payload = vec![b'z'; usize::from(input.u8())];
                let publishing = self.client.publish("a/b", payload, qos, wait(input));
                self.wait_for(publishing, input);
            }
            0x98..0xA8 => self.subscribe(input),
            0xA8..0xB0 => {
                let unsubscribing = self.client.unsubscribe(input.pick(&FILTERS), wait(input));
                self.wait_for(unsubscribing, input);
            }
            0xB0..0xC8 => self.read(input),
            0xC8..0xD0 => {
                let how = input.u8();
                match self.messages.pop() {
                    Some(message) if how & 1 == 0 => drop(message.acknowledge()),
                    Some(message) if how & 2 == 0 => drop(message.refuse(Reason::NOT_AUTHORIZED)),
                    Some(_) | None => {}
                }
            }
            0xD0..0xE0 => {
                let unit = input.pick(&[1, 100, 1000]);
                let span = Duration::from_millis(unit * u64::from(input.u8()));
                self.world.advance(span);
            }
            0xE0..0xE8 => {
                let pinging = self.client.ping();
                self.wait_for(pinging, input);
            }
            0xE8..0xF0 => match input.below(4) {
                0 => self.network.stall(),
                1 => self.network.send_buffer(1 + input.below(100)),
                _ => {
                    self.network.unstall();
                    self.network.send_buffer(usize::MAX);
                }
            },
            0xF0..0xF8 => {
                if let Some(mut peer) = self.peer.take() {
                    match input.bool() {
                        true => peer.close(),
                        false => peer.reset(),
                    }
                }
            }
            0xF8.. => drop(self.client.reconnect()),
        }
        self.world.run_until_idle();
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        if self.streams.len() + self.handlers >= STREAMS {
            self.streams.clear();
            return;
        }
        let how = input.u8();
        let mut filters = Filters::new(input.pick(&FILTERS), QOS[usize::from(how & 3) % 3]);
        if how & 4 != 0 {
            filters = filters.acknowledge(Acknowledge::ByHand);
        }
        if how & 8 != 0 {
            filters = filters.overflow(Overflow::DropNewest);
        }
        if how & 16 != 0 {
            let client = self.client.clone();
            let handler = move |incoming: &coracle::Incoming<'_>| {
                // What a program does in a handler: it calls the client.
                let payload = incoming.payload();
                drop(client.publish("answer", payload, Qos::AtLeastOnce, Wait::None));
            };
            self.handlers += 1;
            let subscribing = self.client.subscribe_inline(filters, handler, Wait::Ack);
            return self.wait_for(subscribing, input);
        }
        let mut subscribing = pin!(self.client.subscribe_many(filters, Wait::None));
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(stream)) = subscribing.as_mut().poll(&mut cx) {
            self.streams.push(stream);
        }
    }

    fn read(&mut self, input: &mut Input<'_>) {
        if self.streams.is_empty() {
            return;
        }
        let nth = input.below(self.streams.len());
        match input.below(8) {
            0 => drop(self.streams.swap_remove(nth)),
            _ => {
                if let Some(message) = self.streams[nth].try_next() {
                    // Some are kept for a while, unanswered.
                    self.messages.push(message);
                    self.messages.truncate(16);
                }
            }
        }
    }

    /// Someone waits, or gives up at once.
    fn wait_for<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        input: &mut Input<'_>,
    ) {
        if !input.once_in(8) {
            let task = self.world.spawn(async move { drop(future.await) });
            self.waits.push(task);
        }
    }

    fn check(&self) {
        let statistics = self.client.statistics();
        // The shortest packet has two bytes.
        assert!(statistics.received <= statistics.bytes_in / 2);
        for stream in &self.streams {
            // A message counts at least 64 bytes, and one may be above the bound.
            assert!(stream.len() <= self.stream_bytes / 64 + 1, "{stream:?}");
        }
    }

    /// The program leaves, and everything ends.
    fn end(self, driver: &Task<coracle::Result<()>>) {
        self.network.unstall();
        self.network.send_buffer(usize::MAX);
        drop(self.messages);
        let leaving = self.client.disconnect();
        let left = self.world.spawn(async move { drop(leaving.await) });
        // The time for what is unacknowledged, and that for the last packet.
        self.world.advance(Duration::from_secs(300));
        assert!(left.is_finished(), "disconnect() goes on");
        assert!(driver.is_finished(), "the driver goes on");
        for wait in &self.waits {
            assert!(wait.is_finished(), "a wait goes on");
        }
        for mut stream in self.streams {
            while stream.try_next().is_some() {}
        }
    }
}

const FILTERS: [&str; 6] = ["a/b", "#", "a/+", "$share/g/a/b", "t", "+"];

fn wait(input: &mut Input<'_>) -> Wait {
    input.pick(&[Wait::None, Wait::Sent, Wait::Ack])
}

/// The next packet that wants an answer, and which one.
fn next(version: Version, sent: &mut Vec<u8>) -> Option<Asked> {
    loop {
        let Ok(Split::Whole { frame, size }) = codec::split(sent) else {
            return None;
        };
        let packet = codec::decode(version, frame).expect("a client keeps the rules");
        let asked = match packet {
            Packet::Connect(_) => Some(Asked::Connect),
            Packet::Publish(publish) => match (publish.qos, publish.id) {
                (Qos::AtLeastOnce, Some(id)) => Some(Asked::Puback(id)),
                (Qos::ExactlyOnce, Some(id)) => Some(Asked::Pubrec(id)),
                (Qos::AtMostOnce | Qos::AtLeastOnce | Qos::ExactlyOnce, _) => None,
            },
            Packet::Pubrec(ack) if !ack.reason.is_error() => Some(Asked::Pubrel(ack.id)),
            Packet::Pubrel(ack) => Some(Asked::Pubcomp(ack.id)),
            Packet::Subscribe(subscribe) => {
                let count = subscribe.filters.iter().count();
                Some(Asked::Suback(subscribe.id, count))
            }
            Packet::Unsubscribe(unsubscribe) => {
                let count = unsubscribe.filters.iter().count();
                Some(Asked::Unsuback(unsubscribe.id, count))
            }
            Packet::Pingreq => Some(Asked::Pingresp),
            Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubcomp(_)
            | Packet::Disconnect(_)
            | Packet::Auth(_) => None,
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                panic!("{packet:?} of a client")
            }
        };
        sent.drain(..size);
        if asked.is_some() {
            return asked;
        }
    }
}
