//! A cluster of its own for a benchmark that must harm it: three servers on free ports of this machine, with default timing, in a
//! temporary directory. Processes and directory end with it, however the benchmark ends.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, kill_process};

use super::Trouble;
use crate::client::ask::survey;
use crate::client::health::{Health, judge};
use crate::types::Span;

const SERVERS: usize = 3;
/// Below the range from which the system gives ports to connections.
const PORTS: std::ops::Range<u64> = 12_000..30_000;
/// How long it may take to be healthy.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Span = Span::from_ms(1_000);

/// The cluster.
pub struct Own {
    directory: PathBuf,
    program: PathBuf,
    /// `host:port` for clients, in the order of the ring.
    pub addresses: Vec<String>,
    children: Vec<Option<Child>>,
}

impl Own {
    /// Starts it, with the `syncnetd` that is beside this program.
    ///
    /// # Errors
    /// What is missing.
    pub fn start() -> Result<Own, Trouble> {
        let program = std::env::current_exe().map(|path| path.with_file_name("syncnetd"));
        let program = program.map_err(|error| Trouble::failed(format!("this program can't find itself: {error}")))?;
        if !program.exists() {
            return Err(Trouble::failed(format!(
                "{} is missing: it must be beside this program",
                program.display()
            )));
        }
        let name = format!(
            "syncnet-bench-{}-{:x}",
            std::process::id(),
            getrandom::u64().unwrap_or(0)
        );
        let directory = std::env::temp_dir().join(name);
        let ports = ports(4 * SERVERS)?;
        let addresses = ports.iter().take(SERVERS).map(|port| format!("127.0.0.1:{port}"));
        let mut own = Own {
            addresses: addresses.collect(),
            children: (0..SERVERS).map(|_| None).collect(),
            directory,
            program,
        };
        let made = fs::create_dir(&own.directory)
            .and_then(|()| fs::write(own.directory.join("cluster.toml"), configuration(&ports)));
        made.map_err(|error| own.trouble(&error))?;
        for n in 0..SERVERS {
            own.launch(n)?;
        }
        Ok(own)
    }

    fn trouble(&self, error: &std::io::Error) -> Trouble {
        Trouble::failed(format!("{}: {error}", self.directory.display()))
    }

    /// Starts a server; its log goes on in the same file.
    ///
    /// # Errors
    /// If it can't be.
    pub fn launch(&mut self, n: usize) -> Result<(), Trouble> {
        let id = format!("server{}", n + 1);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("{id}.log")))
            .map_err(|error| self.trouble(&error))?;
        let child = Command::new(&self.program)
            .current_dir(&self.directory)
            .args(["--config", "cluster.toml", "--server-id", &id, "--data-dir", &id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Trouble::failed(format!("{}: {error}", self.program.display())))?;
        if let Some(place) = self.children.get_mut(n) {
            *place = Some(child);
        }
        Ok(())
    }

    /// Ends a server without any notice.
    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.children.get_mut(n).and_then(Option::take) {
            // It is ours and was not waited for, so its number is still its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops a server in its tracks, or lets it go on.
    pub fn hang(&self, n: usize, hang: bool) {
        if let Some(child) = self.children.get(n).and_then(Option::as_ref) {
            let signal = if hang { Signal::STOP } else { Signal::CONT };
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Waits until all are well and the last one leads, which is the preferred one.
    ///
    /// # Errors
    /// If that takes too long, or is interrupted.
    pub fn settle(&self, interrupts: &Receiver<()>) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let survey = survey(&self.addresses, TIMEOUT);
            let verdict = judge(&survey.rows);
            let preferred = format!("server{SERVERS}");
            let leads = survey
                .rows
                .iter()
                .filter_map(|row| row.answer.as_ref()?.leader)
                .all(|id| id.as_str() == preferred);
            if verdict.health == Health::Healthy && leads {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.join("server1.log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(Trouble::silent(&format!(
                    "the servers of this benchmark were not well within a minute: {verdict}; the last of server1's log, backwards: {}",
                    end.join(" / ")
                )));
            }
            if interrupts.recv_timeout(Duration::from_millis(50)).is_ok() {
                return Err(Trouble::failed("interrupted"));
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for n in 0..self.children.len() {
            self.kill(n);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ports on which nothing listens. They are all held until the last is found, so that no two are the same.
fn ports(count: usize) -> Result<Vec<u16>, Trouble> {
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == count {
            break;
        }
        let random = getrandom::u64().map_err(Trouble::failed)?;
        let port = u16::try_from(PORTS.start + random % (PORTS.end - PORTS.start)).unwrap_or(u16::MAX);
        let sockets =
            TcpListener::bind(("127.0.0.1", port)).and_then(|tcp| Ok((tcp, UdpSocket::bind(("127.0.0.1", port))?)));
        if let Ok(sockets) = sockets {
            held.push((port, sockets));
        }
    }
    if held.len() < count {
        return Err(Trouble::failed("no free ports"));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

fn configuration(ports: &[u16]) -> String {
    let mut text = "[cluster]\nname = \"bench\"\n".to_string();
    let port = |of: usize, n: usize| ports.get(of * SERVERS + n).copied().unwrap_or_default();
    for n in 0..SERVERS {
        text += &format!(
            "[[server]]\nid = \"server{}\"\nring_position = {n}\nhost = \"127.0.0.1\"\nclient_port = {}\nhttp_port = {}\n\
             heartbeat_port = {}\npeer_port = {}\n",
            n + 1,
            port(0, n),
            port(1, n),
            port(2, n),
            port(3, n)
        );
    }
    text
}

/// The id of the server that is preferred as leader, as its place.
pub const LEADER: usize = SERVERS - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one() {
        let ports = ports(4 * SERVERS).unwrap();
        let parsed = crate::config::parse(&configuration(&ports), std::path::Path::new("cluster.toml")).unwrap();
        assert_eq!(parsed.config.servers.len(), SERVERS);
        assert_eq!(parsed.config.servers[LEADER].client_port, ports[LEADER]);
    }
}
