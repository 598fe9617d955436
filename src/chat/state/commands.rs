//! What each command does to the state.

use super::super::command::{Code, Command, DedupKey, Head, KeyId, Name, Outcome, SecretHash, Stamp};
use super::super::content;
use super::super::dedup::Posted;
use super::super::rooms::Room;
use super::{Answer, Items, State, Verdict};
use crate::limits;
use crate::types::{LogIndex, RoomId, SessionId};

impl State {
    // --- Commands of no session -----------------------------------------------------------------

    pub(super) fn other_command(&mut self, index: LogIndex, command: &Command<'_>, items: &mut Items) -> Answer {
        match command {
            Command::Open { name, key, secret, .. } => {
                let result = self.open(index, name, *key, *secret);
                return Answer::Opened {
                    secret: *secret,
                    result,
                };
            }
            Command::Touch { sessions, .. } => {
                for session in sessions {
                    self.hear(*session);
                }
            }
            Command::Release { session, user } => self.release(*session, user, items),
            Command::Expire { session } => self.expire(*session),
            Command::ForgetKeys => {
                if let Some(until_ms) = self.clock.age_ms.checked_sub(self.settings.session_expiry_ms) {
                    self.keys.forget(until_ms, limits::FORGET_KEYS_MAX);
                }
            }
            Command::Settings(settings) => self.settings = *settings,
            Command::Trim { index: until } => self.trim(index, *until),
            Command::Post { .. }
            | Command::Create { .. }
            | Command::Join { .. }
            | Command::Leave { .. }
            | Command::Topic { .. }
            | Command::Rename { .. }
            | Command::Skip { .. }
            | Command::Close { .. } => {}
        }
        Answer::None
    }

    fn open(&mut self, index: LogIndex, name: &Name, key: KeyId, secret: SecretHash) -> Result<SessionId, Code> {
        if let Some(id) = self.sessions.by_secret(&secret) {
            if self.sessions.get(id).is_none_or(|session| session.key != key) {
                return Err(Code::WrongSecret);
            }
            return if self.hear(id) { Ok(id) } else { Err(Code::NameTaken) };
        }
        if self.sessions.len() >= limits::SESSIONS_MAX {
            return Err(Code::SessionsFull);
        }
        // All sessions of a key that have a name write it alike: the newcomer gets it as it is.
        let name = match self.names.named(&name.folded) {
            Some(held) => held,
            None => Name::new(&name.shown, &name.folded),
        };
        if !self.names.take(&name, key) {
            return Err(Code::NameTaken);
        }
        let id = SessionId(index.0);
        self.sessions.add(id, name, key, secret, self.clock.age_ms);
        Ok(id)
    }

    /// The session has been heard of now. Tells whether it has its name.
    fn hear(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(id) else {
            return false;
        };
        let named = session.named || self.names.take(&session.name, session.key);
        self.sessions.hear(id, self.clock.age_ms, named);
        named
    }

    /// Without effect if the session has been heard of since it was proposed, or has another name by now.
    fn release(&mut self, id: SessionId, user: &str, items: &mut Items) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let due_ms = session.heard_ms().saturating_add(self.settings.name_release_ms);
        if !session.named || *session.name.shown != *user || due_ms > self.clock.age_ms {
            return;
        }
        self.end_memberships(id, items);
        self.let_name_go(id);
    }

    /// Only after the release: that is what ends the memberships, for it alone has the name that the items need.
    fn expire(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let due_ms = session.heard_ms().saturating_add(self.settings.session_expiry_ms);
        if !session.named && due_ms <= self.clock.age_ms {
            self.sessions.remove(id);
        }
    }

    /// The entry at `index` itself and what is to come can't be given up. The digest takes in what came of it, for there is no answer
    /// and no item by which two replicas that differ here would be told apart.
    fn trim(&mut self, index: LogIndex, until: LogIndex) {
        self.trimmed = self.trimmed.max(until.min(index.previous()));
        self.digest.trimmed(self.trimmed);
    }

    fn end_memberships(&mut self, id: SessionId, items: &mut Items) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        for room in session.take_rooms() {
            if let Some(room) = self.rooms.get_mut(room)
                && room.exit(&session.name.folded)
            {
                items.push(room.place(false));
            }
        }
    }

    fn let_name_go(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(id)
            && session.named
        {
            self.names.let_go(&session.name.folded);
            let heard_ms = session.heard_ms();
            self.sessions.hear(id, heard_ms, false);
        }
    }

    // --- Commands of a session ------------------------------------------------------------------

    pub(super) fn session_command(
        &mut self,
        index: LogIndex,
        stamp: &Stamp,
        head: &Head,
        command: &Command<'_>,
        items: &mut Items,
    ) -> Verdict {
        let id = head.session;
        let named = self.hear(id);
        let Some(session) = self.sessions.get_mut(id) else {
            return Verdict::Outcome(Outcome::Refused(Code::NoSuchSession));
        };
        session.acknowledged_below(head.unacknowledged);
        if head.seq <= session.last {
            return session
                .outcome(head.seq)
                .map_or(Verdict::Forgotten, |outcome| Verdict::Outcome(outcome.clone()));
        }
        let expected = session.last.next();
        if head.seq != expected {
            return Verdict::Gap { expected };
        }
        let wrong_name = content::user(command).is_some_and(|user| user != &*session.name.shown);
        let helps = matches!(
            command,
            Command::Rename { .. } | Command::Close { .. } | Command::Skip { .. }
        );
        let outcome = if !named && !helps {
            Outcome::Refused(Code::NameTaken)
        } else if wrong_name {
            Outcome::Refused(Code::WrongName)
        } else {
            self.decide(index, stamp, id, command, items)
                .unwrap_or_else(Outcome::Refused)
        };
        if let Some(session) = self.sessions.get_mut(id) {
            session.record(outcome.clone());
        }
        Verdict::Outcome(outcome)
    }

    fn decide(
        &mut self,
        index: LogIndex,
        stamp: &Stamp,
        id: SessionId,
        command: &Command<'_>,
        items: &mut Items,
    ) -> Result<Outcome, Code> {
        match command {
            Command::Post { room, dedup, .. } => self.post(stamp, id, *room, *dedup, items),
            Command::Create { room, or_find, .. } => self.create(RoomId(index.0), room, *or_find, items),
            Command::Join { room, .. } => self.join(id, room, items),
            Command::Leave { room, .. } => self.leave(id, *room, items),
            Command::Topic { room, text, .. } => self.topic(id, *room, text, items),
            Command::Rename { name, .. } => self.rename(id, name, items),
            Command::Skip { code, .. } => Err(*code),
            Command::Close { .. } => {
                self.end_memberships(id, items);
                self.let_name_go(id);
                self.sessions.remove(id);
                Ok(Outcome::Done)
            }
            Command::Open { .. }
            | Command::Touch { .. }
            | Command::Release { .. }
            | Command::Expire { .. }
            | Command::ForgetKeys
            | Command::Settings(_)
            | Command::Trim { .. } => Err(Code::Malformed),
        }
    }

    fn post(
        &mut self,
        stamp: &Stamp,
        id: SessionId,
        room: RoomId,
        dedup: Option<DedupKey>,
        items: &mut Items,
    ) -> Result<Outcome, Code> {
        let session = self.sessions.get(id).ok_or(Code::NoSuchSession)?;
        let key = dedup.map(|dedup| (session.key, dedup));
        if let Some(key) = &key {
            if let Some(posted) = self.keys.get(key) {
                return Ok(posted.outcome());
            }
            if self.keys.is_full() {
                return Err(Code::KeysFull);
            }
        }
        let room = self.rooms.get_mut(room).ok_or(Code::NoSuchRoom)?;
        let (room, position, seq) = room.place(true);
        items.push((room, position, seq));
        self.messages += 1;
        let posted = Posted {
            room,
            seq,
            position,
            lamport: stamp.lamport,
            time_ms: stamp.time_ms,
        };
        if let Some(key) = key {
            self.keys.add(key, posted, self.clock.age_ms);
        }
        Ok(posted.outcome())
    }

    fn create(&mut self, id: RoomId, name: &Name, or_find: bool, items: &mut Items) -> Result<Outcome, Code> {
        if let Some(room) = self.rooms.named(&name.folded) {
            return if or_find {
                Ok(found(room, false))
            } else {
                Err(Code::RoomExists)
            };
        }
        if self.rooms.len() >= limits::ROOMS_MAX {
            return Err(Code::RoomsFull);
        }
        // Entry 1 is never a command, so that no room can get the lobby's id; if it were, this keeps the lobby.
        if self.rooms.get(id).is_some() {
            return Err(Code::RoomExists);
        }
        let room = self.rooms.add(id, name);
        items.push(room.place(false));
        Ok(found(room, true))
    }

    fn join(&mut self, id: SessionId, name: &Name, items: &mut Items) -> Result<Outcome, Code> {
        let session = self.sessions.get_mut(id).ok_or(Code::NoSuchSession)?;
        let room = self.rooms.named(&name.folded).ok_or(Code::NoSuchRoom)?.id;
        let room = self.rooms.get_mut(room).ok_or(Code::NoSuchRoom)?;
        if session.is_in(room.id) {
            return Ok(found(room, false));
        }
        if session.rooms().len() >= limits::ROOMS_PER_SESSION_MAX {
            return Err(Code::TooManyRooms);
        }
        session.enter(room.id);
        if room.enter(&session.name) {
            items.push(room.place(false));
        }
        Ok(found(room, false))
    }

    fn leave(&mut self, id: SessionId, room: RoomId, items: &mut Items) -> Result<Outcome, Code> {
        let session = self.sessions.get_mut(id).ok_or(Code::NoSuchSession)?;
        let room = self.rooms.get_mut(room).ok_or(Code::NoSuchRoom)?;
        if !session.leave(room.id) {
            return Err(Code::NotMember);
        }
        if room.exit(&session.name.folded) {
            items.push(room.place(false));
        }
        Ok(Outcome::Done)
    }

    fn topic(&mut self, id: SessionId, room: RoomId, text: &str, items: &mut Items) -> Result<Outcome, Code> {
        let session = self.sessions.get(id).ok_or(Code::NoSuchSession)?;
        let room = self.rooms.get_mut(room).ok_or(Code::NoSuchRoom)?;
        if !session.is_in(room.id) {
            return Err(Code::NotMember);
        }
        room.topic = text.into();
        items.push(room.place(false));
        Ok(Outcome::Done)
    }

    /// Every room of the session in which the list of names changes gets an item: also where another session of the key
    /// stays behind under the old name, for there a name has been added.
    fn rename(&mut self, id: SessionId, name: &Name, items: &mut Items) -> Result<Outcome, Code> {
        let session = self.sessions.get_mut(id).ok_or(Code::NoSuchSession)?;
        if !self.names.is_free_for(&name.folded, session.key) {
            return Err(Code::NameTaken);
        }
        if session.named {
            self.names.let_go(&session.name.folded);
        }
        let name = &Name::new(&name.shown, &name.folded);
        self.names.take(name, session.key);
        let old = std::mem::replace(&mut session.name, name.clone());
        for room in session.rooms() {
            if let Some(room) = self.rooms.get_mut(*room)
                && room.rename(&old.folded, name)
            {
                items.push(room.place(false));
            }
        }
        self.sessions.hear(id, self.clock.age_ms, true);
        Ok(Outcome::Done)
    }
}

fn found(room: &Room, created: bool) -> Outcome {
    Outcome::Room {
        room: room.id,
        name: room.name.shown.clone(),
        topic: room.topic.clone(),
        position: room.position,
        created,
    }
}
