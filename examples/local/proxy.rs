//! A proxy, for examples that are to run where there is none: HTTP CONNECT and nothing else.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};

use async_io::Async;
use coracle::LocalExecutor;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::relay::relay;

/// Listens on a port of its own. Returns the port.
pub(crate) fn listen(executor: &LocalExecutor<'_>) -> io::Result<u16> {
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.get_ref().local_addr()?.port();
    executor
        .spawn(async move {
            loop {
                // One after the other is enough for an example.
                if let Err(error) = serve(&listener).await {
                    eprintln!("the proxy: {error}");
                }
            }
        })
        .detach();
    Ok(port)
}

async fn serve(listener: &Async<TcpListener>) -> io::Result<()> {
    let (mut client, _): (Async<TcpStream>, _) = listener.accept().await?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        client.read_exact(&mut byte).await?;
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("it was asked for something else"));
    };
    println!("the proxy: connects on to {target}");
    let Some(address) = target.to_socket_addrs()?.next() else {
        return Err(io::Error::other("the name has no address"));
    };
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    relay(client, address).await
}
