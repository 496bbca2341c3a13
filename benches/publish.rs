//! Messages per second on one thread, against a broker on another that only counts and acknowledges,
//! and the same bytes written without any client ("limit"): `cargo bench --bench publish`.
//!
//! The figures of one run may be compared with each other; those of two runs or machines may not.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use coracle::codec::{self, Ack, AckKind, Packet, Split};
use coracle::{
    Client, ErrorKind, LocalExecutor, Options, PropertyList, Qos, Reason, Result, Version, Wait,
    block_on,
};

const TOPIC: &str = "house/hall/temp";
const PAYLOAD: [u8; 64] = [7; 64];

/// CONNACK of MQTT 5 without topic aliases, and with ten.
const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const CONNACK_ALIASES: &[u8] = &[0x20, 6, 0, 0, 3, 0x22, 0, 10];

/// Reads packets and answers CONNECT, PUBLISH and PUBREL, one write per read.
fn broker(mut stream: TcpStream, connack: &[u8]) -> io::Result<()> {
    let mut input = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut output = Vec::new();
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..count]);
        let mut used = 0;
        while let Ok(Split::Whole { frame, size }) = codec::split(&input[used..]) {
            used += size;
            match codec::decode(Version::V5_0, frame) {
                Ok(Packet::Connect(_)) => output.extend_from_slice(connack),
                Ok(Packet::Publish(publish)) => {
                    let kind = match publish.qos {
                        Qos::AtMostOnce => continue,
                        Qos::AtLeastOnce => AckKind::Puback,
                        Qos::ExactlyOnce => AckKind::Pubrec,
                    };
                    answer(publish.id, kind, &mut output);
                }
                Ok(Packet::Pubrel(ack)) => answer(Some(ack.id), AckKind::Pubcomp, &mut output),
                Ok(_) | Err(_) => {}
            }
        }
        input.drain(..used);
        if !output.is_empty() {
            stream.write_all(&output)?;
            output.clear();
        }
    }
}

fn answer(id: Option<coracle::PacketId>, kind: AckKind, output: &mut Vec<u8>) {
    if let Some(id) = id {
        let ack = Ack {
            id,
            reason: Reason::SUCCESS,
            properties: PropertyList::EMPTY,
        };
        ack.encode(kind, Version::V5_0, output)
            .expect("five bytes fit");
    }
}

fn listen(connack: &'static [u8]) -> io::Result<(u16, thread::JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    Ok((
        port,
        thread::spawn(move || broker(listener.accept()?.0, connack)),
    ))
}

async fn publish(client: &Client, qos: Qos, messages: usize) -> Result<()> {
    for _ in 0..messages {
        while let Err(error) = client.publish(TOPIC, &PAYLOAD, qos, Wait::None).await {
            if !matches!(error.kind(), ErrorKind::QueueFull) {
                return Err(error);
            }
            client.ready().await?;
        }
    }
    client.publish(TOPIC, &PAYLOAD, qos, Wait::Ack).await?;
    Ok(())
}

/// Messages per second through the client.
fn client(
    connack: &'static [u8],
    qos: Qos,
    messages: usize,
) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let (port, broker) = listen(connack)?;
    let executor = LocalExecutor::new();
    let seconds = block_on(executor.run(async {
        let options = Options::new(&format!("mqtt://127.0.0.1:{port}"), "bench")?;
        let (client, driver) = Client::new(options);
        let running = executor.spawn(driver.run());
        client.connected().await?;
        publish(&client, qos, messages / 10).await?;
        let start = now();
        publish(&client, qos, messages).await?;
        let seconds = start.elapsed().as_secs_f64();
        client.disconnect().await?;
        running.await?;
        Result::Ok(seconds)
    }))?;
    broker.join().expect("the broker does not panic")?;
    Ok(messages as f64 / seconds)
}

/// Messages per second of a plain loop that writes the same bytes, 64 KiB at a time.
fn limit(messages: usize) -> io::Result<f64> {
    let (port, broker) = listen(CONNACK)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let publish = codec::Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: TOPIC,
        id: None,
        properties: PropertyList::EMPTY,
        payload: &PAYLOAD,
    };
    let mut one = Vec::new();
    publish
        .encode(Version::V5_0, &mut one)
        .expect("a small packet fits");
    let per_write = 64 * 1024 / one.len();
    let many = one.repeat(per_write);
    let start = now();
    for _ in 0..messages / per_write {
        stream.write_all(&many)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(stream);
    broker.join().expect("the broker does not panic")?;
    Ok((messages / per_write * per_write) as f64 / seconds)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    println!("64-byte payloads, messages per second, three runs each");
    for _ in 0..3 {
        let limit = limit(5_000_000)?;
        println!("limit         {limit:>12.0}");
        for (qos, messages) in [
            (Qos::AtMostOnce, 5_000_000),
            (Qos::AtLeastOnce, 500_000),
            (Qos::ExactlyOnce, 500_000),
        ] {
            for (connack, aliases) in [(CONNACK, ""), (CONNACK_ALIASES, ", alias")] {
                let rate = client(connack, qos, messages)?;
                println!(
                    "{qos}{aliases:<7} {rate:>12.0}  {:>5.1} % of the limit",
                    100.0 * rate / limit
                );
            }
        }
    }
    Ok(())
}
