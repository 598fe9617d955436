//! What a slow network does, in user space: everything that servers send to one another goes through a relay that delays it, and
//! repeats and reorders datagrams. The kernel's own means (`netem`) aren't everywhere.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use syncnet::rng::Rng;

use super::rig::{Rig, Rules, move_to};
use crate::support::cluster::Cluster;

/// How long packets take, at least and at most.
#[derive(Clone, Copy)]
pub struct Slowness {
    pub least: Duration,
    pub most: Duration,
    /// Datagrams of a hundred that arrive twice.
    pub repeated: u64,
}

impl Slowness {
    fn draw(self, rng: &mut Rng) -> Duration {
        let micros = |time: Duration| time.as_micros() as u64;
        Duration::from_micros(rng.between(micros(self.least), micros(self.most)))
    }
}

/// Carries all that is said between servers; ends when it is dropped, and then everything goes its own way again.
pub struct Relay<'a> {
    rig: &'a Rig,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What its threads share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Pieces of connections that were carried.
    pieces: AtomicU64,
    datagrams: AtomicU64,
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How often those that wait look whether they shall stop.
const GLANCE: Duration = Duration::from_millis(20);

impl<'a> Relay<'a> {
    /// Puts a relay between the servers of a cluster.
    pub fn start(rig: &'a Rig, cluster: &Cluster, unicast: bool, slowness: Slowness, rng: &mut Rng) -> Relay<'a> {
        let mut relay = Relay {
            rig,
            shared: Arc::default(),
            threads: Vec::new(),
        };
        let here = rig.clients().address;
        let mut ways = Vec::new();
        for (server, host) in cluster.servers.iter().zip(rig.servers()) {
            let target = |port: u16| SocketAddr::new(host.address.parse().expect("an address"), port);
            let (to, mut draws) = (target(server.peer_port), rng.child());
            let port = relay.spawn(move |shared, port| {
                let listener = TcpListener::bind(("0.0.0.0", 0)).expect("a port");
                port.send(listener.local_addr().expect("it is bound").port())
                    .expect("it is awaited");
                accept(&listener, to, slowness, &mut draws, &shared);
            });
            ways.push(("tcp", host.address.clone(), server.peer_port, here.clone(), port));
            if unicast {
                let (to, mut draws) = (target(server.heartbeat_port), rng.child());
                let port = relay.spawn(move |shared, port| {
                    let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
                    port.send(socket.local_addr().expect("it is bound").port())
                        .expect("it is awaited");
                    datagrams(&socket, &socket, to, slowness, &mut draws, &shared);
                });
                ways.push(("udp", host.address.clone(), server.heartbeat_port, here.clone(), port));
            }
        }
        if !unicast {
            let (group, interface, mut draws) = (cluster.multicast, address(&here), rng.child());
            relay.spawn(move |shared, port| {
                let from = member_of(group, interface);
                let to = UdpSocket::bind((interface, 0)).expect("a port");
                // Or it would hear itself.
                to.set_multicast_loop_v4(false).expect("a socket of ours");
                port.send(group.port()).expect("it is awaited");
                datagrams(&from, &to, SocketAddr::V4(group), slowness, &mut draws, &shared);
            });
        }
        // What isn't redirected, the multicast, would arrive as well.
        rig.set(&Rules::default().datagrams());
        rig.redirect(&ways);
        relay
    }

    /// How much went through it until now: pieces of connections, and datagrams.
    pub fn carried(&self) -> (u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.shared.pieces), count(&self.shared.datagrams))
    }

    /// Starts a thread on the clients' host; gives the port that it says.
    fn spawn(&mut self, run: impl FnOnce(Arc<Shared>, &Sender<u16>) + Send + 'static) -> u16 {
        let (shared, host) = (Arc::clone(&self.shared), self.rig.clients());
        let (port, said) = channel();
        self.threads.push(thread::spawn(move || {
            move_to(&host);
            run(shared, &port);
        }));
        said.recv().expect("the relay starts")
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        // Connections end first: once they aren't redirected any more, nobody would hear their ends.
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if thread::panicking() {
            return;
        }
        self.rig.redirect(&[]);
        self.rig.heal();
    }
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an address of the rig")
}

/// A socket that hears what is sent to a group.
fn member_of(group: SocketAddrV4, interface: Ipv4Addr) -> UdpSocket {
    let make = || -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::V4(group).into())?;
        socket.join_multicast_v4(group.ip(), &interface)?;
        Ok(socket.into())
    };
    make().unwrap_or_else(|error| panic!("{group}: {error}"))
}

/// Carries connections until it shall stop.
fn accept(listener: &TcpListener, to: SocketAddr, slowness: Slowness, rng: &mut Rng, shared: &Arc<Shared>) {
    listener.set_nonblocking(true).expect("a socket of ours");
    let mut open: Vec<TcpStream> = Vec::new();
    let mut pumps = Vec::new();
    while !shared.stops() {
        let Ok((near, _)) = listener.accept() else {
            thread::sleep(GLANCE);
            continue;
        };
        // One whose other end doesn't answer ends, as the connection would have.
        let Ok(far) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else {
            continue;
        };
        let _ = near.set_nonblocking(false);
        for (from, to) in [(&near, &far), (&far, &near)] {
            let _ = from.set_nodelay(true);
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                let draws = rng.child();
                let shared = Arc::clone(shared);
                pumps.push(thread::spawn(move || pump(from, to, slowness, draws, &shared)));
            }
        }
        open.extend([near, far]);
    }
    for stream in open {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

/// Carries one direction of a connection: everything arrives later, in its order.
fn pump(mut from: TcpStream, mut to: TcpStream, slowness: Slowness, mut rng: Rng, shared: &Shared) {
    let (later, due) = channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        shared.pieces.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now() + slowness.draw(&mut rng);
        if later.send((at, bytes[..n].to_vec())).is_err() {
            break;
        }
    }
    drop(later);
    let _ = writer.join();
    let _ = from.shutdown(Shutdown::Both);
}

/// Carries datagrams until it shall stop: each arrives later, some twice, and one that is quicker overtakes others.
fn datagrams(
    from: &UdpSocket,
    to: &UdpSocket,
    target: SocketAddr,
    slowness: Slowness,
    rng: &mut Rng,
    shared: &Arc<Shared>,
) {
    let mut waiting: BinaryHeap<Reverse<(Instant, Vec<u8>)>> = BinaryHeap::new();
    let mut bytes = vec![0; 64 << 10];
    while !shared.stops() {
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, bytes))) = waiting.pop() {
                // One that can't be sent is one that got lost.
                let _ = to.send_to(&bytes, target);
            }
        }
        let next = waiting
            .peek()
            .map_or(GLANCE, |Reverse((at, _))| at.saturating_duration_since(now));
        let wait = next.clamp(Duration::from_millis(1), GLANCE);
        from.set_read_timeout(Some(wait)).expect("a socket of ours");
        if let Ok(n) = from.recv(&mut bytes) {
            shared.datagrams.fetch_add(1, Ordering::Relaxed);
            for _ in 0..if rng.chance(slowness.repeated) { 2 } else { 1 } {
                waiting.push(Reverse((Instant::now() + slowness.draw(rng), bytes[..n].to_vec())));
            }
        }
    }
}
