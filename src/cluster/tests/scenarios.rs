//! One promise at a time.

use super::harness::{World, config, id};
use crate::config::{Election, LeaderMode};
use crate::types::Span;

#[test]
fn a_killed_leader_is_replaced_by_the_highest_without_waiting() {
    for election in [Election::Highest, Election::Lcr] {
        let mut world = World::formed(3, election, LeaderMode::Preferred, 1);
        world.run_until(5000, |world| world.leader() == Some(id(3)));
        world.run_ms(500);
        world.kill(id(3));
        let took = world.run_until(100, |world| world.leader().is_some());
        assert_eq!(world.leader(), Some(id(2)));
        assert!(took < Span::from_ms(20), "{took:?}");
    }
}

#[test]
fn formation_needs_all_servers() {
    let mut world = World::new(config(3, Election::Highest, LeaderMode::Sticky), 3);
    world.start(id(3));
    world.start(id(2));
    world.run_ms(10_000);
    assert!(!world.cluster(id(3)).formed() && !world.cluster(id(2)).formed());
    assert!(world.said("the first start waits for s1"));
    world.start(id(1));
    let took = world.run_until(1000, |world| world.leader().is_some());
    assert!(took < Span::from_ms(300), "{took:?}");
    assert_eq!(world.leader(), Some(id(3)));
}
