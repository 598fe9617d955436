//! The kinds of faults: what is done to the cluster, what must still work meanwhile, and how it is undone.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use syncnet::rng::Rng;

use super::data;
use super::relay::{Relay, Slowness};
use super::rig::{Rules, move_to};
use super::trial::Trial;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillLeader,
    KillFollowers,
    HangLeader,
    HangFollowers,
    RestartAll,
    RollingRestart,
    Split,
    LeaderAlone,
    LeaderUnplugged,
    LeaderUnheard,
    LeaderDeaf,
    PairCut,
    LeaderPortCut,
    DatagramsCut,
    TcpCut,
    Loss,
    SlowNetwork,
    TornEnd,
    FlippedBit,
    FullDisk,
    SlowDisk,
    HungDisk,
    Descriptors,
    ClientKilled,
}

/// All kinds, with what the table calls them. Those with a star leave no majority that works together until they end.
pub const ALL: [(Kind, &str); 24] = [
    (Kind::KillLeader, "leader killed (SIGKILL)"),
    (Kind::KillFollowers, "a minority of followers killed"),
    (Kind::HangLeader, "leader hung (SIGSTOP)"),
    (Kind::HangFollowers, "a minority of followers hung"),
    (Kind::RestartAll, "* all killed at once and started"),
    (Kind::RollingRestart, "all stopped and started, one by one"),
    (Kind::Split, "partition, minority and majority"),
    (Kind::LeaderAlone, "leader cut off from the servers"),
    (Kind::LeaderUnplugged, "leader cut off from everybody"),
    (Kind::LeaderUnheard, "one way: nobody hears the leader"),
    (Kind::LeaderDeaf, "one way: the leader hears nobody"),
    (Kind::PairCut, "two servers cut, all others see both"),
    (Kind::LeaderPortCut, "the leader's peer port cut"),
    (Kind::DatagramsCut, "datagrams cut, TCP works"),
    (Kind::TcpCut, "* TCP between servers cut, datagrams work"),
    (Kind::Loss, "5 to 20 of 100 packets lost"),
    (Kind::SlowNetwork, "delayed, repeated, reordered"),
    (Kind::TornEnd, "killed, the log's end torn"),
    (Kind::FlippedBit, "killed, a bit of the log flipped"),
    (Kind::FullDisk, "leader's disk full"),
    (Kind::SlowDisk, "a minority of slow disks"),
    (Kind::HungDisk, "leader's disk hangs"),
    (Kind::Descriptors, "leader out of descriptors"),
    (Kind::ClientKilled, "a sender killed, run again with its --id"),
];

impl Kind {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Whether it needs a disk that can be frozen.
    pub fn needs_freezing(self) -> bool {
        matches!(self, Kind::SlowDisk | Kind::HungDisk)
    }

    /// Does it to a cluster that is well, demands meanwhile what must hold, and undoes it.
    pub fn happen(self, trial: &mut Trial, rng: &mut Rng) {
        let all = trial.ids();
        let leader = trial.leader();
        let leader_at = all.iter().position(|id| *id == leader).expect("a server leads") + 1;
        let minority = |rng: &mut Rng, of: &[String]| -> Vec<String> {
            let mut some = of.to_vec();
            rng.shuffle(&mut some);
            some.truncate((all.len() - 1) / 2);
            some
        };
        let followers: Vec<String> = all.iter().filter(|id| **id != leader).cloned().collect();
        let others = || (1..=all.len()).filter(|n| *n != leader_at);
        match self {
            Kind::KillLeader => killed(trial, &[leader]),
            Kind::KillFollowers => killed(trial, &minority(rng, &followers)),
            Kind::HangLeader => hung(trial, &[leader]),
            Kind::HangFollowers => hung(trial, &minority(rng, &followers)),
            Kind::RestartAll => {
                all.iter().for_each(|id| trial.cluster.kill(id));
                trial.cluster.launch_all();
            }
            Kind::RollingRestart => rolling_restart(trial, &all),
            Kind::Split => {
                let apart = minority(rng, &all);
                let mut rules = Rules::default();
                for (a, id) in all.iter().enumerate().filter(|(_, id)| apart.contains(id)) {
                    let majority = all.iter().enumerate().filter(|(_, other)| !apart.contains(other));
                    for (b, _) in majority {
                        rules = rules.between(a + 1, b + 1);
                    }
                    trial.note(id);
                }
                works_with(trial, &rules);
            }
            Kind::LeaderAlone => {
                let rules = others().fold(Rules::default(), |rules, n| rules.between(leader_at, n));
                works_with(trial, &rules);
            }
            Kind::LeaderUnplugged => {
                let rules = others().fold(Rules::default(), |rules, n| rules.between(leader_at, n));
                works_with(trial, &rules.without_clients(leader_at));
            }
            Kind::LeaderUnheard => {
                let rules = others().fold(Rules::default(), |rules, n| rules.one_way(leader_at, n));
                works_with(trial, &rules);
            }
            Kind::LeaderDeaf => {
                let rules = others().fold(Rules::default(), |rules, n| rules.one_way(n, leader_at));
                works_with(trial, &rules);
            }
            Kind::PairCut => {
                // With the leader or without it.
                let mut pair: Vec<usize> = (1..=all.len()).collect();
                rng.shuffle(&mut pair);
                pair.truncate(2);
                pair.iter().for_each(|n| trial.note(&all[n - 1]));
                works_with(trial, &Rules::default().between(pair[0], pair[1]));
            }
            Kind::LeaderPortCut => {
                let port = trial.cluster.servers[leader_at - 1].peer_port;
                works_with(trial, &Rules::default().tcp_port(port));
            }
            Kind::DatagramsCut => works_with(trial, &Rules::default().datagrams()),
            Kind::TcpCut => {
                let ports = trial.cluster.servers.iter().map(|server| server.peer_port);
                let rules = ports.fold(Rules::default(), Rules::tcp_port);
                trial.rig.set(&rules);
                thread::sleep(Duration::from_millis(rng.between(1500, 4000)));
                heal(trial);
            }
            Kind::Loss => works_with(trial, &Rules::default().loss(rng.between(5, 20))),
            Kind::SlowNetwork => slow_network(trial, rng),
            Kind::TornEnd => {
                let id = rng.pick(&all).expect("a server").clone();
                changed_between_runs(trial, &id, data::tear);
            }
            Kind::FlippedBit => {
                let id = rng.pick(&all).expect("a server").clone();
                trial.watch.forget(&id);
                let draw = rng.draw();
                changed_between_runs(trial, &id, |data| flip_somewhere(data, &mut Rng::new(draw)));
            }
            Kind::FullDisk => full_disk(trial, &leader),
            Kind::SlowDisk => slow_disks(trial, &minority(rng, &all), rng),
            Kind::HungDisk => {
                trial.disks.freeze(&leader);
                // Also when it doesn't: a process that waits for a frozen disk can't even be killed.
                let id = leader.clone();
                let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trial.works("its disk hangs")));
                trial.disks.thaw(&id);
                worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            Kind::Descriptors => out_of_descriptors(trial, &leader, leader_at),
            Kind::ClientKilled => trial.pass_by(),
        }
    }
}

/// Messages are acknowledged while packets are dropped by these rules.
fn works_with(trial: &mut Trial, rules: &Rules) {
    trial.rig.set(rules);
    trial.works("some packets are dropped");
    heal(trial);
}

/// Ends a cut, which must have been one.
fn heal(trial: &Trial) {
    assert!(trial.rig.dropped() > 0, "no packet was dropped");
    trial.rig.heal();
}

fn killed(trial: &mut Trial, ids: &[String]) {
    for id in ids {
        trial.note(id);
        trial.cluster.kill(id);
    }
    trial.works("some are killed");
    for id in ids {
        trial.cluster.launch(id);
    }
}

fn hung(trial: &mut Trial, ids: &[String]) {
    for id in ids {
        trial.note(id);
        trial.cluster.signal(id, Signal::STOP);
    }
    trial.works("some are hung");
    for id in ids {
        trial.cluster.signal(id, Signal::CONT);
    }
}

fn rolling_restart(trial: &mut Trial, all: &[String]) {
    for id in all {
        let (status, _) = trial.cluster.stop(id);
        assert_eq!(status.code(), Some(0), "{id}, asked to stop");
        trial.works("one is being restarted");
        trial.cluster.launch(id);
        trial.await_healthy();
    }
}

fn slow_network(trial: &mut Trial, rng: &mut Rng) {
    let least = rng.between(0, 10);
    let slowness = Slowness {
        least: Duration::from_millis(least),
        most: Duration::from_millis(least + rng.between(5, 40)),
        repeated: rng.between(5, 50),
    };
    let relay = Relay::start(&trial.rig, &trial.cluster, trial.unicast, slowness, rng);
    trial.works("the network is slow");
    let (pieces, datagrams) = relay.carried();
    assert!(
        pieces > 0 && datagrams > 0,
        "{pieces} pieces and {datagrams} datagrams went through the relay"
    );
}

/// A server is killed, something happens to its data, and it starts again.
fn changed_between_runs(trial: &mut Trial, id: &str, change: impl FnOnce(&Path)) {
    trial.note(id);
    trial.cluster.kill(id);
    change(&trial.disks.data(id));
    trial.cluster.launch(id);
    trial.works("one comes back with damage");
}

/// Flips a bit of a record, anywhere in it.
fn flip_somewhere(data: &Path, rng: &mut Rng) {
    let records: Vec<_> = data::segments(data)
        .iter()
        .flat_map(|segment| data::records(segment))
        .collect();
    let place = rng.pick(&records).expect("a log has records");
    let bytes = fs::metadata(&place.segment).map_or(0, |file| file.len()) as usize;
    let length = place.length().min(bytes - place.offset);
    place.flip(rng.below(length as u64) as usize);
}

fn full_disk(trial: &mut Trial, leader: &str) {
    trial.disks.fill(leader);
    // More than fits into what the log had made ahead of itself.
    trial.write_much();
    trial.works("the leader's disk is full");
    trial.disks.empty(leader);
    let ended = trial.cluster.ended(leader);
    assert!(ended.is_none(), "{leader}, with a full disk: {ended:?}");
}

/// Disks that stand still most of the time, for a while.
fn slow_disks(trial: &mut Trial, ids: &[String], rng: &mut Rng) {
    ids.iter().for_each(|id| trial.note(id));
    let mark = trial.load.mark();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        ids.iter().for_each(|id| trial.disks.freeze(id));
        thread::sleep(Duration::from_millis(rng.between(20, 200)));
        ids.iter().for_each(|id| trial.disks.thaw(id));
        thread::sleep(Duration::from_millis(rng.between(5, 30)));
    }
    trial.load.await_progress(&mark, "disks are slow");
}

/// The leader may open no more descriptors than it has, and somebody connects and connects.
fn out_of_descriptors(trial: &mut Trial, leader: &str, at: usize) {
    let pid = trial.cluster.pid(leader);
    let number = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    let open = fs::read_dir(format!("/proc/{number}/fd")).map_or(0, Iterator::count) as u64;
    let few = |soft: u64, hard: Option<u64>| Rlimit {
        current: Some(soft),
        maximum: hard,
    };
    let before = prlimit(pid, Resource::Nofile, few(open, None)).or_else(|_| {
        let usual = rustix::process::getrlimit(Resource::Nofile);
        prlimit(pid, Resource::Nofile, few(open, usual.maximum))
    });
    let before = before.unwrap_or_else(|error| panic!("the limit of {leader}: {error}"));
    let address = trial.cluster.address(&format!("server{at}"));
    let host = trial.rig.clients();
    let (done, wait) = channel::<()>();
    let crowd = thread::spawn(move || {
        move_to(&host);
        let connect = |_| TcpStream::connect(&address).ok();
        let crowd: Vec<TcpStream> = (0..100).filter_map(connect).collect();
        // Until the others have seen what there was to see.
        let _ = wait.recv();
        crowd.len()
    });
    // Not for ever: that would be no better than a disk that can't be written.
    thread::sleep(Duration::from_millis(1500));
    prlimit(pid, Resource::Nofile, before).unwrap_or_else(|error| panic!("the limit of {leader}: {error}"));
    drop(done);
    let connected = crowd.join().expect("the crowd doesn't panic");
    assert!(connected > 0, "nobody could connect to {leader}");
    if let Some(status) = trial.cluster.ended(leader) {
        panic!("{leader} has ended because it had no descriptors left: {status}");
    }
}
