//! What recovery promises, one promise at a time.

use super::disk::{Disk, DiskFile, RealDisk};
use super::payload;
use super::record::{self, Header, Kind, Parsed};
use super::recovery::{OpenError, Options};
use super::segment::{FOLDER, base_of, file_name};
use super::sim_disk::SimDisk;
use super::testing::{Bench, DIRECTORY, Model, ROOT, SEGMENT, read_all, try_open};
use super::writer::Log;
use super::{HardState, Record};
use crate::cluster::message::EntryKind;
use crate::limits::RECORD_HEADER_BYTES;
use crate::rng::Rng;
use crate::types::{DirectoryId, LogIndex, Lsn, ServerId, Term};

fn vote(term: u64) -> Record {
    Record::State {
        group: ROOT,
        state: HardState {
            term: Term(term),
            vote: ServerId::new("server2").map(|server| (server, DIRECTORY)),
            commit: LogIndex(0),
        },
    }
}

/// All good records of a segment: (offset, header, bytes of the whole).
fn records(disk: &SimDisk, base: Lsn) -> Vec<(u64, Header, usize)> {
    let bytes = disk.contents(&file_name(base)).unwrap();
    let (mut found, mut offset) = (Vec::new(), 0);
    while let Parsed::Record(header, _, size) = record::parse(&bytes[offset..], Lsn(base.0 + offset as u64), DIRECTORY)
    {
        found.push((offset as u64, header, size));
        offset += size;
    }
    found
}

fn bases(disk: &SimDisk) -> Vec<Lsn> {
    disk.list(FOLDER)
        .unwrap()
        .iter()
        .filter_map(|name| base_of(name))
        .collect()
}

/// Three segments of entries, with a vote at the end; sealed.
fn three_segments() -> Bench<SimDisk> {
    let mut bench = Bench::new();
    let members = bench.model.entry(LogIndex(1), Term(1), EntryKind::Members, b"members");
    bench.append(vec![members], 0);
    let mut said = 0;
    while bench.log.end().0 < 2 * SEGMENT + 3000 {
        said += 1;
        let text = format!("{said} {}", "x".repeat(said % 700));
        bench.say(&[&text, "short"]);
    }
    bench.append(vec![vote(4)], 3);
    bench.model.apply(&vote(4));
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    bench.log.seal().unwrap();
    bench
}

#[test]
fn an_empty_directory_becomes_an_empty_log() {
    let bench = Bench::new();
    assert_eq!(bench.found, Model::default().recovered(LogIndex(0)));
    assert_eq!(bases(&bench.disk), [Lsn(0)]);
    let mut bench = bench.again();
    assert_eq!(bench.report.records, 2, "a head and a seal");
    bench.say(&["one"]);
    let mut bench = bench.again();
    assert_eq!(bench.texts(), ["one"]);
}

#[test]
fn all_that_was_written_is_found_again() {
    let bench = three_segments();
    let model = bench.model.clone();
    assert_eq!(bases(&bench.disk), [Lsn(0), Lsn(SEGMENT), Lsn(2 * SEGMENT)]);
    let mut bench = bench.again();
    assert_eq!(bench.found, model.recovered(LogIndex(3)));
    assert_eq!(read_all(&mut bench.reader), model.entries);
    assert_eq!((bench.report.segments, bench.report.cut_bytes), (3, 0));
    bench.say(&["and on"]);
    assert_eq!(bench.again().texts().last().unwrap(), "and on");
}

#[test]
fn truncate_above() {
    let mut bench = Bench::new();
    bench.say(&["1", "2", "3", "4", "5 of term 1", "6", "7", "8"]);
    let entry = bench
        .model
        .entry(LogIndex(5), Term(3), EntryKind::Command, b"5 of term 3");
    bench.append(vec![entry], 0);
    bench.log.close().unwrap();
    assert_eq!(bench.texts(), ["1", "2", "3", "4", "5 of term 3"]);
    let model = bench.model.clone();
    let mut bench = bench.again();
    assert_eq!(bench.found, model.recovered(LogIndex(0)));
    assert_eq!(bench.found.last.index, LogIndex(5));
    assert_eq!(bench.found.terms, [(LogIndex(1), Term(1)), (LogIndex(5), Term(3))]);
    assert_eq!(bench.texts(), ["1", "2", "3", "4", "5 of term 3"]);
}

#[test]
fn members_that_are_made_void_give_way_to_those_before() {
    let mut bench = Bench::new();
    let first = bench
        .model
        .entry(LogIndex(1), Term(1), EntryKind::Members, b"old members");
    let second = bench
        .model
        .entry(LogIndex(2), Term(1), EntryKind::Members, b"new members");
    bench.append(vec![first, second], 0);
    bench.log.close().unwrap();
    let mut bench = bench.again();
    assert_eq!(&*bench.found.members.last().unwrap().payload, b"new members");
    let other = bench.model.entry(LogIndex(2), Term(2), EntryKind::Noop, b"");
    bench.append(vec![other], 0);
    bench.log.close().unwrap();
    assert_eq!(&*bench.again().found.members.last().unwrap().payload, b"old members");
}

#[test]
fn any_flip_below_the_seal_is_damage_and_is_named() {
    let bench = three_segments();
    let mut rng = Rng::new(5);
    let (mut opened, mut refused) = (0, 0);
    for base in bases(&bench.disk) {
        let found = records(&bench.disk, base);
        let last = bases(&bench.disk).last() == Some(&base);
        for (offset, header, size) in found {
            if last && header.kind == Kind::Seal && offset > 100 {
                continue;
            }
            for _ in 0..4 {
                let disk = bench.disk.copy();
                let at = offset + rng.below(size as u64);
                assert!(disk.flip_bit(&file_name(base), at, rng.below(8) as u32));
                let before = disk.contents(&file_name(base)).unwrap();
                match try_open(&disk) {
                    Err(error @ OpenError::Untrusted { .. }) => {
                        let text = error.to_string();
                        let begin = format!("damaged: {} at offset {offset}: ", file_name(base));
                        assert!(text.starts_with(&begin), "{text}, not {begin}");
                        refused += 1;
                    }
                    Ok(found) => {
                        // Without a head it isn't known either where the segment before ends: that is named, too.
                        let (file, at, _) = found.report.damaged.last().unwrap();
                        assert_eq!((file, *at), (&file_name(base), offset));
                        let places = 1 + u64::from(header.kind == Kind::Head && base > Lsn(0));
                        assert_eq!((found.report.damages, found.report.cut_bytes), (places, 0));
                        let holes = &found.groups[0].1.holes;
                        match header.kind {
                            Kind::Entry => assert!(holes.iter().any(|hole| hole.index == header.index)),
                            _ => assert!(holes.is_empty(), "{holes:?}"),
                        }
                        opened += 1;
                    }
                    other => panic!("byte {at} of {base}: {other:?}"),
                }
                let after = disk.contents(&file_name(base)).unwrap();
                let record = offset as usize..offset as usize + size;
                assert_eq!(
                    before[record.clone()],
                    after[record],
                    "what is damaged is left as it is"
                );
            }
        }
    }
    assert!(opened > 20 * refused, "{opened} were opened, {refused} refused");
}

#[test]
fn a_flip_in_the_last_batch_without_a_seal_is_torn() {
    let mut bench = Bench::new();
    bench.say(&["kept", "kept too"]);
    let end = bench.log.end().0;
    bench.say(&["last", "of all"]);
    for at in end..bench.log.end().0 {
        let disk = bench.disk.copy();
        assert!(disk.flip_bit(&file_name(Lsn(0)), at, 3));
        let mut after = Bench::open(&disk, Model::default());
        let texts = after.texts();
        assert!(texts.starts_with(&["kept".to_owned(), "kept too".to_owned()]));
        assert!(texts.len() < 4, "byte {at}: {texts:?}");
        let (file, offset) = after.report.cut_at.clone().unwrap();
        assert!(file == file_name(Lsn(0)) && end <= offset && offset <= at);
        after.model = Model::of(&[]);
    }
}

#[test]
fn a_hole_below_what_was_synced_is_damage() {
    let mut bench = Bench::new();
    bench.say(&["one"]);
    bench.say(&["two"]);
    bench.say(&["three"]);
    let two = records(&bench.disk, Lsn(0))[3];
    let file = bench.disk.open(&file_name(Lsn(0))).unwrap();
    file.write_at(&vec![0; two.2], two.0).unwrap();
    match try_open(&bench.disk) {
        Err(OpenError::Untrusted { offset, .. }) => assert_eq!(offset, two.0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_segment_is_damage() {
    for (missing, base) in [(0, 0), (1, SEGMENT)] {
        let bench = three_segments();
        bench.disk.remove(&file_name(Lsn(base))).unwrap();
        match try_open(&bench.disk) {
            Err(OpenError::Untrusted { file, .. }) => {
                // Of the first it can't be told but by the one that is first now.
                let named = if missing == 0 { SEGMENT } else { base };
                assert_eq!(file, file_name(Lsn(named)), "segment {missing}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_segment_of_another_length_is_damage() {
    for size in [SEGMENT - 4096, SEGMENT - 8, SEGMENT + 4096] {
        for base in [0, 2 * SEGMENT] {
            let bench = three_segments();
            let file = bench.disk.open(&file_name(Lsn(base))).unwrap();
            file.set_size(size).unwrap();
            match try_open(&bench.disk) {
                Err(OpenError::Untrusted { .. }) => {}
                other => panic!("{size} bytes at {base}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_log_of_another_directory_is_damage_and_is_not_wiped() {
    let bench = three_segments();
    let options = Options {
        segment_size: SEGMENT,
        groups: vec![ROOT],
        reached: Lsn(0),
        checkpoint: None,
    };
    match Log::open(bench.disk.clone(), DirectoryId(78), &options) {
        Err(OpenError::Untrusted { offset: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    let model = bench.model.clone();
    assert_eq!(bench.again().found, model.recovered(LogIndex(3)));
}

#[test]
fn records_of_a_later_program_are_not_called_damaged() {
    let mut bench = Bench::new();
    bench.say(&["one"]);
    let one = records(&bench.disk, Lsn(0))[2];
    let file = bench.disk.open(&file_name(Lsn(0))).unwrap();
    let mut bytes = vec![0; one.2];
    file.read_at(&mut bytes, one.0).unwrap();
    bytes[13] = 2;
    let seed = crc32c::crc32c(&DIRECTORY.0.to_le_bytes());
    let check = crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..4]), &bytes[8..RECORD_HEADER_BYTES]);
    bytes[4..8].copy_from_slice(&check.to_le_bytes());
    file.write_at(&bytes, one.0).unwrap();
    match try_open(&bench.disk) {
        Err(error @ OpenError::Newer { .. }) => assert!(error.to_string().contains("upgrade")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_counts_before_it_is_synced_again() {
    for seed in 0..40 {
        let mut bench = Bench::new();
        bench.say(&["synced"]);
        // Long, so that it has pages that nothing else is written to.
        let text = "only written ".repeat(1000);
        let record = bench.model.say(text.as_bytes());
        bench.append(vec![record], 0);
        bench.log.flush().unwrap();
        if seed % 2 == 0 {
            // The page is in the cache and taken for written, and is not.
            bench.disk.fail_syncs(1);
            assert!(bench.log.sync().is_err());
        }
        bench.disk.kill();
        let mut bench = bench.again();
        assert_eq!(bench.texts(), ["synced", &text]);
        bench.disk.power_cut(&mut Rng::new(seed));
        let mut bench = bench.again();
        assert_eq!(bench.texts(), ["synced", &text], "seed {seed}");
    }
}

#[test]
fn what_recovery_has_found_is_sealed() {
    let mut bench = Bench::new();
    bench.say(&["acknowledged"]);
    let (offset, _, _) = *records(&bench.disk, Lsn(0)).last().unwrap();
    bench.disk.kill();
    // Until now a flip would be taken for a torn write. The next start has told others that it holds the entry.
    let bench = bench.again();
    bench.disk.flip_bit(&file_name(Lsn(0)), offset + 70, 1);
    let opened = try_open(&bench.disk).unwrap();
    let found = &opened.groups[0].1;
    assert_eq!((found.last.index, opened.report.cut_bytes), (LogIndex(1), 0));
    assert_eq!(found.holes.len(), 1, "{found:?}");
}

#[test]
fn records_lost_from_the_end_of_a_full_segment_are_holes() {
    let bench = three_segments();
    let (offset, header, size) = *records(&bench.disk, Lsn(0)).last().unwrap();
    let file = bench.disk.open(&file_name(Lsn(0))).unwrap();
    file.write_at(&vec![0; size], offset).unwrap();
    let opened = try_open(&bench.disk).unwrap();
    let (file, at, _) = &opened.report.damaged[0];
    assert_eq!((file, *at), (&file_name(Lsn(0)), offset));
    assert_eq!(header.kind, Kind::Entry);
    // Which of those behind the commit position are right can't be told, and the last one that the segment had is gone.
    let holes: Vec<LogIndex> = opened.groups[0].1.holes.iter().map(|hole| hole.index).collect();
    assert_eq!(holes.last(), Some(&header.index));
}

/// A message as long as it must be for the next record to begin at `offset` of the first segment.
fn up_to(offset: u64, bench: &mut Bench<SimDisk>) -> Record {
    let length = offset - bench.log.end().0 - RECORD_HEADER_BYTES as u64;
    bench.model.say(&vec![b'x'; length as usize])
}

#[test]
fn no_ghosts() {
    for seed in 0..60 {
        let mut bench = Bench::new();
        bench.say(&["kept"]);
        let end = bench.log.end().0;
        // A torn batch: its first record is bad, those from 4096 on are good.
        let mut ghosts = vec![up_to(4096, &mut bench)];
        ghosts.extend((0..20).map(|_| bench.model.say(b"ghost")));
        bench.append(ghosts, 0);
        bench.log.flush().unwrap();
        bench.log.sync().unwrap();
        bench.disk.flip_bit(&file_name(Lsn(0)), end + 70, 1);
        let mut rng = Rng::new(seed);
        // Recoveries that are ended in their middle, with and without power, after failed syncs.
        for _ in 0..3 {
            match rng.below(3) {
                0 => bench.disk.fail_syncs(1),
                _ => bench.disk.stop_after(rng.below(8)),
            }
            drop(try_open(&bench.disk));
            bench.disk.kill();
            if rng.chance(50) {
                bench.disk.power_cut(&mut rng);
            }
        }
        let disk = bench.disk.clone();
        let mut bench = Bench::open(&disk, Model::default());
        assert_eq!(bench.texts(), ["kept"]);
        // A new record that ends where a ghost begins, then no power: the ghost must not come back.
        bench.model.say(b"kept");
        let record = up_to(4096, &mut bench);
        bench.append(vec![record], 0);
        bench.log.flush().unwrap();
        bench.log.sync().unwrap();
        disk.power_cut(&mut rng);
        assert_eq!(bench.again().texts().len(), 2, "seed {seed}");
    }
}

#[test]
fn a_record_inside_of_a_message_is_not_read_as_one() {
    let mut bench = Bench::new();
    bench.say(&["one"]);
    bench.say(&["two"]);
    let (offset, _, size) = *records(&bench.disk, Lsn(0)).last().unwrap();
    let bytes = bench.disk.contents(&file_name(Lsn(0))).unwrap();
    let whole = &bytes[offset as usize..offset as usize + size];
    let end = bench.log.end().0;
    let mut payload = whole.repeat(3);
    payload.extend_from_slice(b"more");
    let message = bench.model.say(&payload);
    bench.append(vec![message], 0);
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    // Its header is torn: the scan for good records goes through the message and finds none.
    let torn = bench.disk.copy();
    torn.flip_bit(&file_name(Lsn(0)), end + 1, 1);
    assert_eq!(Bench::open(&torn, Model::default()).texts(), ["one", "two"]);
    // Not torn, it is a message like others.
    let model = bench.model.clone();
    assert_eq!(read_all(&mut bench.again().reader), model.entries);
}

#[test]
fn segments_stand_alone() {
    let mut bench = three_segments();
    let texts = ["y"; 2].map(|y| y.repeat(9000));
    bench.say(&[&texts[0], &texts[1]]);
    let base = *bases(&bench.disk).last().unwrap();
    let bytes = bench.disk.contents(&file_name(base)).unwrap();
    let Parsed::Record(header, payload, _) = record::parse(&bytes, base, DIRECTORY) else {
        panic!("a segment begins with a record");
    };
    assert_eq!(header.kind, Kind::Head);
    let head = payload::decode_head(payload).unwrap();
    let group = &head.groups[0];
    // The vote stands in the segment before.
    assert_eq!(group.state.term, Term(4));
    assert_eq!(group.state.vote.map(|(server, _)| server), ServerId::new("server2"));
    assert_eq!(group.state.commit, LogIndex(3));
    assert!(group.last.index > LogIndex(3));
}

#[test]
fn a_failed_sync_is_the_end() {
    let mut bench = Bench::new();
    let record = bench.model.say(b"one");
    bench.append(vec![record], 0);
    bench.log.flush().unwrap();
    bench.disk.fail_syncs(1);
    let error = bench.log.sync().unwrap_err().to_string();
    assert!(error.contains(&file_name(Lsn(0))), "{error}");
    assert!(bench.log.sync().is_err());
    assert!(bench.log.flush().is_err());
    assert!(bench.log.seal().is_err());
    assert!(bench.log.close().is_err());
}

#[test]
fn commit_rides_along() {
    let mut bench = Bench::new();
    bench.say(&["one", "two", "three"]);
    let before = records(&bench.disk, Lsn(0)).len();
    // Without records it waits for some.
    bench.append(Vec::new(), 2);
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    assert_eq!(records(&bench.disk, Lsn(0)).len(), before);
    let record = bench.model.say(b"four");
    bench.append(vec![record], 2);
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    let found = records(&bench.disk, Lsn(0));
    assert_eq!(found.len(), before + 2, "an entry and a state");
    // It hasn't changed: no other record of it.
    bench.say(&["five"]);
    assert_eq!(records(&bench.disk, Lsn(0)).len(), before + 3);
    bench.disk.power_cut(&mut Rng::new(1));
    let mut bench = bench.again();
    assert_eq!(bench.found.state.commit, LogIndex(2));
    // What was heard of after the last batch is in the seal.
    bench.append(Vec::new(), 5);
    bench.log.close().unwrap();
    assert!(!bench.log.wants_seal());
    assert_eq!(bench.again().found.state.commit, LogIndex(5));
}

#[test]
fn one_sync_covers_all_that_came_meanwhile() {
    let mut bench = Bench::new();
    let before = bench.disk.syncs();
    for _ in 0..10 {
        let record = bench.model.say(b"text");
        bench.append(vec![record], 0);
    }
    bench.log.flush().unwrap();
    assert_eq!(bench.log.sync().unwrap().map(|id| id.0), Some(10));
    assert_eq!(bench.disk.syncs(), before + 1);
    // Nothing was written, so nothing needs a sync.
    bench.append(Vec::new(), 4);
    bench.log.flush().unwrap();
    assert_eq!(bench.log.sync().unwrap().map(|id| id.0), Some(11));
    bench.log.seal().unwrap();
    bench.log.sync().unwrap();
    assert_eq!(bench.disk.syncs(), before + 1);
}

#[test]
fn another_segment_size_holds_for_new_segments() {
    let bench = three_segments();
    let options = Options {
        segment_size: 3 * SEGMENT,
        groups: vec![ROOT],
        reached: Lsn(0),
        checkpoint: None,
    };
    let (disk, model) = (bench.disk.clone(), bench.model.clone());
    let opened = Log::open(disk.clone(), DIRECTORY, &options).unwrap();
    let mut bench = Bench {
        log: opened.log,
        reader: opened.reader,
        appends: 0,
        ..bench
    };
    let long = "z".repeat(12_000);
    bench.say(&[&long, &long, &long]);
    assert_eq!(bases(&disk).last(), Some(&Lsn(3 * SEGMENT)));
    assert_eq!(
        disk.open(&file_name(Lsn(3 * SEGMENT))).unwrap().size().unwrap(),
        3 * SEGMENT
    );
    let mut bench = bench.again();
    assert_eq!(bench.texts().len(), model.entries.len() + 3);
}

#[test]
fn a_full_disk_closes_the_log_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.say(&["one"]);
    bench.disk.set_space(Some(SEGMENT + 8000));
    let long = "z".repeat(10_000);
    let records = [bench.model.say(long.as_bytes()), bench.model.say(long.as_bytes())];
    let append = super::Append {
        id: crate::types::AppendId(9),
        records: records.to_vec(),
        commits: Vec::new(),
        sync: true,
    };
    let error = bench.log.append(&append).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    bench.disk.set_space(None);
    assert_eq!(bench.again().texts()[0], "one");
}

#[test]
fn a_real_disk_holds_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&RealDisk::new(folder.path()), Model::default());
    for round in 0..60 {
        let text = format!("{round} {}", "x".repeat(round * 20));
        bench.say(&[&text, "short"]);
        let _ = bench.log.prewriter().step().unwrap();
    }
    bench.append(Vec::new(), 100);
    bench.log.close().unwrap();
    let model = bench.model.clone();
    let mut bench = bench.again();
    assert_eq!(bench.found, model.recovered(LogIndex(100)));
    assert_eq!(read_all(&mut bench.reader), model.entries);
    assert!(bench.report.segments > 3);
}

#[test]
fn a_log_that_ends_before_where_it_was_is_damaged() {
    let bench = three_segments();
    let end = bench.log.end();
    let options = Options {
        segment_size: SEGMENT,
        groups: vec![ROOT],
        reached: end,
        checkpoint: None,
    };
    let disk = bench.disk.copy();
    assert!(Log::open(disk, DIRECTORY, &options).is_ok());
    // The last segment is gone, and what is left looks whole.
    let disk = bench.disk.copy();
    disk.remove(&file_name(Lsn(2 * SEGMENT))).unwrap();
    let error = Log::open(disk, DIRECTORY, &options).unwrap_err();
    assert!(matches!(error, OpenError::Untrusted { .. }), "{error}");
    // All of it is gone: it isn't made anew.
    let disk = bench.disk.copy();
    for base in bases(&disk) {
        disk.remove(&file_name(base)).unwrap();
    }
    let error = Log::open(disk.clone(), DIRECTORY, &options).unwrap_err();
    assert!(
        error.to_string().starts_with("damaged: log/00000000000000000000.seg"),
        "{error}"
    );
    assert!(bases(&disk).is_empty());
}
