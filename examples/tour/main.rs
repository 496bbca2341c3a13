//! The whole story of an MQTT client, told by a program that really does it.
//!
//! ```text
//! cargo run --release --example tour                          starts the test kit's broker and uses it
//! cargo run --release --example tour -- mqtt://host:port      uses that broker
//! cargo run --release --example tour -- mqtt://host:port 3.1.1     … and speaks 3.1, 3.1.1 or 5.0
//! ```

mod cut;
mod relay;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use coracle::testkit::{BrokerOptions, Server};
use coracle::{Client, LocalExecutor, Options, Version, block_on};
use futures_lite::future;

use story::{Outcome, Tour};

fn main() -> ExitCode {
    let executor = LocalExecutor::new();
    match block_on(executor.run(tour(&executor))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe tour ends here: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn tour(executor: &LocalExecutor<'static>) -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let named = arguments.next();
    let version = match arguments.next().as_deref() {
        None | Some("5.0" | "5") => Version::V5_0,
        Some("3.1.1") => Version::V3_1_1,
        Some("3.1") => Version::V3_1,
        Some(other) => return Err(format!("{other:?} is no version: 3.1, 3.1.1 or 5.0").into()),
    };
    let (url, whose) = match named {
        Some(url) => (url, "the broker you named"),
        None => {
            let server = Server::bind(BrokerOptions::new())?;
            executor.spawn(server.run()).detach();
            (server.url(), "the test kit's broker, in this process")
        }
    };
    println!("Coracle's tour: MQTT {version} with {url} ({whose})");

    // Short, because MQTT 3.1 allows 23 characters.
    let name = format!("tour-{}", std::process::id());
    let (client, driver) = Client::new(options(&url, &name, version)?);
    let tour = Tour {
        executor,
        client,
        url,
        name,
        version,
    };
    // Ends at the first error: if the driver gives up, its error tells more than the waits it ends.
    let driver = async { Ok(driver.run().await?) };
    future::try_zip(driver, tour.tell()).await?;
    Ok(())
}

/// A tourist does not wait for ever: three failed attempts are enough.
pub(crate) fn options(url: &str, client_id: &str, version: Version) -> coracle::Result<Options> {
    let options = Options::new(url, client_id)?
        .version(version)
        .retry_delays(Duration::from_millis(100), Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(5))
        .give_up_when(|error, failed| error.is_permanent() || failed >= 3);
    Ok(options)
}
