//! What a broker's no means for the next attempt.

use crate::reason::Reason;

/// What to expect of another attempt after an error. The driver goes by it; see the table in
/// [`Prospect::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth answer")]
pub enum Prospect {
    /// Another attempt may well succeed: after the usual delay.
    Reconnect,
    /// The broker wants to be left alone for a while: the delay is as if many attempts had failed.
    BackOff,
    /// No attempt can succeed until someone acts. The driver goes on trying after the usual delays, because
    /// someone may act, unless [`Options::give_up_when`](crate::Options::give_up_when) says otherwise.
    CannotHeal,
}

impl Prospect {
    /// What follows from a reason of CONNACK or DISCONNECT (MQTT 5, sections 3.2.2.2 and 3.14.2.1). The return
    /// codes of 3.x are translated to these reasons before.
    ///
    /// | reason                                                          | prospect      |
    /// |-----------------------------------------------------------------|---------------|
    /// | 0x84 unsupported protocol version                               | `CannotHeal`  |
    /// | 0x85 client identifier not valid                                | `CannotHeal`  |
    /// | 0x86 bad user name or password                                  | `CannotHeal`  |
    /// | 0x87 not authorized                                             | `CannotHeal`  |
    /// | 0x8A banned                                                     | `CannotHeal`  |
    /// | 0x8C bad authentication method                                  | `CannotHeal`  |
    /// | 0x8E session taken over                                         | `CannotHeal`  |
    /// | 0x90 topic name invalid (that of the will)                      | `CannotHeal`  |
    /// | 0x95 packet too large                                           | `CannotHeal`  |
    /// | 0x9A retain not supported (that of the will)                    | `CannotHeal`  |
    /// | 0x9B QoS not supported (that of the will)                       | `CannotHeal`  |
    /// | 0x9D server moved (unless referrals are followed)               | `CannotHeal`  |
    /// | 0x89 server busy                                                | `BackOff`     |
    /// | 0x96 message rate too high                                      | `BackOff`     |
    /// | 0x97 quota exceeded                                             | `BackOff`     |
    /// | 0x98 administrative action                                      | `BackOff`     |
    /// | 0x9F connection rate exceeded                                   | `BackOff`     |
    /// | 0x88 server unavailable, 0x8B server shutting down, 0x8D keep alive timeout, 0x9C use another server, 0xA0 maximum connect time, and all others | `Reconnect` |
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::UNSUPPORTED_PROTOCOL_VERSION
            | Reason::CLIENT_IDENTIFIER_NOT_VALID
            | Reason::BAD_USER_NAME_OR_PASSWORD
            | Reason::NOT_AUTHORIZED
            | Reason::BANNED
            | Reason::BAD_AUTHENTICATION_METHOD
            | Reason::SESSION_TAKEN_OVER
            | Reason::TOPIC_NAME_INVALID
            | Reason::PACKET_TOO_LARGE
            | Reason::RETAIN_NOT_SUPPORTED
            | Reason::QOS_NOT_SUPPORTED
            | Reason::SERVER_MOVED => Self::CannotHeal,
            Reason::SERVER_BUSY
            | Reason::MESSAGE_RATE_TOO_HIGH
            | Reason::QUOTA_EXCEEDED
            | Reason::ADMINISTRATIVE_ACTION
            | Reason::CONNECTION_RATE_EXCEEDED => Self::BackOff,
            // Reasons are numbers, and brokers make up their own.
            _ => Self::Reconnect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_code_does() {
        let text = include_str!("prospect.rs");
        let rows: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("/// | 0x"))
            .collect();
        assert!(rows.len() > 15, "the table is found");
        for row in rows {
            let (reasons, prospect) = row.rsplit_once("| `").expect("a row has two columns");
            let prospect = match prospect.split('`').next() {
                Some("CannotHeal") => Prospect::CannotHeal,
                Some("BackOff") => Prospect::BackOff,
                Some("Reconnect") => Prospect::Reconnect,
                other => panic!("{other:?} in {row}"),
            };
            for reason in format!("0x{reasons}").split("0x").skip(1) {
                let (code, name) = reason.split_once(' ').expect("a code has a name");
                let code = u8::from_str_radix(code, 16).expect("a code is hexadecimal");
                let reason = Reason::new(code);
                assert!(name.starts_with(reason.name()), "{reason}: {name}");
                assert_eq!(Prospect::of(reason), prospect, "{reason}");
            }
        }
    }
}
