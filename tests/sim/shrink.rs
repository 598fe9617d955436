//! Makes a failure shorter: faults are left out, half of them at a time, then fewer, down to one by one, for as long as the seed still
//! breaks a promise ("delta debugging", Zeller and Hildebrandt, IEEE TSE 2002). What is left is the list that is worth reading.

use std::collections::BTreeSet;

use super::faults::Struck;
use super::run::{Case, Failure};

/// Runs that one failure may cost.
const RUNS_MAX: usize = 400;

/// A failure with the fewest faults that were found for it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub failure: Failure,
    /// How many faults struck before.
    pub before: usize,
    pub runs: usize,
}

impl Shrunk {
    fn kept(&self) -> Vec<&Struck> {
        let only = self.failure.case.only.as_ref();
        let strikes = |fault: &&Struck| only.is_none_or(|only| only.contains(&fault.number));
        self.failure.struck.iter().filter(strikes).collect()
    }

    /// What is left of it, and the command that shows it.
    pub fn lines(&self) -> String {
        let kept: Vec<String> = self
            .kept()
            .iter()
            .map(|fault| format!("    {}\n", fault.line()))
            .collect();
        format!(
            "{} of {} faults are enough (after {} runs):\n{}{}",
            kept.len(),
            self.before,
            self.runs,
            kept.concat(),
            self.failure.line()
        )
    }
}

/// The shortest list of faults that was found with which the case fails; `None` if it doesn't fail at all.
pub fn shrink(case: &Case) -> Option<Shrunk> {
    let mut failure = case.run().failure?;
    let mut kept: Vec<usize> = struck(&failure);
    let (before, mut runs) = (kept.len(), 1);
    let mut parts = 2;
    while !kept.is_empty() && runs < RUNS_MAX {
        let size = kept.len().div_ceil(parts);
        let mut shorter = None;
        for start in (0..kept.len()).step_by(size) {
            let rest: BTreeSet<usize> = kept[..start]
                .iter()
                .chain(&kept[(start + size).min(kept.len())..])
                .copied()
                .collect();
            runs += 1;
            let tried = Case {
                only: Some(rest),
                ..case.clone()
            };
            if let Some(fails) = tried.run().failure {
                shorter = Some(fails);
                break;
            }
        }
        match shorter {
            Some(fails) => {
                kept = struck(&fails);
                failure = fails;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    failure.case.only = Some(kept.into_iter().collect());
    Some(Shrunk { failure, before, runs })
}

/// The faults that struck before it failed, without those that were left out.
fn struck(failure: &Failure) -> Vec<usize> {
    let only = failure.case.only.as_ref();
    let numbers = failure.struck.iter().map(|fault| fault.number);
    numbers
        .filter(|number| only.is_none_or(|only| only.contains(number)))
        .collect()
}
