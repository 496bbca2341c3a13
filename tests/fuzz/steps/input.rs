//! Choices out of bytes: what a run does is all in its input, so that a fuzzer can change one thing of it.

use coracle::Version;

/// Where every run's clock starts. From here on all time is computed.
#[expect(
    clippy::disallowed_methods,
    reason = "the one door: std makes no instant from nothing"
)]
pub(crate) fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}

/// The bytes that no choice was made from yet. Behind their end all are 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// The next bytes, `count` of them if so many are there.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn version(&mut self) -> Version {
        // Most of what can go wrong is in 5.0.
        self.pick(&[Version::V5_0, Version::V3_1_1, Version::V5_0, Version::V3_1])
    }
}
