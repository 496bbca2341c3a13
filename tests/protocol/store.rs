//! With a store: what is on disk before what leaves, and what the next process makes of it.

use super::*;

impl Scene {
    /// A process begins with what is on this disk.
    pub(super) fn boot(&mut self, disk: Disk) {
        let restored = self
            .protocol
            .restore(self.now, Duration::from_secs(1_800_000_000), &disk.read())
            .expect("the records are whole");
        self.got
            .extend(restored.kept.into_iter().map(|(kept, message)| Got {
                message,
                receipt: None,
                kept: Some(kept),
            }));
        self.disk = Some(disk);
    }
}
