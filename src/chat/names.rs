//! Who holds which name. Without accounts, a name is held by the sessions of one key, as many as it likes, and refused to
//! every other key until the last of them has let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::{KeyId, Name};

/// A name that is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    /// As the last session wrote it that took it.
    shown: Arc<str>,
    /// Whose it is.
    key: KeyId,
    /// How many sessions of the key hold it; never 0.
    sessions: u32,
}

/// All names that are held, by their folded form. At most one for each session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Names {
    held: BTreeMap<Arc<str>, Held>,
}

impl Names {
    /// Whether a session of this key may take the name.
    #[must_use]
    pub fn is_free_for(&self, folded: &str, key: KeyId) -> bool {
        self.held.get(folded).is_none_or(|held| held.key == key)
    }

    /// The name as the sessions write it that hold it, if any does.
    #[must_use]
    pub fn named(&self, folded: &str) -> Option<Name> {
        let (folded, held) = self.held.get_key_value(folded)?;
        Some(Name {
            shown: held.shown.clone(),
            folded: folded.clone(),
        })
    }

    /// All names that are held, by their folded form.
    pub(super) fn all(&self) -> impl Iterator<Item = Name> {
        self.held.iter().map(|(folded, held)| Name {
            shown: held.shown.clone(),
            folded: folded.clone(),
        })
    }

    /// How a name is written; false, and nothing changes, if nobody holds it.
    pub(super) fn show(&mut self, name: Name) -> bool {
        let Some(held) = self.held.get_mut(&name.folded) else {
            return false;
        };
        // What is the same stays in memory once.
        if held.shown != name.shown {
            held.shown = name.shown;
        }
        true
    }

    /// One more session of the key holds the name; false, and nothing changes, if it is another key's.
    pub fn take(&mut self, name: &Name, key: KeyId) -> bool {
        match self.held.get_mut(&name.folded) {
            None => {
                let held = Held {
                    shown: name.shown.clone(),
                    key,
                    sessions: 1,
                };
                self.held.insert(name.folded.clone(), held);
                true
            }
            Some(held) if held.key == key => {
                held.sessions += 1;
                held.shown.clone_from(&name.shown);
                true
            }
            Some(_) => false,
        }
    }

    /// One session lets the name go; with the last one it is free.
    pub fn let_go(&mut self, folded: &str) {
        let Some(held) = self.held.get_mut(folded) else {
            return;
        };
        held.sessions -= 1;
        if held.sessions == 0 {
            self.held.remove(folded);
        }
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no name is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
