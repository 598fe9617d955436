//! The one TOML file of a cluster: as it is written, and as it is after checking. Everything beyond this module sees only
//! the checked form.

use crate::types::{GroupId, RingPosition, ServerId, Span};

/// A cluster's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The cluster's name.
    pub name: String,
    /// The secret that servers prove to each other.
    pub secret: Option<Secret>,
    /// How the nominee is found.
    pub election: Election,
    /// Whether leadership returns to the highest ring position.
    pub leader: LeaderMode,
    /// What a follower does with commands.
    pub routing: Routing,
    /// Intervals and time-outs.
    pub timing: Timing,
    /// Group and port of the multicast heartbeats; `None` means unicast.
    pub multicast: Option<std::net::SocketAddrV4>,
    /// The interface of the multicast; the server's own host if `None`.
    pub interface: Option<std::net::Ipv4Addr>,
    /// The log.
    pub log: LogConfig,
    /// The chat.
    pub chat: ChatConfig,
    /// The servers, sorted by id.
    pub servers: Vec<ServerConfig>,
}

/// The cluster's secret; never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// How the nominee is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Election {
    /// The highest eligible ring position stands.
    Highest,
    /// Le Lann–Chang–Roberts on the ring.
    Lcr,
}

/// Whether leadership returns to the highest ring position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaderMode {
    /// It does, once that server has caught up.
    Preferred,
    /// It stays where it is.
    Sticky,
}

/// What a follower does with commands of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Routing {
    /// Forwards them to the leader.
    Forward,
    /// Sends the client to the leader.
    Redirect,
}

/// Intervals and time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat_interval: Span,
    /// A server that was silent for so long is suspected.
    pub failure_timeout: Span,
    /// A leader without answers for so long steps down; the unit in which candidates wait for their turn.
    pub election_timeout: Span,
    /// For connections between servers.
    pub connect_timeout: Span,
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogConfig {
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Log entries between two checkpoints.
    pub checkpoint_every: u64,
    /// What is kept.
    pub retention: Retention,
}

/// What of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retention {
    /// All.
    Forever,
    /// What is younger.
    Age(Span),
    /// So many bytes.
    Size(u64),
}

/// The chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChatConfig {
    /// Bytes of the longest text.
    pub message_size_max: usize,
    /// Log age after which a silent session is forgotten.
    pub session_expiry: Span,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerConfig {
    /// Its name.
    pub id: ServerId,
    /// Its place on the ring.
    pub ring: RingPosition,
    /// What others connect to: an address or a name.
    pub host: String,
    /// What is bound; the host if `None`.
    pub listen: Option<String>,
    /// Native clients.
    pub client_port: u16,
    /// Browsers.
    pub http_port: u16,
    /// Unicast heartbeats.
    pub heartbeat_port: u16,
    /// Other servers.
    pub peer_port: u16,
}

impl Config {
    /// The server of that id.
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&ServerConfig> {
        self.servers.iter().find(|s| s.id == id)
    }

    /// The port that a server's heartbeats go to: the group's port, or its own without multicast.
    #[must_use]
    pub fn heartbeat_port(&self, server: &ServerConfig) -> u16 {
        self.multicast.map_or(server.heartbeat_port, |group| group.port())
    }
}

/// How much a server is preferred as leader of a group: the higher the better. One function, so that groups can later prefer
/// different servers.
#[must_use]
pub fn rank(_group: GroupId, ring: RingPosition) -> u64 {
    u64::from(ring.0)
}
