//! How long the turns of the poll loop are. Nobody is heard during one, so the longest is what anybody may have to wait for no reason of
//! their own.

use hdrhistogram::Histogram;

use crate::limits::TURNS_COUNTED_FOR;
use crate::types::Tick;

/// Microseconds that a turn may take and still be counted as what it is; whatever is longer counts as this.
const LONGEST: u64 = 60_000_000;
/// So many digits of a length are right.
const DIGITS: u8 = 2;

/// The lengths of the turns of the last while, and of the one before it.
#[derive(Debug)]
pub(super) struct Turns {
    lately: Histogram<u64>,
    before: Histogram<u64>,
    /// When the last while began.
    since: Tick,
}

impl Turns {
    /// None yet.
    pub fn new() -> Turns {
        let none = || Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds that a histogram takes");
        Turns {
            lately: none(),
            before: none(),
            since: Tick(0),
        }
    }

    /// A turn has ended.
    pub fn note(&mut self, begun: Tick, ended: Tick) {
        if ended.since(self.since) >= TURNS_COUNTED_FOR {
            std::mem::swap(&mut self.lately, &mut self.before);
            self.lately.reset();
            self.since = ended;
        }
        self.lately.saturating_record(ended.since(begun).0);
    }

    /// Of the turns that count: microseconds within which 99.9 % of them ended, and the longest.
    pub fn lengths(&self) -> (u64, u64) {
        let mut all = self.lately.clone();
        if all.add(&self.before).is_err() {
            // They have the same bounds, so that this doesn't happen; without those before it is still true.
        }
        (all.value_at_quantile(0.999), all.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turns_of_the_last_while_are_known() {
        let mut turns = Turns::new();
        assert_eq!(turns.lengths(), (0, 0));
        for n in 0..2000 {
            turns.note(Tick(n), Tick(n + 10));
        }
        turns.note(Tick(3000), Tick(8000));
        let (most, longest) = turns.lengths();
        assert_eq!(most, 10, "one of two thousand is not one of a thousand");
        assert!((5000..5100).contains(&longest), "{longest}");
        let later = TURNS_COUNTED_FOR.0;
        turns.note(Tick(later), Tick(later + 20));
        assert!(turns.lengths().1 >= 5000, "the while before still counts");
        turns.note(Tick(2 * later), Tick(2 * later + 20));
        turns.note(Tick(3 * later), Tick(3 * later + 30));
        assert_eq!(turns.lengths(), (30, 30), "and the one before that doesn't");
    }

    #[test]
    fn a_turn_that_took_hours_counts_as_long() {
        let mut turns = Turns::new();
        turns.note(Tick(0), Tick(10 * LONGEST));
        assert!(turns.lengths().1 >= LONGEST * 99 / 100);
    }
}
