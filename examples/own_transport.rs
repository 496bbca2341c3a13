//! Brings a transport of its own: MQTT over a line with a gateway at its other end, as a device does that
//! reaches the network by a serial port.
//!
//! ```text
//! cargo run --example own_transport              with a line inside of the process; ends by itself
//! ```
//!
//! A real line is opened like a file, for example with `Async::new(File::open("/dev/ttyS1")?)`.

#[path = "local/relay.rs"]
mod relay;

use std::error::Error;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use async_io::Async;
use coracle::testkit::{BrokerOptions, Server};
use coracle::{
    BoxedTransport, Client, Connector, Endpoint, LocalBoxFuture, LocalExecutor, Options, Qos, Wait,
    block_on,
};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = Rc::new(LocalExecutor::new());
    block_on(executor.run(example(Rc::clone(&executor))))
}

/// Opens the line. It is asked anew for each attempt.
struct Line {
    server: Server,
    executor: Rc<LocalExecutor<'static>>,
}

impl Connector for Line {
    fn connect(&self, endpoint: &Endpoint) -> LocalBoxFuture<io::Result<BoxedTransport>> {
        println!("the line is opened for {endpoint}");
        let (broker, executor) = (self.server.address(), Rc::clone(&self.executor));
        Box::pin(async move {
            // Whatever reads and writes bytes in order is a transport.
            let (near, far) = UnixStream::pair()?;
            let gateway = relay::relay(Async::new(far)?, broker);
            executor.spawn(gateway).detach();
            Ok(Box::pin(Async::new(near)?) as BoxedTransport)
        })
    }
}

async fn example(executor: Rc<LocalExecutor<'static>>) -> Result<(), Box<dyn Error>> {
    let server = Server::bind(BrokerOptions::new())?;
    executor.spawn(server.run()).detach();
    let line = Line { server, executor };
    // The connector decides what host and port mean; here they only name the line.
    let options = Options::new("mqtt://serial-line", "pump-1")?
        .connector(line)
        // For an example, which is to end. A device leaves this out and tries for ever.
        .give_up_when(|_error, _failed| true);
    let (client, driver) = Client::new(options);
    future::try_zip(driver.run(), talk(client)).await?;
    Ok(())
}

async fn talk(client: Client) -> coracle::Result<()> {
    let mut own = client
        .subscribe("line/#", Qos::AtLeastOnce, Wait::Ack)
        .await?;
    client
        .publish("line/test", "hello", Qos::ExactlyOnce, Wait::Ack)
        .await?;
    if let Some(message) = own.next().await {
        println!("{}: {:?}", message.topic(), message.text());
    }
    client.disconnect().await
}
