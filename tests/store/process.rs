//! This program once more, in a process of its own that can be prepared, watched and killed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::{env, io, mem, thread};

use crate::ground::{GLANCE, GLANCES};

/// Tells a test that was started again what it is to work on.
const PART: &str = "CORACLE_STORE_PART";

/// What this process is to work on, if it is one that a test has started.
pub(crate) fn part() -> Option<PathBuf> {
    env::var_os(PART).map(PathBuf::from)
}

/// Says a line to the test that has started this process. It has left the process when this returns, so
/// that it stays said when the process is killed.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .expect("somebody listens");
}

/// A test of this program in a process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a test again. Its environment gets `part` and these variables.
    pub(crate) fn start(test: &str, part: &Path, variables: &[(&str, &str)]) -> Self {
        let program = env::current_exe().expect("this program has a path");
        Self::start_by(Command::new(program), test, part, variables)
    }

    /// The same by a shell, at the end of whose commands stands `exec "$@"`.
    pub(crate) fn start_prepared(shell: &[&str], test: &str, part: &Path) -> Self {
        let program = env::current_exe().expect("this program has a path");
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg("sh").arg(program);
        Self::start_by(command, test, part, &[])
    }

    fn start_by(mut command: Command, test: &str, part: &Path, more: &[(&str, &str)]) -> Self {
        let mut child = command
            .args([test, "--exact", "--nocapture"])
            .env(PART, part)
            // With one thread the test harness begins each line that a test says.
            .env("RUST_TEST_THREADS", "2")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.lock()
                    .expect("nothing panics under this lock")
                    .push(line);
            }
        });
        Self {
            name: test.to_owned(),
            child,
            said,
            reader: Some(reader),
        }
    }

    /// How many lines it has said that begin like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        let said = self.said.lock().expect("nothing panics under this lock");
        said.iter().filter(|line| line.starts_with(start)).count()
    }

    /// How the lines go on that begin like this.
    pub(crate) fn ends_of(&self, start: &str) -> Vec<String> {
        let said = self.said.lock().expect("nothing panics under this lock");
        said.iter()
            .filter_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until it has said so many lines that begin like this.
    pub(crate) fn said(&self, start: &str, times: usize) {
        for _ in 0..GLANCES {
            if self.count(start) >= times {
                return;
            }
            thread::sleep(GLANCE);
        }
        panic!("{} never said {start:?}", self.name);
    }

    /// Kills it like `kill -9`. Returns everything it has said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it is ours to kill");
        let (status, said) = self.end();
        assert_eq!(
            status.signal(),
            Some(9),
            "{} ended by itself: {said:#?}",
            self.name
        );
        said
    }

    /// Waits for its end. Returns how it ended and everything it has said.
    pub(crate) fn end(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("it is ours");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
        let mut said = self.said.lock().expect("nothing panics under this lock");
        (status, mem::take(&mut said))
    }

    /// Waits for its good end. Returns everything it has said.
    pub(crate) fn succeeded(mut self) -> String {
        let (status, said) = self.end();
        let said = said.join("\n");
        assert!(status.success(), "{}: {status}:\n{said}", self.name);
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
