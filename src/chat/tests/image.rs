//! The state as rows: nothing is lost on the way, and no rows make a state that isn't sound.

use super::random::{check, random_command, random_stamp};
use super::*;
use crate::rng::Rng;
use std::sync::Arc;

fn build(rows: impl IntoIterator<Item = Row>) -> Result<State, ImageError> {
    let mut builder = Builder::new();
    for row in rows {
        builder.take(row)?;
    }
    builder.finish()
}

/// Goes on with a random history for so many entries.
fn go_on(rng: &mut Rng, state: &mut State, age_ms: &mut u64, entries: u64) {
    for _ in 0..entries {
        let index = state.applied().next();
        if rng.chance(2) {
            state.skip(index);
            continue;
        }
        let stamp = random_stamp(rng, age_ms);
        let due = state.due(state.clock().age_ms, 1).pop().filter(|_| rng.chance(20));
        let command = due.unwrap_or_else(|| random_command(rng, state));
        state.apply(index, &stamp, &command);
    }
}

fn history(rng: &mut Rng, entries: u64) -> (State, u64) {
    let (mut state, mut age_ms) = (State::new(), 0);
    state.skip(LogIndex(1));
    go_on(rng, &mut state, &mut age_ms, entries);
    (state, age_ms)
}

#[test]
fn a_state_of_rows_is_the_state_and_goes_on_as_it_would() {
    assert_eq!(build(State::new().rows()), Ok(State::new()));
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (mut state, mut age_ms) = history(&mut rng, 20);
        for _ in 0..20 {
            go_on(&mut rng, &mut state, &mut age_ms, 30);
            let again = build(state.rows());
            assert_eq!(again.as_ref(), Ok(&state), "seed {seed}");
            assert!(again.is_ok_and(|again| again.rows().eq(state.rows())));
        }
    }
}

#[test]
fn a_name_is_in_memory_once_after_rows_as_before() {
    let mut log = Log::new();
    let ann = log.open("Ann", 1);
    log.join(ann, "lobby");
    let again = build(log.state.rows()).unwrap();
    for state in [&log.state, &again] {
        let (session, room) = (state.session(ann).unwrap(), state.room(RoomId::LOBBY).unwrap());
        assert!(Arc::ptr_eq(&room.name.shown, &room.name.folded));
        let Some(Outcome::Room { name: told, topic, .. }) = session.outcome(session.last) else {
            panic!("no outcome");
        };
        assert!(Arc::ptr_eq(told, &room.name.shown) && Arc::ptr_eq(topic, &room.topic));
        let held = state.names.named("ann").unwrap();
        assert!(Arc::ptr_eq(&held.folded, &session.name.folded));
        assert!(Arc::ptr_eq(&held.shown, &session.name.shown));
    }
}

#[test]
fn a_session_with_all_its_outcomes_and_a_full_room_fit_in_rows() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    for _ in 0..=limits::SESSION_RESULTS_MAX {
        log.say(ann, LOBBY, "x");
    }
    for n in 0..600 {
        let id = log.open(&format!("user{n}"), 2);
        // The secrets of `open` are one byte; these people need one each.
        if n == 0 {
            log.close(id);
        }
        let command = Command::Open {
            name: name(&format!("user{n}")),
            key: key(2),
            secret: SecretHash(u128::from(n as u32 + 1000).to_le_bytes()),
            lamport: Lamport(0),
        };
        let Answer::Opened { result: Ok(id), .. } = log.apply(&command).result else {
            panic!("it is free");
        };
        log.join(id, "lobby");
    }
    let rows: Vec<Row> = log.state.rows().collect();
    let outcomes = rows.iter().filter(|row| matches!(row, Row::Outcomes(_))).count();
    let members = rows.iter().filter(|row| matches!(row, Row::Members { .. })).count();
    assert!(outcomes >= limits::SESSION_RESULTS_MAX / limits::IMAGE_OUTCOMES_MAX);
    assert_eq!(members, 3);
    assert_eq!(build(rows), Ok(log.state));
}

/// Makes the rows wrong in one place, perhaps in a way that doesn't matter.
fn spoil(rng: &mut Rng, rows: &mut Vec<Row>) {
    let at = rng.below(rows.len() as u64) as usize;
    let other = rng.below(rows.len() as u64) as usize;
    match rng.below(5) {
        0 => drop(rows.remove(at)),
        1 => rows.insert(at, rows[other].clone()),
        2 => rows.swap(at, other),
        _ => spoil_row(rng, &mut rows[at]),
    }
}

fn spoil_number(rng: &mut Rng, number: &mut u64) {
    *number = match rng.below(4) {
        0 => rng.draw(),
        1 => rng.below(8),
        2 => number.wrapping_add(1),
        _ => number.wrapping_sub(1),
    };
}

fn spoil_name(rng: &mut Rng, name: &mut Name) {
    match rng.below(3) {
        0 => name.folded = rng.pick(&["ann", "bob", "x", ""]).copied().unwrap_or("ann").into(),
        // How a name is shown is free, only its length isn't.
        1 => name.shown = "y".repeat(rng.between(65, 100) as usize).into(),
        _ => name.folded = "y".repeat(rng.below(100) as usize).into(),
    }
}

fn spoil_names(rng: &mut Rng, names: &mut Vec<Name>) {
    match rng.below(3) {
        0 => names.clear(),
        1 => names.extend(names.clone()),
        _ => {
            let at = rng.below(names.len() as u64) as usize;
            spoil_name(rng, &mut names[at]);
        }
    }
}

fn spoil_row(rng: &mut Rng, row: &mut Row) {
    match row {
        Row::Head {
            applied,
            trimmed,
            clock,
            messages,
            ..
        } => match rng.below(4) {
            0 => spoil_number(rng, &mut applied.0),
            1 => spoil_number(rng, &mut trimmed.0),
            2 => spoil_number(rng, &mut clock.age_ms),
            _ => spoil_number(rng, messages),
        },
        Row::Room {
            id,
            name,
            topic,
            position,
            seq,
        } => match rng.below(5) {
            0 => spoil_number(rng, &mut id.0),
            1 => spoil_name(rng, name),
            2 => *topic = "t".repeat(rng.below(2000) as usize).into(),
            3 => spoil_number(rng, &mut position.0),
            _ => spoil_number(rng, &mut seq.0),
        },
        Row::Session {
            id,
            name,
            key,
            secret,
            last,
            named,
            heard_ms,
            rooms,
        } => match rng.below(8) {
            0 => spoil_number(rng, &mut id.0),
            1 => spoil_name(rng, name),
            2 => key.0[0] = key.0[0].wrapping_add(1),
            3 => secret.0 = [rng.below(12) as u8; 16],
            4 => spoil_number(rng, &mut last.0),
            5 => *named = !*named,
            6 => spoil_number(rng, heard_ms),
            _ => rooms.extend([RoomId(1), RoomId(rng.below(9))]),
        },
        Row::Outcomes(outcomes) => match rng.below(2) {
            0 => outcomes.clear(),
            _ => outcomes.extend(outcomes.clone()),
        },
        Row::Members { room, names } => match rng.below(2) {
            0 => spoil_number(rng, &mut room.0),
            _ => spoil_names(rng, names),
        },
        Row::Names(names) => spoil_names(rng, names),
        Row::Keys(keys) => match rng.below(4) {
            0 => keys.clear(),
            1 => keys.extend(keys.clone()),
            2 => spoil_number(rng, &mut keys[0].0),
            _ => spoil_number(rng, &mut keys[0].3.position.0),
        },
    }
}

#[test]
fn whatever_rows_say_a_state_that_comes_of_them_is_sound_and_goes_on() {
    let (mut refused, mut built) = (0, 0);
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let (state, mut age_ms) = history(&mut rng, 400);
        let rows: Vec<Row> = state.rows().collect();
        for _ in 0..40 {
            let mut spoilt = rows.clone();
            for _ in 0..=rng.below(2) {
                if !spoilt.is_empty() {
                    spoil(&mut rng, &mut spoilt);
                }
            }
            let Ok(mut state) = build(spoilt) else {
                refused += 1;
                continue;
            };
            built += 1;
            check(&state);
            assert_eq!(build(state.rows()).as_ref(), Ok(&state));
            // A history that has used up all indexes or ages ends here.
            if state.applied().0 < u64::MAX / 2 && state.clock().age_ms < u64::MAX / 2 {
                go_on(&mut rng, &mut state, &mut age_ms, 30);
                check(&state);
            }
        }
    }
    assert!(refused > 400 && built > 100, "{refused} refused, {built} built");
}

#[test]
fn after_an_error_nothing_comes_of_the_rows() {
    let mut builder = Builder::new();
    assert_eq!(Builder::new().finish(), Err(ImageError::Missing("the head")));
    assert!(builder.take(Row::Names(vec![name("ann")])).is_err());
    for row in State::new().rows() {
        assert_eq!(builder.take(row), Err(ImageError::Order("a kind of rows")));
    }
    assert_eq!(builder.finish(), Err(ImageError::Order("a kind of rows")));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    log.join(ann, "lobby");
    log.say(ann, LOBBY, "x");
    let rows: Vec<Row> = log.state.rows().collect();
    let spoilt = |spoil: &dyn Fn(&mut Row)| {
        let mut rows = rows.clone();
        rows.iter_mut().for_each(spoil);
        build(rows)
    };
    let twice: Vec<Row> = rows.iter().flat_map(|row| [row.clone(), row.clone()]).collect();
    assert!(matches!(build(twice), Err(ImageError::Order(_))));
    let nobody = spoilt(&|row| {
        if let Row::Session { rooms, .. } = row {
            rooms.clear();
        }
    });
    assert_eq!(nobody, Err(ImageError::Contradiction("a member without a session")));
    let nameless = spoilt(&|row| {
        if let Row::Session { named, .. } = row {
            *named = false;
        }
    });
    assert_eq!(
        nameless,
        Err(ImageError::Contradiction("a session without a name in a room"))
    );
    let ahead = spoilt(&|row| {
        if let Row::Session { last, .. } = row {
            last.0 = u64::MAX;
        }
    });
    assert_eq!(ahead, Err(ImageError::Contradiction("a session ahead of the log")));
    let unshown = build(rows.iter().filter(|row| !matches!(row, Row::Members { .. })).cloned());
    assert_eq!(unshown, Err(ImageError::Missing("how a member is shown")));
    let more = spoilt(&|row| {
        if let Row::Head { messages, .. } = row {
            *messages += 1;
        }
    });
    assert_eq!(more, Err(ImageError::Contradiction("the number of all messages")));
}
