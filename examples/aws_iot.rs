//! Connects as a device of AWS IoT Core does: TLS on port 443 with the ALPN name `x-amzn-mqtt-ca`, which
//! gets through firewalls that let out nothing but HTTPS.
//!
//! ```text
//! cargo run --example aws_iot                    against a local listener that insists on that name
//! cargo run --example aws_iot -- ID-ats.iot.REGION.amazonaws.com thing cert.pem key.pem
//! ```

#[path = "local/relay.rs"]
mod relay;
#[path = "local/tls.rs"]
mod tls;

use std::error::Error;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Message, Options, Qos, Tls, Wait, block_on};
use futures_lite::future;

/// How AWS tells MQTT with client certificates from the other protocols on port 443.
const ALPN: &str = "x-amzn-mqtt-ca";

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, thing, settings) = if let [host, thing, certificate, key] = arguments.as_slice() {
        // Amazon's authorities are among those that are built in.
        let settings = Tls::new().client_certificate_files(certificate, key);
        (format!("mqtts://{host}:443"), thing.clone(), settings)
    } else {
        let server = Server::bind(BrokerOptions::new())?;
        executor.spawn(server.run()).detach();
        let (port, papers) = tls::listen(executor, server.address(), ALPN)?;
        let settings = Tls::new()
            .roots(papers.authority)
            .client_certificate(papers.certificate, papers.key);
        let url = format!("mqtts://localhost:{port}");
        (url, "pump-1".to_owned(), settings)
    };
    let options = Options::new(&url, &thing)?
        .tls(settings.alpn([ALPN]))
        // AWS closes the connection over QoS 2.
        .maximum_qos(Qos::AtLeastOnce)
        // For an example, which is to end. A device leaves this out and tries for ever.
        .give_up_when(|_error, _failed| true);
    let (client, driver) = Client::new(options);
    future::try_zip(driver.run(), report(client, &thing)).await?;
    Ok(())
}

/// Reports a state to the shadow of the thing, and waits for the answer if there is a cloud to answer.
async fn report(client: Client, thing: &str) -> coracle::Result<()> {
    let topic = format!("$aws/things/{thing}/shadow/update");
    let state = r#"{"state":{"reported":{"pump":"on"}}}"#;
    let message = Message::new(topic, state).qos(Qos::AtLeastOnce);
    let published = client.publish_message(message, Wait::Ack).await?;
    if let Some(endpoint) = client.endpoint() {
        println!("{endpoint}: {}", published.reason());
    }
    client.disconnect().await
}
