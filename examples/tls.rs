//! Publishes over TLS with a client certificate and ALPN.
//!
//! ```text
//! cargo run --example tls                        with a local broker behind TLS; ends by itself
//! cargo run --example tls -- mqtts://host:port ca.pem [cert.pem key.pem [alpn]]
//! ```

#[path = "local/relay.rs"]
mod relay;
#[path = "local/tls.rs"]
mod tls;

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Qos, Tls, Wait, block_on};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, settings) = if let [url, authority, rest @ ..] = arguments.as_slice() {
        // Files are read again at each attempt, so they can be replaced while the program runs.
        let settings = Tls::new().roots_file(authority);
        let settings = match rest {
            [certificate, key, ..] => settings.client_certificate_files(certificate, key),
            _ => settings,
        };
        (url.clone(), settings.alpn(rest.get(2).map(String::as_str)))
    } else {
        let server = Server::bind(BrokerOptions::new())?;
        executor.spawn(server.run()).detach();
        let (port, papers) = tls::listen(executor, server.address(), "mqtt")?;
        let settings = Tls::new()
            .roots(papers.authority)
            .client_certificate(papers.certificate, papers.key)
            .alpn(["mqtt"]);
        (format!("mqtts://localhost:{port}"), settings)
    };
    let options = Options::new(&url, "")?
        .tls(settings)
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
        println!("{endpoint}: {}", published.reason());
    }
    client.disconnect().await
}
