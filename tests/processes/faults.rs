//! Servers fail, messages don't.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::cluster::{Cluster, Options};
use crate::support::run::{Ran, Running};
use crate::support::wait_until;

/// `line 1` to `line n`.
fn lines(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|n| format!("line {n}")).collect()
}

/// Every server has exactly these messages, in this order, numbered without gaps, and all have the same.
#[track_caller]
fn all_have(cluster: &Cluster, room: &str, texts: &[String]) {
    let mut first: Option<String> = None;
    for id in ["server1", "server2", "server3"] {
        let messages = cluster.messages(id, room);
        assert_eq!(messages.texts("text"), texts, "at {id}");
        let numbers: Vec<u64> = (1..=texts.len() as u64).collect();
        assert_eq!(messages.numbers("seq"), numbers, "at {id}");
        let same = first.get_or_insert_with(|| messages.stdout.clone());
        assert_eq!(&messages.stdout, same, "at {id}");
    }
}

/// The acknowledgements of a `send --json` of `count` lines: each once, in order.
#[track_caller]
fn all_acknowledged(sent: Ran, count: usize) {
    let sent = sent.code(0);
    let numbers: Vec<u64> = (1..=count as u64).collect();
    assert_eq!(sent.numbers("line"), numbers, "{sent:?}");
}

/// Says lines at a steady pace, and waits until that many are acknowledged.
fn say(sender: &mut Running, from: usize, to: usize, acknowledged: usize) {
    for chunk in lines(from, to).chunks(20) {
        sender.say(&(chunk.join("\n") + "\n"));
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_until(&format!("{acknowledged} lines are acknowledged"), || {
        sender.output().lines().count() >= acknowledged
    });
}

#[test]
fn three_servers_agree_on_two_thousand_messages() {
    let cluster = Cluster::start(Options::default());
    let texts = lines(1, 2000);
    all_acknowledged(cluster.syncnet(&["send", "--json", "ops"], &texts.join("\n")), 2000);
    all_have(&cluster, "ops", &texts);
}

#[test]
fn killing_the_leader_in_mid_stream_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(Options::default());
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "ops"]);
    say(&mut sender, 1, 1000, 200);
    cluster.kill("server3");
    say(&mut sender, 1001, 2000, 1500);
    cluster.launch("server3");
    say(&mut sender, 2001, 3000, 3000);
    all_acknowledged(sender.end(), 3000);
    cluster.await_leader("server3");
    all_have(&cluster, "ops", &lines(1, 3000));
}

#[test]
fn a_leader_that_hangs_is_replaced_and_comes_back_as_a_follower_of_the_truth() {
    let cluster = Cluster::start(Options::default());
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "ops"]);
    say(&mut sender, 1, 1000, 200);
    cluster.signal("server3", Signal::STOP);
    say(&mut sender, 1001, 2000, 2000);
    cluster.await_other_leader("server3");
    cluster.signal("server3", Signal::CONT);
    say(&mut sender, 2001, 3000, 3000);
    all_acknowledged(sender.end(), 3000);
    cluster.await_leader("server3");
    all_have(&cluster, "ops", &lines(1, 3000));
}

#[test]
fn a_client_whose_server_dies_goes_on_at_another() {
    let mut cluster = Cluster::start(Options::default());
    let server = cluster.address("server1");
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "-s", &server, "ops"]);
    let follower = cluster.spawn_syncnet(&[
        "tail", "--json", "--wait", "--after", "0", "--count", "2000", "-s", &server, "ops",
    ]);
    say(&mut sender, 1, 1000, 200);
    cluster.kill("server1");
    say(&mut sender, 1001, 2000, 2000);
    all_acknowledged(sender.end(), 2000);
    assert_eq!(follower.end().code(0).texts("text"), lines(1, 2000));
    cluster.launch("server1");
    cluster.await_leader("server3");
    all_have(&cluster, "ops", &lines(1, 2000));
}

#[test]
fn all_servers_killed_at_once_have_everything_that_was_acknowledged() {
    let mut cluster = Cluster::start(Options::default());
    all_acknowledged(
        cluster.syncnet(&["send", "--json", "ops"], &lines(1, 500).join("\n")),
        500,
    );
    for id in ["server1", "server2", "server3"] {
        cluster.kill(id);
    }
    cluster.launch_all();
    cluster.await_leader("server3");
    all_have(&cluster, "ops", &lines(1, 500));
    all_acknowledged(
        cluster.syncnet(&["send", "--json", "ops"], &lines(501, 600).join("\n")),
        100,
    );
    all_have(&cluster, "ops", &lines(1, 600));
}

#[test]
fn a_rolling_restart_is_not_noticed_by_a_sender() {
    let mut cluster = Cluster::start(Options::default());
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "ops"]);
    say(&mut sender, 1, 200, 200);
    for (n, id) in ["server1", "server2", "server3"].into_iter().enumerate() {
        let (status, _) = cluster.stop(id);
        assert_eq!(status.code(), Some(0), "{id}");
        let said = 200 + n * 200;
        say(&mut sender, said + 1, said + 200, said + 200);
        cluster.launch(id);
        cluster.await_leader("server3");
    }
    all_acknowledged(sender.end(), 800);
    all_have(&cluster, "ops", &lines(1, 800));
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_and_ends_in_time() {
    let mut cluster = Cluster::start(Options::default());
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "ops"]);
    say(&mut sender, 1, 100, 100);
    let (status, took) = cluster.stop("server3");
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    cluster.await_other_leader("server3");
    say(&mut sender, 101, 200, 200);
    all_acknowledged(sender.end(), 200);
}

/// A cluster of another configuration keeps the promises, too: it forms, loses its leader under load, and gets it back.
fn works(options: Options) {
    let mut cluster = Cluster::start(options);
    let server = cluster.address("server1");
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "-s", &server, "ops"]);
    say(&mut sender, 1, 300, 100);
    cluster.kill("server3");
    say(&mut sender, 301, 600, 600);
    cluster.await_other_leader("server3");
    cluster.launch("server3");
    cluster.await_leader("server3");
    say(&mut sender, 601, 900, 900);
    all_acknowledged(sender.end(), 900);
    all_have(&cluster, "ops", &lines(1, 900));
}

#[test]
fn the_ring_election_keeps_the_promises() {
    works(Options {
        cluster: "election = \"lcr\"",
        ..Options::default()
    });
}

#[test]
fn clients_that_are_redirected_to_the_leader_lose_nothing() {
    works(Options {
        cluster: "routing = \"redirect\"",
        ..Options::default()
    });
}

#[test]
fn heartbeats_by_unicast_keep_the_promises() {
    works(Options {
        unicast: true,
        ..Options::default()
    });
}

#[test]
fn servers_that_share_a_secret_keep_the_promises() {
    works(Options {
        secret: true,
        ..Options::default()
    });
}

#[test]
fn slow_timing_keeps_the_promises() {
    works(Options {
        cluster: "[timing]\nheartbeat_interval = \"2s\"\nfailure_timeout = \"10s\"\nelection_timeout = \"6s\"\nconnect_timeout = \"3s\"",
        ..Options::default()
    });
}

#[test]
fn a_sticky_leader_stays_where_it_is() {
    let mut cluster = Cluster::start(Options {
        cluster: "leader = \"sticky\"",
        ..Options::default()
    });
    cluster.kill("server3");
    cluster.await_other_leader("server3");
    cluster.launch("server3");
    cluster.await_leader("server2");
    all_acknowledged(cluster.syncnet(&["send", "--json", "ops"], "hello\n"), 1);
    // Long enough for a preferred one to have taken over.
    std::thread::sleep(Duration::from_secs(3));
    cluster.await_leader("server2");
}

#[test]
fn what_was_seen_before_has_the_lower_timestamp_whatever_room_and_server() {
    let cluster = Cluster::start(Options::default());
    let mut last = 0;
    for n in 0..6 {
        let server = cluster.address(["server1", "server2", "server3"][n % 3]);
        let room = ["ops", "dev"][n % 2];
        let sent = cluster.syncnet(&["send", "--json", "--only", "-s", &server, room, "hello"], "");
        let stamps = sent.code(0).numbers("lamport");
        assert_eq!(stamps.len(), 1);
        assert!(stamps[0] > last, "{} after {last}", stamps[0]);
        last = stamps[0];
    }
    for room in ["ops", "dev"] {
        let stamps = cluster.messages("server1", room).numbers("lamport");
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
        assert_eq!(stamps, cluster.messages("server2", room).numbers("lamport"));
    }
}
