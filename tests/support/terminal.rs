//! A program at a pseudo-terminal of its own, which is its controlling one, so that Ctrl-C is a signal where the program wants it
//! to be. A thread reads all that it writes, so it never waits for the test.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::PATIENCE;
use super::run::end_of;
use super::screen::{COLUMNS, ROWS, Screen};

/// What the prompt of the chat begins with.
const PROMPT: &str = ">";

/// All that a program has written.
#[derive(Default)]
struct Seen {
    raw: Vec<u8>,
    /// Up to here `raw` is on the screen: characters come in pieces.
    shown: usize,
    screen: Screen,
}

impl Seen {
    fn more(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        let new = &self.raw[self.shown..];
        let whole = match std::str::from_utf8(new) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => new.len(),
        };
        self.screen.write(&String::from_utf8_lossy(&new[..whole]));
        self.shown += whole;
    }
}

/// A program at a terminal; killed when this is dropped.
pub struct Terminal {
    command: String,
    child: Child,
    keyboard: File,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// Starts a program at a new terminal.
    #[track_caller]
    pub fn start(program: &Command) -> Terminal {
        let shown = format!("{program:?}");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("the system has pseudo-terminals");
        grantpt(&ours).expect("a terminal of ours");
        unlockpt(&ours).expect("a terminal of ours");
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).expect("a terminal of ours");
        let name = ptsname(&ours, Vec::new()).expect("a terminal of ours");
        use std::os::unix::fs::OpenOptionsExt;
        let theirs = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
            .open(OsStr::from_bytes(name.as_bytes()))
            .expect("a terminal of ours");
        // It becomes the program itself, so the child is the program.
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args());
        command.env_clear();
        for (key, value) in program.get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(dir) = program.get_current_dir() {
            command.current_dir(dir);
        }
        let end = || theirs.try_clone().expect("a descriptor is left");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let keyboard = File::from(ours);
        let mut from = keyboard.try_clone().expect("a descriptor is left");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        // Ends when the program has.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                shared.lock().expect("no reader panics").more(&bytes[..n]);
            }
        });
        Terminal {
            command: shown,
            child,
            keyboard,
            seen,
        }
    }

    /// Presses keys.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("a terminal takes a line");
    }

    /// All that was written, with its escape sequences.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no reader panics").raw).into_owned()
    }

    /// All rows.
    pub fn rows(&self) -> Vec<String> {
        self.seen.lock().expect("no reader panics").screen.rows()
    }

    /// How many rows contain that.
    pub fn count(&self, text: &str) -> usize {
        self.rows().iter().filter(|row| row.contains(text)).count()
    }

    fn cursor_row(&self) -> String {
        self.seen.lock().expect("no reader panics").screen.cursor_row()
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Terminal) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}: {self:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a row contains that; gives the last such row.
    #[track_caller]
    pub fn sees(&self, text: &str) -> String {
        self.until(&format!("{text:?} is shown"), |at| at.count(text) > 0);
        let rows = self.rows();
        rows.into_iter().rfind(|row| row.contains(text)).unwrap_or_default()
    }

    /// Waits until the prompt holds just that.
    #[track_caller]
    pub fn prompts(&self, text: &str) {
        let row = format!("{PROMPT} {text}");
        self.until(&format!("{row:?} is the prompt"), |at| {
            at.cursor_row() == row.trim_end()
        });
    }

    /// Types at the prompt, which may hold something already, without Enter; waits until it is shown.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        self.until("the prompt is there", |at| at.cursor_row().starts_with(PROMPT));
        self.keys(text);
        self.until(&format!("{text:?} stands at the prompt"), |at| {
            at.cursor_row().ends_with(text.trim_end())
        });
    }

    /// Types a line at an empty prompt, and waits for the next prompt.
    #[track_caller]
    pub fn enters(&mut self, line: &str) {
        self.enters_last(line);
        self.prompts("");
    }

    /// Types a line at an empty prompt, after which there is no other.
    #[track_caller]
    pub fn enters_last(&mut self, line: &str) {
        self.prompts("");
        self.types(line);
        self.keys("\r");
    }

    /// Waits for its end; gives the exit code.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it doesn't end: {self:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n$ {}\n{}", self.command, end_of(&self.rows().join("\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{self:?}");
        }
    }
}
