//! What the program, the clock and the network do to a client, chosen by the input.

use std::rc::Rc;
use std::time::Duration;

use coracle::codec::subscribe::FilterOptions;
use coracle::codec::{Connack, Packet};
use coracle::protocol::{
    Accepted, Config, End, Identifier, Login, Outgoing, SessionMode, Subscription, Token, Wish,
};
use coracle::{AuthStep, Message, Properties, PropertyList, Qos, Reason, Version, Wait};

use super::fair::encode;
use super::input::Input;
use super::rig::Rig;

pub(crate) const QOS: [Qos; 3] = [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::AtMostOnce];
const FILTERS: [&str; 8] = [
    "t",
    "a/b",
    "#",
    "+",
    "a/+",
    "$share/g/t",
    "$SYS/#",
    "a/b/c/d",
];
pub(crate) const TOPICS: [&str; 6] = ["t", "a/b", "c", "a/b/c/d", "$SYS/x", "a/b/e"];
const METHOD: &str = "m";

/// A client of any settings.
pub(crate) fn rig(input: &mut Input<'_>) -> Rig {
    let (config, login) = settings(input);
    Rig::new(config, login)
}

/// Any settings.
pub(crate) fn settings(input: &mut Input<'_>) -> (Config, Option<Login>) {
    let version = input.version();
    let mut config = Config::new(
        version,
        if input.once_in(8) && version == Version::V5_0 {
            ""
        } else {
            "c"
        },
    );
    let settings = input.u8();
    config.session = match settings & 3 {
        0 => SessionMode::Resume,
        1 => SessionMode::None,
        _ => SessionMode::Fresh,
    };
    config.republish = settings & 4 != 0;
    config.keep_qos0_offline = settings & 8 != 0;
    config.quiet_renewal = settings & 16 != 0;
    if settings & 32 != 0 {
        config.properties = Properties::new().request_problem_information(false);
    }
    let logs_in = settings & 64 != 0 && version == Version::V5_0;
    let sizes = input.u8();
    config.window = [100, 1, 2, 4][usize::from(sizes & 3)];
    config.receive_maximum = [100, 2, 4, u16::MAX][usize::from(sizes >> 2 & 3)];
    config.queue_bytes = [200_000, 1, 200, 1000][usize::from(sizes >> 4 & 3)];
    config.inbound_limit = [100_000, 64, 1000, 20][usize::from(sizes >> 6 & 3)];
    let times = input.u8();
    config.keep_alive = [60, 0, 10, 1][usize::from(times & 3)];
    config.topic_alias_maximum = [2, 0, 16, 2][usize::from(times >> 2 & 3)];
    config.topic_aliases = [2, 0, 64, 1][usize::from(times >> 4 & 3)];
    if times & 64 != 0 {
        config.session_expiry = Duration::ZERO;
    }
    let login = logs_in.then(|| Login {
        method: Rc::from(METHOD),
        step: AuthStep::new().data("first"),
        one_sided: times & 128 != 0,
    });
    (config, login)
}

/// A CONNACK that says anything.
pub(crate) fn connack(input: &mut Input<'_>, version: Version) -> Vec<u8> {
    let flags = input.u8();
    let mut properties = Properties::new();
    if flags & 2 != 0 {
        properties = properties.receive_maximum(input.u16().clamp(1, 1 << (flags >> 4)));
    }
    if flags & 4 != 0 {
        let limit = u32::from(input.u8()) + 1;
        properties = properties.maximum_packet_size(limit);
    }
    if flags & 8 != 0 {
        let more = input.u8();
        if more & 1 != 0 {
            properties = properties.maximum_qos(more >> 1 & 1);
        }
        if more & 4 != 0 {
            properties = properties.retain_available(more & 8 != 0);
        }
        if more & 16 != 0 {
            properties = properties.topic_alias_maximum(input.u8().into());
        }
        if more & 32 != 0 {
            properties = properties.server_keep_alive(input.u8().into());
        }
        if more & 64 != 0 {
            properties = properties.assigned_client_identifier("given");
        }
        if more & 128 != 0 {
            let last = input.u8();
            if last & 1 != 0 {
                properties = properties.wildcard_subscription_available(false);
            }
            if last & 2 != 0 {
                properties = properties.shared_subscription_available(false);
            }
            if last & 4 != 0 {
                properties = properties.subscription_identifiers_available(false);
            }
            if last & 8 != 0 {
                properties = properties.authentication_method(METHOD);
            }
            if last & 16 != 0 {
                properties = properties.reason_string("why");
            }
        }
    }
    let refused = flags & 0xF1 == 0xF0;
    encode(
        &Packet::Connack(Connack {
            session_present: flags & 1 != 0,
            reason: if refused {
                Reason::SERVER_BUSY
            } else {
                Reason::SUCCESS
            },
            properties: properties.list(),
        }),
        version,
    )
}

/// Connects, and perhaps gets a CONNACK.
pub(crate) fn connect(rig: &mut Rig, input: &mut Input<'_>) {
    // A session of an earlier process may have to be wiped first, which takes two connections.
    for _ in 0..3 {
        if !rig.is_open {
            rig.connect();
        }
        let how = input.u8();
        if how >= 0xF0 {
            // It is left to what follows.
            return;
        }
        let connack = match how {
            0..0x60 => connack_of(false, rig.version),
            0x60..0xA0 => connack_of(true, rig.version),
            _ => connack(input, rig.version),
        };
        if rig.receive(&connack) {
            return;
        }
    }
}

fn connack_of(session_present: bool, version: Version) -> Vec<u8> {
    let connack = Connack {
        session_present,
        reason: Reason::SUCCESS,
        properties: PropertyList::EMPTY,
    };
    encode(&Packet::Connack(connack), version)
}

/// Something that does not come from the broker.
pub(crate) fn act(rig: &mut Rig, input: &mut Input<'_>) {
    match input.u8() {
        0..0x50 => publish(rig, input),
        0x50..0x68 => subscribe(rig, input),
        0x68..0x74 => {
            let count = 1 + input.below(3);
            let filters: Vec<Rc<str>> =
                (0..count).map(|_| Rc::from(input.pick(&FILTERS))).collect();
            let wait = wait(rig, input);
            rig.protocol.unsubscribe(&filters, Properties::new(), wait);
        }
        0x74..0x7A => {
            let token = rig.begin_wait();
            if rig.protocol.ping(token).is_err() {
                rig.give_back(token);
            }
        }
        0x7A..0x80 => {
            let token = rig.begin_wait();
            if rig.protocol.reauthenticate(token).is_err() {
                rig.give_back(token);
            }
        }
        0x80..0xA8 => take(rig, input),
        0xA8..0xB0 => {
            let knows = !input.once_in(8);
            let renew = input.bool().then(|| Duration::from_secs(input.u8().into()));
            rig.answer(knows, renew);
        }
        0xB0..0xC8 => {
            let unit = input.pick(&[1, 100, 1000, 20_000]);
            rig.pass(Duration::from_millis(unit * u64::from(input.u8())));
        }
        0xC8..0xD8 => {
            rig.takes = input.pick(&[usize::MAX, 0, 1, 7, 100, usize::MAX]);
            rig.flushes = input.bool();
        }
        0xD8..0xDC => rig.takers = input.below(3),
        0xDC..0xF8 => {
            let ends = [End::ByBroker, End::Otherwise, End::Broken(rig.now)];
            rig.cut(input.pick(&ends));
            if input.once_in(16) {
                rig.protocol.forget_session();
            }
            connect(rig, input);
        }
        0xF8.. => disconnect(rig, input),
    }
    rig.turn();
}

fn wait(rig: &mut Rig, input: &mut Input<'_>) -> Option<(Wait, Token)> {
    match input.below(3) {
        0 => None,
        1 => Some((Wait::Sent, rig.begin_wait())),
        _ => Some((Wait::Ack, rig.begin_wait())),
    }
}

fn publish(rig: &mut Rig, input: &mut Input<'_>) {
    let how = input.u8();
    let qos = QOS[usize::from(how & 3) % 3];
    let topic = TOPICS[usize::from(how >> 2 & 7) % TOPICS.len()];
    let retain = how & 32 != 0;
    let mut properties = Properties::new();
    if how & 64 != 0 {
        properties = properties.message_expiry_interval(u32::from(input.u8()));
    }
    let size = if how & 128 != 0 {
        usize::from(input.u16()) % 3000
    } else {
        1
    };
    let payload = vec![b'y'; size];
    if qos == Qos::AtMostOnce && input.bool() {
        let outgoing = Outgoing {
            topic,
            payload: (&payload).into(),
            properties: properties.list(),
            retain,
        };
        let token = input.bool().then(|| rig.begin_wait());
        if rig.protocol.publish_qos0(outgoing, token).is_err()
            && let Some(token) = token
        {
            rig.give_back(token);
        }
        return;
    }
    let message = Message::new(topic, payload)
        .qos(qos)
        .retain(retain)
        .properties(properties);
    let wait = wait(rig, input);
    match (rig.protocol.publish(message, wait), wait) {
        (Ok(Accepted::Parked(place)), Some((_, token))) => {
            if input.once_in(4) && rig.protocol.withdraw(qos, place).is_some() {
                rig.give_back(token);
            }
        }
        (Err(_), Some((_, token))) => rig.give_back(token),
        (Ok(Accepted::Yes | Accepted::Parked(_) | Accepted::Dropped) | Err(_), _) => {}
    }
}

fn subscribe(rig: &mut Rig, input: &mut Input<'_>) {
    let count = 1 + input.below(10);
    let filters = (0..count).map(|_| {
        let how = input.u8();
        let options = FilterOptions {
            qos: QOS[usize::from(how & 3) % 3],
            no_local: false,
            retain_as_published: how & 4 != 0 && rig.version == Version::V5_0,
            retain_handling: if rig.version == Version::V5_0 {
                how >> 3 & 1
            } else {
                0
            },
        };
        let identifier = match how >> 4 & 3 {
            0 => Identifier::Automatic(9),
            1 => Identifier::Given(7),
            _ => Identifier::None,
        };
        Wish {
            filter: Rc::from(FILTERS[usize::from(how >> 6) * 2 + usize::from(how & 1)]),
            options,
            identifier,
        }
    });
    let filters = filters.collect();
    let wait = wait(rig, input);
    rig.protocol.subscribe(Subscription {
        owner: 1,
        filters,
        properties: Properties::new(),
        wait,
    });
}

fn take(rig: &mut Rig, input: &mut Input<'_>) {
    if rig.unread.is_empty() {
        return;
    }
    let nth = input.below(rig.unread.len());
    match input.below(6) {
        0 => rig.abandon(nth),
        1 => rig.take(nth, Reason::NOT_AUTHORIZED),
        _ => rig.take(nth, Reason::SUCCESS),
    }
}

fn disconnect(rig: &mut Rig, input: &mut Input<'_>) {
    let mut properties = Properties::new();
    if rig.version == Version::V5_0 && input.bool() {
        properties = properties.session_expiry_interval(0);
    }
    let reasons = [Reason::SUCCESS, Reason::DISCONNECT_WITH_WILL];
    let reason = input.pick(&reasons);
    if rig.protocol.disconnect(reason, properties.list()).is_err() {
        // As the driver does it.
        rig.protocol
            .disconnect(reason, PropertyList::EMPTY)
            .expect("three bytes are not too many");
    }
}
