//! What a part of a test stands on: a program of the system, a port, a directory.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Debian keeps servers where only root looks for programs.
const PLACES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Ports below those that the kernel gives to connections: while a server is down, a client that tries
/// again must not be given the server's port as its own, because it would then connect to itself.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// How often something is looked at that says nothing when it changes.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// How often it is looked at before it counts as never: 20 s.
pub(crate) const GLANCES: u32 = 4_000;

/// Tells the ports and the directories of one test process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory, gone with its owner.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        loop {
            let nth = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("coracle-test-{}-{nth}", process::id());
            let directory = std::env::temp_dir().join(name);
            match fs::create_dir(&directory) {
                Ok(()) => return Self { directory },
                // An earlier process of this number was killed, and has left it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", directory.display()),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where a program is.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PLACES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "`{name}` is missing, and these tests are worth nothing without it: install it (Debian: \
                 apt-get install mosquitto mosquitto-clients microsocks tinyproxy openssl)"
            )
        })
}

/// A port that nobody listens on now. Other processes look for ports too, so it may be taken meanwhile.
pub(crate) fn free_port() -> u16 {
    listener()
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// A listener on a port that is ours; where to begin to look differs by process and by call.
pub(crate) fn listener() -> TcpListener {
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let count = PORTS.end - PORTS.start;
    let begin = process::id()
        .wrapping_mul(61)
        .wrapping_add(nth.wrapping_mul(211));
    (0..count)
        .map(|step| PORTS.start + (begin.wrapping_add(step)) % count)
        .filter_map(|port| u16::try_from(port).ok())
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .expect("a free port on the loopback interface")
}
