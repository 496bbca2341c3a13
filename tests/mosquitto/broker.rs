//! A mosquitto of one test: a process, a port and a directory of its own, gone with the test.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use smol::Timer;

use crate::ground::{GLANCE, GLANCES, Scratch, free_port, program};

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

/// A mosquitto, running or stopped.
#[derive(Debug)]
pub(crate) struct Broker {
    scratch: Scratch,
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
    pub(crate) async fn start_with(prepare: impl Fn(&Path) -> String) -> Self {
        Self::start_at(|directory, []| prepare(directory)).await
    }

    /// Starts a mosquitto with settings that depend on more ports, for further listeners of its own.
    /// What they are made from is called again with other ports when one of them turns out to be taken.
    pub(crate) async fn start_at<const COUNT: usize>(
        prepare: impl Fn(&Path, [u16; COUNT]) -> String,
    ) -> Self {
        // From here on its drop cleans up.
        let mut broker = Self {
            scratch: Scratch::new(),
            port: 0,
            running: None,
        };
        // Other processes look for ports too, so the first one that is free may be taken meanwhile.
        for _ in 0..20 {
            broker.port = free_port();
            let more = [(); COUNT].map(|()| free_port());
            broker.configure(&prepare(broker.scratch.path(), more));
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
        // By the shell, which has it built in: the program is not everywhere.
        let sent = Command::new("sh")
            .args(["-c", "kill \"-$0\" \"$1\"", signal])
            .arg(child.id().to_string())
            .status()
            .expect("a shell");
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
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    fn configure(&self, settings: &str) {
        let text = format!(
            "listener {} 127.0.0.1\n{COMMON}persistence_location {}/\n{settings}",
            self.port,
            self.scratch.path().display(),
        );
        fs::write(self.scratch.path().join("mosquitto.conf"), text)
            .expect("mosquitto.conf is written");
    }

    /// Starts the process. Returns whether it came to accept connections; it ends if it cannot have
    /// its port.
    async fn launch(&mut self) -> bool {
        let said_before = self.log().matches(" running\n").count();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch.path().join("log"))
            .expect("a log for mosquitto");
        let child = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(self.scratch.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto");
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
    }
}
