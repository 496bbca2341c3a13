//! The power fails, at any step of the disk: what is found is what was last said to be on disk, or a batch that
//! was on its way then.

use coracle::FileStore;
use fastrand::Rng;

use crate::device::{Device, Tape};
use crate::table::{Table, batch, commit, load};

/// A store that was used: what happened to its disk, and which state it was in before which step.
struct Life {
    tape: Tape,
    states: Vec<Table>,
    /// For each state: how many steps there were when it was handed over, and when it was said to be on disk.
    said: Vec<(usize, usize)>,
}

impl Life {
    fn of(seed: u64, batches: usize, begin: Vec<u8>) -> Self {
        let device = Device::with(begin);
        let mut store = FileStore::on_device(device.clone()).expect("a store");
        let mut table = load(&mut store).expect("readable");
        let mut states = vec![table.clone()];
        let mut said = vec![(0, device.steps())];
        let mut rng = Rng::with_seed(seed);
        for nth in 0..batches {
            let mut batch = batch(&mut rng);
            // Once it grows, once it shrinks.
            if nth == batches / 3 {
                batch.put(100, &vec![1; 200_000]);
            }
            if nth == batches / 2 {
                batch.remove(100);
            }
            batch.apply_to(&mut table);
            let handed = device.steps();
            commit(&mut store, batch).expect("on disk");
            states.push(table.clone());
            said.push((handed, device.steps()));
        }
        drop(store);
        Self {
            tape: device.tape(),
            states,
            said,
        }
    }

    /// The states that may be found when the power failed before this step.
    fn possible(&self, before: usize) -> &[Table] {
        let promised = self.said.iter().rposition(|(_, done)| *done <= before);
        let begun = self.said.iter().rposition(|(handed, _)| *handed <= before);
        &self.states[promised.unwrap_or(0)..=begun.unwrap_or(0)]
    }

    fn check(&self, before: usize, content: Vec<u8>, how: &str) {
        // A file gets its name when it is whole: before that it is begun again from the start.
        if before < self.said[0].1 {
            return;
        }
        let mut store = FileStore::on_device(Device::with(content))
            .unwrap_or_else(|error| panic!("{how} before step {before}: {error}"));
        let table = load(&mut store).expect("readable");
        let place = self.states.iter().rposition(|state| *state == table);
        assert!(
            self.possible(before).contains(&table),
            "{how} before step {before}: found state {place:?}"
        );
    }
}

#[test]
fn a_power_cut_at_any_step_keeps_what_was_said_to_be_on_disk() {
    let life = Life::of(1, 40, Vec::new());
    assert!(life.tape.steps.len() > 200, "{}", life.tape.steps.len());
    for before in 0..=life.tape.steps.len() {
        for seed in 0..3 {
            let mut rng = Rng::with_seed(seed);
            let content = life.tape.after_power_cut(before, &mut rng);
            life.check(before, content, "power cut");
        }
    }
}

#[test]
fn a_kill_at_any_step_keeps_what_was_said_to_be_on_disk() {
    let life = Life::of(2, 60, Vec::new());
    for before in 0..=life.tape.steps.len() {
        life.check(before, life.tape.after_kill(before), "kill");
    }
}

#[test]
fn a_power_cut_while_the_last_one_is_mended_loses_nothing() {
    let first = Life::of(3, 12, Vec::new());
    let mut rng = Rng::with_seed(3);
    for _ in 0..12 {
        let begun = first.said[0].1;
        let before = rng.usize(begun..=first.tape.steps.len());
        let content = first.tape.after_power_cut(before, &mut rng);
        // Opening it is all that happens, and it is cut at each of its steps.
        let device = Device::with(content);
        drop(FileStore::on_device(device.clone()).expect("a store"));
        let tape = device.tape();
        for again in 0..=tape.steps.len() {
            let content = tape.after_power_cut(again, &mut rng);
            first.check(before, content, "second power cut");
        }
    }
}

#[test]
fn a_store_goes_on_after_a_power_cut() {
    let mut rng = Rng::with_seed(4);
    let mut content = Vec::new();
    let mut table = Table::new();
    for round in 0..20 {
        let life = Life::of(round, 10, content);
        assert_eq!(life.states[0], table, "round {round}");
        let before = rng.usize(life.said[0].1..=life.tape.steps.len());
        content = life.tape.after_power_cut(before, &mut rng);
        let mut store = FileStore::on_device(Device::with(content.clone())).expect("a store");
        table = load(&mut store).expect("readable");
        assert!(life.possible(before).contains(&table), "round {round}");
    }
}
