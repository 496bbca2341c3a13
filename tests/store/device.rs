//! A disk made of memory that writes down what happens to it, runs full, fails, or loses its power.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use redb::StorageBackend;

/// What a disk tears a write into when the power fails.
const SECTOR: usize = 512;

/// A handle: the test keeps one, the store another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    content: Vec<u8>,
    tape: Tape,
    trouble: Trouble,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// The disk takes this many bytes more, then there is no space left.
    Full { left: usize },
    /// The cable is pulled after this many writes, lengths and syncs.
    Broken { left: usize },
    /// A sync is not answered until the trouble is over.
    Silent,
}

/// What happened to the disk, in its order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tape {
    begin: Vec<u8>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    /// Everything before is on disk for good.
    Sync,
}

impl Device {
    /// A disk with this content.
    pub(crate) fn with(content: Vec<u8>) -> Self {
        let device = Self::default();
        device.disk().tape.begin.clone_from(&content);
        device.disk().content = content;
        device
    }

    /// A disk that has trouble.
    pub(crate) fn in_trouble(self, trouble: Trouble) -> Self {
        self.disk().trouble = trouble;
        self
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        self.disk().content.clone()
    }

    /// How many steps there were until now.
    pub(crate) fn steps(&self) -> usize {
        self.disk().tape.steps.len()
    }

    pub(crate) fn tape(&self) -> Tape {
        self.disk().tape.clone()
    }

    /// A long life needs no record.
    pub(crate) fn forget_the_tape(&self) {
        let mut disk = self.disk();
        disk.tape = Tape {
            begin: disk.content.clone(),
            steps: Vec::new(),
        };
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("nothing panics under this lock")
    }
}

impl Disk {
    /// Whether the disk can do one step more, which takes this many bytes.
    fn take(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.trouble {
            Trouble::None | Trouble::Silent => Ok(()),
            Trouble::Full { left } if *left < bytes => {
                *left = 0;
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            Trouble::Full { left } => {
                *left -= bytes;
                Ok(())
            }
            Trouble::Broken { left: 0 } => Err(io::Error::from_raw_os_error(libc::EIO)),
            Trouble::Broken { left } => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StorageBackend for Device {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let begin = usize::try_from(offset).map_err(io::Error::other)?;
        let end = begin.checked_add(out.len());
        let found = end.and_then(|end| disk.content.get(begin..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        // A file grows without taking space.
        disk.take(0)?;
        let step = Step::Length(length);
        step.replay(&mut disk.content);
        disk.tape.steps.push(step);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        while self.disk().trouble == Trouble::Silent {
            thread::sleep(Duration::from_millis(1));
        }
        let mut disk = self.disk();
        disk.take(0)?;
        disk.tape.steps.push(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.take(bytes.len())?;
        let step = Step::Write(offset, bytes.to_vec());
        step.replay(&mut disk.content);
        disk.tape.steps.push(step);
        Ok(())
    }
}

impl Step {
    fn replay(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write(content, *offset as usize, bytes),
            Self::Length(length) => content.resize(*length as usize, 0),
            Self::Sync => {}
        }
    }

    /// As much of it as the power lasted for.
    fn replay_torn(&self, content: &mut Vec<u8>, rng: &mut Rng) {
        match (self, rng.u8(0..3)) {
            (_, 0) => {}
            (Self::Write(offset, bytes), 1) => {
                for (nth, sector) in bytes.chunks(SECTOR).enumerate() {
                    if rng.bool() {
                        write(content, *offset as usize + nth * SECTOR, sector);
                    }
                }
            }
            (Self::Write(..) | Self::Length(_) | Self::Sync, _) => self.replay(content),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Tape {
    /// What is on the disk when the power fails before this step: everything up to the last sync; of what came
    /// after it some, some in part, some not.
    pub(crate) fn after_power_cut(&self, before: usize, rng: &mut Rng) -> Vec<u8> {
        let steps = &self.steps[..before];
        let synced = steps
            .iter()
            .rposition(|step| matches!(step, Step::Sync))
            .unwrap_or(0);
        let mut content = self.begin.clone();
        for step in &steps[..synced] {
            step.replay(&mut content);
        }
        for step in &steps[synced..] {
            step.replay_torn(&mut content, rng);
        }
        content
    }

    /// What a process leaves that was killed before this step: the system still writes everything.
    pub(crate) fn after_kill(&self, before: usize) -> Vec<u8> {
        let mut content = self.begin.clone();
        for step in &self.steps[..before] {
            step.replay(&mut content);
        }
        content
    }
}
