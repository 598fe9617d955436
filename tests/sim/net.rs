//! The simulated network between servers. Links are reliable, ordered streams, one a pair, dialled by the lower ring position and
//! begun with a handshake: a cut one loses nothing and delivers later, or is given up by one end or both; a reset one loses what
//! was on the way. Datagrams are lost, delayed, repeated and overtaken.

use std::collections::{BTreeMap, BTreeSet};

use syncnet::cluster::message::Sender;
use syncnet::limits;
use syncnet::node::Input;
use syncnet::types::{Boot, DirectoryId, ServerId, Span, Tick};
use syncnet::wire::datagram;
use syncnet::wire::frame::{LENGTH_BYTES, Split, split};
use syncnet::wire::peer::{
    Handshake, MAGIC, PeerMessage, VERSIONS, decode_handshake, decode_message, encode_handshake, encode_message,
};

use super::plan::server_id;
use super::server::Arrival;
use super::world::{Happening, World};

/// What comes out of a link.
#[derive(Clone, Debug)]
pub enum Bits {
    /// The last frame of the handshake, with the sender's hello; for this process only.
    Proof { hello: Vec<u8>, life: u64 },
    /// A frame.
    Frame(Vec<u8>),
    /// The end.
    End,
}

/// One end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The link's number, if it is up at this end.
    pub open: Option<u64>,
    heard: Tick,
}

/// All links and cuts.
pub struct Net {
    count: usize,
    ends: Vec<End>,
    /// Nothing of links gets from one to the other.
    links_cut: Vec<bool>,
    /// No datagram gets from one to the other.
    datagrams_cut: Vec<bool>,
    /// What waits behind a cut, in the order in which it was sent.
    stalled: Vec<BTreeMap<u64, (u64, Bits)>>,
    /// Counts what is put on links and streams.
    pub numbers: u64,
    last: Vec<Tick>,
    epochs: u64,
    /// For the server that dials: when it tried last, and how long it rests.
    tried: Vec<(Tick, Span)>,
    dialling: BTreeSet<(usize, usize)>,
    seen: BTreeSet<(usize, DirectoryId, Boot, u64)>,
    pub multicast_dead: bool,
    /// Up to so many times as long takes what is sent between servers.
    pub jitter: u64,
    /// Some datagrams of long ago, and how many were sent.
    pub old: Vec<(usize, Vec<u8>)>,
    pub sent: u64,
    /// (person, server) that don't reach each other.
    pub clients_cut: BTreeSet<(usize, usize)>,
}

impl Net {
    pub fn new(count: usize) -> Net {
        let pairs = count * count;
        Net {
            count,
            ends: vec![End::default(); pairs],
            links_cut: vec![false; pairs],
            datagrams_cut: vec![false; pairs],
            stalled: vec![BTreeMap::new(); pairs],
            numbers: 0,
            last: vec![Tick(0); pairs],
            epochs: 0,
            tried: vec![(Tick(0), Span(0)); pairs],
            dialling: BTreeSet::new(),
            seen: BTreeSet::new(),
            multicast_dead: false,
            jitter: 1,
            old: Vec::new(),
            sent: 0,
            clients_cut: BTreeSet::new(),
        }
    }

    fn pair(&self, from: usize, to: usize) -> usize {
        from * self.count + to
    }

    /// The end of the link at one server, towards another.
    pub fn end(&self, at: usize, of: usize) -> End {
        self.ends[self.pair(at, of)]
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links_cut[self.pair(from, to)]
    }
}

impl World {
    // --- Cuts -----------------------------------------------------------------------------------

    /// Cuts what goes from one server to another.
    pub fn cut(&mut self, from: usize, to: usize, links: bool, datagrams: bool) {
        let pair = self.net.pair(from, to);
        self.net.links_cut[pair] |= links;
        self.net.datagrams_cut[pair] |= datagrams;
    }

    /// What waited behind the cut arrives, in order.
    pub fn uncut(&mut self, from: usize, to: usize) {
        let pair = self.net.pair(from, to);
        self.net.datagrams_cut[pair] = false;
        if std::mem::take(&mut self.net.links_cut[pair]) {
            for (number, (epoch, bits)) in std::mem::take(&mut self.net.stalled[pair]) {
                self.deliver(from, to, epoch, bits, number);
            }
        }
    }

    /// Both ends of a link are told that it is gone; what was on the way is lost.
    pub fn reset_link(&mut self, a: usize, b: usize) {
        self.counts.one("link resets");
        for (at, of) in [(a, b), (b, a)] {
            let pair = self.net.pair(at, of);
            self.net.stalled[pair].clear();
            if let Some(epoch) = self.net.end(at, of).open {
                let arrival = Arrival::Bits {
                    from: of,
                    epoch,
                    bits: Bits::End,
                };
                self.arrive(at, arrival);
            }
        }
    }

    // --- Links ----------------------------------------------------------------------------------

    fn dials(&self, from: usize, to: usize) -> bool {
        let ring = |at: usize| self.plan.config.servers[at].ring;
        ring(from) < ring(to)
    }

    /// A process has started: it dials, and is dialled when it is seen.
    pub fn net_started(&mut self, at: usize) {
        if self.plan.faults_apart {
            // What it has seen before, it doesn't know any more.
            self.net.seen.retain(|seen| seen.0 != at);
        }
        for other in 0..self.servers.len() {
            if other != at {
                self.net.dialling.remove(&(at, other));
                let pair = self.net.pair(at, other);
                self.net.tried[pair] = (Tick(0), self.plan.config.timing.heartbeat_interval);
                if self.dials(at, other) {
                    let soon = Span(self.rng.between(10, 2_000));
                    self.plan_dial(at, other, soon);
                }
            }
        }
    }

    /// A process has ended: its ends are gone, and the others hear of it if the machine goes on.
    pub fn net_ended(&mut self, at: usize, machine_goes_on: bool) {
        for other in 0..self.servers.len() {
            let pair = self.net.pair(at, other);
            if let Some(epoch) = self.net.ends[pair].open.take()
                && machine_goes_on
            {
                self.put_on_link(at, other, epoch, Bits::End);
            }
        }
    }

    fn plan_dial(&mut self, from: usize, to: usize, after: Span) {
        if self.net.dialling.insert((from, to)) {
            self.later(after, Happening::Dial { from, to });
        }
    }

    pub fn dial(&mut self, from: usize, to: usize) {
        self.net.dialling.remove(&(from, to));
        if !self.servers[from].is_running() || self.net.end(from, to).open.is_some() {
            return;
        }
        let pair = self.net.pair(from, to);
        let rest = self.net.tried[pair].1;
        self.net.tried[pair] = (self.now, rest.times(2).min(Span::from_ms(1_000)));
        let reached = self.servers[to].is_running() && !self.net.is_cut(from, to) && !self.net.is_cut(to, from);
        // If it fails, the next try comes after the rest; if it works, that try finds the link.
        let silent = !reached && !self.servers[to].powered;
        let wait = if silent {
            self.plan.config.timing.connect_timeout
        } else {
            Span(0)
        };
        self.plan_dial(from, to, Span(rest.0 + wait.0 + 2 * self.plan.link.high));
        if !reached {
            return;
        }
        self.net.epochs += 1;
        let epoch = self.net.epochs;
        let round_trip = self.plan.link.draw(&mut self.rng);
        for (a, b) in [(from, to), (to, from)] {
            let hello = self.hello(a);
            let life = self.servers[b].life;
            let pair = self.net.pair(a, b);
            // The frames of an older link don't hold up those of a newer one, nor overtake them at the node.
            self.net.last[pair] = self.net.last[pair].max(self.now.after(round_trip));
            self.put_on_link(a, b, epoch, Bits::Proof { hello, life });
        }
    }

    fn hello(&self, at: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(node) = self.servers[at].node() {
            let hello = Handshake::Hello {
                magic: MAGIC,
                versions: VERSIONS,
                cluster_name: self.plan.config.name.clone(),
                sender: node.sender(),
                to: None,
                nonce: [0; 16],
            };
            encode_handshake(&hello, &mut bytes);
        }
        bytes
    }

    /// A node says something to another.
    pub fn send_to_peer(&mut self, at: usize, to: ServerId, message: &PeerMessage) {
        let Some(to) = (0..self.servers.len()).find(|&other| server_id(other) == to) else {
            return self.fail(format!("{} sends to {to}, whom nobody knows", server_id(at)));
        };
        let Some(epoch) = self.net.end(at, to).open else { return };
        let mut bytes = Vec::new();
        encode_message(message, &mut bytes);
        if bytes.len() > limits::PEER_FRAME_BYTES_MAX + LENGTH_BYTES {
            return self.fail(format!("{} sends a frame of {} bytes", server_id(at), bytes.len()));
        }
        self.put_on_link(at, to, epoch, Bits::Frame(bytes));
    }

    fn put_on_link(&mut self, from: usize, to: usize, epoch: u64, bits: Bits) {
        self.net.numbers += 1;
        self.deliver(from, to, epoch, bits, self.net.numbers);
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u64, bits: Bits, number: u64) {
        let pair = self.net.pair(from, to);
        if self.net.links_cut[pair] {
            self.net.stalled[pair].insert(number, (epoch, bits));
            return;
        }
        let mut delay = self.plan.link.draw(&mut self.rng);
        if self.net.jitter > 1 {
            delay = delay.times(self.rng.between(1, self.net.jitter));
        }
        let arrives = self.now.after(delay);
        let at = arrives.max(Tick(self.net.last[pair].0 + 1));
        self.net.last[pair] = at;
        self.at(
            at,
            Happening::Bits {
                from,
                to,
                epoch,
                bits,
                number,
            },
        );
    }

    pub fn bits_arrive(&mut self, from: usize, to: usize, epoch: u64, bits: Bits, number: u64) {
        let pair = self.net.pair(from, to);
        if self.net.links_cut[pair] {
            // Sent again and again until the cut heals.
            self.net.stalled[pair].insert(number, (epoch, bits));
            return;
        }
        self.arrive(to, Arrival::Bits { from, epoch, bits });
    }

    /// Something stands in the sockets of a server. Nobody is there to read it: the machine says so, if it has power.
    pub fn arrive(&mut self, at: usize, arrival: Arrival) {
        if self.servers[at].process.is_some() {
            self.servers[at].inbox.push_back(arrival);
            self.wake_server(at);
        } else if self.servers[at].powered
            && let Arrival::Bits {
                from,
                epoch,
                bits: Bits::Frame(_) | Bits::Proof { .. },
            } = arrival
        {
            self.put_on_link(at, from, epoch, Bits::End);
        }
    }

    /// The server reads what came: what the node hears of it.
    pub fn read_socket(&mut self, at: usize, arrival: Arrival) -> Vec<Input> {
        match arrival {
            Arrival::Input(input) => vec![input],
            Arrival::Bits { from, epoch, bits } => self.read_link(at, from, epoch, bits),
            Arrival::Datagram { from, bytes } => self.read_datagram(at, from, &bytes).into_iter().collect(),
            Arrival::Stream { conn, bytes } => self.read_stream(at, conn, bytes).into_iter().collect(),
        }
    }

    fn read_link(&mut self, at: usize, from: usize, epoch: u64, bits: Bits) -> Vec<Input> {
        let pair = self.net.pair(at, from);
        let open = self.net.ends[pair].open;
        let server = server_id(from);
        match bits {
            Bits::Proof { hello, life } => {
                if life != self.servers[at].life || open.is_some_and(|open| open > epoch) {
                    self.put_on_link(at, from, epoch, Bits::End);
                    return Vec::new();
                }
                let Some(Sender { directory, boot, .. }) = self.hello_of(at, &hello) else {
                    return Vec::new();
                };
                let end = End {
                    open: Some(epoch),
                    heard: self.now,
                };
                self.net.ends[pair] = end;
                self.net.tried[pair].1 = self.plan.config.timing.heartbeat_interval;
                self.counts.one("links made");
                let silence = self.plan.link_silence();
                self.later(silence, Happening::Silence { at, of: from, epoch });
                let mut inputs = Vec::new();
                if open.is_some() {
                    inputs.push(Input::LinkDown { server });
                }
                inputs.push(Input::LinkUp {
                    server,
                    directory,
                    boot,
                });
                inputs
            }
            Bits::Frame(bytes) if open == Some(epoch) => {
                self.net.ends[pair].heard = self.now;
                let body = match split(&bytes, limits::PEER_FRAME_BYTES_MAX) {
                    Split::Complete { body, consumed } if consumed == bytes.len() => body,
                    other => {
                        self.fail(format!("a frame of {server} can't be split: {other:?}"));
                        return Vec::new();
                    }
                };
                match decode_message(body) {
                    Ok(message) => vec![Input::Peer(server, self.forge(from, at, message))],
                    Err(error) => {
                        self.fail(format!("a frame of {server}: {error}"));
                        Vec::new()
                    }
                }
            }
            Bits::Frame(_) => {
                self.put_on_link(at, from, epoch, Bits::End);
                Vec::new()
            }
            Bits::End if open == Some(epoch) => self.close_end(at, from),
            Bits::End => Vec::new(),
        }
    }

    fn hello_of(&mut self, at: usize, bytes: &[u8]) -> Option<Sender> {
        let body = bytes.get(LENGTH_BYTES..).unwrap_or_default();
        match decode_handshake(body) {
            Ok(Handshake::Hello { sender, .. }) => {
                let ours = self.servers[at].node()?.sender();
                // The other may have been formed since it said hello; two clusters would be the end of all promises.
                if sender.cluster.0 != 0 && ours.cluster.0 != 0 && sender.cluster != ours.cluster {
                    self.fail(format!(
                        "{} and {} belong to different clusters",
                        sender.server, ours.server
                    ));
                }
                Some(sender)
            }
            other => {
                self.fail(format!("a hello can't be read: {other:?}"));
                None
            }
        }
    }

    /// A server gives up its end.
    fn close_end(&mut self, at: usize, of: usize) -> Vec<Input> {
        let pair = self.net.pair(at, of);
        let Some(epoch) = self.net.ends[pair].open.take() else {
            return Vec::new();
        };
        self.put_on_link(at, of, epoch, Bits::End);
        if self.dials(at, of) {
            let rest = self.net.tried[pair].1;
            self.plan_dial(at, of, rest);
        }
        vec![Input::LinkDown { server: server_id(of) }]
    }

    pub fn check_silence(&mut self, at: usize, of: usize, epoch: u64) {
        let end = self.net.end(at, of);
        if end.open != Some(epoch) || self.servers[at].process.is_none() {
            return;
        }
        let over = end.heard.after(self.plan.link_silence());
        if over > self.now {
            self.at(over, Happening::Silence { at, of, epoch });
            return;
        }
        self.counts.one("links given up for their silence");
        for input in self.close_end(at, of) {
            self.servers[at].inbox.push_back(Arrival::Input(input));
        }
        self.wake_server(at);
    }

    // --- Datagrams ------------------------------------------------------------------------------

    pub fn multicast(&mut self, at: usize, bytes: &[u8]) {
        if bytes.len() > limits::DATAGRAM_BYTES_MAX {
            return self.fail(format!("{} sends a datagram of {} bytes", server_id(at), bytes.len()));
        }
        self.keep_datagram(at, bytes);
        for to in (0..self.servers.len()).filter(|&to| to != at) {
            let copies = if self.rng.chance(self.plan.repeat) { 2 } else { 1 };
            for copy in 0..copies {
                let cut = self.net.multicast_dead || self.net.datagrams_cut[self.net.pair(at, to)];
                if cut || self.rng.chance(self.plan.loss) {
                    self.counts.one("datagrams lost");
                    continue;
                }
                let mut delay = self.plan.datagram.draw(&mut self.rng);
                if self.net.jitter > 1 {
                    delay = delay.times(self.rng.between(1, self.net.jitter));
                }
                if copy > 0 {
                    delay = delay.times(self.rng.between(1, 200));
                }
                let bytes = bytes.to_vec();
                self.later(delay, Happening::Datagram { from: at, to, bytes });
            }
        }
    }

    pub fn datagram_arrives(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.net.datagrams_cut[self.net.pair(from, to)] {
            return;
        }
        self.arrive(to, Arrival::Datagram { from, bytes });
    }

    fn read_datagram(&mut self, at: usize, from: usize, bytes: &[u8]) -> Option<Input> {
        let sealed = match datagram::open(bytes, self.plan.config.secret.as_ref()) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.fail(format!("a datagram of {}: {error}", server_id(from)));
                return None;
            }
        };
        let sender = sealed.sender;
        let fresh = self
            .net
            .seen
            .insert((at, sender.directory, sender.boot, sealed.sequence));
        if !fresh {
            self.counts.one("datagrams repeated");
            if !self.plan.replays {
                return None;
            }
        }
        let pair = self.net.pair(at, from);
        let since = self.now.since(self.net.tried[pair].0);
        if self.dials(at, from)
            && self.net.ends[pair].open.is_none()
            && since.times(2) >= self.plan.config.timing.heartbeat_interval
        {
            self.net.dialling.remove(&(at, from));
            self.plan_dial(at, from, Span(0));
        }
        Some(Input::Datagram(sender.server, sender.directory, sealed.datagram))
    }
}
