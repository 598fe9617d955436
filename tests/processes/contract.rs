//! What the programs say and end with: exit codes, refusals, status.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::cluster::{Cluster, Options};
use crate::support::run::run;
use crate::support::wait_until;

const DOWN: [&str; 3] = ["server1", "server2", "server3"];

#[test]
fn status_tells_how_bad_it_is() {
    let mut cluster = Cluster::start(Options::default());
    let healthy = cluster.status(&[]).code(0);
    for expected in [
        "Server   Status  Leader   Uptime  Clients  Messages  Ports",
        "Summary: 3/3 servers online, 1 leader(s)",
        "HEALTHY - All servers online with single leader",
    ] {
        assert!(healthy.stdout.contains(expected), "{healthy:?}");
    }
    let simple = cluster.status(&["--simple"]).code(0);
    let roles = "server1 online follower\nserver2 online follower\nserver3 online leader\n";
    assert_eq!(simple.stdout, roles);

    for (n, code, health) in [(0, 1, "degraded"), (1, 2, "no-quorum"), (2, 3, "unknown")] {
        cluster.kill(DOWN[n]);
        wait_until(health, || cluster.status(&["--json"]).status.code() == Some(code));
        let report = cluster.status(&["--json"]).code(code);
        assert_eq!(report.texts("health"), [health]);
    }
    run(cluster.command("syncnetctl", &["status", "--jsn"]), "").code(3);
    run(cluster.command("syncnetctl", &["stauts"]), "").code(2);
}

#[test]
fn status_as_json_has_the_promised_shape() {
    let mut cluster = Cluster::start(Options::default());
    cluster.syncnet(&["send", "ops", "hello"], "").code(0);
    cluster.kill("server1");
    wait_until("server1 is missed", || cluster.status(&[]).status.code() == Some(1));
    let report = cluster.status(&["--json"]).json().remove(0);
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|o| o.keys().cloned().collect())
            .unwrap_or_default()
    };
    let mut top = keys(&report);
    top.sort();
    assert_eq!(top, ["cluster", "health", "servers"]);
    assert_eq!(report["cluster"], "test");
    let rows = report["servers"].as_array().expect("rows");
    assert_eq!(rows.len(), 3);
    let all = [
        "id",
        "status",
        "role",
        "leader",
        "term",
        "ring_position",
        "uptime_s",
        "clients",
        "messages",
        "commit",
        "applied",
        "last_log",
        "repairing",
        "address",
    ];
    for row in rows {
        let mut expected: Vec<&str> = all.to_vec();
        expected.sort_unstable();
        let mut found = keys(row);
        found.sort();
        assert_eq!(found, expected);
        let online = row["id"] != "server1";
        assert_eq!(row["status"], if online { "online" } else { "offline" });
        for key in &all {
            let known = online || ["id", "status", "ring_position", "address"].contains(key);
            assert_eq!(!row[key].is_null(), known, "{key} of {row}");
        }
        if online {
            assert_eq!(row["leader"], "server3");
            assert_eq!(row["role"], if row["id"] == "server3" { "leader" } else { "follower" });
            assert_eq!(row["messages"], 1);
            assert_eq!(row["repairing"], false);
        }
    }
}

#[test]
fn without_a_quorum_nothing_is_accepted_and_everything_can_be_read() {
    let mut cluster = Cluster::start(Options::default());
    cluster.syncnet(&["send", "ops", "before"], "").code(0);
    // Acknowledged is what a majority has; the one that will be left must have it, too.
    assert_eq!(cluster.messages("server1", "ops").texts("text"), ["before"]);
    cluster.kill("server3");
    cluster.await_other_leader("server3");
    cluster.kill("server2");
    let send = cluster.syncnet(&["send", "--timeout", "2", "ops", "lost"], "").code(4);
    assert!(send.stderr.contains("quorum"), "{send:?}");
    let tail = cluster.syncnet(&["tail", "--no-follow", "--json", "ops"], "").code(4);
    assert_eq!(tail.texts("text"), ["before"]);
    assert!(!tail.stderr.is_empty(), "{tail:?}");
    let stale = cluster
        .syncnet(&["tail", "--no-follow", "--stale", "--json", "ops"], "")
        .code(0);
    assert_eq!(stale.texts("text"), ["before"]);
    cluster.kill("server1");
    cluster.syncnet(&["send", "--timeout", "1", "ops", "lost"], "").code(3);
    cluster
        .syncnet(&["tail", "--timeout", "1", "--no-follow", "ops"], "")
        .code(3);

    cluster.launch_all();
    cluster.await_leader("server3");
    cluster.syncnet(&["send", "ops", "after"], "").code(0);
    assert_eq!(cluster.messages("server1", "ops").texts("text"), ["before", "after"]);
}

#[test]
fn refusals_name_their_reason_and_stop_nothing_else() {
    let cluster = Cluster::start(Options::default());
    let long = "x".repeat(65 * 1024);
    let stdin = format!("one\n\n{long}\r\ntwo\r\n");
    let sent = cluster.syncnet(&["send", "--json", "ops"], &stdin).code(1);
    let objects = sent.json();
    assert_eq!(objects.len(), 3, "{sent:?}");
    assert_eq!(
        (&objects[0]["line"], &objects[0]["seq"]),
        (&Value::from(1), &Value::from(1))
    );
    assert_eq!(
        (&objects[1]["line"], &objects[1]["error"]),
        (&Value::from(3), &Value::from("text_too_long"))
    );
    assert_eq!(
        (&objects[2]["line"], &objects[2]["seq"]),
        (&Value::from(4), &Value::from(2))
    );
    assert_eq!(cluster.messages("server2", "ops").texts("text"), ["one", "two"]);

    cluster.syncnet(&["send", "--no-create", "nowhere", "x"], "").code(1);
    cluster.syncnet(&["tail", "nowhere"], "").code(1);
    cluster.syncnet(&["send"], "").code(2);
    cluster
        .syncnet(&["tail", "--after", "1", "--last", "1", "ops"], "")
        .code(2);
    cluster.syncnet(&["--no-such-option"], "").code(2);
}

#[test]
fn a_name_is_refused_to_another_key_while_it_is_held() {
    let cluster = Cluster::start(Options::default());
    let mut holder = cluster.spawn_syncnet(&["send", "--json", "ops"]);
    holder.say("mine\n");
    wait_until("the name is held", || holder.output().contains("\"seq\":1"));
    let mut stranger = cluster.command("syncnet", &["send", "ops", "also mine"]);
    stranger.env("SYNCNET_KEY_FILE", cluster.path("other-key"));
    run(stranger, "").code(5);
    cluster.syncnet(&["send", "ops", "the same key"], "").code(0);
    holder.end().code(0);
    // An orderly end frees the name.
    let mut stranger = cluster.command("syncnet", &["send", "ops", "mine now"]);
    stranger.env("SYNCNET_KEY_FILE", cluster.path("other-key"));
    run(stranger, "").code(0);
}

#[test]
fn a_send_with_a_key_can_be_repeated() {
    let cluster = Cluster::start(Options::default());
    for _ in 0..3 {
        let sent = cluster
            .syncnet(&["send", "--json", "--id", "build-1", "ops"], "one\ntwo\n")
            .code(0);
        assert_eq!(sent.numbers("seq"), [1, 2]);
    }
    cluster.syncnet(&["send", "--id", "build-2", "ops", "one"], "").code(0);
    assert_eq!(cluster.messages("server1", "ops").texts("text"), ["one", "two", "one"]);
}

#[test]
fn tail_begins_and_ends_where_it_is_told() {
    let cluster = Cluster::start(Options::default());
    let lines: Vec<String> = (1..=30).map(|n| n.to_string()).collect();
    cluster.syncnet(&["send", "ops"], &lines.join("\n")).code(0);
    let tail = |args: &[&str]| {
        cluster
            .syncnet(&[&["tail", "--json", "ops"], args].concat(), "")
            .code(0)
            .texts("text")
    };
    assert_eq!(tail(&["--no-follow"]), lines[20..]);
    assert_eq!(tail(&["--no-follow", "--last", "3"]), lines[27..]);
    assert_eq!(tail(&["--no-follow", "--after", "25"]), lines[25..]);
    assert_eq!(tail(&["--after", "0", "--count", "5"]), lines[..5]);
    let events = cluster.syncnet(
        &["tail", "--json", "--events", "--no-follow", "--after", "0", "ops"],
        "",
    );
    assert!(events.stdout.contains("\"event\":\"create\""), "{events:?}");
}

#[test]
fn the_chat_without_a_terminal_posts_each_line() {
    let cluster = Cluster::start(Options::default());
    run(cluster.command("syncnet", &["lobby"]), "hello\nworld\n").code(0);
    assert_eq!(cluster.messages("server1", "lobby").texts("text"), ["hello", "world"]);
}

#[test]
fn a_second_server_on_the_same_place_is_refused() {
    let cluster = Cluster::start(Options::default());
    // The same server on another directory: the same ports.
    let mut elsewhere = cluster.bare_command("syncnetd", &["--config", "cluster.toml", "--server-id", "server1"]);
    elsewhere.args(["--data-dir", "elsewhere"]);
    run(elsewhere, "").code(3);
    // The same directory with other ports.
    let others = Cluster::configured(Options::default());
    for id in ["server1", "server2"] {
        let mut again = others.server_command(id);
        again.arg("--data-dir").arg(cluster.path("server1"));
        let again = run(again, "").code(3);
        assert!(again.stderr.contains("data directory"), "{again:?}");
    }
    cluster.status(&[]).code(0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let cluster = Cluster::configured(Options::default());
    let port = cluster.servers[0].client_port;
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let ran = run(cluster.server_command("server1"), "").code(3);
    assert!(ran.stderr.contains(&port.to_string()), "{ran:?}");
}

#[test]
fn a_wrong_configuration_is_told_by_file_and_line() {
    let cluster = Cluster::configured(Options::default());
    let check = |file: &str, more: &[&str]| {
        run(
            cluster.bare_command("syncnetd", &[&["--config", file, "--check-config"], more].concat()),
            "",
        )
    };
    check("cluster.toml", &[]).code(0);
    check("cluster.toml", &["--server-id", "server2"]).code(0);
    check("cluster.toml", &["--server-id", "server9"]).code(2);
    check("nothing.toml", &[]).code(2);
    check("cluster.toml", &["--loud"]).code(2);
    let good = fs::read_to_string(cluster.path("cluster.toml")).expect("it was written");
    for (wrong, named) in [
        (
            good.replace("[cluster]", "[cluster]\nelektion = \"lcr\""),
            "wrong.toml:2",
        ),
        (
            good.replace("[cluster]", "[timing]\nfailure_timeout = \"150ms\"\n[cluster]"),
            "wrong.toml:2",
        ),
        (good.replace("host = \"127.0.0.1\"", "host = \"10.0.0.1\""), "secret"),
        (good.replace("ring_position = 2", "ring_position = 1"), "ring_position"),
    ] {
        fs::write(cluster.path("wrong.toml"), wrong).expect("a writable directory");
        let ran = check("wrong.toml", &[]).code(2);
        assert!(ran.stderr.contains(named), "{ran:?}");
    }
    assert!(!cluster.path("data").exists(), "checking makes no data");
}
