//! Pure: the replicated state. Rooms, who is in them, names, client sessions and what their commands came to. Entries go in
//! through [`State::apply`], which is deterministic and can't fail; what must be checked before an entry enters the log is in
//! [`admission`]. May call the ground floor only; it doesn't know of the cluster.
//!
//! Read [`command`] first (the vocabulary), then [`state`] (the dispatch), then the tables that it works on.

pub mod admission;
pub mod codes;
pub mod command;
pub mod content;
pub mod dedup;
pub mod digest;
pub mod image;
mod items;
pub mod names;
pub mod rooms;
pub mod sessions;
pub mod state;

#[cfg(test)]
mod tests;

pub use content::{content, origin};
pub use image::{Builder, ImageError, Row};
pub use items::{Items, Placed};
pub use rooms::Room;
pub use sessions::Session;
pub use state::{Answer, Applied, State, Verdict};
