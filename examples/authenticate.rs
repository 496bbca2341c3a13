//! Authenticates in several round trips, in the shape of Kerberos, and again on the live connection; then
//! meets a broker that only pretends.
//!
//! ```text
//! cargo run --example authenticate
//! ```
//!
//! The shape is that of RFC 4752: a ticket and an authenticator go to the server, which proves that it could
//! read them; an empty answer; an offer of the server and the choice of the client. The cryptography is a
//! toy of one line. In a real program it is a call of a GSSAPI library; such calls may take time, and each
//! step here may wait for them.

use std::error::Error;
use std::time::Duration;

use async_io::Timer;
use coracle::testkit::{AuthReply, BrokerOptions, Server};
use coracle::{
    AuthFuture, AuthStep, Authenticator, Client, Event, Exchange, LocalExecutor, Occasion, Options,
    PropertyList, Qos, Reason, Wait, block_on,
};
use futures_lite::future;

/// The key that the key distribution centre has put into the ticket, and told the client.
const SESSION_KEY: u8 = 0x5A;

/// The client's side.
struct Kerberos {
    principal: String,
}

/// One exchange of it: which token of the server is due.
enum Step {
    /// The proof that the server could read our ticket: our timestamp, sealed.
    Proof { timestamp: String },
    /// What it offers: a layer of protection.
    Offer,
    /// Nothing but its success.
    Success,
}

impl Authenticator for Kerberos {
    fn method(&self) -> &str {
        "GSSAPI"
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async move {
            let what = if occasion.is_renewal() {
                "again"
            } else {
                "for CONNECT"
            };
            println!("  client: asks for a ticket for the broker, {what}");
            // The key distribution centre takes its time; the thread goes on meanwhile.
            Timer::after(Duration::from_millis(20)).await;
            let timestamp = occasion.unix_time().as_millis().to_string();
            let token = format!("ticket of {}\n{timestamp}", self.principal);
            let exchange: Box<dyn Exchange> = Box::new(Step::Proof { timestamp });
            Ok((AuthStep::new().data(seal(token.as_bytes())), exchange))
        })
    }
}

impl Exchange for Step {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        Box::pin(async move {
            let token = seal(server.authentication_data().unwrap_or_default());
            match std::mem::replace(self, Self::Success) {
                Self::Proof { timestamp } if token == timestamp.as_bytes() => {
                    println!("  client: the broker could read the ticket");
                    *self = Self::Offer;
                    Ok(AuthStep::new())
                }
                Self::Proof { .. } => Err(coracle::Error::unproven("it cannot read the ticket")),
                Self::Offer if token == b"none, integrity" => {
                    println!("  client: needs no layer of protection, as there is TLS");
                    Ok(AuthStep::new().data(seal(b"none")))
                }
                Self::Offer => Err(coracle::Error::unproven("it offers nothing")),
                Self::Success => Err(coracle::Error::unproven("it asks for too much")),
            }
        })
    }

    fn finish<'a>(&'a mut self, _: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        Box::pin(async move {
            match self {
                // The driver authenticates again by itself after this time.
                Self::Success => Ok(Some(Duration::from_millis(300))),
                Self::Proof { .. } | Self::Offer => {
                    Err(coracle::Error::unproven("it skipped its proof"))
                }
            }
        })
    }
}

/// The toy: whoever has the key can seal and open.
fn seal(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ SESSION_KEY).collect()
}

/// The broker's side of one exchange.
fn acceptor() -> impl FnMut(&[u8]) -> AuthReply {
    let mut round = 0;
    move |data: &[u8]| {
        round += 1;
        let token = String::from_utf8(seal(data)).unwrap_or_default();
        match (round, token.split_once('\n')) {
            (1, Some((ticket, timestamp))) if ticket.starts_with("ticket of ") => {
                println!("  broker: got the {ticket}");
                AuthReply::Challenge(seal(timestamp.as_bytes()))
            }
            (2, None) if token.is_empty() => AuthReply::Challenge(seal(b"none, integrity")),
            (3, None) if token == "none" => AuthReply::Accept(Vec::new()),
            _ => AuthReply::Refuse(Reason::NOT_AUTHORIZED),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(async {
        honest(&executor).await?;
        impostor(&executor).await
    }))
}

async fn honest(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    println!("a broker that knows the key:");
    let server = Server::bind(BrokerOptions::new().play_authentication("GSSAPI", acceptor))?;
    let serving = executor.spawn(server.run());
    let (client, driver) = Client::new(options(&server.url())?);
    let mut events = client.events();
    let work = async {
        client
            .publish("meters/3", "1", Qos::AtLeastOnce, Wait::Ack)
            .await?;
        println!("a message is confirmed; now the same again on the live connection:");
        client.reauthenticate().await?;
        println!("and once more, by itself, because the ticket is about to expire:");
        let mut renewed = 0;
        while renewed < 2 {
            match events.next().await {
                Some(Event::Reauthenticated) => renewed += 1,
                Some(Event::Connected { .. }) => {}
                other => {
                    let error: Box<dyn Error> = format!("not expected: {other:?}").into();
                    return Err(error);
                }
            }
        }
        client.disconnect().await?;
        Ok(())
    };
    future::try_zip(async { Ok(driver.run().await?) }, work).await?;
    serving.cancel().await;
    Ok(())
}

async fn impostor(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    println!("a broker that does not know it, and says that all is well:");
    let options_of_broker = BrokerOptions::new()
        .play_authentication("GSSAPI", || |_: &[u8]| AuthReply::Accept(Vec::new()));
    let server = Server::bind(options_of_broker)?;
    let serving = executor.spawn(server.run());
    let (client, driver) = Client::new(options(&server.url())?);
    let _kept = client.publish("meters/3", "secret", Qos::AtMostOnce, Wait::Sent);
    let Err(error) = driver.run().await else {
        return Err("the client has believed it".into());
    };
    println!("  {error}");
    let messages = server.with(|broker, _now| broker.messages().len());
    println!("  messages that it got: {messages}");
    serving.cancel().await;
    Ok(())
}

fn options(url: &str) -> coracle::Result<Options> {
    let options = Options::new(url, "meter-3")?
        .authenticator(Kerberos {
            principal: "meter-3@EXAMPLE".into(),
        })
        .give_up_when(|error, failed| error.is_permanent() || failed >= 5);
    Ok(options)
}
