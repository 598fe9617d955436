//! The ready list. Readiness is edge-triggered: the system tells once that a socket has something, so whoever stops before the
//! socket is drained (its share of the turn was used up) must remember it. While anything is on the list the next poll does not wait.

use std::collections::{HashSet, VecDeque};

use crate::types::ConnId;

/// Connections that have something left to do, first come, first served; each at most once.
#[derive(Debug, Default)]
pub struct Ready {
    queue: VecDeque<ConnId>,
    known: HashSet<ConnId>,
}

impl Ready {
    /// Puts a connection at the end, unless it is on the list.
    pub fn push(&mut self, conn: ConnId) {
        if self.known.insert(conn) {
            self.queue.push_back(conn);
        }
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<ConnId> {
        let conn = self.queue.pop_front()?;
        self.known.remove(&conn);
        Some(conn)
    }

    /// How many there are. A turn takes so many and no more: what comes back during the turn waits for the next one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_connection_goes_behind_the_others() {
        let mut ready = Ready::default();
        for id in [1, 2, 2, 1, 3] {
            ready.push(ConnId(id));
        }
        assert_eq!(ready.len(), 3);
        assert_eq!(ready.pop(), Some(ConnId(1)));
        ready.push(ConnId(1));
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop()).map(|c| c.0).collect();
        assert_eq!(rest, [2, 3, 1]);
        assert!(ready.is_empty());
    }
}
