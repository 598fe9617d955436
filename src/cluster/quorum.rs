//! Majorities: pure functions over numbers.

/// How many of `voters` are a majority.
pub(super) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority of the voters has reached; the smallest one if there are none.
pub(super) fn reached<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable_by(|a, b| b.cmp(a));
    match values.len() {
        0 => T::default(),
        voters => values[majority(voters) - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_always_share_a_voter() {
        for voters in 1..=9 {
            assert!(2 * majority(voters) > voters);
            assert!(2 * (majority(voters) - 1) <= voters);
        }
    }

    #[test]
    fn what_is_reached_is_held_by_a_majority() {
        assert_eq!(reached(vec![7]), 7);
        assert_eq!(reached(vec![7, 3]), 3);
        assert_eq!(reached(vec![9, 1, 5]), 5);
        assert_eq!(reached(vec![9, 8, 1, 1]), 1);
        assert_eq!(reached(vec![1, 9, 2, 8, 3]), 3);
        assert_eq!(reached(Vec::<u64>::new()), 0);
    }
}
