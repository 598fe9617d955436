//! The entries of a segment whose index file can't be read any more: the segment itself says where they stand, and what they are.

use std::collections::BTreeMap;
use std::io;

use super::Kept;
use super::keeper::Keeper;
use crate::cluster::message::{Entry, Hole};
use crate::log::disk::Disk;
use crate::log::index::{Lookup, Sealed};
use crate::log::inspect::{Seen, inspect_one};
use crate::log::record::Kind;
use crate::types::{Blob, GroupId, LogIndex, Lsn};

/// Entries, and where they stand.
pub(super) type Standing = BTreeMap<LogIndex, (Lsn, Entry)>;

impl<D: Disk> Keeper<D> {
    /// All entries of a segment, which has had an index file: at most as many bytes as the segment has. In words why some can't be read.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn rescan(&mut self, sealed: Sealed) -> io::Result<Result<Standing, String>> {
        let (first, last) = (sealed.first, sealed.last);
        let count = (last.0 + 1 - first.0) as usize;
        let changed = match self.shared.read().look(GroupId::ROOT, first, last, count) {
            Lookup::Sealed(known, changed) if known == sealed => changed,
            _ => return Ok(Err("it isn't needed any more".to_owned())),
        };
        let mut standing = Standing::new();
        inspect_one(&self.disk, self.directory, sealed.segment, &mut |seen| {
            if let Seen::Record(_, _, header, payload) = seen
                && header.kind == Kind::Entry
                && first <= header.index
                && header.index <= last
            {
                // Of several of one index the last one counts.
                let entry = Entry {
                    index: header.index,
                    term: header.term,
                    kind: header.entry_kind,
                    payload: Blob::new(payload),
                };
                standing.insert(header.index, (header.lsn, entry));
            }
            true
        })?;
        for (index, lsn) in changed {
            let filled = match lsn {
                Some(lsn) => self
                    .reader
                    .entry_at(GroupId::ROOT, index, lsn)?
                    .map(|entry| (lsn, entry)),
                None => None,
            };
            match filled {
                Some(filled) => standing.insert(index, filled),
                None => standing.remove(&index),
            };
        }
        let missing = (first.0..=last.0)
            .map(LogIndex)
            .filter(|index| !standing.contains_key(index));
        let missing: Vec<LogIndex> = missing.collect();
        if missing.is_empty() {
            return Ok(Ok(standing));
        }
        let file = sealed.segment.file();
        let what = format!("damaged: {file}: {} of its entries can't be found", missing.len());
        let mut index = self.shared.write();
        missing.iter().for_each(|&at| index.lose(GroupId::ROOT, at));
        drop(index);
        self.say(Kept::Damaged {
            group: GroupId::ROOT,
            holes: missing.into_iter().map(|index| Hole { index, term: None }).collect(),
            what: what.clone(),
        });
        Ok(Err(what))
    }
}
