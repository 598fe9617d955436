//! One promise at a time.

use super::disk::config;
use super::harness::{World, id};
use crate::cluster::Role;
use crate::config::{Election, LeaderMode};
use crate::types::{Level, LogIndex, ServerId, Span, Tick};

#[test]
fn a_killed_leader_is_replaced_by_the_highest_without_waiting() {
    for election in [Election::Highest, Election::Lcr] {
        for seed in 0..20 {
            let mut world = World::settled(5, election, LeaderMode::Preferred, seed);
            world.kill(id(5));
            let took = world.run_until(1000, |world| world.leader().is_some());
            assert_eq!(world.leader(), Some(id(4)), "seed {seed}: {:#?}", world.events);
            // Not a heartbeat, let alone a time-out: resets, one round trip each for the pre-vote and the vote, two syncs.
            assert!(
                took < Span::from_ms(50),
                "{election:?}, seed {seed}: {took:?} {:#?}",
                world.tail()
            );
        }
    }
}

#[test]
fn a_killed_leader_is_replaced_in_mid_stream() {
    for seed in 0..20 {
        let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, seed);
        for n in 0..50 {
            world.propose(id(3), &format!("{n}"));
            world.run_ms(n % 2);
        }
        world.kill(id(3));
        let took = world.run_until(1000, |world| world.leader().is_some());
        assert!(took < Span::from_ms(100), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_hung_leader_is_replaced_and_steps_down_when_it_wakes() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 4);
    world.hang(id(3), Span::from_ms(3000));
    let took = world.run_until(2000, |world| world.leader() == Some(id(2)));
    assert!(took < Span::from_ms(1000), "{took:?}");
    world.run_until(5000, |world| world.cluster(id(3)).leader() == Some(id(2)));
    assert_eq!(world.cluster(id(3)).role(), Role::Follower);
    assert!(world.propose(id(3), "from the past").is_none());
}

#[test]
fn a_hung_leader_answers_no_read_from_the_past() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 5);
    world.hang(id(3), Span::from_ms(2000));
    world.run_until(2000, |world| world.leader() == Some(id(2)));
    world.run_ms(100);
    assert!(world.propose(id(2), "new").is_some());
    world.run_ms(100);
    // It wakes, and is asked before it has read what waits for it. The harness checks each answer against what was
    // committed when it was asked.
    world.hang(id(3), Span(0));
    assert_eq!(world.cluster(id(3)).role(), Role::Leader);
    let before = world.servers[&id(3)].reads_done;
    world.read(id(3));
    world.run_ms(2000);
    assert_eq!(world.cluster(id(3)).leader(), Some(id(2)));
    assert_eq!(
        world.servers[&id(3)].reads_done,
        before + 1,
        "the new leader answers it"
    );
}

#[test]
fn a_leader_that_was_cut_off_steps_down_and_reads_there_end_without_an_answer() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 6);
    world.cut(id(3), id(1));
    world.cut(id(3), id(2));
    world.read(id(3));
    let done = world.servers[&id(3)].reads_done;
    world.run_ms(1000);
    assert_ne!(world.cluster(id(3)).role(), Role::Leader);
    assert_eq!(world.leader(), Some(id(2)));
    world.run_ms(1000);
    assert_eq!(world.servers[&id(3)].reads_done, done);
    assert_eq!(world.reads_waiting(id(3)), 0);
}

#[test]
fn a_partial_partition_keeps_a_stable_leader() {
    for (leader, other) in [(id(3), id(2)), (id(3), id(1))] {
        let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, 7);
        let term = world.cluster(id(3)).term();
        world.cut(leader, other);
        world.run_ms(500);
        world.reset(leader, other);
        world.run_ms(10_000);
        assert_eq!(world.leader(), Some(id(3)));
        assert_eq!(
            world.cluster(id(3)).term(),
            term,
            "nobody disturbs a leader that a majority hears"
        );
        world.propose(id(3), "still here").unwrap();
        world.run_ms(100);
        world.heal();
        world.run_ms(2000);
        assert_eq!(
            (world.cluster(other).leader(), world.cluster(other).term()),
            (Some(id(3)), term)
        );
    }
}

#[test]
fn the_only_server_that_sees_both_others_leads_in_the_end() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, 8);
    world.kill(id(3));
    world.run_until(1000, |world| world.leader() == Some(id(2)));
    world.cut(id(3), id(2));
    world.start(id(3));
    world.run_ms(5000);
    assert_eq!(
        world.leader(),
        Some(id(2)),
        "a server without a link to the leader isn't handed the lead"
    );
    let term = world.cluster(id(2)).term();
    world.run_ms(5000);
    assert_eq!(world.cluster(id(2)).term(), term);
}

#[test]
fn the_preferred_server_gets_the_lead_back_and_nothing_is_lost() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, 9);
    world.kill(id(3));
    world.run_until(1000, |world| world.leader() == Some(id(2)));
    world.start(id(3));
    let mut sent = Vec::new();
    let begin = world.now;
    while world.leader() != Some(id(3)) {
        assert!(world.now.since(begin) < Span::from_ms(5000));
        sent.extend(world.propose(id(2), "on the way"));
        world.run_ms(1);
    }
    assert!(
        world.now.since(begin) >= Span::from_ms(2000),
        "not before it has been back for 2 s"
    );
    world.run_ms(100);
    assert!(
        sent.iter().all(|index| world.committed.contains_key(index)),
        "what was proposed before is committed"
    );
}

#[test]
fn a_sticky_leader_stays() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 10);
    world.kill(id(3));
    world.run_until(1000, |world| world.leader() == Some(id(2)));
    world.start(id(3));
    world.run_ms(10_000);
    assert_eq!(world.leader(), Some(id(2)));
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, 11);
    world.act(id(3), |cluster, now| cluster.stop(now));
    assert!(!world.act(id(3), |cluster, now| cluster.stopped(now)).unwrap());
    let took = world.run_until(1000, |world| world.leader() == Some(id(2)));
    assert!(took < Span::from_ms(50), "{took:?}");
    world.run_ms(5);
    assert!(world.act(id(3), |cluster, now| cluster.stopped(now)).unwrap());
    world.run_ms(5000);
    assert_eq!(world.leader(), Some(id(2)), "a server that stops isn't handed the lead");
}

#[test]
fn a_stalled_disk_deposes_only_its_own_leader() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 12);
    let term = world.cluster(id(3)).term();
    world.stall(id(2), Span::from_ms(3000));
    world.stall(id(1), Span::from_ms(450));
    world.propose(id(3), "slow");
    world.run_ms(4000);
    assert_eq!((world.leader(), world.cluster(id(3)).term()), (Some(id(3)), term));
    world.stall(id(3), Span::from_ms(5000));
    world.propose(id(3), "slower");
    world.run_ms(2000);
    assert_eq!(world.leader(), Some(id(2)));
    assert!(world.said("its disk hasn't answered"));
}

#[test]
fn formation_needs_all_servers() {
    for election in [Election::Highest, Election::Lcr] {
        let mut world = World::new(config(3, election, LeaderMode::Sticky), 3);
        world.start(id(3));
        world.start(id(2));
        world.run_ms(10_000);
        assert!(!world.cluster(id(3)).formed() && !world.cluster(id(2)).formed());
        assert!(world.said("the first start waits for s1"));
        world.start(id(1));
        world.run_until(1000, |world| world.leader().is_some());
        assert_eq!(world.leader(), Some(id(3)), "{:#?}", world.events);
    }
}

#[test]
fn a_cluster_forms_and_elects_without_datagrams() {
    let mut world = World::new(config(3, Election::Highest, LeaderMode::Sticky), 3);
    world.chances.lose_datagram = 100;
    (1..=3).for_each(|n| world.start(id(n)));
    world.run_until(2000, |world| world.leader().is_some());
}

#[test]
fn a_server_that_lost_its_disk_has_no_vote_and_forms_nothing() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 13);
    world.kill(id(1));
    world.replace_disk(id(1));
    world.kill(id(2));
    world.start(id(1));
    world.run_ms(2000);
    assert_eq!(world.cluster(id(1)).role(), Role::Learner);
    world.run_ms(1000);
    let commit = world.cluster(id(3)).commit();
    world.propose(id(3), "not committed");
    world.run_ms(100);
    // What becomes durable here counts what is known of the others once more.
    world.propose(id(3), "nor this");
    world.run_ms(3000);
    assert!(world.leader().is_none(), "one member and a stranger are no majority");
    assert_eq!(world.cluster(id(3)).commit(), commit, "a stranger's disk doesn't count");
    assert!(world.said("new data directory"));
}

#[test]
fn another_set_of_servers_is_refused_by_name() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 14);
    world.kill(id(1));
    world.config = config(5, Election::Highest, LeaderMode::Sticky).into();
    let error = world.try_start(id(1)).unwrap_err();
    assert!(error.contains("s4 is in the configuration and not a member"), "{error}");
}

#[test]
fn states_that_differ_are_reported_once() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 15);
    world.act(id(1), |cluster, _| cluster.digest(LogIndex(1024), 7));
    world.run_ms(300);
    for (n, value) in [(2, 7), (3, 8)] {
        world.act(id(n), |cluster, _| cluster.digest(LogIndex(1024), value));
    }
    world.run_ms(1000);
    let said = |n| {
        let ours = |&&(_, server, level, ref text): &&(Tick, ServerId, Level, String)| {
            server == id(n) && level == Level::Error && text.contains("differs from ours at index 1024")
        };
        world.events.iter().filter(ours).count()
    };
    assert_eq!((said(1), said(2), said(3)), (1, 1, 2));
}

#[test]
fn the_tokens_of_a_ring_election_go_from_neighbour_to_neighbour() {
    let mut world = World::settled(4, Election::Lcr, LeaderMode::Sticky, 16);
    world.events.clear();
    world.kill(id(4));
    world.run_until(1000, |world| world.leader().is_some());
    assert_eq!(world.leader(), Some(id(3)));
    let hop = |origin: usize, hop: usize, to: usize| {
        world.events.iter().any(|(_, _, level, text)| {
            *level == Level::Debug
                && text.contains(&format!("token of s{origin} "))
                && text.contains(&format!("hop {hop}, "))
                && text.ends_with(&format!("to s{to}"))
        })
    };
    assert!(hop(3, 1, 1) && hop(3, 2, 2) && hop(3, 3, 3), "{:#?}", world.events);
    assert!(world.said("the token of s3 is back"));
    assert!(!hop(1, 2, 3), "s2 doesn't pass on a token that is worse than its own");
}

#[test]
fn a_follower_far_behind_is_fed_from_the_disk() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Sticky, 17);
    world.kill(id(1));
    for _ in 0..200 {
        world.propose(id(3), "while it was away");
        world.run_ms(1);
    }
    // Its cache is empty after a restart, so everything has to be read.
    world.run_ms(100);
    for n in [3, 2] {
        world.kill(id(n));
        world.start(id(n));
    }
    world.run_until(3000, |world| world.leader().is_some());
    world.start(id(1));
    world.run_ms(1000);
    assert_eq!(world.cluster(id(1)).last(), world.cluster(id(2)).last());
}

#[test]
fn one_server_alone_forms_elects_and_commits() {
    let mut world = World::new(config(1, Election::Lcr, LeaderMode::Preferred), 18);
    world.start(id(1));
    let took = world.run_until(1000, |world| world.leader().is_some());
    assert!(took < Span::from_ms(50), "{took:?}");
    world.run_ms(10);
    world.propose(id(1), "alone").unwrap();
    world.read(id(1));
    world.run_ms(10);
    assert_eq!(world.cluster(id(1)).commit(), LogIndex(3));
    assert_eq!(world.servers[&id(1)].reads_done, 1);
}

#[test]
fn a_leader_without_room_hands_over_and_leads_again_with_it() {
    let mut world = World::formed(3, Election::Highest, LeaderMode::Preferred, 3);
    let (high, next) = (id(3), id(2));
    world.run_until(3_000, |world| world.leader() == Some(high));
    assert_eq!(world.leader(), Some(high));
    let term = world.cluster(high).term();
    world.act(high, |cluster, now| cluster.set_room(now, false));
    world.run_until(5_000, |world| world.leader() == Some(next));
    assert_eq!(world.leader(), Some(next));
    // In one step: nobody had to be suspected.
    assert_eq!(world.cluster(next).term(), term.next());
    world.run_ms(10_000);
    assert_eq!(world.leader(), Some(next), "without room it isn't preferred");
    world.act(high, |cluster, now| cluster.set_room(now, true));
    world.run_until(10_000, |world| world.leader() == Some(high));
    assert_eq!(world.leader(), Some(high));
}

#[test]
fn a_leader_goes_on_when_nobody_has_room() {
    let mut world = World::formed(3, Election::Highest, LeaderMode::Preferred, 4);
    world.run_until(3_000, |world| world.leader().is_some());
    let leader = world.leader().expect("a leader");
    for server in world.ids() {
        world.act(server, |cluster, now| cluster.set_room(now, false));
    }
    let term = world.cluster(leader).term();
    world.run_ms(10_000);
    assert_eq!((world.leader(), world.cluster(leader).term()), (Some(leader), term));
    // And one that fails is replaced all the same.
    world.kill(leader);
    world.run_until(10_000, |world| world.leader().is_some_and(|other| other != leader));
    assert!(world.leader().is_some_and(|other| other != leader));
}
