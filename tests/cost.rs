//! What publishing costs: system calls and allocations, counted.
//!
//! One test in a binary of its own, because the allocator counts for the whole process.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use coracle::{Client, ErrorKind, LocalExecutor, Options, Qos, Result, Wait, block_on};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MESSAGES: usize = 100_000;

/// CONNACK without topic aliases, and with ten.
const CONNACK: &[u8] = b"\x20\x03\x00\x00\x00";
const CONNACK_ALIASES: &[u8] = b"\x20\x06\x00\x00\x03\x22\x00\x0a";

/// More than there are aliases, and every hundred messages others: aliases are given and taken away.
fn topics() -> Vec<String> {
    (0..MESSAGES)
        .map(|step| format!("house/{:04}/{:02}", step / 100, step % 12))
        .collect()
}

/// A broker that says CONNACK and then drops whatever comes. Returns how many bytes came.
fn sink(mut stream: TcpStream, connack: &[u8]) -> std::io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = stream.read(&mut buffer)? as u64;
    stream.write_all(connack)?;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

async fn publish_all(client: &Client, topics: &[String]) -> Result<()> {
    let payload = [7; 64];
    for topic in topics {
        loop {
            match client
                .publish(topic, &payload, Qos::AtMostOnce, Wait::None)
                .await
            {
                Ok(_) => break,
                Err(error) if matches!(error.kind(), ErrorKind::QueueFull) => {
                    client.ready().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    // The last one tells when all before it have left.
    client
        .publish("house/hall/temp", &payload, Qos::AtMostOnce, Wait::Sent)
        .await?;
    Ok(())
}

#[test]
fn a_hundred_thousand_messages_take_few_writes_and_no_allocation_each() -> Result<()> {
    let same = vec!["house/hall/temp".to_owned(); MESSAGES];
    publishing_costs_little(CONNACK, &same)?;
    publishing_costs_little(CONNACK_ALIASES, &same)?;
    publishing_costs_little(CONNACK_ALIASES, &topics())
}

fn publishing_costs_little(connack: &'static [u8], topics: &[String]) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    let broker = thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        sink(stream, connack)
    });

    let executor = LocalExecutor::new();
    let (writes, allocations) = block_on(executor.run(async {
        let options = Options::new(&format!("mqtt://127.0.0.1:{port}"), "cost")?;
        let (client, driver) = Client::new(options);
        let running = executor.spawn(driver.run());
        client.connected().await?;
        // Buffers grow to their size once.
        publish_all(&client, topics).await?;

        let before = client.statistics();
        let region = Region::new(ALLOCATOR);
        publish_all(&client, topics).await?;
        let allocations = region.change().allocations + region.change().reallocations;
        let writes = client.statistics().writes - before.writes;

        client.disconnect().await?;
        running.await?;
        Result::Ok((writes, allocations))
    }))?;

    let bytes = broker
        .join()
        .expect("the sink does not panic")
        .expect("the sink reads");
    assert!(
        bytes > 2 * MESSAGES as u64 * 64,
        "everything arrived: {bytes} bytes"
    );
    println!("{MESSAGES} messages: {writes} writes, {allocations} allocations");
    assert!(writes <= 1_000, "{writes} writes for {MESSAGES} messages");
    // Timers and wake-ups of the executor may allocate now and then, a message may not.
    assert!(
        allocations <= 1_000,
        "{allocations} allocations for {MESSAGES} messages"
    );
    Ok(())
}
