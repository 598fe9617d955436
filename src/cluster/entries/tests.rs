//! What is in memory of a log, at its edges.

use super::*;
use crate::cluster::message::EntryKind;
use crate::types::Blob;

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Command,
        payload: Blob::new(&index.to_le_bytes()),
    }
}

fn log(terms: &[u64]) -> Entries {
    let mut log = Entries::new(&Recovered::default());
    for (at, &term) in terms.iter().enumerate() {
        log.append(entry(at as u64 + 1, term));
    }
    log
}

#[test]
fn a_cut_log_is_the_shorter_log() {
    let mut cut = log(&[1, 2, 2, 5, 5]);
    cut.truncate(LogIndex(2));
    assert_eq!(cut, log(&[1, 2]));
    cut.append(entry(3, 6));
    assert_eq!(cut, log(&[1, 2, 6]));
}

#[test]
fn the_hint_skips_whole_terms() {
    let log = log(&[1, 1, 4, 4, 7]);
    let at = |index, term| log.agreeable(LogIndex(index), Term(term)).index.0;
    assert_eq!((at(9, 9), at(9, 6), at(3, 6), at(5, 3), at(1, 0)), (5, 4, 3, 2, 0));
}

#[test]
fn the_check_survives_leaving_the_cache_but_not_a_cut_below_it() {
    let whole = log(&[1, 1, 2]);
    let recovered = Recovered {
        last: whole.last(),
        last_chain: whole.chain_at(LogIndex(3)).unwrap(),
        terms: whole.terms.clone(),
        ..Recovered::default()
    };
    let mut restarted = Entries::new(&recovered);
    assert_eq!(restarted.chain_at(LogIndex(3)), whole.chain_at(LogIndex(3)));
    restarted.truncate(LogIndex(2));
    assert_eq!(restarted.chain_at(LogIndex(2)), None);
    restarted.adopt_chain(LogIndex(2), whole.chain_at(LogIndex(2)).unwrap());
    restarted.append(entry(3, 2));
    assert_eq!(restarted.chain_at(LogIndex(3)), whole.chain_at(LogIndex(3)));
}

fn recovered(terms: &[u64], start: u64, holes: &[(u64, Option<u64>)]) -> Entries {
    let whole = log(terms);
    let hole = |&(index, term): &(u64, Option<u64>)| Hole {
        index: LogIndex(index),
        term: term.map(Term),
    };
    Entries::new(&Recovered {
        base: whole.position(LogIndex(start)).unwrap(),
        last: whole.last(),
        last_chain: whole.chain_at(whole.last().index).unwrap(),
        terms: whole.terms.clone(),
        holes: holes.iter().map(hole).collect(),
        ..Recovered::default()
    })
}

#[test]
fn what_is_before_the_start_is_not_known() {
    let mut log = recovered(&[1, 1, 4, 4, 7], 3, &[]);
    let terms: Vec<_> = (0..7).map(|at| log.term_at(LogIndex(at)).map(|term| term.0)).collect();
    assert_eq!(terms, [None, None, None, Some(4), Some(4), Some(7), None]);
    let at = |log: &Entries, index, term| log.agreeable(LogIndex(index), Term(term)).index.0;
    assert_eq!((at(&log, 9, 6), at(&log, 3, 6), at(&log, 9, 3)), (4, 3, 0));
    assert!(log.kept_from(LogIndex(6)) && !log.kept_from(LogIndex(5)));
    assert_eq!((log.start().index.0, log.last().index.0, log.first().0), (5, 5, 6));
    log.append(entry(6, 7));
    assert!(log.kept_from(LogIndex(7)));
    assert_eq!((log.start(), log.get(LogIndex(6))), (log.last(), None));
}

#[test]
fn the_term_of_a_hole_is_known_only_where_it_is_certain() {
    let mut log = recovered(&[1, 1, 1, 4, 7, 7], 0, &[(2, None), (3, None), (4, None), (6, None)]);
    let terms = |log: &Entries| {
        (2..=6)
            .map(|at| log.term_at(LogIndex(at)).map(|term| term.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(terms(&log), [None, None, None, Some(7), Some(7)]);
    assert_eq!(log.certain_from(LogIndex(2)), (LogIndex(5), Term(7)));
    log.fill(&entry(4, 4));
    log.fill(&entry(3, 4));
    assert_eq!(log.missing(LogIndex(9)), Some((LogIndex(2), LogIndex(2))));
    log.fill(&entry(2, 1));
    assert_eq!(terms(&log), [Some(1), Some(4), Some(4), Some(7), Some(7)]);
    for index in [2, 3, 4, 6] {
        log.filled(LogIndex(index));
    }
    assert_eq!(terms(&log), [Some(1), Some(4), Some(4), Some(7), Some(7)]);
    assert_eq!(
        recovered(&[1, 2, 2, 2], 0, &[(3, None)]).term_at(LogIndex(3)),
        Some(Term(2))
    );
}

#[test]
fn a_log_that_begins_behind_a_checkpoint_goes_on_with_its_check() {
    let mut whole = log(&[1, 1, 4]);
    let at = whole.last();
    let mut other = log(&[1, 1, 2, 2, 2]);
    other.begin_at(at, whole.chain_at(at.index).unwrap());
    assert_eq!((other.start(), other.last(), other.first().0), (at, at, 4));
    whole.append(entry(4, 4));
    other.append(entry(4, 4));
    assert_eq!(other.chain_at(LogIndex(4)), whole.chain_at(LogIndex(4)));
}

#[test]
fn the_cache_keeps_what_is_not_applied_or_not_durable() {
    let mut log = Entries::new(&Recovered::default());
    let big = Blob::new(&vec![0; 1 << 20]);
    for index in 1..=20 {
        log.append(Entry {
            payload: big.clone(),
            ..entry(index, 1)
        });
    }
    log.shrink(LogIndex(20), LogIndex(0), LogIndex(20));
    assert_eq!(log.first(), LogIndex(1));
    log.shrink(LogIndex(2), LogIndex(20), LogIndex(20));
    assert_eq!(log.first(), LogIndex(3));
    log.shrink(LogIndex(20), LogIndex(20), LogIndex(20));
    assert!(log.bytes <= limits::ENTRY_CACHE_BYTES_MAX && log.first() <= LogIndex(7));
    assert_eq!(log.term_at(LogIndex(1)), Some(Term(1)));
}
