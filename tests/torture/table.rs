//! What each kind of fault has cost.

use std::fmt::Write as _;
use std::time::Duration;

use super::faults::{ALL, Kind};
use super::trial::Mode;

/// A fault that happened.
pub struct Episode {
    pub kind: Kind,
    /// The servers it happened to, as far as they aren't the leader.
    pub to: String,
    /// The longest that any writer waited between two acknowledgements.
    pub gap: Duration,
    /// From when it was undone until the cluster was healthy.
    pub healed: Duration,
}

/// All that happened.
#[derive(Default)]
pub struct Table {
    pub episodes: Vec<Episode>,
    /// The clusters, by how they were configured.
    pub clusters: Vec<Mode>,
}

fn ms(times: &[Duration], at: usize) -> String {
    times
        .get(at)
        .map_or("-".to_string(), |time| time.as_millis().to_string())
}

impl Table {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<42} {:>5} {:>12} {:>12} {:>14}\n",
            "fault", "times", "median gap", "longest gap", "longest repair"
        );
        for (kind, name) in ALL {
            let of_kind = || self.episodes.iter().filter(|episode| episode.kind == kind);
            let mut gaps: Vec<Duration> = of_kind().map(|episode| episode.gap).collect();
            let mut healed: Vec<Duration> = of_kind().map(|episode| episode.healed).collect();
            gaps.sort();
            healed.sort();
            let last = gaps.len().wrapping_sub(1);
            let _ = writeln!(
                text,
                "{name:<42} {:>5} {:>9} ms {:>9} ms {:>11} ms",
                gaps.len(),
                ms(&gaps, gaps.len() / 2),
                ms(&gaps, last),
                ms(&healed, last)
            );
        }
        for mode in Mode::ALL {
            let clusters = self.clusters.iter().filter(|of| **of == mode).count();
            let _ = writeln!(text, "cluster: {:<33} {clusters:>5}", mode.name());
        }
        text
    }

    /// What never happened, of the kinds that can happen here.
    pub fn missing(&self, can_freeze: bool) -> Vec<&'static str> {
        let kinds = ALL.iter().filter(|(kind, _)| can_freeze || !kind.needs_freezing());
        let unseen = kinds.filter(|(kind, _)| !self.episodes.iter().any(|episode| episode.kind == *kind));
        let modes = Mode::ALL.iter().filter(|mode| !self.clusters.contains(mode));
        unseen
            .map(|(_, name)| *name)
            .chain(modes.map(|mode| mode.name()))
            .collect()
    }
}

#[test]
fn a_kind_of_fault_that_never_happened_is_noticed() {
    let mut table = Table::default();
    for (kind, _) in ALL {
        table.episodes.push(Episode {
            kind,
            to: String::new(),
            gap: Duration::from_millis(5),
            healed: Duration::from_millis(7),
        });
    }
    table.clusters = Mode::ALL.to_vec();
    assert!(table.missing(true).is_empty());
    table.episodes.retain(|episode| episode.kind != Kind::Loss);
    assert_eq!(table.missing(true), [Kind::Loss.name()]);
    table.clusters.pop();
    assert_eq!(table.missing(true).len(), 2);
    assert_eq!(table.text().lines().count(), 1 + ALL.len() + Mode::ALL.len());
}
