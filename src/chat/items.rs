//! The items that an entry makes: nearly always one or none, and these need no memory of their own.

use std::ops::Deref;

use crate::types::{Position, RoomId, Seq};

/// Where an item that an entry made stands: the room, its place there, and its number if it is a message, else 0.
pub type Placed = (RoomId, Position, Seq);

/// Where the items of an entry stand, at most one a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Items {
    /// One or none.
    Few(Option<Placed>),
    /// Two or more.
    Many(Vec<Placed>),
}

impl Default for Items {
    fn default() -> Items {
        Items::Few(None)
    }
}

impl Items {
    /// Adds one.
    pub fn push(&mut self, placed: Placed) {
        match self {
            Items::Few(None) => *self = Items::Few(Some(placed)),
            Items::Few(Some(first)) => *self = Items::Many(vec![*first, placed]),
            Items::Many(all) => all.push(placed),
        }
    }
}

impl Deref for Items {
    type Target = [Placed];
    fn deref(&self) -> &[Placed] {
        match self {
            Items::Few(few) => few.as_slice(),
            Items::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_there_in_its_order() {
        let (mut items, mut wanted) = (Items::default(), Vec::new());
        for n in 0..5 {
            assert_eq!(*items, *wanted);
            items.push((RoomId(n), Position(n), Seq(n)));
            wanted.push((RoomId(n), Position(n), Seq(n)));
        }
        assert_eq!(*items, *wanted);
    }
}
