//! What the seeds of each mix must have seen, or their being green proves nothing: about half of what they see today, for each thousand
//! seeds. A run of fewer is asked for its share; what comes less than ten times in a run is left to longer ones.

use super::mixes::Mix;

/// What so many seeds of a mix must have seen.
pub fn minimums(mix: Mix, seeds: u64) -> Vec<(&'static str, u64)> {
    let rates = match mix {
        Mix::Standard => STANDARD,
        Mix::Swarm | Mix::Early => SWARM,
    };
    let share = |&(what, rate): &(&'static str, u64)| (what, rate * seeds / 1000);
    let mut minimums: Vec<_> = rates.iter().map(share).filter(|&(_, least)| least >= 5).collect();
    minimums.push(("worlds", seeds));
    minimums
}

const STANDARD: &[(&str, u64)] = &[];

const SWARM: &[(&str, u64)] = &[];
