//! Entries that the disk holds no longer: what can't be read doesn't count as held, and is fetched from the others.
//!
//! Everybody hands out what he knows to be committed, so that no leader is needed for it and what comes needs no proof. A hole
//! above the known commit position can only be closed by a leader: a follower says from where on it wants the log again.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::entries::entry_bytes;
use crate::cluster::members::decode_members;
use crate::cluster::message::{Entry, EntryKind, Hole, Message, Record};
use crate::cluster::{Cluster, Output, Purpose};
use crate::limits;
use crate::types::{GroupId, Level, LogIndex, Now, ServerId, Term, Tick};

/// The search for entries that can't be read, and what others are told of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repair {
    /// Who was asked, from which entry on, and when.
    asked: Option<(ServerId, LogIndex, Tick)>,
    /// Who has been asked for that entry and doesn't have it.
    tried: BTreeSet<ServerId>,
    /// All were asked in vain: not before this.
    rest_until: Option<Tick>,
    /// How often all that there were have been asked in vain since the last entry came.
    vain: u32,
    /// When it was last said that nobody has the entry.
    reported_at: Option<Tick>,
    /// What others have asked for and the reader is reading: (server, first entry).
    reading: BTreeMap<ServerId, LogIndex>,
}

impl Repair {
    /// Whether nobody who is there has what is missing. Once isn't enough: at a start they come one by one.
    pub(super) fn is_vain(&self) -> bool {
        self.vain > 1
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let timeout = self.asked.map(|(_, _, at)| at.after(limits::FETCH_TIMEOUT));
        timeout.or(self.rest_until)
    }
}

impl Cluster {
    /// How many entries can't be read.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.log.holes()
    }

    /// The first entry that can't be read.
    #[must_use]
    pub fn first_hole(&self) -> Option<LogIndex> {
        self.log.first_hole()
    }

    /// Whether this server isn't whole: entries can't be read, its history isn't the leader's, or it is still being filled.
    #[must_use]
    pub fn is_repairing(&self) -> bool {
        self.log.holes() > 0 || self.is_out_of_step() || (self.formed() && !self.is_voter())
    }

    /// How far our log is durable and can be read.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        let durable = self.durability.index();
        let whole = self.log.first_hole().map_or(durable, LogIndex::previous);
        durable.min(whole)
    }

    /// How far the log can be applied: as [`durable`](Cluster::durable), but what is already applied may have been lost since.
    #[must_use]
    pub fn applicable(&self) -> LogIndex {
        let durable = self.durability.index();
        let next = self.log.next_hole(self.applied);
        durable.min(next.map_or(durable, LogIndex::previous))
    }

    /// These entries turned out to be unreadable. What is in memory is written again at once; the rest is fetched.
    pub fn damaged(&mut self, now: Now, holes: &[Hole]) {
        self.wake(now);
        let known: Vec<_> = holes
            .iter()
            .map(|hole| Hole {
                term: self.log.term_at(hole.index).or(hole.term),
                ..*hole
            })
            .collect();
        if self.log.lose(&known) == 0 {
            return;
        }
        self.beat_due = true;
        self.report_holes();
        self.give_up_standing();
        for hole in &known {
            if self.log.is_missing(hole.index)
                && let Some(entry) = self.log.get(hole.index).cloned()
            {
                self.write_fill(entry);
            }
        }
    }

    /// The disk holds entries only from `first` on; everything before is in a checkpoint.
    pub fn kept_from(&mut self, now: Now, first: LogIndex) {
        self.wake(now);
        let had = self.log.holes();
        let first = first.min(self.commit.next()).min(self.applied.next());
        if self.log.kept_from(first) && had > 0 {
            self.whole_again();
        }
    }

    /// Says what is missing.
    pub(super) fn report_holes(&mut self) {
        if let (Some(first), Some(last)) = (self.log.first_hole(), self.log.last_hole()) {
            let holes = self.log.holes();
            let what = if first == last {
                format!("entry {first} of the log can't be read")
            } else {
                format!("{holes} entries of the log can't be read (from {first} to {last})")
            };
            if self.peers.is_empty() {
                self.repair.reported_at = Some(self.now.tick);
                let text = format!(
                    "{what}, and there is no other server to ask: nothing after it is shown and nothing new is taken; restore the file from \
                     where it is still whole, and start again"
                );
                self.event(Level::Error, text);
            } else {
                self.event(Level::Warn, format!("{what}: the others are asked for what is missing"));
            }
        }
    }

    /// Says that nothing is missing any more, once that is so.
    pub(super) fn whole_again(&mut self) {
        if self.log.holes() == 0 {
            self.repair = Repair {
                reading: std::mem::take(&mut self.repair.reading),
                ..Repair::default()
            };
            self.event(Level::Info, "all entries of the log can be read again".to_owned());
            self.beat_due = true;
            self.wait_again();
            self.encourage();
            self.consider();
        }
    }

    /// Writes an entry in the place of one that can't be read.
    pub(super) fn write_fill(&mut self, entry: Entry) {
        let group = GroupId::ROOT;
        let chain = self.log.fill(&entry);
        if let Some(members) = decode_members(&entry.payload).filter(|_| entry.kind == EntryKind::Members) {
            self.roster.insert(entry.index, members);
            self.commit_members();
        }
        self.durability.wrote_fill(entry.index);
        self.outputs
            .push_back(Output::Record(Record::Fill { group, entry, chain }));
    }

    // --- Asking -----------------------------------------------------------------------------------

    /// Asks the next server for what is missing, one at a time. While what came isn't on the disk nothing more is asked for.
    pub(super) fn flush_repair(&mut self) {
        let now = self.now.tick;
        let resting = self.repair.rest_until.is_some_and(|until| now < until);
        if self.log.holes() == 0 || self.repair.asked.is_some() || resting || self.log.is_filling() {
            return;
        }
        let Some((from, to)) = self.log.missing(self.commit) else {
            // Nothing says that it is committed, so it is for a leader to say what it is.
            if let Some(hole) = self.log.first_hole().filter(|_| self.leader().is_none()) {
                self.asked_in_vain(hole);
            }
            return;
        };
        self.repair.rest_until = None;
        let Some(server) = self.next_to_ask() else {
            self.asked_in_vain(from);
            return;
        };
        self.repair.asked = Some((server, from, now));
        let group = GroupId::ROOT;
        self.send(server, Message::Fetch { group, from, to });
    }

    /// The leader, then the others in turn.
    fn next_to_ask(&self) -> Option<ServerId> {
        let mut servers = self.linked_members();
        servers.retain(|server| !self.repair.tried.contains(server));
        let leader = self.leader().filter(|leader| servers.contains(leader));
        leader.or(servers.first().copied())
    }

    fn asked_in_vain(&mut self, index: LogIndex) {
        let now = self.now.tick;
        self.repair.tried.clear();
        self.repair.vain = self.repair.vain.saturating_add(1);
        self.repair.rest_until = Some(now.after(limits::FETCH_REST));
        let quiet = |at: Tick| now.since(at) < limits::COMPLAINT_INTERVAL;
        if self.repair.is_vain() && !self.repair.reported_at.is_some_and(quiet) {
            if self.peers.is_empty() {
                return self.report_holes();
            }
            self.repair.reported_at = Some(now);
            let text = format!("entry {index} of the log can't be read, and no server that is there has it");
            self.event(Level::Error, text);
        }
    }

    /// A server is there that wasn't, or knows more: what was in vain may not be any more.
    pub(super) fn ask_again(&mut self) {
        self.repair.tried.clear();
        self.repair.rest_until = None;
    }

    pub(super) fn repair_link_down(&mut self, server: ServerId) {
        if self.repair.asked.is_some_and(|(asked, _, _)| asked == server) {
            self.repair.asked = None;
        }
    }

    /// Who doesn't answer in time is passed over.
    pub(super) fn check_repair(&mut self) {
        let now = self.now.tick;
        if let Some((server, _, at)) = self.repair.asked
            && now.since(at) >= limits::FETCH_TIMEOUT
        {
            self.repair.asked = None;
            self.repair.tried.insert(server);
        }
        if self.repair.rest_until.is_some_and(|until| now >= until) {
            self.repair.rest_until = None;
        }
    }

    /// Entries that we asked for.
    pub(super) fn on_fetched(&mut self, server: ServerId, from: LogIndex, entries: Vec<Entry>) {
        if !matches!(self.repair.asked, Some((asked, first, _)) if (asked, first) == (server, from)) {
            return;
        }
        self.repair.asked = None;
        let mut came = false;
        let mut index = from;
        let mut ahead = (LogIndex(0), Term(0));
        for entry in entries {
            if entry.index != index || index > self.commit || !self.log.is_missing(index) {
                break;
            }
            let low = self.log.term_at(index.previous()).unwrap_or_default();
            if ahead.0 < index {
                ahead = self.log.certain_from(index);
            }
            let term = self.log.term_at(index);
            if term.is_some_and(|term| term != entry.term) || entry.term < low || entry.term > ahead.1 {
                let text = format!("our history and that of {server} differ at index {index}: nothing is taken");
                self.event(Level::Error, text);
                break;
            }
            self.write_fill(entry);
            came = true;
            index = index.next();
        }
        if came {
            self.repair.tried.clear();
            self.repair.vain = 0;
        } else {
            self.repair.tried.insert(server);
        }
    }

    // --- Answering --------------------------------------------------------------------------------

    /// Another server can't read entries. It gets what we know to be committed.
    pub(super) fn on_fetch(&mut self, from: ServerId, first: LogIndex, last: LogIndex) {
        let mut last = last.min(self.commit);
        if let Some(hole) = self.log.next_hole(first.previous()) {
            last = last.min(hole.previous());
        }
        if first <= self.log.start().index || first > last {
            self.send_fetched(from, first, Vec::new());
            return;
        }
        if first >= self.log.first() {
            let mut entries = self.log.gather(first, limits::FETCH_BYTES_MAX);
            entries.retain(|entry| entry.index <= last);
            self.send_fetched(from, first, entries);
            return;
        }
        if self.repair.reading.contains_key(&from) {
            return; // it will ask again
        }
        self.repair.reading.insert(from, first);
        self.outputs.push_back(Output::ReadEntries {
            follower: from,
            purpose: Purpose::Fetch,
            from: first,
            to: last.min(self.log.first().previous()),
            bytes_max: limits::FETCH_BYTES_MAX,
        });
    }

    fn send_fetched(&mut self, to: ServerId, from: LogIndex, entries: Vec<Entry>) {
        let group = GroupId::ROOT;
        self.send(to, Message::Fetched { group, from, entries });
    }

    /// What the reader has found for another server.
    pub(super) fn fetch_read(&mut self, to: ServerId, from: LogIndex, entries: Vec<Entry>) {
        if self.repair.reading.get(&to) != Some(&from) {
            return;
        }
        self.repair.reading.remove(&to);
        let mut bytes = 0;
        let mut sound = Vec::new();
        for (entry, index) in entries.into_iter().zip((from.0..).map(LogIndex)) {
            bytes += entry_bytes(&entry);
            let ours = entry.index == index && index <= self.commit && self.log.term_at(index) == Some(entry.term);
            if !ours || (bytes > limits::FETCH_BYTES_MAX && !sound.is_empty()) {
                break;
            }
            sound.push(entry);
        }
        self.send_fetched(to, from, sound);
    }
}
