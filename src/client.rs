//! The handle that a user's tasks hold.

use std::fmt;
use std::rc::Rc;

use crate::answers::{Answers, DEFAULT_PREFIX};
use crate::calls::Settings;
use crate::driver::Driver;
use crate::error::{Doing, Error, Result};
use crate::events::Events;
use crate::message::{Incoming, Message, Payload, Qos};
use crate::options::{Acknowledge, Options};
use crate::properties::Properties;
use crate::protocol::Protocol;
use crate::queue::Queue;
use crate::reason::Reason;
use crate::router::{Inline, Sink};
use crate::shared::{Drain, Shared, State, Wanted, WeakShared};
use crate::statistics::Statistics;
use crate::subscription::Filters;
use crate::transport::Endpoint;
use crate::version::Version;
use crate::wait::Wait;
use crate::wait_for::{Call, Publishing, PublishingMessage, Subscribing, Unsubscribing, Waiting};

/// A MQTT client: a cheap clone for every task of the one thread.
///
/// Nothing happens without its [`Driver`], which is made together with it and which the application
/// spawns on its executor. See the [crate documentation](crate) for a whole program.
pub struct Client {
    pub(crate) shared: Shared,
    pub(crate) settings: Rc<Settings>,
}

impl Client {
    /// Makes a client and its driver. Nothing is sent before the driver runs; calls made before are
    /// kept.
    ///
    /// The driver ends after [`Client::disconnect`], or when no `Client` and no
    /// [`Subscription`](crate::Subscription) is left.
    pub fn new(options: Options) -> (Self, Driver) {
        let settings = Settings {
            wait_timeout: options.wait_timeout,
            stream_bytes: options.stream_bytes,
            maximum_qos: options.maximum_qos,
            retain: options.retain,
            identifiers: options.identifiers && options.config.version == Version::V5_0,
            response_prefix: options
                .response_prefix
                .clone()
                .unwrap_or_else(|| Rc::from(DEFAULT_PREFIX)),
        };
        let answers = Answers::new(
            options.response_prefix.clone(),
            options.maximum_qos,
            settings.identifiers,
        );
        let protocol = Protocol::new(options.config.clone());
        let shared = Shared::new(protocol, answers, options.drain_timeout);
        shared.with(|state| state.handles = 1);
        let client = Self {
            shared: shared.clone(),
            settings: Rc::new(settings),
        };
        (client, Driver::new(shared, options))
    }

    /// Publishes `payload` to `topic`. The call itself sends; the future only waits, see [`Wait`].
    ///
    /// A borrowed payload is copied once, an owned one not at all.
    ///
    /// # Errors
    /// A bad topic, what the broker said it does not take, a full queue (only with [`Wait::None`]; the
    /// other waits wait for room too), a refusal by the broker, a lost session, the end of the wait's
    /// time. [`Error::sent`] tells whether the message has left.
    ///
    /// # Cancel safety
    /// Once accepted, nothing un-sends a message: dropping the future only stops waiting. While it is in
    /// line for room, dropping withdraws it.
    pub fn publish<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        qos: Qos,
        wait: Wait,
    ) -> Publishing {
        Publishing {
            call: self.publish_call(topic, payload.into(), qos, wait),
        }
    }

    /// Publishes a message with everything that MQTT knows of it: retain, expiry, properties.
    ///
    /// Publishing a message that was received by hand does not acknowledge it: keep a clone for that.
    ///
    /// # Errors
    /// As [`Client::publish`]. A message that was not accepted comes back in [`Unpublished`](crate::Unpublished).
    ///
    /// # Cancel safety
    /// As [`Client::publish`].
    pub fn publish_message(&self, mut message: Message, wait: Wait) -> PublishingMessage {
        // The duty to acknowledge must not go into the state: its drop calls the client.
        let duty = message.take_duty();
        let accepted = message
            .check()
            .map_err(|error| (error, message.clone()))
            .and_then(|()| self.shared.with(|state| self.accept(state, message, wait)));
        match accepted {
            Ok(call) => PublishingMessage {
                call,
                message: None,
            },
            Err((error, message)) => PublishingMessage {
                call: Call::Known(Err(error)),
                message: Some(match duty {
                    Some(duty) => message.with_duty(duty),
                    None => message,
                }),
            },
        }
    }

    /// Subscribes to `filter` and gives the stream of its messages.
    ///
    /// With [`Wait::None`] the stream comes at once, link or no link, and the subscription is made when there
    /// is a connection: for a device that may start offline. With [`Wait::Sent`] it comes when SUBSCRIBE has
    /// been sent. With both, a refusal found later ends the stream with an error and is an event. Several handles
    /// of one filter share one subscription at the broker.
    ///
    /// # Errors
    /// A bad filter; one that another handle has with other options; with [`Wait::Ack`] a refusal,
    /// which names the filter.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the stream: what is granted is unsubscribed again.
    pub fn subscribe(&self, filter: &str, qos: Qos, wait: Wait) -> Subscribing {
        self.subscribe_many(Filters::new(filter, qos), wait)
    }

    /// Subscribes to several filters at once, or to one with options. Their messages come on one
    /// stream; one that matches several of them comes as often as the broker sends it, which is once, or
    /// once for each.
    ///
    /// # Errors
    /// As [`Client::subscribe`]. With [`Wait::Ack`] the refusal of one filter fails the whole: the
    /// others are unsubscribed.
    ///
    /// # Cancel safety
    /// As [`Client::subscribe`].
    pub fn subscribe_many(&self, filters: impl Into<Filters>, wait: Wait) -> Subscribing {
        let filters = filters.into();
        let bound = filters.stream_bytes.unwrap_or(self.settings.stream_bytes);
        let queue = Queue::new(bound, filters.overflow, filters.acknowledge);
        self.subscribe_call(&filters, Sink::Stream(queue), wait)
    }

    /// Subscribes with a handler that is called with each message as it lies in the read buffer:
    /// nothing is copied and nothing allocated.
    ///
    /// The handler runs inside the driver, so it should be quick; it may call the client. A message
    /// counts as taken when it returns. The subscription lives as long as what this gives.
    ///
    /// # Errors
    /// As [`Client::subscribe`]; a misuse with [`Acknowledge::ByHand`], for which there is no message
    /// to keep.
    ///
    /// # Cancel safety
    /// As [`Client::subscribe`].
    pub fn subscribe_inline(
        &self,
        filters: impl Into<Filters>,
        handler: impl FnMut(&Incoming<'_>) + 'static,
        wait: Wait,
    ) -> Subscribing {
        let filters = filters.into();
        if filters.acknowledge == Acknowledge::ByHand {
            let error = Error::misuse("an inline handler cannot acknowledge by hand");
            return Subscribing {
                call: Call::Known(Err(error)),
                subscription: None,
            };
        }
        self.subscribe_call(
            &filters,
            Sink::Inline(Some(Inline(Box::new(handler)))),
            wait,
        )
    }

    /// Unsubscribes from `filter`: all its handles lose it, and a stream without filters ends.
    ///
    /// Seldom needed: dropping the [`Subscription`](crate::Subscription) does it too.
    ///
    /// # Errors
    /// A bad filter; with [`Wait::Ack`] a refusal.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo it.
    pub fn unsubscribe(&self, filter: &str, wait: Wait) -> Unsubscribing {
        self.unsubscribe_many([filter], Properties::new(), wait)
    }

    /// Unsubscribes from several filters at once, with user properties; without effect on versions before
    /// 5. [`Unsubscribed::reasons`](crate::Unsubscribed::reasons) has the broker's answers in the order of
    /// the filters.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`]; a misuse without a filter, for properties that UNSUBSCRIBE cannot carry,
    /// and, found when it is sent, for a packet larger than the broker takes.
    ///
    /// # Cancel safety
    /// As [`Client::unsubscribe`].
    pub fn unsubscribe_many<'a>(
        &self,
        filters: impl IntoIterator<Item = &'a str>,
        properties: Properties,
        wait: Wait,
    ) -> Unsubscribing {
        let filters = filters.into_iter().map(Rc::from).collect();
        Unsubscribing {
            call: self.unsubscribe_call(filters, properties, wait),
        }
    }

    /// Asks the broker whether it answers. To know how long that takes, measure around the call.
    ///
    /// # Errors
    /// There is no connection, it ends, or no answer comes in time.
    ///
    /// # Cancel safety
    /// Dropping the future only stops waiting.
    pub fn ping(&self) -> Waiting {
        self.ask(Doing::Pinging, |protocol, token| protocol.ping(token))
    }

    /// Authenticates again on the live connection, with what the [`Authenticator`] of the options has now.
    /// Ends when both sides are content. An exchange that is under way is finished first. What other calls
    /// want to send waits meanwhile, unless [`Options::quiet_renewal`] says otherwise.
    ///
    /// A credential that expires is renewed without this call: see [`Exchange::finish`].
    ///
    /// [`Authenticator`]: crate::Authenticator
    /// [`Exchange::finish`]: crate::Exchange::finish
    ///
    /// # Errors
    /// A misuse without an authenticator; there is no connection; the authenticator has no credential.
    /// When the broker refuses, or does not prove who it is, the connection ends too.
    ///
    /// # Cancel safety
    /// Dropping the future only stops waiting.
    pub fn reauthenticate(&self) -> Waiting {
        self.ask(Doing::Authenticating, |protocol, token| {
            protocol.reauthenticate(token)
        })
    }

    /// Waits until there is a connection; ends at once if there is one. Without limit, unless
    /// [`Waiting::timeout`] sets one.
    ///
    /// # Errors
    /// The client is closed before.
    ///
    /// # Cancel safety
    /// Dropping the future only stops waiting.
    pub fn connected(&self) -> Waiting {
        self.until(
            Doing::Connecting,
            |state| state.protocol.is_online(),
            |state| &mut state.conditions.connected,
        )
    }

    /// Waits until a message of any QoS would be accepted at once. Without limit, unless
    /// [`Waiting::timeout`] sets one.
    ///
    /// # Errors
    /// The client is closed before.
    ///
    /// # Cancel safety
    /// Dropping the future only stops waiting.
    pub fn ready(&self) -> Waiting {
        self.until(
            Doing::Publishing,
            |state| state.protocol.has_room(),
            |state| &mut state.conditions.ready,
        )
    }

    /// How many more QoS 1 and 2 messages may be under way now; 0 without a connection.
    pub fn credit(&self) -> usize {
        self.shared.with(|state| state.protocol.credit())
    }

    /// Whether there is a connection: CONNACK came, and its end was not noticed yet.
    pub fn is_connected(&self) -> bool {
        self.shared.with(|state| state.protocol.is_online())
    }

    /// Where the connection leads, and by which way; none without a connection.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.shared.with(|state| {
            let endpoint = state.endpoint.clone();
            endpoint.filter(|_| state.protocol.is_online())
        })
    }

    /// The version of MQTT that is spoken; with [`Version::Auto`], until a broker has let us in, the one that
    /// is tried.
    pub fn version(&self) -> Version {
        self.shared.with(|state| state.protocol.config().version)
    }

    /// The client identifier in use: the one given, or the one that the broker chose.
    pub fn client_id(&self) -> String {
        self.shared
            .with(|state| state.protocol.client_id().to_owned())
    }

    /// What the broker said at CONNACK: its limits, its properties. None without a connection; before MQTT 5
    /// they are empty.
    pub fn server_properties(&self) -> Option<Properties> {
        self.shared.with(|state| {
            state
                .protocol
                .limits()
                .map(|limits| limits.properties.clone())
        })
    }

    /// Disconnects for good: waits for what is not acknowledged, for a bounded time, then leaves so
    /// that no will is published. Later calls are [`ErrorKind::Closed`]. Offline it does not connect to
    /// get rid of messages. With a store, what streams still hold is left to the next process: see
    /// [`Options::store`](crate::Options::store).
    ///
    /// [`ErrorKind::Closed`]: crate::ErrorKind::Closed
    ///
    /// # Errors
    /// [`ErrorKind::Unacknowledged`](crate::ErrorKind::Unacknowledged) with the number of messages that
    /// stayed; [`ErrorKind::Closed`] if the store fails meanwhile.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo it.
    pub fn disconnect(&self) -> Waiting {
        let (farewell, limit) = self
            .shared
            .with(|state| (state.protocol.config().farewell(), state.drain_timeout));
        self.leave(Reason::SUCCESS, farewell, Drain::For(limit))
    }

    /// Disconnects at once with this reason and these properties; MQTT 5 only (before, the connection
    /// is closed with a plain DISCONNECT). It waits for nothing, and unless the properties say that the
    /// session expires after 0 s, the broker keeps the session.
    ///
    /// With [`Reason::DISCONNECT_WITH_WILL`] the broker publishes the will.
    ///
    /// # Errors
    /// As [`Client::disconnect`]; a misuse for a reason that only a server may give, and for a session
    /// expiry where CONNECT had none (MQTT 5, section 3.14.2.2.2).
    ///
    /// # Cancel safety
    /// Dropping the future does not undo it.
    pub fn disconnect_with(&self, reason: Reason, properties: Properties) -> Waiting {
        self.leave(reason, properties, Drain::No)
    }

    /// Leaves the connection by DISCONNECT, so that no will is published, and connects again at once.
    /// Without a connection the next attempt begins at once. Waits and subscriptions go on, as after a
    /// lost link; [`Event::Connected`](crate::Event::Connected) tells when it is done.
    ///
    /// # Errors
    /// The client is closed.
    pub fn reconnect(&self) -> Result<()> {
        self.shared.with(|state| {
            state.check_open(Doing::Connecting)?;
            state.wanted = Wanted::Reconnect;
            state.wake_driver();
            Ok(())
        })
    }

    /// Listens to what happens from now on.
    pub fn events(&self) -> Events {
        Events::new(self.shared.clone())
    }

    /// What this client has done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.with(|state| Statistics {
            queue_full: state.protocol.losses().failed,
            dropped_oldest: state.protocol.losses().oldest,
            dropped_newest: state.protocol.losses().newest,
            unfinished: state.protocol.unfinished(),
            pending: state.protocol.pending_qos0(),
            waits: state.waiters.len(),
            ..state.statistics
        })
    }
}

impl Client {
    /// A handle for the length of a call, for those who must not keep the client alive.
    pub(crate) fn revive(shared: &WeakShared, settings: &Rc<Settings>) -> Option<Self> {
        let shared = shared.upgrade()?;
        shared.with(|state| state.handles += 1);
        Some(Self {
            shared,
            settings: Rc::clone(settings),
        })
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        self.shared.with(|state| state.handles += 1);
        Self {
            shared: self.shared.clone(),
            settings: Rc::clone(&self.settings),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.with(State::drop_handle);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}
