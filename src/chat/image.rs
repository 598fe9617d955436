//! The state as rows and back: what a checkpoint holds. Rows say what can't be told from other rows, each thing once and in one
//! order, so that equal states have equal rows; the tables by which things are found are built anew from them.
//!
//! Rows come from a disk or from another server. [`Builder`] takes any: what no history could have led to is an error, and a state
//! that comes of it is as sound as one that [`State::apply`] made.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::command::{DedupKey, KeyId, Name, Outcome, SecretHash, Settings, Stamp};
use super::dedup::{Keys, Posted};
use super::digest::Digest;
use super::names::Names;
use super::rooms::Rooms;
use super::sessions::{Session, Sessions};
use super::state::State;
use crate::limits;
use crate::types::{ClientSeq, LogIndex, Position, RoomId, Seq, SessionId};

/// A piece of the state, in the order of the variants. The number of a variant and the order of its fields are part of the formats.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Row {
    /// First, once: what there is one of.
    Head {
        /// The last entry that was applied.
        applied: LogIndex,
        /// What stands in entries up to this one isn't shown any more.
        trimmed: LogIndex,
        /// The highest stamp.
        clock: Stamp,
        /// The running digest.
        digest: u64,
        /// Messages in all rooms, ever.
        messages: u64,
        /// The settings in force.
        settings: Settings,
    },
    /// A room, by id; who is in it follows later.
    Room {
        /// The index of the entry that made it.
        id: RoomId,
        /// Its name.
        name: Name,
        /// Its topic.
        topic: Arc<str>,
        /// Its last item.
        position: Position,
        /// Its last message.
        seq: Seq,
    },
    /// A session, by id; its outcomes follow at once.
    Session {
        /// The index of the entry that opened it.
        id: SessionId,
        /// Its name.
        name: Name,
        /// Who holds the name.
        key: KeyId,
        /// By which the client proves itself.
        secret: SecretHash,
        /// The number of the last command that was taken.
        last: ClientSeq,
        /// Whether it holds its name.
        named: bool,
        /// The log age at which it was last heard of, in milliseconds.
        heard_ms: u64,
        /// The rooms that it is in, ascending.
        rooms: Vec<RoomId>,
    },
    /// Outcomes of the session of the row before, oldest first, at most `limits::IMAGE_OUTCOMES_MAX`.
    Outcomes(Vec<Outcome>),
    /// How people in a room are shown, by room and folded name, at most `limits::IMAGE_NAMES_MAX`; all who are in it.
    Members {
        /// The room.
        room: RoomId,
        /// The names.
        names: Vec<Name>,
    },
    /// How names that are held are written, by folded name, at most `limits::IMAGE_NAMES_MAX`; all that are held.
    Names(Vec<Name>),
    /// Idempotency keys, the oldest first, at most `limits::IMAGE_KEYS_MAX`: (log age at which it came, whose, which, where its message
    /// stands).
    Keys(Vec<(u64, KeyId, DedupKey, Posted)>),
}

impl Row {
    /// Where rows of this kind stand among the others.
    fn rank(&self) -> u8 {
        match self {
            Row::Head { .. } => 0,
            Row::Room { .. } => 1,
            Row::Session { .. } | Row::Outcomes(_) => 2,
            Row::Members { .. } => 3,
            Row::Names(_) => 4,
            Row::Keys(_) => 5,
        }
    }
}

/// Why rows aren't those of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageError {
    /// A row stands where none of its kind can, or says again what was said.
    Order(&'static str),
    /// There is more of something than there can be.
    Bounds(&'static str),
    /// Rows contradict each other.
    Contradiction(&'static str),
    /// Rows are missing.
    Missing(&'static str),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Order(what) => write!(f, "out of order, or there twice: {what}"),
            ImageError::Bounds(what) => write!(f, "more or larger than it can be: {what}"),
            ImageError::Contradiction(what) => write!(f, "rows that contradict each other: {what}"),
            ImageError::Missing(what) => write!(f, "missing: {what}"),
        }
    }
}

impl std::error::Error for ImageError {}

impl State {
    /// All that there is of the state, in one order: equal states have equal rows. Each is at most `limits::IMAGE_ROW_BYTES_MAX`
    /// encoded.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let head = Row::Head {
            applied: self.applied,
            trimmed: self.trimmed,
            clock: self.clock,
            digest: self.digest.value(),
            messages: self.messages,
            settings: self.settings,
        };
        let rooms = self.rooms_after(RoomId(0)).map(|room| Row::Room {
            id: room.id,
            name: room.name.clone(),
            topic: room.topic.clone(),
            position: room.position,
            seq: room.seq,
        });
        let sessions = self.sessions.all().flat_map(|session| {
            let outcomes = session.outcomes.iter().cloned();
            std::iter::once(session_row(session)).chain(pieces(outcomes, limits::IMAGE_OUTCOMES_MAX).map(Row::Outcomes))
        });
        let members = self.rooms_after(RoomId(0)).flat_map(|room| {
            let names = pieces(room.names(), limits::IMAGE_NAMES_MAX);
            names.map(|names| Row::Members { room: room.id, names })
        });
        let names = pieces(self.names.all(), limits::IMAGE_NAMES_MAX).map(Row::Names);
        let keys = self.keys.all();
        let keys = keys.map(|(age_ms, (whose, which), posted)| (age_ms, whose, which, posted));
        let keys = pieces(keys, limits::IMAGE_KEYS_MAX).map(Row::Keys);
        std::iter::once(head)
            .chain(rooms)
            .chain(sessions)
            .chain(members)
            .chain(names)
            .chain(keys)
    }
}

fn session_row(session: &Session) -> Row {
    Row::Session {
        id: session.id,
        name: session.name.clone(),
        key: session.key,
        secret: session.secret,
        last: session.last,
        named: session.named,
        heard_ms: session.heard_ms,
        rooms: session.rooms.clone(),
    }
}

/// The items, at most so many at a time.
fn pieces<T>(mut items: impl Iterator<Item = T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let piece: Vec<T> = items.by_ref().take(most).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

/// Makes a state of rows again. What it holds is bounded by what a state may hold, whatever the rows say.
#[derive(Clone, Debug)]
pub struct Builder {
    state: State,
    /// The rank of the last row; `None` before the head.
    rank: Option<u8>,
    /// The first error: nothing comes of these rows any more.
    failed: Option<ImageError>,
    /// The session whose outcomes may follow; it isn't in the state yet.
    open: Option<Session>,
    /// The last member that was told.
    member: Option<(RoomId, Arc<str>)>,
    members_told: usize,
    /// The last name that was told.
    name: Option<Arc<str>>,
    names_told: usize,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Before the first row.
    #[must_use]
    pub fn new() -> Builder {
        let state = State {
            rooms: Rooms::default(),
            sessions: Sessions::default(),
            names: Names::default(),
            keys: Keys::default(),
            ..State::new()
        };
        Builder {
            state,
            rank: None,
            failed: None,
            open: None,
            member: None,
            members_told: 0,
            name: None,
            names_told: 0,
        }
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// What is wrong with it; nothing comes of the rows then, whatever follows.
    pub fn take(&mut self, row: Row) -> Result<(), ImageError> {
        let taken = self.try_take(row);
        if let Err(error) = taken {
            self.failed.get_or_insert(error);
        }
        taken
    }

    /// The state that the rows are of.
    ///
    /// # Errors
    /// What is missing, or was wrong with a row.
    pub fn finish(mut self) -> Result<State, ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.close_session()?;
        let state = self.state;
        if self.rank.is_none() {
            return Err(ImageError::Missing("the head"));
        }
        if state.rooms.get(RoomId::LOBBY).is_none() {
            return Err(ImageError::Missing("the lobby"));
        }
        let members: usize = state.rooms_after(RoomId(0)).map(|room| room.members()).sum();
        if self.members_told != members {
            return Err(ImageError::Missing("how a member is shown"));
        }
        if self.names_told != state.names.len() {
            return Err(ImageError::Missing("how a name is written"));
        }
        let messages = state
            .rooms_after(RoomId(0))
            .try_fold(0u64, |sum, room| sum.checked_add(room.seq.0));
        if messages != Some(state.messages) {
            return Err(ImageError::Contradiction("the number of all messages"));
        }
        Ok(state)
    }

    fn try_take(&mut self, row: Row) -> Result<(), ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let rank = row.rank();
        let in_order = match self.rank {
            None => rank == 0,
            Some(last) => rank > 0 && rank >= last,
        };
        if !in_order {
            return Err(ImageError::Order("a kind of rows"));
        }
        self.rank = Some(rank);
        if !matches!(row, Row::Outcomes(_)) {
            self.close_session()?;
        }
        match row {
            Row::Head {
                applied,
                trimmed,
                clock,
                digest,
                messages,
                settings,
            } => {
                if trimmed > applied.previous() {
                    return Err(ImageError::Contradiction("entries that are gone before they came"));
                }
                let state = &mut self.state;
                (state.applied, state.trimmed, state.clock) = (applied, trimmed, clock);
                (state.digest, state.messages, state.settings) = (Digest(digest), messages, settings);
                Ok(())
            }
            Row::Room {
                id,
                name,
                topic,
                position,
                seq,
            } => self.room(id, &name, topic, position, seq),
            Row::Session {
                id,
                name,
                key,
                secret,
                last,
                named,
                heard_ms,
                rooms,
            } => {
                check_name(&name, limits::NAME_BYTES_MAX)?;
                if !ascending(&rooms) {
                    return Err(ImageError::Order("the rooms of a session"));
                }
                self.open = Some(Session {
                    id,
                    name: Name::new(&name.shown, &name.folded),
                    key,
                    secret,
                    last,
                    named,
                    heard_ms,
                    outcomes: VecDeque::new(),
                    rooms,
                });
                Ok(())
            }
            Row::Outcomes(outcomes) => self.outcomes(outcomes),
            Row::Members { room, names } => self.members(room, names),
            Row::Names(names) => self.names(names),
            Row::Keys(keys) => self.keys(&keys),
        }
    }

    fn room(
        &mut self,
        id: RoomId,
        name: &Name,
        topic: Arc<str>,
        position: Position,
        seq: Seq,
    ) -> Result<(), ImageError> {
        check_name(name, limits::ROOM_NAME_BYTES_MAX)?;
        if topic.len() > limits::TOPIC_BYTES_MAX {
            return Err(ImageError::Bounds("a topic"));
        }
        let rooms = &mut self.state.rooms;
        if rooms.len() >= limits::ROOMS_MAX {
            return Err(ImageError::Bounds("rooms"));
        }
        let applied = self.state.applied;
        if id == RoomId(0) || (id.0 > applied.0 && id != RoomId::LOBBY) {
            return Err(ImageError::Contradiction("a room that isn't there yet"));
        }
        if rooms.after(id.previous()).next().is_some() {
            return Err(ImageError::Order("rooms"));
        }
        if rooms.named(&name.folded).is_some() {
            return Err(ImageError::Order("the name of a room"));
        }
        // An entry makes at most one item in a room.
        if seq.0 > position.0 || position.0 > applied.0 {
            return Err(ImageError::Contradiction("the last item of a room"));
        }
        let room = rooms.add(id, name);
        (room.topic, room.position, room.seq) = (topic, position, seq);
        Ok(())
    }

    fn outcomes(&mut self, mut outcomes: Vec<Outcome>) -> Result<(), ImageError> {
        check_piece(outcomes.len(), limits::IMAGE_OUTCOMES_MAX, "outcomes in a row")?;
        let Some(session) = &mut self.open else {
            return Err(ImageError::Order("outcomes without a session"));
        };
        if session.outcomes.len() + outcomes.len() > limits::SESSION_RESULTS_MAX {
            return Err(ImageError::Bounds("outcomes of a session"));
        }
        for outcome in &mut outcomes {
            let Outcome::Room { room, name, topic, .. } = outcome else {
                continue;
            };
            if name.len() > limits::ROOM_NAME_BYTES_MAX || topic.len() > limits::TOPIC_BYTES_MAX {
                return Err(ImageError::Bounds("the name or topic of an outcome"));
            }
            // What is the same is in memory once, as it was.
            if let Some(room) = self.state.rooms.get(*room) {
                for (told, held) in [(name, &room.name.shown), (topic, &room.topic)] {
                    if told == held {
                        *told = Arc::clone(held);
                    }
                }
            }
        }
        session.outcomes.extend(outcomes);
        Ok(())
    }

    /// The session is whole: it goes into the state, with its name, and into its rooms.
    fn close_session(&mut self) -> Result<(), ImageError> {
        let Some(session) = self.open.take() else {
            return Ok(());
        };
        let state = &mut self.state;
        if state.sessions.len() >= limits::SESSIONS_MAX {
            return Err(ImageError::Bounds("sessions"));
        }
        if state.sessions.last().is_some_and(|last| last >= session.id) {
            return Err(ImageError::Order("sessions"));
        }
        // Every command that it took is an entry after the one that opened it.
        let entries = state.applied.0.checked_sub(session.id.0);
        if entries.is_none_or(|entries| session.last.0 > entries) || session.heard_ms > state.clock.age_ms {
            return Err(ImageError::Contradiction("a session ahead of the log"));
        }
        if session.outcomes.len() as u64 > session.last.0 {
            return Err(ImageError::Contradiction("outcomes of commands that weren't given"));
        }
        if session.rooms.len() > limits::ROOMS_PER_SESSION_MAX {
            return Err(ImageError::Bounds("rooms of a session"));
        }
        if !session.named && !session.rooms.is_empty() {
            return Err(ImageError::Contradiction("a session without a name in a room"));
        }
        if session.named && !state.names.take(&session.name, session.key) {
            return Err(ImageError::Contradiction("a name that two keys hold"));
        }
        for room in &session.rooms {
            let Some(room) = state.rooms.get_mut(*room) else {
                return Err(ImageError::Contradiction("a session in a room that isn't there"));
            };
            room.enter(&session.name);
        }
        if !state.sessions.restore(session) {
            return Err(ImageError::Order("the secret of a session"));
        }
        Ok(())
    }

    fn members(&mut self, id: RoomId, names: Vec<Name>) -> Result<(), ImageError> {
        check_piece(names.len(), limits::IMAGE_NAMES_MAX, "members in a row")?;
        let Some(room) = self.state.rooms.get_mut(id) else {
            return Err(ImageError::Contradiction("members of a room that isn't there"));
        };
        for name in names {
            check_name(&name, limits::NAME_BYTES_MAX)?;
            let member = (id, name.folded.clone());
            if self.member.as_ref().is_some_and(|last| *last >= member) {
                return Err(ImageError::Order("members"));
            }
            if !room.show(name) {
                return Err(ImageError::Contradiction("a member without a session"));
            }
            self.member = Some(member);
            self.members_told += 1;
        }
        Ok(())
    }

    fn names(&mut self, names: Vec<Name>) -> Result<(), ImageError> {
        check_piece(names.len(), limits::IMAGE_NAMES_MAX, "names in a row")?;
        for name in names {
            check_name(&name, limits::NAME_BYTES_MAX)?;
            if self.name.as_ref().is_some_and(|last| *last >= name.folded) {
                return Err(ImageError::Order("names"));
            }
            self.name = Some(name.folded.clone());
            if !self.state.names.show(name) {
                return Err(ImageError::Contradiction("a name that nobody holds"));
            }
            self.names_told += 1;
        }
        Ok(())
    }

    fn keys(&mut self, keys: &[(u64, KeyId, DedupKey, Posted)]) -> Result<(), ImageError> {
        check_piece(keys.len(), limits::IMAGE_KEYS_MAX, "idempotency keys in a row")?;
        let state = &mut self.state;
        for &(age_ms, whose, which, posted) in keys {
            if state.keys.is_full() {
                return Err(ImageError::Bounds("idempotency keys"));
            }
            if state.keys.newest_ms().is_some_and(|newest_ms| newest_ms > age_ms) {
                return Err(ImageError::Order("the ages of idempotency keys"));
            }
            if age_ms > state.clock.age_ms {
                return Err(ImageError::Contradiction("an idempotency key ahead of the log"));
            }
            let key = (whose, which);
            if state.keys.get(&key).is_some() {
                return Err(ImageError::Order("an idempotency key"));
            }
            let room = state.rooms.get(posted.room);
            if room.is_none_or(|room| posted.seq > room.seq || posted.position > room.position) {
                return Err(ImageError::Contradiction("where the message of a key stands"));
            }
            state.keys.add(key, posted, age_ms);
        }
        Ok(())
    }
}

fn check_name(name: &Name, bytes_max: usize) -> Result<(), ImageError> {
    let fits = name.shown.len() <= bytes_max && name.folded.len() <= bytes_max;
    fits.then_some(()).ok_or(ImageError::Bounds("a name"))
}

fn check_piece(len: usize, most: usize, what: &'static str) -> Result<(), ImageError> {
    let fits = (1..=most).contains(&len);
    fits.then_some(()).ok_or(ImageError::Bounds(what))
}

fn ascending(rooms: &[RoomId]) -> bool {
    rooms.windows(2).all(|pair| pair[0] < pair[1])
}
