//! Whether the server at the other end is alive. A process that is stopped keeps its connections, so only an answer proves life.

use crate::limits;
use crate::types::Tick;

/// What the client expects of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing.
    Nothing,
    /// Something some day: it follows a room.
    News,
    /// An answer.
    Answer,
    /// An answer to so much that sending it may take a while.
    LargeAnswer,
}

/// The pulse of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pulse {
    heard: Tick,
    pinged: Option<Tick>,
    held: bool,
}

/// What the pulse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All is well, or there is time.
    Well,
    /// Ping it now.
    Ping,
    /// It doesn't answer.
    Dead,
}

impl Pulse {
    /// A connection that has just shown life.
    #[must_use]
    pub fn new(now: Tick) -> Pulse {
        Pulse {
            heard: now,
            pinged: None,
            held: false,
        }
    }

    /// Anything from the server is a sign of life.
    pub fn heard(&mut self, now: Tick) {
        self.heard = now;
        self.pinged = None;
    }

    /// A question begins after a silence that proves nothing: nobody had asked.
    pub fn asked(&mut self, now: Tick, expected: Expect) {
        if !matches!(expected, Expect::Answer | Expect::LargeAnswer) && self.pinged.is_none() {
            self.heard = now;
        }
    }

    /// The connection isn't read (`true`), so its silence proves nothing; or it is again.
    pub fn hold(&mut self, now: Tick, held: bool) {
        self.held = held;
        self.heard(now);
    }

    /// When to look again.
    #[must_use]
    pub fn deadline(&self, expect: Expect) -> Option<Tick> {
        if self.held {
            return None;
        }
        match (self.pinged, expect) {
            (Some(pinged), _) => Some(pinged.after(limits::CLIENT_PONG_TIMEOUT)),
            (None, Expect::Nothing) => None,
            (None, Expect::News) => Some(self.heard.after(limits::CLIENT_IDLE_PING)),
            (None, Expect::Answer) => Some(self.heard.after(limits::CLIENT_SILENCE)),
            (None, Expect::LargeAnswer) => Some(self.heard.after(limits::CLIENT_SILENCE_LARGE)),
        }
    }

    /// What to do now; a ping that it orders counts as sent.
    pub fn check(&mut self, now: Tick, expect: Expect) -> Verdict {
        match self.deadline(expect) {
            Some(deadline) if deadline <= now && self.pinged.is_some() => Verdict::Dead,
            Some(deadline) if deadline <= now => {
                self.pinged = Some(now);
                Verdict::Ping
            }
            _ => Verdict::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hung_server_is_noticed_when_an_answer_is_due() {
        let mut pulse = Pulse::new(Tick(0));
        let ping = Tick(0).after(limits::CLIENT_SILENCE);
        assert_eq!(pulse.check(ping, Expect::Answer), Verdict::Ping);
        assert_eq!(pulse.check(ping, Expect::Answer), Verdict::Well);
        assert_eq!(
            pulse.check(ping.after(limits::CLIENT_PONG_TIMEOUT), Expect::Answer),
            Verdict::Dead
        );
    }

    #[test]
    fn who_has_sent_much_gives_the_line_time() {
        let mut pulse = Pulse::new(Tick(0));
        let soon = Tick(0).after(limits::CLIENT_SILENCE);
        assert_eq!(pulse.check(soon, Expect::LargeAnswer), Verdict::Well);
        let late = Tick(0).after(limits::CLIENT_SILENCE_LARGE);
        assert_eq!(pulse.check(late, Expect::LargeAnswer), Verdict::Ping);
    }

    #[test]
    fn a_connection_that_is_not_read_is_not_called_dead() {
        let mut pulse = Pulse::new(Tick(0));
        pulse.check(Tick::from_ms(60_000), Expect::News);
        pulse.hold(Tick::from_ms(60_000), true);
        assert_eq!(pulse.check(Tick::from_ms(900_000), Expect::Answer), Verdict::Well);
        pulse.hold(Tick::from_ms(900_000), false);
        assert_eq!(pulse.check(Tick::from_ms(900_001), Expect::Answer), Verdict::Well);
    }

    #[test]
    fn nobody_is_pinged_for_nothing() {
        let mut pulse = Pulse::new(Tick(0));
        assert_eq!(pulse.deadline(Expect::Nothing), None);
        assert_eq!(pulse.check(Tick::from_ms(900_000), Expect::Nothing), Verdict::Well);
    }
}
