//! Loses its connection at work and carries on; prints the events meanwhile.
//!
//! ```text
//! cargo run --example reconnect                         the test kit's broker goes down and comes up again
//! cargo run --example reconnect -- mqtt://host:port     that broker is left and joined again
//! ```

use std::error::Error;
use std::time::Duration;

use async_io::Timer;
use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, Event, LocalExecutor, Options, Qos, Wait, block_on};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    // Somebody to talk to if the command line names nobody.
    let server = Server::bind(BrokerOptions::new())?;
    executor.spawn(server.run()).detach();
    let named = std::env::args().nth(1);
    let url = named.clone().unwrap_or_else(|| server.url());
    let options = Options::new(&url, "meter-3")?
        .retry_delays(Duration::from_millis(200), Duration::from_secs(30))
        // Asked before each attempt: the place for a token that expires.
        .before_connect(|attempt| Box::pin(async { Ok(attempt.credentials("meter", "token")) }))
        .give_up_when(|error, failed| error.is_permanent() || failed >= 20);
    let (client, driver) = Client::new(options);
    let _telling = executor.spawn(tell(client.clone()));

    let work = async {
        client
            .publish("meters/3", "1", Qos::ExactlyOnce, Wait::Ack)
            .await?;
        println!("message 1 is confirmed");
        match named {
            None => server.go_down(),
            Some(_) => client.reconnect()?,
        }
        // Accepted at once, link or no link; its wait goes on across the reconnect.
        let second = client.publish("meters/3", "2", Qos::ExactlyOnce, Wait::Ack);
        println!("message 2 is accepted");
        Timer::after(Duration::from_millis(500)).await;
        server.come_up()?;
        second.await?;
        println!("message 2 is confirmed");
        client.disconnect().await?;
        Ok(())
    };
    future::try_zip(async { Ok(driver.run().await?) }, work)
        .await
        .map(|_| ())
}

async fn tell(client: Client) {
    let mut events = client.events();
    while let Some(event) = events.next().await {
        match event {
            Event::Connected { session_present } => {
                println!("  connected, session present: {session_present}");
            }
            Event::Disconnected { error, .. } => println!("  disconnected: {error}"),
            Event::ConnectFailed { error, .. } => println!("  not connected: {error}"),
            other => println!("  {other:?}"),
        }
    }
}
