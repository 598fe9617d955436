//! What the leader gives up, and when.

use super::super::tests::config;
use super::*;

fn mark(index: u64, age_ms: u64, bytes_after: u64) -> Mark {
    Mark {
        index: LogIndex(index),
        age_ms,
        bytes_after,
    }
}

fn holdings() -> Holdings {
    Holdings {
        first: LogIndex(1),
        marks: vec![mark(10, 1_000, 900), mark(20, 2_000, 500), mark(30, 3_000, 100)],
    }
}

/// A state that has applied so much, and shows nothing up to there.
fn state(applied: u64, trimmed: u64) -> State {
    let mut state = State::new();
    (1..applied).for_each(|index| state.skip(LogIndex(index)));
    let index = LogIndex(trimmed);
    state.apply(LogIndex(applied), &Stamp::default(), &Command::Trim { index });
    state
}

fn due(retention: Retention, age_ms: u64, state: &State) -> Option<u64> {
    trim_due(retention, &holdings(), age_ms, state).map(|index| index.0)
}

#[test]
fn as_much_stays_as_the_size_says_and_nothing_that_is_no_checkpoint() {
    let state = state(40, 0);
    let size = |bytes| due(Retention::Size(bytes), 0, &state);
    assert_eq!(size(1_000), None);
    assert_eq!(size(900), Some(10));
    assert_eq!(size(501), Some(10));
    assert_eq!(size(500), Some(20));
    assert_eq!(size(0), Some(30));
    assert_eq!(due(Retention::Forever, u64::MAX, &state), None);
    assert_eq!(trim_due(Retention::Size(0), &Holdings::default(), 0, &state), None);
}

#[test]
fn what_is_older_than_the_age_says_is_given_up_and_the_leader_wakes_for_it() {
    let state = state(40, 0);
    let age = Retention::Age(Span::from_ms(60_000));
    assert_eq!(due(age, 60_999, &state), None);
    assert_eq!(next_trim(age, &holdings(), &state), Some(61_000));
    assert_eq!(due(age, 61_000, &state), Some(10));
    assert_eq!(due(age, 63_000, &state), Some(30));
    assert_eq!(next_trim(Retention::Size(1), &holdings(), &state), None);
    let endless = Retention::Age(Span(u64::MAX));
    assert_eq!(due(endless, 1 << 50, &state), None);
}

#[test]
fn what_is_given_up_is_not_given_up_again() {
    let all = Retention::Size(0);
    let age = Retention::Age(Span::from_ms(60_000));
    assert_eq!(due(all, 0, &state(40, 20)), Some(30));
    assert_eq!(due(Retention::Size(500), 0, &state(40, 20)), None);
    assert_eq!(due(age, 62_000, &state(40, 20)), None);
    assert_eq!(next_trim(age, &holdings(), &state(40, 20)), Some(63_000));
    assert_eq!(due(all, 0, &state(40, 30)), None);
    assert_eq!(next_trim(age, &holdings(), &state(40, 30)), None);
    // A checkpoint of what isn't applied here: the command would come to less, again and again.
    assert_eq!(due(all, 0, &state(25, 0)), Some(20));
}

#[test]
fn what_only_a_leader_may_give_is_not_taken_from_another_server() {
    assert!(is_leaders(&Command::Trim { index: LogIndex(1) }));
    assert!(is_leaders(&Command::ForgetKeys));
    let server = crate::types::ServerId::new("server1").unwrap();
    assert!(!is_leaders(&Command::Touch {
        server,
        sessions: Vec::new()
    }));
}

#[test]
fn a_leader_with_nothing_else_to_do_wakes_for_the_age_of_its_log() {
    let age = Retention::Age(Span::from_ms(60_000));
    let desk = Desk {
        stamp: Stamp {
            age_ms: 60_900,
            ..Stamp::default()
        },
        aged: Tick::from_ms(5_000),
        proposed: LogIndex(0),
    };
    let office = Office {
        desk: Some(desk),
        ..Office::default()
    };
    let wakes =
        |retention, holdings: &Holdings, trimmed| office.deadline(&config(retention), &state(40, trimmed), holdings);
    assert_eq!(wakes(age, &holdings(), 0), Some(Tick::from_ms(5_100)));
    // Age advances by a bounded step, so the clock is looked at before the next is due.
    assert_eq!(wakes(age, &holdings(), 10), Some(Tick::from_ms(6_000)));
    assert_eq!(wakes(age, &holdings(), 30), None);
    assert_eq!(wakes(Retention::Size(0), &holdings(), 0), None);
}
