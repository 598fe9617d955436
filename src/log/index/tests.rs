//! What the index promises.

use super::*;

const ROOT: GroupId = GroupId::ROOT;

#[test]
fn an_entry_voids_what_was_at_its_index_and_above() {
    let mut index = EntryIndex::default();
    for i in 1..=8 {
        index.put(ROOT, LogIndex(i), Lsn(i * 80));
    }
    index.put(GroupId(1), LogIndex(1), Lsn(1000));
    index.put(ROOT, LogIndex(5), Lsn(2000));
    assert_eq!(index.find(ROOT, LogIndex(4)), Some(Lsn(320)));
    assert_eq!(index.find(ROOT, LogIndex(5)), Some(Lsn(2000)));
    assert_eq!(index.find(ROOT, LogIndex(6)), None);
    assert_eq!(index.find(GroupId(1), LogIndex(1)), Some(Lsn(1000)));
}

#[test]
fn a_range_is_without_gaps_and_bounded() {
    let mut index = EntryIndex::default();
    for i in 1..=300 {
        index.put(ROOT, LogIndex(i), Lsn(i * 80));
    }
    let range = |from, to, count| index.range(ROOT, LogIndex(from), LogIndex(to), count);
    assert_eq!(range(299, 310, 50), [Lsn(299 * 80), Lsn(300 * 80)]);
    assert_eq!(range(10, 100, 2), [Lsn(800), Lsn(880)]);
    assert!(range(0, 100, 50).is_empty());
    assert!(range(301, 400, 50).is_empty());
    assert!(range(20, 10, 50).is_empty());
    assert!(index.range(GroupId(9), LogIndex(1), LogIndex(2), 9).is_empty());
    assert_eq!(range(300, u64::MAX - 1, 50), [Lsn(300 * 80)]);
}

#[test]
fn a_position_belongs_to_the_segment_around_it() {
    let mut index = EntryIndex::default();
    let (a, b) = (
        Segment {
            base: Lsn(0),
            size: 100,
        },
        Segment {
            base: Lsn(200),
            size: 50,
        },
    );
    index.put_segment(a);
    index.put_segment(b);
    assert_eq!(index.segment_of(Lsn(99)), Some(a));
    assert_eq!(index.segment_of(Lsn(100)), None);
    assert_eq!(index.segment_of(Lsn(200)), Some(b));
    assert_eq!(index.segment_of(Lsn(250)), None);
}

fn segment(number: u64) -> Segment {
    Segment {
        base: Lsn(number * 10_000),
        size: 10_000,
    }
}

fn sealed(number: u64, first: u64, last: u64) -> Sealed {
    Sealed {
        segment: segment(number),
        group: ROOT,
        first: LogIndex(first),
        last: LogIndex(last),
    }
}

/// Three segments of a hundred entries each.
fn three() -> EntryIndex {
    let mut index = EntryIndex::default();
    for number in 0..3 {
        index.put_segment(segment(number));
        for i in 1..=100 {
            index.put(ROOT, LogIndex(number * 100 + i), Lsn(number * 10_000 + i * 80));
        }
    }
    index
}

#[test]
fn the_next_segment_to_be_sealed_begins_behind_the_last_that_was() {
    // Places leave memory in blocks, and no segment ends where a block does.
    let mut index = three();
    assert_eq!(index.unsealed(ROOT), Some((segment(0), LogIndex(1), LogIndex(100))));
    index.sealed(sealed(0, 1, 100), 0);
    assert_eq!(index.unsealed(ROOT), Some((segment(1), LogIndex(101), LogIndex(200))));
    index.sealed(sealed(1, 101, 200), 0);
    assert_eq!(index.unsealed(ROOT), None);
}

fn look(index: &EntryIndex, from: u64, count: usize) -> Lookup {
    index.look(ROOT, LogIndex(from), LogIndex(u64::MAX), count)
}

#[test]
fn a_sealed_segment_leaves_memory_and_is_found_by_its_file() {
    let mut index = three();
    index.sealed(sealed(0, 1, 100), 0);
    index.sealed(sealed(1, 101, 200), 0);
    assert_eq!(look(&index, 7, 9), Lookup::Sealed(sealed(0, 1, 100), BTreeMap::new()));
    assert_eq!(
        look(&index, 101, 9),
        Lookup::Sealed(sealed(1, 101, 200), BTreeMap::new())
    );
    assert_eq!(look(&index, 299, 9), Lookup::Places(vec![Lsn(27_920), Lsn(28_000)]));
    assert_eq!(look(&index, 301, 9), Lookup::Nothing);
    assert_eq!(look(&index, 0, 9), Lookup::Nothing);
    assert_eq!(
        (index.first(ROOT), index.last_sealed(ROOT)),
        (LogIndex(1), Some(LogIndex(200)))
    );
    // As recovery does it: what is sealed first, then what it walks.
    let mut again = EntryIndex::default();
    again.sealed(sealed(0, 1, 100), 0);
    again.sealed(sealed(1, 101, 200), 0);
    again.put(ROOT, LogIndex(201), Lsn(20_080));
    assert_eq!(
        look(&again, 200, 9),
        Lookup::Sealed(sealed(1, 101, 200), BTreeMap::new())
    );
    assert_eq!(look(&again, 201, 9), Lookup::Places(vec![Lsn(20_080)]));
    assert_eq!(again.segments(), [segment(0), segment(1)]);
    assert_eq!(
        again.sealed_after(ROOT, LogIndex(99)),
        [sealed(0, 1, 100), sealed(1, 101, 200)]
    );
    assert_eq!(again.sealed_after(ROOT, LogIndex(100)), [sealed(1, 101, 200)]);
}

#[test]
fn a_fill_replaces_one_place_and_a_loss_stops_a_range() {
    let mut index = three();
    index.lose(ROOT, LogIndex(210));
    index.lose(ROOT, LogIndex(211));
    index.lose(ROOT, LogIndex(213));
    assert_eq!(look(&index, 209, 9), Lookup::Places(vec![Lsn(20_720)]));
    assert_eq!(
        look(&index, 210, 9),
        Lookup::Holes(vec![LogIndex(210), LogIndex(211)], Lsn(20_800))
    );
    assert_eq!(look(&index, 210, 1), Lookup::Holes(vec![LogIndex(210)], Lsn(20_800)));
    index.fill(ROOT, LogIndex(211), Lsn(29_000));
    assert_eq!(look(&index, 211, 9), Lookup::Places(vec![Lsn(29_000), Lsn(20_960)]));
    assert_eq!(
        SharedIndex::new(index.clone()).holes(ROOT),
        [LogIndex(210), LogIndex(213)]
    );
    // What voids an entry voids what was said of it.
    index.put(ROOT, LogIndex(210), Lsn(29_104));
    assert_eq!(look(&index, 210, 9), Lookup::Places(vec![Lsn(29_104)]));
    assert_eq!(look(&index, 213, 9), Lookup::Nothing);
    // A hole at the end, as a walk finds it.
    index.lose(ROOT, LogIndex(211));
    index.put(ROOT, LogIndex(212), Lsn(29_200));
    assert_eq!(look(&index, 211, 9), Lookup::Holes(vec![LogIndex(211)], Lsn(29_104)));
    assert_eq!(look(&index, 212, 9), Lookup::Places(vec![Lsn(29_200)]));
}

#[test]
fn a_fill_behind_an_index_file_is_kept_until_the_file_knows_of_it() {
    let mut index = three();
    index.sealed(sealed(0, 1, 100), 0);
    index.lose(ROOT, LogIndex(5));
    index.fill(ROOT, LogIndex(7), Lsn(29_000));
    let changed = BTreeMap::from([(LogIndex(5), None), (LogIndex(7), Some(Lsn(29_000)))]);
    assert_eq!(look(&index, 1, 300), Lookup::Sealed(sealed(0, 1, 100), changed));
    assert_eq!(index.stale(), [sealed(0, 1, 100)]);
    let as_of = index.changes();
    index.fill(ROOT, LogIndex(5), Lsn(29_104));
    index.sealed(sealed(0, 1, 100), as_of);
    // The fill came after the places for the file were read.
    let changed = BTreeMap::from([(LogIndex(5), Some(Lsn(29_104)))]);
    assert_eq!(look(&index, 1, 300), Lookup::Sealed(sealed(0, 1, 100), changed));
    index.sealed(sealed(0, 1, 100), index.changes());
    assert_eq!(look(&index, 1, 300), Lookup::Sealed(sealed(0, 1, 100), BTreeMap::new()));
    assert!(index.stale().is_empty());
}

#[test]
fn what_was_removed_is_not_there() {
    let mut index = three();
    index.sealed(sealed(0, 1, 100), 0);
    index.remove_before(Lsn(10_000));
    assert_eq!(index.first(ROOT), LogIndex(101));
    assert_eq!(look(&index, 100, 9), Lookup::Nothing);
    assert_eq!(look(&index, 101, 1), Lookup::Places(vec![Lsn(10_080)]));
    assert_eq!(index.segments(), [segment(1), segment(2)]);
    // Without an index file too.
    index.remove_before(Lsn(20_000));
    assert_eq!(index.first(ROOT), LogIndex(201));
    assert_eq!(look(&index, 200, 9), Lookup::Nothing);
    assert_eq!(look(&index, 201, 1), Lookup::Places(vec![Lsn(20_080)]));
    index.remove_before(Lsn(30_000));
    assert_eq!(index.first(ROOT), LogIndex(301));
    assert_eq!(look(&index, 300, 9), Lookup::Nothing);
    index.put(ROOT, LogIndex(301), Lsn(30_000));
    assert_eq!(look(&index, 301, 9), Lookup::Places(vec![Lsn(30_000)]));
}

#[test]
fn a_log_that_begins_behind_a_checkpoint_has_nothing_before() {
    let mut index = three();
    index.sealed(sealed(0, 1, 100), 0);
    index.begin(ROOT, LogIndex(5000));
    assert_eq!((index.first(ROOT), index.last_sealed(ROOT)), (LogIndex(5001), None));
    assert_eq!(look(&index, 50, 9), Lookup::Nothing);
    // An index file that was being written comes too late.
    index.sealed(sealed(1, 101, 200), 0);
    assert_eq!((index.first(ROOT), index.last_sealed(ROOT)), (LogIndex(5001), None));
    index.put(ROOT, LogIndex(5001), Lsn(30_000));
    index.remove_before(Lsn(30_000));
    assert_eq!(look(&index, 5001, 9), Lookup::Places(vec![Lsn(30_000)]));
    assert_eq!(index.first(ROOT), LogIndex(5001));
}

#[test]
fn a_segment_without_live_entries_changes_nothing() {
    let mut index = three();
    index.sealed(sealed(0, 1, 100), 0);
    index.sealed(sealed(1, 101, 100), 0);
    assert_eq!(look(&index, 100, 9), Lookup::Sealed(sealed(0, 1, 100), BTreeMap::new()));
    assert_eq!(index.last_sealed(ROOT), Some(LogIndex(100)));
    assert_eq!(index.find(ROOT, LogIndex(300)), Some(Lsn(28_000)));
    index.remove_before(Lsn(20_000));
    assert_eq!(index.find(ROOT, LogIndex(300)), Some(Lsn(28_000)));
}

#[test]
fn a_lost_index_file_is_remembered_until_it_is_made_anew() {
    let shared = SharedIndex::new(three());
    shared.lost_index(segment(0));
    assert!(shared.indexes_lost().is_empty(), "it has none");
    shared.write().sealed(sealed(0, 1, 100), 0);
    shared.lost_index(segment(0));
    assert_eq!(shared.indexes_lost(), [segment(0)]);
    shared.write().sealed(sealed(0, 1, 100), 0);
    assert!(shared.indexes_lost().is_empty());
}

#[test]
fn memory_does_not_grow_with_history() {
    let mut index = EntryIndex::default();
    let mut first = 1;
    for number in 0..1000 {
        index.put_segment(segment(number));
        for i in 0..1000 {
            index.put(ROOT, LogIndex(first + i), Lsn(number * 10_000 + i * 8));
        }
        index.sealed(sealed(number, first, first + 999), 0);
        first += 1000;
    }
    // A million entries in a thousand segments.
    assert!(index.memory() < 150_000, "{} bytes", index.memory());
}

#[test]
fn the_next_segment_without_an_index_begins_where_the_last_one_with_one_ends() {
    let mut index = EntryIndex::default();
    let segments = [0, 800, 1600, 2400].map(|base| Segment {
        base: Lsn(base),
        size: 800,
    });
    segments.iter().for_each(|&segment| index.put_segment(segment));
    for i in 1..=35 {
        index.put(ROOT, LogIndex(i), Lsn(i * 80 - 80));
    }
    for (number, first, last) in [(0, 1, 10), (1, 11, 20), (2, 21, 30)] {
        let next = index.unsealed(ROOT);
        assert_eq!(next, Some((segments[number], LogIndex(first), LogIndex(last))));
        let sealed = Sealed {
            segment: segments[number],
            group: ROOT,
            first: LogIndex(first),
            last: LogIndex(last),
        };
        index.sealed(sealed, 0);
    }
    assert_eq!(index.unsealed(ROOT), None);
}
