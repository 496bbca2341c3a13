//! Publishes through a WebSocket whose URL is signed anew at each attempt.
//!
//! ```text
//! cargo run --example websocket                                 with a local broker; ends by itself
//! cargo run --example websocket -- wss://host:port/path         with that broker
//! ```

#[path = "local/websocket.rs"]
mod local;

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Qos, Wait, WebSocket, block_on};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    let url = match std::env::args().nth(1) {
        Some(url) => url,
        None => {
            let server = Server::bind(BrokerOptions::new())?;
            executor.spawn(server.run()).detach();
            let port = local::listen(executor, server.address())?;
            format!("ws://localhost:{port}/mqtt")
        }
    };
    let websocket = WebSocket::new()
        .header("X-Device", "pump-1")
        // Asked before each attempt, so that a signature is never too old.
        .rewrite(|upgrade| {
            Box::pin(async move {
                let signed = format!("{}?signature=of-this-minute", upgrade.target());
                Ok(upgrade.with_target(&signed))
            })
        });
    let options = Options::new(&url, "")?
        .websocket(websocket)
        // For an example, which is to end. A device leaves this out and tries for ever.
        .give_up_when(|_error, _failed| true);
    let (client, driver) = Client::new(options);
    future::try_zip(driver.run(), publish(client)).await?;
    Ok(())
}

async fn publish(client: Client) -> coracle::Result<()> {
    let published = client
        .publish("house/hall/temp", "21.4", Qos::AtLeastOnce, Wait::Ack)
        .await?;
    if let Some(endpoint) = client.endpoint() {
        // Without its query: a signature is nobody's business.
        println!("{endpoint}: {}", published.reason());
    }
    client.disconnect().await
}
