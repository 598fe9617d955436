//! Signals as readiness of the poll loop: SIGTERM and SIGINT ask for a stop in good order, a second one for the end at once,
//! SIGHUP for a new log file. SIGPIPE is ignored by the runtime of the language already.

use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals as Source;

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Stop; asked again: at once.
    Stop,
    /// Open the log file anew: it was moved away.
    Reopen,
}

/// The signals of this process.
pub struct Signals {
    source: Source,
    /// Whether the system has told of one since they were last taken.
    ready: bool,
}

impl Signals {
    /// Catches the signals and tells of them under `token`.
    ///
    /// # Errors
    /// When the system refuses; it is then out of descriptors.
    pub fn register(registry: &Registry, token: Token) -> io::Result<Signals> {
        let mut source = Source::new([SIGTERM, SIGINT, SIGHUP])?;
        registry.register(&mut source, token, Interest::READABLE)?;
        // One may have come before the loop watched.
        Ok(Signals { source, ready: true })
    }

    /// The system tells of some.
    pub fn set_ready(&mut self) {
        self.ready = true;
    }

    /// What was asked for since the last call.
    pub fn take(&mut self) -> Vec<Wish> {
        if !std::mem::take(&mut self.ready) {
            return Vec::new();
        }
        self.source
            .pending()
            .map(|signal| if signal == SIGHUP { Wish::Reopen } else { Wish::Stop })
            .collect()
    }
}
