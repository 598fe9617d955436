//! Who writes while the power goes: each to a room of its own, line after line, and what was acknowledged is counted.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use syncnet::rng::mix;

/// Lines on their way at most.
const UNACKNOWLEDGED: u64 = 24;
/// Lines of one `send --id`.
const BATCH: u64 = 20;

/// The text of a line. Some are longer than a page.
pub fn text(room: &str, line: u64) -> String {
    let random = mix(line);
    let length = match random % 16 {
        0 => 9000 + random / 16 % 3000,
        1..=3 => random / 16 % 3000,
        _ => random / 16 % 200,
    };
    format!("{room} {line} {}", "x".repeat(length as usize))
}

/// One who writes; ends with this.
pub struct Writer {
    /// The room.
    pub room: &'static str,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

/// What the thread of a writer knows.
struct Shared {
    room: &'static str,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
}

impl Writer {
    /// One `syncnet send` that lives as long as the writer. `command` runs `syncnet`.
    pub fn stream(room: &'static str, command: impl Fn() -> Command + Send + 'static) -> Writer {
        Writer::new(room, move |shared| stream(&shared, command()))
    }

    /// A `syncnet send --id` after the other. One that is interrupted is run again.
    pub fn keyed(room: &'static str, command: impl Fn() -> Command + Send + 'static) -> Writer {
        Writer::new(room, move |shared| keyed(&shared, command))
    }

    fn new(room: &'static str, run: impl FnOnce(Shared) -> Result<(), String> + Send + 'static) -> Writer {
        let (acknowledged, stop, interrupt) = (Arc::default(), Arc::default(), Arc::default());
        let shared = Shared {
            room,
            acknowledged: Arc::clone(&acknowledged),
            stop: Arc::clone(&stop),
            interrupt: Arc::clone(&interrupt),
        };
        Writer {
            room,
            acknowledged,
            stop,
            interrupt,
            thread: Some(std::thread::spawn(move || run(shared))),
        }
    }

    /// How many lines are acknowledged: all up to this one.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Kills the program that is writing.
    pub fn interrupt(&self) {
        self.interrupt.store(true, Ordering::SeqCst);
    }

    /// Ends the writer.
    ///
    /// # Panics
    /// If something was wrong with what it was told.
    pub fn end(mut self) {
        if let Err(text) = self.join() {
            panic!("{}: {text}", self.room);
        }
    }

    /// Whether it has ended, which it doesn't by itself unless something is wrong.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| Err("its thread panicked".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn spawn(mut command: Command) -> Result<Child, String> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    child.map_err(|error| format!("syncnet can't be started: {error}"))
}

/// Reads acknowledgements, which must come one after the other; `before` lines had them before the first.
fn read(shared: &Shared, stdout: ChildStdout, before: u64) -> JoinHandle<Result<(), String>> {
    let (room, acknowledged) = (shared.room, Arc::clone(&shared.acknowledged));
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for (next, line) in (1..).zip(lines) {
            let value: serde_json::Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            // Only its writer writes to a room, so a line has its number there too.
            let expected = (Some(next), Some(before + next), Some(room));
            if (value["line"].as_u64(), value["seq"].as_u64(), value["room"].as_str()) != expected {
                return Err(format!("line {next} of {room}, {before} before it: {line}"));
            }
            acknowledged.fetch_max(before + next, Ordering::SeqCst);
        }
        Ok(())
    })
}

fn stream(shared: &Shared, mut command: Command) -> Result<(), String> {
    command.args(["send", "--json", "--timeout", "0", shared.room]);
    let mut child = spawn(command)?;
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let reader = read(shared, stdout.ok_or("no pipe")?, 0);
    let mut said = 0;
    let mut outcome = Ok(());
    while !shared.stop.load(Ordering::SeqCst) {
        if reader.is_finished() {
            outcome = Err("it has ended".to_owned());
            break;
        }
        if said < shared.acknowledged.load(Ordering::SeqCst) + UNACKNOWLEDGED
            && let Some(stdin) = &mut stdin
        {
            said += 1;
            let _ = stdin.write_all(format!("{}\n", text(shared.room, said)).as_bytes());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
    reader
        .join()
        .unwrap_or_else(|_| Err("its reader panicked".to_owned()))
        .and(outcome)
}

fn keyed(shared: &Shared, command: impl Fn() -> Command) -> Result<(), String> {
    let mut before = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let mut command = command();
        let key = format!("batch-{before}");
        command.args(["send", "--json", "--timeout", "0", "--id", &key, shared.room]);
        let mut child = spawn(command)?;
        let reader = read(shared, child.stdout.take().ok_or("no pipe")?, before);
        if let Some(mut stdin) = child.stdin.take() {
            let lines: String = (1..=BATCH).map(|n| text(shared.room, before + n) + "\n").collect();
            let _ = stdin.write_all(lines.as_bytes());
        }
        let status = loop {
            if shared.interrupt.swap(false, Ordering::SeqCst) || shared.stop.load(Ordering::SeqCst) {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                break Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        reader
            .join()
            .unwrap_or_else(|_| Err("its reader panicked".to_owned()))?;
        if let Some(status) = status {
            if !status.success() {
                return Err(format!("{key}: {status}"));
            }
            before += BATCH;
        }
    }
    Ok(())
}
