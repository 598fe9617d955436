//! What the node has the housekeeper do, and what comes of it: checkpoints of its own and of the leader, what retention gives up, holes that
//! were found in the log.

use std::collections::BTreeMap;

use super::{Effect, Level, Node, Reading};
use crate::chat::State;
use crate::cluster::message::{CheckpointId, Entry, Hole};
use crate::keep::{Holdings, KeepJob, Kept};
use crate::limits;
use crate::log::ReadRequest;
use crate::types::{Blob, LogIndex, ServerId, Span, Tick};

/// How long to wait before something is asked for again that couldn't be read: others may have filled the hole by then.
const READ_AGAIN: Span = Span::from_ms(100);

/// What is going on at the housekeeper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Keeping {
    /// A checkpoint that is due: the entry, and the digest of the state there.
    due: Option<(LogIndex, u64)>,
    /// There is one checkpoint only, and the log begins behind the first entry: another is made at the next entry, for one may be damaged.
    alone: bool,
    /// One is being made.
    making: bool,
    /// The last entry that may be removed, as it was last said.
    trim_told: LogIndex,
    /// For whom pieces of checkpoints are read.
    pieces: BTreeMap<u64, ServerId>,
    /// The last token of these.
    piece: u64,
    /// Questions of cursors that couldn't be answered, to be asked again.
    again: Vec<ReadRequest>,
    /// When.
    again_at: Option<Tick>,
    /// The place that was last reported as damaged, so that the log isn't filled with it.
    reported: Option<String>,
    /// There is too little space on the disk to lead.
    cramped: bool,
}

impl Keeping {
    /// When something is to be asked for again.
    pub fn deadline(&self) -> Option<Tick> {
        self.again_at
    }

    /// The state has come to an entry: whether a checkpoint is to be made there. `every` is how many entries there are between two.
    pub fn is_due(&mut self, index: LogIndex, every: u64) -> bool {
        std::mem::take(&mut self.alone) || index.0.is_multiple_of(every)
    }

    /// A checkpoint is to be made at an entry, where the state has this digest. While one is being made, only the last place counts.
    pub fn checkpoint_due(&mut self, index: LogIndex, digest: u64) {
        self.due = Some((index, digest));
    }

    /// Tells of what is kept that it has changed.
    fn held(&mut self, before: &Holdings, now: &Holdings) {
        // Not each time that one is tried in vain.
        if before.marks.first().map(|mark| mark.index) != now.marks.first().map(|mark| mark.index) {
            self.alone = now.marks.len() == 1 && now.first > LogIndex(1);
        }
    }
}

impl Node {
    /// Asks again what couldn't be read.
    pub(super) fn read_again(&mut self) {
        if self.keeping.again_at.is_none_or(|at| self.now.tick < at) {
            return;
        }
        self.keeping.again_at = None;
        for request in std::mem::take(&mut self.keeping.again) {
            self.effects.push_back(Effect::Read(request));
        }
    }

    /// Has done what has become due in this turn.
    pub(super) fn keep(&mut self) {
        if !self.keeping.making
            && let Some((index, digest)) = self.keeping.due.take()
        {
            self.keeping.making = true;
            self.effects.push_back(Effect::Keep(KeepJob::Make { index, digest }));
        }
        // Nothing goes before a majority has the same state behind it.
        let index = self.state.trimmed().min(self.cluster.agreed());
        if index > self.keeping.trim_told {
            self.keeping.trim_told = index;
            self.forget_unneeded();
            self.effects.push_back(Effect::Keep(KeepJob::Trim { index }));
        }
    }

    /// What isn't on the disk any more nobody can ask for; and what a checkpoint covers of which nothing can be read any more nobody needs,
    /// though the segment that has it stays. Others may have removed it, and couldn't mend it. A checkpoint behind which there are
    /// entries that can be read is none to begin with: who got it would lack them.
    fn forget_unneeded(&mut self) {
        let trimmed = self.state.trimmed();
        let oldest = self.holdings.marks.first().map(|mark| mark.index);
        let unneeded = oldest.filter(|&oldest| oldest <= trimmed).unwrap_or(LogIndex(0));
        self.cluster
            .kept_from(self.now, self.holdings.first.max(unneeded.next()));
    }

    /// A follower needs a piece of a checkpoint of ours.
    pub(super) fn read_piece(&mut self, follower: ServerId, id: Option<CheckpointId>, offset: u64) {
        self.keeping.piece += 1;
        let token = self.keeping.piece;
        self.keeping.pieces.insert(token, follower);
        self.effects
            .push_back(Effect::Keep(KeepJob::Read { token, id, offset }));
    }

    /// The leader sends us a piece of a checkpoint.
    pub(super) fn store_piece(&mut self, id: CheckpointId, offset: u64, bytes: Blob) {
        self.effects
            .push_back(Effect::Keep(KeepJob::Store { id, offset, bytes }));
    }

    /// The housekeeper has something to say.
    pub(super) fn kept(&mut self, kept: Kept) {
        let now = self.now;
        match kept {
            Kept::Made { id } => {
                self.keeping.making = false;
                self.event(Level::Debug, format!("a checkpoint was made at entry {}", id.at.index));
            }
            Kept::Unmade { index, why } => {
                self.keeping.making = false;
                // The log has begun anew behind it meanwhile: nobody needs it any more.
                let is_void = index <= self.cluster.base().index;
                let level = if is_void { Level::Debug } else { Level::Warn };
                self.event(level, format!("no checkpoint could be made at entry {index}: {why}"));
            }
            Kept::Differs { index, live, made } => {
                self.keeping.making = false;
                let text = format!(
                    "the state that the log makes at entry {index} (digest {made:016x}) is not the one in memory ({live:016x}): this server \
                     applies nothing more; start it again"
                );
                self.event(Level::Error, text.clone());
                self.halted = Some(text);
            }
            Kept::Stored { id, next } => self.cluster.checkpoint_stored(now, id, next),
            Kept::Installed { id, members, state } => self.install(id, members, *state),
            Kept::Piece { token, piece } => {
                if let Some(follower) = self.keeping.pieces.remove(&token) {
                    self.cluster.checkpoint_read(now, follower, piece);
                }
            }
            Kept::Holdings(holdings) => {
                self.keeping.held(&self.holdings, &holdings);
                self.holdings = holdings;
                self.forget_unneeded();
            }
            Kept::Damaged { holes, what, .. } => self.damaged(&holes, what),
            Kept::Space { free } => self.space(free),
            Kept::Said { level, text } => self.event(level, text),
        }
    }

    /// So much is free on the disk. A server whose disk is about to be full doesn't lead: its followers can go on without it, but not
    /// under it.
    fn space(&mut self, free: u64) {
        let enough = self.config.log.segment_size.saturating_mul(2) + limits::DISK_MARGIN_BYTES;
        let cramped = if self.keeping.cramped {
            free < enough + limits::DISK_MARGIN_BYTES
        } else {
            free < enough
        };
        if cramped == self.keeping.cramped {
            return;
        }
        self.keeping.cramped = cramped;
        let mib = |bytes: u64| bytes >> 20;
        if cramped {
            let text = format!(
                "the disk has {} MiB left, less than {}: this server leads no more until there is space",
                mib(free),
                mib(enough)
            );
            self.event(Level::Warn, text);
        } else {
            self.event(
                Level::Info,
                format!("the disk has {} MiB left: enough to lead", mib(free)),
            );
        }
        self.cluster.set_room(self.now, !cramped);
    }

    /// What was asked of the reader can't be read now.
    pub(super) fn unreadable(&mut self, reading: Reading, holes: &[Hole], what: String) {
        let now = self.now;
        self.damaged(holes, what);
        match reading {
            Reading::Follower(follower, purpose, from) => {
                self.cluster.entries_read(now, follower, purpose, from, Vec::new());
            }
            Reading::Apply => self.applying.answer(now.tick, Vec::new()),
            Reading::Items(_, room, from) => {
                let token = self.ask(reading);
                let bytes_max = limits::READ_BYTES_MAX;
                self.keeping.again.push(ReadRequest::Items {
                    token,
                    room,
                    from,
                    bytes_max,
                });
                self.keeping.again_at.get_or_insert(now.tick.after(READ_AGAIN));
            }
        }
    }

    /// Something in the log can't be read. What others hold is fetched from them.
    pub(super) fn damaged(&mut self, holes: &[Hole], what: String) {
        let what = match what.strip_prefix("damaged: ") {
            Some(_) => what,
            None => format!("damaged: {what}"),
        };
        if self.keeping.reported.as_ref() != Some(&what) {
            self.event(Level::Error, what.clone());
            self.keeping.reported = Some(what);
        }
        self.cluster.damaged(self.now, holes);
    }

    /// A checkpoint of the leader takes the place of what this server has applied.
    fn install(&mut self, id: CheckpointId, members: Entry, state: State) {
        if id.at.index <= self.state.applied() {
            // Overtaken: the entries came after all.
            let (index, taken) = (id.at.index, false);
            return self.effects.push_back(Effect::Keep(KeepJob::Begun { index, taken }));
        }
        self.event(
            Level::Info,
            format!(
                "a checkpoint of the leader was taken over: the log begins after entry {}",
                id.at.index
            ),
        );
        if !self.cluster.checkpoint_installed(self.now, id, members) {
            let (index, taken) = (id.at.index, false);
            return self.effects.push_back(Effect::Keep(KeepJob::Begun { index, taken }));
        }
        self.state = state;
        self.cluster.applied(self.state.applied());
        self.forget_applying();
        let rooms: Vec<_> = self.state.room_ends().collect();
        self.fanout
            .reset(rooms.iter().map(|&(room, position, _)| (room, position)));
        let (index, taken) = (id.at.index, true);
        self.effects.push_back(Effect::Keep(KeepJob::Begun { index, taken }));
        self.keeping.due = None;
        self.effects.push_back(Effect::Seed(rooms));
        self.effects.push_back(Effect::Trim(self.state.trimmed()));
        // What became of commands in between is in the state now.
        self.doors.doubt_all(self.now.tick);
    }
}
