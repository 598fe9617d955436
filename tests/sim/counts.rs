//! What has been seen: a run that was green because nothing happened is no proof, so the fixed seeds together must have seen a
//! stated number of each.

use std::collections::BTreeMap;

/// How often each thing was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub fn one(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Keeps the highest.
    pub fn highest(&mut self, what: &'static str, value: u64) {
        let entry = self.0.entry(what).or_default();
        *entry = value.max(*entry);
    }

    /// Adds another run's; what is a maximum stays one.
    pub fn merge(&mut self, other: &Counts) {
        for (&what, &times) in &other.0 {
            if what.starts_with("longest") || what.starts_with("most") {
                self.highest(what, times);
            } else {
                self.add(what, times);
            }
        }
    }

    /// What was seen less often than it must be.
    pub fn missing(&self, minimums: &[(&'static str, u64)]) -> Vec<String> {
        let short = minimums.iter().filter(|&&(what, least)| self.get(what) < least);
        short
            .map(|&(what, least)| format!("{what}: {} of at least {least}", self.get(what)))
            .collect()
    }

    pub fn lines(&self) -> String {
        self.0
            .iter()
            .map(|(what, times)| format!("  {times:>9}  {what}\n"))
            .collect()
    }
}
