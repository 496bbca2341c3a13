//! The other side of a request: who answers it. See [`Client::request`] for the rules on the wire.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::Stream;

use crate::calls::Settings;
use crate::client::Client;
use crate::error::{Doing, Error, Result};
use crate::event::Event;
use crate::message::{Incoming, Message, Payload, Qos, TopicRef};
use crate::properties::{Properties, PropertyList};
use crate::reason::Reason;
use crate::shared::{State, WeakShared};
use crate::subscription::{Filters, Subscription};
use crate::version::Version;
use crate::wait::Wait;
use crate::wait_for::{Call, Publishing, Subscribing};

impl Client {
    /// Answers requests with what `handler` returns for each: a text, bytes, a [`Reply`], or `None` for no
    /// answer.
    ///
    /// The handler is called from the driver with the request as it lies in the read buffer, so it should be
    /// quick; it may call the client. If an answer takes longer, use [`Client::requests`]. The request counts
    /// as taken when the handler returns. An answer for which there is no room is lost, which is an
    /// [`Event::Unpublished`].
    ///
    /// With `$share/group/filter` several services share the requests. On 3.1.1 and 3.1 a filter `f` stands
    /// for `f/+/+`; the handler sees the topic without these two levels.
    ///
    /// **Whoever may publish a request says where its answer goes**, on MQTT 5 any topic that this client may
    /// publish to. Let the broker's access rules say which topics those are.
    ///
    /// # Errors
    /// As [`Client::subscribe_inline`]; before MQTT 5 also a misuse for a filter that ends with `#`. While
    /// [`Version::Auto`] has not found a version yet, that one is an error of the wait.
    ///
    /// # Cancel safety
    /// As [`Client::subscribe`].
    ///
    /// ```no_run
    /// # use coracle::{Client, Qos, Wait};
    /// # async fn example(client: Client) -> coracle::Result<()> {
    /// let service = client.serve(
    ///     ("math/double", Qos::AtLeastOnce),
    ///     |request| Some((2 * request.text()?.parse::<i32>().ok()?).to_string()),
    ///     Wait::Ack,
    /// );
    /// let _kept = service.await?;
    /// # Ok(()) }
    /// ```
    pub fn serve<R: Into<Reply>>(
        &self,
        filters: impl Into<Filters>,
        mut handler: impl FnMut(&Incoming<'_>) -> R + 'static,
        wait: Wait,
    ) -> Serving {
        let desk = self.desk();
        let filters = match desk.filters(filters.into()) {
            Ok(filters) => filters,
            Err(error) => return Serving::failed(error, desk),
        };
        let own = desk.clone();
        let answering = move |incoming: &Incoming<'_>| {
            let topic = own.topic(incoming.topic());
            let reply = handler(&Incoming {
                topic: TopicRef::Borrowed(topic),
                ..*incoming
            });
            own.answer_at_once(incoming, reply.into());
        };
        Serving {
            subscribing: self.subscribe_inline(filters, answering, wait),
            desk,
        }
    }

    /// Gives the stream of requests that match `filters`, to be answered with [`Request::respond`] whenever
    /// the answer is known, by whichever task.
    ///
    /// Everything else is as with [`Client::serve`] and [`Client::subscribe_many`]: a request counts as taken
    /// when the stream has yielded it, or when [`Acknowledge`](crate::Acknowledge) says so.
    ///
    /// # Errors
    /// As [`Client::subscribe`]; before MQTT 5 also a misuse for a filter that ends with `#`.
    ///
    /// # Cancel safety
    /// As [`Client::subscribe`].
    ///
    /// ```no_run
    /// # use coracle::{Client, LocalExecutor, Qos, Wait};
    /// # async fn measure() -> String { String::new() }
    /// # async fn example(client: Client, executor: &LocalExecutor<'_>) -> coracle::Result<()> {
    /// let mut service = client.requests(("house/+/temp", Qos::AtLeastOnce), Wait::Ack).await?;
    /// while let Some(request) = service.next().await {
    ///     executor.spawn(async move { request.respond(measure().await, Wait::Ack).await }).detach();
    /// }
    /// # Ok(()) }
    /// ```
    pub fn requests(&self, filters: impl Into<Filters>, wait: Wait) -> Serving {
        let desk = self.desk();
        match desk.filters(filters.into()) {
            Ok(filters) => Serving {
                subscribing: self.subscribe_many(filters, wait),
                desk,
            },
            Err(error) => Serving::failed(error, desk),
        }
    }

    fn desk(&self) -> Desk {
        Desk {
            shared: self.shared.downgrade(),
            settings: Rc::clone(&self.settings),
        }
    }
}

/// What a filter of requests has at its end before MQTT 5: who asks, and the number of the request.
const LEVELS: &str = "/+/+";

/// What it takes to answer. Does not keep the client alive.
#[derive(Clone)]
struct Desk {
    shared: WeakShared,
    settings: Rc<Settings>,
}

/// Where an answer goes, and what it brings along.
struct Address {
    topic: Rc<str>,
    correlation: Option<Vec<u8>>,
    /// An answer is as sure as its request was, unless it says otherwise.
    qos: Qos,
}

impl Desk {
    /// The version that is spoken; a client that is gone speaks none.
    fn version(&self) -> Version {
        self.shared.upgrade().map_or(Version::V5_0, |shared| {
            shared.with(|state| state.protocol.config().version)
        })
    }

    /// The filters that requests to `filters` match.
    fn filters(&self, mut filters: Filters) -> Result<Filters> {
        let version = self.version();
        filters.serves = Some(version);
        match version {
            Version::V5_0 => {}
            Version::V3_1 | Version::V3_1_1 => {
                for (filter, _) in &mut filters.filters {
                    if filter.ends_with('#') {
                        let text = "before MQTT 5 a filter of requests cannot end with #";
                        return Err(Error::misuse(text).while_doing(Doing::Subscribing));
                    }
                    *filter = format!("{filter}{LEVELS}").into();
                }
            }
        }
        Ok(filters)
    }

    /// The topic as whoever asked has called it.
    fn topic<'a>(&self, topic: &'a str) -> &'a str {
        match self.version() {
            Version::V5_0 => topic,
            Version::V3_1 | Version::V3_1_1 => tail(topic).map_or(topic, |(topic, _)| topic),
        }
    }

    /// Where the answer to a request goes; none if it does not say so.
    fn address(&self, topic: &str, properties: PropertyList<'_>, qos: Qos) -> Option<Address> {
        let qos = qos.min(self.settings.maximum_qos);
        match self.version() {
            Version::V5_0 => Some(Address {
                // That it is a topic name was checked when it arrived [MQTT-3.3.2-14].
                topic: properties.response_topic()?.into(),
                correlation: properties.correlation_data().map(<[u8]>::to_vec),
                qos,
            }),
            Version::V3_1 | Version::V3_1_1 => {
                let (_, levels) = tail(topic)?;
                let prefix = &self.settings.response_prefix;
                Some(Address {
                    topic: format!("{prefix}/{levels}").into(),
                    correlation: None,
                    qos,
                })
            }
        }
    }

    /// Sends the answer of a handler, or tells why it is lost: there is nobody to whom the error could be
    /// returned.
    fn answer_at_once(&self, incoming: &Incoming<'_>, reply: Reply) {
        let address = self.address(
            incoming.topic(),
            incoming.property_list(),
            incoming.quality_of_service(),
        );
        let (Some(answer), Some(client)) = (
            address.and_then(|address| address.letter(reply)),
            Client::revive(&self.shared, &self.settings),
        ) else {
            return;
        };
        let sent = answer.check().map_err(|error| (error, answer.clone()));
        client.shared.with(|state| {
            let sent = sent.and_then(|()| client.accept(state, answer, Wait::None));
            if let Err((error, message)) = sent {
                state.tell(&Event::Unpublished {
                    message: Some(message),
                    error,
                });
            }
        });
    }
}

impl State {
    /// The next attempt speaks this version. What serves requests was perhaps asked for when another one was
    /// hoped for, in its form; of that nothing can have left, as then the version would be settled.
    pub(crate) fn speak(&mut self, version: Version) {
        self.protocol.set_version(version);
        for (key, from) in self.router.reform(version) {
            let to = match version {
                Version::V5_0 => from.strip_suffix(LEVELS).unwrap_or(&from).into(),
                // One that ends with # becomes none, and fails when it is to leave.
                Version::V3_1 | Version::V3_1_1 => format!("{from}{LEVELS}").into(),
            };
            if let Some(wish) = self.router.rename(key, &from, to) {
                self.protocol.rename_filter(key, &from, &wish);
            }
        }
    }
}

impl Address {
    /// The answer as it is sent, if there is one.
    fn letter(self, reply: Reply) -> Option<Message> {
        let Content {
            payload,
            qos,
            mut properties,
        } = reply.0?;
        if let Some(correlation) = &self.correlation {
            properties = properties.correlation_data(correlation);
        }
        let qos = qos.unwrap_or(self.qos);
        let message = Message::new(self.topic, payload);
        Some(message.qos(qos).properties(properties))
    }
}

/// Takes the last two levels off a topic.
fn tail(topic: &str) -> Option<(&str, &str)> {
    let (rest, _number) = topic.rsplit_once('/')?;
    let (rest, _client) = rest.rsplit_once('/')?;
    Some((rest, topic.get(rest.len() + 1..)?))
}

/// An answer: what a handler of [`Client::serve`] returns and what [`Request::respond`] takes.
///
/// Texts, bytes, `()` and `Option`s become one by themselves; the last two, without content, are no answer.
#[derive(Debug, Clone)]
#[must_use = "a reply has an effect only when it is sent"]
pub struct Reply(Option<Content>);

#[derive(Debug, Clone)]
struct Content {
    payload: Payload<'static>,
    qos: Option<Qos>,
    properties: Properties,
}

impl Reply {
    /// An answer with this payload, as sure as its request.
    pub fn new<'a>(payload: impl Into<Payload<'a>>) -> Self {
        Self(Some(Content {
            payload: payload.into().into_owned(),
            qos: None,
            properties: Properties::new(),
        }))
    }

    /// No answer: whoever asked waits until its time is over.
    pub fn none() -> Self {
        Self(None)
    }

    /// Sets the quality of service. Defaults to that at which the request came.
    pub fn qos(mut self, qos: Qos) -> Self {
        if let Some(content) = &mut self.0 {
            content.qos = Some(qos);
        }
        self
    }

    /// Sets the properties; MQTT 5 only, without effect on older versions. Correlation Data among them is
    /// replaced by that of the request. Defaults to none.
    pub fn properties(mut self, properties: Properties) -> Self {
        if let Some(content) = &mut self.0 {
            content.properties = properties;
        }
        self
    }
}

macro_rules! reply_from {
    ($($from:ty),*) => {
        $(impl From<$from> for Reply {
            fn from(payload: $from) -> Self {
                Self::new(payload)
            }
        })*
    };
}

reply_from!(&[u8], &str, &String, Vec<u8>, String, Rc<Vec<u8>>);

impl<const N: usize> From<&[u8; N]> for Reply {
    fn from(payload: &[u8; N]) -> Self {
        Self::new(payload)
    }
}

impl From<()> for Reply {
    fn from((): ()) -> Self {
        Self::none()
    }
}

impl<R: Into<Self>> From<Option<R>> for Reply {
    fn from(reply: Option<R>) -> Self {
        reply.map_or_else(Self::none, Into::into)
    }
}

/// The wait of [`Client::serve`] and of [`Client::requests`]; gives the [`Service`].
///
/// # Cancel safety
/// As [`Subscribing`].
#[must_use = "a service that is dropped serves no more"]
pub struct Serving {
    subscribing: Subscribing,
    desk: Desk,
}

impl Serving {
    fn failed(error: Error, desk: Desk) -> Self {
        let subscribing = Subscribing {
            call: Call::Known(Err(error)),
            subscription: None,
        };
        Self { subscribing, desk }
    }

    /// Sets how long this wait lasts at most. Defaults to [`Options::wait_timeout`].
    /// When it is over, the service is given up and its filters are unsubscribed.
    ///
    /// [`Options::wait_timeout`]: crate::Options::wait_timeout
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            subscribing: self.subscribing.timeout(timeout),
            desk: self.desk,
        }
    }
}

impl Future for Serving {
    type Output = Result<Service>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let subscribed = Pin::new(&mut self.subscribing).poll(cx);
        subscribed.map(|outcome| {
            outcome.map(|subscription| Service {
                subscription,
                desk: self.desk.clone(),
            })
        })
    }
}

/// Requests that are served here: by the handler of [`Client::serve`], or as the stream of
/// [`Client::requests`]. Dropping it ends that, as dropping a [`Subscription`] does.
#[must_use = "a service that is dropped serves no more"]
pub struct Service {
    subscription: Subscription,
    desk: Desk,
}

impl Service {
    /// Waits for the next request; none when the service has ended. [`Service::error`] then says why. With a
    /// handler there is nothing to wait for but the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a request that was not returned stays queued.
    pub async fn next(&mut self) -> Option<Request> {
        let message = self.subscription.next().await?;
        Some(self.desk.request(message))
    }

    /// The next request if one is queued. Never waits.
    pub fn try_next(&mut self) -> Option<Request> {
        let message = self.subscription.try_next()?;
        Some(self.desk.request(message))
    }

    /// Why the service has ended; none while it goes on. When the client is at its end, also by your own
    /// `disconnect()`, it is [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn error(&self) -> Option<Error> {
        self.subscription.error()
    }

    /// What the broker granted for each filter, if the call waited for it.
    pub fn granted(&self) -> impl Iterator<Item = (&str, Reason)> {
        self.subscription.granted()
    }
}

impl Stream for Service {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let polled = Pin::new(&mut self.subscription).poll_next(cx);
        polled.map(|message| message.map(|message| self.desk.request(message)))
    }
}

impl Desk {
    fn request(&self, message: Message) -> Request {
        Request {
            message,
            desk: self.clone(),
        }
    }
}

/// A request that waits for its answer. Dropping it answers nothing.
#[must_use = "whoever sent it waits for an answer"]
pub struct Request {
    message: Message,
    desk: Desk,
}

impl Request {
    /// The topic to which it was sent; before MQTT 5 without the two levels that name who asked.
    pub fn topic(&self) -> &str {
        self.desk.topic(self.message.topic())
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.message.payload()
    }

    /// The payload as text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        self.message.text()
    }

    /// The message that it came as, with its properties.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Whether it says where an answer is to go. If not, it is a message like any other.
    pub fn wants_answer(&self) -> bool {
        self.address().is_some()
    }

    /// Answers. The call itself sends; the future only waits, as that of [`Client::publish`].
    ///
    /// # Errors
    /// As [`Client::publish`]; a misuse if the request does not want an answer.
    ///
    /// # Cancel safety
    /// As [`Client::publish`].
    pub fn respond(self, reply: impl Into<Reply>, wait: Wait) -> Publishing {
        Publishing {
            call: self.answer(reply.into(), wait),
        }
    }

    fn answer(&self, reply: Reply, wait: Wait) -> Call {
        let Some(address) = self.address() else {
            let error = Error::misuse("the request does not say where its answer is to go");
            return Call::Known(Err(error.while_doing(Doing::Publishing)));
        };
        let Some(client) = Client::revive(&self.desk.shared, &self.desk.settings) else {
            return Call::Known(Err(Error::closed(Doing::Publishing)));
        };
        let Some(answer) = address.letter(reply) else {
            return client.call(Ok(None));
        };
        let accepted = answer.check().and_then(|()| {
            client.shared.with(|state| {
                let accepted = client.accept(state, answer, wait);
                accepted.map_err(|(error, message)| {
                    state.loose.drop_later(Some(message));
                    error
                })
            })
        });
        accepted.unwrap_or_else(|error| Call::Known(Err(error)))
    }

    fn address(&self) -> Option<Address> {
        let message = &self.message;
        self.desk.address(
            message.topic(),
            message.property_list(),
            message.quality_of_service(),
        )
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}
