//! Brings a store of its own: an append-only log in a file, as a device keeps it on flash.
//!
//! ```text
//! cargo run --example own_store              with a broker inside of the process; ends by itself
//! ```
//!
//! Three methods make a store. Here they block for as long as the medium takes to write, which is fair where
//! that is a millisecond; a slower one is written on a thread of its own, as `FileStore` does.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll};

use coracle::testkit::{BrokerOptions, Server};
use coracle::{
    Batch, Change, Client, Event, LocalExecutor, Options, Qos, Record, Store, StoreError, Wait,
    block_on,
};
use futures_lite::future;

/// A log of batches, each with its length and a checksum in front. One that was torn by a loss of power is
/// the last, and counts as not written: so a batch is there as a whole or not at all.
struct Log {
    path: PathBuf,
    file: Option<File>,
    written: Result<(), StoreError>,
}

type Table = BTreeMap<u64, Vec<u8>>;

impl Log {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            written: Ok(()),
        }
    }

    fn open(&mut self) -> io::Result<Table> {
        let log = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let mut table = Table::new();
        let mut rest = log.as_slice();
        while let Some((batch, behind)) = next_batch(rest) {
            apply(batch, &mut table);
            rest = behind;
        }
        // What is still true becomes a log of one batch; it takes the place of the old one at once.
        let mut all = Batch::new();
        for (key, value) in &table {
            all.put(*key, value);
        }
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&framed(&all))?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        sync_directory(&self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(table)
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(&framed(batch))?;
        file.sync_data()
    }
}

impl Store for Log {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let table = self.open();
        let table = table.map_err(|error| StoreError::io("opening", &self.path, error))?;
        let records = table.into_iter();
        Ok(records
            .map(|(key, value)| Record::new(key, value))
            .collect())
    }

    fn submit(&mut self, batch: Batch) {
        let written = self.append(&batch);
        self.written = written.map_err(|error| StoreError::io("writing", &self.path, error));
    }

    fn poll_committed(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(self.written.clone())
    }
}

/// Makes a new name durable: without it a loss of power may bring the old log back, and with it lose every
/// batch that was appended to the new one. Only Unix lets a directory be opened like that.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        let named = !directory.as_os_str().is_empty();
        let directory = if named { directory } else { Path::new(".") };
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// The batch as it stands in the log.
fn framed(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.bytes() + 13 * batch.len());
    for change in batch.iter() {
        let (key, value) = match change {
            Change::Put(key, value) => (key, Some(value)),
            Change::Remove(key) => (key, None),
        };
        bytes.extend(key.to_le_bytes());
        // A length that no value has stands for a removal.
        let length = value.map_or(u32::MAX, |value| value.len() as u32);
        bytes.extend(length.to_le_bytes());
        bytes.extend(value.unwrap_or_default());
    }
    let mut framed = (bytes.len() as u64).to_le_bytes().to_vec();
    framed.extend(checksum(&bytes).to_le_bytes());
    framed.extend(bytes);
    framed
}

/// The first batch of a log, and what follows it; none if it is not whole.
fn next_batch(log: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, log) = log.split_first_chunk()?;
    let (sum, log) = log.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (batch, rest) = log.split_at_checked(length)?;
    (checksum(batch) == u64::from_le_bytes(*sum)).then_some((batch, rest))
}

fn apply(mut batch: &[u8], table: &mut Table) {
    while let Some((key, rest)) = batch.split_first_chunk()
        && let Some((length, rest)) = rest.split_first_chunk()
    {
        let key = u64::from_le_bytes(*key);
        batch = match u32::from_le_bytes(*length) {
            u32::MAX => {
                table.remove(&key);
                rest
            }
            length => {
                let (value, rest) = rest.split_at(rest.len().min(length as usize));
                table.insert(key, value.to_vec());
                rest
            }
        };
    }
}

/// FNV-1a. It finds what was torn; against bits that rot a device takes a better one.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("coracle-own-store-{}.log", std::process::id()));
    let executor = Rc::new(LocalExecutor::new());
    let told = block_on(executor.run(lives(&executor, path.clone())));
    fs::remove_file(path)?;
    told
}

async fn lives(executor: &LocalExecutor<'_>, path: PathBuf) -> Result<(), Box<dyn Error>> {
    // The first life: nobody listens there, and the process ends before anybody does.
    let options = Options::new("mqtt://localhost:9", "pump-1")?.store(Log::new(path.clone()));
    let (client, driver) = Client::new(options);
    let running = executor.spawn(driver.run());
    for reading in ["20.1", "20.4"] {
        client
            .publish("pump/temp", reading, Qos::ExactlyOnce, Wait::None)
            .await?;
    }
    while fs::metadata(&path).map_or(0, |log| log.len()) < 100 {
        future::yield_now().await;
    }
    drop((running, client));
    println!("the first life has ended, offline");

    // The second one finds them, and a broker.
    let server = Server::bind(BrokerOptions::new())?;
    let url = format!("mqtt://{}", server.address());
    executor.spawn(server.run()).detach();
    let options = Options::new(&url, "pump-1")?
        .store(Log::new(path))
        // For an example, which is to end. A device leaves this out and tries for ever.
        .give_up_when(|_error, _failed| true);
    let (client, driver) = Client::new(options);
    let mut events = client.events();
    let mut readings = client
        .subscribe("pump/temp", Qos::ExactlyOnce, Wait::None)
        .await?;
    let listen = async {
        while let Some(event) = events.next().await {
            if let Event::Restored { outgoing, .. } = event {
                println!("{outgoing} messages were in the log");
            }
        }
        Ok(())
    };
    let talk = async {
        for _ in 0..2 {
            if let Some(message) = readings.next().await {
                println!("{}: {:?}", message.topic(), message.text());
            }
        }
        client.disconnect().await
    };
    future::try_zip(driver.run(), future::try_zip(talk, listen)).await?;
    Ok(())
}
