//! CONNECT and DISCONNECT: who gets in, with which session, and how it leaves.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::codec::{Connack, Connect, Disconnect, Frame, Packet, decode};
use crate::error::Violation;
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::version::Version;

use super::auth::Login;
use super::broker::{Broker, LinkId};
use super::dispatch::append;
use super::ending::Ending;
use super::link::{AliasesOut, Connection, Phase};
use super::script::End;
use super::session::{Expiry, Session};
use super::will::Testament;

/// The Receive Maximum of a client that names none (MQTT 5, section 3.1.2.11.3).
const DEFAULT_WINDOW: u16 = u16::MAX;

impl Broker {
    pub(super) fn handle_connect(
        &mut self,
        id: LinkId,
        now: Instant,
        frame: Frame<'_>,
        whole: &[u8],
    ) -> Result<(), Violation> {
        // The version given here is of no importance: a CONNECT tells its own.
        let packet = match decode(Version::V5_0, frame) {
            Ok(packet) => packet,
            Err(violation) if violation.reason == Reason::UNSUPPORTED_PROTOCOL_VERSION => {
                self.refuse_version(id, now, Version::V5_0);
                return Ok(());
            }
            // Only 3.1 and 3.1.1 have such identifiers, and both say it with code 2.
            Err(violation) if violation.reason == Reason::CLIENT_IDENTIFIER_NOT_VALID => {
                self.record.violations.push((id, violation));
                self.refuse_connect(id, now, Version::V3_1_1, violation.reason);
                return Ok(());
            }
            Err(violation) => return Err(violation),
        };
        let Packet::Connect(connect) = packet else {
            return Err(Violation::protocol("MQTT-3.1.0-1", "not a CONNECT"));
        };
        if !self.options.versions.contains(&connect.version) {
            self.refuse_version(id, now, connect.version);
            return Ok(());
        }
        if let Some(reason) = self.objection(&connect) {
            self.refuse_connect(id, now, connect.version, reason);
            return Ok(());
        }
        if connect.properties.authentication_method().is_some() {
            self.begin_login(id, now, connect, whole);
        } else {
            self.accept(id, now, connect, Properties::new());
        }
        Ok(())
    }

    /// Why this client does not get in, if it does not.
    fn objection(&self, connect: &Connect<'_>) -> Option<Reason> {
        let options = &self.options;
        if let Some(reason) = options.refusal {
            return Some(reason);
        }
        if let Some((user_name, password)) = &options.credentials
            && (connect.user_name != Some(user_name) || connect.password != Some(password))
        {
            return Some(Reason::BAD_USER_NAME_OR_PASSWORD);
        }
        if let Some(method) = connect.properties.authentication_method()
            && options
                .authentication
                .as_ref()
                .is_none_or(|offered| *offered.method != *method)
        {
            return Some(Reason::BAD_AUTHENTICATION_METHOD);
        }
        let will = connect
            .will
            .as_ref()
            .filter(|_| connect.version == Version::V5_0)?;
        if will.qos > options.maximum_qos {
            // [MQTT-3.2.2-12]
            return Some(Reason::QOS_NOT_SUPPORTED);
        }
        // [MQTT-3.2.2-13]
        (will.retain && !options.retain_available).then_some(Reason::RETAIN_NOT_SUPPORTED)
    }

    /// In the newest form that both sides may understand.
    fn refuse_version(&mut self, id: LinkId, now: Instant, wanted: Version) {
        let spoken = match wanted {
            Version::V5_0 if !self.options.versions.contains(&Version::V5_0) => Version::V3_1_1,
            Version::V5_0 | Version::V3_1_1 | Version::V3_1 => wanted,
        };
        self.refuse_connect(id, now, spoken, Reason::UNSUPPORTED_PROTOCOL_VERSION);
    }

    /// CONNACK with `reason`, then the end [MQTT-3.2.2-7].
    pub(super) fn refuse_connect(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        reason: Reason,
    ) {
        let connack = Packet::Connack(Connack {
            session_present: false,
            reason,
            properties: PropertyList::EMPTY,
        });
        self.answer_packet(id, now, version, connack);
        let due = self.links.get(&id).and_then(|link| link.reply.due);
        match (due, self.links.get_mut(&id)) {
            (Some(due), Some(link)) => {
                link.hold_back(due, Vec::new(), End::Cut);
                self.arm(due);
            }
            (Some(_) | None, _) => self.lost.push(id),
        }
    }

    /// Lets a client in: its session, CONNACK, and what waits for it.
    pub(super) fn accept(
        &mut self,
        id: LinkId,
        now: Instant,
        connect: Connect<'_>,
        login: Properties,
    ) {
        let mut properties = self.options.announcement();
        for property in login.list().iter() {
            properties = properties.with(property);
        }
        let client: Rc<str> = if connect.client_id.is_empty() {
            let assigned = self.assign_client_id();
            properties = properties.assigned_client_identifier(&assigned);
            assigned
        } else {
            connect.client_id.into()
        };
        self.take_over(&client, now);
        if connect.clean {
            // [MQTT-3.1.2-4]
            self.end_session(&client, now);
        }
        let expiry = self.expiry(&connect);
        let session_present = self.sessions.contains_key(&client);
        // A client that is back in time does not want its will [MQTT-3.1.3-9].
        self.pending_wills.take(&client);
        self.sessions
            .entry(Rc::clone(&client))
            .or_insert_with(|| Session::new(expiry))
            .attach(id, expiry);
        self.record.connects += 1;
        let connection = self.connection(now, &client, &connect);
        let version = connect.version;
        if let Some(patience) = connection.patience {
            self.arm(now + patience);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = Phase::Connected(Box::new(connection));
        }
        let connack = Packet::Connack(Connack {
            session_present: session_present && version > Version::V3_1,
            reason: Reason::SUCCESS,
            properties: match version {
                Version::V5_0 => properties.list(),
                Version::V3_1 | Version::V3_1_1 => PropertyList::EMPTY,
            },
        });
        self.answer(id, now, |out| append(connack, version, out));
        self.emit(&client, now);
    }

    fn assign_client_id(&mut self) -> Rc<str> {
        if let Some(assigned) = &self.options.assigned_client_id {
            return Rc::clone(assigned);
        }
        self.assigned += 1;
        format!("assigned-{}", self.assigned).into()
    }

    /// An older connection of the same client ends [MQTT-3.1.4-3].
    fn take_over(&mut self, client: &str, now: Instant) {
        let older = self.sessions.get(client).and_then(|session| session.link);
        if let Some(older) = older {
            self.say_goodbye(older, now, Reason::SESSION_TAKEN_OVER);
            self.end(older, now, Ending::Lost);
        }
    }

    fn expiry(&self, connect: &Connect<'_>) -> Expiry {
        match connect.version {
            Version::V3_1 | Version::V3_1_1 if connect.clean => Expiry::AtClose,
            Version::V3_1 | Version::V3_1_1 => Expiry::Never,
            Version::V5_0 => {
                let wanted = connect.properties.session_expiry_interval().unwrap_or(0);
                Expiry::from_seconds(self.options.session_expiry.unwrap_or(wanted))
            }
        }
    }

    fn connection(&self, now: Instant, client: &Rc<str>, connect: &Connect<'_>) -> Connection {
        let list = connect.properties;
        let imposed = self.options.server_keep_alive;
        let keep_alive = match connect.version {
            Version::V5_0 => imposed.unwrap_or(connect.keep_alive),
            Version::V3_1 | Version::V3_1_1 => connect.keep_alive,
        };
        let patience = Duration::from_secs(keep_alive.into()) * 3 / 2;
        let aliases = list.topic_alias_maximum().unwrap_or(0);
        Connection {
            client: Rc::clone(client),
            version: connect.version,
            patience: Some(patience).filter(|patience| !patience.is_zero()),
            heard: now,
            will: connect.will.as_ref().map(Testament::new),
            window: list.receive_maximum().unwrap_or(DEFAULT_WINDOW).into(),
            packet_limit: list
                .maximum_packet_size()
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(usize::MAX),
            aliases_in: vec![None; self.options.topic_alias_maximum.into()],
            aliases_out: AliasesOut::new(aliases.min(self.options.sent_aliases)),
            unfinished: BTreeSet::new(),
            login: connect.properties.authentication_method().map(Login::new),
        }
    }

    pub(super) fn handle_disconnect(
        &mut self,
        id: LinkId,
        now: Instant,
        disconnect: Disconnect<'_>,
    ) -> Result<(), Violation> {
        let client = self.links.get(&id).and_then(|link| link.client());
        if let Some(seconds) = disconnect.properties.session_expiry_interval()
            && let Some(session) = client.and_then(|client| self.sessions.get_mut(client))
        {
            if session.expiry == Expiry::AtClose && seconds > 0 {
                return Err(Violation::protocol(
                    "MQTT5 3.14.2.2.2",
                    "a session that was to end with its connection is to last longer",
                ));
            }
            session.expiry = Expiry::from_seconds(seconds);
        }
        // Only a normal disconnection discards the will [MQTT-3.14.4-3].
        let ending = if disconnect.reason == Reason::SUCCESS {
            Ending::Left
        } else {
            Ending::Lost
        };
        self.end(id, now, ending);
        Ok(())
    }
}
