//! What must hold, checked while it happens: one leader a term, one vote a term, one log, one state, everything that was
//! acknowledged exactly once and in order. The oracle keeps a replica of its own, made from what the servers say is committed.

use std::collections::{BTreeMap, BTreeSet};

use syncnet::chat::command::{Command, Content, Outcome, Stamp};
use syncnet::chat::{State, content, origin};
use syncnet::cluster::Role;
use syncnet::cluster::message::{AppendResult, Entry, EntryKind, Message, Recovered};
use syncnet::node::Node;
use syncnet::types::{ClientSeq, Lamport, LogIndex, Position, RoomId, Seq, ServerId, SessionId, Term};
use syncnet::wire::client::{Item, What};
use syncnet::wire::command::open_payload;
use syncnet::wire::peer::PeerMessage;

use super::ages::Ages;
use super::counts::Counts;
use super::numbers::Numbers;
use super::plan::server_id;

/// An item of a room as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub seq: Seq,
    pub stamp: Stamp,
    pub session: SessionId,
    pub client_seq: ClientSeq,
    pub user: String,
    pub what: What,
    pub index: LogIndex,
}

/// What is known of one server over all its processes.
#[derive(Clone, Debug, Default)]
struct Watched {
    term: Term,
    commit: LogIndex,
    /// Committed entries up to here were compared.
    compared: LogIndex,
    applied: LogIndex,
    /// The highest term in which it gave a vote or led: its disk must know.
    promised: Term,
    /// Whether it has been without a vote.
    learner: bool,
    /// Entries that it said to be durable: (term of the leader, last index).
    durable: (Term, LogIndex),
}

/// The judge.
pub struct Oracle {
    model: State,
    entries: Vec<Entry>,
    digests: Vec<u64>,
    pub rooms: BTreeMap<RoomId, Vec<Made>>,
    texts: BTreeMap<String, (RoomId, Position)>,
    refused: BTreeSet<String>,
    /// The last number of a session whose command made an item.
    sessions: BTreeMap<SessionId, ClientSeq>,
    lamport: Lamport,
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(usize, Term), ServerId>,
    servers: Vec<Watched>,
    /// The highest acknowledged position of each room.
    pub acked: BTreeMap<RoomId, Position>,
    pub acks: u64,
    /// Rooms that clients were told of.
    pub known_rooms: BTreeMap<String, RoomId>,
    in_flight_leader: Option<usize>,
    ages: Ages,
    numbers: Numbers,
}

impl Oracle {
    pub fn new(servers: usize) -> Oracle {
        Oracle {
            model: State::new(),
            entries: Vec::new(),
            digests: Vec::new(),
            rooms: BTreeMap::new(),
            texts: BTreeMap::new(),
            refused: BTreeSet::new(),
            sessions: BTreeMap::new(),
            lamport: Lamport(0),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            servers: vec![Watched::default(); servers],
            acked: BTreeMap::new(),
            acks: 0,
            known_rooms: BTreeMap::from([("lobby".to_string(), RoomId::LOBBY)]),
            in_flight_leader: None,
            ages: Ages::default(),
            numbers: Numbers::default(),
        }
    }

    /// The replica that was made from the committed entries.
    pub fn model(&self) -> &State {
        &self.model
    }

    /// The committed entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The digest of the state that the entries up to this one make.
    pub fn digest_at(&self, index: LogIndex) -> Option<u64> {
        self.digests.get(index.0.checked_sub(1)? as usize).copied()
    }

    /// A server has recovered its log.
    pub fn restarted(&mut self, at: usize, recovered: &Recovered) -> Result<(), String> {
        let server = &mut self.servers[at];
        if recovered.state.term < server.promised {
            return Err(format!(
                "{} forgot a promise: it voted or led in term {}, and its disk knows {}",
                server_id(at),
                server.promised,
                recovered.state.term
            ));
        }
        let (term, index) = server.durable;
        // Only a later leader may have replaced entries that it said were durable.
        if recovered.last.index < index && recovered.state.term <= term {
            return Err(format!(
                "{} lost what it said was durable: entry {index}, and its log ends at {}",
                server_id(at),
                recovered.last.index
            ));
        }
        if recovered.state.commit > LogIndex(self.entries.len() as u64) {
            return Err(format!("{} recovers a commit that nobody made", server_id(at)));
        }
        // What wasn't durable may be forgotten; from here on nothing goes back again.
        server.term = recovered.state.term;
        server.commit = recovered.state.commit;
        server.compared = LogIndex(0);
        server.applied = LogIndex(0);
        Ok(())
    }

    /// A server begins anew with another directory: what it promised with the old one is void, and never heard of again.
    pub fn begins_anew(&mut self, at: usize) {
        self.servers[at] = Watched::default();
        self.votes.retain(|&(server, _), _| server != at);
    }

    /// A server says something to another: promises are noted.
    pub fn sends(&mut self, at: usize, to: ServerId, message: &PeerMessage) -> Result<(), String> {
        let PeerMessage::Cluster(message) = message else {
            return Ok(());
        };
        match message {
            Message::VoteAnswer {
                term, granted: true, ..
            } => {
                let server = &mut self.servers[at];
                server.promised = server.promised.max(*term);
                return self.voted(at, *term, to);
            }
            Message::AppendAnswer {
                term,
                result: AppendResult::Matched { durable, .. },
                ..
            } => {
                let server = &mut self.servers[at];
                server.durable = server.durable.max((*term, *durable));
            }
            _ => {}
        }
        Ok(())
    }

    fn voted(&mut self, at: usize, term: Term, candidate: ServerId) -> Result<(), String> {
        let before = *self.votes.entry((at, term)).or_insert(candidate);
        if before != candidate {
            return Err(format!(
                "{} voted for {before} and {candidate} in term {term}",
                server_id(at)
            ));
        }
        Ok(())
    }

    /// Looks at a server after a turn. `older` reads entries that the node doesn't keep in memory.
    pub fn observe(
        &mut self,
        at: usize,
        node: &Node,
        in_flight: bool,
        counts: &mut Counts,
        older: &mut dyn FnMut(LogIndex, LogIndex) -> Result<Vec<Entry>, String>,
    ) -> Result<(), String> {
        let cluster = node.cluster();
        let name = server_id(at);
        let (term, commit) = (cluster.term(), cluster.commit());
        let server = &mut self.servers[at];
        if term < server.term {
            return Err(format!("{name} went back from term {} to {term}", server.term));
        }
        if commit < server.commit {
            return Err(format!("{name} went back from commit {} to {commit}", server.commit));
        }
        (server.term, server.commit) = (term, commit);
        if cluster.formed() {
            let learner = cluster.role() == Role::Learner;
            if server.learner && !learner {
                counts.one("rejoins");
            }
            server.learner = learner;
        }
        if cluster.role() == Role::Leader {
            server.promised = server.promised.max(term);
            let leader = *self.leaders.entry(term).or_insert_with(|| {
                counts.one("elections");
                at
            });
            if leader != at {
                return Err(format!("term {term} has two leaders: {} and {name}", server_id(leader)));
            }
            if self.in_flight_leader != Some(at) && self.leaders.last_key_value() == Some((&term, &at)) {
                if self.in_flight_leader.is_some() && in_flight {
                    counts.one("fail-overs with messages in flight");
                }
                self.in_flight_leader = Some(at);
            }
        }
        while self.servers[at].compared < commit {
            let index = self.servers[at].compared.next();
            if let Some(entry) = cluster.entry(index) {
                self.committed(at, entry, counts)?;
                self.servers[at].compared = index;
                continue;
            }
            // Beyond what is durable the disk may still show entries that are being replaced.
            let entries = older(index, commit.min(cluster.durable()))?;
            if entries.first().is_none_or(|first| first.index != index) && index < cluster.base().index.next() {
                // A checkpoint stands for it.
                self.servers[at].compared = cluster.base().index;
                continue;
            }
            let missing = entries.first().is_none_or(|first| first.index != index);
            if missing && index <= cluster.durable() && index.0 <= self.entries.len() as u64 {
                // It can't be read here, which isn't noticed before somebody reads it; what it is was seen elsewhere.
                self.servers[at].compared = index;
                continue;
            }
            if missing {
                // Known to be committed, and not here yet.
                break;
            }
            for entry in entries {
                self.committed(at, &entry, counts)?;
                self.servers[at].compared = entry.index;
            }
        }
        let state = node.state();
        let applied = state.applied();
        if applied > commit {
            return Err(format!("{name} has applied {applied}, and only {commit} is committed"));
        }
        if applied < self.servers[at].applied {
            return Err(format!("{name} has applied {applied}, and had applied more"));
        }
        self.servers[at].applied = applied;
        if let Some(&digest) = applied.0.checked_sub(1).and_then(|at| self.digests.get(at as usize))
            && digest != state.digest()
        {
            return Err(format!("{name} has another state than the log makes at {applied}"));
        }
        Ok(())
    }

    /// A server says that this entry is committed.
    pub fn committed(&mut self, at: usize, entry: &Entry, counts: &mut Counts) -> Result<(), String> {
        let place = entry.index.0.wrapping_sub(1) as usize;
        if let Some(known) = self.entries.get(place) {
            if known != entry {
                return Err(format!(
                    "entry {} was committed with term {} and is committed at {} with term {}",
                    entry.index,
                    known.term,
                    server_id(at),
                    entry.term
                ));
            }
            return Ok(());
        }
        if place != self.entries.len() {
            return Ok(());
        }
        self.entries.push(entry.clone());
        self.apply(entry, counts)?;
        self.digests.push(self.model.digest());
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, counts: &mut Counts) -> Result<(), String> {
        if entry.kind != EntryKind::Command {
            self.model.skip(entry.index);
            return Ok(());
        }
        let opened = open_payload(&entry.payload);
        let (stamp, command) = opened.map_err(|error| format!("entry {} can't be read: {error}", entry.index))?;
        if stamp.lamport <= self.lamport {
            return Err(format!(
                "the Lamport time of entry {} is {} after {}",
                entry.index, stamp.lamport, self.lamport
            ));
        }
        self.lamport = stamp.lamport;
        self.count(&command, counts);
        let before = self.ages.before(&command, &self.model);
        let concerns = Numbers::concerns(&command, &self.model);
        let applied = self.model.apply(entry.index, &stamp, &command);
        let made = !applied.items.is_empty();
        self.ages
            .after(&before, (&stamp, &command), &self.model, made, counts)?;
        self.numbers
            .applied((entry.index, &command), concerns, made, &self.model)?;
        let keyed = matches!(&command, Command::Post { dedup: Some(_), .. });
        for &(room, position, seq) in applied.items.iter() {
            let said = said(&command);
            let (user, what) = said.ok_or_else(|| format!("entry {} makes an item of nothing", entry.index))?;
            let made = Made {
                seq,
                stamp,
                session: origin(&command).0,
                client_seq: origin(&command).1,
                user,
                what,
                index: entry.index,
            };
            self.made(room, position, made, keyed)?;
        }
        Ok(())
    }

    /// What the log shows of retries.
    fn count(&self, command: &Command, counts: &mut Counts) {
        if let Some(head) = content::head(command)
            && let Some(session) = self.model.session(head.session)
        {
            if head.seq <= session.last {
                counts.one("retries recognised");
            } else if head.seq > session.last.next() {
                counts.one("gaps recognised");
            }
        }
        if matches!(command, Command::Skip { .. }) {
            counts.one("refused at admission");
        }
    }

    fn made(&mut self, room: RoomId, position: Position, made: Made, keyed: bool) -> Result<(), String> {
        let items = self.rooms.entry(room).or_default();
        if position.0 != items.len() as u64 + 1 {
            return Err(format!(
                "room {room} has {} items, and the next is at {position}",
                items.len()
            ));
        }
        if let Some(last) = items.last()
            && made.stamp.time_ms < last.stamp.time_ms
        {
            return Err(format!("time goes back in room {room} at {position}"));
        }
        // What has a key may stand twice once the key is forgotten.
        if let What::Message(text) = &made.what
            && !keyed
        {
            if let Some((room, position)) = self.texts.insert(text.clone(), (room, position)) {
                return Err(format!("\"{text}\" stands twice: first in room {room} at {position}"));
            }
            if self.refused.contains(text) {
                return Err(format!("\"{text}\" was refused, and stands in room {room}"));
            }
        }
        if made.session.0 > 0 && made.client_seq.0 > 0 {
            let last = self.sessions.entry(made.session).or_default();
            if made.client_seq < *last {
                return Err(format!(
                    "session {}: {} stands behind {last}",
                    made.session, made.client_seq
                ));
            }
            *last = made.client_seq;
        }
        self.rooms.entry(room).or_default().push(made);
        Ok(())
    }

    // --- What clients are told ------------------------------------------------------------------

    /// A client was told that its message was posted.
    pub fn acknowledged(
        &mut self,
        text: &str,
        seen: Lamport,
        session: SessionId,
        number: ClientSeq,
        outcome: &Outcome,
    ) -> Result<(), String> {
        let Outcome::Posted {
            room,
            seq,
            position,
            lamport,
            time_ms,
        } = *outcome
        else {
            return Err(format!("\"{text}\" was answered with {outcome:?}"));
        };
        self.acks += 1;
        let made = self.item(room, position)?;
        let right = made.seq == seq
            && made.stamp.lamport == lamport
            && made.stamp.time_ms == time_ms
            && made.session == session
            && made.client_seq == number
            && made.what == What::Message(text.to_string());
        if !right {
            return Err(format!(
                "\"{text}\" of {session}/{number} was acknowledged as {outcome:?}, and there stands {made:?}"
            ));
        }
        if lamport <= seen {
            return Err(format!(
                "\"{text}\" was sent after {seen} was seen, and has Lamport time {lamport}"
            ));
        }
        let highest = self.acked.entry(room).or_default();
        *highest = position.max(*highest);
        Ok(())
    }

    /// A client was told that its message with a key was posted, now or earlier, in this session or another.
    pub fn acknowledged_by_key(&mut self, text: &str, outcome: &Outcome) -> Result<(), String> {
        let Outcome::Posted {
            room, seq, position, ..
        } = *outcome
        else {
            return Err(format!("\"{text}\" was answered with {outcome:?}"));
        };
        self.acks += 1;
        let made = self.item(room, position)?;
        if made.seq != seq || made.what != What::Message(text.to_string()) {
            return Err(format!(
                "\"{text}\" was acknowledged as {outcome:?}, and there stands {made:?}"
            ));
        }
        let highest = self.acked.entry(room).or_default();
        *highest = position.max(*highest);
        Ok(())
    }

    /// A client was told that its message was refused.
    pub fn refused(&mut self, text: &str) -> Result<(), String> {
        if let Some((room, position)) = self.texts.get(text) {
            return Err(format!(
                "\"{text}\" was refused, and stands in room {room} at {position}"
            ));
        }
        self.refused.insert(text.to_string());
        Ok(())
    }

    /// A client was shown an item.
    pub fn shown(&self, item: &Item) -> Result<(), String> {
        let made = self.item(item.room, item.position)?;
        let right = made.seq == item.seq
            && made.stamp.lamport == item.lamport
            && made.stamp.time_ms == item.time_ms
            && made.session == item.session
            && made.client_seq == item.client_seq
            && made.user == item.user
            && made.what == item.what;
        if right {
            Ok(())
        } else {
            Err(format!("a reader was shown {item:?}, and there stands {made:?}"))
        }
    }

    fn item(&self, room: RoomId, position: Position) -> Result<&Made, String> {
        let items = self.rooms.get(&room).map_or(&[][..], Vec::as_slice);
        items
            .get(position.0.wrapping_sub(1) as usize)
            .ok_or_else(|| format!("a client knows of room {room} at {position}, which isn't committed"))
    }

    /// Where the message of that number stands.
    pub fn position_of(&self, room: RoomId, seq: Seq) -> Option<Position> {
        let items = self.rooms.get(&room)?;
        let at = items.iter().position(|made| made.seq == seq)?;
        Some(Position(at as u64 + 1))
    }

    /// Whether there is a message among the items of a room from one position up to another, which isn't among them; `None` if some
    /// of them are still to be shown.
    pub fn skipped(&self, room: RoomId, from: Position, to: Position) -> Option<bool> {
        let items = self.rooms.get(&room).map_or(&[][..], Vec::as_slice);
        let from = from.0.saturating_sub(1) as usize;
        let skipped = items.get(from..to.0.saturating_sub(1) as usize)?;
        let gone = skipped.iter().all(|made| made.index <= self.model.trimmed());
        gone.then(|| skipped.iter().any(|made| made.seq != Seq(0)))
    }

    /// The room's last item.
    pub fn last_position(&self, room: RoomId) -> Position {
        Position(self.rooms.get(&room).map_or(0, |items| items.len() as u64))
    }
}

/// Who did what, as the items of a command say it.
fn said(command: &Command) -> Option<(String, What)> {
    let (user, what) = match content(command)? {
        Content::Message { user, text } => (user, What::Message(text.to_string())),
        Content::Created { user } => (user, What::Created),
        Content::Joined { user } => (user, What::Joined),
        Content::Left { user } => (user, What::Left),
        Content::Topic { user, text } => (user, What::Topic(text.to_string())),
        Content::Renamed { user, name } => (user, What::Renamed(name.to_string())),
    };
    Some((user.to_string(), what))
}
