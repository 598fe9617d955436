//! From a committed entry to what it brings about: the state changes, the client is told, the items go to the room's readers. Only
//! entries that are durable on this server are applied, so that the state never knows more than the disk.

use std::collections::VecDeque;

use super::{Effect, Level, Node, Reading, Turn};
use crate::chat::command::{Command, Item, Stamp};
use crate::chat::{Answer, Verdict, content, origin};
use crate::cluster::message::{Entry, EntryKind};
use crate::limits;
use crate::log::{ItemRef, ReadRequest};
use crate::types::{GroupId, LogIndex, Position, RoomId, Seq, Span, Tick};
use crate::wire::client::{Ack, Response};
use crate::wire::command;

/// How long to wait before committed entries that the reader couldn't give are asked for again.
const READ_AGAIN: Span = Span::from_ms(100);

/// Where applying is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Applying {
    /// Entries that the reader gave.
    entries: VecDeque<Entry>,
    /// The reader was asked and has not answered.
    asked: bool,
    /// Not to be asked before.
    not_before: Tick,
    /// The turn's share is done, and there is more.
    more: bool,
    /// Everything that was committed has been applied once since the start.
    caught_up: bool,
    /// Since when there is something committed and nothing was applied.
    stuck: Option<Tick>,
}

impl Applying {
    pub fn answer(&mut self, now: Tick, entries: Vec<Entry>) {
        self.asked = false;
        if entries.is_empty() {
            self.not_before = now.after(READ_AGAIN);
        }
        self.entries = entries.into();
    }

    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Whether everything that was committed has been applied once since the start.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Since when there is something committed that isn't applied, and nothing was.
    pub fn stuck_since(&self) -> Option<Tick> {
        self.stuck
    }
}

impl Node {
    /// Applies what is committed and durable, a bounded number of entries a turn. Whether it applied any.
    pub(super) fn apply(&mut self, turn: &mut Turn) -> bool {
        let end = self.cluster.commit().min(self.cluster.applicable());
        let before = self.state.applied();
        self.applying.more = false;
        while self.state.applied() < end && self.halted.is_none() {
            if turn.refs.len() >= limits::APPLIES_PER_TURN || turn.applied >= limits::APPLIES_PER_TURN {
                self.applying.more = true;
                break;
            }
            let index = self.state.applied().next();
            let Some(entry) = self.entry(index, end, turn) else {
                break;
            };
            self.apply_entry(&entry, turn);
            turn.applied += 1;
        }
        if self.state.applied() > before {
            self.cluster.applied(self.state.applied());
        }
        if self.state.applied() >= self.cluster.commit() {
            self.applying.caught_up |= self.cluster.leader().is_some();
            self.applying.stuck = None;
        } else if self.state.applied() > before || self.applying.stuck.is_none() {
            self.applying.stuck = Some(self.now.tick);
        }
        let fit = self.halted.is_none() && self.state.applied() >= end;
        self.cluster.set_fit(self.now, fit || self.applying.more);
        self.state.applied() > before
    }

    /// The entry at `index`: from the recent ones, or from the disk.
    fn entry(&mut self, index: LogIndex, end: LogIndex, turn: &mut Turn) -> Option<Entry> {
        if let Some(entry) = self.cluster.entry(index) {
            return Some(entry.clone());
        }
        while let Some(entry) = self.applying.entries.pop_front() {
            if entry.index == index {
                return Some(entry);
            }
        }
        if !self.applying.asked && self.now.tick >= self.applying.not_before {
            self.applying.asked = true;
            let token = self.ask(Reading::Apply);
            let (group, bytes_max) = (GroupId::ROOT, limits::APPEND_BYTES_MAX);
            let request = ReadRequest::Entries {
                token,
                group,
                from: index,
                to: end,
                bytes_max,
            };
            turn.later.push_back(Effect::Read(request));
        }
        None
    }

    /// What was read for a state that is no more isn't taken any more.
    pub(super) fn forget_applying(&mut self) {
        self.readings.retain(|_, reading| *reading != Reading::Apply);
        self.applying = Applying {
            caught_up: self.applying.caught_up,
            ..Applying::default()
        };
    }

    fn apply_entry(&mut self, entry: &Entry, turn: &mut Turn) {
        let index = entry.index;
        match entry.kind {
            EntryKind::Noop | EntryKind::Members => self.state.skip(index),
            EntryKind::Command => match command::open_payload(&entry.payload) {
                Ok((stamp, command)) => self.apply_command(index, &stamp, &command, turn),
                Err(error) => {
                    // Going on without it would part the replicas.
                    let text =
                        format!("entry {index} can't be read ({error}): this server applies nothing more; upgrade it");
                    self.event(Level::Error, text.clone());
                    self.halted = Some(text);
                    return;
                }
            },
        }
        if index.0.is_multiple_of(self.config.log.digest_every) {
            self.cluster.digest(index, self.state.digest());
        }
        if self.keeping.is_due(index, self.config.log.checkpoint_every) {
            self.keeping.checkpoint_due(index, self.state.digest());
        }
    }

    fn apply_command(&mut self, index: LogIndex, stamp: &Stamp, command: &Command, turn: &mut Turn) {
        let trimmed = self.state.trimmed();
        let applied = self.state.apply(index, stamp, command);
        if self.state.trimmed() > trimmed {
            turn.later.push_back(Effect::Trim(self.state.trimmed()));
            self.fanout.trim();
        }
        for &(room, position, seq) in applied.items.iter() {
            turn.refs.push(ItemRef {
                room,
                position,
                seq,
                group: GroupId::ROOT,
                index,
            });
            if self.fanout.has(room)
                && let Some(item) = item(command, stamp, room, position, seq)
            {
                self.fanout.publish(&item);
            }
        }
        match applied.result {
            Answer::None => {}
            Answer::Opened { secret, result } => {
                if let Some(conn) = self.doors.of_secret(&secret) {
                    match result {
                        Ok(session) => self.bind(conn, session),
                        Err(code) => {
                            self.doors.end_opening(conn);
                            self.reply(
                                conn,
                                Response::OpenRefused {
                                    code,
                                    text: code.to_string(),
                                },
                            );
                        }
                    }
                }
            }
            Answer::Session { session, seq, verdict } => {
                let Some(conn) = self.doors.of_session(session) else {
                    return;
                };
                match verdict {
                    Verdict::Outcome(outcome) => {
                        self.doors.applied(self.now.tick, conn, seq);
                        self.acks.entry(conn).or_default().push(Ack { seq, outcome });
                    }
                    Verdict::Gap { .. } => self.doors.doubt(conn, self.now.tick.after(super::doors::RESEND_SOON)),
                    Verdict::Forgotten => self.doors.applied(self.now.tick, conn, seq),
                }
            }
        }
    }

    /// The reader's answer for cursors: entries become items again.
    pub(super) fn items_read(
        &mut self,
        token: u64,
        room: RoomId,
        (start, before): (Position, Seq),
        found: &[(Position, Seq, Entry)],
    ) {
        let opened: Vec<_> = found
            .iter()
            .map_while(|(position, seq, entry)| {
                let (stamp, command) = command::open_payload(&entry.payload).ok()?;
                Some((*position, *seq, stamp, command))
            })
            .collect();
        let items: Vec<Item<'_>> = opened
            .iter()
            .map_while(|(position, seq, stamp, command)| item(command, stamp, room, *position, *seq))
            .collect();
        if items.len() < found.len() {
            self.event(
                Level::Error,
                format!(
                    "room {room}: the item at {} can't be read",
                    start.0 + items.len() as u64
                ),
            );
        }
        self.fanout.answer(token, room, start, before, &items);
    }
}

/// What a command's entry says at a place in a room.
fn item<'a>(command: &'a Command, stamp: &Stamp, room: RoomId, position: Position, seq: Seq) -> Option<Item<'a>> {
    let (session, client_seq) = origin(command);
    Some(Item {
        room,
        position,
        seq,
        stamp: *stamp,
        session,
        client_seq,
        content: content(command)?,
    })
}
