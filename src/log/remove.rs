//! Removes old segments: those that hold nothing any more that anybody needs.

use std::io;

use super::disk::{Disk, DiskFile};
use super::index::SharedIndex;
use super::sealed;
use super::segment::{FOLDER, base_of, file_name};
use crate::types::Lsn;

/// Removes all segments that end at or before a position, and their index files; never the one that is being filled. Gives their number.
///
/// Oldest first, and each is gone for good before the next goes: whenever this ends, the segments that are left follow each other. A
/// segment goes before its index file: one without would keep those behind it from being known by theirs. An index file that was left so
/// goes the next time.
///
/// # Errors
/// What the disk says; it can be tried again.
pub fn remove_segments<D: Disk>(disk: &D, index: &SharedIndex, before: Lsn) -> io::Result<usize> {
    let current = index.read().segments().last().map_or(Lsn(0), |segment| segment.base);
    let mut removed = 0;
    let names = disk.list(FOLDER)?;
    let oldest = names.iter().find_map(|name| base_of(name));
    let indexes = names.iter().filter_map(|name| sealed::base_of(name));
    for left in indexes.filter(|&base| Some(base) < oldest) {
        disk.remove(&sealed::file_name(left))?;
    }
    for base in names.iter().filter_map(|name| base_of(name)) {
        let name = file_name(base);
        let end = Lsn(base.0.saturating_add(disk.open(&name)?.size()?));
        if base >= current || end > before {
            break;
        }
        // Nobody looks for anything there from now on.
        index.write().remove_before(end);
        disk.remove(&name)?;
        disk.sync_dir(FOLDER)?;
        match disk.remove(&sealed::file_name(base)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{EntryKind, LogPosition};
    use crate::log::recovery::{OpenError, Options};
    use crate::log::sim_disk::SimDisk;
    use crate::log::testing::{Bench, DIRECTORY, ROOT, SEGMENT, read_from};
    use crate::log::writer::Log;
    use crate::rng::Rng;
    use crate::types::{LogIndex, Term};

    fn options(checkpoint: u64) -> Options {
        let at = LogPosition {
            term: Term(1),
            index: LogIndex(checkpoint),
        };
        Options {
            segment_size: SEGMENT,
            groups: vec![ROOT],
            reached: Lsn(0),
            checkpoint: (checkpoint > 0).then_some(at),
        }
    }

    /// A log with so many full segments, and a little in the next.
    fn full(segments: u64) -> Bench<SimDisk> {
        let mut bench = Bench::new();
        let members = bench.model.entry(LogIndex(1), Term(1), EntryKind::Members, b"members");
        bench.append(vec![members], 0);
        let long = "x".repeat(1000);
        while bench.log.end().0 < segments * SEGMENT + 100 {
            bench.say(&[&long]);
        }
        bench
    }

    #[test]
    fn whole_segments_go_and_the_log_begins_behind_them() {
        let mut bench = full(4);
        let last = bench.model.last();
        bench.append(Vec::new(), last);
        bench.log.close().unwrap();
        let index = bench.log.index();
        bench.disk.create(&sealed::file_name(Lsn(0))).unwrap();
        assert_eq!(remove_segments(&bench.disk, &index, Lsn(SEGMENT - 1)).unwrap(), 0);
        assert_eq!(remove_segments(&bench.disk, &index, Lsn(2 * SEGMENT + 5)).unwrap(), 2);
        assert!(bench.disk.open(&sealed::file_name(Lsn(0))).is_err());
        let model = bench.model.clone();
        assert_eq!(index.read().segments().len(), 3);

        // Only with a checkpoint that covers what is gone.
        match Log::open(bench.disk.clone(), DIRECTORY, &options(0)) {
            Err(OpenError::Untrusted { .. }) => {}
            other => panic!("{other:?}"),
        }
        let mut opened = Log::open(bench.disk.clone(), DIRECTORY, &options(last)).unwrap();
        let found = opened.groups[0].1.clone();
        assert!(found.base.index > LogIndex(5) && found.base.index < LogIndex(last));
        assert_eq!(found.base_chain, model.chains[found.base.index.0 as usize - 1]);
        assert_eq!(found.last.index, LogIndex(last));
        assert_eq!(&*found.members[0].payload, b"members");
        assert!(!opened.behind && found.holes.is_empty());
        let rest = read_from(&mut opened.reader, found.base.index.next());
        assert_eq!(rest, model.entries[found.base.index.0 as usize..]);
        assert!(read_from(&mut opened.reader, found.base.index).is_empty());
        assert!(Log::open(bench.disk.clone(), DIRECTORY, &options(found.base.index.0 - 1)).is_err());

        // The one that is being filled stays, whatever is asked for, and so does the one after it that is made already.
        while opened.log.prewriter().step().unwrap() != crate::log::prewrite::Step::Idle {}
        assert_eq!(
            remove_segments(&bench.disk, &opened.log.index(), Lsn(u64::MAX)).unwrap(),
            2
        );
        let opened = Log::open(bench.disk.clone(), DIRECTORY, &options(last)).unwrap();
        assert_eq!(opened.groups[0].1.last, found.last);
        // A checkpoint that goes beyond the log: it is the log's no more.
        let opened = Log::open(bench.disk, DIRECTORY, &options(last + 1)).unwrap();
        assert!(opened.behind);
    }

    #[test]
    fn no_segment_outlives_its_index_file_wherever_the_process_ends() {
        let mut bench = full(4);
        bench.log.close().unwrap();
        for base in 0..4 {
            bench.disk.create(&sealed::file_name(Lsn(base * SEGMENT))).unwrap();
        }
        bench.disk.sync_dir(FOLDER).unwrap();
        let index = bench.log.index();
        let mut halves = 0;
        for changes in 0..12 {
            let disk = bench.disk.copy();
            disk.stop_after(changes);
            halves += usize::from(remove_segments(&disk, &index, Lsn(3 * SEGMENT)).is_err());
            disk.kill();
            let names = disk.list(FOLDER).unwrap();
            for base in names
                .iter()
                .filter_map(|name| base_of(name))
                .filter(|base| base.0 < 4 * SEGMENT)
            {
                let file = format!("{:020}.idx", base.0);
                assert!(
                    names.contains(&file),
                    "{file} is gone after {changes} changes, and its segment isn't"
                );
            }
            remove_segments(&disk, &index, Lsn(3 * SEGMENT)).unwrap();
            remove_segments(&disk, &index, Lsn(3 * SEGMENT)).unwrap();
            let names = disk.list(FOLDER).unwrap();
            let indexes: Vec<Lsn> = names.iter().filter_map(|name| sealed::base_of(name)).collect();
            assert_eq!(indexes, [Lsn(3 * SEGMENT)], "after {changes} changes");
        }
        assert!(halves > 3, "{halves}");
    }

    #[test]
    fn a_fill_may_stay_when_the_entry_that_it_mended_is_gone() {
        let mut bench = full(2);
        let fill = bench.model.fill(LogIndex(3));
        let last = bench.model.last();
        bench.append(vec![fill], last);
        bench.log.close().unwrap();
        let index = bench.log.index();
        assert_eq!(remove_segments(&bench.disk, &index, Lsn(SEGMENT)).unwrap(), 1);
        let opened = Log::open(bench.disk.clone(), DIRECTORY, &options(last)).unwrap();
        let found = &opened.groups[0].1;
        assert!(found.base.index > LogIndex(3) && found.holes.is_empty());
        assert_eq!(found.last.index, LogIndex(last));
    }

    #[test]
    fn a_log_behind_its_checkpoint_begins_anew_and_keeps_its_vote() {
        let mut bench = Bench::new();
        let members = bench.model.entry(LogIndex(1), Term(1), EntryKind::Members, b"members");
        let Record::Entry {
            entry: members_entry, ..
        } = members.clone()
        else {
            panic!("an entry was made")
        };
        bench.append(vec![members], 0);
        bench.say(&["one", "two"]);
        let state = crate::log::HardState {
            term: Term(7),
            vote: crate::types::ServerId::new("server2").map(|server| (server, DIRECTORY)),
            commit: LogIndex(0),
        };
        bench.append(vec![Record::State { group: ROOT, state }], 0);
        bench.log.close().unwrap();
        let mut opened = Log::open(bench.disk.clone(), DIRECTORY, &options(50)).unwrap();
        assert!(opened.behind);
        let at = options(50).checkpoint.unwrap();
        opened.begin_anew(ROOT, at, 99, &members_entry).unwrap();
        let now = opened.groups[0].1.clone();
        drop(opened);
        bench.disk.power_cut(&mut Rng::new(3));
        let mut opened = Log::open(bench.disk.clone(), DIRECTORY, &options(50)).unwrap();
        let found = opened.groups[0].1.clone();
        assert_eq!(found, now);
        assert!(!opened.behind);
        assert_eq!((found.base, found.last, found.last_chain), (at, at, 99));
        assert_eq!((found.state.term, found.state.vote), (state.term, state.vote));
        assert_eq!(found.state.commit, at.index);
        assert!(read_from(&mut opened.reader, LogIndex(1)).is_empty());
        assert_eq!(
            remove_segments(&bench.disk, &opened.log.index(), opened.log.segment().base).unwrap(),
            1
        );
        assert!(Log::open(bench.disk, DIRECTORY, &options(50)).is_ok());
    }

    use crate::log::Record;
}
