//! Rooms, their counters, and who is in them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::command::Name;
use crate::types::{Position, RoomId, Seq};

/// A room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Room {
    /// The index of the entry that made it.
    pub id: RoomId,
    /// Its name.
    pub name: Name,
    /// Its topic; empty if none was set.
    pub topic: Arc<str>,
    /// Its last item; 0 if it has none.
    pub position: Position,
    /// Its last message; 0 if it has none.
    pub seq: Seq,
    /// By folded name. A person is a member once, however many sessions are in the room.
    members: BTreeMap<Arc<str>, Member>,
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    shown: Arc<str>,
    /// How many sessions of that name are in the room; never 0.
    sessions: u32,
}

impl Room {
    /// An empty room.
    #[must_use]
    pub fn new(id: RoomId, name: Name) -> Room {
        Room {
            id,
            name,
            topic: Arc::default(),
            position: Position(0),
            seq: Seq(0),
            members: BTreeMap::new(),
        }
    }

    /// How many people are in it.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The names of the people in it, sorted by their folded form.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.members.values().map(|member| &*member.shown)
    }

    /// The place of the next item; `message` says whether it takes a number too.
    pub fn place(&mut self, message: bool) -> (RoomId, Position, Seq) {
        self.position = self.position.next();
        if message {
            self.seq = self.seq.next();
            (self.id, self.position, self.seq)
        } else {
            (self.id, self.position, Seq(0))
        }
    }

    /// The names of the people in it, by their folded form.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        self.members.iter().map(|(folded, member)| Name {
            shown: member.shown.clone(),
            folded: folded.clone(),
        })
    }

    /// How somebody in the room is shown; false, and nothing changes, if nobody of that name is there.
    pub(super) fn show(&mut self, name: Name) -> bool {
        let Some(member) = self.members.get_mut(&name.folded) else {
            return false;
        };
        // What is the same stays in memory once.
        if member.shown != name.shown {
            member.shown = name.shown;
        }
        true
    }

    /// One more session of that name is in the room; true if it is the name's first here.
    pub fn enter(&mut self, name: &Name) -> bool {
        if let Some(member) = self.members.get_mut(&name.folded) {
            member.sessions += 1;
            return false;
        }
        let member = Member {
            shown: name.shown.clone(),
            sessions: 1,
        };
        self.members.insert(name.folded.clone(), member);
        true
    }

    /// One session of that name less is in the room; true if it was the name's last here.
    pub fn exit(&mut self, folded: &str) -> bool {
        let Some(member) = self.members.get_mut(folded) else {
            return false;
        };
        member.sessions -= 1;
        if member.sessions > 0 {
            return false;
        }
        self.members.remove(folded);
        true
    }

    /// One session in the room takes another name; true if the list of names that people see has changed.
    pub fn rename(&mut self, old: &str, new: &Name) -> bool {
        let shown_before = self.members.get(&new.folded).map(|member| member.shown.clone());
        let left = self.exit(old);
        let came = self.enter(new);
        if let Some(member) = self.members.get_mut(&new.folded) {
            member.shown.clone_from(&new.shown);
        }
        if *old == *new.folded {
            return shown_before.as_deref() != Some(&*new.shown);
        }
        left || came || shown_before.as_deref() != Some(&*new.shown)
    }
}

/// All rooms, by id and by folded name. Rooms are never removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rooms {
    rooms: BTreeMap<RoomId, Room>,
    by_name: BTreeMap<Arc<str>, RoomId>,
}

impl Rooms {
    /// Adds an empty room. The caller has made sure that neither its id nor its name is there.
    pub fn add(&mut self, id: RoomId, name: &Name) -> &mut Room {
        let name = Name::new(&name.shown, &name.folded);
        self.by_name.insert(name.folded.clone(), id);
        self.rooms.entry(id).or_insert_with(|| Room::new(id, name))
    }

    /// The room of that id.
    #[must_use]
    pub fn get(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(&id)
    }

    /// The room of that id, to be changed.
    pub fn get_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(&id)
    }

    /// The room of that folded name.
    #[must_use]
    pub fn named(&self, folded: &str) -> Option<&Room> {
        self.by_name.get(folded).and_then(|id| self.rooms.get(id))
    }

    /// The rooms after this id, ascending.
    pub fn after(&self, id: RoomId) -> impl Iterator<Item = &Room> {
        self.rooms
            .range((Bound::Excluded(id), Bound::Unbounded))
            .map(|(_, room)| room)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}
