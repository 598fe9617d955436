//! Names of hosts. This server's own must be known at the start; another's may come later (a name server that is down must not
//! keep a server from starting), so those are looked up again and again by a thread, for looking up blocks.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use mio::Waker;

use crate::limits;
use crate::types::ServerId;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(3);

/// The addresses of a host and port, those of version 4 first: `localhost` is bound and dialled alike then.
///
/// # Errors
/// When the name isn't known.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// A server whose host was found: its addresses, with port 0.
pub type Found = (ServerId, Vec<SocketAddr>);

/// Looks names up until all are found, and wakes the loop for each.
///
/// # Errors
/// When the system has no thread left.
pub fn keep_looking(mut hosts: Vec<(ServerId, String)>, waker: Arc<Waker>) -> io::Result<Receiver<Found>> {
    let (sender, receiver) = bounded(limits::SERVERS_MAX);
    thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        while !hosts.is_empty() {
            thread::sleep(AGAIN);
            hosts.retain(|(id, host)| match resolve(host, 0) {
                Ok(addresses) => {
                    // Both fail only when the loop is gone.
                    let _ = sender.send((*id, addresses));
                    let _ = waker.wake();
                    false
                }
                Err(_) => true,
            });
        }
    })?;
    Ok(receiver)
}
