//! How long acknowledgements were missing: the longest time between two of them. Pure.

/// The times of acknowledgements, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    count: u64,
    last: Option<u64>,
    longest: u64,
}

impl Gaps {
    /// An acknowledgement came: how long after the one before.
    pub fn acknowledged(&mut self, at: u64) -> Option<u64> {
        let gap = self.last.map(|last| at.saturating_sub(last));
        self.longest = self.longest.max(gap.unwrap_or(0));
        self.last = Some(at);
        self.count += 1;
        gap
    }

    /// Only gaps that end from now on count.
    pub fn forget(&mut self) {
        self.longest = 0;
    }

    /// When the last came.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// How many came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest gap; one that hasn't ended doesn't count.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.longest
    }
}

/// The middle of these numbers.
#[must_use]
pub fn median(numbers: &[u64]) -> u64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => low.midpoint(*high),
        (_, Some(high)) => *high,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_found() {
        let mut gaps = Gaps::default();
        assert_eq!((gaps.longest(), gaps.last()), (0, None));
        let told: Vec<Option<u64>> = [10, 12, 40, 41].map(|at| gaps.acknowledged(at)).to_vec();
        assert_eq!(told, [None, Some(2), Some(28), Some(1)]);
        assert_eq!((gaps.longest(), gaps.last(), gaps.count()), (28, Some(41), 4));
        gaps.forget();
        gaps.acknowledged(50);
        assert_eq!(gaps.longest(), 9, "a gap that ends after it counts whole");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[3]), 3);
        assert_eq!(median(&[9, 1, 2]), 2);
        assert_eq!(median(&[9, 1, 2, 4]), 3);
    }
}
