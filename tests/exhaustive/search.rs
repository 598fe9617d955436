//! Breadth first: every state that can be reached in so many actions, each once. A broken promise ends the search with the
//! shortest way to it.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::model::Model;
use super::state::{Action, Seen, State};

/// Fingerprints are spread already.
#[derive(Clone, Copy, Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

/// When a search ends without a finding.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub depth: usize,
    pub states: usize,
    pub time: Duration,
}

/// What a search has seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub states: u64,
    pub transitions: u64,
    /// Everything up to this depth was explored.
    pub depth: usize,
    /// New states at each depth.
    pub levels: Vec<u64>,
    /// Of single servers: states, and steps.
    pub local: (usize, usize),
    pub seconds: f64,
    /// Whether there was nothing left to explore within the bounds.
    pub is_complete: bool,
    /// Ways in which new states were reached.
    pub elected: u64,
    pub elected_after_commit: u64,
    pub committed: u64,
    pub cut: u64,
    pub lost: u64,
    pub refused_votes: u64,
    pub mismatches: u64,
    pub handed_over: u64,
}

impl Report {
    fn saw(&mut self, seen: Seen) {
        self.elected += u64::from(seen.elected);
        self.elected_after_commit += u64::from(seen.elected_after_commit);
        self.committed += u64::from(seen.committed);
        self.cut += u64::from(seen.cut);
        self.lost += u64::from(seen.lost);
        self.refused_votes += u64::from(seen.refused_vote);
        self.mismatches += u64::from(seen.mismatch);
        self.handed_over += u64::from(seen.handed_over);
    }

    /// How often what matters was met.
    pub fn met(&self) -> String {
        format!(
            "leaders elected {}, after a commit {}; entries committed {}, logs cut {}, unsynced records lost {}, \
             votes refused {}, logs that didn't match {}, hand-overs {}",
            self.elected,
            self.elected_after_commit,
            self.committed,
            self.cut,
            self.lost,
            self.refused_votes,
            self.mismatches,
            self.handed_over
        )
    }

    /// Adds what another search met.
    pub fn add(&mut self, other: &Report) {
        self.states += other.states;
        self.transitions += other.transitions;
        self.elected += other.elected;
        self.elected_after_commit += other.elected_after_commit;
        self.committed += other.committed;
        self.cut += other.cut;
        self.lost += other.lost;
        self.refused_votes += other.refused_votes;
        self.mismatches += other.mismatches;
        self.handed_over += other.handed_over;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_complete { "all there is" } else { "complete" };
        write!(
            f,
            "{} states, {} transitions, {end} to depth {} ({} states of single servers, {} steps; {:.1} s)\n  {}",
            self.states,
            self.transitions,
            self.depth,
            self.local.0,
            self.local.1,
            self.seconds,
            self.met()
        )
    }
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Finding {
    pub text: String,
    /// From the root to the step that broke it.
    pub path: Vec<Action>,
    pub report: Report,
}

impl Finding {
    /// The whole story, for people.
    pub fn story(&self, model: &mut Model, root: State) -> String {
        let mut story = format!(
            "{}\nafter {} states, at depth {}:",
            self.text,
            self.report.states,
            self.path.len()
        );
        let mut state = root;
        for &action in &self.path {
            story.push_str("\n  ");
            story.push_str(&model.tell(&state, action));
            if let Ok(Some((next, _))) = model.next(&state, action) {
                state = next;
            }
        }
        story
    }
}

/// Explores everything that can be reached from `root`.
pub fn explore(model: &mut Model, root: State, limits: Limits) -> Result<Report, Box<Finding>> {
    let began = Instant::now();
    let mut report = Report {
        states: 1,
        levels: vec![1],
        ..Report::default()
    };
    let mut visited: HashSet<u128, BuildHasherDefault<Spread>> = HashSet::default();
    visited.insert(root.fingerprint());
    // How each state was reached, by its number.
    let mut parents: Vec<(u32, Action)> = vec![(0, Action::Start(0))];
    let mut level = vec![root];
    let mut first_of_level = 0;
    for depth in 1..=limits.depth {
        let mut next_level = Vec::new();
        for (number, state) in level.iter().enumerate() {
            let number = first_of_level + number;
            for action in model.actions(state) {
                let result = model.next(state, action);
                report.transitions += 1;
                match result {
                    Ok(None) => {}
                    Ok(Some((next, seen))) => {
                        if visited.insert(next.fingerprint()) {
                            report.states += 1;
                            report.saw(seen);
                            parents.push((number as u32, action));
                            next_level.push(next);
                        }
                    }
                    Err(text) => {
                        report.seconds = began.elapsed().as_secs_f64();
                        report.local = model.local();
                        let path = path(&parents, number, action);
                        return Err(Box::new(Finding { text, path, report }));
                    }
                }
            }
            let is_late = number % 4096 == 0 && began.elapsed() > limits.time;
            if report.states as usize >= limits.states || is_late {
                report.seconds = began.elapsed().as_secs_f64();
                report.local = model.local();
                return Ok(report);
            }
        }
        report.depth = depth;
        if next_level.is_empty() {
            report.is_complete = true;
            break;
        }
        report.levels.push(next_level.len() as u64);
        first_of_level += level.len();
        level = next_level;
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.local = model.local();
    Ok(report)
}

fn path(parents: &[(u32, Action)], mut number: usize, last: Action) -> Vec<Action> {
    let mut path = vec![last];
    while number > 0 {
        let (parent, action) = parents[number];
        path.push(action);
        number = parent as usize;
    }
    path.reverse();
    path
}
