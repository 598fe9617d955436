//! What damage leaves open, and what later records settle.
//!
//! A record whose payload is damaged hides little: its header says what it was. Where a header is damaged, or missing, anything may have
//! stood: entries, entries that made others void, a vote. From then on the group is in doubt, in two respects.
//!
//! - **Hard state.** Every state, seal and head says it anew as a whole, so the next of them settles it. If none comes, a vote may be
//!   forgotten, and the log can't be trusted.
//! - **Entries.** What was committed before the damage stands, since nothing makes it void. What comes after it may have been made void by
//!   a hidden entry. It is settled by the next record that says where the group's log ends:
//!   - an entry whose running check follows from the entry before it, as we know that one: all before it is what the writer had;
//!   - a state, seal or head that names, as the last entry, the one that we know as the last. An index and a term name an entry and all
//!     before it, so nothing is missing and nothing was made void;
//!   - any of them that doesn't: then everything between what was committed before and what it tells of is a hole. It is not served
//!     and not counted as held, though parts of it may be right. Nothing wrong is kept, and nothing is lost without being named.
//!
//!   A fill settles nothing: it says what one entry is, and not what stands before or behind it.
//!
//!   If nothing of this comes, it isn't known where the log ends, and it can't be trusted.

use super::disk::DiskFile;
use super::record::{self, Header, Kind};
use super::recovery::{OpenError, untrusted};
use super::segment::{FOLDER, Segment};
use super::walk::Walk;
use crate::cluster::chain::chain;
use crate::cluster::message::{EntryKind, LogPosition};
use crate::types::{GroupId, LogIndex, Term};

/// What isn't known about a group, because of damage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Doubt {
    /// Whether an entry can be hidden.
    pub entries: bool,
    /// Whether a hard state can be hidden.
    pub state: bool,
    /// What was committed before the damage.
    pub commit: LogIndex,
    /// Bytes in which entries can be hidden.
    pub bytes: u64,
    /// The segment in which it began.
    pub segment: Segment,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub text: String,
}

impl<F: DiskFile> Walk<'_, F> {
    /// Nothing can be read from `from` to `to`: whatever stood there is hidden, of every group.
    pub(super) fn hidden(&mut self, segment: Segment, from: u64, to: u64, text: &str) {
        self.report.damage(segment, from, text);
        let groups: Vec<GroupId> = self.tails.keys().copied().collect();
        for group in groups {
            let doubt = self.doubt(group, segment, from, text);
            (doubt.entries, doubt.state) = (true, true);
            doubt.bytes += to - from;
        }
        // What the last record was isn't known: a seal at the end says that from here on it is.
        self.last_kind = Kind::State;
    }

    /// The header of a record is good, its payload isn't: what it was is known, and what it said is not.
    pub(super) fn broken(
        &mut self,
        segment: Segment,
        offset: u64,
        header: &Header,
        size: usize,
    ) -> Result<(), OpenError> {
        let text = "the payload of a record doesn't match its check";
        match header.kind {
            // Where the group's entries begin and what its hard state is: the walk knows as much, unless something was hidden before.
            Kind::Head => self.hidden(segment, offset, offset + size as u64, text),
            Kind::State => {
                self.report.damage(segment, offset, text);
                self.told(segment, offset, header.group, position(header), header.chain)?;
                self.doubt(header.group, segment, offset, text).state = true;
            }
            Kind::Entry => {
                self.report.damage(segment, offset, text);
                self.entry(segment, offset, header, None)?;
            }
            Kind::Fill => {
                self.report.damage(segment, offset, text);
                self.fill(segment, offset, header, None)?;
            }
            // All that it says was said before.
            Kind::Seal => self.report.damage(segment, offset, text),
        }
        self.batch = self.batch.max(header.batch);
        self.synced = self.synced.max(header.synced);
        self.last_kind = Kind::State;
        Ok(())
    }

    fn doubt(&mut self, group: GroupId, segment: Segment, offset: u64, text: &str) -> &mut Doubt {
        let tail = self.tails.entry(group).or_default();
        let start = self.starts.get(&group).map_or(LogIndex(0), |(last, _)| last.index);
        let commit = tail.state.commit.min(tail.last.index).max(start);
        let doubt = self.doubts.entry(group).or_insert_with(|| Doubt {
            entries: false,
            state: false,
            commit,
            bytes: 0,
            segment,
            offset,
            text: text.to_owned(),
        });
        if !doubt.entries {
            // Only the hard state was in doubt up to now: what is known of the entries counts, up to here.
            (doubt.commit, doubt.bytes) = (commit, 0);
        }
        doubt
    }

    /// A state, seal or head says which entry is the group's last.
    pub(super) fn told(
        &mut self,
        segment: Segment,
        offset: u64,
        group: GroupId,
        last: LogPosition,
        chain: u32,
    ) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(untrusted(segment, offset, text));
        let doubted = self.doubted(group);
        let tail = self.tails.entry(group).or_default();
        let differs = tail.chain != 0 && chain != 0 && tail.chain != chain;
        if tail.last == last && !differs {
            if tail.chain == 0 {
                tail.chain = chain;
            }
            self.entries_settled(group);
            return Ok(());
        }
        if tail.last == last || !doubted {
            return wrong("it tells of another last entry than the records before it");
        }
        self.lose_up_to(segment, offset, group, last.index)?;
        let tail = self.tails.entry(group).or_default();
        let placed = tail.term_of(last.index).unwrap_or_default();
        match tail.holes.get(&last.index) {
            Some(None) if last.term >= placed => tail.unreadable(last, chain),
            _ if last.term == placed => (tail.last, tail.chain) = (last, chain),
            _ => return wrong("it tells of a last entry of another term than the records before it"),
        }
        self.entries_settled(group);
        Ok(())
    }

    /// An entry; without its payload if that is damaged. It makes void what the group has at its index and above.
    pub(super) fn entry(
        &mut self,
        segment: Segment,
        offset: u64,
        header: &Header,
        payload: Option<&[u8]>,
    ) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(untrusted(segment, offset, text));
        let (group, doubted) = (header.group, self.doubted(header.group));
        let at = position(header);
        let tail = self.tails.entry(group).or_default();
        if at.index <= self.starts.get(&group).map_or(LogIndex(0), |(last, _)| last.index) {
            self.void_beginning = true;
            return wrong("it makes void what is in a checkpoint");
        }
        if at.index > tail.last.index.next() && !doubted {
            return wrong("an entry is missing before this one");
        }
        let before = self.before(group, at.index)?;
        let computed = self.check(before, header, payload);
        if doubted {
            let proved = header.chain != 0 && computed == Some(header.chain);
            if !proved {
                self.lose_up_to(segment, offset, group, at.index.previous())?;
            }
            let known = self
                .tails
                .get(&group)
                .and_then(|tail| tail.term_of(at.index.previous()));
            if known.is_some_and(|term| at.term < term) {
                return wrong("the entry's term is before that of an entry before it");
            }
            self.entries_settled(group);
        } else {
            match before {
                Some((term, _)) if at.term < term => {
                    return wrong("the entry's term is before that of the entry before it");
                }
                None if !self.is_hole(group, at.index.previous()) => {
                    return wrong("the entry before this one isn't in the log");
                }
                _ => {}
            }
            if header.chain != 0 && computed.is_some_and(|computed| computed != header.chain) {
                return wrong("the entry isn't the one that followed the entry before it");
            }
        }
        // A node that cut its log where it keeps nothing in memory writes entries without a check, as 0, until it learns it
        // from a leader. From the records before, the check is known all the same.
        let check = match header.chain {
            0 => computed.unwrap_or(0),
            check => check,
        };
        let tail = self.tails.entry(group).or_default();
        match payload {
            Some(payload) => {
                tail.entry(at, header.entry_kind, payload, check);
                self.index.put(group, at.index, header.lsn);
            }
            None => {
                tail.unreadable(at, header.chain);
                if header.entry_kind == EntryKind::Members {
                    self.members_lost.insert(group);
                }
                self.index.void(group, at.index);
                self.index.lose(group, at.index);
            }
        }
        self.report.entries += 1;
        Ok(())
    }

    /// A fill; without its payload if that is damaged.
    pub(super) fn fill(
        &mut self,
        segment: Segment,
        offset: u64,
        header: &Header,
        payload: Option<&[u8]>,
    ) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(untrusted(segment, offset, text));
        let (group, doubted) = (header.group, self.doubted(header.group));
        let at = position(header);
        let tail = self.tails.entry(group).or_default();
        if at.index <= tail.base.index {
            // The segment in which the entry had stood has been removed since, and nobody needs the entry any more.
            return Ok(());
        }
        let last = tail.last.index;
        if at.index > last && !doubted {
            return wrong("the entry that this one fills isn't in the log");
        }
        if self
            .doubts
            .get(&group)
            .is_some_and(|doubt| doubt.entries && at.index > doubt.commit)
        {
            // It is right, and says nothing of those before it. With what is in doubt still in the log, it would look like its end: the
            // next record that names it as the last entry would seem to prove all of them.
            self.lose_up_to(segment, offset, group, at.index.max(last))?;
        }
        let before = self.before(group, at.index)?;
        let computed = self.check(before, header, payload);
        if !doubted && header.chain != 0 && computed.is_some_and(|computed| computed != header.chain) {
            return wrong("the entry isn't the one that followed the entry before it");
        }
        // Of what stands before the walk only the place matters: nothing else of it is known here.
        let walked = at.index > self.starts.get(&group).map_or(LogIndex(0), |(last, _)| last.index);
        let tail = self.tails.entry(group).or_default();
        match payload {
            Some(payload) => {
                if walked && !tail.fill(at, header.entry_kind, payload, header.chain) {
                    return wrong("the entry's term isn't between those of its neighbours");
                }
                self.index.fill(group, at.index, header.lsn);
            }
            None => {
                tail.holes.insert(at.index, Some(at.term));
                self.index.lose(group, at.index);
            }
        }
        self.report.entries += 1;
        Ok(())
    }

    /// Everything behind what was committed before the damage, up to `to`, is a hole; nothing of the group is left behind it.
    fn lose_up_to(&mut self, segment: Segment, offset: u64, group: GroupId, to: LogIndex) -> Result<(), OpenError> {
        let (Some(doubt), Some(tail)) = (self.doubts.get(&group), self.tails.get_mut(&group)) else {
            return Ok(());
        };
        if to < doubt.commit {
            return Err(untrusted(segment, offset, "it makes void what was committed before"));
        }
        // So much can't have been hidden: what is missing is the head of a new beginning, and with it where the log begins.
        if to.0.saturating_sub(tail.last.index.0) > doubt.bytes / record::size(0) as u64 {
            return Err(untrusted(
                segment,
                offset,
                "more entries are missing than the damage before can hide",
            ));
        }
        let from = doubt.commit.next();
        if from <= to {
            tail.lost(from, to);
            self.members_lost.insert(group);
        } else {
            tail.void(from);
        }
        self.index.void(group, from);
        for index in from.0..=to.0 {
            self.index.lose(group, LogIndex(index));
        }
        Ok(())
    }

    /// An error if something that must be known is in doubt at the end of the log.
    pub(super) fn check_doubts(&self) -> Result<(), OpenError> {
        let damage = self.doubts.values().find_map(|doubt| {
            let what = match doubt {
                Doubt { entries: true, .. } => "nothing after it tells where the log ends",
                Doubt { state: true, .. } => "nothing after it tells for whom this server voted",
                _ => return None,
            };
            Some((doubt, what))
        });
        if let Some((doubt, what)) = damage {
            let text = format!("{}, and {what}", doubt.text);
            return Err(untrusted(doubt.segment, doubt.offset, text));
        }
        // Members that can still be made void don't help if those before them can't be read.
        let without = |group: &&GroupId| {
            self.tails.get(group).is_none_or(|tail| match tail.members.first() {
                Some(first) => first.index > tail.state.commit && tail.holes.keys().any(|&hole| hole < first.index),
                None => true,
            })
        };
        if let Some(group) = self.members_lost.iter().find(without) {
            // Without them it isn't even known of which cluster the log is.
            let first = self.report.damaged.first().cloned();
            let (file, offset, text) = first.unwrap_or_else(|| (FOLDER.to_owned(), 0, String::new()));
            let text = format!("{text}, and the members of group {group} stand nowhere else for certain");
            return Err(OpenError::Untrusted { file, offset, text });
        }
        Ok(())
    }

    fn doubted(&self, group: GroupId) -> bool {
        self.doubts.get(&group).is_some_and(|doubt| doubt.entries)
    }

    fn is_hole(&self, group: GroupId, index: LogIndex) -> bool {
        self.tails
            .get(&group)
            .is_some_and(|tail| tail.holes.contains_key(&index))
    }

    fn entries_settled(&mut self, group: GroupId) {
        if let Some(doubt) = self.doubts.get_mut(&group) {
            doubt.entries = false;
        }
    }

    /// The group's hard state is known again.
    pub(super) fn state_settled(&mut self, group: GroupId) {
        if let Some(doubt) = self.doubts.get_mut(&group) {
            doubt.state = false;
        }
    }

    /// The check that an entry has if it follows the one before it; `None` if that can't be told.
    fn check(&self, before: Option<(Term, u32)>, header: &Header, payload: Option<&[u8]>) -> Option<u32> {
        let (_, before) = before.filter(|&(_, chain)| chain != 0 || header.index == LogIndex(1))?;
        Some(chain(before, header.term, header.index, header.entry_kind, payload?))
    }

    /// Term and running check of the entry before `index`, if it is known.
    fn before(&self, group: GroupId, index: LogIndex) -> Result<Option<(Term, u32)>, OpenError> {
        let before = index.previous();
        let Some(tail) = self.tails.get(&group) else {
            return Ok((before == LogIndex(0)).then_some((Term(0), 0)));
        };
        if before == tail.last.index {
            // Also if it can't be read: a good header says its check. 0 if that isn't known.
            let unknown = tail.holes.get(&before) == Some(&None);
            return Ok((!unknown).then_some((tail.last.term, tail.chain)));
        }
        let (start, start_chain) = self.starts.get(&group).copied().unwrap_or_default();
        if before == start.index {
            return Ok(Some((start.term, start_chain)));
        }
        let header = self.written(group, before)?;
        Ok(header.map(|header| (header.term, header.chain)))
    }
}

/// The entry that a header tells of.
pub(super) fn position(header: &Header) -> LogPosition {
    LogPosition {
        term: header.term,
        index: header.index,
    }
}
