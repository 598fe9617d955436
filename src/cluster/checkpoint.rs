//! Checkpoints: what a leader sends to a server that needs entries which aren't kept any more. The leader asks how much of it
//! the server has, and sends from there on, a piece at a time, so that a broken link or another leader costs nothing that has
//! arrived: the same name stands for the same bytes on every server. When the checkpoint is in its place, the log goes on
//! behind it by ordinary appends.

use crate::cluster::members::{self, decode_members};
use crate::cluster::message::{CheckpointId, Entry, LogPosition, Message, Record};
use crate::cluster::progress::Mode;
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, Output};
use crate::limits;
use crate::types::{Blob, GroupId, Level, LogIndex, Now, ServerId, Term, Tick};

/// A checkpoint on its way to a server, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    /// Which; `None` until the reader says what the oldest is.
    id: Option<CheckpointId>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It is to be asked how much it has.
    Ask,
    /// A piece has to be read.
    Due { offset: u64, not_before: Tick },
    /// The reader reads it.
    Reading { offset: u64 },
    /// A question or a piece is out since then.
    Out { since: Tick },
}

impl Sending {
    pub(super) fn new(now: Tick) -> Sending {
        let stage = Stage::Due {
            offset: 0,
            not_before: now,
        };
        Sending { id: None, stage }
    }

    /// The link was reset: what has arrived is still there.
    pub(super) fn again(&self, now: Tick) -> Sending {
        match self.id {
            Some(_) => Sending {
                id: self.id,
                stage: Stage::Ask,
            },
            None => Sending::new(now),
        }
    }
}

impl Cluster {
    // --- The leader -------------------------------------------------------------------------------

    /// Does what is due for a server that gets a checkpoint.
    pub(super) fn flush_checkpoint_to(&mut self, server: ServerId) {
        let now = self.now.tick;
        let term = self.hard.term;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&server) else {
            return;
        };
        let sending = progress.sending.get_or_insert_with(|| Sending::new(now));
        if matches!(sending.stage, Stage::Out { since } if now.since(since) >= limits::CHECKPOINT_TIMEOUT) {
            sending.stage = Stage::Ask;
        }
        match (sending.stage, sending.id) {
            (Stage::Due { offset, not_before }, id) if now >= not_before => {
                sending.stage = Stage::Reading { offset };
                let follower = server;
                self.outputs.push_back(Output::ReadCheckpoint { follower, id, offset });
            }
            (Stage::Ask, Some(id)) => {
                sending.stage = Stage::Out { since: now };
                let (group, bytes) = (GroupId::ROOT, Blob::empty());
                let question = Message::Checkpoint {
                    group,
                    term,
                    id,
                    offset: 0,
                    bytes,
                };
                self.send(server, question);
            }
            _ => {}
        }
    }

    /// The answer to [`Output::ReadCheckpoint`]: which, where, and the bytes; `None` if there is no such checkpoint.
    pub fn checkpoint_read(&mut self, now: Now, follower: ServerId, piece: Option<(CheckpointId, u64, Blob)>) {
        self.wake(now);
        let at = self.now.tick;
        let (term, group) = (self.hard.term, GroupId::ROOT);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&follower) else {
            return;
        };
        let Some(sending) = progress.sending.as_mut().filter(|_| progress.mode == Mode::Transfer) else {
            return;
        };
        let Stage::Reading { offset: wanted } = sending.stage else {
            return;
        };
        match piece {
            Some((id, offset, _)) if offset != wanted || sending.id.is_some_and(|ours| ours != id) => {} // asked before a reset
            Some((id, ..)) if sending.id.is_none() => {
                *sending = Sending {
                    id: Some(id),
                    stage: Stage::Ask,
                };
                let text = format!(
                    "{follower} needs entries that aren't kept any more: it gets the checkpoint at {} ({} bytes)",
                    id.at.index, id.bytes
                );
                self.event(Level::Info, text);
            }
            Some((id, offset, bytes)) if !bytes.is_empty() => {
                sending.stage = Stage::Out { since: at };
                let piece = Message::Checkpoint {
                    group,
                    term,
                    id,
                    offset,
                    bytes,
                };
                self.send(follower, piece);
            }
            _ if sending.id.is_some() => *sending = Sending::new(at), // it has given way to a newer one
            _ => {
                sending.stage = Stage::Due {
                    offset: 0,
                    not_before: at.after(limits::CHECKPOINT_REST),
                };
                let quiet = |since: Tick| at.since(since) < limits::COMPLAINT_INTERVAL;
                if !leader.no_checkpoint_at.is_some_and(quiet) {
                    leader.no_checkpoint_at = Some(at);
                    let text =
                        format!("{follower} needs entries that aren't kept, and there is no checkpoint to send it");
                    self.event(Level::Error, text);
                }
            }
        }
    }

    /// A server says how much of a checkpoint it has.
    pub(super) fn on_checkpoint_answer(&mut self, from: ServerId, term: Term, id: CheckpointId, next: u64) {
        let now = self.now.tick;
        let counts = self.is_link_member(from);
        if term != self.hard.term {
            return;
        }
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&from) else {
            return;
        };
        if counts {
            progress.answered_at = now;
        }
        let Some(sending) = progress.sending.as_mut().filter(|_| progress.mode == Mode::Transfer) else {
            return;
        };
        if sending.id != Some(id) || !matches!(sending.stage, Stage::Out { .. }) {
            return;
        }
        if next >= id.bytes {
            progress.sending = None;
            progress.probe(id.at.index.next());
        } else {
            sending.stage = Stage::Due {
                offset: next,
                not_before: now,
            };
        }
    }

    // --- The follower -----------------------------------------------------------------------------

    /// Whether a checkpoint gives us anything. If not, its end is at least known to be committed.
    fn needs_checkpoint(&mut self, at: LogPosition) -> bool {
        let held = self.log.term_at(at.index) == Some(at.term);
        let damaged = self.repair.is_vain() && self.log.first_hole().is_some_and(|hole| hole <= at.index);
        if !damaged {
            if held && at.index > self.commit {
                self.set_commit(at.index);
            }
            return !held && at.index > self.commit;
        }
        if self.log.last().index > at.index && (held || at.index <= self.commit) {
            // What follows from it was acknowledged, and would be gone; so nothing of this log counts any more.
            let text = "entries of the log can't be read, and no server keeps them any more".to_owned();
            self.renounce(text);
            return false;
        }
        true
    }

    /// A piece of our leader's checkpoint, or the question how much of it we have.
    pub(super) fn on_checkpoint(&mut self, from: ServerId, term: Term, id: CheckpointId, offset: u64, bytes: Blob) {
        let now = self.now.tick;
        let current = self.hard.term;
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        if following.leader != from || term != current {
            return;
        }
        following.append_at = now;
        let end = offset.checked_add(bytes.len() as u64);
        let sane = id.at.index.0 > 0 && id.at.term <= term && end.is_some_and(|end| end <= id.bytes);
        if !sane || id.bytes == 0 || bytes.len() > limits::CHECKPOINT_PIECE_BYTES_MAX {
            self.event(
                Level::Error,
                format!("{from} sent a piece of a checkpoint that makes no sense"),
            );
            return;
        }
        if !self.needs_checkpoint(id.at) {
            self.answer_checkpoint(id, id.bytes);
            return;
        }
        let waits = |since: Tick| now.since(since) < limits::CHECKPOINT_TIMEOUT;
        if self.storing_since.is_some_and(waits) {
            return; // one piece at a time: the leader will ask again
        }
        self.storing_since = Some(now);
        self.outputs.push_back(Output::StoreCheckpoint { id, offset, bytes });
    }

    fn answer_checkpoint(&mut self, id: CheckpointId, next: u64) {
        let (group, term) = (GroupId::ROOT, self.hard.term);
        if let RoleState::Following(following) = &self.role {
            let to = following.leader;
            self.send(to, Message::CheckpointAnswer { group, term, id, next });
        }
    }

    /// So much of a checkpoint is stored. Of a whole one [`checkpoint_installed`](Cluster::checkpoint_installed) is told.
    pub fn checkpoint_stored(&mut self, now: Now, id: CheckpointId, next: u64) {
        self.wake(now);
        self.storing_since = None;
        if next < id.bytes {
            self.answer_checkpoint(id, next);
        }
    }

    /// A whole checkpoint is on the disk, with the members entry that is in force there. `true`: the log begins anew behind it, and
    /// the state must be its state. `false`: it isn't needed any more.
    pub fn checkpoint_installed(&mut self, now: Now, id: CheckpointId, members: Entry) -> bool {
        self.wake(now);
        self.storing_since = None;
        if matches!(self.role, RoleState::Leader(_)) || !self.needs_checkpoint(id.at) {
            self.answer_checkpoint(id, id.bytes);
            return false;
        }
        let Some(found) = decode_members(&members.payload).filter(|_| members.index <= id.at.index) else {
            self.event(Level::Error, "the checkpoint doesn't hold the members".to_owned());
            return false;
        };
        if let Some(difference) = members::difference(&found, &self.config) {
            self.outputs.push_back(Output::Misconfigured(difference));
            return false;
        }
        if self.hard.term < id.at.term {
            self.set_term(id.at.term, None);
        }
        let damaged = self.log.holes() > 0;
        self.log.begin_at(id.at, id.chain);
        let is_first = self.member_count() == 0;
        self.roster.begin_at(members.index, found);
        if is_first {
            self.report_filling();
        }
        self.durability.wrote_base(id.at.index, self.commit);
        let record = Record::Base {
            group: GroupId::ROOT,
            at: id.at,
            chain: id.chain,
            members,
        };
        self.outputs.push_back(Output::Record(record));
        if let RoleState::Following(following) = &mut self.role {
            following.matched = id.at.index;
            following.is_answer_due = true;
        }
        self.applied = LogIndex(id.at.index.0.max(self.applied.0));
        self.event(
            Level::Info,
            format!("the log begins anew behind the checkpoint at {}", id.at.index),
        );
        if id.at.index > self.commit {
            self.set_commit(id.at.index);
        }
        if damaged {
            self.whole_again();
        }
        self.answer_checkpoint(id, id.bytes);
        true
    }
}
