//! The promises of the replicated state: random command sequences find what no list of cases would, and the cases beside
//! them say what is meant.

use super::command::*;
use super::*;
use crate::limits;
use crate::rng::Rng;
use crate::types::{ClientSeq, Lamport, LogIndex, Position, RoomId, Seq, ServerId, SessionId};
use std::collections::BTreeMap;

const LOBBY: RoomId = RoomId::LOBBY;

fn name(shown: &str) -> Name {
    Name {
        shown: shown.to_string(),
        folded: shown.to_lowercase(),
    }
}

fn key(n: u8) -> KeyId {
    KeyId([n; 16])
}

/// A log under test: every command is the next entry, a millisecond of log age after the one before.
struct Log {
    state: State,
    age_ms: u64,
}

impl Log {
    fn new() -> Log {
        let mut state = State::new();
        state.skip(LogIndex(1));
        Log { state, age_ms: 0 }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            lamport: Lamport(self.state.applied().0 + 100),
            time_ms: 1_000_000 + self.age_ms,
            age_ms: self.age_ms,
        }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.age_ms += 1;
        let stamp = self.stamp();
        self.state.apply(self.state.applied().next(), &stamp, command)
    }

    fn try_open(&mut self, user: &str, holder: u8, secret: u8) -> Result<SessionId, Code> {
        let command = Command::Open {
            name: name(user),
            key: key(holder),
            secret: SecretHash([secret; 16]),
            lamport: Lamport(0),
        };
        match self.apply(&command).result {
            Answer::Opened { result, .. } => result,
            other => panic!("an Open is answered by Opened, not {other:?}"),
        }
    }

    fn open(&mut self, user: &str, n: u8) -> SessionId {
        self.try_open(user, n, n).expect("the name is free")
    }

    /// The session's next command, made by `make` from its head and name: what it came to, and its items.
    fn next(
        &mut self,
        id: SessionId,
        make: impl FnOnce(Head, String) -> Command,
    ) -> (Outcome, Vec<(RoomId, Position, Seq)>) {
        let session = self.state.session(id).expect("an open session");
        let command = make(head(id, session.last.0 + 1), session.name.shown.clone());
        let applied = self.apply(&command);
        (outcome(&applied), applied.items)
    }

    fn say(&mut self, id: SessionId, room: RoomId, text: &str) -> Outcome {
        let text = text.to_string();
        self.next(id, |head, user| Command::Post {
            head,
            room,
            user,
            text,
            dedup: None,
        })
        .0
    }

    fn join(&mut self, id: SessionId, room: &str) -> (Outcome, usize) {
        let room = name(room);
        let (outcome, items) = self.next(id, |head, user| Command::Join { head, user, room });
        (outcome, items.len())
    }

    fn leave(&mut self, id: SessionId, room: RoomId) -> (Outcome, usize) {
        let (outcome, items) = self.next(id, |head, user| Command::Leave { head, user, room });
        (outcome, items.len())
    }

    fn rename(&mut self, id: SessionId, to: &str) -> (Outcome, usize) {
        let name = name(to);
        let (outcome, items) = self.next(id, |head, user| Command::Rename { head, user, name });
        (outcome, items.len())
    }

    fn close(&mut self, id: SessionId) -> (Outcome, usize) {
        let (outcome, items) = self.next(id, |head, user| Command::Close { head, user });
        (outcome, items.len())
    }

    fn touch(&mut self, id: SessionId) {
        let server = ServerId::new("server1").expect("an id");
        self.apply(&Command::Touch {
            server,
            sessions: vec![id],
        });
    }

    /// Applies all that is due, as a leader would, until nothing is.
    fn settle(&mut self) -> Vec<Applied> {
        let mut all = Vec::new();
        loop {
            let due = self.state.due(self.age_ms, 3);
            if due.is_empty() {
                return all;
            }
            for command in due {
                let stamp = self.stamp();
                all.push(self.state.apply(self.state.applied().next(), &stamp, &command));
            }
        }
    }
}

fn head(session: SessionId, seq: u64) -> Head {
    Head {
        session,
        seq: ClientSeq(seq),
        ..Head::default()
    }
}

fn post(id: SessionId, seq: u64, user: &str) -> Command {
    Command::Post {
        head: head(id, seq),
        room: LOBBY,
        user: user.to_string(),
        text: "hello".to_string(),
        dedup: None,
    }
}

fn verdict(applied: &Applied) -> Verdict {
    match &applied.result {
        Answer::Session { verdict, .. } => verdict.clone(),
        other => panic!("a session's command is answered to the session, not {other:?}"),
    }
}

fn outcome(applied: &Applied) -> Outcome {
    match verdict(applied) {
        Verdict::Outcome(outcome) => outcome,
        other => panic!("expected an outcome, not {other:?}"),
    }
}

fn refused(code: Code) -> Outcome {
    Outcome::Refused(code)
}

// --- Exactly once -------------------------------------------------------------------------------

#[test]
fn a_retry_gets_the_first_outcome_and_posts_nothing() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let first = log.apply(&post(ann, 1, "ann"));
    assert_eq!(first.items, [(LOBBY, Position(1), Seq(1))]);
    let again = log.apply(&post(ann, 1, "ann"));
    assert_eq!(verdict(&again), verdict(&first));
    assert!(again.items.is_empty());
    assert_eq!(log.state.messages(), 1);
    assert_eq!(log.state.outcome(ann, ClientSeq(1)), Some(&outcome(&first)));
}

#[test]
fn a_gap_is_not_jumped() {
    // 1 to 10 are lost with a leader, 11 reaches the next one: "the highest wins" would acknowledge what is lost.
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    log.apply(&post(ann, 1, "ann"));
    let ahead = log.apply(&post(ann, 11, "ann"));
    assert_eq!(verdict(&ahead), Verdict::Gap { expected: ClientSeq(2) });
    assert!(ahead.items.is_empty());
    assert_eq!(log.state.outcome(ann, ClientSeq(11)), None);
    assert!(matches!(
        verdict(&log.apply(&post(ann, 2, "ann"))),
        Verdict::Outcome(Outcome::Posted { .. })
    ));
}

#[test]
fn a_refusal_takes_its_number() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let code = Code::TextTooLong;
    let skip = Command::Skip {
        head: head(ann, 1),
        code,
    };
    assert_eq!(outcome(&log.apply(&skip)), refused(code));
    assert_eq!(log.say(ann, RoomId(99), "x"), refused(Code::NoSuchRoom));
    assert_eq!(log.state.session(ann).map(|s| s.last), Some(ClientSeq(2)));
    assert_eq!(log.state.outcome(ann, ClientSeq(2)), Some(&refused(Code::NoSuchRoom)));
    assert!(matches!(log.say(ann, LOBBY, "x"), Outcome::Posted { .. }));
}

#[test]
fn acknowledged_outcomes_are_forgotten_and_the_window_is_bounded() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    for seq in 1..=10 {
        log.apply(&post(ann, seq, "ann"));
    }
    let mut head = head(ann, 11);
    head.unacknowledged = ClientSeq(8);
    log.apply(&Command::Skip {
        head,
        code: Code::BadText,
    });
    assert_eq!(verdict(&log.apply(&post(ann, 7, "ann"))), Verdict::Forgotten);
    assert!(matches!(
        verdict(&log.apply(&post(ann, 8, "ann"))),
        Verdict::Outcome(Outcome::Posted { .. })
    ));
    // A number beyond all that was sent forgets all, and no more.
    head.seq = ClientSeq(12);
    head.unacknowledged = ClientSeq(u64::MAX);
    log.apply(&Command::Skip {
        head,
        code: Code::BadText,
    });
    assert_eq!(log.state.session(ann).map(Session::outcomes), Some(1));

    for seq in 13..=2 * limits::SESSION_RESULTS_MAX as u64 {
        log.apply(&post(ann, seq, "ann"));
    }
    assert_eq!(
        log.state.session(ann).map(Session::outcomes),
        Some(limits::SESSION_RESULTS_MAX)
    );
    let oldest = limits::SESSION_RESULTS_MAX as u64 + 1;
    assert!(log.state.outcome(ann, ClientSeq(oldest)).is_some());
    assert_eq!(log.state.outcome(ann, ClientSeq(oldest - 1)), None);
}

#[test]
fn an_idempotency_key_posts_once_across_sessions_of_its_key() {
    let mut log = Log::new();
    let one = log.open("ann", 1);
    let two = log.try_open("ann", 1, 2).expect("the same key");
    let bob = log.open("bob", 3);
    let keyed = |head, user| Command::Post {
        head,
        room: LOBBY,
        user,
        text: "x".to_string(),
        dedup: Some(DedupKey([7; 16])),
    };
    let (first, items) = log.next(one, keyed);
    assert_eq!(items.len(), 1);
    let (second, items) = log.next(two, keyed);
    assert_eq!((second, items.len()), (first.clone(), 0));
    let (other, items) = log.next(bob, keyed);
    assert_ne!(other, first, "another principal's key is another key");
    assert_eq!(items.len(), 1);
    assert_eq!(log.state.messages(), 2);

    // The keys are forgotten with age, and then it is a new message.
    log.age_ms += limits::SESSION_EXPIRY_DEFAULT.as_ms() + limits::FORGET_KEYS_INTERVAL.as_ms();
    log.touch(one);
    log.settle();
    assert_eq!(log.state.sizes().2, 0);
    assert_eq!(log.next(one, keyed).1.len(), 1);
}

#[test]
fn the_same_secret_finds_its_session_and_only_for_its_key() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    assert_eq!(log.try_open("ann", 1, 1), Ok(ann));
    assert_eq!(log.try_open("ann", 2, 1), Err(Code::WrongSecret));
    assert_eq!(log.state.session_by_secret(&SecretHash([1; 16])), Some(ann));
}

// --- Names --------------------------------------------------------------------------------------

#[test]
fn a_name_belongs_to_one_key_until_its_last_session_ends() {
    let mut log = Log::new();
    let one = log.open("Ann", 1);
    let two = log.try_open("ann", 1, 2).expect("the same key");
    assert_eq!(log.state.session(two).map(|s| s.name.shown.as_str()), Some("Ann"));
    assert_eq!(log.try_open("ANN", 9, 9), Err(Code::NameTaken));
    assert_eq!(log.close(one).0, Outcome::Done);
    assert_eq!(log.try_open("ann", 9, 9), Err(Code::NameTaken));
    assert_eq!(log.close(two).0, Outcome::Done);
    assert!(log.try_open("ann", 9, 9).is_ok());
}

#[test]
fn a_silent_session_loses_its_name_and_takes_it_back_if_it_is_free() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    log.join(ann, "lobby");
    let release = Command::Release {
        session: ann,
        user: "ann".to_string(),
    };
    log.age_ms += limits::NAME_RELEASE.as_ms() - 10;
    log.touch(ann);
    assert!(log.apply(&release).items.is_empty(), "heard of since it was proposed");
    assert_eq!(log.state.users_in(LOBBY), ["ann"]);

    let due_ms = log.state.next_due().expect("a name can be released");
    assert!(log.state.due(due_ms - 1, 10).is_empty());
    assert_eq!(log.state.due(due_ms, 10), [release]);
    log.age_ms = due_ms;
    assert_eq!(log.settle().iter().map(|a| a.items.len()).sum::<usize>(), 1);
    assert!(log.state.users_in(LOBBY).is_empty());

    assert!(matches!(log.say(ann, LOBBY, "back"), Outcome::Posted { .. }));
    assert_eq!(log.try_open("ann", 2, 2), Err(Code::NameTaken));
}

#[test]
fn a_session_whose_name_is_gone_is_refused_until_it_takes_another() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    log.age_ms += limits::NAME_RELEASE.as_ms() + 1;
    log.settle();
    let thief = log.open("ann", 2);
    assert_eq!(log.say(ann, LOBBY, "x"), refused(Code::NameTaken));
    assert_eq!(log.try_open("ann", 1, 1), Err(Code::NameTaken));
    assert_eq!(log.rename(ann, "ann"), (refused(Code::NameTaken), 0));
    assert_eq!(log.rename(ann, "anna"), (Outcome::Done, 0));
    assert!(matches!(log.say(ann, LOBBY, "x"), Outcome::Posted { .. }));
    // Its end doesn't free what another holds.
    assert_eq!(log.close(ann).0, Outcome::Done);
    assert_eq!(log.try_open("ann", 1, 3), Err(Code::NameTaken));
    assert_eq!(log.close(thief).0, Outcome::Done);
    assert_eq!(log.state.sizes(), (0, 0, 0));
}

#[test]
fn an_expired_session_is_forgotten() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    log.join(ann, "lobby");
    log.apply(&Command::Expire { session: ann });
    assert!(log.state.session(ann).is_some(), "not silent for long enough");
    log.age_ms += limits::SESSION_EXPIRY_DEFAULT.as_ms() + 1;
    log.settle();
    assert!(log.state.session(ann).is_none());
    assert!(log.state.users_in(LOBBY).is_empty());
    assert_eq!(log.state.next_due(), None);
    let late = log.apply(&post(ann, 2, "ann"));
    assert_eq!(outcome(&late), refused(Code::NoSuchSession));
    assert!(late.items.is_empty());
}

#[test]
fn a_command_under_another_name_is_refused() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let (outcome, items) = log.next(ann, |head, _| post(head.session, head.seq.0, "bob"));
    assert_eq!((outcome, items.len()), (refused(Code::WrongName), 0));
}

// --- Rooms --------------------------------------------------------------------------------------

#[test]
fn two_creates_in_flight_make_one_room() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let bob = log.open("bob", 2);
    let create = |or_find| {
        move |head, user| Command::Create {
            head,
            user,
            room: name("Ops"),
            or_find,
        }
    };
    let (first, items) = log.next(ann, create(false));
    let Outcome::Room {
        room, created: true, ..
    } = first
    else {
        panic!("made: {first:?}")
    };
    assert_eq!(items, [(room, Position(1), Seq(0))]);
    assert_eq!(log.next(bob, create(false)), (refused(Code::RoomExists), vec![]));
    let (found, items) = log.next(bob, create(true));
    assert!(matches!(found, Outcome::Room { room: same, created: false, .. } if same == room));
    assert!(items.is_empty());
    assert_eq!(log.state.room_named("ops").map(|r| r.name.shown.as_str()), Some("Ops"));
    assert!(log.state.users_in(room).is_empty(), "creating isn't joining");
    let all: Vec<RoomId> = log.state.rooms_after(RoomId(0)).map(|r| r.id).collect();
    assert_eq!(all, [LOBBY, room]);
    assert_eq!(log.state.rooms_after(LOBBY).count(), 1);
}

#[test]
fn a_person_joins_and_leaves_once_however_many_sessions() {
    let mut log = Log::new();
    let one = log.open("ann", 1);
    let two = log.try_open("ann", 1, 2).expect("the same key");
    assert_eq!(log.join(one, "nowhere"), (refused(Code::NoSuchRoom), 0));
    assert_eq!(log.join(one, "lobby").1, 1);
    assert_eq!(log.join(one, "lobby").1, 0);
    assert_eq!(log.join(two, "lobby").1, 0);
    assert_eq!(log.state.users_in(LOBBY), ["ann"]);
    assert_eq!(log.leave(one, LOBBY), (Outcome::Done, 0));
    assert_eq!(log.leave(one, LOBBY), (refused(Code::NotMember), 0));
    assert_eq!(log.leave(one, RoomId(77)), (refused(Code::NoSuchRoom), 0));
    assert_eq!(log.close(two), (Outcome::Done, 1));
    assert!(log.state.users_in(LOBBY).is_empty());
}

#[test]
fn a_topic_needs_membership() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let topic = |head, user| Command::Topic {
        head,
        user,
        room: LOBBY,
        text: "news".to_string(),
    };
    assert_eq!(log.next(ann, topic), (refused(Code::NotMember), vec![]));
    log.join(ann, "lobby");
    assert_eq!(
        log.next(ann, topic),
        (Outcome::Done, vec![(LOBBY, Position(2), Seq(0))])
    );
    assert_eq!(log.state.room(LOBBY).map(|r| r.topic.as_str()), Some("news"));
}

#[test]
fn a_rename_shows_in_every_room_of_the_session() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    let other = log.try_open("ann", 1, 2).expect("the same key");
    let bob = log.open("bob", 3);
    log.join(ann, "lobby");
    assert_eq!(log.rename(ann, "bob"), (refused(Code::NameTaken), 0));
    assert_eq!(log.rename(ann, "ann"), (Outcome::Done, 0));
    assert_eq!(log.rename(ann, "Ann"), (Outcome::Done, 1));
    assert_eq!(log.state.users_in(LOBBY), ["Ann"]);
    log.join(other, "lobby");
    assert_eq!(log.rename(ann, "cy"), (Outcome::Done, 1));
    assert_eq!(log.state.users_in(LOBBY), ["Ann", "cy"]);
    assert_eq!(log.rename(ann, "Ann"), (Outcome::Done, 1));
    assert_eq!(log.state.users_in(LOBBY), ["Ann"]);
    log.close(bob);
    assert_eq!(log.rename(ann, "bob").0, Outcome::Done);
}

#[test]
fn a_session_is_in_a_bounded_number_of_rooms() {
    let mut log = Log::new();
    let ann = log.open("ann", 1);
    for n in 0..=limits::ROOMS_PER_SESSION_MAX {
        let room = name(&format!("r{n}"));
        log.next(ann, |head, user| Command::Create {
            head,
            user,
            room,
            or_find: false,
        });
    }
    for n in 0..limits::ROOMS_PER_SESSION_MAX {
        assert_eq!(log.join(ann, &format!("r{n}")).1, 1);
    }
    assert_eq!(log.join(ann, "lobby"), (refused(Code::TooManyRooms), 0));
    // One entry with an item in each of them.
    assert_eq!(log.close(ann), (Outcome::Done, limits::ROOMS_PER_SESSION_MAX));
}

// --- Whatever comes -----------------------------------------------------------------------------

/// Mostly sensible commands of few sessions, names, rooms and keys, so that they meet; some senseless ones.
fn random_command(rng: &mut Rng, state: &State) -> Command {
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
    let user = match session {
        Some(session) if !rng.chance(5) => session.name.shown.clone(),
        _ => any_name.shown.clone(),
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
            text: "t".repeat(rng.below(20) as usize),
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
        27 if rng.chance(20) => Command::Settings(Settings {
            session_expiry_ms: if rng.chance(10) { rng.draw() } else { rng.below(100_000) },
            name_release_ms: if rng.chance(10) { rng.draw() } else { rng.below(50_000) },
        }),
        _ => Command::Post {
            head,
            room,
            user,
            text: "m".to_string(),
            dedup: rng.chance(40).then(|| DedupKey([rng.below(20) as u8; 16])),
        },
    }
}

fn random_stamp(rng: &mut Rng, age_ms: &mut u64) -> Stamp {
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
fn check(state: &State) {
    let mut holders: BTreeMap<String, (KeyId, u32)> = BTreeMap::new();
    for id in state.sessions().ids() {
        let session = state.session(id).expect("it is listed");
        assert!(session.outcomes() <= limits::SESSION_RESULTS_MAX);
        assert_eq!(state.session_by_secret(&session.secret), Some(id));
        if session.named {
            let holder = holders.entry(session.name.folded.clone()).or_insert((session.key, 0));
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
            .map(|session| session.name.folded.clone())
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
            assert_eq!(applied, replica.apply(index, &stamp, &command), "seed {seed} entry {n}");
            assert!(!was_due || before != state);

            let mut last_room = RoomId(0);
            for (room, position, seq) in &applied.items {
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
