//! Publishes through a proxy.
//!
//! ```text
//! cargo run --example proxy                                 with a local proxy and broker; ends by itself
//! cargo run --example proxy -- mqtt://host:port             through the proxy that the environment names
//! cargo run --example proxy -- mqtt://host:port http://user:password@proxy:3128
//! cargo run --example proxy -- mqtt://host:port socks5://proxy:1080
//! ```

#[path = "local/proxy.rs"]
mod local;
#[path = "local/relay.rs"]
mod relay;

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Proxy, Qos, Wait, block_on};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, proxy) = match (arguments.next(), arguments.next()) {
        (Some(url), Some(proxy)) => (url, Proxy::parse(&proxy)?),
        // `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`; without them it connects directly.
        (Some(url), None) => (url, Proxy::from_environment()?),
        (None, _) => {
            let server = Server::bind(BrokerOptions::new())?;
            executor.spawn(server.run()).detach();
            let port = local::listen(executor)?;
            (
                server.url(),
                Proxy::parse(&format!("http://localhost:{port}"))?,
            )
        }
    };
    let options = Options::new(&url, "")?
        .proxy(proxy)
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
    println!("published: {}", published.reason());
    client.disconnect().await
}
