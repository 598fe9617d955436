//! A cluster of real servers.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::run::{Ran, Running, end_of, run, spawn};
use super::{PATIENCE, wait_until};

/// Ports that tests of this process were given: the system may give one again while nothing listens on it.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Where test ports are looked for: below the range from which the system gives ports to connections. One of those could be taken by
/// any client between the moment it was found free and the moment a server binds it, also while that server is being restarted.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// The secret of clusters that have one, in hex.
pub const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A port that is free, and that no other test of this process has.
fn port(is_free: impl Fn(u16) -> bool) -> u16 {
    loop {
        let random = RandomState::new().hash_one(0_u8);
        let port = PORTS.start + (random % u64::from(PORTS.end - PORTS.start)) as u16;
        if GIVEN.lock().unwrap_or_else(|e| e.into_inner()).insert(port) && is_free(port) {
            return port;
        }
    }
}

fn tcp_port() -> u16 {
    port(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

fn udp_port() -> u16 {
    port(|port| UdpSocket::bind(("0.0.0.0", port)).is_ok())
}

/// One server of the cluster.
pub struct Server {
    /// `server1`, `server2` …
    pub id: String,
    /// For clients.
    pub client_port: u16,
    /// For other servers.
    pub peer_port: u16,
    /// Without multicast.
    pub heartbeat_port: u16,
    host: Host,
    child: Option<Child>,
}

/// Where a server runs.
#[derive(Clone)]
pub struct Host {
    /// By which others reach it.
    pub address: String,
    /// The network namespace in which it runs; this process's own if there is none.
    pub namespace: Option<String>,
}

impl Host {
    /// This machine, for programs of this machine only.
    pub fn here() -> Host {
        Host {
            address: "127.0.0.1".to_string(),
            namespace: None,
        }
    }

    /// The command that runs a program there: the process is the program's own.
    fn command(&self, program: &str) -> Command {
        let Some(namespace) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg("--")
            .arg(program);
        command
    }
}

/// A cluster in a directory of its own. Its processes end with it.
pub struct Cluster {
    dir: TempDir,
    descriptors: Option<u32>,
    /// Where clients run.
    clients: Host,
    /// In the order of the ring; the last one is preferred as leader.
    pub servers: Vec<Server>,
    /// The multicast group.
    pub multicast: SocketAddrV4,
    /// Where the data directories are, each in a folder of its server's name, if not in the directory of the cluster.
    pub disks: Option<PathBuf>,
}

/// How a cluster differs from the usual.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Lines for `[cluster]`.
    pub cluster: &'static str,
    /// Heartbeats by unicast.
    pub unicast: bool,
    /// With a secret.
    pub secret: bool,
    /// One server instead of three.
    pub alone: bool,
    /// Descriptors that each server may have open.
    pub descriptors: Option<u32>,
    /// With timing so slow that nobody is suspected because the machine is busy.
    pub calm: bool,
}

impl Cluster {
    /// Writes the configuration of a cluster of three (or of one), and starts nothing.
    pub fn configured(options: Options) -> Cluster {
        let hosts = vec![Host::here(); if options.alone { 1 } else { 3 }];
        Cluster::configured_on(options, &hosts, Host::here(), &std::env::temp_dir())
    }

    /// Writes the configuration of a cluster with a server on each of the hosts, in a new directory below one, and starts nothing.
    pub fn configured_on(options: Options, hosts: &[Host], clients: Host, below: &Path) -> Cluster {
        let dir = TempDir::with_prefix_in("syncnet-test-", below).expect("a temporary directory");
        let mut toml = "[cluster]\nname = \"test\"\n".to_string();
        if options.secret {
            use std::os::unix::fs::PermissionsExt;
            let file = dir.path().join("cluster.secret");
            fs::write(&file, SECRET).expect("a writable directory");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a file of ours");
            toml += "secret_file = \"cluster.secret\"\n";
        }
        // It may go on with other tables.
        toml += options.cluster;
        toml.push('\n');
        if options.calm {
            toml += "[timing]\nheartbeat_interval = \"200ms\"\nfailure_timeout = \"20s\"\nelection_timeout = \"5s\"\n\
                     connect_timeout = \"600s\"\n";
        }
        let multicast = SocketAddrV4::new(Ipv4Addr::new(239, 255, 83, 78), udp_port());
        if !options.unicast {
            toml += &format!("[heartbeat]\nmulticast = \"{multicast}\"\n");
        }
        let mut servers = Vec::new();
        for (n, host) in hosts.iter().enumerate() {
            let server = Server {
                id: format!("server{}", n + 1),
                client_port: tcp_port(),
                peer_port: tcp_port(),
                heartbeat_port: udp_port(),
                host: host.clone(),
                child: None,
            };
            toml += &format!(
                "[[server]]\nid = \"{}\"\nring_position = {n}\nhost = \"{}\"\nclient_port = {}\nhttp_port = {}\n\
                 heartbeat_port = {}\npeer_port = {}\n",
                server.id,
                server.host.address,
                server.client_port,
                tcp_port(),
                server.heartbeat_port,
                server.peer_port
            );
            servers.push(server);
        }
        fs::write(dir.path().join("cluster.toml"), toml).expect("a writable directory");
        Cluster {
            dir,
            descriptors: options.descriptors,
            clients,
            servers,
            multicast,
            disks: None,
        }
    }

    /// All servers started, and healthy.
    pub fn start(options: Options) -> Cluster {
        let mut cluster = Cluster::configured(options);
        cluster.launch_all();
        cluster.await_leader(if options.alone { "server1" } else { "server3" });
        cluster
    }

    /// A path below its directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn index(&self, id: &str) -> usize {
        let found = self.servers.iter().position(|server| server.id == id);
        found.unwrap_or_else(|| panic!("no server {id}"))
    }

    /// The data directory of a server, from the directory of the cluster.
    pub fn data_dir(&self, id: &str) -> PathBuf {
        match &self.disks {
            None => PathBuf::from(id),
            Some(disks) => disks.join(id).join("data"),
        }
    }

    /// The command that runs a server.
    pub fn server_command(&self, id: &str) -> Command {
        let host = &self.servers[self.index(id)].host;
        let program = env!("CARGO_BIN_EXE_syncnetd");
        let mut command = match self.descriptors {
            None => host.command(program),
            Some(descriptors) => {
                let mut command = host.command("sh");
                let line = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
                command.args(["-c", &line, program]);
                command
            }
        };
        command
            .current_dir(self.dir.path())
            .args(["--config", "cluster.toml", "--server-id", id, "--data-dir"])
            .arg(self.data_dir(id));
        command
    }

    /// Starts a server; its log goes on in the same file.
    pub fn launch(&mut self, id: &str) {
        let command = self.server_command(id);
        self.launch_as(id, command);
    }

    /// Starts a server by another program, which must become it: the words that stand before its own.
    pub fn launch_under(&mut self, id: &str, program: &[&str]) {
        let server = self.server_command(id);
        let mut command = Command::new(program[0]);
        command.current_dir(self.dir.path()).args(&program[1..]);
        command.arg(server.get_program()).args(server.get_args());
        self.launch_as(id, command);
    }

    fn launch_as(&mut self, id: &str, mut command: Command) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{id}.log")));
        let log = log.expect("a writable directory");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let at = self.index(id);
        assert!(self.servers[at].child.is_none(), "{id} runs already");
        self.servers[at].child = Some(command.spawn().expect("syncnetd can be started"));
    }

    /// Starts all servers.
    pub fn launch_all(&mut self) {
        let ids: Vec<String> = self.servers.iter().map(|server| server.id.clone()).collect();
        for id in ids {
            self.launch(&id);
        }
    }

    /// Ends a server without any notice.
    pub fn kill(&mut self, id: &str) {
        let at = self.index(id);
        let mut child = self.servers[at]
            .child
            .take()
            .unwrap_or_else(|| panic!("{id} doesn't run"));
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// The process of a server.
    pub fn process(&self, id: &str) -> Pid {
        let child = self.servers[self.index(id)].child.as_ref();
        Pid::from_child(child.unwrap_or_else(|| panic!("{id} doesn't run")))
    }

    /// Resident memory of a server, in bytes.
    pub fn memory(&self, id: &str) -> u64 {
        let file = format!("/proc/{}/status", self.process(id).as_raw_nonzero());
        let status = fs::read_to_string(file).expect("a process of ours");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("the system tells it") * 1024
    }

    /// How many descriptors a server has open.
    pub fn descriptors(&self, id: &str) -> usize {
        let folder = format!("/proc/{}/fd", self.process(id).as_raw_nonzero());
        fs::read_dir(folder).expect("a process of ours").count()
    }

    /// What a server has logged.
    pub fn log(&self, id: &str) -> String {
        fs::read_to_string(self.path(&format!("{id}.log"))).unwrap_or_default()
    }

    /// Ends all servers that run without any notice.
    pub fn kill_all(&mut self) {
        for server in &mut self.servers {
            if let Some(mut child) = server.child.take() {
                // Also ends one that was stopped with SIGSTOP.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// How a server has ended without being asked; `None` if it runs, or doesn't any more.
    pub fn ended(&mut self, id: &str) -> Option<ExitStatus> {
        let at = self.index(id);
        let status = self.servers[at].child.as_mut()?.try_wait().expect("a child of ours");
        if status.is_some() {
            self.servers[at].child = None;
        }
        status
    }

    /// Sends a signal to a server.
    pub fn signal(&self, id: &str, signal: Signal) {
        kill_process(self.process(id), signal).expect("a child of ours");
    }

    /// The process of a server, if it runs.
    pub fn pid(&self, id: &str) -> Option<Pid> {
        self.servers[self.index(id)].child.as_ref().map(Pid::from_child)
    }

    /// Asks a server to stop, and waits until it has: how, and how long it took.
    pub fn stop(&mut self, id: &str) -> (ExitStatus, Duration) {
        self.signal(id, Signal::TERM);
        let asked = Instant::now();
        let at = self.index(id);
        let mut child = self.servers[at].child.take().expect("it was signalled");
        while asked.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return (status, asked.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("{id} doesn't stop");
    }

    /// `host:port` of a server's clients.
    pub fn address(&self, id: &str) -> String {
        let server = &self.servers[self.index(id)];
        format!("{}:{}", server.host.address, server.client_port)
    }

    /// A client program that knows all servers, with a home of its own.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.bare_command(program, args);
        let all: Vec<String> = self.servers.iter().map(|server| self.address(&server.id)).collect();
        command.env("SYNCNET_SERVERS", all.join(","));
        command
    }

    /// A client program that knows no server.
    pub fn bare_command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.clients.command(match program {
            "syncnet" => env!("CARGO_BIN_EXE_syncnet"),
            "syncnetctl" => env!("CARGO_BIN_EXE_syncnetctl"),
            "syncnetd" => env!("CARGO_BIN_EXE_syncnetd"),
            other => panic!("no program {other}"),
        });
        command
            .current_dir(self.dir.path())
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("SYNCNET_KEY_FILE", self.path("key"))
            .env("SYNCNET_USER", "ann");
        command
    }

    /// Runs `syncnet` to its end.
    #[track_caller]
    pub fn syncnet(&self, args: &[&str], stdin: &str) -> Ran {
        run(self.command("syncnet", args), stdin)
    }

    /// Starts `syncnet` beside the test.
    #[track_caller]
    pub fn spawn_syncnet(&self, args: &[&str]) -> Running {
        spawn(self.command("syncnet", args))
    }

    /// All messages of a room, as one server has them.
    #[track_caller]
    pub fn messages(&self, id: &str, room: &str) -> Ran {
        self.tail(id, room, 0, &[]).code(0)
    }

    /// What one server has of a room after a number, asked with these options more.
    pub fn tail(&self, id: &str, room: &str, after: u64, more: &[&str]) -> Ran {
        let (server, after) = (self.address(id), after.to_string());
        let mut args = vec![
            "tail",
            "--json",
            "--only",
            "-s",
            &server,
            "--after",
            &after,
            "--no-follow",
        ];
        args.extend(more);
        args.push(room);
        self.syncnet(&args, "")
    }

    /// Runs `syncnetctl status`.
    #[track_caller]
    pub fn status(&self, args: &[&str]) -> Ran {
        run(self.command("syncnetctl", &[&["status"], args].concat()), "")
    }

    /// Waits until all servers are well and follow that leader.
    #[track_caller]
    pub fn await_leader(&self, id: &str) {
        wait_until(&format!("the cluster is healthy under {id}"), || {
            let status = self.status(&["--json"]);
            status.status.success() && status.json()[0]["servers"][0]["leader"] == id
        });
    }

    /// Waits until a majority has another leader than that one.
    #[track_caller]
    pub fn await_other_leader(&self, than: &str) {
        wait_until(&format!("another one than {than} leads"), || {
            let status = self.status(&["--json", "--timeout", "1"]);
            let Some(report) = status.json().pop() else {
                return false;
            };
            let rows = report["servers"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["role"] == "leader" && row["id"] != than)
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for server in &self.servers {
                let log = fs::read_to_string(self.path(&format!("{}.log", server.id))).unwrap_or_default();
                eprintln!("--- the end of the log of {}\n{}", server.id, end_of(&log));
            }
        }
    }
}
