//! Real cuts: messages between two clients through mosquitto, over networks that cut every connection at a
//! byte of their choice. Nothing is lost, nothing of QoS 2 comes twice, nothing is acknowledged that did not
//! arrive. Mosquitto has to be installed.
//!
//! Makes 200 cuts. `sh tests/cuts.sh 10000` makes more of them; `SEED=42 CUTS=100 cargo test --release --test
//! cuts network` is a single round, and what a failure prints.

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../mosquitto/broker.rs"]
mod broker;
mod fates;
#[path = "../mosquitto/ground.rs"]
mod ground;
mod knife;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../network/listening.rs"]
mod listening;
mod round;
mod wire;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../mosquitto/world.rs"]
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::fates::{Sum, tally};
use crate::knife::{Blade, Cut, Direction};
use crate::round::{Fall, Outcome};
use crate::wire::Place;
use crate::world::World;

/// Cuts of one round: half of them the writer's, half the reader's.
const ROUND: usize = 100;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// What all rounds came to.
#[derive(Debug, Default)]
struct Total {
    rounds: u64,
    sum: Sum,
    cuts: Vec<Cut>,
    back_after: Vec<Duration>,
    sessions_lost: usize,
}

/// Plays rounds until there were `count` cuts.
#[expect(clippy::disallowed_methods, reason = "real time is told")]
fn rounds(test: &str, count: u64, fall: Fall) -> Total {
    let since = std::time::Instant::now();
    let first = setting("SEED").unwrap_or(0);
    let count = usize::try_from(setting("CUTS").unwrap_or(count)).expect("a number of cuts");
    let mut total = Total::default();
    for seed in first.. {
        let left = count - total.cuts.len().min(count);
        if left == 0 {
            break;
        }
        let _replay = Replay {
            test,
            seed,
            count: left.min(ROUND),
        };
        let outcome = one(seed, left.min(ROUND), fall);
        total.rounds += 1;
        total.sum.add(&outcome.sum);
        total.cuts.extend(&outcome.cuts);
        total.back_after.extend(&outcome.back_after);
        total.sessions_lost += outcome.sessions_lost;
        if total.rounds % 20 == 0 {
            println!("{} cuts, {} s", total.cuts.len(), since.elapsed().as_secs());
        }
        let lines: Vec<_> = outcome
            .faults
            .iter()
            .map(|fault| format!("{:?}: {}", fault.kind, fault.text))
            .collect();
        assert!(
            lines.is_empty(),
            "{} faults:\n{}",
            lines.len(),
            lines[..lines.len().min(20)].join("\n"),
        );
        match fall {
            Fall::Never | Fall::Stopped { .. } => assert_eq!(
                outcome.sessions_lost, 0,
                "seed {seed}: the broker keeps every session"
            ),
            Fall::Killed { .. } => {}
        }
    }
    total.tell(test, fall, since.elapsed());
    total
}

/// Longer than all holes of a round, and than what is waited for in vain at its end.
const PATIENCE: Duration = Duration::from_secs(200);

/// Says how to play a round again that does not come to its end.
struct Replay<'a> {
    test: &'a str,
    seed: u64,
    count: usize,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, count } = self;
            eprintln!(
                "replay it, as far as real sockets can, with: SEED={seed} CUTS={count} cargo test --release \
                 --test cuts {test} -- --nocapture"
            );
        }
    }
}

fn one(seed: u64, count: usize, fall: Fall) -> Outcome {
    let slot = Rc::new(RefCell::new(None));
    let result = Rc::clone(&slot);
    world::run_within(PATIENCE, async |world: World| {
        let outcome = round::play(world, seed, count, fall).await;
        result.replace(Some(outcome));
    });
    slot.take().expect("the round came to its end")
}

impl Total {
    fn tell(&self, test: &str, fall: Fall, took: Duration) {
        let Self { sum, cuts, .. } = self;
        let [zero, one, two] = sum.messages;
        println!(
            "{test}: {} cuts in {} rounds, {} s",
            cuts.len(),
            self.rounds,
            took.as_secs()
        );
        let blades = tally(cuts.iter().map(|cut| cut.blade));
        println!("  by kind: {}", line(&blades));
        println!(
            "  by direction: {}",
            line(&tally(cuts.iter().map(|cut| cut.direction)))
        );
        println!(
            "  by place: {}",
            line(&tally(cuts.iter().map(|cut| cut.place)))
        );
        println!(
            "  messages: {zero} QoS 0, {one} QoS 1, {two} QoS 2; {} calls acknowledged",
            sum.acknowledged
        );
        println!(
            "  QoS 0: {} came, {} were told that the link was lost",
            sum.zero_arrived, sum.zero_told_lost
        );
        let whose = match fall {
            Fall::Never | Fall::Stopped { .. } => "",
            Fall::Killed { .. } => "with what mosquitto had not saved when it was killed: ",
        };
        println!(
            "  {whose}lost: {}, QoS 2 doubled: {}, acknowledged but absent: {}; given up, and told so: {}",
            sum.lost, sum.doubled, sum.false_acknowledgements, sum.given_up
        );
        println!(
            "  by the broker: {} QoS 2 published again after PUBREL or with another identifier, {} sent out of order",
            sum.republished, sum.overtaken
        );
        println!(
            "  QoS 1 repeated: {}, {:.2} for each cut",
            sum.repeated,
            sum.repeated as f64 / cuts.len() as f64
        );
        let mut back = self.back_after.clone();
        back.sort_unstable();
        if let Some(longest) = back.last() {
            println!(
                "  {} starts of the broker; to the next acknowledgement: half within {:?}, all within {longest:?}; \
                 {} sessions lost",
                back.len(),
                back[back.len() / 2],
                self.sessions_lost
            );
        }
    }
}

fn line<T: std::fmt::Debug>(counts: &std::collections::BTreeMap<T, usize>) -> String {
    let words: Vec<_> = counts
        .iter()
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    words.join(", ")
}

#[test]
fn a_network_that_cuts_anywhere_loses_and_doubles_nothing() {
    let total = rounds("network", 200, Fall::Never);
    if total.cuts.len() < 1_000 {
        return;
    }
    // So many cuts leave no kind of them out.
    let has = |which: &dyn Fn(&Cut) -> bool| total.cuts.iter().filter(|cut| which(cut)).count() > 3;
    for blade in [Blade::Fin, Blade::Reset, Blade::HalfOpen, Blade::Hole] {
        assert!(has(&|cut| cut.blade == blade), "no {blade:?}");
    }
    for direction in [Direction::ToBroker, Direction::ToClient] {
        for place in [Place::Opening, Place::Header, Place::Body, Place::Between] {
            assert!(
                has(&|cut| cut.direction == direction && cut.place == place),
                "no cut {direction:?}, {place:?}"
            );
        }
    }
}

#[test]
fn a_broker_that_restarts_meanwhile_loses_and_doubles_nothing() {
    rounds("restarts", 100, Fall::Stopped { every: 20 });
}

#[test]
fn a_broker_that_is_killed_leaves_no_call_waiting() {
    rounds("killed", 100, Fall::Killed { every: 20 });
}
