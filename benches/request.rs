//! Requests over loopback: how long one takes, compared with a publish at QoS 1 that waits for its
//! PUBACK, and how long 10,000 take with 1,000 of them under way: `cargo bench --bench request`.
//!
//! ```text
//! cargo bench --bench request                          a broker on a thread that only passes on
//! cargo bench --bench request -- mqtt://host:port      that broker
//! ```
//!
//! A request takes two hops through the broker and a publish one, so twice as long is the least. At QoS 1
//! there are four packets more, and a broker that does not set TCP_NODELAY (mosquitto, by default) holds
//! an answer behind a PUBACK for 40 ms: such rounds are fewer. The
//! figures of one run may be compared with each other; those of two runs or machines may not.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coracle::codec::{self, Ack, AckKind, Packet, Split};
use coracle::{
    Client, ErrorKind, LocalExecutor, Message, Options, PropertyList, Qos, Reason, Reply,
    Requesting, Result, Version, Wait, block_on,
};
use futures_lite::future;

/// Requests to one are served on the thread that makes them, those to the other elsewhere.
const SAME: &str = "bench/here";
const OTHER: &str = "bench/there";
const PAYLOAD: [u8; 64] = [7; 64];
const TIMEOUT: Duration = Duration::from_secs(30);

/// Round trips of each kind whose times are taken, and how many come before them.
const ROUNDS: usize = 5_000;
const WARM_UP: usize = 500;

/// All at once, and in all.
const UNDER_WAY: usize = 1_000;
const REQUESTS: usize = 10_000;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Filters without wildcards, and the connections that have them.
type Table = Arc<Mutex<Vec<(String, Arc<Mutex<TcpStream>>)>>>;

/// One connection of the broker: answers at once, passes on at QoS 1 and forgets. One write per read and
/// connection.
fn pass_on(stream: TcpStream, table: &Table) -> io::Result<()> {
    let mut reading = stream.try_clone()?;
    let own = Arc::new(Mutex::new(stream));
    let mut input = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut next_id: u16 = 0;
    loop {
        let count = reading.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..count]);
        let mut used = 0;
        let mut output = Vec::new();
        let mut others: Vec<(Arc<Mutex<TcpStream>>, Vec<u8>)> = Vec::new();
        while let Ok(Split::Whole { frame, size }) = codec::split(&input[used..]) {
            used += size;
            let Ok(packet) = codec::decode(Version::V5_0, frame) else {
                continue;
            };
            match packet {
                Packet::Connect(_) => output.extend_from_slice(&[0x20, 3, 0, 0, 0]),
                Packet::Subscribe(subscribe) => {
                    let mut reasons = Vec::new();
                    for (filter, _) in subscribe.filters.iter() {
                        let entry = (filter.to_owned(), Arc::clone(&own));
                        table.lock().expect("no panic").push(entry);
                        reasons.push(1);
                    }
                    output.extend_from_slice(&[0x90, 3 + reasons.len() as u8]);
                    output.extend_from_slice(&subscribe.id.get().to_be_bytes());
                    output.push(0);
                    output.extend_from_slice(&reasons);
                }
                Packet::Publish(mut publish) => {
                    let id = publish.id;
                    let whom: Vec<_> = table
                        .lock()
                        .expect("no panic")
                        .iter()
                        .filter(|(filter, _)| filter == publish.topic)
                        .map(|(_, whom)| Arc::clone(whom))
                        .collect();
                    for whom in whom {
                        next_id = next_id.checked_add(1).unwrap_or(1);
                        publish.id = id.and_then(|_| coracle::PacketId::new(next_id));
                        let mut bytes = Vec::new();
                        publish
                            .encode(Version::V5_0, &mut bytes)
                            .expect("it was encoded before");
                        match others
                            .iter_mut()
                            .find(|(other, _)| Arc::ptr_eq(other, &whom))
                        {
                            Some((_, all)) => all.extend_from_slice(&bytes),
                            None => others.push((whom, bytes)),
                        }
                    }
                    if let Some(id) = id {
                        let ack = Ack {
                            id,
                            reason: Reason::SUCCESS,
                            properties: PropertyList::EMPTY,
                        };
                        ack.encode(AckKind::Puback, Version::V5_0, &mut output)
                            .expect("five bytes fit");
                    }
                }
                _ => {}
            }
        }
        input.drain(..used);
        for (whom, bytes) in others {
            whom.lock().expect("no panic").write_all(&bytes)?;
        }
        if !output.is_empty() {
            own.lock().expect("no panic").write_all(&output)?;
        }
    }
}

/// A broker on threads of its own, for clients of MQTT 5 without wildcards.
fn listen() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("mqtt://{}", listener.local_addr()?);
    let table = Table::default();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let table = Arc::clone(&table);
            let _ = stream.set_nodelay(true);
            thread::spawn(move || pass_on(stream, &table));
        }
    });
    Ok(url)
}

/// Answers every request to `topic` with its payload, for ever.
async fn serve(url: &str, topic: &str, executor: &LocalExecutor<'_>) -> Result<()> {
    let (client, driver) = Client::new(Options::new(url, &topic.replace('/', "-"))?);
    let serving = executor.spawn(driver.run());
    let _service = client
        .serve(
            (topic, Qos::AtLeastOnce),
            |request| Reply::new(request.payload()),
            Wait::Ack,
        )
        .await?;
    serving.await
}

/// The time below which this share of them is.
fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let index = (times.len() as f64 * share) as usize;
    times.get(index).copied().unwrap_or_default()
}

async fn publishes(client: &Client, rounds: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = now();
        client
            .publish("bench/nobody", &PAYLOAD, Qos::AtLeastOnce, Wait::Ack)
            .await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn request(client: &Client, topic: &str, qos: Qos) -> Requesting {
    match qos {
        Qos::AtMostOnce => client.request(topic, &PAYLOAD, TIMEOUT),
        Qos::AtLeastOnce | Qos::ExactlyOnce => {
            client.request_message(Message::new(topic, &PAYLOAD).qos(qos), TIMEOUT)
        }
    }
}

async fn requests(client: &Client, topic: &str, qos: Qos, rounds: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = now();
        let answer = request(client, topic, qos).await?;
        times.push(start.elapsed());
        assert_eq!(answer.payload(), PAYLOAD);
    }
    Ok(times)
}

/// Each answer makes room for the next request.
async fn many(client: &Client, topic: &str, qos: Qos) -> Result<Duration> {
    let start = now();
    let mut under_way = VecDeque::new();
    for _ in 0..REQUESTS {
        if under_way.len() == UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            check(oldest).await?;
        }
        under_way.push_back(request(client, topic, qos));
    }
    for last in under_way {
        check(last).await?;
    }
    Ok(start.elapsed())
}

async fn check(request: Requesting) -> Result<()> {
    assert_eq!(request.await?.payload(), PAYLOAD);
    Ok(())
}

async fn compare(client: &Client, topic: &str, qos: Qos) -> Result<()> {
    let mut publish = Vec::new();
    let mut request = Vec::new();
    let rounds = match qos {
        Qos::AtMostOnce => ROUNDS,
        Qos::AtLeastOnce | Qos::ExactlyOnce => ROUNDS / 10,
    };
    // In turns, so that what disturbs one disturbs the other.
    for _ in 0..10 {
        publish.extend(publishes(client, rounds / 10).await?);
        request.extend(requests(client, topic, qos, rounds / 10).await?);
    }
    let [one, two] = [("publish", &mut publish), ("request", &mut request)].map(|(name, times)| {
        let [low, middle, high] = [0.1, 0.5, 0.9].map(|share| quantile(times, share));
        println!("    {name}  p10 {low:>9.1?}  p50 {middle:>9.1?}  p90 {high:>9.1?}");
        middle
    });
    let ratio = two.as_secs_f64() / one.as_secs_f64();
    println!("    a request takes {ratio:.2} times as long as a publish (p50)");
    let time = many(client, topic, qos).await?;
    let rate = REQUESTS as f64 / time.as_secs_f64();
    println!("    {REQUESTS} requests, {UNDER_WAY} under way: {time:.1?}, {rate:.0} per second");
    Ok(())
}

async fn bench(client: Client) -> Result<()> {
    client.connected().await?;
    for (place, topic) in [("this", SAME), ("another", OTHER)] {
        // Until the service is there nobody answers.
        while let Err(error) = client.request(topic, "", Duration::from_millis(100)).await {
            assert!(matches!(error.kind(), ErrorKind::TimedOut(_)), "{error}");
        }
        publishes(&client, WARM_UP).await?;
        requests(&client, topic, Qos::AtMostOnce, WARM_UP).await?;
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            for _ in 0..2 {
                println!("served on {place} thread, {qos}");
                compare(&client, topic, qos).await?;
            }
        }
    }
    println!("{} answers unclaimed", client.statistics().unclaimed);
    client.disconnect().await
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = match arguments.find(|argument| argument.contains("://")) {
        Some(url) => url,
        None => listen()?,
    };
    println!("{url}: publish at QoS 1 until PUBACK; request until answer; 64 bytes each");
    let elsewhere = url.clone();
    thread::spawn(move || {
        let executor = LocalExecutor::new();
        block_on(executor.run(serve(&elsewhere, OTHER, &executor)))
    });
    let executor = LocalExecutor::new();
    block_on(executor.run(async {
        let here = serve(&url, SAME, &executor);
        let (client, driver) = Client::new(Options::new(&url, "bench-client")?);
        executor.spawn(driver.run()).detach();
        future::or(here, bench(client)).await
    }))?;
    Ok(())
}
