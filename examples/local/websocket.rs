//! A broker behind a WebSocket, for examples that are to run where there is none.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use async_io::Async;
use coracle::LocalExecutor;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future, io as aio};
use soketto::handshake::Server as Handshake;
use soketto::handshake::server::Response;

/// Listens on a port of its own and passes everything on to the broker at `target`. Returns the port.
pub(crate) fn listen(executor: &LocalExecutor<'_>, target: SocketAddr) -> io::Result<u16> {
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.get_ref().local_addr()?.port();
    executor
        .spawn(async move {
            loop {
                // One after the other is enough for an example.
                if let Err(error) = serve(&listener, target).await {
                    eprintln!("the listener: {error}");
                }
            }
        })
        .detach();
    Ok(port)
}

async fn serve(listener: &Async<TcpListener>, target: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (socket, _) = listener.accept().await?;
    let mut handshake = Handshake::new(socket);
    handshake.add_protocol("mqtt");
    let request = handshake.receive_request().await?;
    let (key, path) = (request.key(), request.path().to_owned());
    let accept = Response::Accept {
        key,
        protocol: Some("mqtt"),
    };
    handshake.send_response(&accept).await?;
    println!("the listener: a WebSocket at {path}");
    let (mut to_client, mut from_client) = handshake.into_builder().finish();
    let broker = Async::<TcpStream>::connect(target).await?;
    let (mut from_broker, mut to_broker) = aio::split(broker);
    let up = async {
        let mut message = Vec::new();
        loop {
            message.clear();
            from_client.receive_data(&mut message).await?;
            to_broker.write_all(&message).await?;
        }
    };
    let down = async {
        let mut bytes = [0; 4096];
        loop {
            let count = from_broker.read(&mut bytes).await?;
            if count == 0 {
                return Ok(());
            }
            to_client.send_binary(&bytes[..count]).await?;
            to_client.flush().await?;
        }
    };
    // The end of either is the end of both, and no news.
    let _: Result<(), Box<dyn Error>> = future::or(up, down).await;
    Ok(())
}
