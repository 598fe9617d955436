//! Complaints that strangers can cause, in the log: the same one at most once in a while, and with how often it came meanwhile.

use std::collections::BTreeMap;

use crate::limits;
use crate::types::Tick;

/// Different complaints that are remembered; more than that in one interval are counted together.
const KINDS_MAX: usize = 64;

/// What was complained of, when last, and how often since.
#[derive(Debug, Default)]
pub struct Complaints {
    seen: BTreeMap<String, (Tick, u64)>,
    uncounted: u64,
}

impl Complaints {
    /// Logs a warning, unless the same was logged a short while ago.
    pub fn warn(&mut self, now: Tick, text: &str) {
        if let Some(line) = self.line(now, text) {
            log::warn!("{line}");
        }
    }

    /// The line to be logged, if it is time for one.
    fn line(&mut self, now: Tick, text: &str) -> Option<String> {
        let quiet = |last: Tick| now.since(last) < limits::COMPLAINT_INTERVAL;
        if let Some((last, times)) = self.seen.get_mut(text) {
            if quiet(*last) {
                *times += 1;
                return None;
            }
            let line = if *times > 0 {
                format!("{text} ({times} more of these in between)")
            } else {
                text.to_owned()
            };
            (*last, *times) = (now, 0);
            return Some(line);
        }
        if self.seen.len() >= KINDS_MAX {
            self.seen.retain(|_, (last, _)| quiet(*last));
        }
        if self.seen.len() >= KINDS_MAX {
            self.uncounted += 1;
            return None;
        }
        self.seen.insert(text.to_owned(), (now, 0));
        let others = std::mem::take(&mut self.uncounted);
        Some(if others > 0 {
            format!("{text} ({others} other complaints were left out)")
        } else {
            text.to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_not_repeated_at_once_but_counted() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.line(Tick(0), "a").as_deref(), Some("a"));
        assert_eq!(complaints.line(Tick(1), "a"), None);
        assert_eq!(complaints.line(Tick(1), "b").as_deref(), Some("b"));
        let later = Tick(0).after(limits::COMPLAINT_INTERVAL);
        assert!(complaints.line(later, "a").is_some_and(|line| line.contains("1 more")));
    }

    #[test]
    fn a_flood_of_different_complaints_is_bounded() {
        let mut complaints = Complaints::default();
        let logged = (0..1000)
            .filter(|n| complaints.line(Tick(1), &n.to_string()).is_some())
            .count();
        assert_eq!(logged, KINDS_MAX);
        assert_eq!(complaints.seen.len(), KINDS_MAX);
    }
}
