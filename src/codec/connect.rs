//! CONNECT, CONNACK and DISCONNECT (MQTT 5, sections 3.1, 3.2 and 3.14).
use std::fmt;

use crate::message::Qos;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::version::Version;

/// CONNECT: the first packet on a connection, from client to server.
#[derive(Clone, Copy, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Clean Start on 5.0, CleanSession before.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: PropertyList<'a>,
}

/// The will inside CONNECT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Will<'a> {
    pub qos: Qos,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: PropertyList<'a>,
}

/// CONNACK: the server's answer to CONNECT. The return codes of 3.x are translated to `reason`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Connack<'a> {
    /// Always false on 3.1, which has no such flag.
    pub session_present: bool,
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

/// DISCONNECT, in either direction; before 5.0 from the client only and empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disconnect<'a> {
    pub reason: Reason,
    pub properties: PropertyList<'a>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
