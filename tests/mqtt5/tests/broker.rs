//! A broker of the mqtt5 crate for one test: on a thread, a port and a directory of its own, gone with the
//! test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mqtt5::broker::auth_mechanisms::scram::generate_scram_credential_line_with_iterations;
use mqtt5::broker::config::AuthConfig;
use mqtt5::broker::{
    BrokerConfig, BrokerShutdownHandle, MqttBroker, StorageBackendType, StorageConfig,
};

use crate::ground::Scratch;

/// Who may come in, with which password.
pub(crate) const USER: (&str, &str) = ("pump", "secret");

/// The fewest that RFC 7677 allows; the broker's own default takes a debug build seconds.
const ITERATIONS: u32 = 4096;

/// A broker, running.
pub(crate) struct Broker {
    url: String,
    running: Option<(BrokerShutdownHandle, JoinHandle<()>)>,
    _scratch: Scratch,
}

/// The line of the broker's credential file for a user: name, salt, iterations, stored key, server key.
pub(crate) fn credential(user_name: &str, password: &str) -> String {
    generate_scram_credential_line_with_iterations(user_name, password, ITERATIONS)
        .expect("the system has random numbers")
}

impl Broker {
    /// Starts a broker that lets in by SCRAM who is in this credential file.
    pub(crate) fn with_scram(credentials: &str) -> Self {
        Self::start(credentials, |config| config)
    }

    /// The same with further settings.
    pub(crate) fn start(
        credentials: &str,
        adjust: impl FnOnce(BrokerConfig) -> BrokerConfig + Send + 'static,
    ) -> Self {
        let scratch = Scratch::new();
        let file = scratch.path().join("scram");
        fs::write(&file, credentials).expect("the directory is ours");
        // It would listen on all interfaces and write to the working directory. Without persistence it
        // would keep no session at all; in memory it does.
        let config = BrokerConfig::new()
            .with_bind_address((Ipv4Addr::LOCALHOST, 0))
            .with_auth(
                AuthConfig::new()
                    .with_scram_file(file)
                    .with_allow_anonymous(false),
            )
            .with_storage(
                StorageConfig::new()
                    .with_backend(StorageBackendType::Memory)
                    .with_persistence(true)
                    .with_base_dir(scratch.path().join("storage")),
            );
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || serve(adjust(config), &tell));
        let patience = Duration::from_secs(20);
        let (address, shutdown) = told.recv_timeout(patience).expect("the broker starts");
        Self {
            url: format!("mqtt://{address}"),
            running: Some((shutdown, thread)),
            _scratch: scratch,
        }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }
}

fn serve(config: BrokerConfig, tell: &mpsc::Sender<(SocketAddr, BrokerShutdownHandle)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut broker = MqttBroker::with_config(config).await.expect("settings");
        let address = broker.local_addr().expect("it listens");
        tell.send((address, broker.shutdown_handle()))
            .expect("the test waits for it");
        broker.run().await.expect("it runs until it is shut down");
    });
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((shutdown, thread)) = self.running.take() {
            shutdown.shutdown();
            // Who panicked said so; a second panic would hide it.
            let _ = thread.join();
        }
    }
}
