//! Disks that lose something, one promise at a time: entries, the whole, or the end of a log; and logs that begin later.

use super::harness::{World, id};
use crate::cluster::Role;
use crate::cluster::message::EntryKind;
use crate::config::{Election, LeaderMode};
use crate::types::{LogIndex, ServerId, Span};

fn settled(servers: usize, seed: u64) -> World {
    World::settled(servers, Election::Highest, LeaderMode::Sticky, seed)
}

fn say(world: &mut World, count: usize) {
    for n in 0..count {
        let leader = world.leader().expect("somebody leads");
        world.propose(leader, &format!("{n}"));
        world.run_ms(2);
    }
    world.run_ms(100);
}

fn is_whole(world: &World, server: ServerId) -> bool {
    let cluster = world.cluster(server);
    cluster.holes() == 0 && world.servers[&server].disk.bad.is_empty() && cluster.durable() == cluster.last().index
}

#[test]
fn what_a_disk_has_lost_is_fetched_from_the_others_and_written_again() {
    for seed in 0..10 {
        let mut world = settled(3, seed);
        say(&mut world, 60);
        world.kill(id(1));
        for index in [5, 6, 7, 30, 60] {
            world.damage(id(1), LogIndex(index), seed % 2 == 0);
        }
        world.start(id(1));
        assert_eq!(world.cluster(id(1)).holes(), 5);
        assert_eq!(world.cluster(id(1)).first_hole(), Some(LogIndex(5)));
        assert_eq!(world.cluster(id(1)).durable(), LogIndex(4), "nothing behind it counts");
        assert!(world.cluster(id(1)).is_repairing());
        world.run_ms(2000);
        assert!(is_whole(&world, id(1)), "seed {seed}: {:#?}", world.tail());
        assert!(world.said("5 entries of the log can't be read (from 5 to 60)"));
        assert!(world.said("all entries of the log can be read again"));
        assert!(!world.cluster(id(1)).is_repairing());
        world.check_same_logs();
    }
}

#[test]
fn a_server_with_holes_neither_stands_nor_is_handed_the_lead() {
    let mut world = World::settled(3, Election::Highest, LeaderMode::Preferred, 40);
    say(&mut world, 30);
    // The others have lost it too, and don't know yet.
    for n in [1, 2, 3] {
        world.damage(id(n), LogIndex(9), true);
        world.act(id(n), |cluster, _| cluster.log.forget(LogIndex(20)));
    }
    world.kill(id(3));
    world.run_until(1000, |world| world.leader() == Some(id(2)));
    world.start(id(3));
    world.run_ms(6000);
    assert_eq!(world.leader(), Some(id(2)), "s3 would be the preferred one");
    assert!(!world.cluster(id(3)).could_lead(), "which heartbeats tell the others");
    assert!(world.said("entry 9 of the log can't be read, and no server that is there has it"));
    world.kill(id(2));
    world.run_ms(10_000);
    assert_eq!(
        world.leader(),
        None,
        "it has been found out that s1 can't read it either"
    );
}

#[test]
fn a_leader_with_a_hole_stays_and_counts_only_the_others() {
    let mut world = settled(3, 41);
    say(&mut world, 30);
    let term = world.cluster(id(3)).term();
    world.damage(id(3), LogIndex(9), true);
    let nowhere = crate::cluster::message::Hole {
        index: LogIndex(9),
        term: None,
    };
    // As after a long time: it is in nobody's memory.
    for n in [1, 2, 3] {
        world.act(id(n), |cluster, _| cluster.log.forget(LogIndex(20)));
    }
    world.stall(id(1), Span::from_ms(2000));
    world.stall(id(2), Span::from_ms(2000));
    world.act(id(3), |cluster, now| cluster.damaged(now, &[nowhere]));
    assert_eq!(world.cluster(id(3)).durable(), LogIndex(8));
    let index = world.propose(id(3), "held by the others only").unwrap();
    world.run_ms(300);
    assert!(world.cluster(id(3)).commit() < index);
    world.run_ms(3000);
    assert!(world.cluster(id(3)).commit() >= index);
    assert_eq!((world.leader(), world.cluster(id(3)).term()), (Some(id(3)), term));
    assert!(is_whole(&world, id(3)), "{:#?}", world.tail());
}

#[test]
fn what_is_still_in_memory_is_written_again_at_once() {
    let mut world = World::formed(1, Election::Highest, LeaderMode::Sticky, 42);
    say(&mut world, 20);
    world.damage(id(1), LogIndex(9), false);
    let hole = crate::cluster::message::Hole {
        index: LogIndex(9),
        term: None,
    };
    world.act(id(1), |cluster, now| cluster.damaged(now, &[hole]));
    world.run_ms(50);
    assert!(is_whole(&world, id(1)));
    world.check_same_logs();
}

#[test]
fn a_hole_that_is_not_known_to_be_committed_comes_from_the_leader() {
    for (seed, says) in [(43, true), (44, false)] {
        let mut world = settled(3, seed);
        say(&mut world, 20);
        world.kill(id(1));
        let end = world.servers[&id(1)].disk.last().index;
        world.damage(id(1), LogIndex(end.0 - 3), says);
        world.damage(id(1), LogIndex(end.0 - 1), says);
        // It had heard of nothing.
        world.servers.get_mut(&id(1)).unwrap().disk.state.commit = LogIndex(2);
        world.start(id(1));
        world.run_ms(3000);
        assert!(is_whole(&world, id(1)), "{:#?}", world.tail());
        world.check_same_logs();
    }
}

#[test]
fn alone_with_a_hole_nothing_is_pretended() {
    let mut world = World::formed(1, Election::Highest, LeaderMode::Sticky, 45);
    say(&mut world, 20);
    world.kill(id(1));
    world.damage(id(1), LogIndex(9), true);
    world.start(id(1));
    world.run_ms(10_000);
    assert_eq!(world.leader(), None);
    assert_eq!(world.cluster(id(1)).durable(), LogIndex(8));
    let told = "entry 9 of the log can't be read, and there is no other server to ask";
    assert!(world.said(told), "{:#?}", world.tail());
    assert!(!world.said("the others are asked") && !world.said("no server that is there"));
}

#[test]
fn a_replaced_disk_is_filled_and_admitted_and_its_vote_counts_again() {
    for servers in [3, 5] {
        for seed in 0..8 {
            let mut world = settled(servers, seed);
            say(&mut world, 40);
            world.kill(id(1));
            let former = world.servers[&id(1)].directory;
            world.replace_disk(id(1));
            world.start(id(1));
            assert_eq!(world.cluster(id(1)).role(), Role::Learner);
            world.run_ms(4000);
            assert_eq!(world.cluster(id(1)).role(), Role::Follower, "{:#?}", world.tail());
            assert!(!world.cluster(id(1)).is_repairing());
            for n in 1..=servers {
                let cluster = world.cluster(id(n));
                assert!(!cluster.is_known(id(1), former), "the former directory is refused");
            }
            // Its vote is needed now.
            let majority = servers / 2 + 1;
            let leader = world.leader().unwrap();
            let killed: Vec<_> = (2..=servers).map(id).filter(|&server| server != leader).collect();
            for server in killed.into_iter().take(servers - majority) {
                world.kill(server);
            }
            let index = world.propose(leader, "with the new disk").unwrap();
            world.run_ms(500);
            assert!(world.cluster(leader).commit() >= index, "{:#?}", world.tail());
            world.check_same_logs();
        }
    }
}

#[test]
fn who_voted_for_the_leader_with_its_lost_disk_is_admitted_only_after_another_election() {
    let mut world = settled(3, 46);
    // The leader was elected by 1 and itself.
    world.kill(id(2));
    world.kill(id(3));
    world.start(id(3));
    world.run_until(5000, |world| world.leader() == Some(id(3)));
    world.run_ms(500);
    let term = world.cluster(id(3)).term();
    world.start(id(2));
    world.run_ms(500);
    world.kill(id(1));
    world.replace_disk(id(1));
    world.start(id(1));
    world.run_ms(4000);
    assert!(world.said("stands again before s1 is admitted"), "{:#?}", world.tail());
    assert!(world.cluster(id(3)).term() > term);
    assert_eq!(world.cluster(id(1)).role(), Role::Follower, "{:#?}", world.tail());
    // Its operator reads both what it is doing and when that is over.
    assert!(world.said("s1 has a new data directory: it is filled by the others"));
    assert!(world.said("s1 holds everything: it has a vote again"));
}

#[test]
fn an_admission_needs_a_majority_of_the_others() {
    let mut world = settled(3, 47);
    say(&mut world, 10);
    world.kill(id(1));
    world.replace_disk(id(1));
    world.start(id(1));
    // The learner gets the entry, the other member doesn't.
    world.run_until(3000, |world| {
        let latest = world.cluster(id(3)).roster.is_settled();
        !latest
    });
    world.stall(id(2), Span::from_ms(400));
    let commit = world.cluster(id(3)).commit();
    let admission = world.cluster(id(3)).last().index;
    world.run_ms(300);
    assert!(
        world.servers[&id(1)].disk.last().index >= admission,
        "the learner has it"
    );
    if world.servers[&id(2)].disk.last().index < admission {
        assert!(
            world.cluster(id(3)).commit() < admission,
            "and it is committed without a member"
        );
    }
    assert!(world.cluster(id(3)).commit() >= commit);
    world.run_ms(2000);
    assert_eq!(world.cluster(id(1)).role(), Role::Follower);
}

#[test]
fn an_admission_that_is_cut_off_puts_the_former_members_back() {
    let mut world = settled(3, 48);
    say(&mut world, 10);
    world.kill(id(1));
    let (former, disk) = (world.servers[&id(1)].directory, world.servers[&id(1)].disk.clone());
    world.replace_disk(id(1));
    world.start(id(1));
    world.run_until(3000, |world| !world.cluster(id(3)).roster.is_settled());
    // Nobody else gets it: the leader dies with it, and the lost disk turns up again.
    world.kill(id(1));
    world.cut(id(3), id(2));
    world.run_ms(50);
    let admission = world.servers[&id(3)].disk.last().index;
    if world.servers[&id(2)].disk.last().index >= admission {
        return;
    }
    world.kill(id(3));
    let it = world.servers.get_mut(&id(1)).unwrap();
    (it.directory, it.disk, it.replaced) = (former, disk, false);
    world.start(id(1));
    world.run_until(5000, |world| world.leader().is_some());
    say(&mut world, 5);
    world.heal();
    world.start(id(3));
    world.run_ms(3000);
    assert_eq!(world.cluster(id(1)).role(), Role::Follower);
    assert!(world.cluster(id(3)).is_member(id(1), former), "{:#?}", world.tail());
    world.check_same_logs();
}

#[test]
fn a_cluster_of_which_all_but_one_disk_was_replaced_in_turn_goes_on() {
    for servers in [3, 5] {
        let mut world = settled(servers, 49);
        for n in (1..=servers).rev() {
            say(&mut world, 10);
            world.kill(id(n));
            world.run_until(3000, |world| world.leader().is_some());
            world.replace_disk(id(n));
            world.start(id(n));
            world.run_ms(5000);
            assert_eq!(world.cluster(id(n)).holes(), 0);
            assert_ne!(world.cluster(id(n)).role(), Role::Learner, "{n}: {:#?}", world.tail());
        }
        // One that was away all the time would follow a leader whose directory it has never heard of.
        say(&mut world, 10);
        world.check_same_logs();
    }
}

#[test]
fn a_server_that_was_away_follows_a_leader_that_was_admitted_meanwhile() {
    let mut world = settled(5, 50);
    say(&mut world, 10);
    world.kill(id(1));
    for n in [5, 4] {
        world.kill(id(n));
        world.run_until(3000, |world| world.leader().is_some());
        world.replace_disk(id(n));
        world.start(id(n));
        world.run_ms(5000);
    }
    // Only the admitted ones and one more are left, and the one that comes back.
    let heir = id(5);
    for n in [2, 3, 4] {
        world.run_until(5000, |world| world.leader().is_some());
        if world.leader() == Some(id(n)) {
            world.act(id(n), |cluster, now| cluster.stop(now));
            world.run_ms(500);
            world.kill(id(n));
            world.start(id(n));
            world.run_ms(500);
        }
    }
    assert_eq!(world.leader(), Some(heir), "{:#?}", world.tail());
    world.start(id(1));
    world.run_ms(2000);
    assert_eq!(world.cluster(id(1)).leader(), Some(heir));
    assert_eq!(world.cluster(id(1)).last(), world.cluster(heir).last());
}

#[test]
fn replaced_disks_form_no_cluster() {
    let mut world = settled(3, 51);
    for n in 1..=3 {
        world.kill(id(n));
        world.replace_disk(id(n));
    }
    (1..=3).for_each(|n| world.start(id(n)));
    world.run_ms(10_000);
    assert!((1..=3).all(|n| !world.cluster(id(n)).formed()));
    assert!(world.said("its data directory is new in the place of another"));
}

#[test]
fn a_disk_that_forgot_what_it_had_acknowledged_is_told_so() {
    for seed in 0..10 {
        let mut world = settled(3, 52 + seed);
        say(&mut world, 30);
        world.kill(id(1));
        let it = world.servers.get_mut(&id(1)).unwrap();
        let end = it.disk.last().index;
        it.disk.log.retain(|index, _| index.0 + 5 <= end.0);
        it.disk.state.commit = it.disk.state.commit.min(it.disk.last().index);
        world.start(id(1));
        world.run_ms(1000);
        let said = world.servers[&id(1)].renounced.clone();
        assert!(
            said.is_some_and(|text| text.contains("the disk has lost something")),
            "{:#?}",
            world.tail()
        );
        assert!(world.said("the log of s1 ends at"));
        // It doesn't count until it has begun anew.
        world.kill(id(2));
        let index = world.propose(id(3), "alone").unwrap();
        world.run_ms(300);
        assert!(world.cluster(id(3)).commit() < index);
        world.start(id(2));
        world.kill(id(1));
        world.replace_disk(id(1));
        world.start(id(1));
        world.run_ms(5000);
        assert_eq!(world.cluster(id(1)).role(), Role::Follower, "{:#?}", world.tail());
    }
}

#[test]
fn a_restart_or_a_reset_link_is_no_loss() {
    let mut world = settled(3, 62);
    for n in 0..40 {
        world.propose(id(3), "x");
        world.run_ms(n % 7);
        match n % 4 {
            0 => world.reset(id(1), id(3)),
            1 => {
                world.kill(id(2));
                world.start(id(2));
            }
            _ => {}
        }
        world.run_ms(n * 7 % 300);
    }
    world.run_ms(1000);
    assert!(!world.said("its disk has lost something"), "{:#?}", world.tail());
}

#[test]
fn a_server_far_behind_gets_the_checkpoint_and_then_the_log() {
    for seed in 0..10 {
        let mut world = settled(3, 63 + seed);
        world.kill(id(1));
        say(&mut world, 60);
        let index = LogIndex(world.cluster(id(3)).commit().0 - 10);
        world.trim(id(3), index);
        world.trim(id(2), index);
        if seed % 2 == 0 {
            world.replace_disk(id(1));
        }
        world.start(id(1));
        world.run_ms(200);
        // What has arrived isn't sent again, whoever leads.
        world.reset(id(1), id(3));
        if seed % 3 == 0 {
            world.kill(id(3));
            world.run_ms(2000);
            world.start(id(3));
        }
        world.run_ms(6000);
        assert_eq!(world.servers[&id(1)].installed, 1, "seed {seed}: {:#?}", world.tail());
        assert_eq!(world.cluster(id(1)).base().index, index);
        assert_eq!(world.cluster(id(1)).role(), Role::Follower, "{:#?}", world.tail());
        assert_eq!(world.applied(id(1)), world.cluster(world.leader().unwrap()).commit());
        world.check_same_logs();
        // It stands on its own feet afterwards.
        world.kill(id(1));
        world.start(id(1));
        say(&mut world, 5);
        world.run_ms(1000);
        assert_eq!(
            world.cluster(id(1)).last(),
            world.cluster(world.leader().unwrap()).last()
        );
    }
}

#[test]
fn a_leader_without_a_checkpoint_says_so_and_goes_on_when_it_has_one() {
    let mut world = settled(3, 73);
    world.kill(id(1));
    say(&mut world, 40);
    for n in [2, 3] {
        world.trim(id(n), LogIndex(30));
    }
    let kept = world.servers.get_mut(&id(3)).unwrap().disk.checkpoint.take();
    world.start(id(1));
    world.run_ms(2500);
    assert!(world.said("there is no checkpoint to send it"));
    assert_eq!(world.cluster(id(1)).leader(), Some(id(3)), "it stays loyal meanwhile");
    world.servers.get_mut(&id(3)).unwrap().disk.checkpoint = kept;
    world.run_ms(3000);
    assert_eq!(world.cluster(id(1)).last(), world.cluster(id(3)).last());
}

#[test]
fn a_hole_that_nobody_keeps_is_covered_by_a_checkpoint() {
    let mut world = settled(3, 74);
    say(&mut world, 10);
    world.kill(id(1));
    world.damage(id(1), LogIndex(6), true);
    say(&mut world, 40);
    for n in [2, 3] {
        world.trim(id(n), LogIndex(40));
    }
    world.start(id(1));
    world.run_ms(8000);
    assert_eq!(world.servers[&id(1)].installed, 1, "{:#?}", world.tail());
    assert!(is_whole(&world, id(1)));
    assert_eq!(world.cluster(id(1)).last(), world.cluster(id(3)).last());
}

#[test]
fn a_leader_with_a_hole_that_nobody_keeps_hands_over_and_begins_anew() {
    let mut world = settled(3, 77);
    say(&mut world, 50);
    for n in [1, 2] {
        world.trim(id(n), LogIndex(40));
    }
    world.damage(id(3), LogIndex(6), true);
    let hole = crate::cluster::message::Hole {
        index: LogIndex(6),
        term: None,
    };
    world.act(id(3), |cluster, _| cluster.log.forget(LogIndex(20)));
    world.act(id(3), |cluster, now| cluster.damaged(now, &[hole]));
    world.run_ms(6_000);
    assert!(
        world.said("hands the lead over to s2: it can't read entries"),
        "{:#?}",
        world.tail()
    );
    assert_eq!(world.leader(), Some(id(2)));
    assert!(world.servers[&id(3)].renounced.is_some(), "{:#?}", world.tail());
}

#[test]
fn who_finds_a_hole_while_standing_stands_no_more() {
    let mut world = settled(3, 78);
    say(&mut world, 30);
    world.kill(id(2));
    world.kill(id(3));
    let hole = crate::cluster::message::Hole {
        index: LogIndex(9),
        term: None,
    };
    world.run_ms(1500);
    world.act(id(1), |cluster, _| cluster.become_candidate(false));
    assert_eq!(world.cluster(id(1)).role(), Role::Candidate);
    world.act(id(1), |cluster, _| cluster.log.forget(LogIndex(20)));
    world.damage(id(1), LogIndex(9), true);
    world.act(id(1), |cluster, now| cluster.damaged(now, &[hole]));
    assert_eq!(world.cluster(id(1)).role(), Role::Follower);
    world.start(id(3));
    world.run_ms(3000);
    assert_eq!(world.leader(), Some(id(3)));
    assert!(is_whole(&world, id(1)), "{:#?}", world.tail());
}

#[test]
fn holes_in_what_is_not_kept_any_more_are_forgotten() {
    let mut world = settled(1, 75);
    say(&mut world, 30);
    let hole = crate::cluster::message::Hole {
        index: LogIndex(9),
        term: None,
    };
    world.act(id(1), |cluster, _| cluster.log.forget(LogIndex(20)));
    world.act(id(1), |cluster, now| cluster.damaged(now, &[hole]));
    assert_eq!(world.cluster(id(1)).holes(), 1);
    world.trim(id(1), LogIndex(20));
    assert_eq!(
        (world.cluster(id(1)).holes(), world.cluster(id(1)).base().index),
        (0, LogIndex(20))
    );
    assert!(
        world
            .act(id(1), |cluster, now| cluster.propose(
                now,
                EntryKind::Noop,
                crate::types::Blob::empty()
            ))
            .is_some()
    );
}

#[test]
fn a_commit_that_another_knows_is_known_here_if_it_is_the_same_entry() {
    let mut world = settled(3, 76);
    say(&mut world, 20);
    let commit = world.cluster(id(3)).commit();
    (1..=3).for_each(|n| world.kill(id(n)));
    for n in [1, 2] {
        world.servers.get_mut(&id(n)).unwrap().disk.state.commit = LogIndex(1);
    }
    world.servers.get_mut(&id(3)).unwrap().disk.state.commit = commit;
    world.cut(id(1), id(2));
    world.start(id(1));
    world.start(id(3));
    world.run_until(100, |world| world.cluster(id(1)).commit() == commit);
}

#[test]
fn states_agree_as_far_as_a_majority_says_so() {
    let mut world = settled(3, 77);
    let agreed = |world: &World| world.cluster(id(3)).agreed();
    assert_eq!(agreed(&world), LogIndex(0));
    world.act(id(3), |cluster, _| cluster.digest(LogIndex(1024), 7));
    world.run_ms(300);
    assert_eq!(agreed(&world), LogIndex(0), "its own word is no majority");
    world.act(id(2), |cluster, _| cluster.digest(LogIndex(1024), 8));
    world.run_ms(300);
    assert_eq!(agreed(&world), LogIndex(0), "nor is another opinion");
    world.act(id(1), |cluster, _| cluster.digest(LogIndex(1024), 7));
    world.run_ms(300);
    assert_eq!(agreed(&world), LogIndex(1024));
    world.act(id(3), |cluster, _| cluster.digest(LogIndex(2048), 9));
    world.run_ms(300);
    assert_eq!(agreed(&world), LogIndex(1024));
}
