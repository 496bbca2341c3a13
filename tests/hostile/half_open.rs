//! Links of which the far side is gone without a word, under every traffic: found within one and a half
//! keep-alives and the ping timeout, counted from the last byte that came; and never before they are gone.

use coracle::testkit::Peer;
use coracle::{ErrorKind, Event, Filters, Qos, Subscription, Version, Wait};

use super::{SECOND, Setup, VERSIONS, next};

/// The defaults, in seconds.
const KEEP_ALIVE: u32 = 60;
const PING_TIMEOUT: u32 = 10;

/// What goes on each second, from either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Nothing,
    Out(Qos),
    In(Qos),
    Both,
    /// A message of 100,000 bytes every twenty seconds.
    LargeOut,
    /// A few bytes of one message that is never whole.
    LargeIn,
    /// A subscribe and an unsubscribe.
    Requests,
    Pings,
}

const ALL: [Traffic; 11] = [
    Traffic::Nothing,
    Traffic::Out(Qos::AtMostOnce),
    Traffic::Out(Qos::AtLeastOnce),
    Traffic::Out(Qos::ExactlyOnce),
    Traffic::In(Qos::AtMostOnce),
    Traffic::In(Qos::AtLeastOnce),
    Traffic::Both,
    Traffic::LargeOut,
    Traffic::LargeIn,
    Traffic::Requests,
    Traffic::Pings,
];

/// Bytes that the system takes after the far side is gone. PINGREQ has two.
const ROOMS: [usize; 6] = [0, 1, 2, 3, 5000, usize::MAX];

struct Link {
    setup: Setup,
    peer: Peer,
    version: Version,
    traffic: Traffic,
    stream: Subscription,
}

impl Link {
    fn new(version: Version, traffic: Traffic) -> Self {
        let (setup, mut peer) = Setup::connected(version, |options| options);
        let filters = Filters::new("in", Qos::ExactlyOnce);
        let stream = setup.client.subscribe_many(filters, Wait::None);
        let stream = setup.world.block_on(stream).expect("accepted");
        answer(&mut peer, version);
        if traffic == Traffic::LargeIn {
            // 200,000 bytes.
            peer.send(b"\x30\xC0\x9A\x0C\x00\x02in\x00");
        }
        Self {
            setup,
            peer,
            version,
            traffic,
            stream,
        }
    }

    /// The application's part.
    fn act(&self, second: u32) {
        let client = &self.setup.client;
        // A full queue is none of our business here.
        match self.traffic {
            Traffic::Nothing | Traffic::In(_) | Traffic::LargeIn => {}
            Traffic::Out(qos) => drop(client.publish("t", "x", qos, Wait::None)),
            Traffic::Both => drop(client.publish("t", "x", Qos::AtMostOnce, Wait::None)),
            Traffic::LargeOut if second.is_multiple_of(20) => {
                let payload = vec![b'x'; 100_000];
                drop(client.publish("t", payload, Qos::AtLeastOnce, Wait::None));
            }
            Traffic::LargeOut => {}
            Traffic::Requests => {
                drop(client.subscribe("s", Qos::AtLeastOnce, Wait::None));
                drop(client.unsubscribe("u", Wait::None));
            }
            Traffic::Pings => drop(client.ping()),
        }
    }

    /// The broker's part; returns whether any byte was sent.
    fn serve(&mut self) -> bool {
        let answered = answer(&mut self.peer, self.version);
        let properties: &[u8] = match self.version {
            Version::V5_0 => b"\0",
            _ => b"",
        };
        let (first, id): (u8, &[u8]) = match self.traffic {
            Traffic::In(Qos::AtLeastOnce) => (0x32, b"\0\x01"),
            Traffic::In(_) | Traffic::Both => (0x30, b""),
            Traffic::LargeIn => {
                self.peer.send(b"xxxxx");
                return true;
            }
            Traffic::Nothing
            | Traffic::Out(_)
            | Traffic::LargeOut
            | Traffic::Requests
            | Traffic::Pings => return answered,
        };
        let body = [b"\0\x02in", id, properties, b"x"].concat();
        let length = u8::try_from(body.len()).expect("it is short");
        self.peer
            .send(&[&[first, length], body.as_slice()].concat());
        while self.stream.try_next().is_some() {}
        true
    }
}

/// Answers like a broker; returns whether there was something to answer.
fn answer(peer: &mut Peer, version: Version) -> bool {
    let bytes = peer.received();
    let mut answers = Vec::new();
    let mut rest = bytes.as_slice();
    while let [first, behind @ ..] = rest {
        let head = 1 + behind.iter().take_while(|byte| **byte & 0x80 != 0).count();
        let length = behind[..head]
            .iter()
            .rev()
            .fold(0, |all, byte| all << 7 | usize::from(byte & 0x7F));
        let (body, next) = behind[head..].split_at(length);
        let (id, v5) = (&body[..2.min(length)], version == Version::V5_0);
        match first >> 4 {
            3 if first & 6 != 0 => {
                let kind = if first & 6 == 2 { 0x40 } else { 0x50 };
                answers.extend([kind, 2, body[3], body[4]]);
            }
            6 => answers.extend([0x70, 2, id[0], id[1]]),
            8 if v5 => answers.extend([0x90, 4, id[0], id[1], 0, 1]),
            8 => answers.extend([0x90, 3, id[0], id[1], 1]),
            10 if v5 => answers.extend([0xB0, 4, id[0], id[1], 0, 0]),
            10 => answers.extend([0xB0, 2, id[0], id[1]]),
            12 => answers.extend([0xD0, 0]),
            _ => {}
        }
        rest = next;
    }
    if !answers.is_empty() {
        peer.send(&answers);
    }
    !answers.is_empty()
}

#[test]
fn a_half_open_link_is_found_in_time_and_a_living_one_is_left_alone() {
    let mut latest = 0;
    for version in VERSIONS {
        for traffic in ALL {
            for room in ROOMS {
                // The far side is gone at different moments of the keep-alive.
                for lived in [1, 59, 60, 90, 200] {
                    let took = found_after(version, traffic, room, lived);
                    let most = KEEP_ALIVE * 3 / 2 + PING_TIMEOUT;
                    assert!(
                        took <= most,
                        "{traffic:?} on {version}, {room} bytes of room, gone after {lived} s: {took} s"
                    );
                    latest = latest.max(took);
                }
            }
        }
    }
    // So the bound is one that is reached.
    assert!(latest >= KEEP_ALIVE * 3 / 2, "{latest}");
}

/// Seconds from the last byte that came until the link was given up.
fn found_after(version: Version, traffic: Traffic, room: usize, lived: u32) -> u32 {
    let mut link = Link::new(version, traffic);
    let world = link.setup.world.clone();
    let mut events = link.setup.client.events();
    let mut silent_since = 0;
    for second in 1..=lived {
        world.advance(SECOND);
        link.act(second);
        if link.serve() {
            silent_since = second;
        }
        assert!(next(&mut events).is_none(), "{traffic:?} at {second} s");
    }
    world.network().stall();
    world.network().send_buffer(room);
    for second in lived + 1.. {
        world.advance(SECOND);
        if let Some(Event::Disconnected { error, .. }) = next(&mut events) {
            assert!(matches!(error.kind(), ErrorKind::Silent(_)), "{error}");
            return second - silent_since;
        }
        assert!(second < lived + 1000, "it is never found");
        link.act(second);
    }
    unreachable!("the loop has no end");
}
