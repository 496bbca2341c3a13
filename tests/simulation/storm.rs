//! A thousand clients on one thread lose their broker at the same moment. They must not come back at the
//! same moment, and not more often than their backoff allows.

use std::time::Duration;

use coracle::testkit::{Attempt, BrokerOptions, Cut, Kind, Recording, Rule, Then, When, World};
use coracle::{Client, Options};

const CLIENTS: u64 = 1_000;
const OUTAGE: usize = 60;
const SECOND: Duration = Duration::from_secs(1);

/// A thousand clients with the default delays, 1 s to 60 s, that are connected.
fn crowd() -> (World, Vec<Client>) {
    let world = World::new(BrokerOptions::new().recording(Recording::Counts));
    let mut clients = Vec::new();
    for nth in 0..CLIENTS {
        let options = Options::new("mqtt://broker", &format!("client-{nth}"))
            .expect("the URL is well-formed")
            .connector(world.network())
            .clock(world.clock())
            .keep_alive(Duration::from_secs(600))
            .seed(nth);
        let (client, driver) = Client::new(options);
        world.spawn(driver.run()).detach();
        clients.push(client);
    }
    // Longer than a link has to hold for the delays to begin anew.
    world.advance(20 * SECOND);
    assert_eq!(connected(&clients), clients.len());
    (world, clients)
}

fn connected(clients: &[Client]) -> usize {
    clients
        .iter()
        .filter(|client| client.is_connected())
        .count()
}

/// Attempts in each of so many seconds.
fn rates(world: &World, seconds: usize) -> Vec<usize> {
    let network = world.network();
    let count = |_| {
        let before = network.attempts();
        world.advance(SECOND);
        network.attempts() - before
    };
    (0..seconds).map(count).collect()
}

/// Mean, and the standard deviation as a share of it.
fn spread(rates: &[usize]) -> (f64, f64) {
    let values: Vec<f64> = rates
        .iter()
        .map(|rate| f64::from(u32::try_from(*rate).expect("few")))
        .collect();
    let count = f64::from(u32::try_from(values.len()).expect("few"));
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt() / mean)
}

/// What a minute without success has to look like: with full jitter the k-th delay is anything up to
/// 2^k seconds, so a client makes about 8 attempts in the first minute and the crowd spreads out.
fn check(rates: &[usize]) {
    let total: usize = rates.iter().sum();
    assert!(
        (5_000..10_000).contains(&total),
        "{total} attempts: {rates:?}"
    );
    // The first delay is up to a second, the second one up to two: a second may see two of a client.
    let peak = rates.iter().max().expect("a minute");
    assert!(*peak <= 1_800, "{peak} attempts in one second: {rates:?}");
    let early = spread(&rates[..4]).0;
    let later = spread(&rates[8..16]).0;
    let (mean, variation) = spread(&rates[30..]);
    assert!(
        mean < 75.0,
        "{mean} attempts per second in the end: {rates:?}"
    );
    let backs_off = early > 3.0 * later && later > 2.0 * mean;
    assert!(backs_off, "{early}, {later}, {mean}: {rates:?}");
    // Independent clients vary by the root of the mean; in step they would by several times it.
    assert!(variation < 0.3, "{variation}: {rates:?}");
}

#[test]
fn a_thousand_clients_spread_out_while_the_broker_is_gone_for_a_minute() {
    let (world, clients) = crowd();
    let network = world.network();
    network.all_attempts(Attempt::Refuse(std::io::ErrorKind::ConnectionRefused));
    network.cut(Cut::Reset);
    check(&rates(&world, OUTAGE));
    // It is back: the crowd comes in one by one.
    network.all_attempts(Attempt::Accept);
    let mut back = Vec::new();
    let before = network.attempts();
    while connected(&clients) < clients.len() {
        assert!(back.len() < 61, "a delay is longer than 60 s: {back:?}");
        back.extend(rates(&world, 1));
    }
    assert_eq!(network.attempts() - before, clients.len(), "one each");
    let peak = back.iter().max().expect("there were some");
    assert!(*peak <= 80, "{peak} clients in one second: {back:?}");
}

#[test]
fn a_thousand_clients_that_are_accepted_and_kicked_back_off_like_refused_ones() {
    let (world, clients) = crowd();
    let kicked = Rule::new(When::Packet(Kind::Connect), [Then::Cut]).always();
    world.broker(|broker, _| broker.add_rule(kicked));
    world.network().cut(Cut::Reset);
    check(&rates(&world, OUTAGE));
    let told: u64 = clients.iter().map(|it| it.statistics().connected).sum();
    assert!(told > CLIENTS * 4, "they were accepted each time: {told}");
    world.broker(|broker, _| broker.clear_script());
    world.advance(61 * SECOND);
    assert_eq!(connected(&clients), clients.len());
}
