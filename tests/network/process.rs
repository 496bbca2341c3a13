//! A program of the system, beside a test or as a step of it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use smol::Timer;

use crate::ground::{GLANCE, GLANCES, Scratch, free_port, program};

/// A running program, ended with its owner.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    scratch: Scratch,
}

impl Process {
    /// Starts a program that is told nothing more than its arguments.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_with(name, "", |_| words(arguments))
    }

    /// Starts a program that reads this text and then the end.
    pub(crate) fn start_telling(name: &str, arguments: &[&str], input: &str) -> Self {
        Self::start_with(name, input, |_| words(arguments))
    }

    /// Starts a server that listens at a port of its choice among the arguments, and waits until it does.
    /// `prepare` may put files into the directory of the program.
    pub(crate) async fn serve(
        name: &str,
        prepare: impl Fn(&Path, u16) -> Vec<String>,
    ) -> (Self, u16) {
        let mut said = String::new();
        // Other processes look for ports too, so one that was free may be taken meanwhile.
        for _ in 0..20 {
            let port = free_port();
            let mut server = Self::start_with(name, "", |directory| prepare(directory, port));
            if server.accepts(port).await {
                return (server, port);
            }
            said = server.log();
        }
        panic!("{name} does not start:\n{said}");
    }

    /// Everything it has said, on both outputs.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.scratch.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has said this.
    pub(crate) async fn said(&self, text: &str) {
        for _ in 0..GLANCES {
            if self.log().contains(text) {
                return;
            }
            Timer::after(GLANCE).await;
        }
        panic!("{} never said {text:?}:\n{}", self.name, self.log());
    }

    /// Waits for its end. Returns how it ended and what it has said.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, String) {
        for _ in 0..GLANCES {
            if let Some(status) = self.child.try_wait().expect("the program is our child") {
                return (status, self.log());
            }
            Timer::after(GLANCE).await;
        }
        panic!("{} does not end:\n{}", self.name, self.log());
    }

    /// Waits for its good end. Returns what it has said.
    pub(crate) async fn succeeded(&mut self) -> String {
        let (status, said) = self.ended().await;
        assert!(status.success(), "{}: {status}:\n{said}", self.name);
        said
    }

    /// Waits for its bad end. Returns what it has said.
    pub(crate) async fn failed(&mut self) -> String {
        let (status, said) = self.ended().await;
        assert!(!status.success(), "{}: {status}:\n{said}", self.name);
        said
    }

    fn start_with(name: &str, input: &str, prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let scratch = Scratch::new();
        let file = scratch.path().join("input");
        fs::write(&file, input).expect("a file for the input");
        let log = File::create(scratch.path().join("log")).expect("a log");
        let child = Command::new(program(name))
            .args(prepare(scratch.path()))
            .stdin(File::open(file).expect("the input"))
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            scratch,
        }
    }

    /// Whether it comes to accept connections; it ends if it cannot have its port.
    async fn accepts(&mut self, port: u16) -> bool {
        for _ in 0..GLANCES {
            Timer::after(GLANCE).await;
            if self.has_ended() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                // On a port that someone else has, someone else accepts; then the program is about to end.
                Timer::after(GLANCE * 4).await;
                return !self.has_ended();
            }
        }
        false
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait().expect("the program is our child");
        ended.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.log());
        }
    }
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}
