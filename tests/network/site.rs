//! One mosquitto with a listener for each way to reach it.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use crate::broker::{Broker, OPEN};
use crate::pki::{Authority, Identity, write};

/// The ways into a [`Site`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Tcp,
    Tls,
    /// TLS that demands a certificate of the client and takes its name as the user name.
    ClientCertificate,
    WebSocket,
    SecureWebSocket,
    Unix,
}

/// A mosquitto behind several doors.
#[derive(Debug)]
pub(crate) struct Site {
    /// To stop it, to kill it, to start it again and to read its log.
    pub(crate) broker: Broker,
    ports: [u16; 4],
    directory: PathBuf,
}

impl Site {
    /// Lets anyone in, and is `localhost`, 127.0.0.1 and `broker.test`.
    pub(crate) async fn open(authority: &Authority) -> Self {
        let identity = authority.server(&["localhost", "127.0.0.1", "broker.test"]);
        Self::start(OPEN, authority, &identity).await
    }

    /// With settings for all its doors, the authority that clients have their certificates from, and the
    /// certificate of the server.
    pub(crate) async fn start(settings: &str, clients: &Authority, server: &Identity) -> Self {
        let found = Cell::new(([0; 4], PathBuf::new()));
        let broker = Broker::start_at(|directory, ports| {
            found.set((ports, directory.to_owned()));
            write(directory, "clients.pem", clients.root());
            server.write(directory, "server");
            doors(settings, directory, ports)
        })
        .await;
        let (ports, directory) = found.into_inner();
        Self {
            broker,
            ports,
            directory,
        }
    }

    /// Where clients find a door.
    pub(crate) fn url(&self, door: Door) -> String {
        let scheme = match door {
            Door::Tcp => "mqtt",
            Door::Tls | Door::ClientCertificate => "mqtts",
            Door::WebSocket => "ws",
            Door::SecureWebSocket => "wss",
            Door::Unix => return format!("unix://{}", self.socket().display()),
        };
        let path = match door {
            Door::WebSocket | Door::SecureWebSocket => "/mqtt",
            Door::Tcp | Door::Tls | Door::ClientCertificate | Door::Unix => "",
        };
        format!("{scheme}://localhost:{}{path}", self.port(door))
    }

    /// The port of a door that has one.
    pub(crate) fn port(&self, door: Door) -> u16 {
        let [tls, client_certificate, websocket, secure_websocket] = self.ports;
        match door {
            Door::Tcp => self.broker.port(),
            Door::Tls => tls,
            Door::ClientCertificate => client_certificate,
            Door::WebSocket => websocket,
            Door::SecureWebSocket => secure_websocket,
            Door::Unix => panic!("a Unix socket has no port"),
        }
    }

    /// The path of the Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Gives it another certificate, which it shows from its next start on.
    pub(crate) fn replace(&self, server: &Identity) {
        server.write(&self.directory, "server");
    }
}

/// What TLS is set up with belongs to the listener above it; who is let in is the same for all of them.
fn doors(settings: &str, directory: &Path, ports: [u16; 4]) -> String {
    let [tls, client_certificate, websocket, secure_websocket] = ports;
    let directory = directory.display();
    let server = format!("certfile {directory}/server.pem\nkeyfile {directory}/server.key\n");
    format!(
        "{settings}
listener {tls} 127.0.0.1
{server}
listener {client_certificate} 127.0.0.1
{server}cafile {directory}/clients.pem
require_certificate true
use_identity_as_username true

listener {websocket} 127.0.0.1
protocol websockets

listener {secure_websocket} 127.0.0.1
protocol websockets
{server}
listener 0 {directory}/socket
"
    )
}
