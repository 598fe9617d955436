//! What the programs of the client have in common: exit codes, interrupts, and what they say on standard error.

use std::io::{self, Write};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::calls::{Event, Fate};
use super::render;
use crate::chat::command::Code;
use crate::wire::client::ServerAddress;

/// All went well.
pub const OK: u8 = 0;
/// A server refused.
pub const REFUSED: u8 = 1;
/// Misused.
pub const MISUSED: u8 = 2;
/// No server answers.
pub const UNREACHED: u8 = 3;
/// No quorum.
pub const NO_QUORUM: u8 = 4;
/// The name or password is refused.
pub const NAME: u8 = 5;
/// Sent, not acknowledged in time.
pub const UNKNOWN: u8 = 6;

/// The exit code of something that wasn't done in time.
#[must_use]
pub fn fate_code(fate: Fate) -> u8 {
    match fate {
        Fate::Unreached => UNREACHED,
        Fate::NoQuorum => NO_QUORUM,
        Fate::Unknown => UNKNOWN,
    }
}

/// What to say when the servers that may be used take no commands.
pub fn elsewhere(leader: &ServerAddress) -> String {
    format!(
        "messages go to the leader, {} at {}, which --only leaves out: name it with -s, or leave out --only; waiting",
        leader.id,
        render::clean(&leader.address)
    )
}

/// The exit code of a session that was refused.
#[must_use]
pub fn refusal_code(code: Code) -> u8 {
    match code {
        Code::NameTaken | Code::BadName | Code::WrongSecret => NAME,
        _ => REFUSED,
    }
}

/// A line on standard error; that nobody reads it is no error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "syncnet: {text}");
}

/// SIGINT and SIGTERM as messages instead of a sudden end.
///
/// # Errors
/// What the system says when it has no thread left.
pub fn interrupts() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (sender, receiver) = bounded(1);
    std::thread::Builder::new()
        .name("syncnet-signals".to_string())
        .spawn(move || {
            for _ in signals.forever() {
                // A second one while the first is being handled ends the program at once.
                if sender.try_send(()).is_err() {
                    std::process::exit(i32::from(UNKNOWN));
                }
            }
        })?;
    Ok(receiver)
}

/// What is known of the connection, to say why nothing comes.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// A server is connected.
    pub connected: bool,
    /// It belongs to a majority, as far as it said.
    pub quorum: bool,
    last_failure: Option<String>,
}

impl Condition {
    /// Takes what an event says of it.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Connected { quorum, .. } => {
                self.connected = true;
                self.quorum = *quorum;
            }
            Event::Disconnected { address, reason } | Event::Unreachable { address, reason } => {
                self.connected = false;
                self.last_failure = Some(format!("{address}: {reason}"));
            }
            Event::NoQuorum => self.quorum = false,
            Event::QuorumBack => self.quorum = true,
            _ => {}
        }
    }

    /// The exit code for giving up now, and the reason in words.
    #[must_use]
    pub fn give_up(&self) -> (u8, String) {
        if !self.connected {
            let failure = self.last_failure.as_deref().unwrap_or("none is known");
            (
                UNREACHED,
                format!("no server answers (last try: {})", render::clean(failure)),
            )
        } else {
            (NO_QUORUM, "the servers that answer have no quorum".to_string())
        }
    }
}

/// How long to wait; `None` for ever.
#[must_use]
pub fn timeout(given: Option<crate::types::Span>, default: Option<Duration>) -> Option<Duration> {
    match given {
        Some(span) if span.0 == 0 => None,
        Some(span) => Some(Duration::from_micros(span.0)),
        None => default,
    }
}

/// Standard output whose closing by the reader is no error.
pub struct Out {
    out: io::BufWriter<io::Stdout>,
}

/// Why nothing more can be printed.
#[derive(Debug)]
pub enum Stop {
    /// Nobody reads any more.
    Closed,
    /// It can't be written.
    Failed(io::Error),
}

impl Stop {
    /// The exit code of a program that only prints.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Stop::Closed => OK,
            Stop::Failed(error) => {
                complain(&format!("standard output can't be written: {error}"));
                REFUSED
            }
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(error),
        }
    }
}

impl Default for Out {
    fn default() -> Out {
        Out {
            out: io::BufWriter::new(io::stdout()),
        }
    }
}

impl Out {
    /// A line.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn line(&mut self, line: &str) -> Result<(), Stop> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// Everything printed so far goes out.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn flush(&mut self) -> Result<(), Stop> {
        Ok(self.out.flush()?)
    }
}
