//! Hosts of a cluster's own: a network namespace for each server and one for the clients, joined by a bridge in another. Nothing of it
//! is in the namespace of this machine. Packets are cut and lost on the bridge, by `nft`.
//!
//! Everything is called `syncnet-rig-PID-N…`, so that what a killed run left behind can be told from what still has an owner.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::cluster::Host;

/// What the names begin with.
const PREFIX: &str = "syncnet-rig-";
/// The network of every rig: each is a world of its own.
const NETWORK: &str = "10.83.78";
/// The clients' part of the address, and the relay's.
const CLIENTS: u8 = 100;

/// What to do about packets on the bridge: rules of its chain, in their order.
#[derive(Clone, Default)]
pub struct Rules(String);

impl Rules {
    /// What `nft` is to do.
    fn text(&self) -> String {
        format!(
            "add table bridge rig\ndelete table bridge rig\nadd table bridge rig\n\
             add chain bridge rig forward {{ type filter hook forward priority 0; }}\n{}",
            self.0
        )
    }

    fn add(&mut self, rule: &str) {
        let _ = writeln!(self.0, "add rule bridge rig forward {rule}");
    }

    /// Nothing from one server reaches another.
    pub fn one_way(mut self, from: usize, to: usize) -> Rules {
        self.add(&format!("iifname s{from} oifname s{to} counter drop"));
        self
    }

    /// Two servers don't reach each other.
    pub fn between(self, a: usize, b: usize) -> Rules {
        self.one_way(a, b).one_way(b, a)
    }

    /// A server and the clients don't reach each other.
    pub fn without_clients(mut self, server: usize) -> Rules {
        self.add(&format!("iifname s{server} oifname c counter drop"));
        self.add(&format!("iifname c oifname s{server} counter drop"));
        self
    }

    /// What servers send to one another over TCP to one port, and the answers, get lost.
    pub fn tcp_port(mut self, port: u16) -> Rules {
        self.add(&format!("iifname \"s*\" oifname \"s*\" tcp dport {port} counter drop"));
        self.add(&format!("iifname \"s*\" oifname \"s*\" tcp sport {port} counter drop"));
        self
    }

    /// All datagrams between servers get lost.
    pub fn datagrams(mut self) -> Rules {
        self.add("iifname \"s*\" oifname \"s*\" ip protocol udp counter drop");
        self
    }

    /// So many of a hundred packets get lost, the clients' too.
    pub fn loss(mut self, percent: u64) -> Rules {
        self.add(&format!("numgen random mod 100 < {percent} counter drop"));
        self
    }
}

/// Runs a program of the system to its end.
fn run(program: &str, args: &[&str], stdin: &str) -> Result<Output, String> {
    let shown = format!("{program} {}", args.join(" "));
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{shown}: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        // One that has ended already says why.
        let _ = input.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    // What comes after the first line repeats what was asked.
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}", said.lines().next().unwrap_or_default()))
}

/// Runs a program that changes something of ours.
pub fn sh(program: &str, args: &[&str], stdin: &str) {
    run(program, args, stdin).unwrap_or_else(|error| panic!("{error}"));
}

/// Whether a program of the system did what it was asked.
pub fn can(program: &str, args: &[&str]) -> Result<(), String> {
    run(program, args, "").map(|_| ())
}

/// Why there can be no rig here, if so; found out once.
pub fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        sweep();
        let loses = |rig: Rig| rig.nft("hub", &Rules::default().loss(1).text()).map(|_| ());
        Rig::make(2).and_then(loses).err()
    };
    MISSING.get_or_init(find).as_deref()
}

/// A network with servers 1 to N, and with clients. It goes when this is dropped.
pub struct Rig {
    name: String,
    servers: usize,
}

impl Rig {
    /// Makes namespaces, links and the bridge.
    pub fn new(servers: usize) -> Rig {
        Rig::make(servers).unwrap_or_else(|error| panic!("{error}"))
    }

    fn make(servers: usize) -> Result<Rig, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let rig = Rig {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            servers,
        };
        let hub = rig.namespace("hub");
        let mut commands = String::new();
        for namespace in rig.namespaces() {
            let _ = writeln!(commands, "netns add {namespace}");
        }
        run("ip", &["-batch", "-"], &commands)?;
        // Without snooping every port gets what is sent to a group.
        let mut commands = "link add bridge type bridge mcast_snooping 0\nlink set bridge up\n".to_string();
        for (port, _) in rig.ports() {
            let _ = writeln!(
                commands,
                "link add {port} type veth peer name eth0 netns {}",
                rig.namespace(&port)
            );
            let _ = writeln!(commands, "link set {port} master bridge up");
        }
        run("ip", &["-netns", &hub, "-batch", "-"], &commands)?;
        for (port, address) in rig.ports() {
            let commands = format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add 224.0.0.0/4 dev eth0\n"
            );
            run("ip", &["-netns", &rig.namespace(&port), "-batch", "-"], &commands)?;
        }
        Ok(rig)
    }

    fn namespace(&self, port: &str) -> String {
        format!("{}-{port}", self.name)
    }

    /// Ports of the bridge with the addresses behind them.
    fn ports(&self) -> Vec<(String, String)> {
        let servers = (1..=self.servers).map(|n| (format!("s{n}"), format!("{NETWORK}.{n}")));
        let clients = ("c".to_string(), format!("{NETWORK}.{CLIENTS}"));
        servers.chain([clients]).collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let ports = self.ports().into_iter().map(|(port, _)| self.namespace(&port));
        ports.chain([self.namespace("hub")]).collect()
    }

    /// Where servers run, in their order.
    pub fn servers(&self) -> Vec<Host> {
        let mut hosts = self.hosts();
        hosts.pop();
        hosts
    }

    /// Where clients run.
    pub fn clients(&self) -> Host {
        self.hosts().pop().expect("the clients come last")
    }

    fn hosts(&self) -> Vec<Host> {
        let host = |(port, address): (String, String)| Host {
            address,
            namespace: Some(self.namespace(&port)),
        };
        self.ports().into_iter().map(host).collect()
    }

    /// A directory for what belongs to it; removed with it.
    pub fn dir(&self) -> PathBuf {
        std::env::temp_dir().join(&self.name)
    }

    /// From now on packets are dropped by these rules, and by no others.
    pub fn set(&self, rules: &Rules) {
        self.nft("hub", &rules.text()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Everything arrives.
    pub fn heal(&self) {
        self.set(&Rules::default());
    }

    /// Sends what servers send to some addresses to others: `(protocol, address, port, to, port)`; without any, everything goes its own way.
    ///
    /// Each packet is rewritten by itself, there and back. The kernel's address translation would go by what it remembers of a
    /// connection, and leave those alone that were there before.
    pub fn redirect(&self, ways: &[(&str, String, u16, String, u16)]) {
        let mut ruleset = "add table ip relay\ndelete table ip relay\n".to_string();
        if !ways.is_empty() {
            ruleset += "add table ip relay\nadd chain ip relay there { type route hook output priority 0; }\n\
                        add chain ip relay back { type filter hook prerouting priority 0; }\n";
        }
        for (protocol, address, port, to, to_port) in ways {
            let _ = writeln!(
                ruleset,
                "add rule ip relay there ip daddr {address} {protocol} dport {port} {protocol} dport set {to_port} ip daddr set {to}\n\
                 add rule ip relay back ip saddr {to} {protocol} sport {to_port} {protocol} sport set {port} ip saddr set {address}"
            );
        }
        for server in 1..=self.servers {
            let done = self.nft(&format!("s{server}"), &ruleset);
            done.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    fn nft(&self, port: &str, ruleset: &str) -> Result<String, String> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(port));
        let ran = run("nsenter", &[&namespace, "--", "nft", "-f", "-"], ruleset)?;
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// How many packets the rules in force have dropped.
    pub fn dropped(&self) -> u64 {
        let listed = self.nft("hub", "list table bridge rig\n");
        let listed = listed.unwrap_or_else(|error| panic!("{error}"));
        let counts = listed.split("counter packets ").skip(1);
        counts
            .filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

/// Takes the calling thread to a host: the sockets that it makes from then on are there.
pub fn move_to(host: &Host) {
    let Some(namespace) = &host.namespace else { return };
    let path = Path::new("/run/netns").join(namespace);
    let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

impl Drop for Rig {
    fn drop(&mut self) {
        remove(&self.name, &self.namespaces());
    }
}

/// Removes what stands under a name: processes, mounts, namespaces, files.
fn remove(name: &str, namespaces: &[String]) {
    for namespace in namespaces {
        let Ok(pids) = run("ip", &["netns", "pids", namespace], "") else {
            continue;
        };
        let own = std::process::id().to_string();
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            // A thread of ours that is still there shows as this process.
            if pid != own {
                let _ = run("kill", &["-KILL", pid], "");
            }
        }
    }
    let dir = std::env::temp_dir().join(name);
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(at).starts_with(&dir) {
            // A frozen one can't be unmounted; most aren't.
            let _ = run("fsfreeze", &["--unfreeze", at], "");
            let _ = run("umount", &["--lazy", at], "");
        }
    }
    let _ = fs::remove_dir_all(&dir);
    for namespace in namespaces {
        let _ = run("ip", &["netns", "delete", namespace], "");
    }
}

/// Removes what runs have left behind that were killed.
fn sweep() {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let mut all = names(Path::new("/run/netns"));
    all.extend(names(&std::env::temp_dir()));
    // `PID-N` behind the prefix, and the port of a namespace.
    let rig = |name: &String| -> Option<String> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
        let (pid, number) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
        (!Path::new(&format!("/proc/{pid}")).exists()).then(|| format!("{PREFIX}{pid}-{number}"))
    };
    let mut dead: Vec<String> = all.iter().filter_map(rig).collect();
    dead.sort();
    dead.dedup();
    for name in dead {
        let mine = |namespace: &&String| rig(namespace).as_ref() == Some(&name);
        let namespaces: Vec<String> = all.iter().filter(mine).filter(|n| **n != name).cloned().collect();
        eprintln!("removing what is left of {name}, whose process is gone");
        remove(&name, &namespaces);
    }
}
