//! A TCP relay that can be told to cut: the bad network of the tour, whichever broker it runs against.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::rc::Rc;

use async_io::Async;
use coracle::LocalExecutor;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

/// Passes the bytes of one client at a time on to a broker, and back.
pub(crate) struct Relay {
    address: SocketAddr,
    scissors: Rc<Scissors>,
}

/// How many bytes may still pass towards the broker before the connection is cut; none for no cut.
#[derive(Default)]
struct Scissors(Cell<Option<usize>>);

impl Relay {
    /// A relay to `broker` (`host:port`), served by a task of `executor`.
    pub(crate) fn open(executor: &LocalExecutor<'_>, broker: &str) -> io::Result<Self> {
        let broker = broker.to_socket_addrs()?.next();
        let broker = broker.ok_or_else(|| io::Error::other("the broker's name has no address"))?;
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.get_ref().local_addr()?;
        let scissors = Rc::<Scissors>::default();
        let own = Rc::clone(&scissors);
        executor
            .spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    // To a relay an error is the end of a connection like any other.
                    let _ = own.serve(client, broker).await;
                }
            })
            .detach();
        Ok(Self { address, scissors })
    }

    /// Where a client connects to reach the broker through this relay.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Cuts the connection once this many more bytes have passed to the broker, perhaps in the middle
    /// of a packet. The connection after it lasts.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.scissors.0.set(Some(bytes));
    }
}

impl Scissors {
    /// Serves a connection until either side ends it or it is cut. Both sockets close as they go.
    async fn serve(&self, client: Async<TcpStream>, broker: SocketAddr) -> io::Result<()> {
        let broker = Async::<TcpStream>::connect(broker).await?;
        client.get_ref().set_nodelay(true)?;
        broker.get_ref().set_nodelay(true)?;
        let down = async { futures_lite::io::copy(&broker, &client).await.map(drop) };
        future::or(self.pass_up(&client, &broker), down).await
    }

    async fn pass_up(
        &self,
        mut client: &Async<TcpStream>,
        mut broker: &Async<TcpStream>,
    ) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut read = client.read(&mut buffer).await?;
            let left = self.0.get().map(|allowed| allowed.saturating_sub(read));
            if left == Some(0) {
                read = self.0.take().unwrap_or(read);
            }
            broker
                .write_all(buffer.get(..read).unwrap_or_default())
                .await?;
            if read == 0 || left == Some(0) {
                return Ok(());
            }
            self.0.set(left);
        }
    }
}
