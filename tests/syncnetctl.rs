//! The real `syncnetctl`, where no cluster is.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// The program in a directory of its own, without the settings of whoever runs the tests.
fn syncnetctl(dir: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncnetctl"));
    command.args(args).current_dir(dir).env_clear().env("HOME", dir.path());
    command
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    syncnetctl(&dir, args).output().unwrap()
}

/// An address at which nothing listens: its port has just been given back.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[track_caller]
fn expect(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let shown = format!("status {:?}\nstdout:\n{out}\nstderr:\n{err}", output.status.code());
    assert_eq!(output.status.code(), Some(code), "{shown}");
    assert!(out.contains(stdout) && err.contains(stderr), "{shown}");
}

#[test]
fn without_an_answer_nothing_can_be_told() {
    let nobody = nobody();
    let expected = format!("{{\"cluster\":null,\"health\":\"unknown\",\"servers\":[{{\"id\":\"{nobody}\"");
    expect(&run(&["status", "--json", "-s", &nobody]), 3, &expected, &nobody);
    let output = run(&["status", "--simple", "-s", &nobody]);
    expect(&output, 3, &format!("{nobody} offline\n"), "-s HOST:PORT");
    for bench in ["publish", "fanout", "idle"] {
        expect(&run(&["bench", bench, "-s", &nobody]), 3, "", "no server answers");
    }
    let output = run(&["status", "-s", &nobody]);
    expect(&output, 3, "Summary: 0/1 servers online, 0 leader(s)\n", &nobody);
}

#[test]
fn misuse_is_no_alarm_and_names_the_help() {
    expect(
        &run(&["status", "--jsn"]),
        3,
        "",
        "did you mean --json?; see syncnetctl status --help",
    );
    expect(&run(&["status", "--json", "-s", "here"]), 3, "", "\"here\"");
    expect(&run(&["watch", "-i", "0"]), 2, "", "--interval 0");
    expect(&run(&[]), 2, "", "status, watch, log or bench");
    expect(&run(&["bench"]), 2, "", "publish, fanout, failover or idle");
    expect(&run(&["bench", "publish", "--pin", "65000"]), 2, "", "--pin");
    let dir = tempfile::tempdir().unwrap();
    let output = syncnetctl(&dir, &["status"])
        .env("SYNCNET_SERVERS", "here")
        .output()
        .unwrap();
    expect(&output, 3, "", "SYNCNET_SERVERS");
}

#[test]
fn help_and_version_go_to_stdout() {
    expect(&run(&["--help"]), 0, "Usage: syncnetctl status", "");
    expect(&run(&["status", "--help"]), 0, "--simple", "");
    expect(
        &run(&["--version"]),
        0,
        &format!("syncnetctl {}\n", env!("CARGO_PKG_VERSION")),
        "",
    );
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = syncnetctl(&dir, &["--help"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    expect(&output.wait_with_output().unwrap(), 0, "", "");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["watch", "-i", "0.1", "-s", &nobody()];
    let mut watch = syncnetctl(&dir, &args).stdout(writer).spawn().unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_tells_changes_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["watch", "-i", "0.1", "-s", &nobody()];
    let mut watch = syncnetctl(&dir, &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for kind in ["server", "leader none", "health UNKNOWN - No server answers"] {
        let line = lines.next().unwrap().unwrap();
        assert!(line.split_once("Z ").unwrap().1.starts_with(kind), "{line}");
    }
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none(), "nothing has changed, so nothing more is told");
}
