//! Asks, and answers: a thermometer that is asked for its temperature, and a display that asks. Both sides
//! are in this program; on the wire they are two clients.
//!
//! ```text
//! cargo run --example request                         with the test kit's broker
//! cargo run --example request -- mqtt://host:port     with that broker
//! ```

use std::error::Error;
use std::time::Duration;

use async_io::Timer;
use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Qos, Request, Wait, block_on};
use futures_lite::future;

const PATIENCE: Duration = Duration::from_secs(5);

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
    let (thermometer, serving) = Client::new(options.clone());
    let (display, asking) = Client::new(options);
    let work = work(executor, thermometer, display);
    future::try_zip(future::try_zip(serving.run(), asking.run()), work).await?;
    Ok(())
}

async fn work(
    executor: &LocalExecutor<'_>,
    thermometer: Client,
    display: Client,
) -> coracle::Result<()> {
    // What is known at once is answered by a handler.
    let _at_once = thermometer
        .serve(
            ("house/hall/unit", Qos::AtMostOnce),
            |_request| "degrees",
            Wait::Ack,
        )
        .await?;
    // What takes a while is answered by a task for each request.
    let mut later = thermometer
        .requests(("house/+/temp/get", Qos::AtMostOnce), Wait::Ack)
        .await?;
    let measuring = async {
        while let Some(request) = later.next().await {
            executor.spawn(measure(request)).detach();
        }
        Ok(())
    };
    let asking = async {
        let unit = display.request("house/hall/unit", "", PATIENCE).await?;
        // All three are under way at the same time.
        let rooms = ["hall", "kitchen", "attic"];
        let waits = rooms.map(|room| {
            let topic = format!("house/{room}/temp/get");
            (room, display.request(&topic, "", PATIENCE))
        });
        for (room, wait) in waits {
            let answer = wait.await?;
            println!(
                "{room}: {} {}",
                answer.text().unwrap_or_default(),
                unit.text().unwrap_or_default()
            );
        }
        let unknown = display.request("house/cellar/light", "", Duration::from_millis(300));
        match unknown.await {
            Ok(_) => println!("somebody serves the light in the cellar"),
            Err(error) => println!("the light in the cellar: {error}"),
        }
        display.disconnect().await?;
        // Ends the stream, too.
        thermometer.disconnect().await
    };
    future::try_zip(measuring, asking).await?;
    Ok(())
}

async fn measure(request: Request) -> coracle::Result<()> {
    let degrees = match request.topic() {
        "house/attic/temp/get" => 24.0,
        "house/kitchen/temp/get" => 21.5,
        _ => 19.0,
    };
    Timer::after(Duration::from_millis(100)).await;
    request.respond(format!("{degrees:.1}"), Wait::None).await?;
    Ok(())
}
