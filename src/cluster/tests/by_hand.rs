//! One server whose messages and disk are played by hand.

use super::harness::{World, id};
use crate::cluster::members::encode_members;
use crate::cluster::message::{AppendResult, Entry, EntryKind, LogPosition, Message};
use crate::cluster::{Cluster, Identity, Output, Role};
use crate::config::{Election, LeaderMode};
use crate::types::{AppendId, Blob, DirectoryId, GroupId, Level, LogIndex, Now, ServerId, Span, Term, Tick};

/// A formed server that follows nobody, with links to two silent others; its appends are named but not persisted.
struct ByHand {
    cluster: Cluster,
    now: Now,
    appends: u64,
}

impl ByHand {
    fn new(world: &World, server: ServerId) -> ByHand {
        let it = &world.servers[&server];
        let now = Now {
            tick: Tick::from_ms(1),
            wall_ms: 0,
        };
        let config = world.config.clone();
        let cluster = Cluster::new(
            config,
            Identity {
                server,
                directory: it.directory,
                boot: it.boot.next(),
                replaced: false,
            },
            it.disk.recovered(),
            now,
            1,
        )
        .unwrap();
        let mut hand = ByHand {
            cluster,
            now,
            appends: 0,
        };
        for (&other, it) in &world.servers {
            if other != server {
                hand.cluster.link_up(now, other, it.directory, it.boot);
            }
        }
        hand.sent();
        hand
    }

    fn say(&mut self, from: usize, message: Message) -> Vec<(ServerId, Message)> {
        self.cluster.message(self.now, id(from), message);
        self.sent()
    }

    fn sent(&mut self) -> Vec<(ServerId, Message)> {
        let mut sent = Vec::new();
        while let Some(output) = self.cluster.poll() {
            if let Output::Send(to, message) = output {
                sent.push((to, message));
            }
        }
        self.appends += 1;
        self.cluster.appended(AppendId(self.appends));
        sent
    }

    fn persisted(&mut self) -> Vec<(ServerId, Message)> {
        self.cluster.persisted(self.now, AppendId(self.appends));
        self.sent()
    }
}

const GROUP: GroupId = GroupId::ROOT;

#[test]
fn a_vote_is_durable_before_it_is_answered_and_given_once() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 20);
    let mut hand = ByHand::new(&world, id(1));
    let last = hand.cluster.last();
    let vote = |transfer| Message::Vote {
        group: GROUP,
        term: Term(9),
        last,
        transfer,
    };
    assert_eq!(hand.say(2, vote(false)), []);
    let refused = Message::VoteAnswer {
        group: GROUP,
        term: Term(9),
        granted: false,
    };
    assert_eq!(hand.say(3, vote(true)), [(id(3), refused)]);
    let granted = Message::VoteAnswer {
        group: GROUP,
        term: Term(9),
        granted: true,
    };
    assert_eq!(hand.persisted(), [(id(2), granted.clone())]);
    assert_eq!(hand.say(2, vote(false)), [(id(2), granted)]);
}

#[test]
fn a_server_with_holes_still_votes() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 30);
    world.damage(id(1), LogIndex(2), false);
    let mut hand = ByHand::new(&world, id(1));
    assert_eq!(hand.cluster.holes(), 1);
    let last = hand.cluster.last();
    let vote = Message::Vote {
        group: GROUP,
        term: Term(9),
        last,
        transfer: false,
    };
    hand.say(2, vote);
    let granted = Message::VoteAnswer {
        group: GROUP,
        term: Term(9),
        granted: true,
    };
    assert!(hand.persisted().contains(&(id(2), granted)));
}

#[test]
fn an_admission_counts_neither_directory_before_it_is_committed() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 31);
    let mut hand = ByHand::new(&world, id(2));
    let (former, new) = (world.servers[&id(1)].directory, DirectoryId(4711));
    let mut members = hand.cluster.roster.in_force().unwrap().clone();
    members.members[0].directory = new;
    let prev = hand.cluster.last();
    let entry = Entry {
        index: prev.index.next(),
        term: Term(9),
        kind: EntryKind::Members,
        payload: Blob::new(&encode_members(&members)),
    };
    let append = |commit, entries, prev| Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit,
        round: 1,
        entries,
    };
    hand.say(3, append(prev.index, vec![entry.clone()], prev));
    let cluster = &hand.cluster;
    assert!(!cluster.is_member(id(1), former) && !cluster.is_member(id(1), new));
    assert!(
        cluster.is_known(id(1), former) && cluster.is_known(id(1), new),
        "either may ask for a vote"
    );
    hand.persisted();
    let at = LogPosition {
        term: Term(9),
        index: entry.index,
    };
    hand.say(3, append(entry.index, Vec::new(), at));
    let cluster = &hand.cluster;
    assert!(cluster.is_member(id(1), new) && !cluster.is_known(id(1), former));
}

#[test]
fn nobody_leads_before_its_own_vote_is_durable() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 29);
    let mut hand = ByHand::new(&world, id(3));
    let (prev, commit) = (hand.cluster.last(), hand.cluster.last().index);
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit,
        round: 1,
        entries: Vec::new(),
    };
    hand.say(2, append);
    hand.say(
        2,
        Message::TransferNow {
            group: GROUP,
            term: Term(9),
        },
    );
    for voter in [1, 2] {
        hand.say(
            voter,
            Message::VoteAnswer {
                group: GROUP,
                term: Term(10),
                granted: true,
            },
        );
    }
    assert_eq!(
        hand.cluster.role(),
        Role::Candidate,
        "it might forget that it stood in this term"
    );
    hand.persisted();
    assert_eq!(hand.cluster.role(), Role::Leader);
}

#[test]
fn a_vote_goes_only_to_a_log_that_is_as_complete() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 26);
    let mut hand = ByHand::new(&world, id(1));
    let last = hand.cluster.last();
    let shorter = LogPosition {
        index: last.index.previous(),
        ..last
    };
    let vote = |last| Message::Vote {
        group: GROUP,
        term: Term(9),
        last,
        transfer: true,
    };
    let answer = |granted| Message::VoteAnswer {
        group: GROUP,
        term: Term(9),
        granted,
    };
    assert_eq!(hand.say(3, vote(shorter)).first(), Some(&(id(3), answer(false))));
    assert_eq!(hand.persisted(), []);
    assert_eq!(hand.say(2, vote(last)), []);
    assert_eq!(hand.persisted(), [(id(2), answer(true))]);
}

#[test]
fn a_read_position_needs_an_answer_that_was_sent_after_the_question() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 27);
    let mut hand = ByHand::new(&world, id(3));
    let (prev, commit) = (hand.cluster.last(), hand.cluster.last().index);
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit,
        round: 1,
        entries: Vec::new(),
    };
    hand.say(2, append);
    hand.say(
        2,
        Message::TransferNow {
            group: GROUP,
            term: Term(9),
        },
    );
    hand.persisted();
    hand.say(
        1,
        Message::VoteAnswer {
            group: GROUP,
            term: Term(10),
            granted: true,
        },
    );
    hand.persisted();
    let own = hand.cluster.term_start();
    let ask = |id| Message::ReadIndex { group: GROUP, id };
    let answer = |index, round| {
        let result = AppendResult::Matched {
            received: index,
            durable: index,
        };
        Message::AppendAnswer {
            group: GROUP,
            term: Term(10),
            round,
            result,
        }
    };
    let position = |sent: &[(ServerId, Message)], id| {
        sent.iter().find_map(|(_, message)| match message {
            Message::ReadIndexAnswer {
                id: answered, index, ..
            } if *answered == id => Some(*index),
            _ => None,
        })
    };
    let round = |sent: &[(ServerId, Message)]| {
        sent.iter().find_map(|(_, message)| match message {
            Message::Append { round, .. } => Some(*round),
            _ => None,
        })
    };
    let asked = round(&hand.say(2, ask(7))).unwrap();
    assert_eq!(
        position(&hand.say(1, answer(prev.index, asked)), 7),
        None,
        "nothing of its own term is committed"
    );
    assert_eq!(position(&hand.say(1, answer(own, asked)), 7), Some(Some(own)));
    let next = round(&hand.say(2, ask(8))).unwrap();
    assert!(next > asked);
    assert_eq!(
        position(&hand.say(1, answer(own, asked)), 8),
        None,
        "sent before the question, for all we know"
    );
    assert_eq!(position(&hand.say(1, answer(own, next)), 8), Some(Some(own)));
}

#[test]
fn received_is_answered_at_once_and_durable_when_it_is() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 21);
    let mut hand = ByHand::new(&world, id(1));
    let prev = hand.cluster.last();
    let index = prev.index.next();
    let entry = crate::cluster::message::Entry {
        index,
        term: Term(9),
        kind: EntryKind::Command,
        payload: Blob::new(b"x"),
    };
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit: prev.index,
        round: 5,
        entries: vec![entry],
    };
    let answer = |durable| {
        let result = AppendResult::Matched {
            received: index,
            durable,
        };
        Message::AppendAnswer {
            group: GROUP,
            term: Term(9),
            round: 5,
            result,
        }
    };
    assert_eq!(hand.say(3, append), [(id(3), answer(prev.index))]);
    assert_eq!(hand.persisted(), [(id(3), answer(index))]);
}

#[test]
fn a_history_that_differs_is_refused_and_reported() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 22);
    let mut hand = ByHand::new(&world, id(1));
    let prev = hand.cluster.last();
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 12345,
        commit: prev.index,
        round: 1,
        entries: Vec::new(),
    };
    hand.cluster.message(hand.now, id(3), append);
    let mut said = false;
    while let Some(output) = hand.cluster.poll() {
        match output {
            Output::Event {
                level: Level::Error,
                text,
            } => said |= text.contains("differ"),
            Output::Send(_, Message::AppendAnswer { .. }) => panic!("it is not answered"),
            _ => {}
        }
    }
    assert!(said);
}

#[test]
fn an_entry_of_an_older_term_is_not_committed_by_counting() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 23);
    let mut hand = ByHand::new(&world, id(3));
    // It holds an entry of term 9 that nobody else has, and is elected in term 10.
    let prev = hand.cluster.last();
    let old = prev.index.next();
    let entry = crate::cluster::message::Entry {
        index: old,
        term: Term(9),
        kind: EntryKind::Noop,
        payload: Blob::empty(),
    };
    let commit = prev.index;
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit,
        round: 1,
        entries: vec![entry],
    };
    hand.say(2, append);
    hand.persisted();
    hand.say(
        2,
        Message::TransferNow {
            group: GROUP,
            term: Term(9),
        },
    );
    hand.persisted();
    hand.say(
        1,
        Message::VoteAnswer {
            group: GROUP,
            term: Term(10),
            granted: true,
        },
    );
    assert_eq!(hand.cluster.role(), Role::Leader);
    let own = hand.cluster.term_start();
    assert_eq!(own, old.next());
    let answer = |index| {
        let result = AppendResult::Matched {
            received: index,
            durable: index,
        };
        Message::AppendAnswer {
            group: GROUP,
            term: Term(10),
            round: 0,
            result,
        }
    };
    hand.say(1, answer(old));
    hand.persisted();
    assert_eq!(
        hand.cluster.commit(),
        commit,
        "held by a majority, but of an older term"
    );
    hand.say(1, answer(own));
    assert_eq!(hand.cluster.commit(), own);
}

#[test]
fn a_loyal_server_refuses_until_the_leaders_link_is_reset() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 24);
    let mut hand = ByHand::new(&world, id(1));
    let prev = hand.cluster.last();
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit: prev.index,
        round: 1,
        entries: Vec::new(),
    };
    hand.say(3, append);
    let ring = crate::types::RingPosition(2);
    let ask = Message::PreVote {
        group: GROUP,
        term: Term(10),
        last: prev,
        ring,
        transfer: false,
    };
    let granted = |sent: &[(ServerId, Message)]| {
        sent.iter().any(|(to, message)| {
            *to == id(2)
                && matches!(
                    message,
                    Message::PreVoteAnswer {
                        granted: true,
                        term: Term(10),
                        ..
                    }
                )
        })
    };
    assert!(!granted(&hand.say(2, ask)));
    hand.cluster.link_down(hand.now, id(3));
    assert!(granted(&hand.sent()), "who was refused a moment ago needn't ask again");
}

#[test]
fn after_a_pause_nobody_is_suspected_before_his_mail_is_read() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 28);
    let mut hand = ByHand::new(&world, id(1));
    let prev = hand.cluster.last();
    let append = Message::Append {
        group: GROUP,
        term: Term(9),
        prev,
        prev_chain: 0,
        commit: prev.index,
        round: 1,
        entries: Vec::new(),
    };
    hand.say(3, append);
    hand.now.tick = hand.now.tick.after(Span::from_ms(3000));
    for wait in [199, 2] {
        hand.cluster.timer(hand.now);
        hand.sent();
        assert_eq!(hand.cluster.leader(), Some(id(3)));
        hand.now.tick = hand.now.tick.after(Span::from_ms(wait));
    }
    hand.cluster.timer(hand.now);
    assert_eq!(hand.cluster.leader(), None);
}

#[test]
fn no_message_of_a_server_makes_another_panic() {
    let world = World::settled(3, Election::Highest, LeaderMode::Sticky, 25);
    let mut rng = crate::rng::Rng::new(1);
    for _ in 0..300 {
        let mut hand = ByHand::new(&world, id(1));
        for _ in 0..20 {
            let message = super::nonsense::message(&mut rng);
            let from = 2 + rng.below(2) as usize;
            hand.now.tick = hand.now.tick.after(Span::from_ms(rng.below(200)));
            hand.say(from, message);
            if rng.chance(30) {
                hand.persisted();
            }
            if rng.chance(30) {
                hand.cluster.timer(hand.now);
                hand.sent();
            }
        }
    }
}
