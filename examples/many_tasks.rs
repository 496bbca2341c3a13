//! Several tasks on one thread share their state without a lock: a heating that is set by message.
//!
//! ```text
//! cargo run --example many_tasks                         with the test kit's broker
//! cargo run --example many_tasks -- mqtt://host:port     with that broker
//! ```

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use async_io::Timer;
use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Qos, Subscription, Wait, block_on};
use futures_lite::future;

/// A temperature that several tasks use. `Cell` is enough: no other thread can see it.
type Degrees = Rc<Cell<f64>>;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = LocalExecutor::new();
    block_on(executor.run(example(&executor)))
}

async fn example(executor: &LocalExecutor<'_>) -> Result<(), Box<dyn Error>> {
    // Somebody to talk to if the command line names nobody.
    let server = Server::bind(BrokerOptions::new())?;
    executor.spawn(server.run()).detach();
    let url = std::env::args().nth(1).unwrap_or_else(|| server.url());
    let options = Options::new(&url, "")?.give_up_when(|_error, failed| failed > 2);
    let (client, driver) = Client::new(options);
    let wanted = Degrees::new(Cell::new(17.0));
    let measured = Degrees::new(Cell::new(17.0));
    let house = async {
        let orders = client
            .subscribe("house/hall/set", Qos::AtLeastOnce, Wait::Ack)
            .await?;
        // A task that is not detached ends when its handle is dropped, as these do below.
        let _obeying = executor.spawn(obey(orders, Rc::clone(&wanted)));
        let _heating = executor.spawn(heat(Rc::clone(&wanted), Rc::clone(&measured)));
        client
            .publish("house/hall/set", "20.5", Qos::AtLeastOnce, Wait::Ack)
            .await?;
        for _ in 0..10 {
            Timer::after(Duration::from_millis(100)).await;
            let text = format!("{:.1}, wanted {:.1}", measured.get(), wanted.get());
            println!("house/hall/temp: {text}");
            client
                .publish("house/hall/temp", text, Qos::AtMostOnce, Wait::Sent)
                .await?;
        }
        client.disconnect().await
    };
    future::try_zip(driver.run(), house).await?;
    Ok(())
}

/// Does what the messages say.
async fn obey(mut orders: Subscription, wanted: Degrees) {
    while let Some(order) = orders.next().await {
        match order.text().and_then(|text| text.parse().ok()) {
            Some(degrees) => wanted.set(degrees),
            None => eprintln!("not a temperature: {:?}", order.payload()),
        }
    }
}

/// Brings the room to what is wanted, half a degree at a time.
async fn heat(wanted: Degrees, measured: Degrees) {
    loop {
        Timer::after(Duration::from_millis(80)).await;
        let missing = wanted.get() - measured.get();
        measured.set(measured.get() + missing.clamp(-0.5, 0.5));
    }
}
