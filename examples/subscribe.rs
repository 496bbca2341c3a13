//! Subscribes to a filter and prints what arrives.
//!
//! ```text
//! cargo run --example subscribe                                 with the test kit's broker; ends by itself
//! cargo run --example subscribe -- mqtt://host:port [filter]    with that broker; until Ctrl-C
//! ```

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Message, Options, Qos, Wait, block_on};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    // Somebody to talk to if the command line names nobody.
    let server = Server::bind(BrokerOptions::new())?;
    executor.spawn(server.run()).detach();
    let mut arguments = std::env::args().skip(1);
    let named = arguments.next();
    let filter = arguments.next().unwrap_or_else(|| "house/#".into());
    let limit = named
        .as_ref()
        .map_or_else(|| play_the_house(&server), |_| usize::MAX);
    let options = Options::new(&named.unwrap_or_else(|| server.url()), "")?
        // Asked after each failure; a lost connection counts as failure number 0.
        .give_up_when(|error, failed| {
            eprintln!("{error}");
            error.is_permanent() || failed >= 5
        });
    let (client, driver) = Client::new(options);
    future::try_zip(driver.run(), subscribe(client, &filter, limit)).await?;
    Ok(())
}

async fn subscribe(client: Client, filter: &str, limit: usize) -> coracle::Result<()> {
    let mut messages = client
        .subscribe(filter, Qos::AtLeastOnce, Wait::Ack)
        .await?;
    for (filter, granted) in messages.granted() {
        println!("subscribed to {filter}: {granted}");
    }
    for _ in 0..limit {
        // An end has a reason, for example that the broker refused the filter after a reconnect.
        let Some(message) = messages.next().await else {
            return messages.error().map_or(Ok(()), Err);
        };
        let text = message.text().unwrap_or("(not text)");
        let (topic, qos) = (message.topic(), message.quality_of_service());
        let retained = message.is_retained();
        println!("{topic}: {text} ({qos}, retained: {retained})");
    }
    client.disconnect().await
}

/// Leaves messages with the test kit's broker. Returns how many.
fn play_the_house(server: &Server) -> usize {
    let rooms = [("hall", "21.4"), ("attic", "17.9"), ("cellar", "12.0")];
    for (room, degrees) in rooms {
        let message = Message::new(format!("house/{room}/temp"), degrees).retain(true);
        server.with(|broker, now| broker.publish(now, &message));
    }
    rooms.len()
}
