//! Links to the other servers: one TCP connection a pair, dialled by the server with the lower ring position. A server that can't
//! be reached is dialled again and again, first after a heartbeat interval, then more rarely, and at once when a datagram of
//! it comes. A link that breaks is reported in the same turn: a killed process is noticed by its reset, not by a time-out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::SockRef;

use super::complaints::Complaints;
use super::connection::{Got, Sent};
use super::handshake::{Identity, Shake};
use super::link::{Link, Phase};
use super::ready::Ready;
use super::{Alarm, Context};
use crate::cluster::message::Sender;
use crate::config::{Secret, Timing};
use crate::limits;
use crate::node::Input;
use crate::types::{ConnId, ServerId, Span, Tick};
use crate::wire::frame::{Split, split};
use crate::wire::peer::{Handshake, PeerMessage, decode_message, encode_handshake, encode_message};

/// Another server, as this one knows it.
#[derive(Debug)]
struct Peer {
    addresses: Vec<SocketAddr>,
    /// Which of them is dialled next.
    next: usize,
    /// Whether it is this server that dials.
    dials: bool,
    /// The link that works.
    up: Option<ConnId>,
    /// The link that is being made by dialling.
    making: Option<ConnId>,
    /// How long to rest after the next failure.
    rest: Span,
    /// When it was dialled last.
    tried: Tick,
    /// Why it can't be reached, as it stands in the log already.
    trouble: Option<String>,
}

/// What is known of another server before anything is dialled.
#[derive(Clone, Debug)]
pub struct PeerAddress {
    /// The server.
    pub id: ServerId,
    /// Where its peer port is.
    pub addresses: Vec<SocketAddr>,
    /// Whether this server dials it, not the other way round.
    pub dials: bool,
}

/// The links to all other servers.
#[derive(Debug)]
pub struct Peers {
    cluster_name: String,
    secret: Option<Secret>,
    timing: Timing,
    ids: Vec<ServerId>,
    peers: BTreeMap<ServerId, Peer>,
    links: HashMap<ConnId, Link>,
    unread: Ready,
    unsent: Ready,
    inputs: VecDeque<Input>,
    complaints: Complaints,
}

impl Peers {
    /// Links to these servers, none of which works yet.
    #[must_use]
    pub fn new(cluster_name: &str, secret: Option<Secret>, timing: Timing, others: Vec<PeerAddress>) -> Peers {
        let ids = others.iter().map(|other| other.id).collect();
        let peer = |other: PeerAddress| Peer {
            addresses: other.addresses,
            next: 0,
            dials: other.dials,
            up: None,
            making: None,
            rest: timing.heartbeat_interval,
            tried: Tick(0),
            trouble: None,
        };
        Peers {
            cluster_name: cluster_name.to_owned(),
            secret,
            timing,
            ids,
            peers: others.into_iter().map(|other| (other.id, peer(other))).collect(),
            links: HashMap::new(),
            unread: Ready::default(),
            unsent: Ready::default(),
            inputs: VecDeque::new(),
            complaints: Complaints::default(),
        }
    }

    /// What the node must hear, in order.
    pub fn take_input(&mut self) -> Option<Input> {
        self.inputs.pop_front()
    }

    /// Whether there is something left that the next turn must not wait for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.unread.is_empty() || !self.inputs.is_empty()
    }

    /// Whether everything has been handed to the system.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.links.values().all(|link| link.output.is_empty())
    }

    /// Dials every server that is this one's to dial.
    pub fn dial_all(&mut self, context: &mut Context<'_>) {
        for id in self.ids.clone() {
            self.dial(id, context);
        }
    }

    /// Dials a server, unless there is a link or a try.
    pub fn dial(&mut self, server: ServerId, context: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        if !peer.dials || peer.up.is_some() || peer.making.is_some() || peer.addresses.is_empty() {
            return;
        }
        let Some(&address) = peer.addresses.get(peer.next % peer.addresses.len()) else {
            return;
        };
        peer.next = peer.next.wrapping_add(1);
        peer.tried = context.now.tick;
        context.timers.cancel(Alarm::Dial(server));
        match TcpStream::connect(address) {
            Ok(stream) => {
                let id = self.add(stream, address, Phase::Connecting(server), context);
                if let (Some(peer), Some(id)) = (self.peers.get_mut(&server), id) {
                    peer.making = Some(id);
                }
            }
            Err(error) => self.dial_failed(server, &format!("{address}: {error}"), context),
        }
    }

    /// The host of a server has become known.
    pub fn locate(&mut self, server: ServerId, addresses: Vec<SocketAddr>) {
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.addresses = addresses;
        }
    }

    /// A datagram of the server has come: it is alive. Dialled at once, but not more often than heartbeats come.
    pub fn seen(&mut self, server: ServerId, context: &mut Context<'_>) {
        let Some(peer) = self.peers.get(&server) else { return };
        if context.now.tick.since(peer.tried).times(2) >= self.timing.heartbeat_interval {
            self.dial(server, context);
        }
    }

    fn dial_failed(&mut self, server: ServerId, why: &str, context: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        context
            .timers
            .set(Alarm::Dial(server), context.now.tick.after(peer.rest));
        peer.rest = peer
            .rest
            .times(2)
            .min(limits::DIAL_REST_MAX.max(self.timing.heartbeat_interval));
        if peer.trouble.as_deref() != Some(why) {
            log::info!("no link to {server}: {why}");
            peer.trouble = Some(why.to_owned());
        }
    }

    /// Another server has connected.
    pub fn accept(&mut self, stream: TcpStream, address: SocketAddr, context: &mut Context<'_>) {
        self.make_room(context);
        let Some(nonce) = nonce() else { return };
        self.add(stream, address, Phase::Shaking(None, Shake::answer(nonce)), context);
    }

    /// Gives up an unfinished handshake if there are as many as may be. Not the new one: strangers who connect and say nothing would keep
    /// servers out. The oldest that has not said a proper hello, and only if all have, the oldest of them.
    fn make_room(&mut self, context: &mut Context<'_>) {
        let unfinished = |link: &&Link| link.server().is_none() && link.dialled().is_none();
        if self.links.values().filter(unfinished).count() < limits::HANDSHAKES_MAX {
            return;
        }
        let worth = |link: &Link| matches!(&link.phase, Phase::Shaking(_, shake) if shake.theirs().is_some());
        let least = self
            .links
            .values()
            .filter(unfinished)
            .map(|link| (worth(link), link.id))
            .min();
        if let Some((_, id)) = least {
            self.complaints
                .warn(context.now.tick, "too many unfinished handshakes at the peer port");
            self.drop_link(id, "others wait", context);
        }
    }

    fn add(
        &mut self,
        mut stream: TcpStream,
        address: SocketAddr,
        phase: Phase,
        context: &mut Context<'_>,
    ) -> Option<ConnId> {
        let id = context.ids.fresh();
        if let Err(error) = context
            .registry
            .register(&mut stream, token(id), Interest::READABLE | Interest::WRITABLE)
        {
            log::error!("a link to {address} can't be watched: {error}");
            return None;
        }
        // A network that swallows everything breaks the link after this long even if nothing comes back, and the next dial
        // finds a network that works again at once, instead of a retransmission that waits for minutes.
        let timeout = std::time::Duration::from_micros(self.silence().0);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(timeout));
        let _ = stream.set_nodelay(true);
        context
            .timers
            .set(Alarm::Shake(id), context.now.tick.after(self.timing.connect_timeout));
        self.links
            .insert(id, Link::new(id, stream, address, phase, context.now.tick));
        Some(id)
    }

    /// How long a link may be silent: a working one has a frame each heartbeat interval.
    fn silence(&self) -> Span {
        self.timing.connect_timeout.max(self.timing.failure_timeout.times(2))
    }

    /// The system tells of a socket. False if it isn't one of ours.
    pub fn ready(&mut self, id: ConnId, readable: bool, writable: bool) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        link.readable |= readable;
        link.writable |= writable;
        self.unread.push(id);
        if writable {
            self.unsent.push(id);
        }
        true
    }

    /// Reads what is there, a bounded amount from each link. What it comes to is in the inputs.
    pub fn read(&mut self, scratch: &mut [u8], context: &mut Context<'_>) {
        for _ in 0..self.unread.len() {
            let Some(id) = self.unread.pop() else { break };
            let before = self.inputs.len();
            match self.read_link(id, scratch, context) {
                Ok(came) => {
                    let server = self.links.get(&id).and_then(Link::server);
                    if let Some(server) = server.filter(|_| came && self.inputs.len() == before) {
                        self.inputs.push_back(Input::Heard(server));
                    }
                }
                Err(end) => self.drop_link(id, &end, context),
            }
        }
    }

    /// Whether bytes came.
    fn read_link(&mut self, id: ConnId, scratch: &mut [u8], context: &mut Context<'_>) -> Result<bool, String> {
        self.connected(id, context)?;
        let mut budget = limits::PEER_READ_BYTES_PER_TURN;
        let mut came = false;
        loop {
            let Some(link) = self.links.get_mut(&id) else {
                return Ok(came);
            };
            if !link.readable || matches!(link.phase, Phase::Connecting(_)) {
                return Ok(came);
            }
            if budget == 0 {
                self.unread.push(id);
                return Ok(came);
            }
            match link.read(scratch, context.now.tick) {
                Got::Drained => return Ok(came),
                Got::End => return Err("the connection was closed".to_owned()),
                Got::Bytes(n) => budget = budget.saturating_sub(n),
            }
            came = true;
            self.take_frames(id, context)?;
        }
    }

    /// A socket that was connecting has connected, or failed.
    fn connected(&mut self, id: ConnId, context: &mut Context<'_>) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let Phase::Connecting(server) = link.phase else {
            return Ok(());
        };
        if !link.connected().map_err(|error| format!("{}: {error}", link.address))? {
            return Ok(());
        }
        link.writable = true;
        let nonce = nonce().ok_or("the system gives no random numbers")?;
        let identity = identity(&self.cluster_name, self.secret.as_ref(), &self.ids, context.sender);
        let shake = Shake::call(&identity, server, nonce, link.output.end());
        link.phase = Phase::Shaking(Some(server), shake);
        self.unsent.push(id);
        Ok(())
    }

    fn take_frames(&mut self, id: ConnId, context: &mut Context<'_>) -> Result<(), String> {
        loop {
            let Some(link) = self.links.get_mut(&id) else {
                return Ok(());
            };
            let max = if link.server().is_some() {
                limits::PEER_FRAME_BYTES_MAX
            } else {
                limits::HANDSHAKE_BYTES_MAX
            };
            let (body, consumed) = match split(link.input.pending(), max) {
                Split::Complete { body, consumed } => (body, consumed),
                Split::Incomplete => return Ok(()),
                Split::TooLong(n) => return Err(format!("a frame of {n} bytes; this port is for SyncNet servers")),
            };
            match &mut link.phase {
                Phase::Up { server, .. } => {
                    let message = decode_message(body).map_err(|error| error.to_string())?;
                    self.inputs.push_back(Input::Peer(*server, message));
                    link.input.consume(consumed);
                }
                Phase::Shaking(_, shake) => {
                    let identity = identity(&self.cluster_name, self.secret.as_ref(), &self.ids, context.sender);
                    let mut answer = Vec::new();
                    let mut result = shake.take(&identity, body, &mut answer).map_err(|r| (r.text, r.tell));
                    let theirs = shake.theirs();
                    link.input.consume(consumed);
                    // Asked before the answer goes out, so that the other side never believes in a link that this one refuses.
                    if let (Ok(_), Some(theirs)) = (&result, theirs)
                        && let Err(text) = self.may_replace(&theirs, context.now.tick)
                    {
                        result = Err((text, true));
                    }
                    match result {
                        Ok(up) => {
                            if let Some(link) = self.links.get_mut(&id) {
                                link.output.extend(&answer);
                                self.unsent.push(id);
                            }
                            if let Some(sender) = up {
                                self.establish(id, &sender, context);
                            }
                        }
                        Err((text, tell)) => self.refuse(id, text, tell, context)?,
                    }
                }
                Phase::Connecting(_) | Phase::Closing => return Ok(()),
            }
        }
    }

    /// A link of the same server takes the place of the one that there is, unless it is an older one, or there is reason to
    /// believe that two processes have the same id.
    fn may_replace(&self, theirs: &Sender, now: Tick) -> Result<(), String> {
        let old = self
            .peers
            .get(&theirs.server)
            .and_then(|peer| peer.up)
            .and_then(|up| self.links.get(&up));
        let Some(Link {
            phase: Phase::Up { directory, boot, .. },
            heard,
            ..
        }) = old
        else {
            return Ok(());
        };
        if *directory == theirs.directory {
            return if theirs.boot < *boot {
                Err(format!("{} has been started anew since", theirs.server))
            } else {
                Ok(())
            };
        }
        if now.since(*heard) < self.timing.failure_timeout {
            return Err(format!(
                "another process with id {} and another data directory is linked already",
                theirs.server
            ));
        }
        Ok(())
    }

    fn establish(&mut self, id: ConnId, sender: &Sender, context: &mut Context<'_>) {
        let Sender {
            server,
            directory,
            boot,
            ..
        } = *sender;
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        let old = peer.up.replace(id);
        if peer.making == Some(id) {
            peer.making = None;
        }
        peer.rest = self.timing.heartbeat_interval;
        peer.trouble = None;
        context.timers.cancel(Alarm::Dial(server));
        if let Some(old) = old
            && let Some(mut old) = self.links.remove(&old)
        {
            let _ = context.registry.deregister(&mut old.stream);
            context.timers.cancel(Alarm::Silence(old.id));
            log::info!("a newer link to {server} takes the place of the old one");
            self.inputs.push_back(Input::LinkDown { server });
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = Phase::Up {
                server,
                directory,
                boot,
            };
            link.heard = context.now.tick;
            log::info!("link to {server} at {}", link.address);
        }
        context.timers.cancel(Alarm::Shake(id));
        context
            .timers
            .set(Alarm::Silence(id), context.now.tick.after(self.silence()));
        self.inputs.push_back(Input::LinkUp {
            server,
            directory,
            boot,
        });
    }

    /// Ends a handshake, and tells the other side why.
    fn refuse(&mut self, id: ConnId, text: String, tell: bool, context: &mut Context<'_>) -> Result<(), String> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        if link.dialled().is_none() {
            self.complaints.warn(
                context.now.tick,
                &format!("a link from {} is refused: {text}", link.address.ip()),
            );
        }
        if !tell {
            return Err(format!("refused: {text}"));
        }
        encode_handshake(&Handshake::Refused { text: text.clone() }, link.output.end());
        let dialled = link.dialled();
        link.phase = Phase::Closing;
        self.unsent.push(id);
        context
            .timers
            .set(Alarm::Shake(id), context.now.tick.after(limits::LINGER_TIMEOUT));
        if let Some(server) = dialled {
            if let Some(peer) = self.peers.get_mut(&server) {
                peer.making = None;
            }
            self.dial_failed(server, &text, context);
        }
        Ok(())
    }

    /// Puts a message into the output of a link, if it works.
    pub fn send(&mut self, server: ServerId, message: &PeerMessage, context: &mut Context<'_>) {
        let Some(id) = self.peers.get(&server).and_then(|peer| peer.up) else {
            return;
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        encode_message(message, link.output.end());
        if link.output.len() > limits::PEER_OUTPUT_BYTES_MAX {
            self.drop_link(id, "it takes nothing more", context);
        } else {
            self.unsent.push(id);
        }
    }

    /// Sends what waits: one write a link, more only if the system takes it in parts.
    pub fn flush(&mut self, context: &mut Context<'_>) {
        while let Some(id) = self.unsent.pop() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            match link.send() {
                Sent::Broken => self.drop_link(id, "the connection broke", context),
                Sent::All if matches!(link.phase, Phase::Closing) => {
                    // Our end is announced; the other's end, or the timer, takes the socket away. Closing at once could
                    // make the system throw away what we said.
                    let _ = link.stream.shutdown(std::net::Shutdown::Write);
                }
                Sent::All | Sent::Blocked | Sent::More => {}
            }
        }
    }

    /// A handshake has taken too long, or a refusal has had its time.
    pub fn shake_timeout(&mut self, id: ConnId, context: &mut Context<'_>) {
        self.drop_link(id, "no answer", context);
    }

    /// Looks whether a link has been silent for too long.
    pub fn check_silence(&mut self, id: ConnId, context: &mut Context<'_>) {
        let Some(link) = self.links.get(&id) else { return };
        let end = link.heard.after(self.silence());
        if end <= context.now.tick {
            self.drop_link(id, "it is silent", context);
        } else {
            context.timers.set(Alarm::Silence(id), end);
        }
    }

    fn drop_link(&mut self, id: ConnId, why: &str, context: &mut Context<'_>) {
        let Some(mut link) = self.links.remove(&id) else { return };
        let _ = context.registry.deregister(&mut link.stream);
        context.timers.cancel(Alarm::Shake(id));
        context.timers.cancel(Alarm::Silence(id));
        if let Some(server) = link.dialled() {
            if let Some(peer) = self.peers.get_mut(&server) {
                peer.making = None;
            }
            self.dial_failed(server, why, context);
        } else if let Some(server) = link.server() {
            log::info!("the link to {server} is gone: {why}");
            if let Some(peer) = self.peers.get_mut(&server) {
                peer.up = None;
                if peer.dials {
                    context
                        .timers
                        .set(Alarm::Dial(server), context.now.tick.after(peer.rest));
                }
            }
            self.inputs.push_back(Input::LinkDown { server });
        } else if !matches!(link.phase, Phase::Closing) {
            log::debug!("a connection from {} at the peer port ends: {why}", link.address);
        }
    }
}

fn identity<'a>(name: &'a str, secret: Option<&'a Secret>, servers: &'a [ServerId], sender: Sender) -> Identity<'a> {
    Identity {
        cluster_name: name,
        secret,
        sender,
        servers,
    }
}

fn token(id: ConnId) -> Token {
    Token(usize::try_from(id.0).unwrap_or(usize::MAX))
}

fn nonce() -> Option<[u8; 16]> {
    let mut nonce = [0; 16];
    match getrandom::fill(&mut nonce) {
        Ok(()) => Some(nonce),
        Err(error) => {
            log::error!("the system gives no random numbers: {error}");
            None
        }
    }
}
