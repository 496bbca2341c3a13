//! Reason codes: one number space for CONNACK, PUBACK … DISCONNECT and AUTH (MQTT 5, section 2.4).

use std::fmt;

/// What the other side says about a packet: a reason code of MQTT 5, section 2.4.
///
/// Codes below 0x80 mean success. The return codes of MQTT 3.1 and 3.1.1 are translated to the code
/// of the same meaning, so a program compares with one set of names whatever the version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(u8);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name that the standard gives this code, or `"unknown reason"`.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown reason",
                }
            }
        }
    };
}

reasons! {
    /// 0x00: success; also "normal disconnection" and "granted QoS 0".
    SUCCESS = 0x00, "success";
    /// 0x01: the subscription was granted with QoS 1.
    GRANTED_QOS_1 = 0x01, "granted QoS 1";
    /// 0x02: the subscription was granted with QoS 2.
    GRANTED_QOS_2 = 0x02, "granted QoS 2";
    /// 0x04: disconnect, and publish the will.
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    /// 0x10: accepted, but nobody subscribes to it.
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    /// 0x11: there was no such subscription.
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    /// 0x18: the authentication goes on with another step.
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    /// 0x19: begin a re-authentication.
    RE_AUTHENTICATE = 0x19, "re-authenticate";
    /// 0x80: an error that its sender does not explain.
    UNSPECIFIED_ERROR = 0x80, "unspecified error";
    /// 0x81: a packet that cannot be parsed.
    MALFORMED_PACKET = 0x81, "malformed packet";
    /// 0x82: a packet that is not allowed here.
    PROTOCOL_ERROR = 0x82, "protocol error";
    /// 0x83: valid, but not accepted by this implementation.
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "implementation specific error";
    /// 0x84: the server does not speak this version.
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported protocol version";
    /// 0x85: the client identifier is not allowed.
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "client identifier not valid";
    /// 0x86: wrong user name or password.
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    /// 0x87: the client may not do this.
    NOT_AUTHORIZED = 0x87, "not authorized";
    /// 0x88: the server is not available.
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    /// 0x89: the server is busy; try again later.
    SERVER_BUSY = 0x89, "server busy";
    /// 0x8A: this client is banned.
    BANNED = 0x8A, "banned";
    /// 0x8B: the server is shutting down.
    SERVER_SHUTTING_DOWN = 0x8B, "server shutting down";
    /// 0x8C: the authentication method is not supported or does not match.
    BAD_AUTHENTICATION_METHOD = 0x8C, "bad authentication method";
    /// 0x8D: nothing was received for one and a half keep-alives.
    KEEP_ALIVE_TIMEOUT = 0x8D, "keep alive timeout";
    /// 0x8E: another connection took over this client identifier.
    SESSION_TAKEN_OVER = 0x8E, "session taken over";
    /// 0x8F: a filter that is well-formed but not accepted.
    TOPIC_FILTER_INVALID = 0x8F, "topic filter invalid";
    /// 0x90: a topic that is well-formed but not accepted.
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    /// 0x91: the packet identifier is already in use.
    PACKET_IDENTIFIER_IN_USE = 0x91, "packet identifier in use";
    /// 0x92: the packet identifier is not known.
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "packet identifier not found";
    /// 0x93: more unacknowledged publications than allowed.
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    /// 0x94: a topic alias above the maximum, or zero.
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    /// 0x95: a packet above the announced maximum size.
    PACKET_TOO_LARGE = 0x95, "packet too large";
    /// 0x96: too much was published in too short a time.
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    /// 0x97: a quota was exceeded.
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    /// 0x98: closed by an administrator.
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    /// 0x99: the payload is not of the format that it claims.
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    /// 0x9A: the server keeps no retained messages.
    RETAIN_NOT_SUPPORTED = 0x9A, "retain not supported";
    /// 0x9B: the QoS is above the server's maximum.
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    /// 0x9C: use another server for now.
    USE_ANOTHER_SERVER = 0x9C, "use another server";
    /// 0x9D: the server has moved for good.
    SERVER_MOVED = 0x9D, "server moved";
    /// 0x9E: the server has no shared subscriptions.
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "shared subscriptions not supported";
    /// 0x9F: too many connections in too short a time.
    CONNECTION_RATE_EXCEEDED = 0x9F, "connection rate exceeded";
    /// 0xA0: the connection was open for as long as it is allowed to be.
    MAXIMUM_CONNECT_TIME = 0xA0, "maximum connect time";
    /// 0xA1: the server has no subscription identifiers.
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "subscription identifiers not supported";
    /// 0xA2: the server has no wildcard subscriptions.
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "wildcard subscriptions not supported";
}

impl Reason {
    /// The reason with this number, also one that the standard does not list.
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether this says that something failed: 0x80 and above.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), self.0)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
