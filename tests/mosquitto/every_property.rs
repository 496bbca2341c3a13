//! A program that uses every property of MQTT 5 that a client may send, authenticates again twice, once
//! by itself, and reads whatever the broker says. It runs against any broker that has a method of enhanced
//! authentication; tests/mqtt5 runs it too.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle::{
    Acknowledge, AuthFuture, AuthStep, Authenticator, Client, Event, Events, Exchange, Filters,
    Message, Occasion, Options, Properties, PropertyList, Qos, Reason, Session, Version, Wait,
};

use smol::future::poll_once;

use crate::world::{World, next, next_connection, options_at};

/// Long enough that an alias saves bytes.
const TOPIC: &str = "every/property/that/a/publication/may/have";
const ANSWERS: &str = "every/property/answers";
const WILL: &str = "every/property/will";

/// A number of its own, below those that Coracle gives.
const IDENTIFIER: u32 = 7;

/// After which time the credential expires. Long enough that it does not while the program is busy with
/// something else, short enough to wait for.
const LIFETIME: Duration = Duration::from_millis(1500);

const WILL_DELAY: u32 = 1;
const MESSAGE_EXPIRY: u32 = 600;
const QUALITIES: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// Where the program runs: a broker, and who authenticates a client there.
pub(crate) struct Site<'a> {
    pub(crate) world: &'a World,
    pub(crate) url: String,
    /// Makes an authenticator whose credential expires after this time.
    pub(crate) authenticator: &'a dyn Fn(Option<Duration>) -> Box<dyn Authenticator>,
}

/// The identifiers of the properties that the broker has sent.
pub(crate) type Seen = BTreeSet<u8>;

/// Runs the program. Returns which properties came back.
pub(crate) async fn use_every_property(site: &Site<'_>) -> Seen {
    let mut seen = Seen::new();
    leave_a_will(site, &mut seen).await;
    expect_the_will(site, &mut seen).await;
    be_named_by_the_broker(site, &mut seen).await;

    let pump = site.client("pump", Session::Fresh, Some(LIFETIME)).await;
    let mut events = pump.events();
    look(&pump, &mut seen);
    exchange_messages(&pump, &mut seen).await;

    pump.reauthenticate().await.expect("both sides are content");
    reauthenticated(&mut events).await;
    exchange_messages(&pump, &mut seen).await;
    // What came by itself in the meantime was not waited for; the next one is, and nobody asks for it.
    while poll_once(events.next()).await.flatten().is_some() {}
    reauthenticated(&mut events).await;
    exchange_messages(&pump, &mut seen).await;
    assert_eq!(pump.statistics().connected, 1, "on one connection");

    change_the_session_expiry(site, pump).await;
    seen
}

impl Site<'_> {
    /// What each client here says in CONNECT.
    fn options(&self, client_id: &str, session: Session, lifetime: Option<Duration>) -> Options {
        let properties = Properties::new()
            .request_problem_information(true)
            .request_response_information(true)
            .user_property("firmware", "1.2")
            .user_property("firmware", "1.3");
        let authenticator = Remarking {
            inner: (self.authenticator)(lifetime),
        };
        options_at(&self.url, Version::V5_0, client_id)
            .authenticator(authenticator)
            .properties(properties)
            .session(session)
            .session_expiry(Duration::from_secs(600))
            .receive_maximum(20)
            .inbound_limit(64 * 1024)
            .topic_alias_maximum(5)
            .topic_aliases(5)
    }

    async fn client(&self, id: &str, session: Session, lifetime: Option<Duration>) -> Client {
        self.world.client(self.options(id, session, lifetime)).await
    }
}

/// Everything that a publication may have, and that the broker passes on.
fn properties() -> Properties {
    Properties::new()
        .payload_format_indicator(true)
        .message_expiry_interval(MESSAGE_EXPIRY)
        .content_type("text/plain")
        .response_topic(ANSWERS)
        .correlation_data(b"\x00\x01correlation")
        .user_property("unit", "C")
        .user_property("unit", "F")
}

/// Whether a message has what [`properties`] said.
fn check(message: &Message, seen: &mut Seen) {
    let list = message.property_list();
    note(list, seen);
    assert_eq!(list.payload_format_indicator(), Some(true));
    // What is left of it [MQTT-3.3.2-6].
    let expiry = list.message_expiry_interval().expect("it was sent");
    assert!(
        (MESSAGE_EXPIRY - 60..=MESSAGE_EXPIRY).contains(&expiry),
        "{expiry}"
    );
    assert_eq!(list.content_type(), Some("text/plain"));
    assert_eq!(list.response_topic(), Some(ANSWERS));
    assert_eq!(list.correlation_data(), Some(&b"\x00\x01correlation"[..]));
    // In their order [MQTT-3.3.2-18]. A broker may add its own.
    let units: Vec<_> = list
        .user_properties()
        .filter(|(name, _)| *name == "unit")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(units, ["C", "F"]);
    // The client has put the topic back in its place.
    assert!(!message.topic().is_empty());
}

fn note(list: PropertyList<'_>, seen: &mut Seen) {
    seen.extend(list.iter().map(|property| property.id()));
}

/// Reads each property of CONNACK by its name.
fn look(client: &Client, seen: &mut Seen) {
    let said = client.server_properties().expect("it is connected");
    let list = said.list();
    note(list, seen);
    assert!(list.authentication_method().is_some(), "[MQTT-4.12.0-5]");
    assert!(list.authentication_data().is_some(), "its proof");
    // What is absent has the value that the standard gives it (MQTT 5, section 3.2.2.3).
    assert!(list.session_expiry_interval().unwrap_or(600) > 0);
    let window = list.receive_maximum().unwrap_or(u16::MAX);
    assert_eq!(client.credit(), usize::from(window.min(1024)));
    assert_eq!(list.maximum_qos(), None, "it has all of them");
    assert!(list.retain_available().unwrap_or(true));
    assert!(list.maximum_packet_size().unwrap_or(u32::MAX) > 1024);
    assert!(
        list.topic_alias_maximum().unwrap_or(0) > 0,
        "both offer some"
    );
    assert!(list.wildcard_subscription_available().unwrap_or(true));
    assert!(list.subscription_identifiers_available().unwrap_or(true));
    assert!(list.shared_subscription_available().unwrap_or(true));
    assert!(list.server_keep_alive().unwrap_or(60) > 0);
    assert_ne!(list.response_information(), Some(""));
    assert_eq!(list.server_reference(), None, "we are where we belong");
    assert_eq!(list.reason_string(), None, "nothing is wrong");
}

/// A will with all its properties, set off by a DISCONNECT with all of its own.
async fn leave_a_will(site: &Site<'_>, seen: &mut Seen) {
    let will = Message::new(WILL, "gone")
        .qos(Qos::AtLeastOnce)
        .retain(true)
        .properties(properties().will_delay_interval(WILL_DELAY));
    let options = site.options("gone", Session::Fresh, None).will(will);
    let gone = site.world.client(options).await;
    look(&gone, seen);
    let last = Properties::new()
        .session_expiry_interval(60)
        .reason_string("out of water")
        .user_property("level", "0");
    gone.disconnect_with(Reason::DISCONNECT_WITH_WILL, last)
        .await
        .expect("it leaves");
}

/// Whether the will has come, or comes. To a client whose credential does not expire meanwhile: what a
/// mosquitto (up to 2.1) is to pass on in the middle of a re-authentication, it keeps until it next has
/// something for that client.
async fn expect_the_will(site: &Site<'_>, seen: &mut Seen) {
    let heir = site.client("heir", Session::Fresh, None).await;
    let mut stream = heir
        .subscribe(WILL, Qos::AtLeastOnce, Wait::Ack)
        .await
        .expect("granted");
    let will = next(&mut stream).await;
    assert_eq!((will.topic(), will.text()), (WILL, Some("gone")));
    check(&will, seen);
    assert_eq!(
        will.property_list().will_delay_interval(),
        None,
        "it is over"
    );
    heir.disconnect().await.expect("nothing stays");
}

async fn be_named_by_the_broker(site: &Site<'_>, seen: &mut Seen) {
    let nameless = site.client("", Session::None, None).await;
    look(&nameless, seen);
    let said = nameless.server_properties().expect("it is connected");
    let name = said.list().assigned_client_identifier();
    assert_eq!(name, Some(nameless.client_id().as_str()));
    nameless.disconnect().await.expect("nothing stays");
}

/// SUBSCRIBE, PUBLISH at each QoS and under an alias, an answer, UNSUBSCRIBE.
async fn exchange_messages(client: &Client, seen: &mut Seen) {
    let filters = Filters::new("every/property/that/#", Qos::ExactlyOnce)
        .identifier(IDENTIFIER)
        .acknowledge(Acknowledge::ByHand)
        .properties(Properties::new().user_property("why", "test"));
    let mut stream = client
        .subscribe_many(filters, Wait::Ack)
        .await
        .expect("granted");
    note(stream.properties_of("every/property/that/#"), seen);
    let mut answers = client
        .subscribe(ANSWERS, Qos::AtLeastOnce, Wait::Ack)
        .await
        .expect("granted");
    for qos in QUALITIES {
        let text = format!("{qos:?}");
        let message = Message::new(TOPIC, text.as_str())
            .qos(qos)
            .properties(properties());
        let published = client
            .publish_message(message, Wait::Ack)
            .await
            .expect("acknowledged");
        note(published.properties(), seen);
        let message = next(&mut stream).await;
        assert_eq!(message.topic(), TOPIC);
        assert_eq!(message.text(), Some(text.as_str()));
        assert_eq!(message.quality_of_service(), qos);
        check(&message, seen);
        let identifiers: Vec<_> = message.property_list().subscription_identifiers().collect();
        assert_eq!(identifiers, [IDENTIFIER]);

        if qos != Qos::AtMostOnce {
            let said = Properties::new()
                .reason_string("it is here")
                .user_property("shelf", "3");
            message.acknowledge_with(&said).expect("once");
        }
        let asked = message.property_list();
        let answer = Properties::new().correlation_data(asked.correlation_data().expect("it came"));
        let answer =
            Message::new(asked.response_topic().expect("it came"), "yes").properties(answer);
        client
            .publish_message(answer, Wait::Ack)
            .await
            .expect("acknowledged");
        let answer = next(&mut answers).await;
        let correlation = answer.property_list().correlation_data();
        assert_eq!(correlation, asked.correlation_data());
    }
    let unsubscribed = client
        .unsubscribe_many(
            ["every/property/that/#"],
            Properties::new().user_property("why", "test"),
            Wait::Ack,
        )
        .await
        .expect("unsubscribed");
    note(unsubscribed.properties(), seen);
}

async fn reauthenticated(events: &mut Events) {
    let event = events.next().await;
    assert!(matches!(event, Some(Event::Reauthenticated)), "{event:?}");
}

/// A session that is lengthened when its client leaves is there when the client comes back, and gone
/// once it was to end.
async fn change_the_session_expiry(site: &Site<'_>, client: Client) {
    let id = client.client_id();
    let mut leaving = client;
    for (seconds, kept) in [(3600, true), (0, false)] {
        let properties = Properties::new()
            .session_expiry_interval(seconds)
            .reason_string("for today")
            .user_property("back", "tomorrow");
        leaving
            .disconnect_with(Reason::SUCCESS, properties)
            .await
            .expect("it leaves");
        let device = site.world.device(site.options(&id, Session::Resume, None));
        let mut events = device.client.events();
        assert_eq!(
            next_connection(&mut events).await,
            kept,
            "after {seconds} s"
        );
        device.driver.detach();
        leaving = device.client;
    }
    leaving.disconnect().await.expect("nothing stays");
}

/// An authenticator that puts a user property, and where it may stand a reason string, into each of its packets.
struct Remarking {
    inner: Box<dyn Authenticator>,
}

struct RemarkingExchange {
    inner: Box<dyn Exchange>,
}

impl Authenticator for Remarking {
    fn method(&self) -> &str {
        self.inner.method()
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async {
            let (step, inner) = self.inner.start(occasion).await?;
            let exchange: Box<dyn Exchange> = Box::new(RemarkingExchange { inner });
            let step = step.user_property("step", "first");
            Ok((step.reason_string("it is time"), exchange))
        })
    }
}

impl Exchange for RemarkingExchange {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        Box::pin(async move {
            let step = self.inner.proceed(server).await?;
            let step = step.user_property("step", "further");
            Ok(step.reason_string("as asked"))
        })
    }

    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        self.inner.finish(server)
    }
}
