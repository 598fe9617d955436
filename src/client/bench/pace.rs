//! When messages are due. A load with a rate is an open loop: it doesn't wait for answers, and a message's time counts from when
//! it was due, so that a server that stalls can't hide it by holding up the load. Pure.

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// Messages at a steady rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    start: u64,
    rate: f64,
    given: u64,
}

impl Pace {
    /// So many a second, the first at `start` (nanoseconds).
    #[must_use]
    pub fn new(start: u64, rate: f64) -> Pace {
        Pace { start, rate, given: 0 }
    }

    /// When the next one is due, in nanoseconds. Counted from the start, so that no error adds up.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.start + (self.given as f64 / self.rate * SECOND as f64) as u64
    }

    /// Takes the next one if it is due: when it was.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due();
        if due > now {
            return None;
        }
        self.given += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_none_is_left_out() {
        let mut pace = Pace::new(100, 1000.0);
        assert_eq!(pace.take(99), None);
        assert_eq!(pace.take(100), Some(100));
        assert_eq!(pace.take(1_000_099), None);
        // Held up for three milliseconds: all that were due are, each at its own time.
        let late: Vec<u64> = std::iter::from_fn(|| pace.take(4_000_100)).collect();
        assert_eq!(late, [1_000_100, 2_000_100, 3_000_100, 4_000_100]);
        assert_eq!(pace.due(), 5_000_100);
    }

    #[test]
    fn a_rate_holds_for_long() {
        let mut pace = Pace::new(0, 300.0);
        let day = 86_400 * SECOND;
        pace.given = 300 * 86_400;
        assert_eq!(pace.take(day), Some(day));
    }
}
