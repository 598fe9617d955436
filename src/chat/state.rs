//! The replicated state and its one way to change: [`State::apply`]. It is deterministic, knows nothing but the log, and is
//! total: whatever a command says, it comes to an outcome. What a command may not do is an outcome too, and takes the
//! command's number in its session like any other.
//!
//! Names. A session holds its name until it closes, renames itself or has been silent for so long that the name is released;
//! then its memberships end. When it is heard of again it takes the name back if that is still free; if not, all its commands
//! are refused with `NameTaken`, except those that help: another name, or the end of the session.

mod commands;

use super::command::{Code, Command, Name, Outcome, SecretHash, Settings, Stamp};
use super::content;
use super::dedup::Keys;
use super::digest::Digest;
use super::items::Items;
use super::names::Names;
use super::rooms::{Room, Rooms};
use super::sessions::{Session, Sessions};
use crate::limits;
use crate::types::{ClientSeq, LogIndex, Position, RoomId, Seq, SessionId};

/// What an entry came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Applied {
    /// What to tell the client that sent the command.
    pub result: Answer,
    /// The items that it made, at most one a room, by room.
    pub items: Items,
}

/// What to tell a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// No client asked.
    None,
    /// To the client that sent an Open with that secret.
    Opened {
        /// By which the asker is found.
        secret: SecretHash,
        /// The session, or why there is none.
        result: Result<SessionId, Code>,
    },
    /// To the client of a session.
    Session {
        /// The session.
        session: SessionId,
        /// The command's number.
        seq: ClientSeq,
        /// What to say of it.
        verdict: Verdict,
    },
}

/// What to say of a session's command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// What it came to, now or when it was first applied.
    Outcome(Outcome),
    /// It is not the next one, and was not taken: the client sends again from the expected one on.
    Gap {
        /// The number that the session is at.
        expected: ClientSeq,
    },
    /// It was applied once, but what it came to has been forgotten: the client had acknowledged it, or has left more
    /// unacknowledged than is kept.
    Forgotten,
}

/// The replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) applied: LogIndex,
    pub(super) trimmed: LogIndex,
    pub(super) clock: Stamp,
    pub(super) digest: Digest,
    pub(super) messages: u64,
    pub(super) settings: Settings,
    pub(super) rooms: Rooms,
    pub(super) sessions: Sessions,
    pub(super) names: Names,
    pub(super) keys: Keys,
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state before the first entry: the lobby is there, and nobody in it.
    #[must_use]
    pub fn new() -> State {
        let mut rooms = Rooms::default();
        rooms.add(RoomId::LOBBY, &Name::new("lobby", "lobby"));
        State {
            applied: LogIndex(0),
            trimmed: LogIndex(0),
            clock: Stamp::default(),
            digest: Digest::default(),
            messages: 0,
            settings: Settings::default(),
            rooms,
            sessions: Sessions::default(),
            names: Names::default(),
            keys: Keys::default(),
        }
    }

    /// Applies the command of the next entry.
    ///
    /// # Panics
    /// If `index` isn't the one after [`State::applied`]: the caller has lost its place in the log.
    pub fn apply(&mut self, index: LogIndex, stamp: &Stamp, command: &Command<'_>) -> Applied {
        self.advance(index);
        // Leaders stamp values that never go back. The maximum keeps expiry in order even if one did.
        self.clock.lamport = self.clock.lamport.max(stamp.lamport);
        self.clock.time_ms = self.clock.time_ms.max(stamp.time_ms);
        self.clock.age_ms = self.clock.age_ms.max(stamp.age_ms);

        let mut items = Items::default();
        let result = match content::head(command) {
            Some(head) => Answer::Session {
                session: head.session,
                seq: head.seq,
                verdict: self.session_command(index, stamp, head, command, &mut items),
            },
            None => self.other_command(index, command, &mut items),
        };
        self.digest.entry(index, &result, &items);
        Applied { result, items }
    }

    /// Passes an entry that isn't a command: only the applied index and the digest move.
    ///
    /// # Panics
    /// As [`State::apply`].
    pub fn skip(&mut self, index: LogIndex) {
        self.advance(index);
        self.digest.skip(index);
    }

    fn advance(&mut self, index: LogIndex) {
        assert_eq!(index, self.applied.next(), "entries are applied one after the other");
        self.applied = index;
    }

    // --- What can be asked ----------------------------------------------------------------------

    /// The last entry that was applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// What stands in entries up to this one isn't shown any more.
    #[must_use]
    pub fn trimmed(&self) -> LogIndex {
        self.trimmed
    }

    /// A digest of all that has been decided up to [`State::applied`].
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// The highest stamp that was applied, each part for itself.
    #[must_use]
    pub fn clock(&self) -> Stamp {
        self.clock
    }

    /// Messages in all rooms, ever.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The room of that folded name.
    #[must_use]
    pub fn room_named(&self, folded: &str) -> Option<&Room> {
        self.rooms.named(folded)
    }

    /// The room of that id.
    #[must_use]
    pub fn room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(id)
    }

    /// The rooms after that id, ascending.
    pub fn rooms_after(&self, id: RoomId) -> impl Iterator<Item = &Room> {
        self.rooms.after(id)
    }

    /// All rooms: id, last position, last number.
    pub fn room_ends(&self) -> impl Iterator<Item = (RoomId, Position, Seq)> + '_ {
        let rooms = self.rooms.after(RoomId(0));
        rooms.map(|room| (room.id, room.position, room.seq))
    }

    /// The names of those in the room as they are shown, sorted, each once.
    #[must_use]
    pub fn users_in(&self, id: RoomId) -> Vec<String> {
        let mut users: Vec<String> = self
            .rooms
            .get(id)
            .map(|room| room.users().map(str::to_string).collect())
            .unwrap_or_default();
        users.sort_unstable();
        users
    }

    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// The session that was opened with that secret.
    #[must_use]
    pub fn session_by_secret(&self, secret: &SecretHash) -> Option<SessionId> {
        self.sessions.by_secret(secret)
    }

    /// What a session's command came to, while that is remembered.
    #[must_use]
    pub fn outcome(&self, session: SessionId, seq: ClientSeq) -> Option<&Outcome> {
        self.sessions.get(session)?.outcome(seq)
    }

    // --- What the leader should propose ---------------------------------------------------------

    /// What has run out at that log age, at most `max` commands. It is the same until the commands are applied, so the leader
    /// asks again only then.
    #[must_use]
    pub fn due(&self, age_ms: u64, max: usize) -> Vec<Command<'static>> {
        let release_ms = self.settings.name_release_ms;
        let expiry_ms = self.settings.session_expiry_ms;
        let releases = self
            .sessions
            .named_by_silence()
            .take_while(|(heard_ms, _)| heard_ms.saturating_add(release_ms) <= age_ms)
            .filter_map(|(_, id)| self.sessions.get(id))
            .map(|session| Command::Release {
                session: session.id,
                user: session.name.shown.to_string().into(),
            });
        let expiries = self
            .sessions
            .nameless_by_silence()
            .take_while(|(heard_ms, _)| heard_ms.saturating_add(expiry_ms) <= age_ms)
            .map(|(_, session)| Command::Expire { session });
        let forget = self.forget_due().filter(|due_ms| *due_ms <= age_ms);
        releases
            .chain(expiries)
            .chain(forget.map(|_| Command::ForgetKeys))
            .take(max)
            .collect()
    }

    /// The log age in milliseconds at which [`State::due`] next has something; `None` if nothing can run out.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let release = self.sessions.named_by_silence().next();
        let expiry = self.sessions.nameless_by_silence().next();
        [
            release.map(|(heard_ms, _)| heard_ms.saturating_add(self.settings.name_release_ms)),
            expiry.map(|(heard_ms, _)| heard_ms.saturating_add(self.settings.session_expiry_ms)),
            self.forget_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Somewhat later than the oldest key runs out, so that one command forgets many.
    fn forget_due(&self) -> Option<u64> {
        let expiry_ms = self.settings.session_expiry_ms;
        let slack_ms = limits::FORGET_KEYS_INTERVAL.as_ms();
        let oldest_ms = self.keys.oldest_ms()?;
        Some(oldest_ms.saturating_add(expiry_ms).saturating_add(slack_ms))
    }

    /// For tests: how much there is of everything (sessions, names, keys).
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions.len(), self.names.len(), self.keys.len())
    }

    /// For tests: all sessions.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}
