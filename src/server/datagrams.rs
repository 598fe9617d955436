//! The UDP socket of heartbeats and elections: multicast, or unicast to every server. A datagram is a hint, and its loss or
//! forgery must cost nothing but time: what isn't of this cluster, not authentic or a repetition is counted, complained of once
//! in a while, and dropped; no error of this socket ends anything.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::complaints::Complaints;
use super::handshake::agree;
use super::replay::Window;
use crate::cluster::message::{Datagram, Sender};
use crate::config::Secret;
use crate::limits;
use crate::types::{Boot, DirectoryId, ServerId, Tick};
use crate::wire::datagram::{Sealed, open, seal};

/// Where datagrams go.
#[derive(Clone, Debug)]
pub enum Route {
    /// To a group, over the interface of this address.
    Multicast(SocketAddrV4, Ipv4Addr),
    /// From this address to each server's own; those whose host is not known yet are missing.
    Unicast(SocketAddr, BTreeMap<ServerId, SocketAddr>),
}

/// A datagram that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The node may have it.
    Datagram(ServerId, DirectoryId, Datagram),
    /// It is authentic, but no link has introduced the start of the server that it is from: only a hint that it is there.
    Unknown(ServerId),
}

/// The socket, and what is known of those who send.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    route: Route,
    /// Whether datagrams may be waiting.
    pub ready: bool,
    gate: Gate,
    sequence: u64,
    complaints: Complaints,
}

impl Datagrams {
    /// Opens the socket, and tells of datagrams under `token`.
    ///
    /// # Errors
    /// What the system says: an address in use, an interface that isn't there.
    pub fn open(
        route: Route,
        secret: Option<Secret>,
        servers: Vec<ServerId>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Datagrams> {
        let socket = match &route {
            Route::Multicast(group, interface) => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
                // All servers of one machine share the port; each gets every datagram of the group.
                socket.set_reuse_address(true)?;
                // Bound to the group, not to any address: unicast datagrams to the port stay out.
                socket.bind(&SocketAddr::V4(*group).into())?;
                socket.join_multicast_v4(group.ip(), interface)?;
                socket.set_multicast_if_v4(interface)?;
                socket.set_multicast_loop_v4(true)?;
                socket
            }
            Route::Unicast(address, _) => {
                let socket = Socket::new(Domain::for_address(*address), Type::DGRAM, Some(Protocol::UDP))?;
                socket.bind(&(*address).into())?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        let mut socket = UdpSocket::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Datagrams {
            socket,
            route,
            ready: true,
            gate: Gate {
                secret,
                servers,
                windows: BTreeMap::new(),
            },
            sequence: 0,
            complaints: Complaints::default(),
        })
    }

    /// The host of a server has become known.
    pub fn locate(&mut self, server: ServerId, address: SocketAddr) {
        if let Route::Unicast(_, targets) = &mut self.route {
            targets.insert(server, address);
        }
    }

    /// A link has made known which start of which directory a server is.
    pub fn introduce(&mut self, server: ServerId, directory: DirectoryId, boot: Boot) {
        self.gate.introduce(server, directory, boot);
    }

    /// Sends a datagram to everybody, or to the one server that it is for.
    pub fn send(&mut self, datagram: Datagram, sender: Sender, now: Tick) {
        self.sequence += 1;
        let to = match &datagram {
            Datagram::Heartbeat(_) => None,
            Datagram::Token { to, .. } => Some(*to),
        };
        let bytes = seal(
            &Sealed {
                sender,
                sequence: self.sequence,
                datagram,
            },
            self.gate.secret.as_ref(),
        );
        match &self.route {
            Route::Multicast(group, _) => {
                let sent = self.socket.send_to(&bytes, SocketAddr::V4(*group));
                complain(&mut self.complaints, sent, "the group", now);
            }
            Route::Unicast(_, targets) => {
                for (server, address) in targets.iter().filter(|(server, _)| to.is_none_or(|to| to == **server)) {
                    let sent = self.socket.send_to(&bytes, *address);
                    complain(&mut self.complaints, sent, server.as_str(), now);
                }
            }
        }
    }

    /// Reads what is there, a bounded number.
    pub fn read(&mut self, ours: &Sender, now: Tick) -> Vec<Heard> {
        let mut heard = Vec::new();
        // One byte more than allowed, so that what was cut is seen to be too long.
        let mut bytes = [0; limits::DATAGRAM_BYTES_MAX + 1];
        for _ in 0..limits::DATAGRAMS_PER_TURN {
            if !self.ready {
                break;
            }
            match self.socket.recv_from(&mut bytes) {
                Ok((n, from)) => match self.gate.admit(bytes.get(..n).unwrap_or_default(), ours) {
                    Ok(one) => heard.extend(one),
                    Err(why) => self
                        .complaints
                        .warn(now, &format!("a datagram from {} is dropped: {why}", from.ip())),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A server that isn't there answers unicast datagrams so; the socket goes on.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => self.complaints.warn(now, &format!("datagrams can't be read: {error}")),
            }
        }
        heard
    }
}

fn complain(complaints: &mut Complaints, sent: io::Result<usize>, to: &str, now: Tick) {
    match sent {
        Ok(_) => {}
        // A full buffer, or the answer to an earlier datagram: heartbeats come again.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {}
        Err(error) => complaints.warn(now, &format!("heartbeats can't be sent to {to}: {error}")),
    }
}

/// Decides which datagrams get in.
#[derive(Debug)]
struct Gate {
    secret: Option<Secret>,
    servers: Vec<ServerId>,
    windows: BTreeMap<ServerId, Window>,
}

impl Gate {
    fn introduce(&mut self, server: ServerId, directory: DirectoryId, boot: Boot) {
        // The same start over a new link keeps its window: what it sent before doesn't count again.
        if self
            .windows
            .get(&server)
            .is_none_or(|window| window.of != (directory, boot))
        {
            self.windows.insert(server, Window::new(directory, boot));
        }
    }

    /// `Ok(None)`: nothing wrong with it, and nothing to do.
    fn admit(&mut self, bytes: &[u8], ours: &Sender) -> Result<Option<Heard>, String> {
        let Sealed {
            sender,
            sequence,
            datagram,
        } = open(bytes, self.secret.as_ref()).map_err(|error| error.to_string())?;
        let Sender {
            server,
            directory,
            boot,
            ..
        } = sender;
        if server == ours.server {
            if (directory, boot) != (ours.directory, ours.boot) {
                return Err(format!("another process says that it is {server}"));
            }
            return Ok(None);
        }
        if !self.servers.contains(&server) {
            return Err(format!("{server} is not among the configured servers"));
        }
        agree(ours, &sender)?;
        let known = self.windows.get(&server).map(|window| window.of);
        if known != Some((directory, boot)) {
            // With a secret only an authenticated link introduces a start: a recorded datagram of an earlier one is
            // authentic too. Without one anybody can say anything; then the latest start counts.
            let older = known.is_some_and(|(known, last)| known == directory && boot < last);
            if self.secret.is_some() || older {
                return Ok(Some(Heard::Unknown(server)));
            }
            self.introduce(server, directory, boot);
        }
        let first = self
            .windows
            .get_mut(&server)
            .is_some_and(|window| window.admit(sequence));
        Ok(first.then_some(Heard::Datagram(server, directory, datagram)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{Flags, Heartbeat};
    use crate::types::ClusterId;

    fn id(n: u64) -> ServerId {
        ServerId::new(&format!("server{n}")).unwrap()
    }

    fn sender(n: u64, boot: u64) -> Sender {
        Sender {
            cluster: ClusterId(0),
            members: 9,
            server: id(n),
            directory: DirectoryId(n),
            boot: Boot(boot),
        }
    }

    fn beat() -> Datagram {
        Datagram::Heartbeat(Heartbeat {
            flags: Flags {
                formed: true,
                fit: true,
                stopping: false,
            },
            links: Vec::new(),
            groups: Vec::new(),
        })
    }

    fn gate(secret: Option<Secret>) -> Gate {
        Gate {
            secret,
            servers: (1..=3).map(id).collect(),
            windows: BTreeMap::new(),
        }
    }

    fn sealed(sender: Sender, sequence: u64, secret: Option<&Secret>) -> Vec<u8> {
        seal(
            &Sealed {
                sender,
                sequence,
                datagram: beat(),
            },
            secret,
        )
    }

    #[test]
    fn a_recorded_heartbeat_does_not_make_a_dead_server_live() {
        let secret = Secret(vec![7; 32]);
        let mut gate = gate(Some(secret.clone()));
        let ours = sender(1, 1);
        let bytes = sealed(sender(2, 4), 10, Some(&secret));
        assert_eq!(
            gate.admit(&bytes, &ours),
            Ok(Some(Heard::Unknown(id(2)))),
            "no link has introduced it"
        );
        gate.introduce(id(2), DirectoryId(2), Boot(4));
        assert!(matches!(gate.admit(&bytes, &ours), Ok(Some(Heard::Datagram(..)))));
        assert_eq!(gate.admit(&bytes, &ours), Ok(None), "a repetition");
        gate.introduce(id(2), DirectoryId(2), Boot(4));
        assert_eq!(
            gate.admit(&bytes, &ours),
            Ok(None),
            "a new link doesn't open the window again"
        );
        gate.introduce(id(2), DirectoryId(2), Boot(5));
        let next = sealed(sender(2, 4), 11, Some(&secret));
        assert_eq!(
            gate.admit(&next, &ours),
            Ok(Some(Heard::Unknown(id(2)))),
            "of the start before"
        );
        let first = sealed(sender(2, 5), 1, Some(&secret));
        assert!(
            matches!(gate.admit(&first, &ours), Ok(Some(Heard::Datagram(..)))),
            "the new start counts from 1"
        );
    }

    #[test]
    fn a_server_that_lost_its_disk_is_heard_again() {
        let mut gate = gate(None);
        let ours = sender(1, 1);
        assert!(matches!(
            gate.admit(&sealed(sender(2, 9), 100, None), &ours),
            Ok(Some(Heard::Datagram(..)))
        ));
        let reborn = Sender {
            directory: DirectoryId(77),
            ..sender(2, 1)
        };
        assert!(matches!(
            gate.admit(&sealed(reborn, 1, None), &ours),
            Ok(Some(Heard::Datagram(..)))
        ));
    }

    #[test]
    fn strangers_and_twins_are_dropped() {
        let secret = Secret(vec![7; 32]);
        let mut gate = gate(Some(secret.clone()));
        let ours = sender(1, 1);
        assert!(gate.admit(b"hello", &ours).is_err());
        assert!(gate.admit(&sealed(sender(2, 1), 1, None), &ours).is_err());
        assert!(gate.admit(&sealed(sender(4, 1), 1, Some(&secret)), &ours).is_err());
        let other = Sender {
            members: 8,
            ..sender(2, 1)
        };
        assert!(gate.admit(&sealed(other, 1, Some(&secret)), &ours).is_err());
        assert_eq!(
            gate.admit(&sealed(ours, 1, Some(&secret)), &ours),
            Ok(None),
            "our own, come back"
        );
        let twin = Sender {
            directory: DirectoryId(99),
            ..ours
        };
        assert!(
            gate.admit(&sealed(twin, 1, Some(&secret)), &ours)
                .unwrap_err()
                .contains("another process")
        );
    }
}
