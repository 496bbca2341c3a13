//! What a store holds, damaged in any way: it is refused and nothing came of it, or it is a session that
//! goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle::protocol::record::Entry;
use coracle::{Record, Version};

use super::application::settings;
use super::input::{Input, epoch};
use super::rig::Rig;

/// The date of each run.
const TODAY: Duration = Duration::from_secs(1_700_000_000);

/// Input: settings, then records: the kind and number of the key, a length, and the value.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut config, _) = settings(&mut input);
    config.stored = true;
    let mut values: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    while !input.is_empty() {
        let kind = u64::from(input.u8() & 7);
        let number = match input.u8() {
            which @ 0..0xF0 => u64::from(which & 7),
            0xF0.. => u64::from(input.u16()),
        };
        let length = input.u8();
        // Nearly every value begins with the number of the format.
        let mut value = if length & 0x80 == 0 {
            vec![1]
        } else {
            Vec::new()
        };
        value.extend_from_slice(input.take(usize::from(length & 0x7F)));
        values.insert(kind << 56 | number, value);
    }
    let records: Vec<Record> = values
        .into_iter()
        .map(|(key, value)| Record::new(key, value))
        .collect();
    for record in &records {
        if let Ok(entry) = Entry::read(record) {
            let mut value = Vec::new();
            entry.write(&mut value);
            let again = Record::new(entry.key().number(), value);
            assert_eq!(again.key(), record.key());
            let again = Entry::read(&again).expect("what was read can be written");
            assert_eq!(format!("{entry:?}"), format!("{again:?}"));
        }
    }
    let mut rig = Rig::new(config, None);
    let restored = rig.protocol.restore(epoch(), TODAY, &records);
    let Ok(restored) = restored else {
        assert_eq!(rig.protocol.unfinished(), 0);
        assert_eq!(rig.protocol.identifiers(), 0);
        return rig.drain();
    };
    for (kept, _message) in restored.kept {
        rig.protocol.let_go(kept);
    }
    rig.version = rig.protocol.config().version;
    // 3.1 does not connect under a longer identifier, and says so.
    if rig.version == Version::V3_1 && rig.protocol.client_id() != "c" {
        return;
    }
    let identifiers = rig.protocol.identifiers();
    rig.observer.restored(rig.version, identifiers);
    rig.drain();
}
