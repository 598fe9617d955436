//! What has reached all readers of a room. Pure.

use std::collections::VecDeque;

use crate::types::Position;

/// Counts the readers that each position has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    readers: u32,
    /// The position that the readers wait for next, each.
    next: Vec<Position>,
    /// The lowest position that hasn't reached all.
    lowest: Position,
    /// How many readers `lowest` and those after it have reached.
    reached: VecDeque<u32>,
}

/// Why a delivery can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Items before it are missing.
    Lost(Position),
    /// It came before.
    Repeated(Position),
}

impl Window {
    /// So many readers, all of which get this position first.
    #[must_use]
    pub fn new(readers: usize, first: Position) -> Window {
        Window {
            readers: u32::try_from(readers).unwrap_or(u32::MAX),
            next: vec![first; readers],
            lowest: first,
            reached: VecDeque::new(),
        }
    }

    /// A reader has got a position.
    ///
    /// # Errors
    /// If it isn't the one after its last.
    pub fn reach(&mut self, reader: usize, position: Position) -> Result<(), Wrong> {
        let Some(next) = self.next.get_mut(reader) else {
            return Ok(());
        };
        if position != *next {
            return Err(match position > *next {
                true => Wrong::Lost(*next),
                false => Wrong::Repeated(position),
            });
        }
        *next = position.next();
        let at = (position.0 - self.lowest.0) as usize;
        if at >= self.reached.len() {
            // Readers go one by one, so it is the place after the last.
            self.reached.push_back(0);
        }
        if let Some(count) = self.reached.get_mut(at) {
            *count += 1;
        }
        while self.reached.front() == Some(&self.readers) {
            self.reached.pop_front();
            self.lowest = self.lowest.next();
        }
        Ok(())
    }

    /// The lowest position that hasn't reached all.
    #[must_use]
    pub fn lowest(&self) -> Position {
        self.lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_when_all_have_it() {
        let mut window = Window::new(2, Position(5));
        for position in 5..8 {
            window.reach(0, Position(position)).unwrap();
        }
        assert_eq!(window.lowest(), Position(5));
        window.reach(1, Position(5)).unwrap();
        assert_eq!(window.lowest(), Position(6));
        window.reach(1, Position(6)).unwrap();
        window.reach(1, Position(7)).unwrap();
        assert_eq!((window.lowest(), window.reached.len()), (Position(8), 0));
    }

    #[test]
    fn what_is_lost_or_repeated_is_told() {
        let mut window = Window::new(2, Position(1));
        assert_eq!(window.reach(0, Position(2)), Err(Wrong::Lost(Position(1))));
        window.reach(0, Position(1)).unwrap();
        assert_eq!(window.reach(0, Position(1)), Err(Wrong::Repeated(Position(1))));
        assert_eq!(window.reach(0, Position(3)), Err(Wrong::Lost(Position(2))));
        window.reach(1, Position(1)).unwrap();
        assert_eq!(window.lowest(), Position(2));
    }
}
