//! The promises of the replicated state, case by case. Random histories are in [`random`].

mod image;
mod random;

use std::borrow::Cow;

use super::command::*;
use super::*;
use crate::limits;
use crate::types::{ClientSeq, Lamport, LogIndex, Position, RoomId, Seq, ServerId, SessionId};

const LOBBY: RoomId = RoomId::LOBBY;

fn name(shown: &str) -> Name {
    Name::new(shown, &shown.to_lowercase())
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
        make: impl FnOnce(Head, Cow<'static, str>) -> Command<'static>,
    ) -> (Outcome, Vec<(RoomId, Position, Seq)>) {
        let session = self.state.session(id).expect("an open session");
        let command = make(head(id, session.last.0 + 1), session.name.shown.to_string().into());
        let applied = self.apply(&command);
        (outcome(&applied), applied.items.to_vec())
    }

    fn say(&mut self, id: SessionId, room: RoomId, text: &str) -> Outcome {
        let text = text.to_string().into();
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
        // Many times more rounds than any test here needs: what stays due for ever must fail, not hang.
        for _ in 0..10_000 {
            let due = self.state.due(self.age_ms, 3);
            if due.is_empty() {
                return all;
            }
            for command in due {
                let stamp = self.stamp();
                all.push(self.state.apply(self.state.applied().next(), &stamp, &command));
            }
        }
        panic!("something is due for ever: {:?}", self.state.due(self.age_ms, 3));
    }
}

fn head(session: SessionId, seq: u64) -> Head {
    Head {
        session,
        seq: ClientSeq(seq),
        ..Head::default()
    }
}

fn post(id: SessionId, seq: u64, user: &str) -> Command<'_> {
    Command::Post {
        head: head(id, seq),
        room: LOBBY,
        user: user.into(),
        text: "hello".into(),
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
    assert_eq!(*first.items, [(LOBBY, Position(1), Seq(1))]);
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
        text: "x".into(),
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
    assert_eq!(log.state.session(two).map(|s| &*s.name.shown), Some("Ann"));
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
        user: "ann".into(),
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
    assert_eq!(log.state.room_named("ops").map(|r| &*r.name.shown), Some("Ops"));
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
        text: "news".into(),
    };
    assert_eq!(log.next(ann, topic), (refused(Code::NotMember), vec![]));
    log.join(ann, "lobby");
    assert_eq!(
        log.next(ann, topic),
        (Outcome::Done, vec![(LOBBY, Position(2), Seq(0))])
    );
    assert_eq!(log.state.room(LOBBY).map(|r| &*r.topic), Some("news"));
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

// --- What isn't shown any more ------------------------------------------------------------------

#[test]
fn a_trim_never_goes_back_nor_beyond_what_was_before_it() {
    let mut log = Log::new();
    for _ in 0..10 {
        log.apply(&Command::ForgetKeys);
    }
    let trim = |log: &mut Log, index| {
        let applied = log.apply(&Command::Trim { index: LogIndex(index) });
        assert_eq!((applied.result, applied.items.len()), (Answer::None, 0));
        log.state.trimmed().0
    };
    assert_eq!(trim(&mut log, 5), 5);
    assert_eq!(trim(&mut log, 3), 5);
    let own = log.state.applied().0 + 1;
    assert_eq!(trim(&mut log, own), own - 1);
    assert_eq!(trim(&mut log, u64::MAX), own);
}

#[test]
fn replicas_that_show_different_parts_are_told_apart() {
    let mut one = Log::new();
    for _ in 0..10 {
        one.apply(&Command::ForgetKeys);
    }
    let mut two = Log {
        state: one.state.clone(),
        ..one
    };
    one.apply(&Command::Trim { index: LogIndex(5) });
    two.apply(&Command::Trim { index: LogIndex(6) });
    assert_ne!(one.state.digest(), two.state.digest());
}
