//! `syncnetctl bench` against real servers: what it counts is what stands in the rooms, and what is wrong makes it fail. How fast
//! anything was is nobody's business here.

use std::fs;

use serde_json::Value;

use crate::support::cluster::{Cluster, Options};
use crate::support::run::{Ran, run, spawn};
use crate::support::wait_until;

#[track_caller]
fn bench(cluster: &Cluster, args: &[&str]) -> Ran {
    run(cluster.command("syncnetctl", &[&["bench"], args].concat()), "")
}

#[track_caller]
fn result(ran: &Ran) -> Value {
    ran.json().pop().unwrap_or_else(|| panic!("no result: {ran:?}"))
}

/// Messages of a room, as a server has them.
#[track_caller]
fn messages(cluster: &Cluster, room: &str) -> usize {
    cluster.messages("server1", room).lines().len()
}

#[test]
fn a_bench_counts_what_stands_in_the_rooms() {
    let cluster = Cluster::start(Options::default());
    let args = [
        "publish",
        "--json",
        "--count",
        "201",
        "--connections",
        "3",
        "--in-flight",
        "10",
        "--rooms",
        "2",
    ];
    let published = result(&bench(&cluster, &args).code(0));
    assert_eq!(published["messages"], 201);
    assert_eq!(published["problems"], Value::Array(Vec::new()));
    let (one, two) = (messages(&cluster, "bench-1"), messages(&cluster, "bench-2"));
    assert_eq!(one + two, 201);
    assert!(one >= 99 && two >= 99, "rooms are posted to in turn: {one} {two}");
    let latency = &published["latency_ms"];
    let quantiles = ["p50", "p99", "p99_9", "max"].map(|name| latency[name].as_f64().expect("a time"));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{latency}");
    for server in published["servers"].as_array().expect("servers") {
        assert!(server["memory_after"].as_u64() > Some(1 << 20), "{server}");
        assert!(
            server["processors"].as_array().is_some_and(|list| !list.is_empty()),
            "{server}"
        );
    }
    assert!(published["servers_cpu_s"].as_f64() > Some(0.0), "{published}");

    let args = [
        "publish",
        "--json",
        "--rate",
        "100",
        "--seconds",
        "0.5",
        "--size",
        "1000",
    ];
    let paced = result(&bench(&cluster, &args).code(0));
    assert_eq!(paced["messages"], 50, "an open loop leaves nothing out");
    assert!(paced["late_ms"]["p50"].is_number());
    assert_eq!(messages(&cluster, "bench-1"), one + 50);

    let args = [
        "fanout",
        "--json",
        "--readers",
        "7",
        "--outstanding",
        "5",
        "--seconds",
        "0.5",
    ];
    let fanned = result(&bench(&cluster, &args).code(0));
    let posted = fanned["messages"].as_u64().expect("a count");
    assert!(posted > 5, "{fanned}");
    assert_eq!(fanned["deliveries"], 7 * posted);
    let server = cluster.address("server2");
    let args = [
        "fanout",
        "--json",
        "--readers",
        "3",
        "--rate",
        "50",
        "--seconds",
        "0.5",
        "-s",
        &server,
    ];
    let paced = result(&bench(&cluster, &args).code(0));
    assert_eq!((&paced["messages"], &paced["deliveries"]), (&25.into(), &75.into()));
    assert_eq!(messages(&cluster, "bench-fanout") as u64, posted + 25);

    // As a table, and twice: the names are free again.
    for _ in 0..2 {
        let idle = bench(&cluster, &["idle", "--connections", "20", "--seconds", "0.1"]).code(0);
        assert!(idle.stdout.contains("bytes a connection"), "{idle:?}");
    }
    let total = 201 + 50 + posted + 25;
    let status = cluster.status(&["--json"]).code(0).json().remove(0);
    assert_eq!(status["servers"][0]["messages"], total);
    wait_until("no connection is left", || {
        let status = cluster.status(&["--json"]).code(0).json().remove(0);
        let servers = status["servers"].as_array().expect("servers").clone();
        servers.iter().all(|server| server["clients"] == 0)
    });
}

#[test]
fn a_bench_that_reads_what_it_did_not_write_fails() {
    let cluster = Cluster::start(Options::default());
    let args = [
        "bench",
        "fanout",
        "--json",
        "--readers",
        "4",
        "--rate",
        "20",
        "--seconds",
        "60",
    ];
    let fanout = spawn(cluster.command("syncnetctl", &args));
    wait_until("the bench writes", || {
        let tail = cluster.syncnet(&["tail", "--no-follow", "--stale", "bench-fanout"], "");
        !tail.lines().is_empty()
    });
    cluster.syncnet(&["send", "bench-fanout", "a foreign word"], "").code(0);
    let ran = fanout.end().code(1);
    assert!(ran.stderr.contains("is another bench running?"), "{ran:?}");
}

#[test]
fn a_pause_is_noticed_and_nothing_is_lost_in_it() {
    let mut cluster = Cluster::start(Options::default());
    let servers: Vec<String> = cluster
        .servers
        .iter()
        .map(|server| cluster.address(&server.id))
        .collect();
    let [one, two, three] = [&servers[0], &servers[1], &servers[2]];
    let args = [
        "bench",
        "failover",
        "--json",
        "--rate",
        "100",
        "--seconds",
        "6",
        "-s",
        one,
        "-s",
        two,
        "-s",
        three,
    ];
    let watching = spawn(cluster.command("syncnetctl", &args));
    wait_until("the bench writes", || {
        let tail = cluster.syncnet(&["tail", "--no-follow", "--stale", "bench-failover"], "");
        !tail.lines().is_empty()
    });
    cluster.kill("server3");
    cluster.launch("server3");
    let ran = watching.end().code(0);
    let found = result(&ran);
    assert_eq!(found["problems"], Value::Array(Vec::new()), "{ran:?}");
    assert_eq!(found["messages"], messages(&cluster, "bench-failover"));
    let pauses = found["gaps_ms"].as_array().map_or(0, Vec::len);
    assert_eq!(ran.lines().len(), pauses + 1, "a line for each pause, and the result");
}

#[test]
fn a_cluster_of_its_own_is_harmed_and_removed() {
    let cluster = Cluster::configured(Options::default());
    let temporary = cluster.path("tmp");
    fs::create_dir(&temporary).expect("a writable directory");
    for args in [
        ["--runs", "1", "--rate", "100"].as_slice(),
        &["--runs", "1", "--hang", "--at-leader"],
    ] {
        let mut command = cluster.bare_command("syncnetctl", &[&["bench", "failover", "--json"], args].concat());
        command.env("TMPDIR", &temporary);
        let ran = run(command, "").code(0);
        let found = result(&ran);
        let gaps = found["gaps_ms"].as_array().expect("a list");
        assert_eq!(gaps.len(), 1, "{ran:?}");
        assert!(
            gaps[0].as_f64() > Some(0.0) && found["gap_worst_ms"] == gaps[0],
            "{ran:?}"
        );
        assert!(found["messages"].as_u64() > Some(100), "{ran:?}");
        let left = fs::read_dir(&temporary).expect("a directory").count();
        assert_eq!(left, 0, "nothing is left behind");
    }
}
