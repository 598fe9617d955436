//! The one TOML file of a cluster: as it is written, and as it is after checking. Everything beyond this module sees only
//! the checked form. [`parse`] is pure; [`load`] reads the files.

mod quantity;
mod secret;
mod written;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::types::{GroupId, RingPosition, ServerId, Span};

pub use secret::decode as decode_secret;
pub use written::{Parsed, parse};
pub(crate) use written::{distance, unreadable};

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
    /// Replicas compare digests of their state at every index that this divides: `limits::DIGEST_EVERY`, but for trials.
    pub digest_every: u64,
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
    /// Log age after which a silent session's name is free. No file says so: it is `limits::NAME_RELEASE`, or less where tests let
    /// time pass faster.
    pub name_release: Span,
    /// How often a server reports its live sessions: `limits::TOUCH_INTERVAL`, or less than half of a shorter `name_release`.
    pub touch_interval: Span,
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

impl ServerConfig {
    /// `host:port`, for one of its ports.
    #[must_use]
    pub fn address(&self, port: u16) -> String {
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

/// What is wrong with a configuration: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, if it is about one.
    pub line: Option<usize>,
    /// In words.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for ConfigError {}

/// Reads and checks a configuration and the secret that it names.
///
/// # Errors
/// If a file can't be read, or says what can't be.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let error = |text: String| ConfigError {
        file: path.to_path_buf(),
        line: None,
        text,
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        error(format!(
            "can't read the configuration: {e}; name another with --config FILE"
        ))
    })?;
    let Parsed {
        mut config,
        secret_file,
    } = parse(&text, path)?;
    if let Some(file) = secret_file {
        let text = secret::read(&file).map_err(|text| ConfigError {
            file: file.clone(),
            line: None,
            text,
        })?;
        let secret = secret::decode(&text).map_err(|text| ConfigError { file, line: None, text })?;
        config.secret = Some(secret);
    }
    Ok(config)
}

/// Where a cluster on this machine has its configuration, from the directory that a program is started in.
pub const LOCAL_CONFIG: &str = "conf/cluster.toml";
/// Where an installed server has its configuration.
pub const SYSTEM_CONFIG: &str = "/etc/syncnet/cluster.toml";

/// The configuration that was asked for, else the local one if there is one, else that of the system.
#[must_use]
pub fn find_config(given: Option<&Path>) -> PathBuf {
    match given {
        Some(path) => path.to_path_buf(),
        None if Path::new(LOCAL_CONFIG).exists() => PathBuf::from(LOCAL_CONFIG),
        None => PathBuf::from(SYSTEM_CONFIG),
    }
}

/// Where a server keeps its data: where it was told to, else beside other data of the system if the configuration is the
/// system's, else below the directory that it was started in.
#[must_use]
pub fn data_dir(config: &Path, given: Option<&Path>, id: ServerId) -> PathBuf {
    let root = match given {
        Some(path) => return path.to_path_buf(),
        None if config == Path::new(SYSTEM_CONFIG) => Path::new("/var/lib/syncnet"),
        None => Path::new("data"),
    };
    root.join(id.as_str())
}

/// Which of the servers this one is: the one that was asked for, else the one whose id or host is this machine's name (with or
/// without its domain).
///
/// # Errors
/// If there is none, in words that name those there are.
pub fn own_server(config: &Config, given: Option<&str>, machine: &str) -> Result<ServerId, String> {
    let short = machine.split('.').next().unwrap_or(machine);
    let all = || {
        config
            .servers
            .iter()
            .map(|s| s.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = match given {
        Some(id) => config.servers.iter().find(|s| s.id.as_str() == id),
        None => config.servers.iter().find(|s| {
            let id = s.id.as_str();
            [machine, short]
                .iter()
                .any(|name| name.eq_ignore_ascii_case(id) || name.eq_ignore_ascii_case(&s.host))
        }),
    };
    match (found, given) {
        (Some(server), _) => Ok(server.id),
        (None, Some(id)) => Err(format!("the configuration has no server {id:?}; it has {}", all())),
        (None, None) => Err(format!(
            "this machine is called {machine:?}, and no server of the configuration is; say which one this is with \
             --server-id (one of {})",
            all()
        )),
    }
}
