//! Runs a program to its end, or beside the test, with everything that it says kept for the message of a failure.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::PATIENCE;

/// A program that has ended.
pub struct Ran {
    /// As it was typed.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Fails unless it ended with that code.
    #[track_caller]
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self
    }

    /// The lines of its standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// The objects of its standard output, one a line.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// A field of each object.
    #[track_caller]
    pub fn texts(&self, field: &str) -> Vec<String> {
        let text = |value: &serde_json::Value| value[field].as_str().map(str::to_string);
        self.json()
            .iter()
            .map(|value| text(value).unwrap_or_else(|| panic!("no text {field} in {value}\n{self:?}")))
            .collect()
    }

    /// A field of each object.
    #[track_caller]
    pub fn numbers(&self, field: &str) -> Vec<u64> {
        self.json()
            .iter()
            .map(|value| {
                value[field]
                    .as_u64()
                    .unwrap_or_else(|| panic!("no number {field} in {value}\n{self:?}"))
            })
            .collect()
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran { command, status, .. } = self;
        write!(
            f,
            "\n$ {command}\n{status}\n--- stdout\n{}\n--- stderr\n{}",
            end_of(&self.stdout),
            end_of(&self.stderr)
        )
    }
}

/// The last lines of a text.
pub fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// A program that runs beside the test; killed when this is dropped.
pub struct Running {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

fn collect(from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            shared
                .lock()
                .expect("no reader panics")
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (text, reader)
}

/// Starts a program with its standard input open.
#[track_caller]
pub fn spawn(mut command: Command) -> Running {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdin = child.stdin.take();
    let (stdout, out) = collect(child.stdout.take().expect("it is piped"));
    let (stderr, err) = collect(child.stderr.take().expect("it is piped"));
    Running {
        command: shown,
        child,
        stdin,
        stdout,
        stderr,
        readers: vec![out, err],
    }
}

/// Runs a program to its end, with that as its standard input.
#[track_caller]
pub fn run(command: Command, stdin: &str) -> Ran {
    let mut running = spawn(command);
    running.say(stdin);
    running.end()
}

impl Running {
    /// Writes to its standard input. A program that has ended doesn't read it; what it ended with tells more.
    pub fn say(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(text.as_bytes());
        }
    }

    /// What it has written to standard output until now, in whole lines.
    pub fn output(&self) -> String {
        self.stdout.lock().expect("no reader panics").clone()
    }

    /// Closes its standard input and waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child of ours") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        let ended = status.is_some();
        if !ended {
            let _ = self.child.kill();
        }
        let status = status.unwrap_or_else(|| self.child.wait().expect("a child of ours"));
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let text = |of: &Mutex<String>| of.lock().expect("no reader panics").clone();
        let ran = Ran {
            command: self.command.clone(),
            status,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
        };
        assert!(ended, "it did not end by itself: {ran:?}");
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = |of: &Mutex<String>| of.lock().map(|text| end_of(&text)).unwrap_or_default();
            eprintln!(
                "\n$ {} (still running)\n{}\n{}",
                self.command,
                text(&self.stdout),
                text(&self.stderr)
            );
        }
    }
}
