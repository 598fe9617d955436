//! The chat's terminal: a prompt with line editing and history, above which the lines of others appear without disturbing what
//! is being typed.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Editor, ExternalPrinter};

use super::model::{Do, Model};
use crate::client::calls::{Call, Event, Options};
use crate::client::link::Client;
use crate::client::programs::{self, complain};
use crate::client::render::Style;
use crate::limits;

/// An acknowledgement that takes longer is mentioned.
const SLOW: Duration = Duration::from_secs(1);

/// How long the next prompt waits for the effects of the last line. Not for ever: while no prompt is there the editor prints at most one
/// line for us, so whoever prints a second one waits for the prompt, and must not be waited for.
const TURN: Duration = Duration::from_millis(200);

/// Lines typed ahead of what the program has looked at.
const KEYS_MAX: usize = 1024;

/// What the keyboard says.
enum Key {
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// Whether both ends are a terminal; otherwise each line of standard input is a message (see `send`).
#[must_use]
pub fn is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Puts the terminal back as it was, however the program ends: the thread that edits lines may be in the middle of one.
struct Restore(Option<Termios>);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(termios) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, termios);
        }
    }
}

/// Runs it; gives the exit code. `history` is the file with the lines typed before.
#[must_use]
pub fn run(options: Options, room: String, style: Style, history: Option<PathBuf>) -> u8 {
    let name = options.name.clone();
    let started = (|| {
        let config = Config::builder()
            .max_history_size(limits::CLIENT_HISTORY_LINES_MAX)?
            .auto_add_history(true)
            .build();
        let mut editor: Editor<(), FileHistory> = Editor::with_config(config)?;
        let printer = editor.create_external_printer()?;
        let interrupts = programs::interrupts()?;
        let (client, events) = Client::start(options)?;
        Ok::<_, ReadlineError>((editor, printer, interrupts, client, events))
    })();
    let (editor, printer, interrupts, client, events) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("can't start: {error}"));
            return programs::REFUSED;
        }
    };
    let _restore = Restore(tcgetattr(std::io::stdin()).ok());
    let (next, turns) = bounded(1);
    let (keys, typed) = bounded(KEYS_MAX);
    let reading = std::thread::Builder::new()
        .name("syncnet-prompt".to_string())
        .spawn(move || read(editor, history.as_deref(), &turns, &keys));
    if let Err(error) = reading {
        complain(&format!("can't start: {error}"));
        return programs::REFUSED;
    }
    let mut chat = Chat {
        model: Model::new(name, room, style),
        client,
        printer,
        next,
        interrupted: false,
        ending: false,
    };
    chat.all(&events, &typed, &interrupts)
}

/// Reads lines, each after it was asked for the next, so that a line's effects are printed before the prompt.
fn read(mut editor: Editor<(), FileHistory>, history: Option<&Path>, turns: &Receiver<()>, keys: &Sender<Key>) {
    if let Some(file) = history {
        // Without it there is a history of this run, at least.
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = editor.load_history(file);
    }
    while turns.recv_timeout(TURN) != Err(RecvTimeoutError::Disconnected) {
        let key = match editor.readline("> ") {
            Ok(line) => {
                // Written at once: the program may end at any moment.
                if let Some(file) = history {
                    let _ = editor.append_history(file);
                }
                Key::Line(line)
            }
            Err(ReadlineError::Interrupted) => Key::Interrupt,
            Err(_) => Key::End,
        };
        if keys.send(key).is_err() {
            return;
        }
    }
}

struct Chat<P: ExternalPrinter> {
    model: Model,
    client: Client,
    printer: P,
    next: Sender<()>,
    interrupted: bool,
    /// The program ends before the thread that edits lines would print for it.
    ending: bool,
}

impl<P: ExternalPrinter> Chat<P> {
    fn all(&mut self, events: &Receiver<Event>, typed: &Receiver<Key>, interrupts: &Receiver<()>) -> u8 {
        if let Some(code) = self.drain() {
            return self.end(code, events);
        }
        let _ = self.next.try_send(());
        loop {
            let pending = self.model.pending() > 0;
            let wait = if pending { SLOW } else { Duration::from_secs(3600) };
            select! {
                recv(events) -> event => match event {
                    Ok(event) => self.model.event(event),
                    Err(_) => return programs::REFUSED,
                },
                recv(typed) -> key => {
                    match key {
                        Ok(Key::Line(line)) => {
                            self.interrupted = false;
                            self.model.typed(&line);
                        }
                        Ok(Key::Interrupt) if !self.interrupted => {
                            self.interrupted = true;
                            self.print("-- Ctrl-C again, Ctrl-D or /quit leaves the chat");
                        }
                        Ok(Key::Interrupt | Key::End) | Err(_) => self.model.quit(),
                    }
                    if let Some(code) = self.drain() {
                        return self.end(code, events);
                    }
                    let _ = self.next.try_send(());
                }
                recv(interrupts) -> _ => self.model.quit(),
                default(wait) => self.model.slow(),
            }
            if let Some(code) = self.drain() {
                return self.end(code, events);
            }
        }
    }

    /// Does what the model wants; gives the exit code once it wants to end.
    fn drain(&mut self) -> Option<u8> {
        self.ending |= self.model.ends();
        while let Some(what) = self.model.poll() {
            match what {
                Do::Print(line) => self.print(&line),
                Do::Call(call) => {
                    let ticket = match &call {
                        Call::Submit { ticket, .. } => Some(*ticket),
                        _ => None,
                    };
                    match (self.client.try_call(call), ticket) {
                        (Ok(false), Some(ticket)) => self.model.full(ticket),
                        (Ok(_), _) => {}
                        (Err(_), _) => return Some(programs::REFUSED),
                    }
                }
                Do::Quit(code) => return Some(code),
            }
        }
        None
    }

    /// Ends the session; what is pending gets its last chance to be acknowledged.
    fn end(&mut self, code: u8, events: &Receiver<Event>) -> u8 {
        if code == programs::OK && self.client.close().is_ok() {
            let grace = Duration::from_micros(limits::CLIENT_CLOSE_TIMEOUT.0 * 2);
            let until = std::time::Instant::now() + grace;
            while let Ok(event) = events.recv_deadline(until) {
                if event == Event::Closed {
                    break;
                }
                if matches!(event, Event::Done { .. } | Event::Unknown { .. }) {
                    self.model.event(event);
                    while let Some(what) = self.model.poll() {
                        if let Do::Print(line) = what {
                            self.print(&line);
                        }
                    }
                }
            }
        }
        match self.model.pending() {
            0 => code,
            pending => {
                self.print(&format!("-- messages that were not acknowledged: {pending}"));
                match (code, self.model.was_open()) {
                    (programs::OK, true) => programs::UNKNOWN,
                    (programs::OK, false) => programs::UNREACHED,
                    (code, _) => code,
                }
            }
        }
    }

    fn print(&mut self, line: &str) {
        if self.ending {
            // Over the prompt, whatever state the terminal is in.
            let _ = write!(std::io::stdout(), "\r\x1b[K{}\r\n", line.replace('\n', "\r\n"));
            let _ = std::io::stdout().flush();
            return;
        }
        // A terminal that is gone is noticed by the thread that reads it.
        let _ = self.printer.print(format!("{line}\n"));
    }
}
