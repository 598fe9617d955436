//! The start and stop scripts, as a user runs them, in a copy of the tree with ports of its own.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::cluster::{Cluster, Options};
use support::run::{Ran, run, spawn};
use support::{package, wait_until};

/// A copy of what the scripts need, beside the configuration of a cluster that wasn't started.
struct Tree {
    cluster: Cluster,
    root: PathBuf,
}

impl Tree {
    fn new() -> Tree {
        let cluster = Cluster::configured(Options::default());
        let root = cluster.path("tree");
        fs::create_dir_all(root.join("scripts")).expect("a writable directory");
        fs::create_dir_all(root.join("conf")).expect("a writable directory");
        for entry in fs::read_dir(package().join("scripts")).expect("the scripts") {
            let from = entry.expect("a script").path();
            let name = from.file_name().expect("a file");
            fs::copy(&from, root.join("scripts").join(name)).expect("a writable directory");
        }
        fs::copy(cluster.path("cluster.toml"), root.join("conf/cluster.toml")).expect("a writable directory");
        Tree { cluster, root }
    }

    fn command(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.root.join("scripts").join(script));
        let bin = Path::new(env!("CARGO_BIN_EXE_syncnetd")).parent().expect("a directory");
        // From another directory than the tree's.
        command.args(args).current_dir("/").env("SYNCNET_BIN", bin);
        command
    }

    #[track_caller]
    fn run(&self, script: &str, args: &[&str]) -> Ran {
        run(self.command(script, args), "")
    }

    fn pid(&self, id: &str) -> String {
        fs::read_to_string(self.root.join(format!("run/{id}.pid")))
            .unwrap_or_default()
            .trim()
            .to_string()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.command("stop_all_servers.sh", &[]).output();
    }
}

#[test]
fn the_cluster_starts_once_and_stops_once() {
    let tree = Tree::new();
    let started = tree.run("start_all_servers.sh", &["--wait", "60"]).code(0);
    assert!(started.stdout.contains("HEALTHY"), "{started:?}");
    tree.cluster.status(&[]).code(0);
    let pids = ["server1", "server2", "server3"].map(|id| tree.pid(id));

    let again = tree.run("start_all_servers.sh", &[]).code(0);
    assert!(
        again
            .stdout
            .contains(&format!("server1 is running already (pid {})", pids[0])),
        "{again:?}"
    );
    tree.run("start_server1.sh", &[]).code(3);
    assert_eq!(["server1", "server2", "server3"].map(|id| tree.pid(id)), pids);

    // One alone, in the foreground this time, and stopped by the same script.
    tree.run("stop_all_servers.sh", &["server1"]).code(0);
    tree.cluster.status(&[]).code(1);
    let foreground = spawn(tree.command("start_server1.sh", &[]));
    wait_until("server1 is back", || tree.cluster.status(&[]).status.success());
    tree.run("stop_all_servers.sh", &["server1"]).code(0);
    let ended = foreground.end().code(0);
    assert!(ended.stderr.contains("server1 has stopped"), "{ended:?}");

    let stopped = tree.run("stop_all_servers.sh", &[]).code(0);
    assert_eq!(stopped.lines(), ["server2 stopped", "server3 stopped"]);
    let nothing = tree.run("stop_all_servers.sh", &[]).code(0);
    assert!(nothing.stdout.starts_with("Nothing to stop"), "{nothing:?}");
    for id in ["server1", "server2", "server3"] {
        let log = fs::read_to_string(tree.root.join(format!("logs/{id}.log"))).expect("a log");
        assert!(log.contains("has stopped"), "{log}");
        assert!(tree.root.join(format!("data/{id}/identity")).exists());
    }
}

#[test]
fn what_does_not_come_up_is_stopped_again_and_says_why() {
    let tree = Tree::new();
    let _taken = TcpListener::bind(("127.0.0.1", tree.cluster.servers[1].client_port)).expect("a free port");
    let failed = tree.run("start_all_servers.sh", &[]).code(1);
    assert!(
        failed.stderr.contains("server2 has ended with exit code 3"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("the end of logs/server2.log"), "{failed:?}");
    let nothing = tree.run("stop_all_servers.sh", &[]).code(0);
    assert!(nothing.stdout.starts_with("Nothing to stop"), "{nothing:?}");
}

#[test]
fn a_pid_file_that_names_another_process_stops_nobody() {
    let tree = Tree::new();
    let mut bystander = Command::new("sleep").arg("60").spawn().expect("sleep");
    fs::create_dir_all(tree.root.join("run")).expect("a writable directory");
    fs::write(tree.root.join("run/server1.pid"), bystander.id().to_string()).expect("a writable directory");
    tree.run("stop_all_servers.sh", &[]).code(0);
    let lives = bystander.try_wait().expect("a child of ours").is_none();
    let _ = bystander.kill();
    let _ = bystander.wait();
    assert!(lives);
    tree.run("start_server.sh", &["server9"]).code(2);
    tree.run("stop_all_servers.sh", &["../etc"]).code(2);
}
