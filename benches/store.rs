//! What a store costs: publishes of QoS 1 and 2 over loopback, without one, with one in memory, and with one
//! in a file that is on disk before a message leaves: `cargo bench --bench store`.
//!
//! ```text
//! cargo bench --bench store                       the file in the directory for temporary files
//! cargo bench --bench store -- /path/of/a/disk    there: a file in memory is no disk
//! ```
//!
//! The broker is that of the test kit, on a thread of its own. `stream` is how many messages a second are
//! acknowledged when as many as fit are under way; `one` is how long one takes from the call to its
//! acknowledgement. The figures of one run may be compared with each other; those of two machines may not.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{env, fs, process, sync::mpsc, thread};

use coracle::testkit::{BrokerOptions, MemoryStore, Recording, Server};
use coracle::{Client, ErrorKind, LocalExecutor, Options, Qos, Result, Wait, block_on};
use futures_lite::future;

const PAYLOAD: [u8; 64] = [7; 64];

/// Messages in a row, and one after the other.
const STREAM: usize = 50_000;
const ONES: usize = 200;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Where the session is kept.
#[derive(Debug, Clone, Copy)]
enum Place {
    Nowhere,
    Memory,
    #[cfg(feature = "store")]
    File,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Nowhere => "no store",
            Self::Memory => "in memory",
            #[cfg(feature = "store")]
            Self::File => "in a file",
        }
    }

    fn put(self, options: Options, path: &Path) -> Options {
        match self {
            Self::Nowhere => options,
            Self::Memory => options.store(MemoryStore::new()),
            #[cfg(feature = "store")]
            Self::File => {
                let store = coracle::FileStore::open(path).expect("the file can be made");
                options.store(store)
            }
        }
    }
}

fn main() -> Result<()> {
    // `cargo bench` adds an option of its own.
    let given = env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let directory = given.map_or_else(env::temp_dir, PathBuf::from);
    let (told, address) = mpsc::channel();
    thread::spawn(move || {
        let server = Server::bind(BrokerOptions::new().recording(Recording::Counts));
        let server = server.expect("a port of loopback is free");
        told.send(server.url()).expect("somebody waits for it");
        block_on(server.run())
    });
    let url = address.recv().expect("the thread has begun");
    let mut places = vec![Place::Nowhere, Place::Memory];
    #[cfg(feature = "store")]
    places.push(Place::File);
    println!("             QoS 1: stream          one    QoS 2: stream          one");
    for place in places {
        let mut line = format!("{:12}", place.name());
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let path = directory.join(format!("coracle-bench-{}", process::id()));
            let options = Options::new(&url, "bench")?.drain_timeout(Duration::from_secs(60));
            let (stream, one) = measure(place.put(options, &path), qos)?;
            // Of the others there is none.
            let _ = fs::remove_file(&path);
            line += &format!(" {stream:>12.0}/s {:>9.0} µs", one.as_secs_f64() * 1e6);
        }
        println!("{line}");
    }
    Ok(())
}

/// Messages a second, and the median time of one.
fn measure(options: Options, qos: Qos) -> Result<(f64, Duration)> {
    let executor = Rc::new(LocalExecutor::new());
    block_on(executor.run(async {
        let (client, driver) = Client::new(options);
        let running = executor.spawn(driver.run());
        client.connected().await?;
        let mut ones = Vec::with_capacity(ONES);
        for _ in 0..ONES {
            let begun = now();
            client.publish("bench", &PAYLOAD, qos, Wait::Ack).await?;
            ones.push(begun.elapsed());
        }
        ones.sort_unstable();
        let begun = now();
        for _ in 0..STREAM {
            while let Err(error) = client.publish("bench", &PAYLOAD, qos, Wait::None).await {
                if !matches!(error.kind(), ErrorKind::QueueFull) {
                    return Err(error);
                }
                client.ready().await?;
            }
            // The driver has its turns as it would in a program of several tasks.
            if fastrand::u8(..) == 0 {
                future::yield_now().await;
            }
        }
        client.disconnect().await?;
        let took = begun.elapsed();
        running.await?;
        Ok((STREAM as f64 / took.as_secs_f64(), ones[ONES / 2]))
    }))
}
