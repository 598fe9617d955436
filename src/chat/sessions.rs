//! Client sessions: who they are, what their last commands came to, and when they were last heard of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::command::{KeyId, Name, Outcome, SecretHash};
use crate::limits;
use crate::types::{ClientSeq, RoomId, SessionId};

/// A client session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The index of the entry that opened it.
    pub id: SessionId,
    /// The name that it has, or had while `named` is false.
    pub name: Name,
    /// Who holds the name.
    pub key: KeyId,
    /// By which the client proves itself.
    pub secret: SecretHash,
    /// The number of the last command that was taken.
    pub last: ClientSeq,
    /// Whether it holds its name; false after a release until it is heard of again and the name is still free.
    pub named: bool,
    /// The log age at which it was last heard of, in milliseconds.
    pub(super) heard_ms: u64,
    /// Of the last commands, the newest at the back; the last one's number is `last`.
    pub(super) outcomes: VecDeque<Outcome>,
    /// Ascending. Most sessions are in one or two.
    pub(super) rooms: Vec<RoomId>,
}

impl Session {
    /// The log age at which it was last heard of, in milliseconds.
    #[must_use]
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// The rooms that it is in, ascending.
    #[must_use]
    pub fn rooms(&self) -> &[RoomId] {
        &self.rooms
    }

    /// Whether it is in the room.
    #[must_use]
    pub fn is_in(&self, room: RoomId) -> bool {
        self.rooms.binary_search(&room).is_ok()
    }

    /// It is in the room from now on.
    pub fn enter(&mut self, room: RoomId) {
        if let Err(at) = self.rooms.binary_search(&room) {
            if self.rooms.capacity() == 0 {
                self.rooms.reserve_exact(1);
            }
            self.rooms.insert(at, room);
        }
    }

    /// It isn't in the room any more; false if it wasn't.
    pub fn leave(&mut self, room: RoomId) -> bool {
        let at = self.rooms.binary_search(&room);
        at.map(|at| self.rooms.remove(at)).is_ok()
    }

    /// It is in no room any more. Gives those that it was in, ascending.
    pub fn take_rooms(&mut self) -> Vec<RoomId> {
        std::mem::take(&mut self.rooms)
    }

    /// What a command came to, while that is remembered.
    #[must_use]
    pub fn outcome(&self, seq: ClientSeq) -> Option<&Outcome> {
        let back = self.last.0.checked_sub(seq.0)?;
        let back = usize::try_from(back).ok()?;
        let at = self.outcomes.len().checked_sub(back + 1)?;
        self.outcomes.get(at)
    }

    /// How many outcomes are remembered.
    #[must_use]
    pub fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    /// Forgets the outcomes below the number that the client has said it doesn't know yet.
    pub fn acknowledged_below(&mut self, seq: ClientSeq) {
        let first = (self.last.0 + 1).saturating_sub(self.outcomes.len() as u64);
        let known = seq.0.saturating_sub(first).min(self.outcomes.len() as u64);
        self.outcomes.drain(..known as usize);
    }

    /// Takes the next command's outcome.
    pub fn record(&mut self, outcome: Outcome) {
        self.last = self.last.next();
        if self.outcomes.len() == limits::SESSION_RESULTS_MAX {
            self.outcomes.pop_front();
        }
        if self.outcomes.capacity() == 0 {
            // Most sessions say nothing after they have joined: memory for four would cost them three.
            self.outcomes.reserve_exact(1);
        }
        self.outcomes.push_back(outcome);
    }
}

/// All sessions, with what is needed to find the ones that have been silent without looking at every one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions {
    /// Boxed, for a node of the tree has room for eleven, and they come in the order in which half of it stays empty.
    sessions: BTreeMap<SessionId, Box<Session>>,
    by_secret: BTreeMap<SecretHash, SessionId>,
    /// Those that hold their name, by when they were last heard of.
    named: BTreeSet<(u64, SessionId)>,
    /// Those that don't, by when they were last heard of.
    nameless: BTreeSet<(u64, SessionId)>,
}

impl Sessions {
    /// The session of that id.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(|session| &**session)
    }

    /// The session of that id, to be changed. When it was heard of and whether it is named are changed by
    /// [`Sessions::hear`] only.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id).map(|session| &mut **session)
    }

    /// The session that was opened with that secret.
    #[must_use]
    pub fn by_secret(&self, secret: &SecretHash) -> Option<SessionId> {
        self.by_secret.get(secret).copied()
    }

    /// Adds a session that holds its name. The caller has made sure that neither its id nor its secret is there.
    pub fn add(&mut self, id: SessionId, name: Name, key: KeyId, secret: SecretHash, heard_ms: u64) {
        let session = Session {
            id,
            name,
            key,
            secret,
            last: ClientSeq(0),
            named: true,
            heard_ms,
            outcomes: VecDeque::new(),
            rooms: Vec::new(),
        };
        self.sessions.insert(id, Box::new(session));
        self.by_secret.insert(secret, id);
        self.named.insert((heard_ms, id));
    }

    /// Puts a session back as it was; false, and nothing changes, if its id or its secret is there already.
    pub(super) fn restore(&mut self, session: Session) -> bool {
        let (id, secret, heard_ms) = (session.id, session.secret, session.heard_ms);
        if self.sessions.contains_key(&id) || self.by_secret.contains_key(&secret) {
            return false;
        }
        let silent = if session.named {
            &mut self.named
        } else {
            &mut self.nameless
        };
        silent.insert((heard_ms, id));
        self.by_secret.insert(secret, id);
        self.sessions.insert(id, Box::new(session));
        true
    }

    /// All sessions, by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(|session| &**session)
    }

    /// The session was heard of at that age, and from now on has its name or not.
    pub fn hear(&mut self, id: SessionId, heard_ms: u64, named: bool) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.heard_ms == heard_ms && session.named == named {
            return;
        }
        let from = if session.named {
            &mut self.named
        } else {
            &mut self.nameless
        };
        from.remove(&(session.heard_ms, id));
        session.heard_ms = heard_ms;
        session.named = named;
        let to = if named { &mut self.named } else { &mut self.nameless };
        to.insert((heard_ms, id));
    }

    /// Removes a session.
    pub fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.sessions.remove(&id)?;
        self.by_secret.remove(&session.secret);
        self.named.remove(&(session.heard_ms, id));
        self.nameless.remove(&(session.heard_ms, id));
        Some(session)
    }

    /// Those that hold their name, the longest silent first: (when it was last heard of, the session).
    pub fn named_by_silence(&self) -> impl Iterator<Item = (u64, SessionId)> {
        self.named.iter().copied()
    }

    /// Those that don't, the longest silent first.
    pub fn nameless_by_silence(&self) -> impl Iterator<Item = (u64, SessionId)> {
        self.nameless.iter().copied()
    }

    /// The highest id.
    pub(super) fn last(&self) -> Option<SessionId> {
        self.sessions.keys().next_back().copied()
    }

    /// All ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
