//! What a call does to the shared state, and the wait that it begins.

use std::rc::Rc;
use std::time::Duration;

use crate::client::Client;
use crate::codec::Place;
use crate::codec::subscribe::FilterOptions;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::message::{Message, Payload, PayloadKind, Qos, SHOWN, check_topic};
use crate::properties::{Properties, PropertyList};
use crate::protocol::{self, Accepted, Done, Outgoing, Protocol, Token};
use crate::reason::Reason;
use crate::router::Sink;
use crate::shared::{Drain, State, Wanted};
use crate::subscription::{Filters, RetainHandling, Subscription};
use crate::topic;
use crate::version::Version;
use crate::wait::Wait;
use crate::wait_for::{Call, Subscribing, Ticket, Waiting};
use crate::waiter::Place as InLine;

/// What a client needs to know of its options.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) wait_timeout: Duration,
    pub(crate) stream_bytes: usize,
    pub(crate) maximum_qos: Qos,
    pub(crate) retain: bool,
    /// Whether filters get subscription identifiers.
    pub(crate) identifiers: bool,
    /// What the topics of answers begin with, where the other side does not say it.
    pub(crate) response_prefix: Rc<str>,
}

impl Settings {
    /// What the options forbid, whatever the broker allows.
    pub(crate) fn check(&self, qos: Qos, retain: bool) -> Result<()> {
        if qos > self.maximum_qos {
            return Err(Error::misuse("the options forbid this QoS").while_doing(Doing::Publishing));
        }
        if retain && !self.retain {
            return Err(Error::misuse("the options forbid retain").while_doing(Doing::Publishing));
        }
        Ok(())
    }
}

impl Client {
    pub(crate) fn publish_call(
        &self,
        topic: &str,
        payload: Payload<'_>,
        qos: Qos,
        wait: Wait,
    ) -> Call {
        if let Err(error) = check_topic(topic) {
            return Call::Known(Err(error));
        }
        let accepted = self.shared.with(|state| {
            if qos != Qos::AtMostOnce {
                let message = Message::new(topic, payload).qos(qos);
                return self
                    .accept(state, message, wait)
                    .map_err(|(error, _)| error);
            }
            state.check_open(Doing::Publishing)?;
            let begun = self.begin(state, Doing::Publishing, wait);
            // Kept for the case that there is no room: a payload by reference costs nothing.
            let (payload, again) = split(payload, begun.is_some());
            let token = begun.map(|(_, token)| token);
            let properties = PropertyList::EMPTY;
            let outgoing = Outgoing {
                topic,
                payload,
                properties,
                retain: false,
            };
            match state.protocol.publish_qos0(outgoing, token) {
                Ok(Accepted::Yes | Accepted::Parked(_)) => {}
                Ok(Accepted::Dropped) => return Ok(self.call(Ok(None))),
                Err(error) if matches!(error.kind(), ErrorKind::QueueFull) => {
                    let Some(payload) = again else {
                        return Err(error);
                    };
                    if let Some(token) = token {
                        state.waiters.remove(token);
                    }
                    let message = Message::new(topic, payload).qos(qos);
                    return self
                        .accept(state, message, wait)
                        .map_err(|(error, _)| error);
                }
                Err(error) => {
                    if let Some(token) = token {
                        state.waiters.remove(token);
                    }
                    return Err(error);
                }
            }
            state.statistics.published += 1;
            state.wake_driver();
            Ok(self.call(Ok(token)))
        });
        accepted.unwrap_or_else(|error| Call::Known(Err(error)))
    }

    pub(crate) fn accept(
        &self,
        state: &mut State,
        message: Message,
        wait: Wait,
    ) -> std::result::Result<Call, (Error, Message)> {
        let qos = message.quality_of_service();
        let allowed = state.check_open(Doing::Publishing);
        if let Err(error) = allowed.and_then(|()| self.settings.check(qos, message.is_retained())) {
            return Err((error, message));
        }
        let begun = self.begin(state, Doing::Publishing, wait);
        match state.protocol.publish(message, begun) {
            Ok(Accepted::Yes) => {}
            Ok(Accepted::Dropped) => return Ok(self.call(Ok(None))),
            Ok(Accepted::Parked(place)) => {
                if let Some((_, token)) = begun {
                    state.waiters.park(token, InLine::Line(qos, place));
                }
            }
            Err((message, error)) => {
                if let Some((_, token)) = begun {
                    state.waiters.remove(token);
                }
                return Err((error, message));
            }
        }
        state.statistics.published += 1;
        state.wake_driver();
        Ok(self.call(Ok(begun.map(|(_, token)| token))))
    }

    pub(crate) fn subscribe_call(&self, filters: &Filters, sink: Sink, wait: Wait) -> Subscribing {
        // On an error the handler is dropped after the borrow: its drop may call the client.
        let mut sink = Some(sink);
        let begun = self.check_filters(filters).and_then(|()| {
            self.shared.with(|state| {
                state.check_open(Doing::Subscribing)?;
                // What was dropped must not stand in the way of what follows it.
                state.end_dropped();
                let mut asked: Vec<(Rc<str>, FilterOptions)> = Vec::new();
                for (filter, qos) in &filters.filters {
                    let options = FilterOptions {
                        qos: (*qos).min(self.settings.maximum_qos),
                        no_local: filters.no_local,
                        retain_as_published: filters.retain_as_published,
                        retain_handling: filters.retain_handling.bits(),
                    };
                    let options = state.router.check(filter, options, filters.identifier)?;
                    asked.push((Rc::clone(filter), options));
                }
                let automatic = self.settings.identifiers;
                let wishes = state
                    .router
                    .identify(asked, filters.identifier, automatic)?;
                let sink = sink.take().unwrap_or(Sink::Inline(None));
                let key = state.router.insert(&wishes, sink);
                if let Some(version) = filters.serves {
                    state.router.serve(key, version);
                }
                state.handles += 1;
                state.ask_for(key);
                let token = self.begin(state, Doing::Subscribing, wait);
                state.protocol.subscribe(protocol::Subscription {
                    owner: key,
                    filters: wishes,
                    properties: filters.properties.clone(),
                    wait: token,
                });
                // After that: it may end the stream, and then unsubscribes.
                state.hand_on(key);
                state.wake_driver();
                Ok((key, token))
            })
        });
        match begun {
            Ok((key, token)) => Subscribing {
                call: self.call(Ok(token.map(|(_, token)| token))),
                subscription: Some(Subscription::new(&self.shared, key)),
            },
            Err(error) => Subscribing {
                call: Call::Known(Err(error)),
                subscription: None,
            },
        }
    }

    fn check_filters(&self, filters: &Filters) -> Result<()> {
        if filters.filters.is_empty() {
            return Err(Error::misuse(
                "a subscription needs a filter [MQTT-3.8.3-2]",
            ));
        }
        let v5 = self.version() == Version::V5_0;
        let retained_as_ever =
            filters.retain_handling == RetainHandling::Send && !filters.retain_as_published;
        if !v5 && (filters.no_local || !retained_as_ever) {
            return Err(Error::misuse(
                "No Local, Retain As Published and Retain Handling need MQTT 5",
            ));
        }
        for (index, (filter, _)) in filters.filters.iter().enumerate() {
            check_filter(filter)?;
            if filters.no_local && topic::is_shared(filter) {
                return Err(Error::misuse(
                    "No Local on a shared subscription is forbidden [MQTT-3.8.3-4]",
                ));
            }
            if filters
                .filters
                .iter()
                .skip(index + 1)
                .any(|(other, _)| other == filter)
            {
                return Err(Error::misuse(
                    "the same filter stands twice in one subscription",
                ));
            }
        }
        if !v5 && filters.identifier.is_some() {
            return Err(Error::misuse("a subscription identifier needs MQTT 5"));
        }
        if filters
            .identifier
            .is_some_and(|id| id == 0 || id > crate::properties::MAX_VARIABLE)
        {
            return Err(Error::misuse("a subscription identifier is 1 to 268435455"));
        }
        filters.properties.check().map_err(Error::property)?;
        Place::Subscribe.check_from_user(filters.properties.list())
    }

    pub(crate) fn unsubscribe_call(
        &self,
        filters: Vec<Rc<str>>,
        properties: Properties,
        wait: Wait,
    ) -> Call {
        let checked = check_unsubscribe(&filters, &properties).and_then(|()| {
            self.shared.with(|state| {
                state.check_open(Doing::Unsubscribing)?;
                for filter in &filters {
                    state.forget_filter(filter);
                }
                let token = self.begin(state, Doing::Unsubscribing, wait);
                state.protocol.unsubscribe(&filters, properties, token);
                state.wake_driver();
                Ok(token.map(|(_, token)| token))
            })
        });
        self.call(checked)
    }

    pub(crate) fn leave(&self, reason: Reason, properties: Properties, drain: Drain) -> Waiting {
        let begun = self.shared.with(|state| {
            state.check_open(Doing::Disconnecting)?;
            let v5 = state.protocol.config().version == Version::V5_0;
            if reason == Reason::DISCONNECT_WITH_WILL && !v5 {
                return Err(Error::misuse("only MQTT 5 can disconnect with the will"));
            }
            if v5 && !may_leave_with(reason) {
                return Err(Error::misuse(
                    "a client cannot disconnect with this reason [MQTT-3.14.2-1]",
                ));
            }
            properties.check().map_err(Error::property)?;
            Place::Disconnect.check_from_user(properties.list())?;
            let kept = state.protocol.config().keeps_session();
            if properties
                .list()
                .session_expiry_interval()
                .is_some_and(|expiry| expiry > 0)
                && !kept
            {
                return Err(Error::misuse(
                    "a session that was not to be kept cannot be kept at disconnect",
                ));
            }
            let token = state.waiters.insert(Doing::Disconnecting, None);
            state.conditions.closed.push(token);
            state.wanted = Wanted::Leave {
                reason,
                properties,
                drain,
            };
            state.wake_driver();
            Ok(Some(token))
        });
        Waiting {
            call: self.call(begun),
        }
    }

    /// Waits for a condition, or ends at once if it holds.
    pub(crate) fn until(
        &self,
        doing: Doing,
        holds: impl FnOnce(&State) -> bool,
        list: impl FnOnce(&mut State) -> &mut Vec<Token>,
    ) -> Waiting {
        let begun = self.shared.with(|state| {
            state.check_open(doing)?;
            if holds(state) {
                return Ok(None);
            }
            let token = state.waiters.insert(doing, None);
            list(state).push(token);
            Ok(Some(token))
        });
        Waiting {
            call: self.call(begun),
        }
    }

    /// Has the protocol ask the broker something, and waits for the answer.
    pub(crate) fn ask(
        &self,
        doing: Doing,
        ask: impl FnOnce(&mut Protocol, Token) -> Result<()>,
    ) -> Waiting {
        let begun = self.shared.with(|state| {
            state.check_open(doing)?;
            let limit = Some(self.settings.wait_timeout);
            let token = state.waiters.insert(doing, limit);
            if let Err(error) = ask(&mut state.protocol, token) {
                state.waiters.remove(token);
                return Err(error);
            }
            state.wake_driver();
            Ok(Some(token))
        });
        Waiting {
            call: self.call(begun),
        }
    }

    /// Begins the wait of a call, if it wants one.
    pub(crate) fn begin(
        &self,
        state: &mut State,
        doing: Doing,
        wait: Wait,
    ) -> Option<(Wait, Token)> {
        match wait {
            Wait::None => None,
            Wait::Sent | Wait::Ack => Some((
                wait,
                state
                    .waiters
                    .insert(doing, Some(self.settings.wait_timeout)),
            )),
        }
    }

    /// The wait for this token; without one it is over.
    pub(crate) fn call(&self, begun: Result<Option<Token>>) -> Call {
        match begun {
            Ok(None) => Call::Known(Ok(Done::Sent)),
            Ok(Some(token)) => Call::Waiting(Ticket::new(&self.shared, token)),
            Err(error) => Call::Known(Err(error)),
        }
    }
}

/// The payload, and if it may be needed again a second one without a copy.
fn split(payload: Payload<'_>, again: bool) -> (Payload<'_>, Option<Payload<'_>>) {
    if !again {
        return (payload, None);
    }
    let payload = match payload.0 {
        PayloadKind::Borrowed(bytes) => Payload(PayloadKind::Borrowed(bytes)),
        PayloadKind::Owned(bytes) => Payload::from(Rc::new(bytes)),
        PayloadKind::Shared(body) => Payload(PayloadKind::Shared(body)),
    };
    (payload.clone(), Some(payload))
}

/// The reasons that a client may give in DISCONNECT (MQTT 5, table 3-10).
fn may_leave_with(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SUCCESS
            | Reason::DISCONNECT_WITH_WILL
            | Reason::UNSPECIFIED_ERROR
            | Reason::MALFORMED_PACKET
            | Reason::PROTOCOL_ERROR
            | Reason::IMPLEMENTATION_SPECIFIC_ERROR
            | Reason::TOPIC_NAME_INVALID
            | Reason::RECEIVE_MAXIMUM_EXCEEDED
            | Reason::TOPIC_ALIAS_INVALID
            | Reason::PACKET_TOO_LARGE
            | Reason::MESSAGE_RATE_TOO_HIGH
            | Reason::QUOTA_EXCEEDED
            | Reason::ADMINISTRATIVE_ACTION
            | Reason::PAYLOAD_FORMAT_INVALID
    )
}

fn check_unsubscribe(filters: &[Rc<str>], properties: &Properties) -> Result<()> {
    if filters.is_empty() {
        let none = Error::misuse("to unsubscribe takes a filter [MQTT-3.10.3-2]");
        return Err(none.while_doing(Doing::Unsubscribing));
    }
    for filter in filters {
        check_filter(filter).map_err(|error| error.while_doing(Doing::Unsubscribing))?;
    }
    properties.check().map_err(Error::property)?;
    Place::Unsubscribe.check_from_user(properties.list())
}

pub(crate) fn check_filter(filter: &str) -> Result<()> {
    topic::check_filter(filter).map_err(|error| {
        let shown = filter.chars().take(SHOWN).collect::<String>();
        Error::new(ErrorKind::Filter(shown.into(), error), Doing::Subscribing)
    })
}
