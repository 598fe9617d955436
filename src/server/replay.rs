//! Which datagrams were seen already. A datagram that somebody recorded and sends again is authentic, and would make a dead server
//! look alive; so each start of a data directory has a sequence, and a number counts once. The window is the one of
//! RFC 4303 (section 3.4.3): the highest number seen, and a bit for each of the numbers just below it.

use crate::types::{Boot, DirectoryId};

/// Numbers below the highest that may still come, late or out of order: some seconds of heartbeats.
const WINDOW: u64 = 64;

/// The numbers seen from one start of one data directory.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Whose: a new directory or boot has a new window.
    pub of: (DirectoryId, Boot),
    highest: u64,
    seen: u64,
}

impl Window {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(directory: DirectoryId, boot: Boot) -> Window {
        Window {
            of: (directory, boot),
            highest: 0,
            seen: 0,
        }
    }

    /// Whether this number comes for the first time; from then on it doesn't. Numbers begin at 1.
    pub fn admit(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.seen = if ahead >= WINDOW { 0 } else { self.seen << ahead };
            self.seen |= 1;
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        if sequence == 0 || behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window::new(DirectoryId(7), Boot(1))
    }

    #[test]
    fn a_datagram_counts_once() {
        let mut window = window();
        assert!(window.admit(1));
        assert!(!window.admit(1));
        assert!(window.admit(5));
        assert!(!window.admit(5));
        assert!(!window.admit(1));
        assert!(!window.admit(0), "numbers begin at 1");
    }

    #[test]
    fn late_datagrams_count_if_they_are_not_too_late() {
        let mut window = window();
        assert!(window.admit(100));
        assert!(window.admit(99));
        assert!(window.admit(37), "the last that the window covers");
        assert!(!window.admit(36), "before the window");
        assert!(!window.admit(37));
        assert!(window.admit(101));
        assert!(!window.admit(100));
        assert!(!window.admit(37));
    }

    #[test]
    fn a_long_silence_moves_the_window_on() {
        let mut window = window();
        assert!(window.admit(1));
        assert!(window.admit(u64::MAX));
        assert!(window.admit(u64::MAX - 63));
        assert!(!window.admit(u64::MAX - 64));
        assert!(!window.admit(1));
    }
}
