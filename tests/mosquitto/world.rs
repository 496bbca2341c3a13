//! What all tests here share: one thread with a time limit, clients on it, and patience.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use coracle::{
    Client, Event, Events, LocalExecutor, Message, Options, Result, Subscription, Version,
};
use smol::{Task, Timer, future};

use crate::broker::Broker;

/// The versions that mosquitto speaks, and so do we.
pub(crate) const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];

/// How long one test may take before it counts as stuck: the longest takes some 30 s on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long an attempt may take: longer than a machine with other work stands still.
const ATTEMPT: Duration = Duration::from_secs(20);

/// The one thread of a test.
#[derive(Debug, Clone)]
pub(crate) struct World {
    executor: Rc<LocalExecutor<'static>>,
}

/// Runs a test to its end, or fails it when it is stuck.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_within(PATIENCE, test);
}

/// The same for a test that takes longer.
pub(crate) fn run_within<F: Future<Output = ()>>(
    patience: Duration,
    test: impl FnOnce(World) -> F,
) {
    let executor = Rc::new(LocalExecutor::new());
    let world = World {
        executor: Rc::clone(&executor),
    };
    let stuck = async {
        Timer::after(patience).await;
        panic!("the test is stuck");
    };
    coracle::block_on(executor.run(future::or(test(world), stuck)));
}

/// A client and the task of its driver.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) driver: Task<Result<()>>,
}

impl World {
    /// Makes a client and lets its driver run.
    pub(crate) fn device(&self, options: Options) -> Device {
        let (client, driver) = Client::new(options);
        let driver = self.spawn(driver.run());
        Device { client, driver }
    }

    /// The same, and waits until it is connected.
    pub(crate) async fn connected(&self, options: Options) -> Device {
        let device = self.device(options);
        device.client.connected().await.expect("a connection");
        device
    }

    /// Makes a client that is connected and that lives as long as its handles.
    pub(crate) async fn client(&self, options: Options) -> Client {
        let device = self.connected(options).await;
        device.driver.detach();
        device.client
    }

    /// Runs a task beside the test.
    pub(crate) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.executor.spawn(task)
    }
}

impl Device {
    /// Ends the client like a crash: the socket is closed without DISCONNECT.
    pub(crate) async fn crash(self) {
        self.driver.cancel().await;
    }
}

/// Options for a client of this broker that tries again quickly.
pub(crate) fn options(broker: &Broker, version: Version, client_id: &str) -> Options {
    options_at(&broker.url(), version, client_id)
}

/// The same for what is reached by this URL.
pub(crate) fn options_at(url: &str, version: Version, client_id: &str) -> Options {
    Options::new(url, client_id)
        .expect("the URL of a broker")
        .version(version)
        .retry_delays(Duration::from_millis(5), Duration::from_millis(40))
        .connect_timeout(ATTEMPT)
        .connack_timeout(ATTEMPT)
}

/// The next message of a stream that has not ended.
pub(crate) async fn next(stream: &mut Subscription) -> Message {
    match stream.next().await {
        Some(message) => message,
        None => panic!("the stream has ended: {:?}", stream.error()),
    }
}

/// The next connection among these events: whether the broker still had the session.
pub(crate) async fn next_connection(events: &mut Events) -> bool {
    while let Some(event) = events.next().await {
        if let Event::Connected { session_present } = event {
            return session_present;
        }
    }
    panic!("the client is closed");
}
