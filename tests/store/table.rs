//! What a store holds, and a store that waits for its disk.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;

use coracle::{Batch, FileStore, Store, StoreError, block_on};
use fastrand::Rng;

/// What is in a store.
pub(crate) type Table = BTreeMap<u64, Vec<u8>>;

/// Commits a batch and waits until it is on disk.
pub(crate) fn commit(store: &mut FileStore, batch: Batch) -> Result<(), StoreError> {
    store.submit(batch);
    block_on(poll_fn(|cx| store.poll_committed(cx)))
}

/// Everything that is in a store which was opened just now.
pub(crate) fn load(store: &mut FileStore) -> Result<Table, StoreError> {
    let records = store.load()?;
    let keys: Vec<u64> = records.iter().map(coracle::Record::key).collect();
    assert!(
        keys.is_sorted_by(|one, next| one < next),
        "ascending: {keys:?}"
    );
    Ok(records
        .iter()
        .map(|record| (record.key(), record.value().to_vec()))
        .collect())
}

/// The same of a file.
pub(crate) fn read(path: &Path) -> Result<Table, StoreError> {
    load(&mut FileStore::open(path)?)
}

/// A batch as a client under load makes them: messages come, a little later they go.
pub(crate) fn batch(rng: &mut Rng) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..rng.usize(1..8) {
        let key = rng.u64(0..64);
        if rng.u8(0..5) < 3 {
            let length = match rng.u8(0..20) {
                0 => rng.usize(0..20_000),
                _ => rng.usize(0..300),
            };
            let byte = rng.u8(..);
            batch.put(key, &vec![byte; length]);
        } else {
            batch.remove(key);
        }
    }
    batch
}
