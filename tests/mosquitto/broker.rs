//! A mosquitto of one test: a process, a port and a directory of its own, gone with the test.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smol::Timer;

/// Debian keeps mosquitto where only root looks for programs.
const PLACES: [&str; 3] = [
    "mosquitto",
    "/usr/sbin/mosquitto",
    "/usr/local/sbin/mosquitto",
];

/// What every mosquitto of these tests has. It runs as root if the tests do, because its directory is
/// theirs, and its queues have no bound, so that what gets lost was not lost here.
const COMMON: &str = "\
user root
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
log_type subscribe
log_type unsubscribe
set_tcp_nodelay true
max_queued_messages 0
";

/// Lets anyone in.
pub(crate) const OPEN: &str = "allow_anonymous true\n";

/// Lets anyone in, and writes what it holds to disk when it is stopped and when it is told to.
pub(crate) const PERSISTENT: &str = "\
allow_anonymous true
persistence true
autosave_interval 0
";

/// Ports below those that the kernel gives to connections: while a broker is down, a client that tries
/// again must not be given the broker's port as its own, because it would then connect to itself.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// How often something is looked at that says nothing when it changes.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// How often it is looked at before it counts as never: 20 s.
pub(crate) const GLANCES: u32 = 4_000;

/// Tells the brokers of one test process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A mosquitto, running or stopped.
#[derive(Debug)]
pub(crate) struct Broker {
    directory: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Broker {
    /// Starts a mosquitto that lets anyone in and keeps nothing.
    pub(crate) async fn open() -> Self {
        Self::start(OPEN).await
    }

    /// Starts a mosquitto with these settings beside the common ones.
    pub(crate) async fn start(settings: &str) -> Self {
        Self::start_with(|_| settings.to_owned()).await
    }

    /// Starts a mosquitto with settings that depend on its directory, in which `prepare` may put files.
    pub(crate) async fn start_with(prepare: impl FnOnce(&Path) -> String) -> Self {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("coracle-mosquitto-{}-{nth}", process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory for mosquitto");
        // From here on its drop cleans up.
        let mut broker = Self {
            directory,
            port: 0,
            running: None,
        };
        let settings = prepare(&broker.directory);
        // Other processes look for ports too, so the first one that is free may be taken meanwhile.
        for attempt in 0..20 {
            broker.port = free_port(nth + attempt * 97);
            broker.configure(&settings);
            if broker.launch().await {
                return broker;
            }
        }
        panic!("mosquitto does not start:\n{}", broker.log());
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in order, also if it is frozen: it saves what it holds, if it is to keep it.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        self.signal("CONT");
        self.ended().await;
    }

    /// Ends it like a power cut.
    pub(crate) async fn kill(&mut self) {
        let child = self.running.as_mut().expect("mosquitto runs");
        child.kill().expect("mosquitto is ours to kill");
        self.ended().await;
    }

    /// Starts it again on the same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "mosquitto is stopped first");
        assert!(self.launch().await, "mosquitto does not start again");
    }

    /// Sends it a signal: `STOP` freezes it, `USR1` makes it save.
    pub(crate) fn signal(&self, signal: &str) {
        let child = self.running.as_ref().expect("mosquitto runs");
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(child.id().to_string())
            .status()
            .expect("the program `kill`");
        assert!(sent.success(), "kill -{signal}: {sent}");
    }

    /// Waits until its log has this text at least `times` times.
    pub(crate) async fn logged(&self, text: &str, times: usize) {
        for _ in 0..GLANCES {
            if self.log().matches(text).count() >= times {
                return;
            }
            Timer::after(GLANCE).await;
        }
        panic!("mosquitto never said {text:?}");
    }

    /// Everything it has said since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn configure(&self, settings: &str) {
        let text = format!(
            "listener {} 127.0.0.1\n{COMMON}persistence_location {}/\n{settings}",
            self.port,
            self.directory.display(),
        );
        fs::write(self.directory.join("mosquitto.conf"), text).expect("mosquitto.conf is written");
    }

    /// Starts the process. Returns whether it came to accept connections; it ends if it cannot have
    /// its port.
    async fn launch(&mut self) -> bool {
        let said_before = self.log().matches(" running\n").count();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .expect("a log for mosquitto");
        let child = spawn(&self.directory.join("mosquitto.conf"), &log);
        self.running = Some(child);
        for _ in 0..GLANCES {
            Timer::after(GLANCE).await;
            if self.has_ended().is_some() {
                return false;
            }
            // Its own word first: on a port that someone else has, someone else accepts.
            if self.log().matches(" running\n").count() > said_before
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            {
                return true;
            }
        }
        false
    }

    async fn ended(&mut self) {
        for _ in 0..GLANCES {
            if self.has_ended().is_some() {
                return;
            }
            Timer::after(GLANCE).await;
        }
        panic!("mosquitto does not end");
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        let child = self.running.as_mut()?;
        let status = child.try_wait().expect("mosquitto is our child")?;
        self.running = None;
        Some(status)
    }
}

impl Drop for Broker {
    /// Leaves nothing behind, whatever the test came to.
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.len().saturating_sub(60);
            eprintln!("the end of mosquitto's log:\n{}", lines[last..].join("\n"));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(configuration: &Path, log: &File) -> Child {
    for program in PLACES {
        let spawned = Command::new(program)
            .arg("-c")
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().expect("a second handle of the log"))
            .spawn();
        match spawned {
            Ok(child) => return child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{program}: {error}"),
        }
    }
    panic!("{}", missing("mosquitto"));
}

/// What to do about a program that is not there.
pub(crate) fn missing(program: &str) -> String {
    format!(
        "`{program}` is missing, and these tests are worth nothing without it: install mosquitto and its \
         clients (Debian: apt-get install mosquitto mosquitto-clients)"
    )
}

/// A port that nobody listens on now; where to begin to look differs by process and by broker.
fn free_port(nth: u32) -> u16 {
    let count = PORTS.end - PORTS.start;
    let begin = process::id()
        .wrapping_mul(61)
        .wrapping_add(nth.wrapping_mul(211));
    (0..count)
        .map(|step| PORTS.start + (begin.wrapping_add(step)) % count)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port on the loopback interface")
}
