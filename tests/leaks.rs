//! What a client leaves behind: nothing, however often it reconnects, and however many there were.
//!
//! One test in a binary of its own, because the allocator and the table of open files are the process's.
#![cfg(target_os = "linux")]

use std::alloc::System;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use coracle::{Client, Event, Events, LocalExecutor, Options, Qos, Session, Wait, block_on};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TIMES: usize = 1_000;

/// Buffers and tables grow to their size once.
const WARMING: usize = 100;

/// What the bytes on the heap may differ by: tables of the executor and of the reactor whose capacity is a
/// power of two. A leak of a byte for each time would be seen.
const SLACK: isize = 900;

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The client leaves.
    Ours,
    /// The broker hangs up.
    Theirs,
}

/// A broker that knows four packets, on one connection after the other, until there are no more.
fn broker(listener: &TcpListener, count: usize, end: impl Fn(usize) -> End) {
    for nth in 0..count {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("an option of the socket");
        // An error means that the client was quicker.
        let _ = serve(&mut stream, nth > 0, end(nth));
    }
}

fn serve(stream: &mut TcpStream, present: bool, end: End) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut body = [0; 127];
        let body = &mut body[..usize::from(head[1])];
        stream.read_exact(body)?;
        match head[0] >> 4 {
            1 => stream.write_all(&[0x20, 3, u8::from(present), 0, 0])?,
            8 => stream.write_all(&[0x90, 4, body[0], body[1], 0, 1])?,
            3 => {
                // "t", and the message comes back to the client at the same QoS.
                let puback = [0x40, 2, body[3], body[4]];
                let publish = [0x32, 7, 0, 1, b't', 0, 1, 0, b'y'];
                stream.write_all(&puback)?;
                stream.write_all(&publish)?;
            }
            4 => match end {
                End::Ours => {}
                End::Theirs => return Ok(()),
            },
            // DISCONNECT
            _ => return Ok(()),
        }
    }
}

fn held(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

fn open_files() -> usize {
    let files = fs::read_dir("/proc/self/fd").expect("Linux has it");
    files.count()
}

fn options(port: u16) -> Options {
    Options::new(&format!("mqtt://127.0.0.1:{port}"), "c")
        .expect("the URL is right")
        .session(Session::Resume)
        .retry_delays(Duration::ZERO, Duration::ZERO)
}

async fn connected(events: &mut Events) {
    loop {
        match events.next().await.expect("the driver runs") {
            Event::Connected { .. } => return,
            Event::ConnectFailed { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

/// What the heap and the open files differ by after `step` was done [`TIMES`] times more.
async fn differences(mut step: impl AsyncFnMut(usize)) -> (isize, isize) {
    for nth in 0..WARMING {
        step(nth).await;
    }
    let files = open_files();
    let region = Region::new(ALLOCATOR);
    for nth in 0..TIMES {
        step(nth).await;
    }
    let bytes = held(&region);
    (bytes, open_files() as isize - files as isize)
}

/// One client that reconnects, in turn because it wants to and because it has to.
fn reconnects(executor: &LocalExecutor<'static>, listener: TcpListener) -> (isize, isize) {
    let port = listener.local_addr().expect("it is bound").port();
    let count = WARMING + TIMES + 1;
    let ends = |nth: usize| {
        if nth.is_multiple_of(2) {
            End::Ours
        } else {
            End::Theirs
        }
    };
    let serving = thread::spawn(move || broker(&listener, count, ends));
    let differences = block_on(executor.run(async {
        let (client, driver) = Client::new(options(port));
        let mut events = client.events();
        let driver = executor.spawn(driver.run());
        let mut stream = client
            .subscribe("t", Qos::AtLeastOnce, Wait::None)
            .await
            .expect("accepted");
        connected(&mut events).await;
        let differences = differences(async |nth| {
            client
                .publish("t", "x", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            // Its acknowledgement makes the broker hang up every other time.
            let message = stream.next().await.expect("it is open");
            assert_eq!(message.payload(), b"y");
            if nth.is_multiple_of(2) {
                client.reconnect().expect("it is open");
            }
            connected(&mut events).await;
        })
        .await;
        client.disconnect().await.expect("nothing stays");
        driver.await.expect("a good end");
        differences
    }));
    serving.join().expect("the broker does not panic");
    differences
}

/// One client after the other.
fn clients(executor: &LocalExecutor<'static>, listener: TcpListener) -> (isize, isize) {
    let port = listener.local_addr().expect("it is bound").port();
    let serving = thread::spawn(move || broker(&listener, WARMING + TIMES, |_| End::Ours));
    let differences = block_on(executor.run(async {
        differences(async |_| {
            let (client, driver) = Client::new(options(port));
            let driver = executor.spawn(driver.run());
            let mut stream = client
                .subscribe("t", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("granted");
            client
                .publish("t", "x", Qos::AtLeastOnce, Wait::Ack)
                .await
                .expect("acknowledged");
            let message = stream.next().await.expect("it is open");
            drop(message);
            client.disconnect().await.expect("nothing stays");
            drop((client, stream));
            driver.await.expect("a good end");
        })
        .await
    }));
    serving.join().expect("the broker does not panic");
    differences
}

#[test]
fn a_thousand_reconnects_and_a_thousand_clients_leave_nothing_behind() {
    let executor = LocalExecutor::new();
    let listener = || TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    for (what, (bytes, files)) in [
        ("reconnects", reconnects(&executor, listener())),
        ("clients", clients(&executor, listener())),
    ] {
        println!("{TIMES} {what}: {bytes} bytes and {files} open files more");
        assert!(bytes.abs() <= SLACK, "{what}: {bytes} bytes");
        // The broker's side of the last connection may be open a moment longer or shorter.
        assert!(files.abs() <= 1, "{what}: {files} open files");
    }
}
