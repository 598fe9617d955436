//! What is asked for is found, in memory and in files.

use super::*;
use crate::limits::READ_BYTES_MAX;
use crate::log::ReadFrom;
use crate::log::record::{self, Kind, Parsed};
use crate::log::sealed::{self, SealedWriter};
use crate::log::segment::file_name;
use crate::log::sim_disk::SimDisk;
use crate::log::testing::{Bench, DIRECTORY, ROOT, read_all};
use crate::rng::Rng;

const ROOM: RoomId = RoomId(1);

fn entries(from: u64, to: u64, bytes_max: usize) -> ReadRequest {
    ReadRequest::Entries {
        token: 9,
        group: ROOT,
        from: LogIndex(from),
        to: LogIndex(to),
        bytes_max,
    }
}

fn items(room: RoomId, from: ReadFrom, bytes_max: usize) -> ReadRequest {
    ReadRequest::Items {
        token: 9,
        room,
        from,
        bytes_max,
    }
}

fn indexes(answer: &ReadAnswer) -> Vec<u64> {
    match answer {
        ReadAnswer::Entries { entries, .. } => entries.iter().map(|entry| entry.index.0).collect(),
        ReadAnswer::Items { items, .. } => items.iter().map(|(_, _, entry)| entry.index.0).collect(),
        ReadAnswer::Damaged { what, .. } => panic!("{what}"),
    }
}

/// Many entries of all lengths in several segments.
fn bench() -> Bench<SimDisk> {
    let (mut bench, mut rng) = (Bench::new(), Rng::new(3));
    for _ in 0..150 {
        let length = if rng.chance(5) { 8000 } else { rng.below(400) as usize };
        bench.say(&["x".repeat(length).as_str(), "short"]);
    }
    bench
}

#[test]
fn every_range_is_answered_within_its_bounds() {
    let (mut bench, mut rng) = (bench(), Rng::new(4));
    let all = bench.model.entries.clone();
    for _ in 0..500 {
        let (from, to) = (rng.between(1, 300), rng.between(1, 400));
        let bytes_max = rng.below(20_000) as usize;
        let answer = bench.reader.read(&entries(from, to, bytes_max)).unwrap();
        let ReadAnswer::Entries { token: 9, entries, .. } = answer else {
            panic!("{answer:?}");
        };
        let wanted = all.get(from as usize - 1..(to as usize).min(all.len())).unwrap_or(&[]);
        assert_eq!(entries, wanted[..entries.len()]);
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        assert!(bytes <= bytes_max || entries.len() == 1);
        match wanted.get(entries.len()) {
            Some(next) => assert!(
                !entries.is_empty() && bytes + next.payload.len() > bytes_max.min(READ_BYTES_MAX) || bytes >= bytes_max
            ),
            None => assert_eq!(entries.len(), wanted.len()),
        }
    }
}

#[test]
fn what_is_not_there_is_an_empty_answer() {
    let mut bench = bench();
    for request in [
        entries(301, 310, 100),
        entries(0, 10, 100),
        entries(20, 10, 100),
        entries(u64::MAX, u64::MAX, 1),
    ] {
        assert!(indexes(&bench.reader.read(&request).unwrap()).is_empty(), "{request:?}");
    }
    let unknown = bench
        .reader
        .read(&items(RoomId(8), ReadFrom::AfterSeq(Seq(4)), 100))
        .unwrap();
    let nothing = ReadAnswer::Items {
        token: 9,
        room: RoomId(8),
        start: Position(1),
        before: Seq(0),
        items: Vec::new(),
    };
    assert_eq!(unknown, nothing);
}

#[test]
fn only_what_is_written_is_served() {
    let mut bench = Bench::new();
    let record = bench.model.say(b"one");
    bench.append(vec![record], 0);
    assert!(read_all(&mut bench.reader).is_empty());
    bench.log.flush().unwrap();
    assert_eq!(read_all(&mut bench.reader), bench.model.entries);
}

#[test]
fn a_room_is_read_by_position_and_by_number() {
    let mut bench = bench();
    // Every third entry is an item of the room, every second of these a message.
    let refs: Vec<ItemRef> = (1..=100)
        .map(|position| ItemRef {
            room: ROOM,
            position: Position(position),
            seq: Seq(if position % 2 == 0 { position / 2 } else { 0 }),
            group: ROOT,
            index: LogIndex(position * 3),
        })
        .collect();
    bench.reader.index(&refs[..60]);
    bench.reader.index(&refs[40..]);
    let mut next = Position(1);
    let mut seen = Vec::new();
    loop {
        let answer = bench.reader.read(&items(ROOM, ReadFrom::Position(next), 3000)).unwrap();
        let ReadAnswer::Items { start, items, .. } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(start, next);
        let Some((last, _, _)) = items.last() else { break };
        next = last.next();
        seen.extend(items);
    }
    assert_eq!((next, seen.len()), (Position(101), 100));
    for (item, (position, seq, entry)) in refs.iter().zip(&seen) {
        assert_eq!((item.position, item.seq, item.index), (*position, *seq, entry.index));
        assert_eq!(*entry, bench.model.entries[item.index.0 as usize - 1]);
    }
    let after = bench
        .reader
        .read(&items(ROOM, ReadFrom::AfterSeq(Seq(49)), 1 << 20))
        .unwrap();
    assert_eq!(indexes(&after), [297, 300]);
}

#[test]
fn items_end_where_their_entries_are_not_written_yet() {
    let mut bench = bench();
    let item = |position, index| ItemRef {
        room: ROOM,
        position: Position(position),
        seq: Seq(position),
        group: ROOT,
        index: LogIndex(index),
    };
    bench.reader.index(&[item(1, 299), item(2, 300), item(3, 301)]);
    let answer = bench
        .reader
        .read(&items(ROOM, ReadFrom::AfterSeq(Seq(0)), 1 << 20))
        .unwrap();
    assert_eq!(indexes(&answer), [299, 300]);
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let mut bench = bench();
    let lsn = bench.reader.entries.read().find(ROOT, LogIndex(200)).unwrap();
    let segment = bench.reader.entries.read().segment_of(lsn).unwrap();
    assert!(segment.base > Lsn(0));
    let offset = lsn.0 - segment.base.0;
    bench.disk.flip_bit(&segment.file(), offset + 65, 1);
    let begin = format!("{} at offset {offset}: entry 200", file_name(segment.base));
    let answer = bench.reader.read(&entries(200, 210, 1 << 20)).unwrap();
    let ReadAnswer::Damaged {
        token: 9, holes, what, ..
    } = answer
    else {
        panic!("{answer:?}");
    };
    let hole = Hole {
        index: LogIndex(200),
        term: Some(crate::types::Term(1)),
    };
    assert_eq!(holes, [hole]);
    assert!(what.starts_with(&begin), "{what}");
    // An answer that has something before ends there.
    assert_eq!(
        indexes(&bench.reader.read(&entries(197, 210, 1 << 20)).unwrap()),
        [197, 198, 199]
    );
    // Its neighbours can be read.
    assert_eq!(
        indexes(&bench.reader.read(&entries(198, 199, 1 << 20)).unwrap()),
        [198, 199]
    );
}

#[test]
fn many_segments_are_read_with_few_open_files() {
    let mut bench = Bench::new();
    let long = "x".repeat(9000);
    for _ in 0..2 * READ_FILES_MAX + 5 {
        bench.say(&[&long]);
    }
    assert_eq!(read_all(&mut bench.reader), bench.model.entries);
    assert_eq!(read_all(&mut bench.reader), bench.model.entries);
    assert_eq!(bench.reader.files.len(), READ_FILES_MAX);
}

/// A log with rooms: what there is of them, in the plainest way.
struct Rooms {
    bench: Bench<SimDisk>,
    items: Vec<ItemRef>,
    /// The segments, ascending, without the one that is being written.
    full: Vec<Segment>,
}

impl Rooms {
    /// About `count` entries, each with items of up to three of five rooms; all in memory.
    fn new(seed: u64, count: usize) -> Rooms {
        let (mut bench, mut rng) = (Bench::new(), Rng::new(seed));
        let (mut items, mut ends) = (Vec::new(), [(0, 0); 5]);
        for _ in 0..count / 10 {
            let texts: Vec<String> = (0..10).map(|_| "x".repeat(rng.below(120) as usize)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            bench.say(&texts);
        }
        for index in 1..=bench.model.entries.len() as u64 {
            for (room, end) in ends.iter_mut().enumerate() {
                // One room is loud, one spoke only for a while.
                let chance = [90, 30, 30, 3, if index < 200 { 50 } else { 0 }][room];
                if !rng.chance(chance) {
                    continue;
                }
                let message = rng.chance(80);
                *end = (end.0 + 1, end.1 + u64::from(message));
                items.push(ItemRef {
                    room: RoomId(room as u64 * 7 + 1),
                    position: Position(end.0),
                    seq: Seq(if message { end.1 } else { 0 }),
                    group: ROOT,
                    index: LogIndex(index),
                });
            }
        }
        bench.reader.index(&items);
        let full = bench.reader.entries.read().segments();
        let last = bench
            .reader
            .entries
            .read()
            .find(ROOT, LogIndex(bench.model.entries.len() as u64));
        let full: Vec<Segment> = full
            .into_iter()
            .filter(|segment| segment.end() <= last.unwrap())
            .collect();
        assert!(full.len() > 3, "{} segments", full.len());
        Rooms { bench, items, full }
    }

    /// What a room has before an entry.
    fn ends(&self, index: LogIndex) -> Vec<(RoomId, Position, Seq)> {
        let mut ends = BTreeMap::new();
        for item in self.items.iter().filter(|item| item.index < index) {
            let end = ends.entry(item.room).or_insert((Position(0), Seq(0)));
            *end = (item.position, item.seq.max(end.1));
        }
        ends.into_iter()
            .map(|(room, (position, seq))| (room, position, seq))
            .collect()
    }

    /// Writes the index file of a segment; the older ones have theirs.
    fn seal(&mut self, segment: Segment) -> Sealed {
        let shared = self.bench.reader.entries.clone();
        let as_of = shared.read().changes();
        let last = self.bench.model.entries.len() as u64;
        let places = (1..=last).filter_map(|index| Some((LogIndex(index), shared.read().find(ROOT, LogIndex(index))?)));
        let places: Vec<_> = places
            .filter(|(_, lsn)| *lsn >= segment.base && *lsn < segment.end())
            .collect();
        let (first, last) = (places[0].0, places[places.len() - 1].0);
        let mut writer = SealedWriter::new(segment, ROOT, first, self.ends(first));
        places.iter().for_each(|&(index, lsn)| writer.entry(index, lsn));
        let within = self.items.iter().filter(|item| (first..=last).contains(&item.index));
        within.for_each(|item| writer.item(item));
        let sealed = writer.finish(&self.bench.disk, DIRECTORY, 5, 6).unwrap();
        shared.write().sealed(sealed, as_of);
        sealed
    }

    /// Asks for every place of every room, and compares.
    fn check(&mut self, hidden: LogIndex) {
        for room in (0..6).map(|room| RoomId(room * 7 + 1)) {
            let all: Vec<ItemRef> = self.items.iter().filter(|item| item.room == room).copied().collect();
            let gone = all.iter().take_while(|item| item.index <= hidden).count();
            let messages = |items: &[ItemRef]| Seq(items.iter().filter(|item| item.seq != Seq(0)).count() as u64);
            for at in 0..=all.len() + 1 {
                let positions = (ReadFrom::Position(Position(at as u64)), at.saturating_sub(1));
                let after = all.iter().position(|item| at > 0 && item.seq == Seq(at as u64));
                let after = if at == 0 {
                    0
                } else {
                    after.map_or(all.len(), |after| after + 1)
                };
                for (from, wanted) in [positions, (ReadFrom::AfterSeq(Seq(at as u64)), after)] {
                    let start = wanted.max(gone).min(all.len());
                    let answer = self.bench.reader.read(&items(room, from, 900)).unwrap();
                    let ReadAnswer::Items {
                        start: first,
                        before,
                        items,
                        ..
                    } = answer
                    else {
                        panic!("{answer:?}");
                    };
                    assert_eq!(first, Position(start as u64 + 1), "{room:?} {from:?} hidden {hidden}");
                    assert_eq!(before, messages(&all[..start]), "{room:?} {from:?}");
                    assert!(!items.is_empty() || start == all.len(), "{room:?} {from:?}");
                    for (item, (position, seq, entry)) in all[start..].iter().zip(&items) {
                        assert_eq!((item.position, item.seq), (*position, *seq));
                        assert_eq!(*entry, self.bench.model.entries[item.index.0 as usize - 1]);
                    }
                }
            }
        }
        let first = self.bench.reader.entries.read().first(ROOT);
        for from in (1..=self.bench.model.entries.len() as u64).step_by(17) {
            let answer = self.bench.reader.read(&entries(from, from + 40, 2000)).unwrap();
            let ReadAnswer::Entries { entries, .. } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(entries.is_empty(), LogIndex(from) < first, "{from}");
            let wanted = &self.bench.model.entries[from as usize - 1..];
            assert_eq!(entries, wanted[..entries.len()]);
        }
    }
}

#[test]
fn history_reads_the_same_from_memory_and_from_files() {
    for seed in 0..2 {
        let mut rooms = Rooms::new(seed, 700);
        rooms.check(LogIndex(0));
        for segment in rooms.full.clone() {
            rooms.seal(segment);
            rooms.check(LogIndex(0));
        }
        // What a restart gives: where the rooms stood, and what no index file knows of.
        let sealed = rooms.bench.reader.entries.read().last_sealed(ROOT).unwrap();
        let rest: Vec<ItemRef> = rooms.items.iter().filter(|item| item.index > sealed).copied().collect();
        let ends = rooms.ends(sealed.next());
        rooms.bench.reader.seed(ends, &rest);
        rooms.check(LogIndex(0));
        // Told too much: nothing changes.
        let (ends, all) = (rooms.ends(LogIndex(300)), rooms.items.clone());
        let later: Vec<ItemRef> = all.into_iter().filter(|item| item.index >= LogIndex(300)).collect();
        rooms.bench.reader.seed(ends, &later);
        rooms.check(LogIndex(0));
    }
}

#[test]
fn what_was_trimmed_or_removed_is_answered_with_the_first_that_is_kept() {
    let mut rooms = Rooms::new(7, 700);
    let full = rooms.full.clone();
    rooms.bench.reader.trim(LogIndex(20));
    rooms.check(LogIndex(20));
    let sealed: Vec<Sealed> = full.iter().map(|&segment| rooms.seal(segment)).collect();
    for hidden in [sealed[0].last, sealed[1].first, LogIndex(sealed[1].first.0 + 50)] {
        rooms.bench.reader.trim(hidden);
        rooms.check(hidden);
    }
    // Removed further than was trimmed; open files of what is gone are closed.
    rooms.bench.reader.entries.write().remove_before(full[2].base);
    for segment in &full[..2] {
        rooms.bench.disk.remove(&segment.file()).unwrap();
        rooms.bench.disk.remove(&sealed::file_name(segment.base)).unwrap();
    }
    rooms.check(sealed[1].last);
    assert!(rooms.bench.reader.files.iter().all(|(segment, _)| *segment >= full[2]));
    // More than all the files know of.
    let hidden = LogIndex(sealed[sealed.len() - 1].last.0 + 3);
    rooms.bench.reader.trim(hidden);
    rooms.check(hidden);
}

#[test]
fn a_segment_that_vanishes_meanwhile_is_no_error() {
    let mut rooms = Rooms::new(8, 700);
    let full = rooms.full.clone();
    for &segment in &full {
        rooms.seal(segment);
    }
    rooms
        .bench
        .reader
        .read(&items(RoomId(1), ReadFrom::Position(Position(1)), 100))
        .unwrap();
    // The files go while the reader believes that they are there: it has looked at the index before.
    rooms.bench.disk.remove(&full[0].file()).unwrap();
    rooms.bench.disk.remove(&sealed::file_name(full[0].base)).unwrap();
    rooms.bench.reader.files.clear();
    rooms.bench.reader.indexes.clear();
    let stale = rooms.bench.reader.sealed.clone();
    rooms.bench.reader.entries.write().remove_before(full[1].base);
    rooms.bench.reader.shape = rooms.bench.reader.entries.read().shape();
    rooms.bench.reader.sealed = stale;
    let hidden = rooms.bench.reader.entries.read().first(ROOT).previous();
    rooms.check(hidden);
}

#[test]
fn a_hole_is_named_until_it_is_filled() {
    let mut rooms = Rooms::new(9, 700);
    let sealed = rooms.seal(rooms.full[0]);
    let shared = rooms.bench.reader.entries.clone();
    let last = rooms.bench.model.entries.len() as u64;
    for index in [LogIndex(sealed.first.0 + 5), LogIndex(last - 5)] {
        let lsn = record_at(&rooms.bench, index);
        shared.write().lose(ROOT, index);
        shared.write().lose(ROOT, index.next());
        let answer = rooms.bench.reader.read(&entries(index.0, last, 100_000)).unwrap();
        let ReadAnswer::Damaged { holes, what, .. } = answer else {
            panic!("{answer:?}");
        };
        let indexes: Vec<LogIndex> = holes.iter().map(|hole| hole.index).collect();
        assert_eq!(indexes, [index, index.next()]);
        assert!(what.starts_with("log/"), "{what}");
        let loud: Vec<ItemRef> = rooms
            .items
            .iter()
            .filter(|item| item.room == RoomId(1))
            .copied()
            .collect();
        if let Some(item) = loud.iter().find(|item| item.index == index) {
            let from = ReadFrom::Position(item.position);
            let answer = rooms.bench.reader.read(&items(RoomId(1), from, 100_000)).unwrap();
            assert!(matches!(answer, ReadAnswer::Damaged { .. }), "{answer:?}");
            let from = ReadFrom::Position(item.position.previous());
            let answer = rooms.bench.reader.read(&items(RoomId(1), from, 100_000)).unwrap();
            assert!(
                matches!(&answer, ReadAnswer::Items { items, .. } if items.len() == 1),
                "{answer:?}"
            );
        }
        shared.write().fill(ROOT, index, lsn);
        let next = record_at(&rooms.bench, index.next());
        shared.write().fill(ROOT, index.next(), next);
        rooms.check(LogIndex(0));
    }
}

#[test]
fn an_index_file_that_was_made_anew_knows_of_fills() {
    let mut rooms = Rooms::new(13, 700);
    let sealed = rooms.seal(rooms.full[0]);
    let shared = rooms.bench.reader.entries.clone();
    let other = record_at(&rooms.bench, LogIndex(sealed.last.0 + 20));
    let index = LogIndex(sealed.first.0 + 5);
    let place = record_at(&rooms.bench, index);
    shared.write().lose(ROOT, index);
    // Somewhere else for the time being, so that it is seen that the file follows.
    shared.write().fill(ROOT, index, other);
    assert_eq!(shared.read().stale(), [sealed]);
    sealed::renew(&rooms.bench.disk, DIRECTORY, &shared, sealed).unwrap();
    assert!(shared.read().stale().is_empty());
    let mut file = SealedFile::open(&rooms.bench.disk, DIRECTORY, sealed.segment).unwrap();
    file.verify().unwrap();
    assert_eq!(file.places(index, 1).unwrap(), [other]);
    shared.write().fill(ROOT, index, place);
    sealed::renew(&rooms.bench.disk, DIRECTORY, &shared, sealed).unwrap();
    rooms.check(LogIndex(0));
}

/// Where the record of an entry stands, found by walking.
fn record_at(bench: &Bench<SimDisk>, index: LogIndex) -> Lsn {
    for segment in bench.reader.entries.read().segments() {
        let bytes = bench.disk.contents(&segment.file()).unwrap();
        let mut at = 0;
        while let Parsed::Record(header, _, size) =
            record::parse(&bytes[at as usize..], Lsn(segment.base.0 + at), DIRECTORY)
        {
            if header.kind == Kind::Entry && header.index == index {
                return header.lsn;
            }
            at += size as u64;
        }
    }
    panic!("entry {index} is nowhere");
}

#[test]
fn a_damaged_index_file_is_named_and_can_be_made_anew() {
    let mut rooms = Rooms::new(10, 700);
    let sealed: Vec<Sealed> = rooms
        .full
        .clone()
        .into_iter()
        .map(|segment| rooms.seal(segment))
        .collect();
    rooms.check(LogIndex(0));
    let name = sealed::file_name(sealed[1].segment.base);
    rooms.bench.disk.flip_bit(&name, 4096 + 100, 3);
    rooms.bench.reader.indexes.clear();
    let answer = rooms
        .bench
        .reader
        .read(&entries(sealed[1].first.0, sealed[1].last.0, 1000))
        .unwrap();
    let ReadAnswer::Damaged { holes, what, .. } = answer else {
        panic!("{answer:?}");
    };
    assert!(
        holes.is_empty() && what.starts_with(&format!("{name} at offset 4096: ")),
        "{what}"
    );
    assert_eq!(rooms.bench.reader.entries.indexes_lost(), [sealed[1].segment]);
    // What lies before it is still read.
    let before = sealed[1].first.0 - 3;
    let answer = rooms
        .bench
        .reader
        .read(&entries(before, sealed[1].last.0, 100_000))
        .unwrap();
    assert_eq!(indexes(&answer), [before, before + 1, before + 2]);
    rooms.bench.disk.flip_bit(&name, 4096 + 100, 3);
    rooms.bench.reader.entries.write().sealed(sealed[1], 0);
    assert!(rooms.bench.reader.entries.indexes_lost().is_empty());
    rooms.check(LogIndex(0));
    // One that is missing too.
    rooms.bench.disk.remove(&name).unwrap();
    rooms.bench.reader.indexes.clear();
    let answer = rooms
        .bench
        .reader
        .read(&entries(sealed[1].first.0, sealed[1].last.0, 1000))
        .unwrap();
    assert!(matches!(answer, ReadAnswer::Damaged { .. }), "{answer:?}");
    assert_eq!(rooms.bench.reader.entries.indexes_lost(), [sealed[1].segment]);
}

#[test]
fn a_disk_that_refuses_is_an_error_not_damage() {
    let mut rooms = Rooms::new(11, 700);
    let sealed = rooms.seal(rooms.full[0]);
    rooms.bench.reader.files.clear();
    rooms.bench.disk.remove(&sealed.segment.file()).unwrap();
    let error = rooms.bench.reader.read(&entries(1, 9, 100)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_memory_of_rooms_does_not_grow_with_history() {
    let mut rooms = Rooms::new(12, 4000);
    let before = rooms.bench.reader.rooms.memory();
    for segment in rooms.full.clone() {
        rooms.seal(segment);
    }
    rooms.bench.reader.index(&[]);
    let after = rooms.bench.reader.rooms.memory();
    assert!(
        after < 4000 && after * 2 < before,
        "{before} bytes before, {after} after"
    );
}
