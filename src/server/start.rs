//! Puts a server together: data directory, log, node, sockets. Everything that may block or fail does so here, before the loop runs,
//! and says whose fault it is.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Waker};

use super::Failure;
use super::clients::Clients;
use super::clock::Clock;
use super::datagrams::{Datagrams, Route};
use super::disk::LogWorkers;
use super::listener::{Listener, connections_max};
use super::logging::Logging;
use super::peers::{PeerAddress, Peers};
use super::poll::{CLIENT_DOOR, DATAGRAMS, PEER_DOOR, Parts, SIGNALS, Server, WAKER};
use super::resolve::{keep_looking, resolve};
use super::signals::{Signals, Wish};
use crate::config::{Config, ServerConfig};
use crate::keep::open::Opened;
use crate::keep::worker;
use crate::limits;
use crate::log::directory::{DataDir, DirError};
use crate::log::disk::{RealDisk, is_full};
use crate::log::recovery::{OpenError, Options};
use crate::log::worker::spawn;
use crate::node::{Node, Setup};
use crate::types::{GroupId, ServerId};

impl Server {
    /// Starts a server of the cluster; it listens when this returns. `renounced` says why its directory is to be set aside first. `None`
    /// if it was asked to stop before it had the space that a start needs.
    ///
    /// # Errors
    /// Why it can't run here.
    pub fn start(
        config: Config,
        me: ServerId,
        data: &Path,
        renounced: Option<&str>,
        logging: Logging,
    ) -> Result<Option<Server>, Failure> {
        let config = Arc::new(config);
        let own = config
            .server(me)
            .ok_or_else(|| Failure::Misconfigured(format!("{me} is not in the configuration")))?;
        let clock = Clock::start();
        let poll = Poll::new().map_err(system("the system can't watch sockets"))?;
        let registry = poll.registry();
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(system("the system can't wake the loop"))?);
        // Before anything that takes long, so that a stop is heard, and before the threads, so that they inherit nothing.
        let mut signals = Signals::register(registry, SIGNALS).map_err(system("signals can't be caught"))?;
        let clients_max = connections_max();

        // Doors first: a second process with the same ports must not touch the data directory.
        let client_door = bind(own, own.client_port, "client_port", registry, CLIENT_DOOR)?;
        let peer_door = bind(own, own.peer_port, "peer_port", registry, PEER_DOOR)?;

        let hosts = Hosts::look_up(&config, me);
        let route = route(&config, own, &hosts)?;
        let ids: Vec<ServerId> = config.servers.iter().map(|server| server.id).collect();
        let datagrams = Datagrams::open(route.clone(), config.secret.clone(), ids, registry, DATAGRAMS)
            .map_err(|error| datagram_failure(&route, &error))?;

        let mut renounced = renounced.map(ToOwned::to_owned);
        let mut is_told = false;
        let (dir, opened) = loop {
            match open_data(&config, me, data, &mut renounced) {
                Err(Failure::Full(what)) => {
                    // Whoever starts it again and again would come no further.
                    if !std::mem::replace(&mut is_told, true) {
                        log::error!("{what}: the start waits until there is space");
                    }
                }
                opened => break opened?,
            }
            std::thread::sleep(Duration::from_micros(limits::DISK_FULL_REST.0));
            if signals.take().contains(&Wish::Stop) {
                return Ok(None);
            }
        };
        report(&opened.report);

        let seed = getrandom::u64()
            .map_err(|error| Failure::Failed(format!("the system gives no random numbers: {error}")))?;
        let setup = Setup {
            config: Arc::clone(&config),
            me,
            directory: dir.directory,
            boot: dir.boot,
            recovered: opened.recovered,
            state: opened.state,
            replaced: dir.replaced,
            seed,
        };
        let node = Node::new(setup, clock.now()).map_err(Failure::Misconfigured)?;

        let wake = Arc::clone(&waker);
        let notify = Arc::new(move || {
            // The only failure is a full counter, and then the loop is awake already.
            let _ = wake.wake();
        });
        let workers = spawn(opened.log, opened.reader, notify.clone()).map_err(system("no thread for the log"))?;
        let keeper = worker::spawn(opened.keeper, notify).map_err(system("no thread for the log"))?;
        let found = if hosts.missing.is_empty() {
            None
        } else {
            let looking = keep_looking(hosts.missing.clone(), Arc::clone(&waker));
            Some(looking.map_err(system("no thread for looking up hosts"))?)
        };
        let peers = Peers::new(
            &config.name,
            config.secret.clone(),
            config.timing,
            hosts.peers(&config, own),
        );
        log::info!(
            "directory {:016x}, start {}, at most {clients_max} clients",
            dir.directory.0,
            dir.boot
        );
        Ok(Some(Server::new(Parts {
            poll,
            clock,
            node,
            disk: LogWorkers::new(workers, keeper),
            client_door,
            peer_door,
            clients: Clients::new(clients_max),
            peers,
            datagrams,
            signals,
            logging,
            found,
            ports: config
                .servers
                .iter()
                .map(|s| (s.id, s.peer_port, s.heartbeat_port))
                .collect(),
            data: dir,
        })))
    }
}

/// Opens the data directory and all that is in it. What can't be trusted is set aside, if there are others to be filled from.
fn open_data(
    config: &Config,
    me: ServerId,
    data: &Path,
    why: &mut Option<String>,
) -> Result<(DataDir, Opened<RealDisk>), Failure> {
    let is_alone = config.servers.len() == 1;
    loop {
        if let Some(reason) = why.clone() {
            let place = DataDir::set_aside(data, me, &reason).map_err(dir_failure)?;
            *why = None;
            log::error!(
                "{reason}; what there was is kept in {}; this server begins anew and is filled by the others, without a vote until then",
                place.display()
            );
        }
        let mut dir = match DataDir::open(data, me) {
            Ok(dir) => dir,
            Err(error @ DirError::Damaged { .. }) if !is_alone => {
                *why = Some(error.to_string());
                continue;
            }
            Err(error) => return Err(dir_failure(error)),
        };
        let options = Options {
            segment_size: config.log.segment_size,
            groups: vec![GroupId::ROOT],
            reached: dir.log_end,
            checkpoint: None,
        };
        match Opened::open(dir.disk(), dir.directory, options) {
            Ok(opened) => {
                opened.notes.iter().for_each(|note| log::error!("{note}"));
                for (file, offset, text) in &opened.report.damaged {
                    let text = format!("damaged: {file} at offset {offset}: {text}");
                    if is_alone {
                        // Nobody else has what is missing.
                        return Err(Failure::Damaged(format!("{text} (in {})", data.display())));
                    }
                    log::error!("{text}; what is missing is fetched from the others");
                }
                dir.log_reached(opened.log.end()).map_err(dir_failure)?;
                return Ok((dir, opened));
            }
            Err(error @ OpenError::Untrusted { .. }) if !is_alone => *why = Some(error.to_string()),
            Err(error) => return Err(open_failure(data, &error)),
        }
    }
}

/// The hosts of the other servers.
struct Hosts {
    known: Vec<(ServerId, Vec<IpAddr>)>,
    missing: Vec<(ServerId, String)>,
}

impl Hosts {
    fn look_up(config: &Config, me: ServerId) -> Hosts {
        let mut hosts = Hosts {
            known: Vec::new(),
            missing: Vec::new(),
        };
        for server in config.servers.iter().filter(|server| server.id != me) {
            match resolve(&server.host, 0) {
                Ok(addresses) => hosts
                    .known
                    .push((server.id, addresses.iter().map(SocketAddr::ip).collect())),
                Err(error) => {
                    log::warn!(
                        "the host \"{}\" of {} is not known yet: {error}",
                        server.host,
                        server.id
                    );
                    hosts.missing.push((server.id, server.host.clone()));
                }
            }
        }
        hosts
    }

    fn peers(&self, config: &Config, own: &ServerConfig) -> Vec<PeerAddress> {
        let others = config.servers.iter().filter(|server| server.id != own.id);
        let addresses = |server: &ServerConfig| {
            let known = self
                .known
                .iter()
                .filter(|(id, _)| *id == server.id)
                .flat_map(|(_, ips)| ips);
            known.map(|ip| SocketAddr::new(*ip, server.peer_port)).collect()
        };
        others
            .map(|server| PeerAddress {
                id: server.id,
                addresses: addresses(server),
                dials: own.ring < server.ring,
            })
            .collect()
    }
}

/// Where a server binds a port.
fn listen_address(own: &ServerConfig, port: u16) -> Result<SocketAddr, Failure> {
    let host = own.listen.as_deref().unwrap_or(&own.host);
    let addresses = resolve(host, port).map_err(|error| {
        Failure::Misconfigured(format!("{}: the address \"{host}\" can't be used: {error}", own.id))
    })?;
    addresses
        .first()
        .copied()
        .ok_or_else(|| Failure::Misconfigured(format!("{}: \"{host}\" has no address", own.id)))
}

fn bind(
    own: &ServerConfig,
    port: u16,
    what: &str,
    registry: &mio::Registry,
    token: mio::Token,
) -> Result<Listener, Failure> {
    let address = listen_address(own, port)?;
    Listener::bind(address, registry, token).map_err(|error| bind_failure(address, what, &error))
}

fn bind_failure(address: SocketAddr, what: &str, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "another process listens there (ss -ltnup shows which): stop it, or change the port in the configuration"
                .to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "this machine doesn't have that address: check --server-id, host and listen".to_owned()
        }
        ErrorKind::PermissionDenied => "ports below 1024 need a permission: choose a higher one".to_owned(),
        _ => format!("{what} of this server in the configuration"),
    };
    Failure::Taken(format!("{address} ({what}) can't be bound: {error}; {advice}"))
}

fn route(config: &Config, own: &ServerConfig, hosts: &Hosts) -> Result<Route, Failure> {
    let Some(group) = config.multicast else {
        let address = listen_address(own, own.heartbeat_port)?;
        let target = |(id, ips): &(ServerId, Vec<IpAddr>)| {
            // A socket of one family can't send to the other.
            let ip = ips.iter().find(|ip| ip.is_ipv4() == address.is_ipv4())?;
            Some((*id, SocketAddr::new(*ip, config.server(*id)?.heartbeat_port)))
        };
        return Ok(Route::Unicast(address, hosts.known.iter().filter_map(target).collect()));
    };
    let host = match resolve(&own.host, 0) {
        Ok(addresses) => addresses.iter().find_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
        Err(_) => None,
    };
    let interface = config.interface.or(host).unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ok(Route::Multicast(group, interface))
}

fn datagram_failure(route: &Route, error: &io::Error) -> Failure {
    match route {
        Route::Unicast(address, _) => bind_failure(*address, "heartbeat_port", error),
        Route::Multicast(group, interface) => Failure::Taken(format!(
            "the multicast group {group} can't be joined on interface {interface}: {error}; set heartbeat.interface to an address \
             of this machine, or leave heartbeat.multicast out to use unicast"
        )),
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}

fn dir_failure(error: DirError) -> Failure {
    let text = error.to_string();
    match error {
        DirError::Taken { .. } | DirError::NotPermitted { .. } => Failure::Taken(text),
        DirError::OtherServer { .. } => Failure::Misconfigured(text),
        DirError::Damaged { .. } => Failure::Damaged(text),
        DirError::Io { error, .. } if is_full(&error) => Failure::Full(text),
        DirError::Io { .. } => Failure::Failed(text),
    }
}

fn open_failure(data: &Path, error: &OpenError) -> Failure {
    let text = format!("{error} (in {})", data.display());
    match error {
        OpenError::Untrusted { .. } | OpenError::Newer { .. } => Failure::Damaged(text),
        OpenError::Io { error, .. } if is_full(error) => Failure::Full(text),
        OpenError::Io { .. } => Failure::Failed(text),
    }
}

fn report(report: &crate::log::recovery::Report) {
    // A checkpoint and index files tell of the segments before.
    log::info!(
        "the log has {} segments; the {} records at its end were read and are whole",
        report.segments,
        report.records
    );
    if let Some((file, offset)) = &report.cut_at {
        log::info!(
            "{} bytes of a torn end were cut off at {file} offset {offset}",
            report.cut_bytes
        );
    }
}
