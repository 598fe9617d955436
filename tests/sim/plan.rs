//! What a seed draws before it begins: how many servers and clients, how the network and the disks behave, which faults come and
//! how often. Each seed has a mix of its own ("swarm testing", Groce et al., ISSTA 2012): a fault that is always there hides what
//! happens without it.

use std::sync::{Arc, OnceLock};

use syncnet::config::{
    ChatConfig, Config, Election, LeaderMode, LogConfig, Retention, Routing, Secret, ServerConfig, Timing,
};
use syncnet::limits;
use syncnet::rng::Rng;
use syncnet::types::{RingPosition, ServerId, Span, Tick};

/// A range of microseconds from which delays are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    pub low: u64,
    pub high: u64,
    /// Out of a hundred: how often it takes ten times as long.
    pub slow: u64,
}

impl Delay {
    pub const fn new(low: u64, high: u64) -> Delay {
        Delay { low, high, slow: 0 }
    }

    pub fn draw(self, rng: &mut Rng) -> Span {
        let us = rng.between(self.low, self.high);
        Span(if rng.chance(self.slow) { us * 10 } else { us })
    }
}

/// The faults that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    PowerCut,
    PowerCutAll,
    KillAll,
    Pause,
    Stop,
    Split,
    Isolate,
    OneWay,
    Partial,
    ResetLink,
    MulticastDead,
    SlowDisk,
    HungDisk,
    FailedSync,
    ResetClient,
    CutClient,
    CrashClient,
    JumpClock,
    SkewedClock,
    OldDatagrams,
    Jitter,
    OtherConfig,
    NoSpace,
    PowerAfterKill,
    HangClient,
    FlippedBit,
    LostDisk,
    RottenLog,
    AdmissionCutOff,
    FormerIsBack,
    FormerVotes,
    BrokenBurst,
    LateLeader,
    /// What `ambushes` has, and no plan draws.
    Overruled,
    Upstart,
    TornBatch,
    PowerAfterRestart,
    SyncFailsTwice,
}

/// What the early swarm doesn't have.
pub const MORE_FAULTS: [Fault; 7] = [
    Fault::SkewedClock,
    Fault::OldDatagrams,
    Fault::Jitter,
    Fault::OtherConfig,
    Fault::NoSpace,
    Fault::PowerAfterKill,
    Fault::HangClient,
];

/// What only a server survives that repairs itself from its peers.
pub const DAMAGES: [Fault; 2] = [Fault::FlippedBit, Fault::LostDisk];
/// Whether servers repair themselves: until they do, their disks are spared.
pub const SERVERS_REPAIR: bool = true;

pub const FAULTS: [Fault; 19] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutAll,
    Fault::KillAll,
    Fault::Pause,
    Fault::Stop,
    Fault::Split,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Partial,
    Fault::ResetLink,
    Fault::MulticastDead,
    Fault::SlowDisk,
    Fault::HungDisk,
    Fault::FailedSync,
    Fault::ResetClient,
    Fault::CutClient,
    Fault::CrashClient,
    Fault::JumpClock,
];

/// How people behave.
#[derive(Clone, Debug)]
pub struct PeoplePlan {
    pub count: usize,
    pub rooms: usize,
    /// Between two things that a person does.
    pub pace: Delay,
    /// How many messages a person sends at once at most.
    pub burst: u64,
    /// Bytes of the longest text.
    pub text_max: u64,
    /// Out of a hundred things that a person does.
    pub asks: u64,
    pub follows: u64,
    pub closes: u64,
    pub odd: u64,
    /// Out of a hundred messages: those with an idempotency key, of which some are sent again in any session.
    pub keyed: u64,
    /// Bytes on the way to one client before its server must wait.
    pub window: usize,
}

/// Everything that a seed has drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub config: Arc<Config>,
    /// Between servers.
    pub link: Delay,
    pub datagram: Delay,
    pub loss: u64,
    pub repeat: u64,
    /// Whether repetitions of datagrams reach the node, as if there were no replay window.
    pub replays: bool,
    /// Between clients and servers.
    pub client: Delay,
    pub write: Delay,
    pub sync: Delay,
    /// Between two looks of the pre-writer at whether a segment is wanted.
    pub prewrite: Span,
    pub read: Delay,
    /// How long a server is busy with a turn before the next.
    pub turn: Delay,
    /// Whether effects are drained after each input, not once a turn.
    pub drain_each: bool,
    pub people: PeoplePlan,
    /// With repetition: what is there twice comes twice as often.
    pub faults: Vec<Fault>,
    /// Whether each fault draws from a generator of its own, so that it is the same if another is left out.
    pub faults_apart: bool,
    /// Whether silent people may lose their names and sessions.
    pub ages: bool,
    /// Whether this is the standard mix.
    pub standard: bool,
    /// Between two faults.
    pub fault_pace: Delay,
    /// How long a fault lasts.
    pub fault_span: Delay,
    /// How long faults come.
    pub storm: Span,
}

/// The id of a server by its number, from 0.
pub fn server_id(at: usize) -> ServerId {
    static IDS: OnceLock<Vec<ServerId>> = OnceLock::new();
    let ids = IDS.get_or_init(|| {
        let id = |number| ServerId::new(&format!("server{number}")).expect("a server id");
        (1..=limits::SERVERS_MAX).map(id).collect()
    });
    ids[at]
}

/// A checked configuration of so many servers, with the default times.
pub fn config(servers: usize, rings: &[u16]) -> Config {
    let ms = Span::from_ms;
    Config {
        name: "simulated".to_string(),
        secret: Some(Secret(b"a secret of thirty-two bytes, yes".to_vec())),
        election: Election::Highest,
        leader: LeaderMode::Preferred,
        routing: Routing::Forward,
        timing: Timing {
            heartbeat_interval: ms(100),
            failure_timeout: ms(500),
            election_timeout: ms(500),
            connect_timeout: ms(3000),
        },
        multicast: Some(std::net::SocketAddrV4::new(
            std::net::Ipv4Addr::new(239, 255, 83, 78),
            8020,
        )),
        interface: None,
        log: LogConfig {
            segment_size: limits::SEGMENT_BYTES_MIN,
            checkpoint_every: 100_000,
            digest_every: limits::DIGEST_EVERY,
            retention: Retention::Forever,
        },
        chat: ChatConfig {
            message_size_max: limits::MESSAGE_BYTES_DEFAULT,
            session_expiry: limits::SESSION_EXPIRY_DEFAULT,
            name_release: limits::NAME_RELEASE,
            touch_interval: limits::TOUCH_INTERVAL,
        },
        servers: (0..servers)
            .map(|at| ServerConfig {
                id: server_id(at),
                ring: RingPosition(rings[at]),
                host: server_id(at).to_string(),
                listen: None,
                client_port: 8000,
                http_port: 8010,
                heartbeat_port: 8020,
                peer_port: 8030,
            })
            .collect(),
    }
}

impl Plan {
    /// A quiet world: no faults, short and steady delays. What scenarios begin with.
    pub fn calm(servers: usize) -> Plan {
        let rings: Vec<u16> = (0..servers as u16).collect();
        Plan {
            seed: 1,
            config: Arc::new(config(servers, &rings)),
            link: Delay::new(200, 300),
            datagram: Delay::new(200, 300),
            loss: 0,
            repeat: 0,
            replays: false,
            client: Delay::new(200, 300),
            write: Delay::new(20, 40),
            sync: Delay::new(1_000, 2_000),
            prewrite: Span::from_ms(20),
            read: Delay::new(100, 200),
            turn: Delay::new(5, 10),
            drain_each: false,
            people: PeoplePlan {
                count: 0,
                rooms: 1,
                pace: Delay::new(1_000, 2_000),
                burst: 1,
                text_max: 40,
                asks: 0,
                follows: 0,
                closes: 0,
                odd: 0,
                keyed: 0,
                window: 64 * 1024,
            },
            faults: Vec::new(),
            faults_apart: false,
            ages: false,
            standard: false,
            fault_pace: Delay::new(1_000_000, 1_000_000),
            fault_span: Delay::new(1_000_000, 1_000_000),
            storm: Span::from_ms(1_000),
        }
    }

    /// What a seed means.
    pub fn draw(seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let servers = match rng.below(10) {
            0 => 1,
            1..=7 => 3,
            _ => 5,
        };
        let mut rings: Vec<u16> = (0..servers as u16).collect();
        rng.shuffle(&mut rings);
        let mut config = config(servers, &rings);
        if rng.chance(50) {
            config.election = Election::Lcr;
        }
        if rng.chance(30) {
            config.leader = LeaderMode::Sticky;
        }
        if rng.chance(30) {
            config.routing = Routing::Redirect;
        }
        if rng.chance(30) {
            config.multicast = None;
        }
        if rng.chance(20) {
            config.secret = None;
        }
        if rng.chance(20) {
            let slower = rng.between(2, 4);
            let timing = &mut config.timing;
            timing.heartbeat_interval = timing.heartbeat_interval.times(slower);
            timing.failure_timeout = timing.failure_timeout.times(slower);
            timing.election_timeout = timing.election_timeout.times(slower);
        }
        // From a generator of its own, so that the rest of what a seed draws stays what it is.
        let segments = [32 * 1024, 128 * 1024, limits::SEGMENT_BYTES_MIN];
        config.log.segment_size = *Rng::new(seed ^ 0xD15C).pick(&segments).expect("three");
        let quick = rng.between(50, 500);
        let slow_disk = *rng.pick(&[300, 2_000, 10_000]).expect("three");
        let mut plan = Plan {
            seed,
            config: Arc::new(config),
            link: Delay {
                low: quick,
                high: quick * rng.between(1, 20),
                slow: rng.below(4),
            },
            datagram: Delay {
                low: quick,
                high: quick * rng.between(1, 40),
                slow: rng.below(4),
            },
            loss: if rng.chance(50) { rng.between(0, 30) } else { 0 },
            repeat: if rng.chance(50) { rng.between(0, 20) } else { 0 },
            replays: rng.chance(20),
            client: Delay {
                low: quick,
                high: quick * rng.between(1, 20),
                slow: rng.below(4),
            },
            write: Delay::new(10, 200),
            sync: Delay {
                low: slow_disk / 4,
                high: slow_disk,
                slow: rng.below(4),
            },
            prewrite: Span::from_ms(20),
            read: Delay {
                low: 50,
                high: slow_disk,
                slow: rng.below(4),
            },
            turn: Delay::new(5, rng.between(10, 500)),
            drain_each: rng.chance(30),
            people: PeoplePlan {
                count: rng.between(2, 9) as usize,
                rooms: rng.between(1, 3) as usize,
                pace: Delay::new(1_000, *rng.pick(&[30_000, 150_000, 600_000]).expect("three")),
                burst: *rng.pick(&[1, 3, 30]).expect("three"),
                text_max: *rng.pick(&[20, 100, 3_000]).expect("three"),
                asks: rng.below(30),
                follows: rng.below(30),
                closes: rng.below(4),
                odd: rng.below(15),
                keyed: 0,
                window: *rng.pick(&[600, 8_192, 65_536]).expect("three"),
            },
            faults: Vec::new(),
            faults_apart: false,
            ages: false,
            standard: false,
            fault_pace: Delay::new(50_000, *rng.pick(&[300_000, 1_500_000, 4_000_000]).expect("three")),
            fault_span: Delay::new(20_000, *rng.pick(&[600_000, 2_500_000, 6_000_000]).expect("three")),
            storm: Span::from_ms(rng.between(4_000, 14_000)),
        };
        for fault in FAULTS {
            // A world without it is as worth seeing as one that is full of it.
            let weight = *rng.pick(&[0, 0, 1, 1, 3]).expect("five");
            plan.faults.extend(std::iter::repeat_n(fault, weight));
        }
        plan
    }

    pub fn servers(&self) -> usize {
        self.config.servers.len()
    }

    /// How long a link may be silent before it is given up: as the server does it.
    pub fn link_silence(&self) -> Span {
        let timing = self.config.timing;
        timing.connect_timeout.max(timing.failure_timeout.times(2))
    }

    /// One line for the trace.
    pub fn summary(&self) -> String {
        let c = &self.config;
        format!(
            "{} servers, {:?}, {:?}, {:?}, rings {:?}, {} clients in {} rooms, loss {} %, storm {} ms, faults {:?}",
            self.servers(),
            c.election,
            c.leader,
            c.routing,
            c.servers.iter().map(|s| s.ring.0).collect::<Vec<_>>(),
            self.people.count,
            self.people.rooms,
            self.loss,
            self.storm.as_ms(),
            self.faults
        )
    }
}

/// The moment as people read it.
pub fn shown(tick: Tick) -> String {
    format!("{:>4}.{:06}", tick.0 / 1_000_000, tick.0 % 1_000_000)
}
