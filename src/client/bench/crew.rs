//! Connections that are ready to work: to which servers, with which sessions and rooms, and how they end.

use std::borrow::Cow;

use super::net::Net;
use super::{Setup, Trouble};
use crate::chat::command::{Command, Head, Name, Outcome};
use crate::client::ask::survey;
use crate::client::health::Row;
use crate::client::key;
use crate::limits;
use crate::machine;
use crate::types::{ClientSeq, Lamport, Position, RoomId, SessionId};
use crate::wire::bulk::{Post, push_post};
use crate::wire::client::{MAGIC, Request, Response, Role, VERSIONS};
use crate::wire::command;

/// Descriptors for other things than connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// The servers: all of them, and those that the load goes to.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Id and `host:port` of every server that answers.
    pub servers: Vec<(String, String)>,
    /// `host:port` of those that get connections, in this order, round and round.
    pub targets: Vec<String>,
}

impl Cluster {
    /// Asks around. The load goes to the servers that were named on the command line; else to all, the leader first.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn find(setup: &Setup<'_>) -> Result<Cluster, Trouble> {
        let survey = survey(&setup.settings.servers, setup.timeout);
        let Some(name) = survey.cluster else {
            return Err(Trouble::silent("no server answers; name others with -s HOST:PORT"));
        };
        let mut online: Vec<&Row> = survey.rows.iter().filter(|row| row.answer.is_some()).collect();
        let leads = |row: &Row| row.answer.as_ref().is_some_and(|answer| answer.role == Role::Leader);
        online.sort_by_key(|row| !leads(row));
        let targets = if setup.settings.explicit {
            setup.settings.servers.clone()
        } else {
            online.iter().map(|row| row.address.clone()).collect()
        };
        online.sort_by_key(|row| row.ring);
        let servers = online.iter().map(|row| (row.name.clone(), row.address.clone()));
        Ok(Cluster {
            name,
            servers: servers.collect(),
            targets,
        })
    }

    /// Makes so many connections to the targets in turn, and says hello on each. Gives their numbers.
    ///
    /// # Errors
    /// If one can't be made.
    pub fn connect(&self, net: &mut Net, count: usize) -> Result<Vec<usize>, Trouble> {
        let wanted = count as u64 + DESCRIPTORS_SPARE;
        let granted = machine::raise_descriptors(wanted);
        if granted < wanted {
            return Err(Trouble::failed(format!(
                "{count} connections need {wanted} descriptors, and this process may have {granted} (see ulimit -Hn)"
            )));
        }
        let hello = |_| Request::Hello {
            magic: MAGIC,
            versions: VERSIONS,
            agent: format!("syncnetctl bench {}", env!("CARGO_PKG_VERSION")),
        };
        let mut links = Vec::with_capacity(count);
        while links.len() < count {
            // As many as a server takes in a turn or two: more would wait at its door, and be tried again after a second.
            let mut wave = Vec::new();
            for n in links.len()..count.min(links.len() + 2 * limits::ACCEPTS_PER_TURN) {
                let target = self.targets.get(n % self.targets.len().max(1));
                wave.push(net.connect(target.map_or("", String::as_str))?);
            }
            net.ask(&wave, hello, |_, response| {
                matches!(response, Response::Welcome { .. }).then_some(())
            })?;
            links.extend(wave);
        }
        Ok(links)
    }
}

/// A session of a connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its name at the cluster.
    pub id: SessionId,
    /// The user's name.
    pub name: String,
    /// The number of its last command.
    pub last: ClientSeq,
    /// The last that was acknowledged.
    pub acknowledged: ClientSeq,
    /// The highest timestamp that was seen.
    pub lamport: Lamport,
}

impl Session {
    /// Opens a session on each of these connections: `bench-1`, `bench-2` …, all by the user's key, so that the names are this
    /// user's own also when a run didn't end well.
    ///
    /// # Errors
    /// A refusal.
    pub fn open(net: &mut Net, setup: &Setup<'_>, links: &[usize]) -> Result<Vec<Session>, Trouble> {
        let (key, note) = key::load(setup.settings.key_file.as_deref());
        if let Some(note) = note {
            super::complain(&note);
        }
        let open = |n: usize| Request::Open {
            name: format!("bench-{}", n + 1),
            key,
            secret: key::session_secret(),
            lamport: Lamport(0),
        };
        net.ask(links, open, |_, response| match response {
            Response::Opened { session, last, name } => Some(Session {
                id: session,
                name,
                last,
                acknowledged: last,
                lamport: Lamport(0),
            }),
            _ => None,
        })
    }

    /// Appends the frame of a post of that number.
    pub fn post(&self, seq: ClientSeq, room: RoomId, text: &[u8], out: &mut Vec<u8>) {
        let post = Post {
            session: self.id,
            seq,
            unacknowledged: self.acknowledged.next(),
            lamport: self.lamport,
            room,
            user: &self.name,
            text,
        };
        push_post(&post, out);
    }

    /// How many commands aren't acknowledged.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.last.0 - self.acknowledged.0
    }

    fn head(&self) -> Head {
        Head {
            session: self.id,
            seq: self.last.next(),
            unacknowledged: self.acknowledged.next(),
            lamport: self.lamport,
        }
    }
}

/// Gives each of these connections a command to its session, and waits for what they come to.
fn command(
    net: &mut Net,
    links: &[usize],
    sessions: &mut [Session],
    make: impl Fn(Head, Cow<'static, str>) -> Command<'static>,
) -> Result<Vec<Outcome>, Trouble> {
    let given = |n: usize| match sessions.get(n) {
        Some(session) => Request::Command(command::encode(&make(session.head(), session.name.clone().into()))),
        None => Request::Ping { id: 0 },
    };
    let wanted: Vec<ClientSeq> = sessions.iter().map(|session| session.last.next()).collect();
    let outcomes = net.ask(links, given, |n, response| match response {
        Response::Acks(acks) => acks
            .into_iter()
            .find(|ack| Some(&ack.seq) == wanted.get(n))
            .map(|ack| ack.outcome),
        _ => None,
    })?;
    for session in sessions {
        session.last = session.last.next();
        session.acknowledged = session.last;
    }
    match outcomes.iter().find(|outcome| matches!(outcome, Outcome::Refused(_))) {
        Some(Outcome::Refused(code)) => Err(Trouble::refused(&code.to_string())),
        _ => Ok(outcomes),
    }
}

/// Finds rooms of these names, or makes them, by the first session. Each with its last position.
///
/// # Errors
/// A refusal.
pub fn rooms(
    net: &mut Net,
    link: usize,
    session: &mut Session,
    names: &[String],
) -> Result<Vec<(RoomId, Position)>, Trouble> {
    let mut rooms = Vec::new();
    for name in names {
        let make = |head, user| Command::Create {
            head,
            user,
            room: Name::new(name, name),
            or_find: true,
        };
        let outcomes = command(net, &[link], std::slice::from_mut(session), make)?;
        rooms.extend(outcomes.into_iter().filter_map(|outcome| match outcome {
            Outcome::Room { room, position, .. } => Some((room, position)),
            _ => None,
        }));
    }
    if rooms.len() == names.len() {
        return Ok(rooms);
    }
    Err(Trouble::wrong(
        "a server answered something else than a room".to_string(),
    ))
}

/// Makes every session a member of a room.
///
/// # Errors
/// A refusal.
pub fn join(net: &mut Net, links: &[usize], sessions: &mut [Session], room: &str) -> Result<(), Trouble> {
    let make = |head, user| Command::Join {
        head,
        user,
        room: Name::new(room, room),
    };
    command(net, links, sessions, make).map(drop)
}

/// Ends the sessions.
///
/// # Errors
/// A refusal.
pub fn close(net: &mut Net, links: &[usize], sessions: &mut [Session]) -> Result<(), Trouble> {
    command(net, links, sessions, |head, user| Command::Close { head, user }).map(drop)
}

/// Follows a room on each of these connections, from that position on.
///
/// # Errors
/// A refusal.
pub fn subscribe(net: &mut Net, links: &[usize], room: RoomId, from: Position) -> Result<(), Trouble> {
    use crate::wire::client::{From, Until};
    let question = |_| Request::Subscribe {
        id: 1,
        room,
        from: From::Position(from),
        until: Until::Forever,
    };
    let exist = net.ask(links, question, |_, response| match response {
        Response::Subscribed { exists, .. } => Some(exists),
        _ => None,
    })?;
    if exist.contains(&false) {
        return Err(Trouble::refused("a server doesn't know the room"));
    }
    Ok(())
}

/// Follows a room no more on each of these connections.
///
/// # Errors
/// A connection that is gone.
pub fn unsubscribe(net: &mut Net, links: &[usize], room: RoomId) -> Result<(), Trouble> {
    for &link in links {
        net.send(link, |out| {
            crate::wire::client::encode_request(&Request::Unsubscribe { room }, out);
        })?;
    }
    // Answered in order: behind it, nothing of the room comes any more.
    net.ask(
        links,
        |_| Request::Ping { id: 1 },
        |_, response| matches!(response, Response::Pong { .. }).then_some(()),
    )?;
    Ok(())
}
