//! `syncnetctl bench`: puts load on a cluster and says what came of it: rate, latency, and what the servers spent on it, by their own
//! account. One thread with a poll loop of its own drives all connections and speaks the protocol itself: the client for programs
//! ([`link`](super::link)) has a thread each, and would be measured instead of the servers. (The fail-over bench writes through that
//! client, because its way to another server is a part of what is measured.)
//!
//! Nothing is taken on trust because it is fast: every acknowledgement must be the next one, every delivery must follow the last, and
//! some are decoded in full and compared with what was sent. Whatever is lost, repeated or refused ends the run with exit code 1.
//!
//! Reading order: `net` (the loop), `crew` (connections that are ready to work), `writers` (posts and their acknowledgements), the
//! benchmarks `publish`, `fanout`, `idle`, `failover` with `own` (its cluster), the pure parts `pace`, `window`, `gaps`, and `meter`
//! and `report` for what is printed.

mod crew;
mod failover;
mod fanout;
mod gaps;
mod idle;
mod meter;
mod net;
mod own;
mod pace;
mod publish;
mod report;
mod window;
mod writers;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::programs;
use super::settings::Settings;
use crate::cli::bench::{Bench, Kind};
use crate::machine;
use crate::types::Span;

/// Why a run ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl Trouble {
    fn new(code: u8, text: String) -> Trouble {
        Trouble { text, code }
    }

    /// A server can't be reached.
    fn unreached(address: &str, error: &std::io::Error) -> Trouble {
        Trouble::new(programs::UNREACHED, format!("{address}: no connection: {error}"))
    }

    /// A server doesn't answer.
    fn silent(text: &str) -> Trouble {
        Trouble::new(programs::UNREACHED, text.to_string())
    }

    /// A server refused.
    fn refused(text: &str) -> Trouble {
        Trouble::new(programs::REFUSED, format!("refused: {text}"))
    }

    /// A connection is gone.
    fn gone(text: &str) -> Trouble {
        Trouble::new(programs::REFUSED, format!("a connection is gone: {text}"))
    }

    /// Something came that should not have.
    fn wrong(text: String) -> Trouble {
        Trouble::new(programs::REFUSED, text)
    }

    /// The machine of the load generator has no more of something.
    fn failed(cause: impl fmt::Display) -> Trouble {
        Trouble::new(programs::REFUSED, cause.to_string())
    }
}

/// What all benchmarks go by.
struct Setup<'a> {
    settings: &'a Settings,
    timeout: Span,
    progress: Progress,
}

/// Runs one; gives the exit code.
#[must_use]
pub fn run(bench: &Bench, settings: &Settings, timeout: Span) -> u8 {
    if let Some(processors) = &bench.pin
        && let Err(error) = machine::pin(processors)
    {
        complain(&format!("--pin: {error}"));
        return programs::MISUSED;
    }
    let setup = Setup {
        settings,
        timeout,
        progress: Progress::new(),
    };
    let done = match &bench.kind {
        Kind::Publish(publish) => publish::run(setup, publish),
        Kind::Fanout(fanout) => fanout::run(setup, fanout),
        Kind::Idle(idle) => idle::run(setup, idle),
        Kind::Failover(failover) => failover::run(setup, failover, bench.json),
    };
    let report = match done {
        Ok(report) => report,
        Err(trouble) => {
            complain(&trouble.text);
            return trouble.code;
        }
    };
    let text = if bench.json {
        report.json() + "\n"
    } else {
        report.table()
    };
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody reads it; the exit code still says how it went.
    }
    report.exit_code()
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "syncnetctl: {text}");
}

/// A line on the terminal that says how far a run is.
struct Progress {
    terminal: bool,
    begun: Instant,
    told: u64,
    count: u64,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            begun: Instant::now(),
            told: 0,
            count: 0,
        }
    }

    /// The load begins.
    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// What a set-up that may take long is doing.
    fn say(&self, text: &str) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// So many have been done until now: said once a second.
    fn tick(&mut self, count: u64, what: &str) {
        let seconds = self.begun.elapsed().as_secs();
        if !self.terminal || seconds == self.told {
            return;
        }
        let rate = (count - self.count) / (seconds - self.told).max(1);
        self.say(&format!("{seconds} s: {} {what}/s", report::thousands(rate)));
        (self.told, self.count) = (seconds, count);
    }

    /// Nothing more is to be said.
    fn end(&self) {
        self.say("");
    }
}

fn seconds(span: Span) -> Duration {
    Duration::from_micros(span.0)
}
