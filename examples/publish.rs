//! Publishes one message at each QoS and says what became of it.
//!
//! ```text
//! cargo run --example publish                                       with the test kit's broker
//! cargo run --example publish -- mqtt://host:port [topic [text]]    with that broker
//! ```

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Qos, Wait, block_on};
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
    let url = arguments.next().unwrap_or_else(|| server.url());
    let topic = arguments.next().unwrap_or_else(|| "house/hall/temp".into());
    let text = arguments.next().unwrap_or_else(|| "21.4".into());

    // A client tries for ever unless told otherwise: right for a device, wrong for a command.
    let options = Options::new(&url, "")?.give_up_when(|_error, _failed| true);
    let (client, driver) = Client::new(options);
    // Both run until both are done, or until one of them fails.
    future::try_zip(driver.run(), publish(client, &topic, &text)).await?;
    Ok(())
}

async fn publish(client: Client, topic: &str, text: &str) -> coracle::Result<()> {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let published = client.publish(topic, text, qos, Wait::Ack).await?;
        println!("{topic}: {text}, {qos}: {}", published.reason());
    }
    client.disconnect().await
}
