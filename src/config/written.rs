//! The configuration as it is written, and the checks that make the other form of it.

use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

use super::quantity::{self, Duration, Size, show_duration, show_size};
use super::secret::HOW_TO_MAKE;
use super::{
    ChatConfig, Config, ConfigError, Election, LeaderMode, LogConfig, Retention, Routing, ServerConfig, Timing,
};
use crate::limits;
use crate::types::{RingPosition, ServerId, Span};

/// A configuration that is checked, but for the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Without the secret.
    pub config: Config,
    /// Where the secret is.
    pub secret_file: Option<PathBuf>,
}

/// Checks the text of a configuration. `file` names it in errors, and the secret is looked for beside it.
///
/// # Errors
/// If it says what can't be.
pub fn parse(text: &str, file: &Path) -> Result<Parsed, ConfigError> {
    let checker = Checker { text, file };
    let written: Written = toml::from_str(text).map_err(|e| unreadable(text, file, &e))?;
    checker.check(written)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cluster: Cluster,
    #[serde(default)]
    timing: WrittenTiming,
    #[serde(default)]
    heartbeat: Heartbeat,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    chat: Chat,
    #[serde(default)]
    server: Vec<Spanned<Server>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    name: Spanned<String>,
    secret_file: Option<PathBuf>,
    election: Option<WrittenElection>,
    leader: Option<WrittenLeader>,
    routing: Option<WrittenRouting>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenElection {
    Highest,
    Lcr,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenLeader {
    Preferred,
    Sticky,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenRouting {
    Forward,
    Redirect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTiming {
    heartbeat_interval: Option<Spanned<Duration>>,
    failure_timeout: Option<Spanned<Duration>>,
    election_timeout: Option<Spanned<Duration>>,
    connect_timeout: Option<Spanned<Duration>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heartbeat {
    multicast: Option<Spanned<String>>,
    interface: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    segment_size: Option<Spanned<Size>>,
    checkpoint_every: Option<Spanned<u64>>,
    retention: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chat {
    message_size_max: Option<Spanned<Size>>,
    session_expiry: Option<Spanned<Duration>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    id: Spanned<String>,
    ring_position: u16,
    host: Spanned<String>,
    listen: Option<Spanned<String>>,
    client_port: u16,
    http_port: u16,
    heartbeat_port: u16,
    peer_port: u16,
}

/// A value and where it stands; a default stands nowhere.
type Placed<T> = (T, Option<Range<usize>>);

struct Checker<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Checker<'_> {
    fn error<T>(&self, span: Option<Range<usize>>, text: String) -> Result<T, ConfigError> {
        Err(ConfigError {
            file: self.file.to_path_buf(),
            line: line(self.text, span),
            text,
        })
    }

    fn check(&self, written: Written) -> Result<Parsed, ConfigError> {
        let Cluster {
            name,
            secret_file,
            election,
            leader,
            routing,
        } = written.cluster;
        let clean = !name.get_ref().trim().is_empty() && !name.get_ref().chars().any(char::is_control);
        if !clean || name.get_ref().len() > limits::CLUSTER_NAME_BYTES_MAX {
            let max = limits::CLUSTER_NAME_BYTES_MAX;
            let text = format!("[cluster] name must have 1 to {max} bytes and no control characters");
            return self.error(Some(name.span()), text);
        }
        let servers = self.servers(written.server)?;
        if secret_file.is_none() {
            self.all_loopback(&servers)?;
        }
        let log = self.log(&written.log)?;
        let config = Config {
            name: name.into_inner(),
            secret: None,
            election: match election {
                None | Some(WrittenElection::Highest) => Election::Highest,
                Some(WrittenElection::Lcr) => Election::Lcr,
            },
            leader: match leader {
                None | Some(WrittenLeader::Preferred) => LeaderMode::Preferred,
                Some(WrittenLeader::Sticky) => LeaderMode::Sticky,
            },
            routing: match routing {
                None | Some(WrittenRouting::Forward) => Routing::Forward,
                Some(WrittenRouting::Redirect) => Routing::Redirect,
            },
            timing: self.timing(&written.timing)?,
            multicast: self.multicast(written.heartbeat.multicast.as_ref())?,
            interface: self.interface(written.heartbeat.interface.as_ref())?,
            log,
            chat: self.chat(&written.chat)?,
            servers: servers.into_iter().map(|(server, _)| server).collect(),
        };
        let beside = self.file.parent().unwrap_or(Path::new(""));
        Ok(Parsed {
            config,
            secret_file: secret_file.map(|file| beside.join(file)),
        })
    }

    fn timing(&self, written: &WrittenTiming) -> Result<Timing, ConfigError> {
        let get = |name: &str, written: &Option<Spanned<Duration>>, default_ms: u64| {
            let (span, at) = or_default(written.as_ref(), |d: &Duration| d.0, Span::from_ms(default_ms));
            if span.as_ms() == 0 || span > limits::TIMING_MAX {
                let max = show_duration(limits::TIMING_MAX);
                let shown = show_duration(span);
                return self.error(at, format!("{name} = \"{shown}\" must be between 1ms and {max}"));
            }
            Ok((span, at))
        };
        let (heartbeat_interval, at) = get("heartbeat_interval", &written.heartbeat_interval, 100)?;
        if heartbeat_interval < limits::HEARTBEAT_INTERVAL_MIN {
            let min = show_duration(limits::HEARTBEAT_INTERVAL_MIN);
            return self.error(
                at,
                format!(
                    "heartbeat_interval = \"{}\" must be at least {min}: shorter ones cost more than they find out sooner",
                    show_duration(heartbeat_interval)
                ),
            );
        }
        // Three, so that one lost heartbeat and one late one don't look like a dead server.
        let least = heartbeat_interval.times(3);
        let three = |name: &str, (span, at): Placed<Span>| {
            if span >= least {
                return Ok(span);
            }
            let (shown, heartbeat, least) = (
                show_duration(span),
                show_duration(heartbeat_interval),
                show_duration(least),
            );
            // Where only the heartbeat was written, that is the line to look at.
            let at = at.or_else(|| written.heartbeat_interval.as_ref().map(Spanned::span));
            self.error(
                at,
                format!(
                    "{name} = \"{shown}\" is less than three heartbeats (heartbeat_interval = \"{heartbeat}\"), so that one \
                     that is lost and one that is late would look like a dead server; set it to \"{least}\" or more"
                ),
            )
        };
        Ok(Timing {
            heartbeat_interval,
            failure_timeout: three(
                "failure_timeout",
                get("failure_timeout", &written.failure_timeout, 500)?,
            )?,
            election_timeout: three(
                "election_timeout",
                get("election_timeout", &written.election_timeout, 500)?,
            )?,
            connect_timeout: get("connect_timeout", &written.connect_timeout, 3_000)?.0,
        })
    }

    fn multicast(&self, written: Option<&Spanned<String>>) -> Result<Option<SocketAddrV4>, ConfigError> {
        let Some(written) = written else {
            return Ok(None);
        };
        let text = written.get_ref();
        match text.parse::<SocketAddrV4>() {
            Ok(group) if group.ip().is_multicast() && group.port() != 0 => Ok(Some(group)),
            _ => self.error(
                Some(written.span()),
                format!(
                    "multicast = {text:?} isn't an IPv4 multicast address and port such as \"239.255.83.78:8020\"; \
                     leave the line out for heartbeats by unicast"
                ),
            ),
        }
    }

    fn interface(&self, written: Option<&Spanned<String>>) -> Result<Option<Ipv4Addr>, ConfigError> {
        let Some(written) = written else {
            return Ok(None);
        };
        let text = written.get_ref();
        match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => self.error(
                Some(written.span()),
                format!("interface = {text:?} isn't an IPv4 address of this machine, such as \"10.0.0.5\""),
            ),
        }
    }

    fn log(&self, written: &Log) -> Result<LogConfig, ConfigError> {
        let (segment_size, at) = or_default(
            written.segment_size.as_ref(),
            |s: &Size| s.0,
            limits::SEGMENT_BYTES_DEFAULT,
        );
        if !(limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&segment_size) {
            let (min, max) = (
                show_size(limits::SEGMENT_BYTES_MIN),
                show_size(limits::SEGMENT_BYTES_MAX),
            );
            let shown = show_size(segment_size);
            return self.error(
                at,
                format!("segment_size = \"{shown}\" must be between {min} and {max}"),
            );
        }
        let (checkpoint_every, at) = or_default(written.checkpoint_every.as_ref(), |n: &u64| *n, 100_000);
        if checkpoint_every == 0 {
            return self.error(
                at,
                "checkpoint_every = 0 must be 1 log entry at least, such as 100000".to_string(),
            );
        }
        let retention = match &written.retention {
            None => Retention::Forever,
            Some(written) => self.retention(written, segment_size)?,
        };
        Ok(LogConfig {
            segment_size,
            checkpoint_every,
            digest_every: limits::DIGEST_EVERY,
            retention,
        })
    }

    fn retention(&self, written: &Spanned<String>, segment_size: u64) -> Result<Retention, ConfigError> {
        let text = written.get_ref();
        let at = Some(written.span());
        if text == "forever" {
            return Ok(Retention::Forever);
        }
        if let Ok(size) = quantity::size(text) {
            // What is given up goes in whole segments, and the newest is being written: with less, hardly anything could stay.
            let least = segment_size.saturating_mul(limits::RETENTION_SEGMENTS_MIN);
            if size < least {
                let least = show_size(least);
                let segments = limits::RETENTION_SEGMENTS_MIN;
                return self.error(
                    at,
                    format!("retention = {text:?} must be at least {segments} segments: {least} or more"),
                );
            }
            return Ok(Retention::Size(size));
        }
        match quantity::duration(text) {
            Ok(age) if age >= limits::RETENTION_AGE_MIN => Ok(Retention::Age(age)),
            Ok(_) => {
                let least = show_duration(limits::RETENTION_AGE_MIN);
                self.error(at, format!("retention = {text:?} must be {least} or more"))
            }
            _ => self.error(
                at,
                format!(
                    "retention = {text:?} must be \"forever\", an age such as \"90d\", or a size such as \"20GiB\""
                ),
            ),
        }
    }

    fn chat(&self, written: &Chat) -> Result<ChatConfig, ConfigError> {
        let default = limits::MESSAGE_BYTES_DEFAULT as u64;
        let (bytes, at) = or_default(written.message_size_max.as_ref(), |s: &Size| s.0, default);
        let message_size_max = match usize::try_from(bytes) {
            Ok(bytes) if (1..=limits::MESSAGE_BYTES_CEILING).contains(&bytes) => bytes,
            _ => {
                let max = show_size(limits::MESSAGE_BYTES_CEILING as u64);
                let shown = show_size(bytes);
                return self.error(
                    at,
                    format!("message_size_max = \"{shown}\" must be between 1B and {max}"),
                );
            }
        };
        let default = limits::SESSION_EXPIRY_DEFAULT;
        let (session_expiry, at) = or_default(written.session_expiry.as_ref(), |d: &Duration| d.0, default);
        if session_expiry < limits::NAME_RELEASE {
            let min = show_duration(limits::NAME_RELEASE);
            let shown = show_duration(session_expiry);
            return self.error(
                at,
                format!(
                    "session_expiry = \"{shown}\" must be at least {min}, after which a silent client's name is free"
                ),
            );
        }
        Ok(ChatConfig {
            message_size_max,
            session_expiry,
            name_release: limits::NAME_RELEASE,
            touch_interval: limits::TOUCH_INTERVAL,
        })
    }

    /// Sorted by id, each with where it stands.
    fn servers(&self, written: Vec<Spanned<Server>>) -> Result<Vec<Placed<ServerConfig>>, ConfigError> {
        let max = limits::SERVERS_MAX;
        if written.is_empty() {
            return self.error(
                None,
                "there is no [[server]]; a cluster has 1 or more, best 3 or 5".to_string(),
            );
        }
        if written.len() > max {
            let n = written.len();
            return self.error(
                written.last().map(Spanned::span),
                format!("there are {n} servers, and at most {max} can be: more make every message wait for more disks"),
            );
        }
        let mut servers: Vec<Placed<ServerConfig>> = Vec::new();
        for server in written {
            let at = server.span();
            let server = self.server(server.into_inner(), &at)?;
            if let Some(text) = servers.iter().find_map(|(other, _)| collision(other, &server)) {
                return self.error(Some(at), text);
            }
            servers.push((server, Some(at)));
        }
        servers.sort_by_key(|(server, _)| server.id);
        Ok(servers)
    }

    fn server(&self, written: Server, at: &Range<usize>) -> Result<ServerConfig, ConfigError> {
        let Some(id) = ServerId::new(written.id.get_ref()) else {
            return self.error(
                Some(written.id.span()),
                format!(
                    "id = {:?} must be 1 to {} ASCII letters, digits, '-', '_' or '.', such as \"server1\"",
                    written.id.get_ref(),
                    limits::SERVER_ID_BYTES_MAX
                ),
            );
        };
        let host = written.host.get_ref();
        let wildcard = host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified() || ip.is_multicast());
        if wildcard || !is_host(host) {
            return self.error(
                Some(written.host.span()),
                format!(
                    "host = {host:?} must be the address or name that others connect to, such as \"10.0.0.5\"; what is bound \
                     can be told apart with listen"
                ),
            );
        }
        if let Some(listen) = &written.listen
            && listen.get_ref().parse::<IpAddr>().is_err()
        {
            return self.error(
                Some(listen.span()),
                format!(
                    "listen = {:?} must be an address of the server, or \"0.0.0.0\" for all of them",
                    listen.get_ref()
                ),
            );
        }
        let ports = [
            ("client_port", written.client_port),
            ("http_port", written.http_port),
            ("peer_port", written.peer_port),
            ("heartbeat_port", written.heartbeat_port),
        ];
        if let Some((name, _)) = ports.iter().find(|(_, port)| *port == 0) {
            let text = format!("{name} = 0 of {id} must be 1 to 65535: others must know it");
            return self.error(Some(at.clone()), text);
        }
        // The heartbeats are UDP, the other three TCP.
        let mut tcp = ports.iter().take(3);
        while let Some((name, port)) = tcp.next() {
            if let Some((other, _)) = tcp.clone().find(|(_, other)| other == port) {
                let text = format!("{name} and {other} of {id} are both {port}; give each its own");
                return self.error(Some(at.clone()), text);
            }
        }
        Ok(ServerConfig {
            id,
            ring: RingPosition(written.ring_position),
            host: written.host.into_inner(),
            listen: written.listen.map(Spanned::into_inner),
            client_port: written.client_port,
            http_port: written.http_port,
            heartbeat_port: written.heartbeat_port,
            peer_port: written.peer_port,
        })
    }

    fn all_loopback(&self, servers: &[Placed<ServerConfig>]) -> Result<(), ConfigError> {
        for (server, at) in servers {
            let addresses = [("host", Some(&server.host)), ("listen", server.listen.as_ref())];
            for (name, address) in addresses {
                if let Some(address) = address.filter(|address| !is_loopback(address)) {
                    return self.error(
                        at.clone(),
                        format!(
                            "{name} = {address:?} of {} can be reached from other machines, but the cluster has no secret, so \
                             anybody could join it. Set secret_file = \"cluster.secret\" in [cluster]; {HOW_TO_MAKE}",
                            server.id
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

fn line(text: &str, span: Option<Range<usize>>) -> Option<usize> {
    let before = text.get(..span?.start)?;
    Some(before.matches('\n').count() + 1)
}

/// What `toml` says of the text of a file, and for a misspelt word the known one that is nearest.
pub(crate) fn unreadable(text: &str, file: &Path, error: &toml::de::Error) -> ConfigError {
    let message = error.message().trim().replace('\n', " ");
    let hint = nearest(&message).map(|word| format!("; did you mean `{word}`?"));
    ConfigError {
        file: file.to_path_buf(),
        line: line(text, error.span()),
        text: message + &hint.unwrap_or_default(),
    }
}

/// The value of a key that may be left out.
fn or_default<W, T>(written: Option<&Spanned<W>>, value: impl Fn(&W) -> T, default: T) -> Placed<T> {
    match written {
        Some(written) => (value(written.get_ref()), Some(written.span())),
        None => (default, None),
    }
}

/// What two servers can't have in common, in words.
fn collision(one: &ServerConfig, two: &ServerConfig) -> Option<String> {
    if one.id == two.id {
        return Some(format!("two servers have the id \"{}\"; give each its own", one.id));
    }
    if one.ring == two.ring {
        return Some(format!(
            "{} and {} have the same ring_position {}; give each its own",
            one.id, two.id, one.ring
        ));
    }
    if !one.host.eq_ignore_ascii_case(&two.host) {
        return None;
    }
    let tcp = |s: &ServerConfig| {
        [
            ("client_port", s.client_port),
            ("http_port", s.http_port),
            ("peer_port", s.peer_port),
        ]
    };
    let both = |(a, port): (&str, u16), (b, _)| {
        let (one, two, host) = (one.id, two.id, &one.host);
        format!("{a} of {one} and {b} of {two} are both {port} on {host}; give each its own")
    };
    for a in tcp(one) {
        if let Some(b) = tcp(two).into_iter().find(|b| a.1 == b.1) {
            return Some(both(a, b));
        }
    }
    let port = "heartbeat_port";
    (one.heartbeat_port == two.heartbeat_port).then(|| both((port, one.heartbeat_port), (port, two.heartbeat_port)))
}

fn is_host(text: &str) -> bool {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    text.parse::<IpAddr>().is_ok() || is_name(text)
}

fn is_loopback(address: &str) -> bool {
    address.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// In a message such as "unknown field `a`, expected one of `b`, `c`": the expected word that is nearest to the unknown one, if
/// one is near.
fn nearest(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    let (distance, word) = words.map(|word| (distance(unknown, word), word)).min()?;
    (distance <= word.len() / 3 + 1).then_some(word)
}

/// How many letters must be changed, added or removed (Levenshtein).
pub(crate) fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().take(100).enumerate() {
        let mut next = vec![i + 1];
        for ((above_left, above), b) in row.iter().zip(row.iter().skip(1)).zip(&two) {
            let left = next.last().copied().unwrap_or(0);
            let change = above_left + usize::from(a != *b);
            next.push(change.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
