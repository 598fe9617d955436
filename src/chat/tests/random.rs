//! Random histories: they find what no list of cases would.

use super::*;
use crate::rng::Rng;
use std::collections::BTreeMap;

/// Mostly sensible commands of few sessions, names, rooms and keys, so that they meet; some senseless ones.
pub(super) fn random_command(rng: &mut Rng, state: &State) -> Command<'static> {
    let sessions: Vec<SessionId> = state.sessions().ids().collect();
    let id = rng.pick(&sessions).copied().unwrap_or(SessionId(rng.below(4)));
    let session = state.session(id);
    let last = session.map_or(0, |s| s.last.0);
    let seq = match rng.below(10) {
        0 => rng.below(last + 1),
        1 => last + 2 + rng.below(3),
        2 if rng.chance(5) => u64::MAX,
        _ => last + 1,
    };
    let head = Head {
        session: if rng.chance(2) { SessionId(rng.draw()) } else { id },
        seq: ClientSeq(seq),
        unacknowledged: ClientSeq(if rng.chance(2) { rng.draw() } else { rng.below(last + 2) }),
        lamport: Lamport(rng.draw()),
    };
    let names = ["ann", "Ann", "bob", "cy", "dee", ""];
    let any_name = name(rng.pick(&names).copied().unwrap_or("ann"));
    let user: Cow<'_, str> = match session {
        Some(session) if !rng.chance(5) => session.name.shown.to_string().into(),
        _ => any_name.shown.to_string().into(),
    };
    let rooms: Vec<RoomId> = state.rooms_after(RoomId(0)).map(|room| room.id).collect();
    let room = rng.pick(&rooms).copied().filter(|_| !rng.chance(3));
    let room = room.unwrap_or(RoomId(rng.draw()));
    let room_name = name(
        rng.pick(&["lobby", "Lobby", "ops", "dev", "x"])
            .copied()
            .unwrap_or("ops"),
    );
    match rng.below(40) {
        0..=3 => Command::Open {
            name: any_name,
            key: key(rng.below(3) as u8),
            secret: SecretHash([rng.below(12) as u8; 16]),
            lamport: Lamport(rng.draw()),
        },
        4..=6 => Command::Create {
            head,
            user,
            room: room_name,
            or_find: rng.chance(50),
        },
        7..=12 => Command::Join {
            head,
            user,
            room: room_name,
        },
        13..=15 => Command::Leave { head, user, room },
        16..=17 => Command::Topic {
            head,
            user,
            room,
            text: "t".repeat(rng.below(20) as usize).into(),
        },
        18..=20 => Command::Rename {
            head,
            user,
            name: any_name,
        },
        21 => Command::Skip {
            head,
            code: Code::BadText,
        },
        22 => Command::Close { head, user },
        23 => Command::Touch {
            server: ServerId::new("server1").expect("an id"),
            sessions: sessions.iter().copied().filter(|_| rng.chance(50)).collect(),
        },
        24 => Command::Release { session: id, user },
        25 => Command::Expire { session: id },
        26 => Command::ForgetKeys,
        27 if rng.chance(30) => Command::Trim {
            index: LogIndex(if rng.chance(10) {
                rng.draw()
            } else {
                rng.below(state.applied().0 + 3)
            }),
        },
        27 if rng.chance(20) => Command::Settings(Settings {
            session_expiry_ms: if rng.chance(10) { rng.draw() } else { rng.below(100_000) },
            name_release_ms: if rng.chance(10) { rng.draw() } else { rng.below(50_000) },
        }),
        _ => Command::Post {
            head,
            room,
            user,
            text: "m".into(),
            dedup: rng.chance(40).then(|| DedupKey([rng.below(20) as u8; 16])),
        },
    }
}

pub(super) fn random_stamp(rng: &mut Rng, age_ms: &mut u64) -> Stamp {
    *age_ms += if rng.chance(3) {
        rng.below(60_000)
    } else {
        rng.below(20)
    };
    let wild = rng.chance(1);
    Stamp {
        lamport: Lamport(if wild { u64::MAX } else { *age_ms }),
        time_ms: if wild { rng.draw() } else { *age_ms },
        age_ms: *age_ms - if rng.chance(2) { rng.below(*age_ms + 1) } else { 0 },
    }
}

/// What holds of every state, whatever was applied.
pub(super) fn check(state: &State) {
    let mut holders: BTreeMap<String, (KeyId, u32)> = BTreeMap::new();
    for id in state.sessions().ids() {
        let session = state.session(id).expect("it is listed");
        assert!(session.outcomes() <= limits::SESSION_RESULTS_MAX);
        assert_eq!(state.session_by_secret(&session.secret), Some(id));
        if session.named {
            let holder = holders
                .entry(session.name.folded.to_string())
                .or_insert((session.key, 0));
            assert_eq!(holder.0, session.key, "two keys hold one name");
            holder.1 += 1;
        } else {
            assert!(session.rooms().is_empty(), "who has no name is nowhere");
        }
    }
    assert_eq!(state.sizes().1, holders.len(), "a name is held by nobody");
    for room in state.rooms_after(RoomId(0)) {
        let mut there: Vec<String> = state
            .sessions()
            .ids()
            .filter_map(|id| state.session(id))
            .filter(|session| session.rooms().contains(&room.id))
            .map(|session| session.name.folded.to_string())
            .collect();
        there.sort();
        there.dedup();
        let mut users: Vec<String> = state.users_in(room.id).iter().map(|u| u.to_lowercase()).collect();
        users.sort();
        assert_eq!(users, there, "the room's list and the sessions' lists differ");
        assert_eq!(room.members(), there.len());
    }
}

#[test]
fn random_histories_are_total_gapless_exactly_once_and_the_same_everywhere() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut state = State::new();
        let mut replica = State::new();
        let mut age_ms = 0;
        let mut rooms: BTreeMap<RoomId, (Position, Seq)> = BTreeMap::new();
        let mut posted: BTreeMap<(SessionId, ClientSeq), Outcome> = BTreeMap::new();
        for n in 1..=600 {
            let index = LogIndex(n);
            if n == 1 || rng.chance(2) {
                state.skip(index);
                replica.skip(index);
                continue;
            }
            let stamp = random_stamp(&mut rng, &mut age_ms);
            let due = state.due(state.clock().age_ms, 1).pop().filter(|_| rng.chance(20));
            let was_due = due.is_some();
            let command = due.unwrap_or_else(|| random_command(&mut rng, &state));
            let before = state.clone();
            let applied = state.apply(index, &stamp, &command);
            assert!(before.trimmed() <= state.trimmed() && state.trimmed() < index);
            assert_eq!(applied, replica.apply(index, &stamp, &command), "seed {seed} entry {n}");
            assert!(!was_due || before != state);

            let mut last_room = RoomId(0);
            for (room, position, seq) in applied.items.iter() {
                assert!(*room > last_room, "at most one item a room, by room");
                last_room = *room;
                let at = rooms.entry(*room).or_default();
                at.0 = at.0.next();
                assert_eq!(*position, at.0, "seed {seed} entry {n}: positions have no gaps");
                let is_message = matches!(command, Command::Post { .. });
                if is_message {
                    at.1 = at.1.next();
                }
                assert_eq!(*seq, if is_message { at.1 } else { Seq(0) });
                assert!(content(&command).is_some(), "an item has content");
            }
            if let Answer::Session { session, seq, verdict } = &applied.result {
                assert_eq!((*session, *seq), origin(&command));
                if let (Verdict::Outcome(outcome), Some(s)) = (verdict, before.session(*session)) {
                    let key = (*session, *seq);
                    if *seq <= s.last {
                        assert_eq!(posted.get(&key), Some(outcome), "a retry's outcome differs");
                        assert!(applied.items.is_empty());
                    } else {
                        assert_eq!(*seq, s.last.next());
                        assert_eq!(posted.insert(key, outcome.clone()), None);
                    }
                }
            }
            check(&state);
        }
        assert_eq!(state, replica, "seed {seed}");
        assert_eq!(state.digest(), replica.digest());
        for room in state.rooms_after(RoomId(0)) {
            let at = rooms.get(&room.id).copied().unwrap_or_default();
            assert_eq!((room.position, room.seq), at);
        }
        let messages: u64 = rooms.values().map(|(_, seq)| seq.0).sum();
        assert_eq!(state.messages(), messages);
    }
}

#[test]
fn what_is_due_comes_to_an_end() {
    let mut rng = Rng::new(7);
    let mut log = Log::new();
    for _ in 0..400 {
        let command = random_command(&mut rng, &log.state);
        log.apply(&command);
    }
    log.apply(&Command::Settings(Settings::default()));
    log.age_ms += 2 * limits::SESSION_EXPIRY_DEFAULT.as_ms();
    log.settle();
    assert_eq!(log.state.sizes(), (0, 0, 0), "sessions, names and keys are all gone");
    assert_eq!(log.state.next_due(), None);
}

#[test]
fn a_different_decision_is_seen_in_the_digest_for_ever() {
    let mut one = Log::new();
    let mut two = Log::new();
    let ann = one.open("ann", 1);
    two.open("ann", 1);
    assert_eq!(one.state.digest(), two.state.digest());
    one.say(ann, LOBBY, "x");
    two.say(ann, RoomId(5), "x");
    assert_ne!(one.state.digest(), two.state.digest());
    one.join(ann, "lobby");
    two.join(ann, "lobby");
    assert_ne!(one.state.digest(), two.state.digest());
}
