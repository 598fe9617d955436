//! Listening sockets. Accepting has a budget a turn; when the system has no descriptor left a listener rests until a deadline,
//! because the edge that told of the waiting connection doesn't come again.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use std::collections::HashMap;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::{limits, machine};

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Whether connections may be waiting: the system told, and not all have been accepted since.
    pub ready: bool,
    /// Whether it waits until the system may have descriptors again.
    pub resting: bool,
}

/// What accepting came to.
#[derive(Debug)]
pub enum Accepted {
    /// A connection.
    One(TcpStream, SocketAddr),
    /// No more now.
    None,
    /// The system has no descriptor left: rest.
    Exhausted(io::Error),
}

impl Listener {
    /// Listens on the address, and tells of connections under `token`.
    ///
    /// # Errors
    /// What the system says: most often that the address is in use.
    pub fn bind(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Listener> {
        let mut socket = TcpListener::bind(address)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Listener {
            socket,
            ready: false,
            resting: false,
        })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts one connection.
    pub fn accept(&mut self) -> Accepted {
        loop {
            match self.socket.accept() {
                Ok((stream, address)) => return Accepted::One(stream, address),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready = false;
                    return Accepted::None;
                }
                Err(error) if out_of_descriptors(&error) => return Accepted::Exhausted(error),
                // The connection died before it was accepted, or its network did; others may wait behind it.
                Err(_) => {}
            }
        }
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Counts connections of clients against what may be.
#[derive(Debug)]
pub struct Census {
    max: usize,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Census {
    /// At most `max` connections.
    #[must_use]
    pub fn new(max: usize) -> Census {
        Census {
            max,
            total: 0,
            by_address: HashMap::new(),
        }
    }

    /// Counts one more, if it may be.
    ///
    /// # Errors
    /// Why not, in words for the client.
    pub fn enter(&mut self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        if self.total >= self.max {
            return Err(format!(
                "this server is full: it has {} connections; try another",
                self.total
            ));
        }
        let here = self.by_address.entry(address).or_insert(0);
        if !address.is_loopback() && *here >= limits::CONNECTIONS_PER_ADDRESS_MAX {
            return Err(format!(
                "there are {here} connections from {address} already; close some of them"
            ));
        }
        *here += 1;
        self.total += 1;
        Ok(())
    }

    /// Counts one less.
    pub fn leave(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if let Some(here) = self.by_address.get_mut(&address) {
            *here -= 1;
            self.total -= 1;
            if *here == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Asks for as many descriptors as this process may have, and gives how many clients that allows.
#[must_use]
pub fn connections_max() -> usize {
    let wanted = (limits::CONNECTIONS_MAX + limits::DESCRIPTORS_RESERVED) as u64;
    let descriptors = usize::try_from(machine::raise_descriptors(wanted)).unwrap_or(usize::MAX);
    let connections = descriptors
        .saturating_sub(limits::DESCRIPTORS_RESERVED)
        .clamp(1, limits::CONNECTIONS_MAX);
    if connections < limits::CONNECTIONS_FEW {
        log::warn!("the limit of open files is {descriptors}: room for {connections} connections of clients only");
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_address_cannot_take_all_connections() {
        let mut census = Census::new(limits::CONNECTIONS_PER_ADDRESS_MAX + 10);
        let greedy = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..limits::CONNECTIONS_PER_ADDRESS_MAX {
            census.enter(greedy).unwrap();
        }
        assert!(census.enter(greedy).is_err());
        let mapped = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(census.enter(mapped).is_err(), "the same address in another dress");
        census.enter(IpAddr::from([192, 0, 2, 2])).unwrap();
        census.leave(greedy);
        census.enter(greedy).unwrap();
    }

    #[test]
    fn all_together_are_bounded_loopback_too() {
        let mut census = Census::new(3);
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        for _ in 0..3 {
            census.enter(local).unwrap();
        }
        assert!(census.enter(local).unwrap_err().contains("full"));
        census.leave(local);
        census.enter(local).unwrap();
    }
}
