//! Real processes under real faults: clusters of three and five servers on hosts of their own, in network namespaces that each test makes
//! and removes. People write and read through `syncnet` all the time; at the end, every server must have what was acknowledged, in
//! order, once, and `syncnetctl status` must never have named two leaders of a term.
//!
//! Each test here lets some kinds of faults happen; `scripts/torture.sh` runs all of them for as long as wanted, and says what each has cost.
//! Needs root, `ip`, `nft`, `nsenter` and loop devices; where the rights are missing, tests say that they skip.
//! Clocks of machines that differ can't be had with real processes on one kernel: the simulator has them.

mod support;

#[path = "torture/checker.rs"]
mod checker;
#[path = "processes/damage/data.rs"]
mod data;
#[path = "torture/disk.rs"]
mod disk;
#[path = "torture/faults.rs"]
mod faults;
#[path = "torture/load.rs"]
mod load;
#[path = "torture/relay.rs"]
mod relay;
#[path = "torture/rig.rs"]
mod rig;
#[path = "torture/table.rs"]
mod table;
#[path = "torture/trial.rs"]
mod trial;
#[path = "torture/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use disk::say;
use faults::{ALL, Kind};
use syncnet::rng::Rng;
use table::Table;
use trial::{Mode, Trial};

/// A cluster suffers these faults, one after the other, and keeps every promise.
fn survives(servers: usize, mode: Mode, kinds: &[Kind]) {
    let Some(mut trial) = Trial::begin(servers, mode) else {
        return;
    };
    let mut rng = Rng::new(1);
    for kind in kinds {
        if let Some(episode) = trial.suffer(*kind, &mut rng) {
            println!("{}: {:?}, healthy after {:?}", kind.name(), episode.gap, episode.healed);
        }
    }
    trial.end();
}

#[test]
fn killed_servers_lose_nothing() {
    survives(
        3,
        Mode::Usual,
        &[Kind::KillLeader, Kind::KillFollowers, Kind::RestartAll],
    );
}

#[test]
fn hung_servers_lose_nothing() {
    survives(
        3,
        Mode::Usual,
        &[Kind::HangLeader, Kind::HangFollowers, Kind::ClientKilled],
    );
}

#[test]
fn a_rolling_restart_loses_nothing() {
    survives(3, Mode::Redirect, &[Kind::RollingRestart, Kind::KillLeader]);
}

#[test]
fn partitions_lose_nothing() {
    survives(3, Mode::Usual, &[Kind::Split, Kind::LeaderAlone, Kind::LeaderUnplugged]);
}

#[test]
fn partitions_of_a_part_lose_nothing() {
    let kinds = [
        Kind::LeaderUnheard,
        Kind::LeaderDeaf,
        Kind::PairCut,
        Kind::LeaderPortCut,
    ];
    survives(3, Mode::Usual, &kinds);
}

#[test]
fn one_protocol_without_the_other_loses_nothing() {
    survives(3, Mode::Usual, &[Kind::DatagramsCut, Kind::TcpCut]);
}

#[test]
fn bad_networks_lose_nothing() {
    survives(3, Mode::Usual, &[Kind::Loss, Kind::SlowNetwork]);
}

#[test]
fn damaged_logs_lose_nothing() {
    survives(3, Mode::Usual, &[Kind::TornEnd, Kind::FlippedBit]);
}

#[test]
fn bad_disks_lose_nothing() {
    survives(3, Mode::Usual, &[Kind::SlowDisk, Kind::HungDisk, Kind::FullDisk]);
}

#[test]
fn a_server_without_descriptors_loses_nothing() {
    survives(3, Mode::Usual, &[Kind::Descriptors]);
}

#[test]
fn the_ring_election_loses_nothing() {
    survives(3, Mode::Ring, &[Kind::KillLeader, Kind::PairCut, Kind::LeaderAlone]);
}

#[test]
fn a_sticky_leader_loses_nothing() {
    survives(
        3,
        Mode::Sticky,
        &[Kind::HangLeader, Kind::KillLeader, Kind::LeaderUnheard],
    );
}

#[test]
fn heartbeats_by_unicast_lose_nothing() {
    survives(
        3,
        Mode::Unicast,
        &[Kind::KillLeader, Kind::SlowNetwork, Kind::DatagramsCut],
    );
}

#[test]
fn five_servers_lose_nothing() {
    survives(
        5,
        Mode::Usual,
        &[Kind::KillLeader, Kind::Split, Kind::PairCut, Kind::KillFollowers],
    );
}

/// Tests that all skip prove nothing: where namespaces can be made, so can a rig.
#[test]
fn nothing_skips_where_namespaces_can_be_made() {
    let Some(why) = rig::missing() else { return };
    assert!(
        rig::can("unshare", &["--net", "true"]).is_err(),
        "network namespaces can be made here, and yet no test can run: {why}"
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// So many faults happen to a cluster before the next one is made.
const FAULTS_A_CLUSTER: usize = 8;

/// All kinds of faults, or those whose names contain `SYNCNET_ONLY`, for `SYNCNET_MINUTES`, drawn by `SYNCNET_SEED`, on `SYNCNET_SERVERS`
/// servers: what `scripts/torture.sh` calls.
#[test]
fn long() {
    let Some(minutes) = number("SYNCNET_MINUTES") else {
        return;
    };
    let (seed, servers) = (
        number("SYNCNET_SEED").unwrap_or(1),
        number("SYNCNET_SERVERS").unwrap_or(3),
    );
    let only = std::env::var("SYNCNET_ONLY").unwrap_or_default();
    let wanted: Vec<Kind> = ALL
        .iter()
        .filter(|(_, name)| name.contains(&only))
        .map(|(kind, _)| *kind)
        .collect();
    assert!(!wanted.is_empty(), "no kind of fault is called {only:?}");
    let (began, time) = (Instant::now(), Duration::from_secs(minutes * 60));
    let mut rng = Rng::new(seed);
    let mut table = Table::default();
    let mut can_freeze = false;
    // Shuffled and dealt out, so that each comes before any comes twice.
    let (mut kinds, mut modes): (Vec<Kind>, Vec<Mode>) = (Vec::new(), Vec::new());
    while began.elapsed() < time {
        if modes.is_empty() {
            modes = Mode::ALL.to_vec();
            rng.shuffle(&mut modes);
        }
        let mode = modes.pop().expect("it was filled");
        let mut trial = Trial::begin(servers as usize, mode).expect("the rights for a cluster on hosts of its own");
        can_freeze |= trial.disks.can_freeze;
        say(&format!("a cluster: {}", mode.name()));
        table.clusters.push(mode);
        for _ in 0..FAULTS_A_CLUSTER {
            if kinds.is_empty() {
                kinds.clone_from(&wanted);
                rng.shuffle(&mut kinds);
            }
            let kind = kinds.pop().expect("it was filled");
            let at = began.elapsed().as_secs();
            if let Some(episode) = trial.suffer(kind, &mut rng) {
                let (gap, healed) = (episode.gap.as_millis(), episode.healed.as_millis());
                let (minute, second, name, to) = (at / 60, at % 60, kind.name(), &episode.to);
                say(&format!(
                    "{minute:3}:{second:02} {name:<42} gap {gap:>6} ms, healthy after {healed:>6} ms  {to}"
                ));
                table.episodes.push(episode);
            }
            if began.elapsed() >= time {
                break;
            }
        }
        trial.end();
    }
    say(&format!("\n{}", table.text()));
    let missing = if only.is_empty() {
        table.missing(can_freeze)
    } else {
        Vec::new()
    };
    assert!(missing.is_empty(), "never seen in {minutes} minutes: {missing:#?}");
}
