//! What is damaged is found, said, set aside or made anew.

use super::*;
use crate::types::Span;

#[test]
fn a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let house = House::with_checkpoints(3);
    let marks = house.marks();
    let newest = file_name(LogIndex(marks[2]));
    let size = house.disk.contents(&newest).unwrap().len() as u64;
    let live = house.live.clone();
    house.disk.kill();
    for offset in [0, 13, 40, 130, size / 2, size - 1] {
        let disk = house.disk.copy();
        assert!(disk.flip_bit(&newest, offset, 3));
        let mut house = House::open(&disk, HERE);
        assert_eq!(house.notes.len(), 1, "{offset}: {:?}", house.notes);
        assert!(house.notes[0].contains(&newest), "{:?}", house.notes);
        assert_eq!(house.begun, LogIndex(marks[1]), "{offset}");
        assert_eq!((house.live.clone(), house.marks()), (live.clone(), marks[..2].to_vec()));
        house.make();
        assert_eq!(house.marks(), marks);
    }
}

#[test]
fn a_checkpoint_that_is_damaged_while_it_is_needed_is_set_aside_and_the_one_before_is_used() {
    let mut house = House::with_checkpoints(3);
    let marks = house.marks();
    assert!(house.disk.flip_bit(&file_name(LogIndex(marks[2])), 150, 0));
    house.say("after it");
    let said = house.try_make();
    assert!(said_error(&said, "ckpt"), "{said:?}");
    assert!(said.iter().any(|kept| matches!(kept, Kept::Made { .. })), "{said:?}");
    assert_eq!(house.marks(), [marks[0], marks[1], house.live.applied().0]);
}

#[test]
fn an_index_file_that_is_lost_or_damaged_is_made_anew_from_the_segment() {
    let mut house = House::with_checkpoints(4);
    let (history, live) = (house.history(), house.live.clone());
    let indexes = house.log_files(".idx");
    assert!(indexes.len() >= 4);
    let entries = house.entries(LogIndex(1)).len();
    house.disk.kill();
    for which in 0..indexes.len() {
        let file = format!("log/{:020}.idx", indexes[which].0);
        let size = house.disk.contents(&file).unwrap().len() as u64;
        for damage in [None, Some(0), Some(20), Some(size / 2), Some(size - 1)] {
            let disk = house.disk.copy();
            match damage {
                None => disk.remove(&file).unwrap(),
                Some(offset) => assert!(disk.flip_bit(&file, offset, 1)),
            }
            let what = format!("{file} {damage:?}");
            let mut other = House::open(&disk, HERE);
            assert_eq!(other.live, live, "{what}");
            // Read before: what is found to be lost is made anew; either way it is found in the end.
            let _ = other.history_from(1);
            for _ in 0..indexes.len() + other.marks().len() + 3 {
                other.work();
            }
            other.say("so that there is something new");
            other.make();
            assert_eq!(other.log_files(".idx"), indexes, "{what}");
            let found = other.history();
            assert_eq!(found[..history.len()], history, "{what}");
            let mut other = other.again();
            assert_eq!(other.history(), found, "{what}");
            assert_eq!(other.entries(LogIndex(1)).len(), entries + 1, "{what}");
            other.work();
            assert!(
                crate::log::sealed::SealedFile::open(&disk, HERE, segment(indexes[which]))
                    .unwrap()
                    .verify()
                    .is_ok()
            );
        }
    }
}

fn segment(base: Lsn) -> crate::log::segment::Segment {
    crate::log::segment::Segment { base, size: SEGMENT }
}

/// Lets the housekeeper look at everything once.
fn look(house: &mut House) -> Vec<Kept> {
    (0..200).flat_map(|_| house.work()).collect()
}

#[test]
fn a_flipped_bit_in_an_old_segment_is_found_and_its_entry_named() {
    for sealed in [false, true] {
        let mut house = House::new(HERE);
        house.fill_segments(3);
        let index = LogIndex(30);
        let place = house.log.index().read().find(ROOT, index).unwrap();
        let file = house.log.index().read().segment_of(place).unwrap();
        assert!(file.base > Lsn(0) && file.base < house.log.segment().base);
        let (history, entries) = (house.history(), house.entries(LogIndex(1)));
        let chains = entries.iter().scan(0, |so_far, e| {
            *so_far = chain(*so_far, e.term, e.index, e.kind, &e.payload);
            Some(*so_far)
        });
        let chains: Vec<u32> = chains.collect();
        if sealed {
            house.make();
        }
        assert!(said_damaged(&look(&mut house)).is_empty());
        assert!(house.disk.flip_bit(&file.file(), place.0 - file.base.0 + 200, 5));
        let said = look(&mut house);
        assert_eq!(said_damaged(&said), [index], "sealed: {sealed}, {said:?}");
        assert!(house.history_from(1).is_err());
        // Another server has it: all is as before, and stays so.
        let entry = entries[index.0 as usize - 1].clone();
        let chain = chains[index.0 as usize - 1];
        house.append(vec![Record::Fill {
            group: ROOT,
            entry,
            chain,
        }]);
        house.work();
        assert_eq!(house.history(), history);
        house.make();
        assert_eq!(house.history(), history);
        let mut house = house.again();
        assert_eq!(house.history(), history);
        assert!(said_damaged(&look(&mut house)).is_empty());
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_that_nobody_reads_is_found() {
    let mut house = House::with_checkpoints(3);
    let marks = house.marks();
    assert!(house.disk.flip_bit(&file_name(LogIndex(marks[1])), 150, 5));
    let said = look(&mut house);
    assert!(said_error(&said, "ckpt"), "{said:?}");
    assert_eq!(house.marks(), [marks[0], marks[2]]);
    let told = said.iter().rev().find_map(|kept| match kept {
        Kept::Holdings(Holdings { marks, .. }) => Some(marks.len()),
        _ => None,
    });
    assert_eq!(told, Some(2));
}

#[test]
fn a_look_at_many_short_segments_takes_no_longer_than_it_may() {
    const PERIOD: Span = Span::from_ms(60_000);
    let mut house = House::new(HERE);
    house.fill_segments(20);
    house.make();
    let last = *house.log_files(".idx").last().unwrap();
    house.keeper.scrub_within(PERIOD);
    assert!(house.disk.flip_bit(&segment(last).file(), SEGMENT / 2, 5));
    let mut rested = 0;
    while rested <= 2 * PERIOD.0 {
        if let Step::Rest(span) = house.keeper.step().unwrap() {
            rested += span.0;
        }
        let said: Vec<Kept> = std::iter::from_fn(|| house.keeper.answer()).collect();
        if !said_damaged(&said).is_empty() {
            break;
        }
    }
    // The look begins with the first step, and the segment is the last that it comes to.
    assert!(
        rested > PERIOD.0 / 2 && rested <= PERIOD.0,
        "damage was found after {rested} of {}",
        PERIOD.0
    );
}
