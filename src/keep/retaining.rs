//! What is kept and what goes. A server far behind gets the oldest checkpoint and every entry after it, so the two go together: first
//! older checkpoints than the last one that nobody needs to look behind, then the segments that only have entries before it.

use std::io;

use super::keeper::Keeper;
use super::{Holdings, Mark};
use crate::limits;
use crate::log::disk::Disk;
use crate::log::index::EntryIndex;
use crate::log::recovery::OpenError;
use crate::log::remove::remove_segments;
use crate::log::segment::Segment;
use crate::log::start::last_before;
use crate::types::{GroupId, LogIndex, Lsn};

impl<D: Disk> Keeper<D> {
    /// What is kept now.
    pub(super) fn holdings(&self) -> Holdings {
        let index = self.shared.read();
        let marks = self.checkpoints.list().iter().map(|info| Mark {
            index: info.id.at.index,
            age_ms: info.age_ms,
            bytes_after: bytes_after(&index, info.id.at.index),
        });
        Holdings {
            marks: marks.collect(),
            first: index.first(GroupId::ROOT),
        }
    }

    /// What is at or before `index` needn't be kept: removes what is older than the last two checkpoints up to there. The state can be had
    /// only from a checkpoint once the log doesn't begin with the first entry any more, so one may be damaged, and the other is still there.
    /// A server that was filled by others may have none so old; then nothing goes yet, since whoever got the first one would lack what can
    /// be read before it.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn trim(&mut self, index: LogIndex) -> io::Result<()> {
        let at: Vec<LogIndex> = self.checkpoints.list().iter().map(|info| info.id.at.index).collect();
        let Some(base) = at.iter().copied().rev().filter(|&at| at <= index).nth(1) else {
            return Ok(());
        };
        for older in at.into_iter().filter(|&at| at < base) {
            self.checkpoints.remove(older)?;
        }
        let before = self.beginning(base)?;
        remove_segments(&self.disk, &self.shared, before)?;
        self.tell_holdings();
        Ok(())
    }

    /// Where the log can begin when nobody needs an entry at or before `base`: the last segment up to the first that is needed whose head
    /// names, as the last entry before, the one that is. After a change of leaders it may name one that was made void since.
    fn beginning(&self, base: LogIndex) -> io::Result<Lsn> {
        let index = self.shared.read();
        let (held, segments) = (held_from(&index, base), index.segments());
        let pairs = segments.windows(2).filter(|pair| pair[1].base <= held);
        let last = |segment| index.last_in(GroupId::ROOT, segment);
        let pairs: Vec<_> = pairs.map(|pair| (last(pair[0]), pair[1])).collect();
        drop(index);
        for (last, segment) in pairs.into_iter().rev() {
            match last_before(&self.disk, self.directory, segment) {
                Ok(told) if told == Some(last) => return Ok(segment.base),
                Err(OpenError::Io { error, .. }) => return Err(error),
                // What can't be read stays until it is mended.
                _ => {}
            }
        }
        Ok(Lsn(0))
    }

    /// Removes the segments from before the log began anew, at once: a server that was away for long has as much of them as retention
    /// allows, and is about to get as much again. Whether there were any.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn remove_void(&mut self) -> io::Result<bool> {
        let before = self.shared.read().void_before();
        let Some(before) = before else {
            return Ok(false);
        };
        let removed = remove_segments(&self.disk, &self.shared, before)?;
        self.tell_holdings();
        Ok(removed > 0)
    }

    /// Keeps some checkpoints, evenly apart: retention goes from one to the next, and one that is damaged has another before it.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn thin(&mut self) -> io::Result<()> {
        loop {
            let at: Vec<LogIndex> = self.checkpoints.list().iter().map(|info| info.id.at.index).collect();
            if at.len() <= limits::CHECKPOINTS_KEPT {
                return Ok(());
            }
            // The one whose neighbours are closest; neither the oldest nor the newest.
            let gap = |three: &[LogIndex]| three[2].0 - three[0].0;
            let Some(three) = at.windows(3).min_by_key(|three| gap(three)) else {
                return Ok(());
            };
            self.checkpoints.remove(three[1])?;
        }
    }
}

/// Bytes of the log from the segment that has the entry after `index` to its end.
fn bytes_after(index: &EntryIndex, at: LogIndex) -> u64 {
    let segments = index.segments();
    let end = segments.last().map_or(0, |segment| segment.end().0);
    let indexed = index.sealed_after(GroupId::ROOT, at);
    let from = indexed.first().map(|sealed| sealed.segment.base);
    let from = from.or_else(|| {
        let mut open = segments.iter().filter(|segment| index.sealed_of(**segment).is_none());
        open.next().map(|segment| segment.base)
    });
    end - from.map_or(end, |from| from.0)
}

/// Where the first segment begins that holds an entry after `base`, or is the last. It doesn't matter whether those before have index
/// files: one that was lost can't be made anew when no checkpoint is so old.
fn held_from(index: &EntryIndex, base: LogIndex) -> Lsn {
    let segments = index.segments();
    let holds = |segment: &&Segment| index.last_in(GroupId::ROOT, **segment) > base;
    let Some((last, full)) = segments.split_last() else {
        return Lsn(0);
    };
    full.iter().find(holds).unwrap_or(last).base
}
